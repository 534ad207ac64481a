"""Trackers over sequences: what is run, timed and written, what a second call does not run again, VOT's restarts."""

import contextlib
import csv
import json
import random
import types

import numpy as np
import pytest

from labkit.data.tracking import Sequence, benchmark
from labkit.errors import DataError, InputError, RunError
from labkit.tracking import runner
from labkit.tracking.peers import StaticBox
from labkit.tracking.runner import Results, run, run_supervised, score
from labkit.tracking.tracker import Tracked


def clip(count: int = 20, *, name: str = "clip", speed: float = 1.0, first_pixel: int = 0, **more) -> Sequence:
    """A target of 10 x 10 that moves `speed` pixels a frame over frames of 200 x 100."""
    boxes = np.array([[20 + speed * t, 30, 10, 10] for t in range(count)], dtype=float)
    frames = [np.full((100, 200, 3), t % 256, dtype=np.uint8) for t in range(count)]
    meta = {"first_pixel": first_pixel, **more.pop("meta", {})}
    return Sequence(name, frames, boxes, more.pop("absent", np.zeros(count, dtype=bool)), meta=meta, **more)


class Oracle:
    """Knows the boxes; the frame's brightness tells the time. `calls` is what it was asked."""

    def __init__(self, sequence: Sequence, wrong_at: tuple[int, ...] = ()) -> None:
        self.sequence, self.wrong_at = sequence, wrong_at
        self.calls: list[tuple[str, int]] = []

    def init(self, frame, box):
        t = int(frame[0, 0, 0])
        assert np.allclose(box, self.sequence.boxes[t])
        self.calls.append(("init", t))

    def update(self, frame):
        t = int(frame[0, 0, 0])
        self.calls.append(("update", t))
        x, y, w, h = self.sequence.boxes[t]
        return Tracked((x + (150 if t in self.wrong_at else 0), y, w, h), 0.5, t % 2 == 0)


def test_a_run_is_one_start_and_one_update_a_frame():
    sequence = clip(5)
    tracker = Oracle(sequence)
    result = run(tracker, sequence)
    assert tracker.calls == [("init", 0), ("update", 1), ("update", 2), ("update", 3), ("update", 4)]
    np.testing.assert_allclose(result.boxes, sequence.boxes)
    assert result.scores.tolist() == [1, 0.5, 0.5, 0.5, 0.5]
    assert result.present.tolist() == [True, False, True, False, True]
    assert runner.one_pass_score(result, sequence).auc == pytest.approx(20 / 21)


