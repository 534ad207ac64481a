"""What a dataset of actions says of its videos."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64


@dataclass(frozen=True, eq=False)
class AnnotatedTube:
    """One action of one person: class (from 0), first frame (from 0), a box x1, y1, x2, y2 in pixels for each frame.

    The last frame is start + len(boxes) - 1 and belongs to it.
    """

    label: int
    start: int
    boxes: Float64[np.ndarray, "n 4"]

    def same(self, other: "AnnotatedTube") -> bool:
        return (
            (self.label, self.start) == (other.label, other.start)
            and self.boxes.shape == other.boxes.shape
            and bool((self.boxes == other.boxes).all())
        )


@dataclass(frozen=True, eq=False)
class ActionVideo:
    """name, number of frames, tubes; size: height and width where the annotation gives them."""

    name: str
    frames: int
    tubes: tuple[AnnotatedTube, ...]
    size: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class ActionSet:
    """A dataset: names of its classes, its videos, which of them train and test, where their frames are.

    places: folders below `folder` that may hold a video's frames, `{}` for its name.
    """

    name: str
    classes: tuple[str, ...]
    videos: Mapping[str, ActionVideo]
    train: tuple[str, ...]
    test: tuple[str, ...]
    folder: Path
    places: tuple[str, ...]
