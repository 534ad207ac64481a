"""What is compared (arms) and what is asked for at each scale."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from labkit.papers.stmc.method.architecture import MEDIUM, PAPER, SMALL, Architecture
from labkit.workbench.experiment import EXECUTION, Scale
from labkit.workbench.experiment import Config as BaseConfig

ARCHITECTURES: dict[str, Architecture] = {"small": SMALL, "medium": MEDIUM, "paper": PAPER}
CORPORA = ("avatars", "phoenix2014", "phoenix2014t", "csl-1", "csl-2")


@dataclass(frozen=True)
class Arm:
    """One network: how it differs from the multi-cue one, and how it is trained.

    switches: fields of `Architecture`. random_crops: hands and face are cut out at random places.
    longer: times the epochs. alpha: weight of the cues' own CTC losses; None: the config's. frozen: stage 2 leaves the
    spatial module as stage 1 made it. frames_first: whether stage 1 takes place.
    """

    switches: Mapping[str, Any] = field(default_factory=dict)
    random_crops: bool = False
    longer: float = 1.0
    alpha: float | None = None
    frozen: bool = False
    frames_first: bool = True

    def architecture(self, base: Architecture) -> Architecture:
        return replace(base, **self.switches)


FULL = {"cues": ("full",), "pose_branch": False}

ARMS: dict[str, Arm] = {
    "full-frame": Arm(FULL),
    "multi-cue": Arm(),
    "full-frame-pose-loss": Arm({"cues": ("full",)}),
    "full-frame-longer": Arm(FULL, longer=2.0),
    "random-crops": Arm(random_crops=True),
    "soft-crops": Arm({"crops": "soft"}),
    "intra-only": Arm({"path": "intra"}),
    "inter-only": Arm({"path": "inter"}),
    "hand-only": Arm({"cues": ("hand",)}),
    "face-only": Arm({"cues": ("face",)}),
    "pose-only": Arm({"cues": ("pose",)}),
    "joint-loss-alone": Arm(alpha=0.0),
    "frozen-spatial": Arm(frozen=True),
    "no-stage-1": Arm(frames_first=False),
}
"""multi-cue is the paper's network; full-frame its rival, the same trunk without the other cues; full-frame-longer has
twice the epochs, about the same compute."""


class Config(BaseConfig):
    """Train recognisers on signed sentences, two stages each, and compare their error rates."""

    data: str = Field(
        "avatars", description="avatars (generated), phoenix2014, phoenix2014t, csl-1, csl-2, or folder:PATH of yours"
    )
    model: Literal["small", "medium", "paper"] = Field("small", description="architecture: 40, 112 or 224 pixels")
    width: float = Field(0.0, ge=0, le=4, description="multiplies all channels; 0: the architecture's own")
    padded: bool | None = Field(None, description="pad temporal convolutions; none: the architecture's own choice")
    vgg_weights: str = Field("", description="file of VGG-11's ImageNet weights for the trunk; empty: at random")
    arms: tuple[str, ...] = Field(("full-frame", "multi-cue"), min_length=1, description="networks, see `ARMS`")
    train_sentences: int = Field(0, ge=0, description="training sentences to use or generate; 0: all there are")
    test_sentences: int = Field(0, ge=0, description="sentences to judge by; 0: all there are")
    decoys: int = Field(8, ge=0, le=100, description="avatars: symbols in the background that look like hands")
    label_noise: float = Field(0.0, ge=0, le=1, description="avatars: error of the key points, share of the frame")
    augment: bool = Field(False, description="random crops, mirror images, a fifth of the frames left out")
    labels: Literal["even", "aligned"] = Field(
        "even", description="stage 1's labels: even parts, or forced alignment by a full-frame network trained first"
    )
    clip_frames: int = Field(0, ge=0, le=1000, description="stage 1 on clips of so many frames; 0: whole sentences")
    frame_epochs: int = Field(4, ge=0, description="epochs of stage 1: cross-entropy on the labels of steps")
    frame_batch: int = Field(2, ge=1, description="sentences, or clips, a step of stage 1")
    frame_optimizer: Literal["adamw", "sgd"] = Field("adamw", description="optimiser of stage 1")
    frame_learning_rate: float = Field(2e-3, gt=0, description="its largest step size")
    epochs: int = Field(12, ge=1, description="epochs of stage 2: CTC, end to end")
    batch_size: int = Field(2, ge=1, description="sentences a step of stage 2, over all processes")
    learning_rate: float = Field(2e-3, gt=0, description="largest step size of stage 2's AdamW")
    schedule: Literal["one-cycle", "constant"] = Field("one-cycle", description="step size over each stage")
    alpha: float = Field(0.6, ge=0, description="weight of each cue's CTC loss [recalled]")
    beta: float = Field(30.0, gt=0, description="beta of the key points' loss [recalled]")
    pose_loss: Literal["inside", "outside"] = Field("inside", description="where beta stands, see `losses.pose_loss`")
    beam: int = Field(20, ge=1, le=1000, description="width of the prefix beam search [recalled]")
    eval_batch: int = Field(8, ge=1, description="sentences decoded together", json_schema_extra=EXECUTION)
    bf16: bool = Field(False, description="bfloat16 autocast in the forward pass")
    data_workers: int = Field(0, ge=0, le=64, description="batches read ahead by threads", json_schema_extra=EXECUTION)
    at_once: int = Field(
        2, ge=1, description="arms that train side by side on a CPU; 1 with dropout", json_schema_extra=EXECUTION
    )
    log_every: int = Field(20, ge=1, description="steps between two logged lines")

    @field_validator("arms")
    @classmethod
    def _known_arms(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        for name in arms:
            if name not in ARMS:
                raise ValueError(f"there is no arm '{name}'; there are {', '.join(ARMS)}")
        if len(set(arms)) < len(arms):
            raise ValueError("an arm stands there twice")
        return arms

    @field_validator("data")
    @classmethod
    def _known_data(cls, data: str) -> str:
        if data not in CORPORA and not (data.startswith("folder:") and data.removeprefix("folder:").strip()):
            raise ValueError(f"data is one of {', '.join(CORPORA)}, or folder:PATH")
        if "\0" in data:
            raise ValueError("a path holds no NUL character")
        return data

    @model_validator(mode="after")
    def _fits_together(self) -> "Config":
        if self.data == "avatars" and not (self.train_sentences and self.test_sentences):
            raise ValueError("avatars are generated: say how many train_sentences and test_sentences")
        if 0 < self.train_sentences < max(self.batch_size, self.frame_batch if not self.clip_frames else 1):
            raise ValueError("batch_size and frame_batch must not be larger than train_sentences")
        if 0 < self.clip_frames < 16:
            raise ValueError("a clip needs 16 frames or more: one step of the network sees so many")
        return self

    def base(self) -> Architecture:
        """The architecture before an arm's switches."""
        base = ARCHITECTURES[self.model]
        width = self.width or base.width
        return replace(base, width=width, padded=base.padded if self.padded is None else self.padded)


