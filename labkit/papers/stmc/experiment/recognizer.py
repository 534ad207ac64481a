"""A trained network to use: frames in, glosses with their times out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float64
from pydantic import BaseModel, Field
from torch import Tensor

from labkit import tensor_files
from labkit.data.sign.sentence import resized
from labkit.devices import pick_device
from labkit.errors import InputError
from labkit.papers.stmc.experiment.config import ARMS, Config
from labkit.papers.stmc.method.architecture import Architecture
from labkit.papers.stmc.method.network import STMC
from labkit.papers.stmc.method.temporal import RECEPTIVE_FIELD, STRIDE, fewest_frames
from labkit.text import ctc
from labkit.workbench.runs import Run

FILE = "model.safetensors"
VOCABULARY = "glosses.json"


class Header(BaseModel, frozen=True, extra="forbid", strict=True, allow_inf_nan=False):
    """What the tensors belong to; the architecture holds itself within its ranges."""

    format: Literal["labkit stmc recogniser 1"] = "labkit stmc recogniser 1"
    arm: str
    architecture: Architecture
    glosses: tuple[str, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Spoken:
    """One gloss of a transcript, with the first and the last frame that belong to it, counted from 0."""

    gloss: str
    first: int
    last: int


@dataclass(frozen=True)
class Transcript:
    """What was read. log_prob: natural logarithm of its probability, all its paths together."""

    glosses: tuple[Spoken, ...]
    log_prob: float

    def __str__(self) -> str:
        return " ".join(spoken.gloss for spoken in self.glosses)


class Recognizer:
    """A network with its vocabulary, in eval mode.

    Args:
        glosses: the vocabulary; label k + 1 of the network is glosses[k].
    """

    def __init__(self, model: STMC, glosses: Sequence[str], arm: str = "") -> None:
        self.model, self.glosses, self.arm = model.eval(), tuple(glosses), arm

    @classmethod
    def load(cls, path: str | Path, arm: str = "", device: str = "cpu") -> "Recognizer":
        """The recogniser of a finished run's directory, of a folder that `labkit export` wrote, or of its file.

        Args:
            arm: of a run's directory: which arm; empty: multi-cue where there is one.

        Raises:
            InputError: no such place, a run without that arm, a damaged file or one of another kind.
            RunError: the run is not finished.
        """
        path, chosen = Path(path), pick_device(device)
        is_run = path.is_dir() and not (path / FILE).is_file() and (path / "config.json").is_file()
        recognizer = _from_run(path, arm) if is_run else _from_file(path / FILE if path.is_dir() else path)
        recognizer.model.to(chosen)
        return recognizer

    def save(self, path: str | Path) -> None:
        """Write it as one safetensors file, which `load` reads."""
        header = Header(arm=self.arm, architecture=self.model.architecture, glosses=self.glosses)
        tensor_files.write(Path(path), self.model.state_dict(), header)

    def log_probs(self, frames: Any) -> Float64[np.ndarray, "steps labels"]:
        """Log-probabilities over time, label 0 the blank; a step stands for four frames.

        Raises:
            InputError: see `transcribe`.
        """
        pictures = self.as_tensor(frames).to(next(self.model.parameters()).device)
        return self.model.posteriors(pictures).double().cpu().numpy()

    def transcribe(self, frames: Any, width: int = 20) -> Transcript:
        """The glosses of one sentence.

        Args:
            frames: uint8 RGB, (time, height, width, 3), as an array or as a list of pictures; any size.
            width: of the prefix beam search.

        Raises:
            InputError: frames of another form or kind, or fewer than one step needs.
        """
        log_probs = self.log_probs(frames)
        best = ctc.beam_search(log_probs, width)[0]
        spans = ctc.align(log_probs, best.labels).spans
        spoken = (
            Spoken(self.glosses[label - 1], self._frame(first), self._frame(last) + STRIDE - 1)
            for label, (first, last) in zip(best.labels, spans, strict=True)
        )
        return Transcript(tuple(spoken), best.log_prob)

    def _frame(self, step: int) -> int:
        """The first of the four frames in the middle of what a step sees."""
        offset = 0 if self.model.architecture.padded else (RECEPTIVE_FIELD - STRIDE) // 2
        return STRIDE * step + offset

    def as_tensor(self, frames: Any) -> Tensor:
        """(time, 3, size, size) from 0 to 1, for the network.

        Raises:
            InputError: see `transcribe`.
        """
        a = self.model.architecture
        pictures = [np.asarray(picture) for picture in frames]
        need = fewest_frames(a.padded)
        if len(pictures) < need:
            raise InputError(f"a sentence needs {need} frames at least; got {len(pictures)}.")
        for picture in pictures:
            if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
                raise InputError(
                    f"frames must be uint8 RGB, (time, height, width, 3); got one of {picture.dtype} {picture.shape}."
                )
        resampled = np.stack([resized(np.ascontiguousarray(picture), a.size) for picture in pictures])
        return torch.from_numpy(resampled).permute(0, 3, 1, 2).float() / 255


def usable(config: Config, run: Run) -> tuple[str, ...]:
    """The arms of a run that can read sentences, multi-cue first; crops at random places are no use to anybody."""
    trained = [name for name in config.arms if not ARMS[name].random_crops and run.part(name).result is not None]
    return tuple(sorted(trained, key=lambda name: name != "multi-cue"))


def of_run(config: Config, run: Run, arm: str) -> Recognizer:
    """The recogniser that an arm of a finished run trained.

    Raises:
        InputError: the run has no such arm.
        RunError: its weights are missing or damaged.
    """
    arms = usable(config, run)
    if arm not in arms:
        raise InputError(f"there is no arm '{arm}' to take; there are {', '.join(arms) or 'none: finish the run'}.")
    glosses = tuple(run.read_json(VOCABULARY))
    model = STMC(ARMS[arm].architecture(config.base()), len(glosses) + 1)
    run.part(arm).read_weights(model)
    return Recognizer(model, glosses, arm)


def _from_run(path: Path, arm: str) -> Recognizer:
    from labkit.papers.stmc import PAPER
    from labkit.workbench.run_files import read_object

    config = PAPER.config_of(read_object(path / "config.json") or {})
    if config is None:
        raise InputError(f"{path} is no run of stmc.")
    run = Run.open(path, config)
    if run.result is None:
        raise InputError(f"{path} is not finished: labkit train stmc --run-dir {path} --resume")
    arms = usable(config, run)
    return of_run(config, run, arm or (arms[0] if arms else "multi-cue"))


def _from_file(file: Path) -> Recognizer:
    tensors, header = tensor_files.read(file, Header)
    with torch.device("meta"):  # sizes are compared before any memory is asked for
        model = STMC(header.architecture, len(header.glosses) + 1)
    wanted = model.state_dict()
    wrong = [name for name in wanted.keys() | tensors.keys() if not _same_kind(wanted.get(name), tensors.get(name))]
    if wrong:
        raise tensor_files.TensorFileError(f"'{file}' does not hold this network ({', '.join(sorted(wrong)[:3])}).")
    model.load_state_dict(tensors, assign=True)
    return Recognizer(model, header.glosses, header.arm)


def _same_kind(wanted: Tensor | None, given: Tensor | None) -> bool:
    return wanted is not None and given is not None and (wanted.shape, wanted.dtype) == (given.shape, given.dtype)
