"""What the experiment asks for at each scale."""

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, Field, field_validator, model_validator

from labkit.errors import InputError
from labkit.papers.brelu.method.bounds import check_rule
from labkit.workbench.experiment import Config as BaseConfig
from labkit.workbench.experiment import Scale

Task = Literal["superresolution", "artifacts", "classification", "mobilenet"]
Peer = Literal["gemmlowp", "TensorRT", "DoReFa", "LSQ", "bounds with rounding"]


def _known_rules(rules: tuple[str, ...]) -> tuple[str, ...]:
    for rule in rules:
        try:
            check_rule(rule)
        except InputError as error:
            raise ValueError(str(error)) from None
    return rules


def _codes_of_int8(levels: tuple[int, ...]) -> tuple[int, ...]:
    if not levels or not all(1 <= count <= 127 for count in levels):
        raise ValueError("name at least one; codes of int8 lie between 1 and 127")
    return levels


Rules = Annotated[tuple[str, ...], AfterValidator(_known_rules)]
Levels = Annotated[tuple[int, ...], AfterValidator(_codes_of_int8)]


class Classification(BaseModel, frozen=True, extra="forbid", strict=True, allow_inf_nan=False):
    """What belongs to the classifier alone."""

    images: Literal["best", "digits", "fashion-mnist", "cifar10", "imagenet"] = Field(
        "best", description="images to classify; best: Fashion-MNIST when it is in LABKIT_DATA, else the digits"
    )
    network: Literal["small", "resnet20", "resnet18", "resnet50", "resnet152"] = Field(
        "small", description="network that classifies"
    )
    float_weights: str = Field("", description="file of float weights (safetensors); empty: train them")
    train_examples: int = Field(8000, ge=0, description="training images; 0: all")
    test_examples: int = Field(2000, ge=0, description="test images; 0: all")
    batch_size: int = Field(64, ge=1, description="images per step, over all processes together")
    steps: int = Field(250, ge=1, description="steps of float training")
    learning_rate: float = Field(0.1, gt=0, description="SGD step size (Nesterov 0.9) after 50 steps; falls linearly")
    weight_decay: float = Field(5e-4, ge=0, description="L2 penalty")
    tune_steps: int = Field(125, ge=1, description="steps of fine-tuning")
    tune_learning_rate: float = Field(5e-3, gt=0, description="SGD step size of fine-tuning")
    bf16: bool = Field(False, description="bfloat16 autocast in training")
    data_workers: int = Field(0, ge=0, description="processes that decode images (ImageNet)")
    rules: Rules = Field(("max", "3.5sigma", "3sigma", "p99", "p95"), description="bound rules")
    tuned_rules: Rules = Field(("3.5sigma",), description="those of them that are fine-tuned")
    levels: Levels = Field((127, 15, 7, 3, 1), description="codes above zero of an activation")

    @model_validator(mode="after")
    def _fits(self) -> "Classification":
        missing = [rule for rule in self.tuned_rules if rule not in self.rules]
        if missing:
            raise ValueError(f"tuned_rules: {', '.join(missing)} must also stand in rules")
        if "3.5sigma" not in self.tuned_rules:
            raise ValueError("tuned_rules: the paper's own rule, 3.5sigma, must be among them")
        return self


