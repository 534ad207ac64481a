"""Detection metrics: values published elsewhere, identities, a plain loop, an independent library, real annotations."""

import dataclasses
import itertools

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from labkit import paths
from labkit.errors import InputError
from labkit.metrics.detection import (
    Boxes,
    Tube,
    ava,
    average_precision,
    frame_map,
    mean_video_map,
    pairwise_iou,
    read_boxes,
    read_tubes,
    tube_overlap,
    video_map,
)
from labkit.metrics.detection.average_precision import match_best_free
from labkit.metrics.detection.tables import tubes_as_text


def table(*rows, scored=False, difficult=None) -> Boxes:
    """Rows (frame, label, x1, y1, x2, y2[, score])."""
    values = np.array(rows, dtype=np.float64).reshape(len(rows), 7 if scored else 6)
    return Boxes(
        values[:, 0].astype(np.int64),
        values[:, 1].astype(np.int64),
        values[:, 2:6],
        values[:, 6] if scored else None,
        None if difficult is None else np.array(difficult),
    )


def crowd(seed: int, images: int = 30, classes: int = 3, extra: int = 40) -> tuple[Boxes, Boxes]:
    """Random truth; detections are the truth shaken, some boxes twice, and false ones."""
    rng = np.random.default_rng(seed)
    n = images * 4
    frames, labels = rng.integers(0, images, n), rng.integers(0, classes, n)
    corner = rng.uniform(0, 60, (n, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(10, 30, (n, 2))], 1)
    chosen = np.concatenate([rng.permutation(n)[: n - 20], rng.integers(0, n, extra)])
    shaken = boxes[chosen] + rng.normal(0, 3, (len(chosen), 4))
    guessed = np.where(rng.random(len(chosen)) < 0.9, labels[chosen], rng.integers(0, classes, len(chosen)))
    scores = rng.random(len(chosen))
    return Boxes(frames, labels, boxes), Boxes(frames[chosen], guessed, shaken, scores)


# -- published values -------------------------------------------------------------------------------------------------

CAT, DOG, ELEPHANT = 1, 2, 3
PUBLISHED_TRUTH = (
    (1, CAT, 0, 0, 1, 1), (1, ELEPHANT, 0, 0, 2, 2), (1, CAT, 0, 0, 3, 3), (2, CAT, 10, 10, 11, 11),
    (2, CAT, 500, 500, 510, 510), (2, ELEPHANT, 10, 10, 12, 12), (3, DOG, 0, 0, 1, 1),
)  # fmt: skip
PUBLISHED_DETECTIONS = (
    (2, CAT, 10, 10, 11, 11, 0.7), (2, CAT, 100, 100, 120, 120, 0.8), (2, ELEPHANT, 100, 100, 220, 220, 0.9),
)  # fmt: skip


def test_the_published_vector():
    """Sheet check 8: the vector of TensorFlow's object-detection tests, which AVA's evaluation stems from."""
    difficult = [k == 4 for k in range(7)]
    detected = table(*PUBLISHED_DETECTIONS, scored=True)
    result = frame_map(table(*PUBLISHED_TRUTH, difficult=difficult), detected, once=True)
    assert result.per_class == pytest.approx({CAT: 1 / 6, DOG: 0, ELEPHANT: 0}, abs=1e-12)
    assert result.mean == pytest.approx(1 / 18, abs=1e-12)
    assert result.pooled == pytest.approx(1 / (3 + 1 + 2) / 3, abs=1e-12)
    ordinary = frame_map(table(*PUBLISHED_TRUTH), detected, once=True)
    assert ordinary.per_class[CAT] == pytest.approx(0.125, abs=1e-12)
    assert ordinary.pooled == pytest.approx(1 / (4 + 1 + 2) / 3, abs=1e-12)
    assert frame_map(table(*PUBLISHED_TRUTH), detected).per_class == ordinary.per_class


# -- identities (sheet check 9) ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("threshold", [0.5, 0.75, 1.0])
def test_the_truth_scores_one(once, threshold):
    truth, _ = crowd(0)
    detected = Boxes(truth.frames, truth.labels, truth.boxes, np.ones(len(truth)))
    assert frame_map(truth, detected, threshold, once=once).mean == 1.0


def test_a_box_of_20_pixels_shifted_by_5():
    truth, detected = table((0, 0, 0, 0, 20, 20)), table((0, 0, 5, 0, 25, 20, 0.9), scored=True)
    assert pairwise_iou(truth.boxes, detected.boxes).item() == pytest.approx(0.6)
    assert frame_map(truth, detected, 0.5).mean == 1.0
    assert frame_map(truth, detected, 0.75).mean == 0.0


