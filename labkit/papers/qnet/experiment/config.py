"""What the experiment asks for at each scale, and the arms it can compare."""

import math
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, field_validator

from labkit.workbench.experiment import Config as BaseConfig
from labkit.workbench.experiment import Scale

INF = math.inf


@dataclass(frozen=True)
class Arm:
    """One way to quantise the float network, trained with the same batches and the same budget as every other arm.

    Args:
        weights: a level set of the paper (W1, W2, W3pm2, ...) or a straight-through method (BWN, TWN, DoReFa-W2,
            LSQ-W2); empty: float weights.
        activations: likewise (A1, A2, ...; XNOR, HWGQ-A2, DoReFa-A2, LSQ-A2); empty: float.
        start: the arm whose trained weights this one starts from (the paper's stage 2); empty: the float network.
        weight_temperature, activation_temperature: final temperature of the linear schedule; None: the config's.
            Infinite for activations: the forward pass is the hard staircase from the first step.
        weight_bell, activation_bell: temperature of a wider bell that replaces the slope in the backward pass [ours, in
            the spirit of the official code's binary weights]; None: the exact gradient.
        anneal_weights_again: in stage 2 the weights' temperature rises from low once more; otherwise it is held.
        learn_thresholds: train the weights' thresholds too, the paper's "learnable biases".
        official: train the weights as the authors' program does: its backward pass, its clipping of gradients, and a
            temperature that rises once an epoch.  [official code]
    """

    weights: str = ""
    activations: str = ""
    start: str = ""
    weight_temperature: float | None = None
    activation_temperature: float | None = None
    weight_bell: float | None = None
    activation_bell: float | None = None
    anneal_weights_again: bool = False
    learn_thresholds: bool = False
    official: bool = False


ARMS: dict[str, Arm] = {
    "float-longer": Arm(),
    # weights by the paper's method, 1 to 8 bits
    **{name: Arm(weights=name) for name in ("W1", "W2", "W3pm2", "W3pm4", "W3", "W4", "W5", "W6", "W7", "W8")},
    # the same at other final temperatures: too low leaves a gap between soft and hard, too high freezes the weights
    **{f"W1-T{t}": Arm(weights="W1", weight_temperature=float(t)) for t in (20, 60, 2000)},
    **{f"W2-T{t}": Arm(weights="W2", weight_temperature=float(t)) for t in (20, 60, 2000)},
    # by the authors' recipe; with thresholds that learn
    **{f"{name}-official": Arm(weights=name, official=True) for name in ("W1", "W2")},
    "W2-thresholds": Arm(weights="W2", learn_thresholds=True),
    # weights, straight through
    **{name: Arm(weights=name) for name in ("BWN", "TWN", "DoReFa-W2", "LSQ-W2")},
    # activations: annealed as in the paper; with a wide bell in the backward pass; straight through
    **{f"A{k}": Arm(activations=f"A{k}") for k in (1, 2, 3, 4)},
    **{f"A{k}-bell": Arm(activations=f"A{k}", activation_temperature=300.0, activation_bell=10.0) for k in (1, 2, 3)},
    **{f"A{k}-hard": Arm(activations=f"A{k}", activation_temperature=INF, activation_bell=10.0) for k in (1, 2, 3)},
    **{f"A{k}-LSQ": Arm(activations=f"LSQ-A{k}") for k in (1, 2, 3)},
    "A1-XNOR": Arm(activations="XNOR"),
    "A2-HWGQ": Arm(activations="HWGQ-A2"),
    "A2-DoReFa": Arm(activations="DoReFa-A2"),
    # both: stage 2 starts from the arm with quantised weights
    "W1A1": Arm("W1", "A1", "W1"),
    "W1A1-bell": Arm("W1", "A1", "W1", activation_temperature=300.0, activation_bell=10.0),
    "W1A1-hard": Arm("W1", "A1", "W1", activation_temperature=INF, activation_bell=10.0),
    "W1A1-LSQ": Arm("W1", "LSQ-A1", "W1"),
    # ... with weights that can still move in stage 2 [ours]
    "W1A1-again": Arm("W1", "A1", "W1", activation_temperature=INF, activation_bell=10.0, anneal_weights_again=True),
    "W1A1-free": Arm("W1", "A1", "W1", activation_temperature=INF, activation_bell=10.0, weight_bell=2.0),
    "W1A1-free-LSQ": Arm("W1", "LSQ-A1", "W1", weight_bell=2.0),
    "BWN-A1-hard": Arm("BWN", "A1", "BWN", activation_temperature=INF, activation_bell=10.0),
    "BWN-A1-LSQ": Arm("BWN", "LSQ-A1", "BWN"),
    "W1A2": Arm("W1", "A2", "W1", activation_temperature=INF, activation_bell=10.0, weight_bell=2.0),
    "W2A2": Arm("W2", "A2", "W2", activation_temperature=300.0, activation_bell=10.0),
}  # fmt: skip


