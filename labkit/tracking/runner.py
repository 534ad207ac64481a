"""Trackers over sequences and benchmarks: boxes, scores and CPU time, as text files that a stopped run goes on from.

Layout below the folder given: `<tracker>/<benchmark>/<sequence>.txt` with a box x,y,w,h a line, counted as the
benchmark counts (OTB from pixel 1); beside it `<sequence>_presence.txt` (score,present) and `<sequence>_time.txt` (CPU
seconds). VOT's runs with restarts are `<sequence>/<sequence>_001.txt`: 1 stands for a start, 2 for a failure, 0 for one
of the frames skipped. OxUvA's are one CSV a track. Other toolkits read these files.
"""

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Ordered
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from labkit.data.tracking import Benchmark, Sequence, benchmark, load
from labkit.errors import InputError, RunError
from labkit.files import write_atomically
from labkit.metrics import tracking as metrics
from labkit.metrics.intervals import Interval
from labkit.metrics.tracking import supervised as vot
from labkit.metrics.tracking.presence import count
from labkit.progress import progress
from labkit.tracking.tracker import Tracked, Tracker

MakeTracker = Callable[[], Tracker]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A tracker's answers for a sequence. Row 0 is the box it was given, with score 1.

    seconds: CPU time of each call, all threads of the process together, decoding not included; row 0 is `init`.
    """

    boxes: Float64[np.ndarray, "t 4"]
    scores: Float64[np.ndarray, " t"]
    present: Bool[np.ndarray, " t"]
    seconds: Float64[np.ndarray, " t"]

    @property
    def frames_per_second(self) -> float:
        """Frames per CPU second after the first; infinite when too short to be measured."""
        spent = float(self.seconds[1:].sum())
        return (len(self.seconds) - 1) / spent if spent > 0 else float("inf")


def run(tracker: Tracker, sequence: Sequence) -> Trajectory:
    """One pass: start on the first box, follow to the end.

    Raises:
        InputError: the first frame has no usable box.
        RunError: the tracker returned something that is no box; names the frame.
    """
    if not sequence.annotated[0]:
        raise InputError(f"the first frame of '{sequence.name}' has no box to start with; use sequence.part(...).")
    count = len(sequence)
    boxes, scores, seconds = np.zeros((count, 4)), np.ones(count), np.zeros(count)
    present = np.ones(count, dtype=bool)
    boxes[0] = sequence.boxes[0]
    seconds[0] = _start(tracker, sequence, 0)
    for t in progress(range(1, count), sequence.name):
        tracked, seconds[t] = _follow(tracker, sequence, t)
        boxes[t], scores[t], present[t] = tracked.box, tracked.score, tracked.present
    return Trajectory(boxes, scores, present, seconds)


def _start(tracker: Tracker, sequence: Sequence, t: int) -> float:
    """`init` on frame t; CPU seconds without reading the frame."""
    frame = sequence.frames[t]
    x, y, w, h = sequence.boxes[t].tolist()
    begun = time.process_time()
    tracker.init(frame, (x, y, w, h))
    return time.process_time() - begun


def _follow(tracker: Tracker, sequence: Sequence, t: int) -> tuple[Tracked, float]:
    """`update` on frame t, checked; CPU seconds without reading the frame."""
    frame = sequence.frames[t]
    begun = time.process_time()
    tracked = tracker.update(frame)
    spent = time.process_time() - begun
    box = np.asarray(tracked.box, dtype=np.float64)
    if box.shape != (4,) or not np.isfinite([*box, tracked.score]).all() or (box[2:] < 0).any():
        raise RunError(
            f"the tracker returned {tracked} for frame {t} of '{sequence.name}'; a box is four finite numbers "
            "x, y, w, h, the last one again when the target is lost."
        )
    return tracked, spent


# ---- with restarts --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Restarts:
    """A run with restarts. codes: see `labkit.metrics.tracking.supervised`. boxes: where it tracked, else NaN."""

    sequence: Sequence
    codes: Int64[np.ndarray, " t"]
    boxes: Float64[np.ndarray, "t 4"]

    def scored(self) -> vot.SupervisedRun:
        """With the overlaps: those of the polygons where there are any, cut to the image."""
        overlaps = metrics.polygon_overlaps(
            metrics.box_polygons(self.boxes), truth_polygons(self.sequence), image_size(self.sequence)
        )
        return vot.SupervisedRun(self.sequence.name, self.codes, np.nan_to_num(overlaps))


def run_supervised(tracker: Tracker, sequence: Sequence, *, skip: int = vot.SKIP) -> Restarts:
    """VOT's protocol: when the box no longer overlaps the annotation, start again `skip` frames later.

    Starts are from `sequence.boxes`; overlaps as in `Restarts.scored`.

    Raises InputError when a frame is not annotated, or skip is below 1.
    """
    if skip < 1:
        raise InputError(f"skip must be 1 or more frames; got {skip}.")
    polygons, size = truth_polygons(sequence), image_size(sequence)
    codes, boxes = np.full(len(sequence), vot.SKIPPED), np.full((len(sequence), 4), np.nan)
    start = 0
    for t in progress(range(len(sequence)), sequence.name):
        if t == start:
            _start(tracker, sequence, t)
            codes[t] = vot.STARTED
        elif t > start:
            box = np.array([_follow(tracker, sequence, t)[0].box], dtype=np.float64)
            if metrics.polygon_overlaps(metrics.box_polygons(box), polygons[t : t + 1], size)[0] > 0:
                codes[t], boxes[t] = vot.TRACKED, box[0]
            else:
                codes[t], start = vot.FAILED, t + skip
    return Restarts(sequence, codes, boxes)


def truth_polygons(sequence: Sequence) -> Float64[np.ndarray, "t 8"]:
    """The annotated polygons, or the corners of the boxes.

    Raises InputError when some frame is not annotated: restarts need the truth in every frame.
    """
    if unknown := int((~sequence.annotated).sum()):
        raise InputError(
            f"runs with restarts need the truth in every frame; '{sequence.name}' lacks it in {unknown:,} of "
            f"{len(sequence):,}. Take an annotated stretch: sequence.part(...)."
        )
    return sequence.polygons if sequence.polygons is not None else metrics.box_polygons(sequence.boxes)


def image_size(sequence: Sequence) -> tuple[float, float]:
    """Width and height in pixels."""
    height, width = sequence.frames[0].shape[:2]
    return float(width), float(height)


# ---- over a benchmark, kept as text ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Results:
    """Where the results of one tracker on one benchmark lie.

    settings: what the tracker was made with; a folder that holds results of other settings is refused.
    """

    folder: Path
    tracker: str
    benchmark: Benchmark
    settings: Mapping[str, Any]

    @property
    def path(self) -> Path:
        return self.folder / self.tracker / self.benchmark.name

    def open(self) -> None:
        """Make the folder, or go on with the one that is there.

        Raises RunError when it belongs to other settings.
        """
        if not re.fullmatch(r"[\w.+-]+", self.tracker):
            raise InputError(f"a tracker's name is part of a path: letters, digits, . + - _; got '{self.tracker}'.")
        path, mine = self.path / "settings.json", json.loads(json.dumps(dict(self.settings)))
        if path.exists():
            theirs = _read_settings(path)
            if theirs != mine:
                raise RunError(
                    f"{self.path} holds results of {self.tracker} with {theirs}, not {mine}. Give another name."
                )
            return
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(mine, indent=1).encode())

    def one_pass(self, make: MakeTracker, sequence: Sequence) -> Trajectory:
        """The result on a sequence: read when it is there whole, else run and written."""
        path = self.path / f"{sequence.name}.txt"
        if not path.exists():
            self.write(run(make(), sequence), sequence)
        return self.read(sequence)

    def write(self, result: Trajectory, sequence: Sequence) -> None:
        """Boxes last: their file says that the sequence is done."""
        presence = np.stack([result.scores, result.present], axis=1)
        _write_rows(self.path / f"{sequence.name}_time.txt", result.seconds[:, None])
        _write_rows(self.path / f"{sequence.name}_presence.txt", presence)
        _write_rows(self.path / f"{sequence.name}.txt", _shifted(result.boxes, sequence, +1))

    def read(self, sequence: Sequence) -> Trajectory:
        """Raises RunError when a file is missing or has not one row a frame."""
        count = len(sequence)
        boxes = _read_rows(self.path / f"{sequence.name}.txt", count, 4)
        presence = _read_rows(self.path / f"{sequence.name}_presence.txt", count, 2)
        seconds = _read_rows(self.path / f"{sequence.name}_time.txt", count, 1)
        return Trajectory(_shifted(boxes, sequence, -1), presence[:, 0], presence[:, 1] > 0.5, seconds[:, 0])

    def supervised(self, make: MakeTracker, sequence: Sequence, repetitions: int) -> list[Restarts]:
        """VOT's repetitions; like its toolkit, no more than three when the first three are the same."""
        runs: list[Restarts] = []
        (self.path / sequence.name).mkdir(exist_ok=True)
        for number in range(1, repetitions + 1):
            if number == 4 and all(_same(runs[0], other) for other in runs[1:]):
                break
            path = self.path / sequence.name / f"{sequence.name}_{number:03d}.txt"
            if not path.exists():
                write_atomically(path, _restarts_text(run_supervised(make(), sequence)).encode())
            runs.append(_read_restarts(path, sequence))
        return runs

    def write_oxuva(self, result: Trajectory, sequence: Sequence) -> None:
        """A track as OxUvA's scripts and server read it: every frame, boxes as fractions, xmin, xmax, ymin, ymax."""
        video, target, first = (sequence.meta[key] for key in ("video", "object", "first_frame"))
        w, h = sequence.meta["size"]
        lines = []
        for t, (x, y, bw, bh) in enumerate(result.boxes):
            box = f"{x / w:.8f},{(x + bw) / w:.8f},{y / h:.8f},{(y + bh) / h:.8f}" if result.present[t] else ",,,"
            presence = f"{'present' if result.present[t] else 'absent'},{result.scores[t]:.8g}"
            lines.append(f"{video},{target},{first + t},{presence},{box}\n")
        write_atomically(self.path / f"{sequence.name}.csv", "".join(lines).encode())