def test_a_duplicate_below_changes_nothing_a_false_one_above_halves():
    truth, hit = table((0, 0, 0, 0, 20, 20)), (0, 0, 0, 0, 20, 20, 0.5)
    assert frame_map(truth, table(hit, (0, 0, 0, 0, 20, 20, 0.4), scored=True)).mean == 1.0
    assert frame_map(truth, table(hit, (0, 0, 50, 50, 70, 70, 0.9), scored=True)).mean == 0.5


def test_of_equal_scores_the_first_counts_first():
    truth, hit, miss = table((0, 0, 0, 0, 20, 20)), (0, 0, 0, 0, 20, 20, 0.5), (0, 0, 50, 50, 70, 70, 0.5)
    assert frame_map(truth, table(hit, miss, scored=True)).mean == 1.0
    assert frame_map(truth, table(miss, hit, scored=True)).mean == 0.5


def test_the_two_ways_of_matching_differ_where_truths_overlap():
    """The second detection overlaps the taken truth most, and the free one enough."""
    truth = table((0, 0, 0, 0, 20, 20), (0, 0, 4, 0, 24, 20))
    detected = table((0, 0, 0, 0, 20, 20, 0.9), (0, 0, 1, 0, 21, 20, 0.8), scored=True)
    assert frame_map(truth, detected, 0.5).mean == 1.0
    assert frame_map(truth, detected, 0.5, once=True).mean == 0.5


def test_classes_without_truth_are_left_out_of_the_mean():
    truth, detected = (
        table((0, 0, 0, 0, 20, 20)),
        table((0, 0, 0, 0, 20, 20, 0.5), (0, 7, 0, 0, 20, 20, 0.9), scored=True),
    )
    assert frame_map(truth, detected).per_class == {0: 1.0}
    asked = frame_map(truth, detected, classes=[0, 7])
    assert np.isnan(asked.per_class[7])
    assert asked.mean == 1.0
    nothing = frame_map(table(), detected, classes=[0])
    assert np.isnan(nothing.mean)


def test_average_precision_is_the_area_under_the_envelope():
    hits = np.array([True, False, True, True, False])
    precisions = [1, 1 / 2, 2 / 3, 3 / 4, 3 / 5]  # envelope 1, 3/4, 3/4
    assert average_precision(hits, 4) == pytest.approx((1 + 3 / 4 + 3 / 4) / 4)
    assert average_precision(hits, 4) > sum(p for p, hit in zip(precisions, hits, strict=True) if hit) / 4
    assert average_precision(np.zeros(3, dtype=bool), 2) == 0.0


# -- a plain loop, and an independent library --------------------------------------------------------------------------


def plain_loop(truth: Boxes, detected: Boxes, threshold: float) -> dict[int, float]:
    """The definition, one detection at a time."""
    result = {}
    assert detected.scores is not None
    for label in np.unique(truth.labels):
        order = [d for d in np.argsort(-detected.scores, kind="stable") if detected.labels[d] == label]
        taken, hits = set(), []
        for d in order:
            rows = [t for t in range(len(truth)) if (truth.labels[t], truth.frames[t]) == (label, detected.frames[d])]
            free = [(pairwise_iou(detected.boxes[[d]], truth.boxes[[t]]).item(), -t) for t in rows if t not in taken]
            best, t = max(free, default=(0.0, 0))
            hits.append(best >= threshold)
            if hits[-1]:
                taken.add(-t)
        result[int(label)] = average_precision(np.array(hits), int((truth.labels == label).sum()))
    return result


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_plain_loop(seed):
    truth, detected = crowd(seed)
    for threshold in (0.5, 0.7):
        assert frame_map(truth, detected, threshold).per_class == pytest.approx(plain_loop(truth, detected, threshold))


def test_cocos_ap50_is_within_a_hundredth():
    """Sheet check 11: 101 points there, all points here. 20 seeds differ by .004 at most."""
    coco = pytest.importorskip("faster_coco_eval")
    truth, detected = crowd(5)

    def entries(boxes: Boxes):
        for k in range(len(boxes)):
            x1, y1, x2, y2 = boxes.boxes[k].tolist()
            entry = {"id": k + 1, "image_id": int(boxes.frames[k]), "category_id": int(boxes.labels[k]), "iscrowd": 0}
            entry |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            yield entry if boxes.scores is None else entry | {"score": float(boxes.scores[k])}

    dataset = coco.COCO(
        {
            "images": [{"id": int(k)} for k in np.unique(truth.frames)],
            "categories": [{"id": int(k)} for k in np.unique(truth.labels)],
            "annotations": list(entries(truth)),
        }
    )
    judge = coco.COCOeval_faster(
        dataset, dataset.loadRes(list(entries(detected))), iouType="bbox", print_function=lambda *_: None
    )
    judge.run()
    assert frame_map(truth, detected).mean == pytest.approx(float(judge.stats[1]), abs=0.01)