class Config(BaseConfig):
    """Quantise a float network along several arms, all with the same budget. Learning rates decay by a cosine."""

    data: Literal["best", "digits", "fashion-mnist", "cifar10", "imagenet"] = Field(
        "best", description="dataset; best: Fashion-MNIST when it is in LABKIT_DATA, else scikit-learn's digits"
    )
    model: Literal["cnn", "resnet20", "alexnet", "resnet18", "resnet50", "resnet152"] = Field(
        "cnn", description="network"
    )
    arms: tuple[str, ...] = Field(("W1", "BWN"), description="ways of quantising to compare, see `ARMS`")
    train_examples: int = Field(0, ge=0, description="training images to use, where there are so many; 0: all")
    test_examples: int = Field(0, ge=0, description="test images to use, where there are so many; 0: all")
    augment: bool = Field(False, description="random crops and mirror images while training")
    batch_size: int = Field(128, ge=2, description="images per step, over all processes together")
    float_weights: str = Field("", description="file of float weights to start from (safetensors); empty: train them")
    float_steps: int = Field(372, ge=1, description="steps of the float network's training")
    float_learning_rate: float = Field(0.1, gt=0, description="SGD step size at the first step")
    steps: int = Field(248, ge=1, description="steps of each arm's training")
    learning_rate: float = Field(0.02, gt=0, description="SGD step size at the first step of an arm")
    scale_learning_rate: float = Field(0.1, ge=0, description="step size of alpha and beta, as a share of the weights'")
    weight_decay: float = Field(1e-4, ge=0, description="L2 penalty on weights; alpha and beta have none")
    clip_norm: float = Field(5.0, gt=0, description="largest norm of the gradient [official code]")
    weight_temperature: float = Field(300.0, gt=0, description="final temperature of the weight quantisers")
    activation_temperature: float = Field(75.0, gt=0, description="final temperature of the activation quantisers")
    calibration_examples: int = Field(4000, ge=2, description="unlabelled training images to re-estimate batch norm")
    bf16: bool = Field(False, description="bfloat16 autocast in the forward pass")
    compile: bool = Field(False, description="torch.compile the network")
    channels_last: bool = Field(False, description="store images and activations channels-last")
    data_workers: int = Field(0, ge=0, description="processes that decode images (ImageNet)")
    log_every: int = Field(20, ge=1, description="steps between two logged lines")

    @field_validator("arms")
    @classmethod
    def _known(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        if not arms:
            raise ValueError("name at least one arm")
        for name in arms:
            if name not in ARMS:
                raise ValueError(f"there is no arm '{name}'; there are {', '.join(ARMS)}")
        for name in arms:
            start = ARMS[name].start
            if start and start not in arms[: arms.index(name)]:
                raise ValueError(f"arm '{name}' starts from '{start}', which must stand before it")
        return arms


CONFIGS: dict[Scale, Config] = {
    "smoke": Config(
        data="digits",
        arms=("W2",),
        batch_size=32,
        float_steps=111,
        float_learning_rate=0.05,
        steps=111,
        calibration_examples=1200,
    ),
    "lesson": Config(
        data="best",
        arms=("W1", "BWN", "W2", "TWN", "W3pm2", "W3pm4", "W1-T20", "W1-T2000", "A2", "A2-bell", "A2-LSQ"),
        train_examples=8000,
        channels_last=True,  # twice as fast on a CPU too
    ),
    "gpu": Config(
        data="cifar10",
        model="resnet20",
        arms=("W1", "BWN", "W2", "W3pm4", "A2-hard", "W1A2"),
        augment=True,
        batch_size=256,
        float_steps=7800,  # 40 epochs
        steps=4875,  # 25 epochs
        learning_rate=0.05,
        bf16=True,
        compile=True,
        channels_last=True,
        log_every=50,
    ),
    # [official code] W1 of ResNet-18: SGD 1e-3, batch 256, 35 epochs (best 64.6 % there); a cosine replaces its steps.
    "full": Config(
        data="imagenet",
        model="resnet18",
        arms=("W1", "W2", "W3pm4", "A2-hard", "W1A2"),
        augment=True,
        batch_size=256,
        float_steps=110 * 5004,  # 110 epochs
        steps=35 * 5004,
        learning_rate=1e-3,
        scale_learning_rate=1.0,
        bf16=True,
        compile=True,
        channels_last=True,
        data_workers=12,
        log_every=100,
    ),
}