class Config(BaseConfig):
    """Train a float network per task, put bounds on it, fine-tune, turn it into integers, and measure every step."""

    tasks: tuple[Task, ...] = Field(
        ("superresolution",), description="what to train: one network each; mobilenet: a classifier handed to `convert`"
    )
    photographs: Literal["best", "bundled", "T91", "291"] = Field(
        "best", description="training photographs; best: T91 when it is in LABKIT_DATA, else two of scikit-learn's"
    )
    test_sets: tuple[Literal["Set5", "Set14"], ...] = Field(
        ("Set5",), description="super-resolution tests; the bundled photographs bring their own"
    )
    upscales: tuple[int, ...] = Field((2,), description="factors of super-resolution, learnt by one network")
    depth: int = Field(8, ge=2, le=1000, description="layers of VDSR")
    width: int = Field(16, ge=1, le=4096, description="channels of VDSR")
    codec: Literal["jpeg", "hevc"] = Field("jpeg", description="codec whose artifacts VRCNN reduces; hevc needs PyAV")
    quality: int = Field(20, ge=0, le=95, description="JPEG quality 1..95, or HEVC quantisation parameter 0..51")
    vrcnn_width: int = Field(32, ge=4, le=4096, multiple_of=4, description="channels of VRCNN's first layer")
    test_images: int = Field(0, ge=0, description="pictures for artifact reduction tests (BSD68); 0: all")
    patches: int = Field(3000, ge=1, le=10_000_000, description="training patches cut from the photographs")
    patch_size: int = Field(32, ge=8, le=1024, description="side of a patch for super-resolution, pixels")
    artifact_patch_size: int = Field(40, ge=8, le=1024, description="side of a patch for artifact reduction, pixels")
    batch_size: int = Field(16, ge=1, description="patches per step, over all processes together")
    steps: int = Field(600, ge=1, description="steps of VDSR's float training")
    artifact_steps: int = Field(320, ge=1, description="steps of VRCNN's float training")
    learning_rate: float = Field(2e-3, gt=0, description="Adam step size after 50 steps of warm-up; falls by a cosine")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty in the regression tasks")
    tune_steps: int = Field(80, ge=1, description="steps of fine-tuning with weights on their grid and bounds in place")
    tune_learning_rate: float = Field(2e-4, gt=0, description="Adam step size of fine-tuning")
    clip_norm: float = Field(5.0, gt=0, description="largest norm of the gradient")
    rules: Rules = Field(("max", "3.5sigma", "3sigma"), description="bound rules, with and without training")
    untrained_rules: Rules = Field(("mse", "kl"), description="bound rules measured without training only")
    levels: Levels = Field((127, 31, 15), description="codes above zero of an activation, in regression")
    factors: tuple[float, ...] = Field(
        (0.25, 0.5, 1.0, 2.0, 4.0, 8.0), description="multiples of the 3.5-sigma bound on the bound x levels map"
    )
    classification: Classification = Field(Classification(), description="the classifier, its data and its training")
    peers: tuple[Peer, ...] = Field(
        ("gemmlowp", "TensorRT"),
        description="other ways to 8 bits and fewer; all but the first two are trained, and in super-resolution only",
    )
    calibration_examples: int = Field(512, ge=1, description="training examples from which bounds are taken")
    log_every: int = Field(20, ge=1, description="steps between two logged lines")

    @field_validator("upscales")
    @classmethod
    def _upscales(cls, upscales: tuple[int, ...]) -> tuple[int, ...]:
        if not upscales or not all(2 <= scale <= 8 for scale in upscales):
            raise ValueError("name at least one factor between 2 and 8")
        return upscales

    @field_validator("factors")
    @classmethod
    def _factors(cls, factors: tuple[float, ...]) -> tuple[float, ...]:
        if not all(factor > 0 for factor in factors):
            raise ValueError("factors on a bound are positive")
        return factors

    @field_validator("tasks", "test_sets")
    @classmethod
    def _once_each(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names or len(set(names)) != len(names):
            raise ValueError("name each once, and at least one")
        return names

    @model_validator(mode="after")
    def _fits(self) -> "Config":
        size = max(self.patch_size if "superresolution" in self.tasks else 0,
                   self.artifact_patch_size if "artifacts" in self.tasks else 0)  # fmt: skip
        if self.patches * size**2 > 8_000_000_000:  # two float32 copies: 64 GB
            raise ValueError(f"patches: {self.patches} patches of {size}x{size} pixels do not fit into memory")
        if self.codec == "hevc" and self.quality > 51:
            raise ValueError(f"quality: an HEVC quantisation parameter ends at 51; got {self.quality}")
        if self.codec == "jpeg" and self.quality < 1:
            raise ValueError("quality: JPEG quality begins at 1")
        if self.batch_size > self.patches:
            raise ValueError(f"batch_size {self.batch_size} is larger than the number of patches, {self.patches}")
        if "3.5sigma" not in self.rules:
            raise ValueError("rules: the paper's own rule, 3.5sigma, must be among them")
        return self


CONFIGS: dict[Scale, Config] = {
    "smoke": Config(
        tasks=("superresolution", "classification"),
        photographs="bundled",
        depth=4,
        width=8,
        patches=256,
        patch_size=16,
        steps=100,
        learning_rate=4e-3,
        tune_steps=20,
        rules=("max", "3.5sigma"),
        untrained_rules=(),
        levels=(127, 15),
        factors=(0.25, 1.0, 8.0),
        classification=Classification(
            images="digits",
            steps=74,
            batch_size=32,
            tune_steps=20,
            rules=("max", "3.5sigma"),
            levels=(127, 3),
        ),
        peers=(),
        calibration_examples=128,
    ),
    "lesson": Config(tasks=("superresolution", "artifacts", "classification"), test_images=3),
    "gpu": Config(
        tasks=("superresolution", "artifacts", "classification", "mobilenet"),
        photographs="T91",
        test_sets=("Set5", "Set14"),
        depth=20,
        width=64,
        vrcnn_width=64,
        patches=24_000,
        patch_size=41,
        artifact_patch_size=64,
        batch_size=128,
        steps=6000,
        artifact_steps=4000,
        learning_rate=1e-3,
        tune_steps=600,
        tune_learning_rate=1e-4,
        clip_norm=1.0,
        classification=Classification(
            images="cifar10",
            network="resnet20",
            train_examples=0,
            test_examples=0,
            batch_size=128,
            steps=39_000 // 5,  # 20 epochs
            tune_steps=1_000,
            bf16=True,
            tuned_rules=("3.5sigma", "p95"),
        ),
        peers=get_args(Peer),
        log_every=100,
    ),
    # [official code] ResNet: batch 256, SGD, weight decay 1e-4, about 10 epochs of fine-tuning from published weights.
    # VDSR: Adam 1e-4, weight decay 1e-4, batch 128, 60 epochs over the 291 images; a cosine replaces the steps.
    "full": Config(
        tasks=("superresolution", "artifacts", "classification"),  # that MobileNet's size is for small images
        photographs="291",
        test_sets=("Set5", "Set14"),
        upscales=(2, 3, 4),
        depth=20,
        width=64,
        codec="hevc",
        quality=37,
        vrcnn_width=64,
        patches=400_000,
        patch_size=41,
        artifact_patch_size=64,
        batch_size=128,
        steps=60 * 3125,
        artifact_steps=30 * 3125,
        learning_rate=1e-3,
        weight_decay=1e-4,
        tune_steps=10 * 3125,
        tune_learning_rate=1e-4,
        clip_norm=0.4,
        classification=Classification(
            images="imagenet",
            network="resnet18",
            train_examples=0,
            test_examples=0,
            batch_size=256,
            steps=90 * 5004,
            weight_decay=1e-4,
            tune_steps=10 * 5004,
            tune_learning_rate=1e-3,
            bf16=True,
            data_workers=12,
            rules=("max", "3.5sigma", "3sigma"),
            tuned_rules=("3.5sigma", "3sigma"),
            levels=(127, 31, 15),
        ),
        peers=get_args(Peer),
        log_every=100,
    ),
}
