"""The sentences that a config names, split into those to learn from and those to judge by, and batches of them."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from labkit.data.sign import Sentence, csl, phoenix2014, phoenix2014t, read_frames, sign_folder, vocabulary
from labkit.errors import DataError, InputError
from labkit.papers.stmc.experiment import avatars
from labkit.papers.stmc.experiment.config import Config
from labkit.seeds import derive
from labkit.workbench.training import ORDER, generator_at

TRAINED_ON, JUDGED_BY = range(2)  # what avatars' seeds are derived for
MIRRORED = (0, 2, 1, 4, 3, 6, 5)  # the points of the mirror image: left becomes right
DISCARDED = 0.2  # of the frames [recalled]
BORDER = 8 / 7  # side of the image before a random crop: 256 for 224 [recalled]


@dataclass(frozen=True)
class Task:
    """train, test: sentences. glosses: the vocabulary; label k + 1 is glosses[k], label 0 the blank.

    points: key points a frame in the training sentences; 0 where there are none.
    """

    name: str
    train: list[Sentence]
    test: list[Sentence]
    glosses: tuple[str, ...]
    points: int

    @property
    def labels(self) -> int:
        return len(self.glosses) + 1

    def encode(self, glosses: Sequence[str]) -> Int64[Tensor, " n"]:
        """Labels of a training sentence."""
        return torch.tensor([self.glosses.index(gloss) + 1 for gloss in glosses])

    def decode(self, labels: Sequence[int]) -> tuple[str, ...]:
        return tuple(self.glosses[label - 1] for label in labels)


def load(config: Config) -> Task:
    """The task that `config.data` names, cut to the asked numbers. Glosses are those of the training sentences.

    Raises:
        DataError: the corpus is missing or damaged; says how to get it.
        InputError: there are fewer sentences than a batch takes.
    """
    train, test, name = _sentences(config)
    train, test = train[: config.train_sentences or None], test[: config.test_sentences or None]
    largest = max(config.batch_size, 1 if config.clip_frames else config.frame_batch)
    if len(train) < largest:
        raise InputError(
            f"{name} has {len(train)} training sentences, and a batch takes {largest}: "
            "lower batch_size and frame_batch."
        )
    counts = {sentence.points.shape[1] for sentence in train if sentence.points is not None}
    if len(counts) > 1:
        raise DataError(f"{name}: sentences with {sorted(counts)} key points; all sentences need as many.")
    complete = all(sentence.points is not None for sentence in train)
    return Task(name, train, test, vocabulary(train), counts.pop() if counts and complete else 0)


def _sentences(config: Config) -> tuple[list[Sentence], list[Sentence], str]:
    if config.data == "avatars":
        world = avatars.World(size=config.base().size, decoys=config.decoys, label_noise=config.label_noise)
        train = avatars.sentences(config.train_sentences, derive(config.seed, TRAINED_ON), world)
        return train, avatars.sentences(config.test_sentences, derive(config.seed, JUDGED_BY), world), "avatars"
    if config.data.startswith("folder:"):
        path = Path(config.data.removeprefix("folder:")).expanduser()
        splits = sign_folder(path)
        return splits["train"], splits.get("test") or splits["dev"], f"folder {path.name}"
    if config.data == "phoenix2014":
        return phoenix2014("train"), phoenix2014("dev"), config.data
    if config.data == "phoenix2014t":
        return phoenix2014t("train"), phoenix2014t("dev"), config.data
    split: Literal[1, 2] = 1 if config.data == "csl-1" else 2
    return csl(split, "train"), csl(split, "test"), config.data


@dataclass(frozen=True)
class Batch:
    """Sentences as tensors.

    frames: those of all sentences in one row, RGB from 0 to 1. lengths: how many each has. starts: the frame of its
    sentence at which each begins, other than 0 for clips. points: J' of each frame, (row, column); NaN where not seen.
    """

    frames: Float[Tensor, "frames 3 size size"]
    lengths: Int64[Tensor, " batch"]
    starts: tuple[int, ...]
    points: Float[Tensor, "frames points 2"] | None

    def to(self, device: torch.device) -> "Batch":
        points = None if self.points is None else self.points.to(device, non_blocking=True)
        return Batch(self.frames.to(device, non_blocking=True), self.lengths, self.starts, points)


def batch(
    sentences: Sequence[Sentence],
    points: int,
    size: int,
    generators: Sequence[torch.Generator] = (),
    clip_frames: int = 0,
    fewest: int = 1,
) -> Batch:
    """Sentences as tensors.

    Args:
        points: key points a frame; 0: none are asked for. size: side of the images.
        generators: one a sentence: each is augmented, see `augmented`, or with `clip_frames` a clip of so many frames
            drawn from it. None: sentences as they are.
        fewest: frames that a network needs.

    Raises:
        DataError: a sentence is too short, or has another number of key points than frames.
    """
    frames, keys, starts = [], [], []
    for k, sentence in enumerate(sentences):
        generator = generators[k] if generators else None
        augments = generator is not None and not clip_frames
        pictures, known = _as_tensors(sentence, round(size * BORDER) if augments else size, points)
        need, start = max(fewest, clip_frames), 0
        if len(pictures) < need:
            raise DataError(f"{sentence.name} has {len(pictures)} frames, and {need} are needed. Leave it out.")
        if generator is not None and augments:
            pictures, known = augmented(pictures, known, size, generator, need)
        elif generator is not None:
            start = int(torch.randint(len(pictures) - clip_frames + 1, (1,), generator=generator))
            pictures = pictures[start : start + clip_frames]
            known = None if known is None else known[start : start + clip_frames]
        frames.append(pictures)
        keys.append(known)
        starts.append(start)
    together = torch.cat([one for one in keys if one is not None]) if points and None not in keys else None
    lengths = torch.tensor([len(pictures) for pictures in frames])
    return Batch(torch.cat(frames).float() / 255, lengths, tuple(starts), together)


def _as_tensors(sentence: Sentence, side: int, points: int) -> tuple[Tensor, Tensor | None]:
    """Frames (time, 3, side, side) as uint8; points as (row, column)."""
    pictures = torch.from_numpy(read_frames(sentence, side)).permute(0, 3, 1, 2)
    if not points or sentence.points is None:
        return pictures, None
    if len(sentence.points) != len(pictures):
        raise DataError(f"{sentence.name}: {len(sentence.points)} rows of key points, and {len(pictures)} frames.")
    return pictures, torch.from_numpy(np.ascontiguousarray(sentence.points[..., ::-1]))


def augmented(
    pictures: Tensor, points: Tensor | None, size: int, generator: torch.Generator, fewest: int
) -> tuple[Tensor, Tensor | None]:
    """One crop for all frames, a mirror image for half of the sentences, a fifth of the frames left out.  [recalled]

    pictures: (time, 3, side, side) with side >= size. Key points go along; left and right change places in a mirror.
    """
    room = pictures.shape[-1] - size
    top, left = (int(v) for v in torch.randint(room + 1, (2,), generator=generator))
    side = pictures.shape[-1]
    pictures = pictures[..., top : top + size, left : left + size]
    if points is not None:
        points = (points * (side - 1) - torch.tensor([top, left])) / (size - 1)
    if torch.rand(1, generator=generator) < 0.5:
        pictures = pictures.flip(-1)
        if points is not None:
            points = torch.stack([points[..., 0], 1 - points[..., 1]], -1)
            points = points[:, list(MIRRORED)] if points.shape[1] == len(MIRRORED) else points
    keep = max(fewest, round(len(pictures) * (1 - DISCARDED)))
    chosen = torch.randperm(len(pictures), generator=generator)[:keep].sort().values
    return pictures[chosen], None if points is None else points[chosen]


# -- which sentences a step takes -------------------------------------------------------------------------------------


class Batches:
    """The batches of a stage: what step k takes is a function of k, so that a resumed run needs no state.

    Args:
        make: the batch of a step from the indices of its sentences. ahead: batches that threads prepare meanwhile.
    """

    def __init__(self, count: int, size: int, seed: int, make: Callable[[int, list[int]], Batch], ahead: int) -> None:
        self.count, self.size, self.seed, self.make = count, min(size, count), seed, make
        self.pool = ThreadPoolExecutor(ahead) if ahead else None
        self.ahead = ahead
        self.coming: dict[int, Future[Batch]] = {}
        self._order: tuple[int, Tensor] | None = None

    @property
    def per_epoch(self) -> int:
        return self.count // self.size

    def indices(self, step: int) -> Tensor:
        """Each epoch is a permutation of its own; the last, incomplete batch is left out."""
        epoch, k = divmod(step, self.per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, torch.randperm(self.count, generator=generator_at(self.seed, ORDER, epoch))
        return self._order[1][k * self.size : (k + 1) * self.size]

    def at(self, step: int, share: Callable[[Tensor], Tensor], last: int) -> tuple[list[int], Batch]:
        """This process's sentences of a step, and their batch; the following ones are read meanwhile."""
        mine = share(self.indices(step)).tolist()
        if self.pool is None:
            return mine, self.make(step, mine)
        for k in range(step, min(step + self.ahead + 1, last)):
            if k not in self.coming:
                self.coming[k] = self.pool.submit(self.make, k, share(self.indices(k)).tolist())
        return mine, self.coming.pop(step).result()

    def close(self) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
