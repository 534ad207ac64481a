"""What is compared and what is trained, at each of the four scales."""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field, field_validator, model_validator

from labkit.papers.mlvc.experiment.anchors import ANCHORS
from labkit.papers.mlvc.experiment.comparison import ARMS
from labkit.papers.mlvc.experiment.comparison import Settings as SmallCodec
from labkit.papers.mlvc.experiment.data import CLIPS, SETS
from labkit.papers.mlvc.experiment.scenes import FAMILIES
from labkit.papers.mlvc.experiment.schedule import COMPARED, SCHEDULES
from labkit.papers.mlvc.method.autoencoders import STRIDE
from labkit.papers.mlvc.method.network import LAMBDAS
from labkit.workbench.experiment import Config as BaseConfig
from labkit.workbench.experiment import Scale

LESSON_ARMS = ("raw-motion", "warp", "linear-1", "linear-2", "linear-4", "single", "multi")


class Config(BaseConfig):
    """A small codec with one trained network on scenes and clips; the networks of the paper on whole videos."""

    families: tuple[str, ...] = Field((), description="kinds of generated scenes for the small codec, see `FAMILIES`")
    arms: tuple[str, ...] = Field(LESSON_ARMS, min_length=1, description="predictions of the small codec, see `ARMS`")
    quantizers: tuple[float, ...] = Field(
        (6.0, 10.0, 16.0, 24.0, 36.0), min_length=2, description="quantiser steps of the small codec, in grey levels"
    )
    training_scenes: int = Field(24, ge=1, description="scenes of a family that combiners and tables learn from")
    test_scenes: int = Field(16, ge=1, description="scenes of a family that are coded to be judged")
    scene_frames: int = Field(10, ge=2, description="frames of a generated scene")
    combiner_steps: int = Field(1200, ge=10, description="training steps of a combiner")
    combiner_batch: int = Field(16, ge=1, description="crops in a step of a combiner's training")
    combiner_rate: float = Field(3e-3, gt=0, description="a combiner's largest Adam step size")
    combiner_channels: int = Field(16, ge=1, description="channels of a combiner's inner layers")
    footage: tuple[str, ...] = Field((), description="real clips for the small codec, see `CLIPS`; needs LABKIT_DATA")
    footage_frames: int = Field(10, ge=2, description="frames of a real clip")

    networks: tuple[str, ...] = Field((), description="trainings of the paper's networks, see `SCHEDULES`")
    width: float = Field(1.0, gt=0, le=4, description="multiplies the channels of all networks; 1 is the paper's")
    motion: Literal["network", "dis"] = Field(
        "network", description="motion search: a trained pyramid, or OpenCV's DIS"
    )
    lambdas: tuple[float, ...] = Field(
        (16.0, 24.0, 40.0, 64.0), min_length=1, description="trade-offs; the first is trained, the others from it"
    )
    train_on: Literal["scenes", "vimeo90k"] = Field("scenes", description="what networks are trained on")
    clips: int = Field(256, ge=1, description="generated clips to train networks on")
    crop: int = Field(192, ge=STRIDE, multiple_of=STRIDE, description="side of the training crops, in pixels")
    batch_size: int = Field(8, ge=1, description="clips per training step, over all processes")
    unroll: int = Field(6, ge=1, description="P-frames that are coded one after the other in a training step")
    back_through: int = Field(1, ge=1, description="frames that gradients go back through")
    unit_steps: int = Field(100_000, ge=1, description="steps in a unit of the schedule, see `STEPWISE`")
    learning_rate: float = Field(5e-5, gt=0, description="Adam step size for new modules [recalled]")
    joint_rate: float = Field(1e-5, gt=0, description="Adam step size for joint fine-tuning [recalled]")
    prior_speed: float = Field(
        1.0, gt=0, description="step size of the factorised priors, as a multiple; a short training needs 10 or so"
    )

    evaluate_on: tuple[str, ...] = Field((), description="sets of videos to code: scenes, video, hevc-b to -e, uvg")
    evaluate_frames: int = Field(0, ge=0, description="frames of each video that are coded; 0: all")
    evaluate_scenes: int = Field(8, ge=1, description="generated scenes among the videos that are coded")
    gop: int = Field(12, ge=1, description="frames from one I-frame to the next, for all codecs")
    fit: Literal["pad", "crop", "rescale"] = Field(
        "pad", description="how sizes become multiples of 64, see `protocol`"
    )
    bits: Literal["real", "estimated"] = Field(
        "real", description="bytes of a file, or -log2 p of the network's priors"
    )
    anchors: tuple[str, ...] = Field((), description="H.264 and H.265 to compare with, see `ANCHORS`")

    @field_validator("families")
    @classmethod
    def _known_families(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _known(names, FAMILIES, "family of scenes")

    @field_validator("arms")
    @classmethod
    def _known_arms(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _known(names, ARMS, "arm")

    @field_validator("footage")
    @classmethod
    def _known_footage(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(names) == 1:
            raise ValueError("a real clip's tables are learned from the others: name two or more")
        return _known(names, CLIPS, "real clip")

    @field_validator("networks")
    @classmethod
    def _known_networks(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _known(names, SCHEDULES, "training")

    @field_validator("evaluate_on")
    @classmethod
    def _known_sets(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _known(names, SETS, "set of videos")

    @field_validator("anchors")
    @classmethod
    def _known_anchors(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _known(names, ANCHORS, "anchor")

    @field_validator("lambdas")
    @classmethod
    def _known_lambdas(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not set(values) <= set(LAMBDAS):
            raise ValueError(
                f"a lambda is one of the paper's, {', '.join(map(str, LAMBDAS))}: each is a quality of files"
            )
        return values

    @field_validator("quantizers", "lambdas")
    @classmethod
    def _positive(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if min(values) <= 0 or len(set(values)) < len(values):
            raise ValueError("they must be positive, and none may stand there twice")
        return values

    @model_validator(mode="after")
    def _something_to_do(self) -> "Config":
        if not (self.families or self.footage or self.networks or self.evaluate_on):
            raise ValueError("nothing to do: ask for families, footage, networks or videos to code")
        if self.train_on == "vimeo90k" and self.unroll > 6:
            raise ValueError(f"septuplets hold 6 P-frames; unroll {self.unroll} is more")
        if self.train_on == "scenes" and self.networks and self.batch_size > self.clips:
            raise ValueError(f"batch_size {self.batch_size} must not be larger than clips {self.clips}")
        if self.evaluate_on and not (self.networks or self.anchors):
            raise ValueError("videos are coded by networks or anchors: ask for some")
        return self

    @property
    def small_codec(self) -> SmallCodec:
        return SmallCodec(
            self.quantizers, self.training_scenes, self.test_scenes, self.scene_frames, self.combiner_steps,
            self.combiner_batch, self.combiner_rate, self.combiner_channels, self.seed,
        )  # fmt: skip


def _known(names: tuple[str, ...], known: Iterable[str], what: str) -> tuple[str, ...]:
    for name in names:
        if name not in known:
            raise ValueError(f"there is no {what} '{name}'; there are {', '.join(known)}")
    if len(set(names)) < len(names):
        raise ValueError(f"twice the same {what}")
    return names


CONFIGS: dict[Scale, Config] = {
    "smoke": Config(
        families=("disc",), arms=("warp", "linear-2", "multi"), quantizers=(8.0, 24.0), training_scenes=2,
        test_scenes=2, scene_frames=4, combiner_steps=10, combiner_batch=4, combiner_channels=4,
        networks=("stepwise",), width=0.125, lambdas=(16.0,), clips=4, crop=64, batch_size=2, unroll=2, unit_steps=1,
        learning_rate=1e-3, joint_rate=3e-4, evaluate_on=("scenes",), evaluate_frames=3, evaluate_scenes=1,
        anchors=("x265-veryfast",),
    ),
    "lesson": Config(families=("disc", "plain")),
    "gpu": Config(
        families=tuple(FAMILIES), arms=tuple(ARMS), training_scenes=96, test_scenes=64, combiner_steps=6000,
        networks=COMPARED, width=0.5, clips=2048, crop=128, batch_size=16, unroll=5, unit_steps=300,
        learning_rate=3e-4, joint_rate=1e-4, prior_speed=10.0, evaluate_on=("scenes", "video"), evaluate_frames=24,
        anchors=("x265-veryfast", "x264-veryfast"),
    ),
    "full": Config(
        networks=COMPARED, train_on="vimeo90k", evaluate_on=("hevc-b", "hevc-c", "hevc-d", "hevc-e", "uvg"),
        evaluate_frames=100, anchors=("x265-veryfast", "x265-medium"),
    ),
}  # fmt: skip