def test_many_images_at_once_are_each_by_itself():
    pairs = (np.array([0, 0, 1, 2]), np.array([0, 1, 0, 2]), np.array([0.9, 0.6, 0.95, 0.5]))
    assert match_best_free(pairs, np.array([0, 1, 0]), 0.5).tolist() == [True, False, True]
    assert match_best_free(pairs, np.array([1, 0, 0]), 0.5).tolist() == [True, True, True]


# -- tubes ------------------------------------------------------------------------------------------------------------


def tube(start: int, frames: int, shift: float = 0.0, **more) -> Tube:
    boxes = np.tile(np.array([[0.0, 0.0, 20.0, 20.0]]), (frames, 1)) + np.array([shift, 0.0, shift, 0.0])
    return Tube(more.get("video", "v"), more.get("label", 0), start, boxes, more.get("score", 1.0))


def test_tubes_overlap_in_time_and_space():
    """Sheet check 9: spans [0, 9] and [5, 14], both ends inclusive."""
    a, b = tube(0, 10), tube(5, 10)
    assert tube_overlap(a.start, a.boxes, b.start, b.boxes) == pytest.approx(1 / 3)
    assert tube_overlap(0, a.boxes, 10, b.boxes) == 0.0
    shifted = tube(5, 10, shift=5.0)
    assert tube_overlap(a.start, a.boxes, shifted.start, shifted.boxes) == pytest.approx(1 / 3 * 0.6)
    assert tube_overlap(0, a.boxes, 0, a.boxes) == 1.0


def test_video_map_of_known_tubes():
    truth = [tube(0, 10), tube(0, 10, video="w"), tube(20, 5, label=1)]
    detected = [tube(0, 10, score=0.9), tube(5, 10, video="w", score=0.95), tube(20, 5, label=1, score=0.3)]
    assert video_map(truth, truth, 0.75).mean == 1.0
    assert mean_video_map(truth, truth) == 1.0
    assert video_map(truth, detected, 0.2).per_class == {0: 1.0, 1: 1.0}
    assert video_map(truth, detected, 0.5).per_class == {0: 0.25, 1: 1.0}  # a false one above the one true of two
    twice = [*detected, tube(0, 10, score=0.5)]
    assert video_map(truth, twice, 0.2).per_class[0] == 1.0
    assert video_map(truth, [], 0.5).mean == 0.0
    elsewhere = [tube(0, 10, video="u", score=0.9)]
    assert video_map(truth, elsewhere, 0.5, classes=[0, 1, 5]).mean == 0.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: Tube("v", 0, 0, np.zeros((0, 4))),
        lambda: Tube("v", 0, -1, np.zeros((2, 4))),
        lambda: Tube("v", 0, 0, np.full((2, 4), np.nan)),
        lambda: Boxes(np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int64), np.zeros((3, 4))),
        lambda: frame_map(table((0, 0, 0, 0, 1, 1)), table((0, 0, 0, 0, 1, 1))),
        lambda: frame_map(table((0, 0, 0, 0, 1, 1)), table((0, 0, 0, 0, 1, 1, 1.0), scored=True), 0.0),
        lambda: video_map([tube(0, 3)], [tube(0, 3)], 2.0),
    ],
)
def test_bad_tables_are_refused(make):
    with pytest.raises((InputError, TypeCheckError)):
        make()


# -- files ------------------------------------------------------------------------------------------------------------


def test_boxes_and_tubes_from_two_files(tmp_path):
    head = "video,frame,x1,y1,x2,y2,label"
    (tmp_path / "t.csv").write_text(f"{head}\na,3,0,0,20,20,run\na,4,0,0,20,20,walk\n")
    (tmp_path / "d.csv").write_text(f"{head},score\na,3,5,0,25,20,run,.9\nb,4,0,0,20,20,walk,.8\n")
    truth, detected, names = read_boxes(tmp_path / "t.csv", tmp_path / "d.csv")
    assert names == ["run", "walk"]
    assert frame_map(truth, detected).per_class == {0: 1.0, 1: 0.0}
    tubes = [tube(0, 3, label=1, score=0.25), tube(7, 2, video="w")]
    (tmp_path / "tubes.csv").write_text(tubes_as_text(tubes, ["sit", "stand"]))
    a, b, names = read_tubes(tmp_path / "tubes.csv", tmp_path / "tubes.csv")
    assert [(t.video, names[t.label], t.start, len(t.boxes), t.score) for t in b] == [
        ("v", "stand", 0, 3, 0.25), ("w", "sit", 7, 2, 1.0),
    ]  # fmt: skip
    assert video_map(a, b).mean == 1.0


