"""The small codec with several predictions, side by side: the same scenes, the same flows, the same entropy coder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from labkit.papers.mlvc.experiment import data
from labkit.papers.mlvc.experiment.closed_loop import Coded, Combiner, Step, code, newest
from labkit.papers.mlvc.experiment.combiners import Lessons, LinearCombiner, Loss, PixelCombiner, fit, new_combiner
from labkit.papers.mlvc.experiment.entropy import Tables
from labkit.papers.mlvc.experiment.measures import psnr
from labkit.papers.mlvc.experiment.scenes import FAMILIES, Clips, Family, scenes
from labkit.papers.mlvc.experiment.video import Video
from labkit.seeds import derive
from labkit.workbench.runs import Run

TRAINED_ON, TESTED_ON, FOOTAGE = 41, 42, 43  # what seeds are derived for


@dataclass(frozen=True)
class Arm:
    """How the small codec predicts.

    combiner: `warp`, the newest reference alone; `linear`, least squares; `net`, the trained network.
    n_refs: different references that it sees. predict_motion: flows are coded as differences. loss: of the network.
    """

    combiner: Literal["warp", "linear", "net"]
    n_refs: int = 1
    predict_motion: bool = True
    loss: Loss = "rate"


ARMS: dict[str, Arm] = {
    "raw-motion": Arm("warp", predict_motion=False),
    "warp": Arm("warp"),
    "linear-1": Arm("linear", 1),
    "linear-2": Arm("linear", 2),
    "linear-4": Arm("linear", 4),
    "single": Arm("net", 1),
    "multi": Arm("net", 4),
    "multi-2": Arm("net", 2),
    "single-mse": Arm("net", 1, loss="mse"),
    "multi-mse": Arm("net", 4, loss="mse"),
}
"""single: the network of multi, given its newest reference four times: same weights, steps and batches."""

REAL_TRAINING = (
    Family(noise=1.0),
    Family(texture="fine", noise=0.0),
    Family(layers=3, texture="rich", noise=1.0),
    Family(texture="rich"),
)
"""What combiners for real clips are trained on: nothing of the clips themselves."""


@dataclass(frozen=True)
class Settings:
    """What of a config the small codec needs. quantizers: steps, all coded as one batch."""

    quantizers: tuple[float, ...]
    training_scenes: int
    test_scenes: int
    frames: int
    steps: int
    batch: int
    learning_rate: float
    channels: int
    seed: int

    def step_of(self, clips: int) -> Step:
        """Quantiser steps for every clip with every quantiser: the first one's clips come first."""
        return torch.tensor(self.quantizers).repeat_interleave(clips).view(-1, 1, 1, 1)


# -- generated scenes -------------------------------------------------------------------------------------------------


class Bench:
    """Scenes of a family to train on and others to test on, coded with the plain warp once."""

    def __init__(self, family: Family | str, settings: Settings) -> None:
        self.settings = settings
        number = list(FAMILIES).index(family) if isinstance(family, str) else len(FAMILIES)
        seeds = (derive(settings.seed, purpose, number) for purpose in (TRAINED_ON, TESTED_ON))
        counts = (settings.training_scenes, settings.test_scenes)
        pair = (scenes(family, count, settings.frames, seed) for count, seed in zip(counts, seeds, strict=True))
        self.training, self.test = (clips.repeated(len(settings.quantizers)) for clips in pair)
        self._plain: Coded | None = None

    @property
    def plain(self) -> Coded:
        """The training scenes coded with the plain warp: what every combiner learns from."""
        if self._plain is None:
            self._plain = code(self.training, self.training_step, keep=True)
        return self._plain

    @property
    def training_step(self) -> Step:
        return self.settings.step_of(self.settings.training_scenes)

    @property
    def test_step(self) -> Step:
        return self.settings.step_of(self.settings.test_scenes)

    @property
    def lessons(self) -> Lessons:
        return Lessons.of(self.training, self.plain, self.training_step)

    def combiner(self, arm: Arm, net: PixelCombiner, run: Run) -> Combiner:
        """Of an arm. `net`, where the arm needs a network, is trained in its part of a run, or read from there."""
        if arm.combiner == "warp":
            return newest
        if arm.combiner == "linear":
            return LinearCombiner.fitted(self.lessons, arm.n_refs)
        return trained(net, self.lessons, arm, self.settings, run)

    def measured(self, arm: Arm, combine: Combiner) -> dict[str, Any]:
        """The test scenes, priced by tables from the training scenes that the same codec coded."""
        training = code(self.training, self.training_step, combine, arm.n_refs, arm.predict_motion)
        coded = code(self.test, self.test_step, combine, arm.n_refs, arm.predict_motion)
        return rows(coded, training, len(self.settings.quantizers))


def trained(net: PixelCombiner, lessons: Lessons, arm: Arm, settings: Settings, run: Run) -> PixelCombiner:
    """The network of an arm: on the same crops as that of any other arm."""
    if (run.directory / "weights.safetensors").exists():
        run.read_weights(net)
        return net.eval()
    fit(net, lessons, arm.n_refs, settings.steps, settings.batch, settings.learning_rate, settings.seed, run, arm.loss)
    run.write_weights(net)
    return net


