"""Windows of real videos: UCF-101-24, J-HMDB, UCF-Sports with tubes, AVA (or a table like it) with key-frames.

Frames are resized to size x size pixels, boxes with them. Windows that are asked for are spread evenly over all there
are; mirrored ones come after all others, so that a window's number says all about it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from labkit import paths
from labkit.data import action
from labkit.data.action import ActionSet, AnnotatedTube, Frames, ImageFrames
from labkit.errors import DataError, InputError
from labkit.metrics.detection import ava
from labkit.papers.lstr.experiment.config import Config
from labkit.papers.lstr.experiment.data import Source, Window
from labkit.papers.lstr.method.heads import Labels

TUBES: dict[str, Callable[[Path | None], ActionSet]] = {
    "ucf24": action.ucf24,
    "jhmdb": action.jhmdb,
    "ucf-sports": action.ucf_sports,
}
AVA_START = 900
"""Second of a movie with which AVA's cut frames begin; tables whose times are all later are taken for AVA's."""


def sources(config: Config) -> tuple[Source, Source]:
    """What to train and test on.

    Raises:
        DataError, InputError: files are missing or damaged.
    """
    kind = config.data.partition(":")[0]
    if kind == "ava":
        folder = config.path() or paths.data_dir() / "ava"
        train, test = (AvaWindows(folder, part, config) for part in ("train", "val"))
        if missing := set(train.classes) ^ set(test.classes):
            raise InputError(
                f"train and val have different classes, such as {sorted(missing)[0]}; give a labels.pbtxt."
            )
        return train, test
    dataset = TUBES[kind](config.path())
    return TubeWindows(dataset, dataset.train, config, train=True), TubeWindows(
        dataset, dataset.test, config, train=False
    )


class _Windows(ABC):
    """What both kinds share: numbers spread over all windows, mirrored ones behind them, frames kept open."""

    fixed = False

    def __init__(self, every: Sequence[tuple[str, int]], config: Config, train: bool) -> None:
        if not every:
            raise DataError("no video is long enough for a window of that many clips, or none is annotated.")
        count = config.videos if train else config.test_videos
        chosen = np.unique(np.linspace(0, len(every) - 1, count).round().astype(int))
        self.windows = [every[k] for k in chosen]
        self.mirrored = train and config.flip
        self.size, self.frames, self.clips, self.stride = config.size, config.frames, config.clips, config.frame_stride
        self._open: dict[str, Frames] = {}

    def __len__(self) -> int:
        return len(self.windows) * (1 + self.mirrored)

    def window(self, index: int) -> Window:
        video, first = self.windows[index % len(self.windows)]
        window = self._window(video, first)
        return mirror(window, self.size) if index >= len(self.windows) else window

    def frames_of(self, video: str) -> Frames:
        if video not in self._open:
            if len(self._open) > 64:
                self._open.clear()
            self._open[video] = self._find(video)
        return self._open[video]

    @abstractmethod
    def _window(self, video: str, first: int) -> Window:
        """The window of a video that begins with this frame, or second."""

    @abstractmethod
    def _find(self, video: str) -> Frames:
        """Where the frames of a video are."""


class TubeWindows(_Windows):
    """Consecutive clips of videos with tubes: clip c of a window holds frames first + (c T + t) stride.

    A tube belongs to a clip if it has a box in each of its frames. One label a tubelet.
    """

    labels: Labels = "single"

    def __init__(self, dataset: ActionSet, videos: Sequence[str], config: Config, train: bool) -> None:
        self.dataset, self.classes = dataset, dataset.classes
        span = config.clips * config.frames * config.frame_stride
        every = [
            (name, first) for name in videos for first in range(0, max(dataset.videos[name].frames - span, 0) + 1, span)
        ]
        super().__init__(every, config, train)
        self.frames_of(self.windows[0][0])  # missing frames are an error before any work
        if not any(tubes for video, first in self.windows for tubes in self._inside(video, first)):
            raise DataError(
                f"in {len(self.windows)} windows no annotated tube holds a whole clip of {config.frames} frames with "
                f"frame_stride {config.frame_stride}; ask for shorter clips or more videos."
            )

    def _inside(self, video: str, first: int) -> list[list[AnnotatedTube]]:
        """The tubes that have a box in each frame of a clip, clip by clip."""
        clips = (first + np.arange(self.clips * self.frames) * self.stride).reshape(self.clips, self.frames)
        tubes = self.dataset.videos[video].tubes
        return [[t for t in tubes if t.start <= clip[0] and clip[-1] < t.start + len(t.boxes)] for clip in clips]

    def _find(self, video: str) -> Frames:
        return action.frames_of(self.dataset.folder, video, self.dataset.places)

    def _window(self, video: str, first: int) -> Window:
        about = self.dataset.videos[video]
        frames = self.frames_of(video)
        numbers = first + np.arange(self.clips * self.frames) * self.stride
        pictures = frames.read([min(int(n), about.frames - 1) for n in numbers])
        scale = self.size / np.array([pictures.shape[2], pictures.shape[1]] * 2)
        rows = [
            [(tube.boxes[clip - tube.start] * scale, tube.label) for tube in tubes]
            for clip, tubes in zip(numbers.reshape(self.clips, self.frames), self._inside(video, first), strict=True)
        ]
        return _window(clips_of(pictures, self.clips, self.size), rows, len(self.classes))


class AvaWindows(_Windows):
    """Key-frames of a table like AVA's: a window is `clips` consecutive seconds of a video, each one clip around it.

    PATH holds {train,val}.csv (or ava_{train,val}_v2.1.csv), optionally labels.pbtxt with names, and the pictures:
    frames/<video>/ (30 a second) or videos/<video>.mp4. SlowFast's layout is one of these [peer code]: AVA's files in
    annotations/, and frame_lists/{train,val}.csv, which say what frames there are and in which order. A box stands
    still for its clip's frames. Many labels a box.
    """

    labels: Labels = "multi"

    def __init__(self, folder: Path, part: str, config: Config) -> None:
        self.folder = folder
        official = [f"{where}ava_{part}_v{version}.csv" for where in ("", "annotations/") for version in (2.1, 2.2)]
        rows = ava.read(_first(folder, (f"{part}.csv", *official)))
        listed = folder / "frame_lists" / f"{part}.csv"
        self.listed = action.read_frame_list(listed) if listed.exists() else {}
        names = _label_names(folder, rows)
        self.ids = sorted(names)
        self.classes = tuple(names[k] for k in self.ids)
        self.boxes: dict[tuple[str, int], dict[tuple[float, ...], set[int]]] = {}
        for key, box, number in zip(rows.keys, rows.boxes, rows.actions, strict=True):
            if int(number) in names:
                self.boxes.setdefault(key, {}).setdefault(tuple(box), set()).add(int(number))
        seconds = [second for _, second in rows.keys]
        self.begins = AVA_START if seconds and min(seconds) >= AVA_START else 0
        by_video: dict[str, list[int]] = {}
        for video, second in sorted(set(rows.keys)):
            by_video.setdefault(video, []).append(second)
        every = [(video, at) for video, seconds in by_video.items() for at in seconds[:: config.clips]]
        super().__init__(every, config, part == "train")
        self.frames_of(self.windows[0][0])

    def _find(self, video: str) -> Frames:
        if video in self.listed:
            return ImageFrames(self.folder / "frames", listed=self.listed[video])
        return action.frames_of(self.folder, video, ("frames/{}",))

    def _window(self, video: str, first: int) -> Window:
        frames = self.frames_of(video)
        around = (np.arange(self.frames) - (self.frames - 1) / 2) * self.stride
        seconds = [first + c for c in range(self.clips)]
        numbers = np.concatenate([np.round((s - self.begins) * frames.rate + around) for s in seconds]).astype(int)
        pictures = frames.read([min(max(int(n), 0), len(frames) - 1) for n in numbers])
        targets = [self.boxes.get((video, second), {}) for second in seconds]
        clips = clips_of(pictures, self.clips, self.size)
        rows = [
            [(np.tile(np.array(box) * self.size, (self.frames, 1)), [self.ids.index(k) for k in actions])
             for box, actions in boxes.items()]
            for boxes in targets
        ]  # fmt: skip
        return _window(clips, rows, len(self.classes))


def clips_of(pictures: UInt8[np.ndarray, "n h w 3"], clips: int, size: int) -> Float[Tensor, "clips 3 frames s s"]:
    """Frames as clips in 0..1, resized (area average where they shrink)."""
    way = cv2.INTER_AREA if pictures.shape[1] > size else cv2.INTER_LINEAR
    small = np.stack([cv2.resize(p, (size, size), interpolation=way) for p in pictures])
    return torch.from_numpy(small).float().div(255).permute(0, 3, 1, 2).unflatten(0, (clips, -1)).transpose(1, 2)


def mirror(window: Window, size: int) -> Window:
    """Left and right exchanged, boxes with them."""

    def flipped(boxes: Tensor, valid: Tensor) -> Tensor:
        x1, y1, x2, y2 = boxes.unbind(-1)
        return torch.stack([size - x2, y1, size - x1, y2], -1) * valid[..., None, None]

    given, truth = (flipped(boxes, window.valid) for boxes in (window.given, window.truth))
    return Window(window.clips.flip(-1), truth, window.valid, window.targets, given)


def _window(clips: Tensor, rows: Sequence[Sequence[tuple[np.ndarray, int | list[int]]]], classes: int) -> Window:
    """Boxes and labels of each clip, padded to the clip that has most."""
    most, frames = max(map(len, rows)), clips.shape[2]
    truth, targets = torch.zeros(len(rows), most, frames, 4), torch.zeros(len(rows), most, classes)
    valid = torch.zeros(len(rows), most, dtype=torch.bool)
    for c, inside in enumerate(rows):
        for k, (boxes, label) in enumerate(inside):
            truth[c, k], valid[c, k] = torch.from_numpy(boxes).float(), True
            targets[c, k, label] = 1.0
    return Window(clips, truth, valid, targets, truth)


def _first(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise DataError(f"{folder} lacks {' or '.join(names)}: rows video_id,timestamp,x1,y1,x2,y2,action_id.")


def _label_names(folder: Path, rows: ava.Rows) -> dict[int, str]:
    """Names by action id: those of labels.pbtxt, else of every id that the table has."""
    lists = ("ava_action_list_v2.1_for_activitynet_2018.pbtxt", "ava_action_list_v2.2_for_activitynet_2019.pbtxt")
    for name in ("labels.pbtxt", *lists, *(f"annotations/{name}" for name in lists)):
        if (folder / name).exists():
            return ava.read_label_map(folder / name)
    return {int(number): f"action {number}" for number in np.unique(rows.actions)}
