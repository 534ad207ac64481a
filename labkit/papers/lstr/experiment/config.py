"""What is compared (arms) and what is asked for at each scale."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from labkit.papers.lstr.experiment.actors import Actors
from labkit.papers.lstr.method.network import Long, Settings, Short
from labkit.workbench.experiment import EXECUTION, Scale
from labkit.workbench.experiment import Config as BaseConfig

CASCADE = Settings()
ROI = replace(CASCADE, short=None, long=None)
SHORT = replace(CASCADE, long=None)
LONG = replace(CASCADE, short=None)

ARMS: dict[str, Settings] = {
    "roi": ROI,
    "short": SHORT,
    "long": LONG,
    "cascade": CASCADE,
    "parallel": replace(CASCADE, order="parallel"),
    "acrn": replace(SHORT, short=Short(kind="acrn")),
    "acrn-long": replace(CASCADE, short=Short(kind="acrn")),
    "uniform": replace(SHORT, short=Short(uniform=True)),
    "no-geometry": replace(SHORT, short=Short(geometry=False)),
    "actors-only": replace(SHORT, short=Short(context="actors")),
    "two-heads": replace(SHORT, short=Short(heads=2)),
    "factorized": replace(CASCADE, short=Short(factorized=True)),
    "identity": replace(CASCADE, long=Long(adjacency="identity")),
    "shuffled": replace(CASCADE, long=Long(adjacency="shuffled")),
    "centered": replace(CASCADE, long=Long(adjacency="centered")),
    "symmetric": replace(CASCADE, long=Long(adjacency="symmetric")),
    "two-layers": replace(CASCADE, long=Long(layers=2)),
    "whole-video": replace(CASCADE, long=Long(mask="all")),
    "window": replace(CASCADE, long=Long(mask="window", window=2)),
    "linked": replace(CASCADE, long=Long(mask="linked", layers=3)),
    "bank": replace(CASCADE, long=Long(bank=True)),
    "lfb-mean": replace(CASCADE, long=Long(kind="mean")),
    "lfb-max": replace(CASCADE, long=Long(kind="max")),
    "lfb-non-local": replace(CASCADE, long=Long(kind="non-local")),
}
"""Networks by name.

