"""What is compared (experiments and their arms) and what is asked for at each scale."""

from dataclasses import dataclass, replace

from pydantic import Field, field_validator, model_validator

from labkit.workbench.experiment import Config as BaseConfig
from labkit.workbench.experiment import Scale


@dataclass(frozen=True)
class Arm:
    """One way to train: how the data are modified, what is minimised. Everything else is the experiment's.

    Args:
        modifier: none, swap, uniform, weight, resample, oracle, mixup, interdomain, adaptive, paired-swap, or
            edit-<edit>, where `edits.EDITS` names the edits.
        objective: erm, irm, irm-split, vrex, dro-environment, dro-group, consistency.
        lam: strength of the penalty; alpha: mixup's; eta: GroupDRO's.
        anneal: step from which lam counts, it is 1 before; None: the experiment's.
        l2, hidden, learning_rate: None: the experiment's.
        rescale: divide the penalised loss by lam; otherwise reset the optimiser at `anneal`, as DomainBed does.
    """

    modifier: str = "none"
    objective: str = "erm"
    lam: float = 1.0
    alpha: float = 0.4
    eta: float = 0.1
    anneal: int | None = None
    l2: float | None = None
    hidden: int | None = None
    learning_rate: float | None = None
    rescale: bool = True


@dataclass(frozen=True)
class Experiment:
    """A scene, a network, and arms. All arms train on the same batches and start from the same weights.

    Args:
        scene: which data, see `data.build`. rho: how often the nuisance agrees with the label, per environment.
        network: mlp, cnn, mnist-cnn or resnet18. batch: 0 is the whole training set at every step.
    """

    title: str
    scene: str
    arms: dict[str, Arm]
    rho: tuple[float, ...] = ()
    network: str = "mlp"
    hidden: int = 128
    learning_rate: float = 2e-3
    batch: int = 128
    steps: int = 300
    anneal: int = 100
    l2: float = 0.0
    optimizer: str = "adam"
    train_examples: int = 1200
    test_examples: int = 500
    xavier: bool = False


ERM, SWAP, UNIFORM = Arm(), Arm("swap"), Arm("uniform")
COLOUR, ORACLE, WEIGHT, RESAMPLE = Arm("edit-colour"), Arm("oracle"), Arm("weight"), Arm("resample")
CONSISTENCY = Arm("paired-swap", "consistency", lam=1.0)

_BACKGROUNDS = Experiment(
    title="digits on coloured backgrounds, two environments",
    scene="digit-backgrounds",
    rho=(0.999, 0.97),
    arms={
        "ERM": ERM,
        "mixup": Arm("mixup", alpha=0.4),
        "wrong-edit": Arm("edit-shift"),
        "IRM": Arm(objective="irm", lam=1.0),
        "IRM-1e2": Arm(objective="irm", lam=1e2),
        "IRM-1e4": Arm(objective="irm", lam=1e4),
        "V-REx": Arm(objective="vrex", lam=10.0),
        "V-REx-1e4": Arm(objective="vrex", lam=1e4),
        "GroupDRO-environment": Arm(objective="dro-environment"),
        "GroupDRO-group": Arm(objective="dro-group"),
        "IE-weight": WEIGHT,
        "IE-resample": RESAMPLE,
        "IE-edit": COLOUR,
        "IE-adaptive": Arm("adaptive"),
        "IE-swap": SWAP,
        "IE-uniform": UNIFORM,
        "consistency": CONSISTENCY,
    },
)

_TWO_COLOURS = Experiment(
    title="digits below 5 or not, 25 % label noise, two colours",
    scene="two-colours",
    rho=(0.8, 0.9),  # colour agrees with the label; in the test with 10 %
    arms={
        "ERM": ERM,
        "IRM-1e2": Arm(objective="irm", lam=1e2),
        "IRM-1e4": Arm(objective="irm", lam=1e4),
        "IRM-1e4-l2": Arm(objective="irm", lam=1e4, l2=1e-2),
        "V-REx": Arm(objective="vrex", lam=1e3),
        "IE-weight": WEIGHT,
        "IE-weight-l2": replace(WEIGHT, l2=5e-3),
        "IE-swap": SWAP,
        "IE-swap-l2": replace(SWAP, l2=5e-3),
        "oracle": ORACLE,
        "oracle-l2": replace(ORACLE, l2=5e-3),
    },
    hidden=64,
    batch=0,
    anneal=60,
    l2=1e-3,
)