def test_names_that_never_meet_are_refused(tmp_path):
    """An AP of 0 because one file says walk and the other walk.mp4 would be taken for a bad detector."""
    head = "video,tube,frame,x1,y1,x2,y2,label"
    (tmp_path / "t.csv").write_text(f"{head}\nwalk,0,3,0,0,20,20,run\n")
    (tmp_path / "d.csv").write_text(f"{head},score\nwalk.mp4,0,3,0,0,20,20,run,.9\n")
    for read in (read_boxes, read_tubes):
        with pytest.raises(InputError, match=r"'walk\.mp4' there, 'walk' here"):
            read(tmp_path / "t.csv", tmp_path / "d.csv")
    (tmp_path / "d.csv").write_text(f"{head},score\n")
    assert frame_map(*read_boxes(tmp_path / "t.csv", tmp_path / "d.csv")[:2]).mean == 0.0  # nothing detected
    (tmp_path / "ava.csv").write_text(GOOD)
    (tmp_path / "other.csv").write_text(GOOD.replace("v", "w"))
    with pytest.raises(InputError, match="no video of the detections"):
        ava.evaluate(tmp_path / "ava.csv", tmp_path / "other.csv")


GOOD = "v,0902,0.1,0.2,0.3,0.4,12,0\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("v,0902,0.1,0.2,0.3\n", "line 1: video,timestamp"),
        (GOOD + "v,0902,0.1,0.2,nan,0.4,12,0\n", "line 2: x2 is a number"),
        (GOOD + "v,0902,0.5,0.2,0.3,0.4,12,0\n", "line 2: a box is"),
        (GOOD + "v,0902,0.1,0.2,0.3,0.4,0,0\n", "line 2: action ids count from 1"),
        (GOOD + "v,902.5,0.1,0.2,0.3,0.4,1,0\n", "line 2: a timestamp is a whole second"),
    ],
)
def test_a_damaged_ava_file_is_refused_with_its_line(tmp_path, text, words):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        ava.read(tmp_path / "a.csv")


def test_avas_files(tmp_path):
    (tmp_path / "truth.csv").write_text(GOOD + "v,0903,0.1,0.2,0.3,0.4,12,0\nv,0903,0.1,0.2,0.3,0.4,80,0\n")
    (tmp_path / "found.csv").write_text("v,0902,0.1,0.2,0.3,0.4,12,.9\nv,0903,.6,.6,.9,.9,12,.95\n")
    (tmp_path / "map.pbtxt").write_text('item {\n  name: "stand"\n  id: 12\n}\nitem {\n  name: "bow"\n  id: 1\n}\n')
    (tmp_path / "excluded.csv").write_text("v,0903\n")
    paths_ = [tmp_path / name for name in ("truth.csv", "found.csv", "map.pbtxt", "excluded.csv")]
    assert ava.read_label_map(paths_[2]) == {12: "stand", 1: "bow"}
    assert ava.evaluate(*paths_[:2]).per_class == {12: 0.25, 80: 0.0}
    with_map = ava.evaluate(*paths_[:3])
    assert with_map.per_class[12] == 0.25
    assert np.isnan(with_map.per_class[1])
    assert ava.evaluate(*paths_).mean == 1.0  # the false detection lies at an excluded timestamp
    with pytest.raises(InputError, match="no items"):
        ava.read_label_map(paths_[0])
    with pytest.raises(InputError, match="there is no file"):
        ava.evaluate(tmp_path / "nothing.csv", paths_[1])


@pytest.mark.slow
def test_the_real_ava_file():
    """Sheet check 10, where LABKIT_DATA has it: 93,400 rows, and the truth as detections scores exactly 1."""
    folder = paths.data_dir() / "action"
    if not (folder / "ava_val_v2.1.csv").exists():
        pytest.skip("needs LABKIT_DATA/action with AVA's annotation files")
    truth = ava.read(folder / "ava_val_v2.1.csv")
    assert len(truth.keys) == 93_400
    assert len({video for video, _ in truth.keys}) == 64
    assert len(set(truth.keys)) == 50_029
    seconds = [second for _, second in truth.keys]
    assert (min(seconds), max(seconds)) == (902, 1798)
    label_map = folder / "ava_action_list_v2.1_for_activitynet_2018.pbtxt"
    assert len(ava.read_label_map(label_map)) == 60
    detections = dataclasses.replace(truth, last=np.ones(len(truth.keys)))
    precisions = ava.evaluate(truth, detections, label_map)
    known = [value for value in precisions.per_class.values() if not np.isnan(value)]
    assert set(known) == {1.0}
    assert len(known) >= 10
    assert list(itertools.islice(precisions.per_class, 1))
