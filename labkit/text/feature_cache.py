"""What a frozen encoder says of a text, kept on disk: computed once, read by every epoch and every run.

    <folder>/<key>/states.npy     (tokens of all sentences, width), float16, memory-mapped
    <folder>/<key>/offsets.npy    (sentences + 1): sentence i has the rows offsets[i] to offsets[i + 1]
    <folder>/<key>/about.json     the key, and the sums of both files

A folder is there whole or not at all. The sums are compared when it is opened: a flipped bit is not another feature.
Size: tokens x width x 2 bytes.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Int
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor

from labkit.errors import DataError, InputError
from labkit.files import write_folder

STATES, OFFSETS, ABOUT = "states.npy", "offsets.npy", "about.json"


class About(BaseModel, frozen=True, extra="forbid", strict=True):
    format: Literal["labkit features 1"] = "labkit features 1"
    key: str = Field(pattern="^[0-9a-f]{64}$")
    states: str = Field(description="SHA-256 of states.npy")
    offsets: str = Field(description="SHA-256 of offsets.npy")


class FeatureCache:
    """Features by sentence number. Use `FeatureCache.open`, or `cached`, which makes what is not there yet."""

    def __init__(self, states: Float16[np.ndarray, "tokens width"], offsets: Int[np.ndarray, " sentences_1"]) -> None:
        self._states, self._offsets = states, offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def width(self) -> int:
        return int(self._states.shape[1])

    @property
    def bytes(self) -> int:
        return int(self._states.nbytes)

    def lengths(self) -> Int[np.ndarray, " sentences"]:
        """Tokens of each sentence."""
        return np.diff(self._offsets)

    def padded(
        self, sentences: Sequence[int] | Int[np.ndarray, " batch"], dtype: torch.dtype = torch.float32
    ) -> tuple[Float[Tensor, "batch tokens width"], Bool[Tensor, "batch tokens"]]:
        """The features of some sentences, with zeros on the right, and where they are real."""
        rows = [self._states[self._offsets[i] : self._offsets[i + 1]] for i in sentences]
        longest = max(map(len, rows))
        states, real = np.zeros((len(rows), longest, self.width), np.float16), np.zeros((len(rows), longest), bool)
        for number, row in enumerate(rows):
            states[number, : len(row)], real[number, : len(row)] = row, True
        return torch.from_numpy(states).to(dtype), torch.from_numpy(real)

    @classmethod
    def open(cls, folder: Path, key: str) -> "FeatureCache":
        """The features under `key`.

        Raises:
            DataError: they are not there, or damaged.
        """
        path = folder / key
        try:
            about = About.model_validate_json((path / ABOUT).read_bytes())
            for name, wanted in ((STATES, about.states), (OFFSETS, about.offsets)):
                with open(path / name, "rb") as stream:
                    if hashlib.file_digest(stream, "sha256").hexdigest() != wanted:
                        raise _damaged(path, f"the sum of {name} does not fit")
            states = np.load(path / STATES, mmap_mode="r", allow_pickle=False)
            offsets = np.load(path / OFFSETS, allow_pickle=False)
        except FileNotFoundError as error:
            if not path.exists():
                raise DataError(f"there are no features under {path}.") from None
            raise _damaged(path, f"{Path(str(error.filename)).name} is missing") from None
        except (OSError, ValueError, EOFError, ValidationError) as error:
            raise _damaged(path, str(error).splitlines()[0]) from None
        if about.key != key or not _fits(states, offsets):
            raise _damaged(path, "its files do not belong together")
        return cls(states, offsets)


def cached(
    folder: Path,
    key: str,
    lengths: Sequence[int],
    width: int,
    compute: Callable[[list[int]], list[Float[Tensor, "tokens width"]]],
    batches: Sequence[Sequence[int]],
) -> FeatureCache:
    """The features under `key`; computed and written first where they are not there. A damaged cache is made anew.

    Args:
        key: see `key_of`.
        lengths: tokens of each sentence.
        compute: features of a few sentences.
        batches: what is computed together, all sentences in all.

    Raises:
        DataError: nothing can be written.
    """
    path = folder / key
    try:
        return FeatureCache.open(folder, key)
    except DataError:
        _remove(path)
    offsets = np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64))])
    try:
        write_folder(path, lambda beside: _fill(beside, key, offsets, width, compute, batches))
    except (InputError, OSError) as error:
        if path.exists():  # another process was quicker
            return FeatureCache.open(folder, key)
        size, reason = int(offsets[-1]) * width * 2, getattr(error, "strerror", None) or error
        raise DataError(
            f"cannot keep features in {folder}: {reason}. They take {size:,} bytes; free space, or point LABKIT_RUNS "
            "elsewhere."
        ) from error
    return FeatureCache.open(folder, key)


def key_of(*parts: Any) -> str:
    """A key from everything that decides the features: text, model, layer."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()


def _fill(
    folder: Path,
    key: str,
    offsets: Int[np.ndarray, " sentences_1"],
    width: int,
    compute: Callable[[list[int]], list[Float[Tensor, "tokens width"]]],
    batches: Sequence[Sequence[int]],
) -> None:
    shape = (int(offsets[-1]), width)
    states = np.lib.format.open_memmap(folder / STATES, mode="w+", dtype=np.float16, shape=shape)
    for batch in batches:
        for sentence, rows in zip(batch, compute(list(batch)), strict=True):
            states[offsets[sentence] : offsets[sentence + 1]] = rows.half().cpu().numpy()
    states.flush()
    np.save(folder / OFFSETS, offsets)
    about = About(key=key, states=_sum(folder / STATES), offsets=_sum(folder / OFFSETS))
    (folder / ABOUT).write_text(about.model_dump_json())


def _sum(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fits(states: Any, offsets: Any) -> bool:
    return (
        states.ndim == 2
        and states.dtype == np.float16
        and offsets.ndim == 1
        and offsets.dtype == np.int64
        and len(offsets) > 0
        and offsets[0] == 0
        and offsets[-1] == len(states)
        and bool((np.diff(offsets) > 0).all())
    )


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"the features in {path} are damaged ({what}). Remove that folder; they are computed anew.")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
