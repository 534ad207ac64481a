"""Baselines: a box that never moves, and the trackers that come with OpenCV.

A table of trackers without the row of the static box says little: where the target hardly moves, doing nothing scores
high.
"""

from typing import Any

import numpy as np

from labkit.errors import InputError
from labkit.tracking.tracker import Box, Tracked, check_box, check_frame

OPENCV = ("CSRT", "KCF", "MIL", "MOSSE", "MedianFlow", "Boosting", "TLD")
"""OpenCV's trackers that need no weight file. The first three are in `cv2`, the others in `cv2.legacy`."""
WITH_WEIGHTS = ("DaSiamRPN", "GOTURN", "Nano", "Vit")
"""OpenCV's trackers that start only with weight files of the user's; they are refused by name."""


class StaticBox:
    """Reports the box of the first frame in every frame."""

    name = "static"

    def init(self, frame: np.ndarray, box: Box) -> None:
        self.box = check_box(box, check_frame(frame))

    def update(self, frame: np.ndarray) -> Tracked:
        check_frame(frame)
        return Tracked(self.box, 1.0, True)


class OpenCVTracker:
    """One of OpenCV's trackers behind our convention.

    They take whole pixels, return a flag and a box, and may raise on a target that leaves the frame. Whenever one says
    that it lost the target, or raises, the last box is kept, with score 0 and not present; on the next frame it is
    asked again. There is no other score: 1 while it follows. CSRT and KCF do the same twice; MIL draws samples from a
    generator that no seed reaches, so its rows differ from run to run.

    Raises InputError at once when OpenCV is not installed or has no tracker of that name.
    """

    def __init__(self, name: str = "CSRT", *, threads: int = 1) -> None:
        self.name = name
        self.lost = 0  # frames since `init` without a result
        self._create = _factory(name)
        self._threads = threads

    def init(self, frame: np.ndarray, box: Box) -> None:
        import cv2

        self.box = check_box(box, check_frame(frame))
        x, y, w, h = _visible(self.box, frame.shape[1], frame.shape[0])
        cv2.setNumThreads(self._threads)
        self.lost, self._tracker = 0, self._create()
        try:
            started = self._tracker.init(_as_bgr(frame), (x, y, w, h))
        except cv2.error as error:
            raise InputError(f"OpenCV's {self.name} cannot start on the box {self.box}: {_reason(error)}") from error
        if started is False:  # cv2.legacy answers, cv2 returns nothing
            raise InputError(f"OpenCV's {self.name} cannot start on the box {self.box}.")

    def update(self, frame: np.ndarray) -> Tracked:
        import cv2

        try:
            present, box = self._tracker.update(_as_bgr(check_frame(frame)))
        except cv2.error:  # some raise instead of reporting a loss
            present, box = False, self.box
        # MedianFlow can return a box without area
        present = bool(present) and bool(np.isfinite(box).all()) and box[2] > 0 and box[3] > 0
        if present:
            self.box = (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
        else:
            self.lost += 1
        return Tracked(self.box, float(present), bool(present))


def _as_bgr(frame: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(frame[..., ::-1])


def _visible(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """The box in whole pixels, cut to the frame: outside of it several trackers read memory that is not there."""
    left, top = max(0, round(box[0])), max(0, round(box[1]))
    right, bottom = min(width, round(box[0] + box[2])), min(height, round(box[1] + box[3]))
    if right - left < 2 or bottom - top < 2:
        raise InputError(f"less than 2 x 2 pixels of the box {box} lie inside the {width} x {height} frame.")
    return left, top, right - left, bottom - top


def _factory(name: str) -> Any:
    if name in WITH_WEIGHTS:
        raise InputError(f"OpenCV's {name} needs weight files. Trackers without: {', '.join(OPENCV)}.")
    if name not in OPENCV:
        raise InputError(f"there is no peer '{name}'; OpenCV's trackers are {', '.join(OPENCV)}.")
    try:
        import cv2
    except ImportError:
        raise InputError(
            f"the peer {name} needs OpenCV, which is not installed. Get it: pip install 'labkit[peers]'"
        ) from None
    for module in (cv2, getattr(cv2, "legacy", None)):
        if (kind := getattr(module, f"Tracker{name}", None)) is not None and hasattr(kind, "create"):
            return kind.create
        if (create := getattr(module, f"Tracker{name}_create", None)) is not None:
            return create
    raise InputError(
        f"OpenCV {cv2.__version__} as installed has no tracker {name}: it comes with the contrib modules. "
        "Get them: pip install opencv-contrib-python-headless"
    )


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[-1][:200]