_MILD = replace(
    _BACKGROUNDS,
    title="the same, a milder bias",
    rho=(0.9, 0.7),
    steps=250,
    arms={
        "ERM": ERM,
        "mixup": Arm("mixup", alpha=0.4),
        "IRM-1e2": Arm(objective="irm", lam=1e2),
        "V-REx-1e3": Arm(objective="vrex", lam=1e3),
        "GroupDRO-group": Arm(objective="dro-group"),
        "IE-weight": WEIGHT,
        "IE-weight-l2": replace(WEIGHT, l2=1.5e-3),
        "IE-edit": COLOUR,
        "IE-swap": SWAP,
        "consistency": CONSISTENCY,
    },
)

_SHIFTS = Experiment(
    title="digits shifted by a pixel, training and test alike",
    scene="shifts",
    arms={"ERM": ERM, "IE-uniform": UNIFORM},
    hidden=64,
    learning_rate=3e-3,
    batch=64,
    steps=250,
)

# [official code of IRM]: full batch, hidden sizes, L2, step sizes, anneal and lam, all picked on the test set
_TUNED = Arm(objective="irm", lam=91257.18, anneal=190, hidden=390, l2=0.00110794568, learning_rate=0.0004898536566)
_COLORED_MNIST = Experiment(
    title="IRM's coloured MNIST",
    scene="colored-mnist",
    rho=(0.8, 0.9),
    arms={
        "ERM": ERM,
        "IRM": _TUNED,
        "V-REx": replace(_TUNED, objective="vrex", lam=1e4),
        "IE-weight": WEIGHT,
        "IE-swap": SWAP,
        "oracle": ORACLE,
    },
    hidden=256,
    learning_rate=1e-3,
    batch=0,
    steps=501,
    l2=1e-3,
    xavier=True,
    train_examples=50_000,
    test_examples=10_000,
)  # fmt: skip

_CIFAR = Experiment(
    title="CIFAR-10 with a border in the class's colour",
    scene="cifar-borders",
    rho=(0.95, 0.95),
    network="resnet18",
    arms={"ERM": ERM, "IE-edit": COLOUR, "IE-swap": SWAP, "IE-adaptive": Arm("adaptive")},
    learning_rate=0.1,
    batch=512,
    steps=1500,
    l2=2.5e-4,  # SGD's weight decay 5e-4
    optimizer="sgd",
    train_examples=50_000,
    test_examples=10_000,
)

EXPERIMENTS: dict[str, Experiment] = {
    "backgrounds": _BACKGROUNDS,
    "two-colours": _TWO_COLOURS,
    "mild": _MILD,
    **{f"shifts-{n}": replace(_SHIFTS, train_examples=n) for n in (50, 200, 800)},
    "fashion": replace(
        _BACKGROUNDS,
        title="Fashion-MNIST on coloured backgrounds",
        scene="fashion-backgrounds",
        rho=(0.95, 0.85),
        network="cnn",
        hidden=32,
        steps=400,
        train_examples=6000,
        test_examples=1000,
        arms={
            "ERM": ERM,
            "IRM-1e2": Arm(objective="irm", lam=1e2),
            "IE-weight": WEIGHT,
            "IE-edit": COLOUR,
            "IE-swap": SWAP,
            "consistency": CONSISTENCY,
        },
    ),
    "colored-mnist": _COLORED_MNIST,
    "cifar-borders": _CIFAR,
    "cifar-plain": replace(
        _CIFAR,
        title="CIFAR-10 without a planted bias",
        scene="cifar-plain",
        rho=(),
        arms={"ERM": ERM, "IE-edit": COLOUR, "IE-edit-mirror": Arm("edit-mirror")},
    ),
}


