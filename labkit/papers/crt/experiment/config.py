"""What is compared (arms) and what is asked for at each scale."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import Field, field_validator, model_validator

from labkit.data.tracking import BENCHMARKS, DEVELOPMENT
from labkit.papers.crt.experiment.clips import KINDS
from labkit.papers.crt.experiment.sgd_head import Sgd, SgdHead
from labkit.papers.crt.method.cascade import Settings, stage1_only
from labkit.papers.crt.method.convolution import ATOM
from labkit.papers.crt.method.ridge_head import Head, Mining, Ridge
from labkit.workbench.experiment import EXECUTION, Scale
from labkit.workbench.experiment import Config as BaseConfig

FeatureName = Literal["hand-made", "fine", "learned", "resnet18", "resnet50"]


@dataclass(frozen=True)
class Arm:
    """One tracker: its settings, its features and the learner of stage 2.

    features: hand-made (stride 4); fine (stage 2 at stride 2); learned (a small network beside the hand-made map);
    resnet18, resnet50 (weights of the user's).
    sgd: layers trained by gradient descent in place of ridge regression.
    """

    settings: Settings = field(default_factory=Settings)
    features: FeatureName = "hand-made"
    sgd: Sgd | None = None

    @property
    def trained(self) -> bool:
        """Whether it needs a network: one that a run trains, or weights of the user's."""
        return self.features not in ("hand-made", "fine") or self.settings.refine

    def head(self, seed: int) -> Callable[[], Head] | None:
        """Makes the learner of stage 2; None: the cascade's own."""
        sgd = self.sgd
        return None if sgd is None else lambda: SgdHead(sgd, seed)


CASCADE = Settings()
DEEP = replace(CASCADE, size=288, stage1=ATOM, augmentation="atom", bins=2, states=True, floor=0.25, learn_every=1,
               improve_every=10, ridge=Ridge(lam=0.002, eta=0.015), scales=(0.97, 1.0, 1.03))  # fmt: skip


DEEPER = replace(DEEP, ridge=replace(DEEP.ridge, solver="dual", frames=20))  # 6144 features: no d x d matrix


MINING: tuple[Mining, ...] = ("naive", "rate", "negatives", "anchored", "irls")
"""Readings of hard negative mining and of the adaptive ridge, see `ridge_head`."""
LEARNED_MINING = tuple(f"{way}-learned" for way in MINING)


def mined(way: Mining, features: FeatureName = "hand-made") -> Arm:
    """The cascade with hard negative mining: gate and weights are the same whatever the features."""
    return Arm(replace(CASCADE, ridge=Ridge(mining=way)), features)


ARMS: dict[str, Arm] = {
    "stage-1": Arm(stage1_only(CASCADE)),
    "cascade": Arm(CASCADE),
    "cascade-8x8": Arm(replace(CASCADE, bins=8)),
    "cascade-fine": Arm(replace(CASCADE, bins=8), "fine"),
    "cascade-learned": Arm(CASCADE, "learned"),
    **{way: mined(way) for way in MINING},
    **dict(zip(LEARNED_MINING, (mined(way, "learned") for way in MINING), strict=True)),
    "sgd-fc": Arm(CASCADE, sgd=Sgd()),
    "sgd-linear": Arm(CASCADE, sgd=Sgd(hidden=0, learning_rate=1.0)),
    "dense": Arm(replace(CASCADE, dense=True)),
    "skipping": Arm(replace(CASCADE, skip_single=True)),
    "refined": Arm(replace(CASCADE, refine=True)),
    "no-search": Arm(replace(CASCADE, widen=1.0)),
    "scales": Arm(replace(CASCADE, scales=(0.95, 1.0, 1.05))),
    "states": Arm(replace(CASCADE, states=True)),
    "stage-1-resnet18": Arm(stage1_only(DEEP), "resnet18"),
    "cascade-resnet18": Arm(DEEP, "resnet18"),
    "anchored-resnet18": Arm(replace(DEEP, ridge=replace(DEEP.ridge, mining="anchored")), "resnet18"),
    "stage-1-resnet50": Arm(stage1_only(DEEP), "resnet50"),
    "cascade-resnet50": Arm(DEEPER, "resnet50"),
}
"""Trackers by name, also on the command line: `labkit track --tracker NAME`.

naive to irls: mining and adaptive ridge with hand-made features; *-learned: with learned ones; sgd-*: stage 2 by SGD.
no-search: a lost target is not searched again.
"""


UNTRAINED = tuple(name for name, arm in ARMS.items() if not arm.trained)
"""Arms that need no network."""


class Config(BaseConfig):
    """Track generated clips, real footage and benchmarks with some arms; train what they need first."""

    arms: tuple[str, ...] = Field(("stage-1", "cascade"), min_length=1, description="trackers to compare, see `ARMS`")
    kinds: tuple[str, ...] = Field(("plain",), description="kinds of generated clips, see `clips.KINDS`")
    clips: int = Field(8, ge=0, description="clips of each kind; 0: none")
    frames: int = Field(0, ge=0, description="frames of a clip; 0: the kind's own number")
    footage: tuple[str, ...] = Field((), description="real sequences, tracked where LABKIT_DATA has them")
    footage_arms: tuple[str, ...] = Field(("stage-1", "cascade"), description="arms that track the real sequences")
    footage_frames: int = Field(0, ge=0, description="frames of a real sequence; 0: all")
    show_footage: bool = Field(
        False,
        description="show frames of real sequences in the notebook; their licence forbids passing it on then",
        json_schema_extra=EXECUTION,
    )
    benchmarks: tuple[str, ...] = Field((), description="public benchmarks in LABKIT_DATA, see `labkit.data.tracking`")
    benchmark_first: int = Field(0, ge=0, description="sequences of each benchmark; 0: all")
    repetitions: int = Field(15, ge=1, description="repetitions of the supervised protocol")
    weights: str = Field(
        "", description="folder below LABKIT_DATA with resnet18.pth, resnet50.pth (torchvision's ImageNet weights)"
    )
    train_on: str = Field("", description="benchmark whose annotated frames train the networks; empty: generated clips")
    pairs: int = Field(160, ge=2, description="pairs of search images to train networks on")
    learned_steps: int = Field(150, ge=1, description="training steps of the small feature network")
    refiner_steps: int = Field(300, ge=1, description="training steps of the overlap predictor")
    batch_size: int = Field(8, ge=1, description="pairs per training step, over all processes")
    learning_rate: float = Field(2e-3, gt=0, description="Adam's first step size; falls to 0 along a cosine")
    together: int = Field(8, ge=1, description="sequences that are tracked side by side")
    speed_frames: int = Field(
        0, ge=0, description="frames of a speed measurement, frames per CPU second of one tracker; 0: none"
    )

    @field_validator("arms", "footage_arms")
    @classmethod
    def _known_arms(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _known(names, ARMS, "arm")

    @field_validator("kinds")
    @classmethod
    def _known_kinds(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _known(names, KINDS, "kind of clip")

    @field_validator("footage")
    @classmethod
    def _known_footage(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _known(names, DEVELOPMENT, "real sequence")

    @field_validator("benchmarks")
    @classmethod
    def _known_benchmarks(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _known(names, BENCHMARKS, "benchmark")

    @field_validator("train_on")
    @classmethod
    def _known_training(cls, name: str) -> str:
        return name and _known((name,), BENCHMARKS, "benchmark")[0]

    @model_validator(mode="after")
    def _something_to_do(self) -> "Config":
        if not ((self.clips and self.kinds) or self.footage or self.benchmarks):
            raise ValueError("nothing to track: ask for clips, footage or benchmarks")
        if self.clips and 0 < self.frames < 2:
            raise ValueError("a clip needs 2 frames or more")
        if self.batch_size > self.pairs:
            raise ValueError(f"batch_size {self.batch_size} must not be larger than pairs {self.pairs}")
        asked = (*self.arms, *(self.footage_arms if self.footage else ()))
        if not self.weights and any("resnet" in ARMS[arm].features for arm in asked):
            raise ValueError("the ResNet arms need ImageNet weights: give their folder as `weights`")
        return self


def _known(names: tuple[str, ...], known: Mapping[str, object], what: str) -> tuple[str, ...]:
    for name in names:
        if name not in known:
            raise ValueError(f"there is no {what} '{name}'; there are {', '.join(known)}")
    if len(set(names)) < len(names):
        raise ValueError(f"a {what} stands there twice")
    return names


EVERYTHING = tuple(name for name in ARMS if "resnet" not in name)
ON_FOOTAGE = tuple(name for name in EVERYTHING if name not in LEARNED_MINING)

CONFIGS: dict[Scale, Config] = {
    "smoke": Config(
        clips=1, frames=30, arms=("stage-1", "cascade", "cascade-learned", "refined"), pairs=16, learned_steps=4,
        refiner_steps=4, footage=("TLD_pedestrian2",), footage_frames=15,
    ),
    "lesson": Config(
        kinds=("plain", "walkers"), clips=4, arms=("stage-1", "cascade", "anchored", "sgd-fc"),
        footage=("TLD_pedestrian2",),
    ),
    "gpu": Config(
        kinds=tuple(KINDS), clips=64, arms=EVERYTHING, footage=tuple(DEVELOPMENT), footage_arms=ON_FOOTAGE,
        pairs=4000, learned_steps=3000, refiner_steps=3000, batch_size=32, together=64,
    ),
    "full": Config(
        clips=0, kinds=(), benchmarks=tuple(BENCHMARKS),
        arms=(*(name for name in ARMS if "resnet" in name), "stage-1", "cascade", "cascade-learned", "refined"),
        weights="imagenet", refiner_steps=50_000,
        learned_steps=20_000, pairs=20_000, batch_size=64, train_on="lasot",
    ),
}  # fmt: skip