def _shifted(boxes: np.ndarray, sequence: Sequence, sign: int) -> np.ndarray:
    """To the benchmark's way of counting (+1) or back (-1)."""
    first = sign * sequence.meta.get("first_pixel", 0)
    return boxes + np.array([first, first, 0.0, 0.0])


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
        if isinstance(content, dict):
            return content
        problem = f"it holds a {type(content).__name__}, not names and values"
    except (OSError, ValueError, RecursionError) as error:
        problem = str(error)
    raise RunError(f"{path} is damaged ({problem}). Delete {path.parent} and run again, or give another name.")


def _write_rows(path: Path, rows: np.ndarray) -> None:
    text = "".join(",".join(f"{value:.6f}" for value in row) + "\n" for row in rows)
    write_atomically(path, text.encode())


AGAIN = "Delete the results of that sequence and run again."


def _read_rows(path: Path, rows: int, columns: int) -> np.ndarray:
    try:
        values = np.array([_finite(line) for line in path.read_text().splitlines()])
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}). {AGAIN}") from None
    if values.shape != (rows, columns):
        raise RunError(
            f"{path} holds {values.shape} values instead of {(rows, columns)}: it belongs to another version of the "
            f"sequence. {AGAIN}"
        )
    return values


def _finite(line: str) -> list[float]:
    """The numbers of a line; ValueError where one is none, or not finite."""
    values = [float(word) for word in line.split(",")]
    if not all(map(math.isfinite, values)):
        raise ValueError(f"'{line[:60]}' holds a number that is not finite")
    return values