CONTROLS = ("full-frame-pose-loss", "random-crops", "full-frame-longer", "intra-only", "inter-only", "frozen-spatial",
            "joint-loss-alone", "hand-only", "face-only", "pose-only")  # fmt: skip
"""What the lesson's two arms are checked against, in a record of their own."""

CONFIGS: dict[Scale, Config] = {
    "smoke": Config(
        train_sentences=4, test_sentences=2, frame_epochs=1, epochs=1, labels="aligned",
        arms=("full-frame", "multi-cue"),
    ),
    "lesson": Config(train_sentences=100, test_sentences=80, epochs=14),
    "gpu": Config(
        model="medium", train_sentences=600, test_sentences=200, arms=("full-frame", "multi-cue", *CONTROLS),
        labels="aligned", batch_size=8, frame_batch=8, frame_epochs=3, epochs=12, frame_learning_rate=1e-3,
        learning_rate=1e-3, bf16=True,
    ),
    "full": Config(
        data="phoenix2014", model="paper", arms=("full-frame", "multi-cue", "inter-only", "intra-only"), augment=True,
        labels="aligned", clip_frames=16, frame_epochs=25, frame_batch=24, frame_optimizer="sgd",
        frame_learning_rate=5e-3, epochs=30, batch_size=2, learning_rate=5e-5, schedule="constant",
        bf16=True, eval_batch=1, data_workers=4, log_every=100,
    ),
}  # fmt: skip