def rows(coded: Coded, training: Coded, quantizers: int) -> dict[str, Any]:
    """Numbers of some clips at every quantiser.

    Returns:
        {"psnr", "prediction_psnr": [quantiser], "bpp": {"total", "residual", "motion", "flags": [quantiser]},
        "each": {"psnr", "total", "residual", "motion": [clip][quantiser]}}; bits a pixel of the P-frames.
    """
    clips, learned = len(coded.symbols) // quantizers, len(training.symbols) // quantizers
    pixels = coded.decoded[1:].shape[0] * coded.decoded.shape[-1] * coded.decoded.shape[-2]
    each: dict[str, list[list[float]]] = {name: [] for name in ("psnr", "prediction_psnr", *PARTS)}
    for q in range(quantizers):
        tables = Tables.learned([training.symbols.part(slice(q * learned, (q + 1) * learned))])
        mine = slice(q * clips, (q + 1) * clips)
        bits = tables.bits(coded.symbols.part(mine))
        each["psnr"].append(_plain(psnr(coded.error[mine].mean(1))))
        each["prediction_psnr"].append(_plain(psnr(coded.prediction_error[mine].mean(1))))
        for name in PARTS:
            each[name].append(_plain(getattr(bits, name) / pixels))
    return {
        "psnr": _means(each["psnr"]),
        "prediction_psnr": _means(each["prediction_psnr"]),
        "bpp": {name: _means(each[name]) for name in PARTS},
        "each": {name: np.array(values).T.tolist() for name, values in each.items() if name != "flags"},
    }


PARTS = ("total", "residual", "motion", "flags")


def _plain(values: Tensor) -> list[float]:
    return [round(float(value), 6) for value in values]


def _means(values: Sequence[Sequence[float]]) -> list[float]:
    return [round(float(np.mean(one)), 6) for one in values]


# -- real clips -------------------------------------------------------------------------------------------------------


def luma_clips(video: Video, height: int = 192, width: int = 256) -> Clips:
    """The middle of a video's luma, and flows between its original frames by OpenCV's DIS (the sender's choice)."""
    import cv2

    from labkit.papers.mlvc.method.motion_estimation import motion_estimator

    rows_, columns = video.size
    planes = torch.from_numpy(np.ascontiguousarray(video.planes[:, :rows_])).float()
    grey = (planes / 255)[:, None].expand(-1, 3, -1, -1)
    cv2.setNumThreads(1)
    flow = motion_estimator("dis")(grey[1:], grey[:-1])
    flow = torch.cat([torch.zeros_like(flow[:1]), flow])
    high, wide = min(rows_ // 8 * 8, height), min(columns // 8 * 8, width)
    top, left = (rows_ - high) // 2, (columns - wide) // 2
    window = (..., slice(top, top + high), slice(left, left + wide))
    frames = planes[:, None, None][window]
    return Clips(frames, flow[:, None][window], torch.zeros(frames[:, :, 0].shape, dtype=torch.long))


def compare_footage(names: Sequence[str], frames: int, arms: Mapping[str, Arm], settings: Settings, run: Run) -> Any:
    """Real clips with networks that saw generated scenes only, each arm with and without a choice for every block.

    Tables come from the other clips. With the choice (`+flag`) a block may take the plain warp: a network that is out
    of its depth then does no harm.

    Returns:
        {clip: {arm: see `rows`}}
    """
    clips = {name: luma_clips(data.clip(name, frames)).repeated(len(settings.quantizers)) for name in names}
    mixed = _mixed_lessons(settings)
    result: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, arm in arms.items():
        combine: Combiner = newest
        if arm.combiner == "net":
            net = new_combiner(settings.seed, settings.channels)
            combine = trained(net, mixed, arm, settings, run.part(f"footage-{key}"))
        for flagged in (False, True) if arm.combiner == "net" else (False,):
            coded = {
                name: code(clip, settings.step_of(1), combine, arm.n_refs, arm.predict_motion, flagged)
                for name, clip in clips.items()
            }
            for name in names:
                others = [coded[other] for other in names if other != name]
                result[name][key + ("+flag" if flagged else "")] = _priced(
                    coded[name], others, len(settings.quantizers)
                )
    return result


def _mixed_lessons(settings: Settings) -> Lessons:
    count = max(1, settings.training_scenes // len(REAL_TRAINING))
    few = replace(settings, training_scenes=count, test_scenes=1)
    parts = []
    for number, family in enumerate(REAL_TRAINING):
        bench = Bench(family, replace(few, seed=derive(settings.seed, FOOTAGE, number)))
        parts.append(bench.lessons)
    return Lessons(*(torch.cat([getattr(part, name) for part in parts]) for name in ("aligned", "target", "step")))


def _priced(coded: Coded, others: Sequence[Coded], quantizers: int) -> dict[str, Any]:
    """As `rows`, for clips of different sizes: one clip, tables from several."""
    pixels = coded.decoded[1:].shape[0] * coded.decoded.shape[-1] * coded.decoded.shape[-2]
    numbers: dict[str, list[float]] = {name: [] for name in PARTS}
    for q in range(quantizers):
        one = slice(q, q + 1)
        bits = Tables.learned([other.symbols.part(one) for other in others]).bits(coded.symbols.part(one))
        for name in PARTS:
            numbers[name].append(round(float(getattr(bits, name)[0]) / pixels, 6))
    quality = {"psnr": coded.error, "prediction_psnr": coded.prediction_error}
    return {name: _plain(psnr(error.mean(1))) for name, error in quality.items()} | {"bpp": numbers}