def _restarts_text(result: Restarts) -> str:
    lines = (
        ",".join(f"{value:.6f}" for value in box) if code == vot.TRACKED else str(int(code))
        for code, box in zip(result.codes, _shifted(result.boxes, result.sequence, +1), strict=True)
    )
    return "".join(f"{line}\n" for line in lines)


def _read_restarts(path: Path, sequence: Sequence) -> Restarts:
    """Raises RunError when a line is neither a box nor a code, or there is not one a frame."""
    try:
        rows = [_box_or_code(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}). Delete it and run again.") from None
    if len(rows) != len(sequence):
        raise RunError(f"{path} holds {len(rows):,} lines for {len(sequence):,} frames. Delete it and run again.")
    codes, boxes = (np.array(column) for column in zip(*rows, strict=True))
    return Restarts(sequence, codes, _shifted(boxes, sequence, -1))


def _box_or_code(line: str) -> tuple[int, list[float]]:
    """A line of a run with restarts; ValueError where it is none."""
    if "," not in line and (code := int(line)) in (vot.SKIPPED, vot.STARTED, vot.FAILED):
        return code, [math.nan] * 4
    if len(box := _finite(line)) != 4:
        raise ValueError(f"'{line[:60]}' is neither a box nor one of the codes 0, 1, 2")
    return vot.TRACKED, box


def _same(first: Restarts, second: Restarts) -> bool:
    return bool((first.codes == second.codes).all()) and np.array_equal(first.boxes, second.boxes, equal_nan=True)


# ---- scores ---------------------------------------------------------------------------------------------------------


