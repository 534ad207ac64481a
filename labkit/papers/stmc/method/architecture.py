"""The network's sizes, all in one place: those of the paper, and smaller ones from the same code.

A row of convolutions is written as VGG papers write it: "64 M 128" is a 3 x 3 convolution to 64 channels, a 2 x 2
maximum pooling, a convolution to 128 channels; "16/2" has stride 2.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

from labkit.errors import InputError

Cue = Literal["full", "hand", "face", "pose"]
CUES: tuple[Cue, ...] = ("full", "hand", "face", "pose")
Path = Literal["both", "intra", "inter"]
Crops = Literal["whole", "soft"]
LARGEST = 4096
"""Channels, pixels or points of a network that somebody could mean."""

_ROW = re.compile(r"(M|[1-9]\d{0,3}(/2)?)( (M|[1-9]\d{0,3}(/2)?))*")


@dataclass(frozen=True)
class Architecture:
    """Sizes of an STMC network.  [author net] unless marked.

    size: side of the input image. trunk, middle, top: rows of convolutions from the image to map A (the source of the
    crops), from A to B (the source of the pose), from B to the last map, which is averaged to the full-frame feature.
    deconvolutions: of the pose branch, each doubles the side. points: heat maps; `face` and `hands` are the points at
    which crops are centred. windows: sides of the crops in cells of A. hand, face: rows inside of the crops, averaged
    at their end. pose: widths of the pose net. channels: C of the temporal blocks. width: multiplies every number of
    channels. batch_norm: after each convolution, for training from scratch (VGG-11 has none).  [ours]
    padded: temporal convolutions pad by 2, as re-implementations do [peer code]; the author's do not.
    cues, path, crops: what the ablations switch.
    """

    size: int = 224
    trunk: str = "64 M 128 M 256 256"
    middle: str = "M 512 512 M 512"
    top: str = "512 M 512"
    deconvolutions: int = 2
    deconvolution_channels: int = 256
    points: int = 7
    face_point: int = 0
    hand_points: tuple[int, int] = (5, 6)
    face_window: int = 16
    hand_window: int = 24
    hand: str = "256 M 256 256 M 256"
    face: str = "256 256 M 256 256"
    pose: tuple[int, int] = (128, 256)
    channels: int = 1024
    layers: int = 2
    dropout: float = 0.4
    recurrent_dropout: float = 0.3
    width: float = 1.0
    batch_norm: bool = False
    padded: bool = False
    cues: tuple[Cue, ...] = CUES
    path: Path = "both"
    crops: Crops = "whole"
    pose_branch: bool = True

    def __post_init__(self) -> None:
        for name in ("trunk", "middle", "top", "hand", "face"):
            if not _ROW.fullmatch(getattr(self, name)):
                raise InputError(f"{name} is a row of convolutions such as '64 M 128'; got '{getattr(self, name)}'.")
        whole = (self.size, self.points, self.channels, self.layers, self.deconvolution_channels, *self.pose)
        if not all(1 <= value <= LARGEST for value in whole) or not 0 <= self.deconvolutions <= 5:
            raise InputError(f"sizes lie between 1 and {LARGEST}, and deconvolutions between 0 and 5.")
        if not 0 < self.width <= 8 or not 0 <= self.dropout < 1 or not 0 <= self.recurrent_dropout < 1:
            raise InputError("width lies between 0 and 8, and dropout is a share below 1.")
        if not self.cues or len(set(self.cues)) < len(self.cues) or not set(self.cues) <= set(CUES):
            raise InputError(f"cues are some of {', '.join(CUES)}, each once; got {self.cues}.")
        if set(self.cues) != {"full"} and not self.pose_branch:
            raise InputError("hands, face and pose are found by the pose branch, which is switched off.")
        if max(self.face_point, *self.hand_points) >= self.points or min(self.face_point, *self.hand_points) < 0:
            raise InputError(f"face and hands are points 0 to {self.points - 1}.")
        self._check_sides()

    def _check_sides(self) -> None:
        a, b = self.side_of_a, self.side_of_b
        if self.size % self.stride_of_a or a % (a // b if b else 1) or not b:
            raise InputError(f"an image of {self.size} pixels cannot be halved as often as the rows ask.")
        if self.cues == ("full",) and not self.pose_branch:
            return
        for name, window in (("face", self.face_window), ("hand", self.hand_window)):
            if not 2 <= window <= a or window % 2:
                raise InputError(f"the {name}'s window is even and fits into map A, {a} cells; got {window}.")

    @property
    def stride_of_a(self) -> int:
        """Pixels a cell of map A."""
        return _stride(self.trunk)

    @property
    def side_of_a(self) -> int:
        return self.size // self.stride_of_a

    @property
    def side_of_b(self) -> int:
        return self.side_of_a // _stride(self.middle)

    def scaled(self, channels: int) -> int:
        """Channels times `width`."""
        return max(1, round(channels * self.width))

    def last(self, row: str) -> int:
        """Channels after a row of convolutions."""
        return self.scaled([int(word.partition("/")[0]) for word in row.split() if word != "M"][-1])

    @property
    def cue_sizes(self) -> tuple[int, ...]:
        """d of each cue's feature: 512, 512, 256, 256 in the paper's network."""
        sizes = {
            "full": self.last(self.top),
            "hand": 2 * self.last(self.hand),
            "face": self.last(self.face),
            "pose": self.scaled(self.pose[1]),
        }
        return tuple(sizes[cue] for cue in self.cues)

    @property
    def intra_size(self) -> int:
        """Channels of each cue after a temporal block: C / N."""
        return max(1, self.scaled(self.channels) // len(self.cues))

    @property
    def inter_size(self) -> int:
        """Channels of the joint path after a temporal block: C."""
        return self.intra_size * len(self.cues) if self.path == "intra" else self.scaled(self.channels)

    @property
    def needs_points(self) -> bool:
        """Whether training needs key points."""
        return self.pose_branch


def _stride(row: str) -> int:
    words = row.split()
    return 2 ** sum(word == "M" or word.endswith("/2") for word in words)


PAPER = Architecture()
"""[author net], at 224 x 224 pixels."""

MEDIUM = replace(PAPER, size=112, face_window=8, hand_window=12, width=0.5, batch_norm=True)
"""The paper's rows at half the side and half the width. [ours]"""

SMALL = Architecture(
    size=40, trunk="16/2 24", middle="M 32", top="M 64", deconvolutions=1, deconvolution_channels=24,
    face_window=6, hand_window=6, hand="32 M 32", face="32 M 32", pose=(32, 32), channels=128, layers=1,
    dropout=0.0, recurrent_dropout=0.0, batch_norm=True, padded=True,
)  # fmt: skip
"""For 40 x 40 pixels, minutes on a CPU. [ours]"""
