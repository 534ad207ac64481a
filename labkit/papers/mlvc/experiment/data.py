"""What is trained on and what is coded: generated scenes, real clips, Vimeo-90k septuplets, HEVC and UVG sequences."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from labkit.data import registry
from labkit.data.pictures import read_picture
from labkit.errors import DataError, InputError
from labkit.papers.mlvc.experiment.scenes import FAMILIES, Family, scenes
from labkit.papers.mlvc.experiment.video import ENDINGS, Video, from_rgb, read
from labkit.seeds import derive

TRAINED_ON, CODED, CROP = 21, 22, 23  # what seeds are derived for: no scene is both trained on and coded

CLIPS = {
    "city": "vid4_city_352x288.mkv",
    "calendar": "vid4_calendar_352x288.mkv",
    "parkjoy": "netflix_parkjoy_480x270.mkv",
    "cisco": "cisco_vt2people_320x192.mkv",
    "carphone": "carphone_pristine.mp4",
}
"""Real clips in LABKIT_DATA/video, by a short name."""
HEVC_CLASSES = ("B", "C", "D", "E")
SETS = ("scenes", "video", *(f"hevc-{c.lower()}" for c in HEVC_CLASSES), "uvg")
"""What can be coded, see `coded_set`."""
TRAINING_SETS = ("scenes", "vimeo90k")
GENERATED = (
    *FAMILIES.values(),
    Family(texture="rich"),
    Family(texture="fine", noise=1.0),
    Family(layers=3, texture="smooth", noise=1.0, velocity=3.0),
    Family(layers=1, texture="rich", noise=0.0, velocity=4.0),
)
"""Kinds of scenes that networks are trained on, in equal parts."""


# -- to train on ------------------------------------------------------------------------------------------------------


class GeneratedExamples:
    """Clips of generated scenes, kept as bytes."""

    def __init__(self, count: int, frames: int, size: int, seed: int) -> None:
        share = -(-count // len(GENERATED))
        kinds = [
            scenes(family, share, frames, derive(seed, TRAINED_ON, number), size, 3).frames.to(torch.uint8)
            for number, family in enumerate(GENERATED)
        ]
        self.clips: UInt8[Tensor, "time count 3 size size"] = torch.stack(
            [kinds[k % len(kinds)][:, k // len(kinds)] for k in range(count)], dim=1
        )

    def __len__(self) -> int:
        return self.clips.shape[1]

    def batch(self, indices: Int[Tensor, " batch"], seed: int) -> Float[Tensor, "time batch 3 size size"]:
        return self.clips[:, indices].float() / 255


class VimeoSeptuplets:
    """Vimeo-90k, seven frames each: `vimeo90k/sequences/00001/0001/im1.png ... im7.png`, `vimeo90k/sep_trainlist.txt`.

    The paper trains on clips of sixteen frames that are not public; its author says that septuplets do. [official code]

    Args:
        frames: at most 7; the first of each septuplet. size: of the crops, a multiple of 64.

    Raises:
        DataError: the data set is not there, or its list names what is not.
    """

    LIST, FRAMES = "sep_trainlist.txt", 7

    def __init__(self, frames: int = 7, size: int = 192) -> None:
        if not 2 <= frames <= self.FRAMES:
            raise InputError(f"a septuplet has 7 frames and training needs 2 of them at least; got {frames}.")
        self.folder, self.frames, self.size = registry.require("vimeo90k"), frames, size
        try:
            lines = (self.folder / self.LIST).read_text().split()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.folder / self.LIST} cannot be read ({error}).") from None
        self.names = [name for name in lines if _is_septuplet(name)]
        if not self.names or len(self.names) < len(lines):
            raise DataError(f"{self.folder / self.LIST} must name septuplets, one a line, such as 00001/0001.")

    def __len__(self) -> int:
        return len(self.names)

    def batch(self, indices: Int[Tensor, " batch"], seed: int) -> Float[Tensor, "time batch 3 size size"]:
        """Each septuplet cropped at a random place, the same in all frames."""
        clips = [self._clip(self.names[int(index)], derive(seed, CROP, int(index))) for index in indices]
        return torch.stack(clips, dim=1)

    def _clip(self, name: str, seed: int) -> Float[Tensor, "time 3 size size"]:
        mend = "Unpack vimeo_septuplet.zip anew."
        files = [self.folder / "sequences" / name / f"im{k}.png" for k in range(1, self.frames + 1)]
        if missing := [file for file in files if not file.is_file()]:
            raise DataError(f"{missing[0]} is missing. {mend}")
        frames = np.stack([np.asarray(read_picture(file, mend)) for file in files])
        height, width = frames.shape[1:3]
        if min(height, width) < self.size:
            raise DataError(
                f"{files[0]} is {width} x {height}, smaller than crops of {self.size}. Ask for smaller crops."
            )
        rng = np.random.default_rng(seed)
        top, left = (int(rng.integers(side - self.size + 1)) for side in (height, width))
        crop = frames[:, top : top + self.size, left : left + self.size]
        return torch.from_numpy(np.ascontiguousarray(crop)).permute(0, 3, 1, 2).float() / 255


def _is_septuplet(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 2 and all(part.isdigit() for part in parts)


def examples(name: str, count: int, frames: int, size: int, seed: int) -> GeneratedExamples | VimeoSeptuplets:
    """Clips to train on, by the name of their set.

    Raises InputError for another name.
    """
    if name == "scenes":
        return GeneratedExamples(count, frames, size, seed)
    if name == "vimeo90k":
        return VimeoSeptuplets(frames, size)
    raise InputError(f"networks are trained on {' or '.join(TRAINING_SETS)}; got '{name}'.")


# -- to be coded ------------------------------------------------------------------------------------------------------


def coded_set(name: str, frames: int, seed: int, count: int = 8, size: int = 192) -> list[Video]:
    """The videos of a set, the first `frames` of each (0: all).

    scenes: `count` generated ones, other seeds than those trained on. video: the real clips. hevc-b to hevc-e: the
    common test sequences, `hevc/B/NAME_1920x1080_50.yuv`. uvg: `uvg/1080p/NAME_1920x1080_120fps_420_8bit_YUV.yuv`.
    Files may be .y4m instead.

    Raises:
        InputError: no such set.
        DataError: the set is not in LABKIT_DATA, or a file of it cannot be read.
    """
    if name == "scenes":
        return _generated(frames or 24, seed, count, size)
    if name == "video":
        folder = registry.require("video")
        return [_named(read(folder / file, frames), short) for short, file in CLIPS.items()]
    if name == "uvg":
        return _all_of(registry.require("uvg") / "1080p", frames)
    if name in SETS:
        return _all_of(registry.require("hevc") / name[-1].upper(), frames)
    raise InputError(f"there is no set of videos '{name}'; there are {', '.join(SETS)}.")


def footage_is_there() -> bool:
    """Whether LABKIT_DATA holds the real clips."""
    return registry.status("video").state == "present"


def clip(name: str, frames: int = 0) -> Video:
    """One real clip by its short name, the first `frames` of it.

    Raises:
        InputError: no such clip.
        DataError: the clips are not in LABKIT_DATA.
    """
    if name not in CLIPS:
        raise InputError(f"there is no clip '{name}'; there are {', '.join(CLIPS)}.")
    return _named(read(registry.require("video") / CLIPS[name], frames), name)


def _generated(frames: int, seed: int, count: int, size: int) -> list[Video]:
    videos = []
    for k in range(count):
        family = GENERATED[k % len(GENERATED)]
        scene = scenes(family, 1, frames, derive(seed, CODED, k), size, 3)
        videos.append(from_rgb(f"scene-{k}", scene.frames[:, 0] / 255))
    return videos


def _all_of(folder: Path, frames: int) -> list[Video]:
    files: Sequence[Path] = sorted(p for p in folder.glob("*") if p.suffix in ENDINGS) if folder.is_dir() else []
    if not files:
        raise DataError(f"{folder} holds no video ({', '.join(ENDINGS)}).")
    return [read(file, frames) for file in files]


def _named(video: Video, name: str) -> Video:
    return Video(name, video.planes, video.rate)