def run_benchmark(
    make: MakeTracker,
    tracker: str,
    name: str,
    folder: Path,
    *,
    settings: Mapping[str, Any] | None = None,
    first: int | None = None,
    repetitions: int = vot.REPETITIONS,
) -> dict[str, Any]:
    """A tracker on a benchmark of LABKIT_DATA: its scores, as plain values. A stopped call goes on where it was.

    make: a new tracker for each sequence. tracker: its name in paths. settings: what distinguishes it from others.
    first: so many of its sequences; None: all.

    Raises:
        DataError: the benchmark is not there.
        RunError: the folder holds results of other settings, or a damaged one.
    """
    return score(make, load(name, first=first), Results(folder, tracker, benchmark(name), settings or {}), repetitions)


def score(
    make: MakeTracker, sequences: Ordered[Sequence], results: Results, repetitions: int = vot.REPETITIONS
) -> dict[str, Any]:
    """Run what is not there yet, and score all with the benchmark's protocol."""
    if repetitions < 1:
        raise InputError(f"repetitions must be 1 or more; got {repetitions}.")
    results.open()
    protocol = results.benchmark.protocol
    if protocol == "vot":
        runs = [run for s in sequences for run in results.supervised(make, s, repetitions)]
        return _score_restarts([run.scored() for run in runs], results.benchmark)
    trajectories = {sequence.name: results.one_pass(make, sequence) for sequence in sequences}
    speed = {"frames_per_cpu_second": _speed(list(trajectories.values()))}
    if protocol == "server":
        return {"submit": str(results.path), "sequences": len(trajectories)} | speed
    if protocol == "oxuva":
        for sequence in sequences:
            results.write_oxuva(trajectories[sequence.name], sequence)
        return _score_presence(sequences, trajectories) | speed
    scores = {s.name: one_pass_score(trajectories[s.name], s, results.benchmark) for s in sequences}
    means = {key: value for key, value in asdict(metrics.summary(list(scores.values()))).items() if key != "sequences"}
    by_sequence = {name: {"auc": one.auc, "precision_at_20": one.precision_at_20} for name, one in scores.items()}
    return {key: _plain(value) for key, value in means.items()} | {"by_sequence": by_sequence} | speed


def one_pass_score(result: Trajectory, sequence: Sequence, scored_as: Benchmark | None = None) -> metrics.OnePass:
    """Success and precision of a trajectory; unseen frames as the benchmark treats them, left out by default."""
    invisible = scored_as.invisible if scored_as is not None else "excluded"
    return metrics.one_pass(result.boxes, sequence.boxes, absent=sequence.absent, invisible=invisible)


def _speed(results: Ordered[Trajectory]) -> float | None:
    """All sequences together; None where it was too short to be measured."""
    spent = sum(float(result.seconds[1:].sum()) for result in results)
    return sum(len(result.seconds) - 1 for result in results) / spent if spent > 0 else None


def _score_restarts(runs: list[vot.SupervisedRun], scored_as: Benchmark) -> dict[str, Any]:
    """eao is None where no run is as long as the benchmark's window begins: on a few short sequences."""
    toolkit = metrics.accuracy_robustness(runs)
    assert scored_as.window is not None
    longest = len(metrics.eao_curve(runs))
    return {
        "eao": metrics.eao(runs, scored_as.window) if longest > scored_as.window[0] else None,
        "accuracy": toolkit.accuracy,
        "robustness": toolkit.robustness,
        "failures_per_100_frames": metrics.accuracy_robustness(runs, "pysot").robustness,
        "failures": {run.sequence: run.failures for run in runs},
    }


def _score_presence(sequences: Ordered[Sequence], trajectories: Mapping[str, Trajectory]) -> dict[str, Any]:
    """Long-term scores over the annotated frames, the first one left out; videos are what is resampled."""
    by_video: dict[str, metrics.Counts] = {}
    for sequence in sequences:
        result, known = trajectories[sequence.name], sequence.meta["annotated"].copy()
        known[0] = False
        size = image_size(sequence)
        counts = count(
            ~sequence.absent[known], sequence.boxes[known], result.present[known], result.boxes[known], size=size
        )
        video = sequence.meta["video"]
        by_video[video] = by_video.get(video, metrics.Counts()) + counts
    return {key: _plain(value) for key, value in asdict(metrics.long_term(list(by_video.values()))).items()}


def _plain(interval: Interval) -> list[float | None]:
    """Value and ends; None for what is not known, such as the ends with a single sequence."""
    return [value if math.isfinite(value) else None for value in interval[:3]]
