"""What is asked for at each scale: the studies of the lesson and the loop of the paper's own setting."""

from pydantic import Field, field_validator, model_validator

from labkit.errors import InputError
from labkit.papers.pombu.method.loop import Settings
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


class Config(Settings, BaseConfig):
    """The lesson's studies, the algorithm on its own tasks, or both; its hyper-parameters stand in `Settings` alone."""

    # -- the lesson ---------------------------------------------------------------------------------------------------
    studies: tuple[str, ...] = Field((), description="tabular, calibration, zone and its variations, see `STUDIES`")
    posterior_samples: int = Field(40_000, ge=100, description="tabular study: MDPs drawn from the posterior")
    calibrations: tuple[str, ...] = Field(
        ("fake-0.01", "point-16", "zone-8", "zone-32"),
        description="calibration study: which ensembles, see `CALIBRATIONS`",
    )
    calibration_copies: int = Field(8, ge=1, le=100, description="calibration study: seeds at once")
    calibration_queries: int = Field(60, ge=5, description="calibration study: states and actions asked for, per seed")
    calibration_rollouts: int = Field(16, ge=2, description="calibration study: real rollouts per query")
    zone_copies: int = Field(8, ge=1, le=100, description="Zone: seeds at once; a run's seed gives this many")
    zone_arms: tuple[str, ...] = Field(ZONE_ARMS, description="Zone: alpha-A, shuffled-A or constant-A")
    variation_arms: tuple[str, ...] = Field(
        ("alpha-0", "alpha-1", "alpha-2", "shuffled-2"), description="Zone's variations: arms"
    )
    zone_updates: int = Field(30, ge=1, description="Zone: policy updates in the fixed ensemble")
    zone_model_steps: int = Field(1000, ge=1, description="Zone and calibration: Adam steps of an ensemble member")
    zone_clone_steps: int = Field(1500, ge=1, description="Zone: Adam steps in which the controller is cloned")
    zone_evaluations: int = Field(200, ge=2, description="Zone: real episodes per evaluation")

    # -- the loop: `Settings` and what only its rivals have -----------------------------------------------------------
    environments: tuple[str, ...] = Field((), description="tasks of the loop, see `ENVIRONMENTS`")
    algorithms: tuple[str, ...] = Field(("pombu", "meppo"), description="pombu and its rivals, see `ALGORITHMS`")
    replicas: int = Field(4, ge=1, le=64, description="seeds trained at once, as stacked copies")
    observation_noise: float = Field(0.0, ge=0, description="half width of uniform noise on observations")
    action_noise: float = Field(0.0, ge=0, description="half width of uniform noise on actions")
    max_kl: float = Field(0.01, gt=0, description="me-trpo: KL divergence of a policy step at most")
    mbpo_updates: int = Field(20, ge=1, description="mbpo: SAC steps on model data per real step [peer]")
    mbpo_rollouts: int = Field(400, ge=1, description="mbpo: model rollouts per real step [peer]")
    mbpo_schedule: tuple[int, ...] = Field(
        (),
        description="mbpo: from epoch, to epoch, k_min, k_max: the rollouts' length grows linearly in between; an "
        "epoch is 1000 real steps. Empty: the task's own, see `baselines.SCHEDULES` [peer]",
    )
    mbpo_keep: int = Field(250, ge=1, description="mbpo: real steps between two model trainings; age of model data")

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

    @field_validator("mbpo_schedule")
    @classmethod
    def _grows(cls, schedule: tuple[int, ...]) -> tuple[int, ...]:
        if not schedule:
            return schedule
        if len(schedule) != 4 or not (0 <= schedule[0] < schedule[1] and 1 <= schedule[2] <= schedule[3]):
            raise ValueError("write from epoch, to epoch, k_min, k_max with 0 <= from < to and 1 <= k_min <= k_max")
        return schedule

    @model_validator(mode="after")
    def _something_to_do(self) -> "Config":
        if not self.studies and not self.environments:
            raise ValueError("name at least one study or environment")
        if self.environments and not self.algorithms:
            raise ValueError("name at least one algorithm for the environments")
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
        zone_copies=2,
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