class Config(BaseConfig):
    """Train the arms of some experiments, every arm with several replicas: other data splits, noise and weights."""

    experiments: tuple[str, ...] = Field(("backgrounds",), description="what to compare, see `EXPERIMENTS`")
    arms: tuple[str, ...] = Field((), description="only these arms, where an experiment has them; empty: all")
    replicas: int = Field(5, ge=1, le=100, description="networks per arm")
    steps: int = Field(0, ge=0, description="training steps; 0: the experiment's own number")
    batch_size: int = Field(0, ge=0, description="images per step, over all processes; 0: the experiment's own number")
    train_examples: int = Field(0, ge=0, description="training images; 0: the experiment's own number")
    test_examples: int = Field(0, ge=0, description="test images; 0: the experiment's own number")
    stacked: bool = Field(True, description="train all networks of an experiment at once (vmap); else one by one")
    coverage_samples: int = Field(0, ge=0, description="samples for the coverage of the bounds; 0: leave it out")
    probes: int = Field(40, ge=0, description="test images on which delta is measured while training")
    log_every: int = Field(50, ge=1, description="steps between two logged lines")
    bf16: bool = Field(False, description="bfloat16 autocast in the forward pass")
    sweep: tuple[str, ...] = Field(
        (),
        description="DomainBed protocol: colored-mnist, rotated-mnist, or folder:PATH of <domain>/<class>/<image>, in "
        "LABKIT_DATA or anywhere",
    )
    algorithms: tuple[str, ...] = Field((), description="DomainBed protocol: methods; empty: all that the data allow")
    draws: int = Field(20, ge=1, description="DomainBed protocol: random hyper-parameter draws")
    trials: int = Field(3, ge=1, description="DomainBed protocol: repetitions with other splits and weights")
    sweep_steps: int = Field(5001, ge=1, description="DomainBed protocol: training steps")
    max_images: int = Field(0, ge=0, description="DomainBed protocol: images per environment at most; 0: all")
    image_size: int = Field(
        64, ge=8, le=512, description="DomainBed protocol: side in pixels to which the images of a folder are resized"
    )

    @field_validator("experiments")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in EXPERIMENTS:
                raise ValueError(f"there is no experiment '{name}'; there are {', '.join(EXPERIMENTS)}")
        if len(set(names)) < len(names):
            raise ValueError("an experiment is named twice")
        return names

    @field_validator("algorithms")
    @classmethod
    def _known_algorithms(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in ALGORITHMS:
                raise ValueError(f"there is no algorithm '{name}'; there are {', '.join(ALGORITHMS)}")
        return names

    @field_validator("sweep")
    @classmethod
    def _known_data(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in ("colored-mnist", "rotated-mnist") and not name.startswith("folder:"):
                raise ValueError(
                    f"'{name}' must be colored-mnist, rotated-mnist or folder:PATH (a folder of LABKIT_DATA, or any)"
                )
        if len(set(names)) < len(names):
            raise ValueError("a data set is named twice")
        return names

    @model_validator(mode="after")
    def _arms_exist(self) -> "Config":
        for arm in self.arms:
            if not any(arm in EXPERIMENTS[name].arms for name in self.experiments):
                known = sorted({a for name in self.experiments for a in EXPERIMENTS[name].arms})
                raise ValueError(f"no experiment asked for has an arm '{arm}'; there are {', '.join(known)}")
        if not self.experiments and not self.sweep:
            raise ValueError("name at least one experiment or data set to sweep")
        return self

    def experiment(self, name: str) -> Experiment:
        """The experiment with this config's numbers in it."""
        experiment = EXPERIMENTS[name]
        arms = {key: arm for key, arm in experiment.arms.items() if not self.arms or key in self.arms}
        return replace(
            experiment,
            arms=arms,
            steps=self.steps or experiment.steps,
            batch=self.batch_size or experiment.batch,
            train_examples=self.train_examples or experiment.train_examples,
            test_examples=self.test_examples or experiment.test_examples,
        )


# the methods of the sweep; lam and the others are drawn, see `domainbed.draw_hyperparameters`
ALGORITHMS: dict[str, Arm] = {
    "ERM": ERM,
    "IRM": Arm(objective="irm-split", rescale=False),
    "V-REx": Arm(objective="vrex", rescale=False),
    "GroupDRO": Arm(objective="dro-environment"),
    "mixup": Arm("interdomain", alpha=0.2),
    "IE-swap": SWAP,
    "IE-uniform": UNIFORM,
    "IE-edit": COLOUR,
    "IE-weight": WEIGHT,
}

CONFIGS: dict[Scale, Config] = {
    "smoke": Config(
        experiments=("backgrounds",),
        arms=("ERM", "IE-swap"),
        replicas=1,
        steps=60,
        train_examples=300,
        test_examples=300,
        coverage_samples=20,
        draws=1,
        trials=1,
        sweep_steps=20,
        image_size=32,
    ),
    "lesson": Config(
        experiments=("backgrounds", "two-colours", "mild", "shifts-50", "shifts-200", "shifts-800"),
        replicas=3,
        coverage_samples=300,
        draws=1,
        trials=1,
        sweep_steps=300,
    ),
    "gpu": Config(
        experiments=("colored-mnist", "cifar-borders"), replicas=10, bf16=True, draws=1, trials=1, sweep_steps=1000
    ),
    "full": Config(
        experiments=("cifar-borders", "cifar-plain"),
        sweep=("colored-mnist", "rotated-mnist"),
        bf16=True,
        steps=19_500,
    ),
}