roi: a tubelet's own features. short, long: with one relation. cascade: the paper's, short then long. parallel: both on
the tubelet's own features. acrn: a convolution in place of attention. uniform, no-geometry, actors-only, two-heads:
other attention. factorized: the cascade with attention as a product of time and space, the same as the cascade where a
map has one time step. identity, shuffled: graphs without the right edges. centered to linked: other graphs. bank: the
graph without gradient through other clips. lfb-*: feature banks in place of the graph.
"""

DATASETS = ("ucf24", "ava", "jhmdb", "ucf-sports")
LARGEST = 100_000


class Config(BaseConfig):
    """Train tubelet proposals, then one network an arm on them; test both on videos never seen."""

    arms: tuple[str, ...] = Field(("roi", "short", "long", "cascade"), min_length=1, description="networks, see `ARMS`")
    data: str = Field("actors", description="actors (generated), or ucf24, ava, jhmdb, ucf-sports, each with :PATH if "
                      "it does not lie in LABKIT_DATA")  # fmt: skip
    videos: int = Field(240, ge=2, le=LARGEST, description="training videos; real data: windows, drawn evenly")
    test_videos: int = Field(150, ge=1, le=LARGEST, description="videos tested on")
    walking: int = Field(40, ge=0, le=LARGEST, description="videos with continuous tubes for video-mAP; 0: none")
    same_color: bool = Field(False, description="both actors of a generated video have one color: no identity")
    event: Literal["actor", "object"] = Field(
        "actor", description="what of a generated video shows the event: the actor itself, or its object"
    )
    boxes: Literal["proposals", "truth"] = Field(
        "proposals", description="tubelets that networks are trained on: trained proposals, or the (shaken) truth"
    )
    proposals: int = Field(2, ge=1, le=1000, description="tubelets a clip that are kept")
    anchors: tuple[float, ...] = Field((10.0,), min_length=1, description="sides of the anchors, in pixels")
    ratios: tuple[float, ...] = Field((1.0,), min_length=1, description="height over width of the anchors")
    proposal_steps: int = Field(60, ge=1, description="training steps of the proposal network")
    proposal_batch: int = Field(32, ge=1, description="clips a step of the proposal network, over all processes")
    steps: int = Field(300, ge=1, description="training steps of each network")
    batch_size: int = Field(8, ge=1, description="videos a step, over all processes")
    learning_rate: float = Field(4e-3, gt=0, le=1, description="AdamW's largest step size; one cycle up and down")
    weight_decay: float = Field(1e-3, ge=0, le=1, description="of AdamW")
    backbone: Literal["small", "small-2d", "slow-only"] = Field("small", description="network below the tubelets")
    weights: str = Field("", description="safetensors file with weights for slow-only; empty: from scratch")
    width: int = Field(64, ge=1, le=4096, description="D, length of a tubelet's vector")
    bins: int = Field(4, ge=1, le=32, description="RoIAlign's bins along each side")
    frames: int = Field(2, ge=1, le=64, description="T, frames of a clip; generated videos: any even number or 1")
    frame_stride: int = Field(1, ge=1, le=64, description="real data: frames from one of a clip to the next")
    clips: int = Field(5, ge=2, le=64, description="clips of a window, over which the graph reaches")
    size: int = Field(56, ge=32, le=1024, description="side of a frame, in pixels; real data: both sides")
    flip: bool = Field(False, description="real data: mirror training windows at random")
    bf16: bool = Field(False, description="bfloat16 autocast")
    at_once: int = Field(2, ge=1, le=64, description="arms trained side by side", json_schema_extra=EXECUTION)

    @field_validator("arms")
    @classmethod
    def _known_arms(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in ARMS:
                raise ValueError(f"there is no arm '{name}'; there are {', '.join(ARMS)}")
        if len(set(names)) < len(names):
            raise ValueError("an arm stands there twice")
        return names

    @field_validator("data")
    @classmethod
    def _known_data(cls, name: str) -> str:
        kind, _, path = name.partition(":")
        if name != "actors" and kind not in DATASETS:
            raise ValueError(f"data is actors, or one of {', '.join(DATASETS)}, with :PATH for a folder of your own")
        if "\0" in path:
            raise ValueError("a path holds no NUL character")
        return name

    @field_validator("anchors", "ratios")
    @classmethod
    def _positive(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if min(values) <= 0 or max(values) > LARGEST:
            raise ValueError("sizes and ratios are above 0")
        return values

    @model_validator(mode="after")
    def _they_fit(self) -> "Config":
        if self.batch_size > self.videos:
            raise ValueError(f"batch_size {self.batch_size} must not be larger than videos {self.videos}")
        if self.proposal_batch > self.videos * self.clips:
            raise ValueError(f"proposal_batch {self.proposal_batch} is more than all {self.videos * self.clips} clips")
        if self.frames > 1 and self.frames % 2 and self.backbone == "small":
            raise ValueError("the small 3-D backbone halves time: frames must be 1 or even")
        if self.data == "actors" and self.size != 56:
            raise ValueError("generated videos have 56 pixels a side; size is for real data")
        if self.weights and self.backbone != "slow-only":
            raise ValueError("weights are for backbone slow-only")
        return self

    def settings(self, arm: str) -> Settings:
        """The network of an arm with this config's backbone and widths."""
        return replace(ARMS[arm], backbone=self.backbone, width=self.width, bins=self.bins)

    def generator(self) -> Actors:
        """How generated videos are made."""
        return Actors(frames=self.frames, clips=self.clips, same_color=self.same_color, event=self.event)

    def path(self) -> Path | None:
        """The folder that `data` names, if it names one."""
        path = self.data.partition(":")[2]
        return Path(path).expanduser() if path else None


MANY = tuple(name for name in ARMS if name != "factorized")  # generated clips of 2 frames have one time step

CONFIGS: dict[Scale, Config] = {
    "smoke": Config(videos=8, test_videos=4, walking=2, proposal_steps=2, proposal_batch=8, steps=2, batch_size=4,
                    arms=tuple(ARMS)),
    "lesson": Config(),
    "gpu": Config(
        videos=8000, test_videos=2000, walking=400, arms=MANY, proposal_steps=1000, proposal_batch=256,
        steps=4000, batch_size=64, at_once=1,
    ),
    "full": Config(
        data="ucf24", arms=("roi", "short", "long", "cascade", "parallel", "acrn-long", "factorized", "linked",
                             "lfb-max", "lfb-non-local"),
        backbone="slow-only", width=512, bins=7, frames=8, frame_stride=2, clips=8, size=256, flip=True, bf16=True,
        anchors=(64.0, 128.0, 192.0), ratios=(1.0, 2.0, 3.0), proposals=100, videos=16_000, test_videos=4000, walking=0,
        proposal_steps=20_000, proposal_batch=64, steps=40_000, batch_size=8, learning_rate=5e-4, at_once=1,
    ),
}  # fmt: skip
