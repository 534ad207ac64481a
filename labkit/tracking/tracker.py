"""The tracker protocol: `init` once, `update` once a frame.

Boxes are (x, y, width, height) in pixels, 0-based and continuous: pixel column i covers [i, i + 1), so a box that
covers exactly columns 2, 3, 4 has x = 2 and width = 3.  Frames are uint8 RGB arrays (height, width, 3).
"""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from labkit.errors import InputError

Box = tuple[float, float, float, float]
"""x, y, width, height: pixels, 0-based, continuous."""


class Tracked(NamedTuple):
    """A tracker's answer for one frame."""

    box: Box
    """The target's box; the last known one when `present` is false."""
    score: float
    """Confidence; larger is surer, the scale is the tracker's own."""
    present: bool
    """False: the tracker believes that the target is not in this frame (OxUvA asks for this)."""


@runtime_checkable
class Tracker(Protocol):
    """A visual tracker: it learns the inside of one box in one frame, and follows it."""

    def init(self, frame: np.ndarray, box: Box) -> None:
        """Learn the target: the first frame and the box around it.  May be called again to start over."""
        ...

    def update(self, frame: np.ndarray) -> Tracked:
        """The next frame of the same video, in order."""
        ...


def check_frame(frame: object) -> np.ndarray:
    """The frame itself when it is one; otherwise an error that says what a frame is."""
    if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        given = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise InputError(
            f"a frame must be a uint8 RGB array of shape (height, width, 3); got {given}. "
            "A grey picture: np.repeat(grey[..., None], 3, axis=2); an OpenCV picture is BGR: frame[..., ::-1]"
        )
    return frame


def check_box(box: object, frame: np.ndarray) -> Box:
    """The box as four floats when it is usable on this frame; otherwise an error that says why it is not."""
    try:
        x, y, width, height = (float(value) for value in box)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise InputError(f"a box is four numbers x, y, width, height in pixels; got {box!r}") from None
    if not np.isfinite([x, y, width, height]).all():
        raise InputError(
            f"a box must hold finite numbers; got {(x, y, width, height)}. Start at a frame where it is annotated"
        )
    if width < 2 or height < 2:
        raise InputError(f"the box is {width:g} x {height:g} pixels; a tracker needs at least 2 x 2")
    rows, columns = frame.shape[:2]
    if x + width <= 0 or y + height <= 0 or x >= columns or y >= rows:
        raise InputError(
            f"the box {(x, y, width, height)} lies outside the {columns} x {rows} frame; boxes are x, y, width, "
            f"height (not corners)"
        )
    return x, y, width, height
