"""Tracking protocols against closed forms (the sheet's checks 11 to 14), and against slow implementations of their own.

Each protocol has an oracle below that is written frame by frame from its definition, without arrays.
"""

import math

import numpy as np
import pytest

from labkit.data import tracking as data
from labkit.data.tracking.development import is_there
from labkit.errors import InputError
from labkit.metrics import tracking as metrics
from labkit.metrics.tracking import presence, supervised
from labkit.metrics.tracking.supervised import FAILED, SKIPPED, STARTED, TRACKED, SupervisedRun

RANDOM = np.random.default_rng(7)


def random_boxes(count: int, spread: float = 20.0) -> np.ndarray:
    corner, size = RANDOM.uniform(0, spread, (count, 2)), RANDOM.uniform(2, 30, (count, 2))
    return np.concatenate([corner, size], axis=1)


def rotated(boxes: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Corners of boxes turned about their centres."""
    corners = metrics.box_polygons(boxes).reshape(-1, 4, 2)
    centre = corners.mean(1, keepdims=True)
    c, s = np.cos(angles), np.sin(angles)
    turn = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)
    return (centre + np.einsum("tij,tnj->tni", turn, corners - centre)).reshape(-1, 8)


# ---- overlap --------------------------------------------------------------------------------------------------------


def test_known_overlaps():
    first = np.array([[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 0, 0]], dtype=float)
    second = np.array([[1, 1, 2, 2], [2, 0, 2, 2], [0, 0, 2, 2], [0, 0, 0, 0]], dtype=float)
    assert metrics.box_overlaps(first, second).tolist() == [1 / 7, 0, 1, 0]
    np.testing.assert_allclose(metrics.polygon_overlaps(*map(metrics.box_polygons, (first, second))), [1 / 7, 0, 1, 0])


def test_counting_pixels_instead_changes_nothing():
    """Both corners inside, sizes from x to x + w - 1: the shift is the same for both boxes and cancels, in overlaps, in
    centre errors and in normalized ones. (Toolkits that differ in this differ in nothing.)"""
    first, second = random_boxes(200), random_boxes(200)
    corner = np.maximum(first[:, :2], second[:, :2])
    last = np.minimum(first[:, :2] + first[:, 2:] - 1, second[:, :2] + second[:, 2:] - 1)
    shared = np.clip(last - corner + 1, 0, None).prod(1)
    inclusive = shared / (first[:, 2:].prod(1) + second[:, 2:].prod(1) - shared)
    np.testing.assert_allclose(metrics.box_overlaps(first, second), inclusive, atol=1e-12)
    centres = [boxes[:, :2] + (boxes[:, 2:] - 1) / 2 for boxes in (first, second)]
    for scale, normalized in ((1.0, False), (second[:, 2:], True)):
        expected = np.linalg.norm(centres[0] / scale - centres[1] / scale, axis=1)
        actual = metrics.centre_errors(first, second, normalized=normalized)
        np.testing.assert_allclose(actual, expected, atol=1e-12)


def test_upright_polygons_overlap_like_boxes():
    first, second = random_boxes(500), random_boxes(500)
    polygons = metrics.polygon_overlaps(metrics.box_polygons(first), metrics.box_polygons(second))
    np.testing.assert_allclose(polygons, metrics.box_overlaps(first, second), atol=1e-12)


def test_rotated_overlap_does_not_depend_on_order_direction_or_turn():
    first, second = (rotated(random_boxes(300), RANDOM.uniform(0, 7, 300)) for _ in range(2))
    overlap = metrics.polygon_overlaps(first, second)
    assert 0.1 < overlap.mean() < 0.6
    np.testing.assert_allclose(metrics.polygon_overlaps(second, first), overlap, atol=1e-12)
    backwards = second.reshape(-1, 4, 2)[:, ::-1].reshape(-1, 8)
    np.testing.assert_allclose(metrics.polygon_overlaps(first, backwards), overlap, atol=1e-12)
    later = np.roll(second.reshape(-1, 4, 2), 1, axis=1).reshape(-1, 8)
    np.testing.assert_allclose(metrics.polygon_overlaps(first, later), overlap, atol=1e-12)
    both = [(p.reshape(-1, 4, 2) @ np.array([[0.6, 0.8], [-0.8, 0.6]]) + 5).reshape(-1, 8) for p in (first, second)]
    np.testing.assert_allclose(metrics.polygon_overlaps(*both), overlap, atol=1e-10)
    np.testing.assert_allclose(metrics.polygon_overlaps(first, first), 1, atol=1e-12)


def test_a_square_and_its_turn_by_45_degrees():
    """Side 1: the octagon in common has area 2 (sqrt(2) - 1), hence an overlap of 1 / sqrt(2)."""
    square = np.array([[3.0, 4.0, 1.0, 1.0]])
    turned = rotated(square, np.array([math.pi / 4]))
    np.testing.assert_allclose(metrics.polygon_overlaps(metrics.box_polygons(square), turned), [1 / math.sqrt(2)])


def test_polygons_against_opencv():
    cv2 = pytest.importorskip("cv2", reason="needs the extra 'peers'")
    first, second = (rotated(random_boxes(300), RANDOM.uniform(0, 7, 300)) for _ in range(2))
    actual = metrics.polygon_overlaps(first, second)
    for one, other, overlap in zip(first, second, actual, strict=True):
        pair = [corners.reshape(4, 2).astype(np.float32) for corners in (one, other)]
        shared, _ = cv2.intersectConvexConvex(*pair)
        union = cv2.contourArea(pair[0]) + cv2.contourArea(pair[1]) - shared
        assert overlap == pytest.approx(shared / union, abs=2e-4)  # it computes in float32


def test_only_what_lies_in_the_image_counts():
    """Half of the truth is outside: a prediction that covers the visible half is perfect."""
    truth = metrics.box_polygons(np.array([[-10.0, 0, 20, 10], [5, 5, 10, 10], [-30, -30, 5, 5]]))
    predicted = metrics.box_polygons(np.array([[0.0, 0, 10, 10], [5, 5, 20, 10], [-30, -30, 5, 5]]))
    actual = metrics.polygon_overlaps(truth, predicted, (20.0, 20.0))
    np.testing.assert_allclose(actual, [1, 100 / 150, 0], atol=1e-12)


def test_polygons_that_are_none():
    good = metrics.box_polygons(np.array([[0.0, 0, 2, 2]]))
    assert np.isnan(metrics.polygon_overlaps(good, np.full((1, 8), np.nan))).all()
    assert metrics.polygon_overlaps(good, np.zeros((1, 8))).tolist() == [0]
    with pytest.raises(InputError, match="got 1 and 2"):
        metrics.polygon_overlaps(good, np.zeros((2, 8)))


def test_many_polygons_far_from_the_origin_stay_exact():
    """Catches a shoelace formula about the origin: at 1e7 its terms are 1e14, and an area of 4 drowns."""
    boxes = random_boxes(50)
    shift = np.array([1e7, 1e7, 0, 0])
    near = metrics.polygon_overlaps(metrics.box_polygons(boxes), metrics.box_polygons(boxes[::-1]))
    moved = (metrics.box_polygons(each + shift) for each in (boxes, boxes[::-1]))
    np.testing.assert_allclose(metrics.polygon_overlaps(*moved), near, atol=1e-6)


# ---- one pass -------------------------------------------------------------------------------------------------------


def shifted_to_overlap(truth: np.ndarray, overlap: float) -> np.ndarray:
    """Boxes of the same size beside the truth: shared part s of the width gives s / (2 - s)."""
    shared = 2 * overlap / (1 + overlap)
    return truth + np.stack([truth[:, 2] * (1 - shared), *np.zeros((3, len(truth)))], axis=1)


def test_a_perfect_tracker_scores_20_of_21():
    truth = random_boxes(40)
    perfect = metrics.one_pass(truth, truth)
    assert perfect.auc == pytest.approx(20 / 21)
    assert perfect.success[-1] == 0  # an overlap of 1 is not greater than 1
    assert (perfect.precision_at_20, perfect.precision[0], perfect.lost, perfect.mean_overlap) == (1, 1, 0, 1)
    assert perfect.normalized_auc == 1


@pytest.mark.parametrize("overlap", [0.01, 0.12, 0.33, 0.51, 0.77, 0.98])
def test_a_constant_overlap_has_a_closed_form(overlap):
    """ceil(20 c) thresholds lie below c. The first frame is overwritten by the truth."""
    truth = random_boxes(50)
    predicted = shifted_to_overlap(truth, overlap)
    over = metrics.one_pass(predicted, truth).auc
    assert over == pytest.approx((49 * math.ceil(20 * overlap) + 20) / 21 / 50)


def slow_one_pass(predicted, truth, missed):
    """Success, precision and normalized precision by counting, one frame and threshold at a time."""
    success, precision, normalized, frames = [0] * 21, [0] * 51, [0] * 51, 0
    for t, ((x, y, w, h), (u, v, a, b)) in enumerate(zip(predicted, truth, strict=True)):
        if math.isnan(u) or a <= 0 or b <= 0:
            frames += missed
            continue
        frames += 1
        if t == 0:
            x, y, w, h = u, v, a, b
        shared = max(0, min(x + w, u + a) - max(x, u)) * max(0, min(y + h, v + b) - max(y, v))
        overlap = min(1.0, shared / (w * h + a * b - shared))
        dx, dy = (x + w / 2) - (u + a / 2), (y + h / 2) - (v + b / 2)
        for k in range(21):
            success[k] += overlap > k / 20
        for k in range(51):
            precision[k] += math.hypot(dx, dy) <= k
            normalized[k] += math.hypot(dx / a, dy / b) <= k / 100
    return [np.array(curve) / frames for curve in (success, precision, normalized)]


@pytest.mark.parametrize("invisible", ["excluded", "missed"])
def test_one_pass_against_counting(invisible):
    truth, predicted = random_boxes(80), random_boxes(80)
    truth[5:9], truth[20, 2] = np.nan, 0.0
    actual = metrics.one_pass(predicted, truth, invisible=invisible)
    for mine, slow in zip(
        (actual.success, actual.precision, actual.normalized),
        slow_one_pass(predicted, truth, invisible == "missed"),
        strict=True,
    ):
        np.testing.assert_allclose(mine, slow, atol=1e-12)
    assert actual.frames == (80 if invisible == "missed" else 75)


def test_absent_frames_are_unseen_even_when_they_carry_a_box():
    truth = random_boxes(10)
    absent = np.arange(10) >= 5
    assert metrics.one_pass(truth, truth, absent=absent, invisible="missed").precision_at_20 == 0.5
    assert metrics.one_pass(truth, truth, absent=absent).frames == 5


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p, t: (p[:-1], t), "got 4 for 5"),
        (
            lambda p, t: (np.where(np.arange(20).reshape(5, 4) == 9, np.nan, p), t),
            r"prediction 2 is no box.*keep the last",
        ),
        (lambda p, t: (p - [0, 0, 100, 0], t), "prediction 0 is no box"),
        (lambda p, t: (p, t * np.nan), "nothing to score"),
    ],
)
def test_one_pass_refuses(spoil, message):
    with pytest.raises(InputError, match=message):
        metrics.one_pass(*spoil(random_boxes(5), random_boxes(5)))


STATIC = {
    "Jogging2": (0.4652, 0.5342),
    "DragonBaby": (0.2634, 0.2301),
    "Crossing": (0.0405, 0.1167),
    "bag": (0.0352, 0.0051),
    "TLD_pedestrian2": (0.0492, 0.0902),
}


@pytest.mark.skipif(not is_there(), reason="LABKIT_DATA holds no tracking/ (research-only sequences)")
@pytest.mark.parametrize("name", STATIC)
def test_the_static_box_on_real_sequences(name):
    """Sheet, check 14: a row measured by an independent script, to four decimals."""
    (sequence,) = data.development([name])
    still = np.tile(sequence.boxes[0], (len(sequence), 1))
    actual = metrics.one_pass(still, sequence.boxes, absent=sequence.absent)
    assert (round(actual.auc, 4), round(actual.precision_at_20, 4)) == STATIC[name]


# ---- VOT ------------------------------------------------------------------------------------------------------------


def coded_run(name: str, text: str, overlap=lambda t: 0.5) -> SupervisedRun:
    """'S' start, 'F' failure, '0' skipped, 't' tracked."""
    codes = np.array([{"S": STARTED, "F": FAILED, "0": SKIPPED, "t": TRACKED}[letter] for letter in text])
    overlaps = np.array([overlap(t) if code == TRACKED else 0.0 for t, code in enumerate(codes)])
    return SupervisedRun(name, codes, overlaps)


def random_run(name: str, length: int) -> SupervisedRun:
    """Fails at random, is started again five frames later."""
    text = ""
    while len(text) < length:
        text += "S" + "t" * int(RANDOM.integers(3, 60)) + "F0000"
    run = coded_run(name, text[:length])
    tracked = run.codes == TRACKED
    run.overlaps[tracked] = RANDOM.uniform(0.01, 1, tracked.sum())
    return run


def slow_eao_curve(runs):
    """The curve by its definition, a length at a time."""
    pieces = []
    for run in runs:
        piece = None
        for code, overlap in zip(run.codes.tolist(), run.overlaps.tolist(), strict=True):
            if code == STARTED:
                piece = [0.0]
            elif code == TRACKED:
                piece.append(overlap)
            elif code == FAILED:
                pieces.append((piece, False))
                piece = None
        if piece is not None:
            pieces.append((piece, True))
    curve = [0.0]
    for j in range(1, max(len(piece) for piece, _ in pieces)):
        means = []
        for piece, success in pieces:
            if success and len(piece) <= j:
                continue  # it might have gone on; nobody knows how
            means.append(sum(piece[1 : j + 1]) / j)
        curve.append(sum(means) / len(means))
    return np.array(curve)


def test_eao_curve_against_its_definition():
    runs = [random_run(f"s{k}", length) for k, length in enumerate([400, 120, 333, 57, 90])]
    runs += [random_run("s0", 400)]  # a second repetition
    np.testing.assert_allclose(metrics.eao_curve(runs), slow_eao_curve(runs), atol=1e-12)
    curve = slow_eao_curve(runs)
    assert metrics.eao(runs, (46, 291)) == pytest.approx(curve[46:292].mean())


def test_a_constant_overlap_without_failures_is_its_own_expectation():
    """Sheet, check 12."""
    runs = [coded_run(name, "S" + "t" * 400, lambda t: 0.6) for name in "ab"]
    for window in metrics.WINDOWS.values():
        assert metrics.eao(runs, window) == pytest.approx(0.6)


def test_one_failure_is_padded_with_zeros():
    """Fails at frame f and is never started again: curve(j) = c min(j, f - 1) / j."""
    f, c = 120, 0.7
    failed = coded_run("a", "S" + "t" * (f - 1) + "F", lambda t: c)
    long = coded_run("b", "S" + "t" * 400, lambda t: c)
    j = np.arange(1, 401)
    padded = c * np.minimum(j, f - 1) / j
    np.testing.assert_allclose(metrics.eao_curve([failed, long])[1:], (padded + c) / 2)
    np.testing.assert_allclose(metrics.eao_curve([failed])[1:], padded[: f - 1])


def test_a_short_success_says_nothing_about_longer_runs():
    """Catches padding of successes: then short sequences would pull the expectation down."""
    short, long = coded_run("a", "S" + "t" * 50, lambda t: 0.9), coded_run("b", "S" + "t" * 400, lambda t: 0.3)
    curve = metrics.eao_curve([short, long])
    assert curve[50] == pytest.approx(0.6)
    assert curve[51] == pytest.approx(0.3)


def test_both_ends_of_the_window_count():
    """Overlap 1 in frame 4 only: the curve is 0, 0, 0, 1/4, 1/5, ... from j = 1."""
    run = coded_run("a", "S" + "t" * 9, lambda t: float(t == 4))
    assert metrics.eao([run], (2, 4)) == pytest.approx((0 + 0 + 1 / 4) / 3)
    assert metrics.eao([run], (4, 5)) == pytest.approx((1 / 4 + 1 / 5) / 2)
    assert metrics.eao([run], (8, 100)) == pytest.approx((1 / 8 + 1 / 9) / 2)  # as far as the runs reach


def test_windows_of_the_two_years_differ():
    run = coded_run("a", "S" + "t" * 400, lambda t: 1.0 if t < 90 else 0.2)
    assert metrics.eao([run], metrics.WINDOWS["vot2019"]) > metrics.eao([run], metrics.WINDOWS["vot2018"]) + 0.05


def test_fragments_end_before_the_failure_and_leave_out_what_was_skipped():
    run = coded_run("a", "SttF0000StS"[:10])
    assert [(len(p.overlaps), p.success) for p in supervised.fragments(run)] == [(3, False), (2, True)]
    assert [(len(p.overlaps), p.success) for p in supervised.fragments(coded_run("a", "SttF00"))] == [(3, False)]


def test_accuracy_leaves_out_ten_frames_from_each_start():
    run = coded_run("a", "S" + "t" * 12 + "F0000S" + "t" * 11, lambda t: float(t))
    assert supervised.accuracy(run) == pytest.approx(np.mean([10, 11, 12, 28, 29]))
    assert supervised.accuracy(run, burn_in=1) == pytest.approx(np.mean([*range(1, 13), *range(19, 30)]))
    assert math.isnan(supervised.accuracy(coded_run("a", "S" + "t" * 9)))


def test_robustness_in_both_conventions():
    """Two sequences of 100 and 300 frames with 1 and 2 failures, the second repeated with 4."""
    tail = "F0000S" + "t" * 44
    runs = [coded_run("a", "S" + "t" * 49 + tail), coded_run("b", "S" + "t" * 199 + tail * 2)]
    runs += [coded_run("b", "S" + "t" * 99 + tail * 4)]
    assert [len(run) for run in runs] == [100, 300, 300]
    actual = metrics.accuracy_robustness(runs)
    failures = (1 * 100 + 3 * 300) / 400
    assert actual.failures == pytest.approx(failures)
    assert actual.robustness == pytest.approx(math.exp(-30 * failures / 200))
    assert actual.accuracy == pytest.approx(0.5)
    pysot = metrics.accuracy_robustness(runs, "pysot")
    assert (pysot.failures, pysot.robustness) == pytest.approx((4, 100 * 4 / 400))


def test_longer_sequences_weigh_more_in_the_toolkits_accuracy():
    runs = [coded_run("a", "S" + "t" * 99, lambda t: 0.8), coded_run("b", "S" + "t" * 299, lambda t: 0.4)]
    assert metrics.accuracy_robustness(runs).accuracy == pytest.approx((0.8 * 100 + 0.4 * 300) / 400)
    frames = metrics.accuracy_robustness(runs, "pysot").accuracy
    assert frames == pytest.approx((0.8 * 90 + 0.4 * 290) / 380)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.eao_curve([]), "no run"),
        (lambda: metrics.accuracy_robustness([]), "no run"),
        (lambda: metrics.eao([coded_run("a", "S" + "t" * 50)], (100, 356)), "has 50 frames.*begins at 100"),
        (lambda: metrics.eao([coded_run("a", "Stt")], (5, 2)), "two lengths"),
        (lambda: coded_run("a", "tSt"), "a start in the first"),
        (lambda: coded_run("a", "St", lambda t: math.nan), "without an overlap"),
        (lambda: metrics.accuracy_robustness([coded_run("a", "St"), coded_run("a", "Stt")]), "different lengths"),
    ],
)
def test_supervised_refuses(call, message):
    with pytest.raises(InputError, match=message):
        call()


# ---- OxUvA ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tnr", [0.0, 0.1, 0.3, 0.499, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("tpr", [0.0, 0.2, 0.9, 1.0])
def test_max_gm_against_a_search(tpr, tnr):
    """Sheet, check 13."""
    p = np.linspace(0, 1, 100_001)
    best = np.sqrt((1 - p) * tpr * ((1 - p) * tnr + p)).max()
    assert metrics.max_gm(tpr, tnr) == pytest.approx(best, abs=1e-9)
    if tnr >= 0.5:
        assert metrics.max_gm(tpr, tnr) == pytest.approx(math.sqrt(tpr * tnr))
    else:
        assert metrics.max_gm(tpr, tnr) == pytest.approx(math.sqrt(tpr) / (2 * math.sqrt(1 - tnr)))
    if tnr == 0:
        assert metrics.max_gm(tpr, tnr) == pytest.approx(0.5 * math.sqrt(tpr))


def test_outcomes_of_every_kind():
    unit = np.array([0.2, 0.2, 0.4, 0.4])
    truth = np.stack([unit, unit, unit, np.full(4, np.nan), np.full(4, np.nan)])
    predicted = np.stack([unit, unit + np.array([0.35, 0, 0, 0]), unit, unit, np.full(4, np.nan)])
    present = np.array([True, True, True, False, False])
    says = np.array([True, True, False, True, False])
    actual = presence.count(present, truth, says, predicted)
    assert actual == presence.Counts(hits=1, misses=2, true_absent=1, false_present=1)
    assert (actual.tpr, actual.tnr) == (1 / 3, 1 / 2)
    assert actual.gm == pytest.approx(math.sqrt(1 / 6)) == actual.max_gm


def test_half_an_overlap_is_enough():
    truth, half = np.array([[0.0, 0, 0.5, 0.5]]), np.array([[0.0, 0, 0.5, 0.25]])
    yes = np.array([True])
    assert presence.count(yes, truth, yes, half).hits == 1
    assert presence.count(yes, truth, yes, half - [0, 0, 0, 1e-9]).hits == 0


def test_what_lies_outside_the_image_does_not_count():
    """[peer code]: boxes are cut to the image before they are compared; in pixels, to its size."""
    yes = np.array([True])
    truth, beyond = np.array([[0.8, 0, 0.2, 1]]), np.array([[0.8, 0, 3, 1]])
    assert presence.count(yes, truth, yes, beyond).hits == 1
    assert presence.count(yes, truth * 50, yes, beyond * 50, size=(50.0, 50.0)).hits == 1
    assert presence.count(yes, truth, yes, beyond, size=(9.0, 9.0)).hits == 0


@pytest.mark.slow
@pytest.mark.skipif(not is_there(), reason="LABKIT_DATA holds no tracking/ (research-only sequences)")
def test_an_oracle_that_never_says_absent_on_the_real_annotations():
    """Sheet, check 13: TPR 1, TNR 0, GM 0, MaxGM 1/2; and one that knows the absences scores 1."""
    from labkit import paths
    from labkit.data.tracking.oxuva import read_tracks

    folder = paths.data_dir() / "tracking" / "oxuva_dev"
    tracks = read_tracks(folder / "tasks_dev.csv", folder / "annotations_dev.csv")
    blind, knowing = [], []
    for track in tracks:
        boxes = np.where(track.present[:, None], track.boxes, [0.0, 0.0, 1.0, 1.0])
        blind.append(presence.count(track.present, track.boxes, np.ones_like(track.present), boxes))
        knowing.append(presence.count(track.present, track.boxes, track.present, boxes))
    total = sum(blind, presence.Counts())
    assert (total.tpr, total.tnr, total.gm, total.max_gm) == (1, 0, 0, 0.5)
    assert (total.hits, total.false_present) == (11_468 - 200, 354)
    scores = metrics.long_term(knowing, draws=20)
    assert scores.max_gm == scores.gm == (1, 1, 1, len(knowing))


def test_without_absent_frames_there_is_no_true_negative_rate():
    only_present = presence.Counts(hits=3, misses=1)
    assert math.isnan(only_present.tnr)
    assert math.isnan(only_present.max_gm)
    scores = metrics.long_term([only_present, only_present], draws=10)
    assert scores.tpr == (0.75, 0.75, 0.75, 2)
    assert all(math.isnan(value) for value in scores.max_gm[:3])


def test_presence_refuses():
    yes, box = np.array([True]), np.array([[0.0, 0, 1, 1]])
    with pytest.raises(InputError, match="one prediction per annotated frame"):
        presence.count(yes, box, yes, np.concatenate([box, box]))
    with pytest.raises(InputError, match="finite numbers"):
        presence.count(yes, box, yes, box * np.nan)
    with pytest.raises(InputError, match="between 0 and 1"):
        metrics.max_gm(1.2, 0.5)
    with pytest.raises(InputError, match="no track"):
        metrics.long_term([])


def test_a_summary_weighs_sequences_alike():
    long, short = random_boxes(100), random_boxes(10)
    beside = short + np.array([500, 0, 0, 0])
    actual = metrics.summary([metrics.one_pass(long, long), metrics.one_pass(beside, short)], draws=50)
    assert actual.auc.value == pytest.approx((20 / 21 + 2 / 21) / 2)  # of the short one only the first frame is right
    assert (actual.precision_at_20.value, actual.lost.value, actual.sequences) == pytest.approx((0.55, 0.45, 2))
    with pytest.raises(InputError, match="no result"):
        metrics.summary([])