class Clock:
    """CPU time that passes only where a test lets it."""

    def __init__(self, monkeypatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(runner, "time", types.SimpleNamespace(process_time=lambda: self.now))


def test_reading_frames_is_not_timed_and_the_start_is_kept_apart(monkeypatch):
    """Reading a frame takes 30 ms of CPU, the start 50 ms, an update 2 ms."""
    clock = Clock(monkeypatch)

    class Slow(list):
        def __getitem__(self, index):
            clock.now += 0.03
            return super().__getitem__(index)

    class Works(StaticBox):
        def init(self, frame, box):
            clock.now += 0.05
            super().init(frame, box)

        def update(self, frame):
            clock.now += 0.002
            return super().update(frame)

    sequence = clip(4)
    result = run(Works(), Sequence("slow", Slow(sequence.frames), sequence.boxes, sequence.absent))
    np.testing.assert_allclose(result.seconds, [0.05, 0.002, 0.002, 0.002])
    assert result.frames_per_second == pytest.approx(500)


def test_a_run_refuses():
    sequence = clip(4)
    sequence.boxes[0] = np.nan
    with pytest.raises(InputError, match="first frame of 'clip' has no box"):
        run(StaticBox(), sequence)

    class Broken(StaticBox):
        def update(self, frame):
            return Tracked((float("nan"), 1.0, 2.0, 3.0), 0.0, False)

    with pytest.raises(RunError, match=r"frame 1 of 'clip'.*the last one again when the target is lost"):
        run(Broken(), clip(4))


# ---- restarts -------------------------------------------------------------------------------------------------------


def test_a_failure_is_followed_by_a_start_five_frames_later():
    sequence = clip(20)
    tracker = Oracle(sequence, wrong_at=(4, 11))
    actual = run_supervised(tracker, sequence)
    assert "".join(map(str, actual.codes)) == "13332000013200001333"
    assert [t for call, t in tracker.calls if call == "init"] == [0, 9, 16]
    assert np.isnan(actual.boxes[4]).all()
    scored = actual.scored()
    assert scored.failures == 2
    assert scored.overlaps[[1, 2, 3, 10, 17, 18, 19]].tolist() == pytest.approx([1] * 7)
    assert "".join(map(str, run_supervised(Oracle(sequence, (4,)), sequence, skip=1).codes[:8])) == "13332133"


def test_a_failure_near_the_end_is_not_started_again():
    sequence = clip(12)
    assert "".join(map(str, run_supervised(Oracle(sequence, (9,)), sequence).codes)) == "133333333200"


def test_overlaps_are_those_of_the_polygons_inside_the_image():
    """The target is a triangle-like sliver of its box, half outside: an upright box that covers it is not perfect."""
    count = 3
    boxes = np.tile([-10.0, 0, 20, 20], (count, 1))
    polygons = np.tile([-10.0, 0, 10, 0, 10, 20, 0, 20], (count, 1))
    frames = [np.zeros((20, 30, 3), dtype=np.uint8)] * count
    sequence = Sequence("sliver", frames, boxes, np.zeros(count, dtype=bool), polygons)
    actual = run_supervised(StaticBox(), sequence).scored()
    assert actual.overlaps[1] == pytest.approx(1.0)  # left of the image both are cut off: what is visible is the same
    moved_boxes, moved_polygons = boxes + np.array([10, 0, 0, 0]), polygons + np.tile([10, 0], 4)
    moved = Sequence("sliver", frames, moved_boxes, np.zeros(count, dtype=bool), moved_polygons)
    assert run_supervised(StaticBox(), moved).scored().overlaps[1] == pytest.approx(1 - 100 / 400)


def test_restarts_need_the_truth_everywhere():
    sequence = clip(6)
    sequence.boxes[3] = np.nan
    with pytest.raises(InputError, match=r"'clip' lacks it in 1 of 6.*sequence\.part"):
        run_supervised(StaticBox(), sequence)
    assert len(run_supervised(StaticBox(), sequence.part(0, 3)).codes) == 3
    with pytest.raises(InputError, match="skip must be 1"):
        run_supervised(StaticBox(), clip(3), skip=0)


# ---- results --------------------------------------------------------------------------------------------------------


def results(tmp_path, name: str = "otb2015", **settings) -> Results:
    return Results(tmp_path, "oracle", benchmark(name), settings)


def test_results_are_text_in_the_benchmarks_own_counting(tmp_path):
    sequence = clip(3, first_pixel=1)
    actual = score(lambda: Oracle(sequence), [sequence], results(tmp_path))
    folder = tmp_path / "oracle" / "otb2015"
    assert (folder / "clip.txt").read_text().splitlines()[1] == "22.000000,31.000000,10.000000,10.000000"
    assert (folder / "clip_presence.txt").read_text().splitlines()[1] == "0.500000,0.000000"
    assert len((folder / "clip_time.txt").read_text().splitlines()) == 3
    assert actual["auc"] == [pytest.approx(20 / 21), None, None]  # one sequence: nothing is known of the spread
    assert json.loads(json.dumps(actual))["by_sequence"]["clip"]["precision_at_20"] == 1


def test_a_second_call_runs_only_what_is_missing(tmp_path):
    clips = [clip(4, name=name) for name in ("a", "b", "c")]
    created = []

    def make():
        created.append(StaticBox())
        return created[-1]

    first = score(make, clips, results(tmp_path))
    assert len(created) == 3  # a new tracker for each sequence
    (tmp_path / "oracle" / "otb2015" / "b.txt").unlink()
    again = score(make, clips, results(tmp_path))
    assert len(created) == 4
    assert again["by_sequence"] == first["by_sequence"]


def test_a_stopped_call_leaves_whole_files_only(tmp_path):
    clips = [clip(4, name=name) for name in ("a", "b")]
    started = []

    class Stops(StaticBox):
        def update(self, frame):
            if len(started) == 2:
                raise KeyboardInterrupt
            return super().update(frame)

    def make():
        started.append(1)
        return Stops()

    with pytest.raises(KeyboardInterrupt):
        score(make, clips, results(tmp_path))
    names = sorted(path.name for path in (tmp_path / "oracle" / "otb2015").iterdir())
    assert names == ["a.txt", "a_presence.txt", "a_time.txt", "settings.json"]
    assert score(StaticBox, clips, results(tmp_path))["by_sequence"].keys() == {"a", "b"}


def test_results_of_other_settings_are_refused(tmp_path):
    score(StaticBox, [clip(3)], results(tmp_path, mix=0.7))
    with pytest.raises(RunError, match=r"\{'mix': 0\.7\}, not \{'mix': 0\.5\}"):
        score(StaticBox, [clip(3)], results(tmp_path, mix=0.5))


def test_damaged_results_are_named(tmp_path):
    score(StaticBox, [clip(4)], results(tmp_path))
    folder = tmp_path / "oracle" / "otb2015"
    with pytest.raises(RunError, match=r"clip\.txt holds \(4, 4\) values instead of \(5, 4\)"):
        score(StaticBox, [clip(5)], results(tmp_path))
    (folder / "clip.txt").write_text("1,2,3,x\n" * 4)
    with pytest.raises(RunError, match=r"clip\.txt cannot be read.*run again"):
        score(StaticBox, [clip(4)], results(tmp_path))
    (folder / "clip.txt").write_text("1,2,3,nan\n" * 4)
    with pytest.raises(RunError, match=r"clip\.txt cannot be read .*'1,2,3,nan' holds a number that is not finite"):
        score(StaticBox, [clip(4)], results(tmp_path))
    for content in ("", "[]", "{", "\u00ff", "[" * 100_000):
        (folder / "settings.json").write_text(content, encoding="latin-1")
        with pytest.raises(RunError, match=r"settings\.json is damaged .*run again"):
            score(StaticBox, [clip(4)], results(tmp_path))
    with pytest.raises(InputError, match="part of a path"):
        score(StaticBox, [clip(4)], Results(tmp_path, "../x", benchmark("otb2015"), {}))


def test_vot_writes_starts_and_failures_and_stops_repeating_what_is_the_same(tmp_path):
    sequence = clip(60, name="ant")
    created = []

    def make():
        created.append(Oracle(sequence, (4,)))
        return created[-1]

    actual = score(make, [sequence], results(tmp_path, "vot2019"))
    lines = (tmp_path / "oracle" / "vot2019" / "ant" / "ant_001.txt").read_text().splitlines()
    assert (lines[0], lines[4], lines[5], lines[9]) == ("1", "2", "0", "1")
    assert lines[1] == "21.000000,30.000000,10.000000,10.000000"
    assert len(created) == 3  # fifteen asked for, three the same
    assert actual["failures"] == {"ant": 1}
    assert actual["robustness"] == pytest.approx(np.exp(-30 / 60))
    assert actual["failures_per_100_frames"] == pytest.approx(100 / 60)
    assert actual["accuracy"] == pytest.approx(1)
    before = actual["eao"]
    assert score(make, [sequence], results(tmp_path, "vot2019"))["eao"] == before
    assert len(created) == 3


def test_damage_to_any_result_ends_in_words(tmp_path):
    """A bounded attack: bytes of each kind of file changed or cut off at seeded places; what still is one is read."""
    chance = random.Random(0)
    score(StaticBox, [clip(6)], results(tmp_path))
    vots = Results(tmp_path, "oracle", benchmark("vot2018"), {})
    score(StaticBox, [clip(6)], vots, repetitions=1)
    calls = {"otb2015": lambda: score(StaticBox, [clip(6)], results(tmp_path)),
             "vot2018": lambda: score(StaticBox, [clip(6)], vots, repetitions=1)}  # fmt: skip
    for path in sorted(path for path in (tmp_path / "oracle").rglob("*") if path.is_file()):
        whole = path.read_bytes()
        for _ in range(40):
            content = bytearray(whole)
            for _ in range(chance.randint(1, 4)):
                content[chance.randrange(len(content))] = chance.choice(b"\0\n,.-0919einfax{[\xff")
            path.write_bytes(content[: chance.choice([len(content), chance.randrange(len(content))])])
            with contextlib.suppress(RunError):
                calls[path.relative_to(tmp_path).parts[1]]()
        path.write_bytes(whole)


def test_runs_too_short_for_the_window_have_no_expected_overlap(tmp_path):
    """It fails every few frames: accuracy and robustness are known, the mean over 46-291 frames is not."""
    sequence = clip(40, name="ant", speed=4.0)
    actual = score(StaticBox, [sequence], results(tmp_path, "vot2019"))
    assert actual["eao"] is None
    assert actual["failures"]["ant"] > 2
    assert json.loads(json.dumps(actual)) == actual


def test_vot_goes_on_when_repetitions_differ(tmp_path):
    sequence = clip(60, name="ant")
    count = iter(range(100))
    score(lambda: Oracle(sequence, (next(count) + 4,)), [sequence], results(tmp_path, "vot2019"), repetitions=5)
    assert len(list((tmp_path / "oracle" / "vot2019" / "ant").iterdir())) == 5
    with pytest.raises(InputError, match="repetitions"):
        score(StaticBox, [sequence], results(tmp_path, "vot2019"), repetitions=0)


def test_lasot_counts_unseen_frames_as_missed_and_others_leave_them_out(tmp_path):
    sequence = clip(10, speed=0.0, absent=np.arange(10) >= 5)
    missed = score(StaticBox, [sequence], results(tmp_path, "lasot"))["precision_at_20"][0]
    left_out = score(StaticBox, [sequence], results(tmp_path, "uav123"))["precision_at_20"][0]
    assert (missed, left_out) == (0.5, 1.0)


def test_oxuva_scores_annotated_frames_and_writes_what_its_server_reads(tmp_path):
    """Frames 0 (given), 2, 4, 6 present, 7 absent; the oracle says present on even frames only."""
    absent = np.arange(8) == 7
    annotated = np.isin(np.arange(8), [0, 2, 4, 6, 7])
    meta = {"annotated": annotated, "video": "vid7", "object": "obj1", "first_frame": 30, "size": (200, 100)}
    sequence = clip(8, name="vid7_obj1", absent=absent, meta=meta)
    actual = score(lambda: Oracle(sequence, wrong_at=(4,)), [sequence], results(tmp_path, "oxuva"))
    assert actual["tpr"][0] == pytest.approx(2 / 3)
    assert actual["tnr"][0] == 1
    assert actual["max_gm"][0] == pytest.approx(np.sqrt(2 / 3))
    rows = list(csv.reader((tmp_path / "oracle" / "oxuva" / "vid7_obj1.csv").read_text().splitlines()))
    assert rows[1] == ["vid7", "obj1", "31", "absent", "0.5", "", "", "", ""]
    assert rows[2][:5] == ["vid7", "obj1", "32", "present", "0.5"]
    assert [float(value) for value in rows[2][5:]] == [0.11, 0.16, 0.3, 0.4]  # xmin, xmax, ymin, ymax


def test_trackingnet_is_written_for_its_server(tmp_path):
    sequence = clip(4)
    sequence.boxes[1:] = np.nan
    actual = score(StaticBox, [sequence], results(tmp_path, "trackingnet"))
    assert actual["submit"] == str(tmp_path / "oracle" / "trackingnet")
    assert len((tmp_path / "oracle" / "trackingnet" / "clip.txt").read_text().splitlines()) == 4


def test_a_benchmark_that_is_not_there_is_told_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "none"))
    with pytest.raises(DataError, match="'vot2018' is not in LABKIT_DATA"):
        runner.run_benchmark(StaticBox, "static", "vot2018", tmp_path / "out")
    with pytest.raises(InputError, match="no tracking benchmark 'vot18'"):
        runner.run_benchmark(StaticBox, "static", "vot18", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_benchmark_by_name(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    folder = tmp_path / "otb2015" / "Car1"
    (folder / "img").mkdir(parents=True)
    for t in range(1, 4):
        Image.new("RGB", (60, 40)).save(folder / "img" / f"{t:04d}.jpg")
    (folder / "groundtruth_rect.txt").write_text("11,11,20,10\n" * 3)
    actual = runner.run_benchmark(StaticBox, "static", "otb2015", tmp_path / "out", settings={"kind": "static"})
    assert actual["auc"][0] == pytest.approx(20 / 21)
    assert (tmp_path / "out/static/otb2015/Car1.txt").read_text().splitlines()[2].startswith("11.000000,11.000000,20")
