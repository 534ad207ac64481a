"""What is asked for at each scale: the studies of the lesson and the loop of the paper's own setting."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from labkit.errors import InputError
from labkit.workbench.experiment import Config as BaseConfig
from labkit.workbench.experiment import Scale

# what `studies` may name; "zone" is the plain task, the others change one thing each, see `zone.VARIATIONS`
ZONE_STUDIES = (
    "zone",
    "zone-action-noise",
    "zone-observation-noise",
    "zone-more-data",
    "zone-balanced",
    "zone-left-2",
    "zone-left-4",
    "zone-left-8",
    "zone-left-16",
    "zone-slow",
    "zone-reward-x10",
    "zone-reward-x10-official",
    "zone-reward-x0.1",
    "zone-reward-x0.1-official",
)
STUDIES = ("tabular", "calibration", *ZONE_STUDIES)
CALIBRATIONS = (
    "fake-0.01",
    "fake-0.03",
    "point-4",
    "point-16",
    "point-64",
    "zone-8",
    "zone-32",
)
ENVIRONMENTS = ("half-cheetah", "swimmer", "walker2d", "hopper", "ant", "pendulum")
ALGORITHMS = ("pombu", "pombu-scaled", "meppo", "me-trpo", "mbpo", "ppo", "sac")

# an arm of the Zone study: alpha, then what is done to the uncertainty ("": nothing)
ZONE_ARMS = ("alpha-0", "alpha-0.5", "alpha-1", "alpha-2", "alpha-4", "shuffled-2", "constant-2")


class Config(BaseConfig):
    """The lesson's studies, the loop of §2.4 of the official code, or both."""

    # -- the lesson ---------------------------------------------------------------------------------------------------
    studies: tuple[str, ...] = Field((), description="tabular, calibration, zone and its variations, see `STUDIES`")
    posterior_samples: int = Field(40_000, ge=100, description="tabular study: MDPs drawn from the posterior")
    calibrations: tuple[str, ...] = Field(
        ("fake-0.01", "point-16", "zone-8", "zone-32"),
        description="calibration study: which ensembles, see `CALIBRATIONS`",
    )
    calibration_lanes: int = Field(8, ge=1, le=100, description="calibration study: seeds at once")
    calibration_queries: int = Field(60, ge=5, description="calibration study: states and actions asked for, per seed")
    calibration_rollouts: int = Field(16, ge=2, description="calibration study: real rollouts per query")
    zone_lanes: int = Field(8, ge=1, le=100, description="Zone: seeds at once; a run's seed gives this many")
    zone_arms: tuple[str, ...] = Field(ZONE_ARMS, description="Zone: alpha-A, shuffled-A or constant-A")
    variation_arms: tuple[str, ...] = Field(
        ("alpha-0", "alpha-1", "alpha-2", "shuffled-2"), description="Zone's variations: arms"
    )
    zone_updates: int = Field(30, ge=1, description="Zone: policy updates in the fixed ensemble")
    zone_model_steps: int = Field(1000, ge=1, description="Zone and calibration: Adam steps of an ensemble member")
    zone_clone_steps: int = Field(1500, ge=1, description="Zone: Adam steps in which the controller is cloned")
    zone_evaluations: int = Field(200, ge=2, description="Zone: real episodes per evaluation")

    # -- the loop, defaults from the official code's half-cheetah file ------------------------------------------------
    environments: tuple[str, ...] = Field((), description="tasks of the loop, see `ENVIRONMENTS`")
    algorithms: tuple[str, ...] = Field(("pombu", "meppo"), description="pombu and its rivals, see `ALGORITHMS`")
    replicas: int = Field(4, ge=1, le=64, description="seeds trained at once, as lanes")
    iterations: int = Field(100, ge=1, description="rounds of collecting, model training and policy updates")
    episodes: int = Field(10, ge=1, description="real episodes per iteration")
    horizon: int = Field(200, ge=1, description="steps per episode, real and imagined")
    updates: int = Field(20, ge=1, description="policy updates per iteration")
    rollouts: int = Field(200, ge=1, description="imagined episodes per update")
    epochs: int = Field(10, ge=1, description="passes over the imagined data, for policy and for V and U")
    batch_size: int = Field(500, ge=1, description="imagined transitions per gradient step")
    gamma: float = Field(0.99, gt=0, le=1, description="discount; U is discounted by its square")
    lam: float = Field(1.0, ge=0, le=1, description="lambda of the traces of advantages and uncertainty")
    members: int = Field(5, ge=2, description="K, models in the ensemble")
    alpha: float = Field(0.5, ge=0, description="sigmas of caution in the policy's objective")
    objective: Literal["variance_constrain", "p_improve_ppo", "p_improve_ppo2"] = Field(
        "variance_constrain", description="penalty alpha |delta| sqrt(U); ratio to it; alpha from that ratio"
    )
    u_scaling: Literal["paper", "official"] = Field(
        "official",
        description="the loop's U as the official code leaves it, for which its alpha 0.5 was chosen; paper: divided "
        "by the raw advantages' variance (algorithm pombu-scaled). On half-cheetah, 2,000 to 14,000 real steps, small "
        "models, one seed, alpha 0.5 moved the policy 8 to 60 times less than alpha 0 (KL of an update) with official "
        "and 12 to 190 times less with paper. Zone has a scaling of its own: paper, but in the studies named official",
    )
    bessel: bool = Field(False, description="variance over members divided by K-1 instead of K")
    clip: float = Field(0.15, gt=0, lt=1, description="PPO's clip range")
    learning_rate: float = Field(1e-4, gt=0, description="Adam step size of policy, V and U at the first iteration")
    learning_rate_span: int = Field(110, ge=1, description="iterations after which the step size would be 0")
    max_grad_norm: float = Field(0.5, gt=0, description="gradient norm at most, per network")
    exploration: Literal["mixture", "policy"] = Field(
        "mixture", description="episodes by exploration policies in random mixtures of models, or by the policy"
    )
    beta: float = Field(10.0, ge=0, description="weight of sqrt(U) in the exploration advantage")
    policy_hidden: tuple[int, ...] = Field((64, 64), description="widths of policy, V and U")
    model_hidden: tuple[int, ...] = Field((512, 512), description="widths of a dynamics model")
    model_learning_rate: float = Field(2e-4, gt=0, description="Adam step size of the dynamics models")
    model_batch: int = Field(1000, ge=1, description="real transitions per gradient step of a dynamics model")
    model_epochs: int = Field(10_000, ge=1, description="epochs of model training at most, per iteration")
    patience: int = Field(25, ge=1, description="epochs without a better validation loss before training stops")
    validate_every: int = Field(5, ge=1, description="epochs between two validations")
    reinitialise_every: int = Field(10, ge=1, description="iterations between two fresh starts of the models")
    std_resets: int = Field(5, ge=0, description="iterations at whose start the policy's log-std goes back to 0")
    evaluations: int = Field(20, ge=1, description="real episodes per evaluation, stochastic and again with the mean")
    observation_noise: float = Field(0.0, ge=0, description="half width of uniform noise on observations")
    action_noise: float = Field(0.0, ge=0, description="half width of uniform noise on actions")
    compiled: bool = Field(False, description="CUDA graphs for imagination and updates")

    @field_validator("studies", "calibrations", "environments", "algorithms")
    @classmethod
    def _known(cls, names: tuple[str, ...], info: object) -> tuple[str, ...]:
        field = str(getattr(info, "field_name", ""))
        known = {
            "studies": STUDIES,
            "calibrations": CALIBRATIONS,
            "environments": ENVIRONMENTS,
            "algorithms": ALGORITHMS,
        }[field]
        for name in names:
            if name not in known:
                raise ValueError(f"there is no '{name}'; there are {', '.join(known)}")
        if len(set(names)) < len(names):
            raise ValueError("a name stands there twice")
        return names

    @field_validator("zone_arms", "variation_arms")
    @classmethod
    def _arms(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            parse_arm(name)
        if len(set(names)) < len(names) or not names:
            raise ValueError("name at least one arm, and each once")
        return names

    @model_validator(mode="after")
    def _something_to_do(self) -> "Config":
        if not self.studies and not self.environments:
            raise ValueError("name at least one study or environment")
        if self.environments and not self.algorithms:
            raise ValueError("name at least one algorithm for the environments")
        if self.batch_size > self.rollouts * self.horizon:
            raise ValueError(
                f"batch_size {self.batch_size} is more than the {self.rollouts * self.horizon} imagined transitions"
            )
        return self


def parse_arm(name: str) -> tuple[str, float]:
    """("alpha" | "shuffled" | "constant", alpha) of an arm's name such as shuffled-2."""
    kind, _, number = name.partition("-")
    try:
        alpha = float(number)
    except ValueError:
        alpha = -1.0
    if kind not in ("alpha", "shuffled", "constant") or not 0 <= alpha < float("inf"):
        raise InputError(f"'{name}' is no arm: write alpha-A, shuffled-A or constant-A with a number A of at least 0")
    return kind, alpha


CONFIGS: dict[Scale, Config] = {
    "smoke": Config(
        studies=("tabular", "zone"),
        posterior_samples=4_000,
        zone_lanes=2,
        zone_arms=("alpha-0", "alpha-2"),
        zone_updates=3,
        zone_model_steps=100,
        zone_clone_steps=200,
        zone_evaluations=40,
        environments=("pendulum",),
        algorithms=("pombu",),
        replicas=1,
        iterations=2,
        episodes=2,
        horizon=20,
        updates=2,
        rollouts=16,
        epochs=2,
        batch_size=64,
        members=2,
        model_hidden=(32, 32),
        policy_hidden=(16, 16),
        model_batch=16,
        model_epochs=20,
        model_learning_rate=2e-3,
        learning_rate=1e-3,
        evaluations=2,
    ),
    "lesson": Config(studies=("tabular", "calibration", "zone", "zone-action-noise")),
    "gpu": Config(
        environments=("half-cheetah",),
        algorithms=("pombu", "meppo"),
        replicas=4,
        iterations=30,
        compiled=True,
    ),
    "full": Config(
        environments=("half-cheetah", "swimmer", "walker2d", "hopper", "ant"),
        algorithms=("pombu", "meppo", "me-trpo", "mbpo", "ppo", "sac"),
        replicas=4,
        compiled=True,
    ),
}
