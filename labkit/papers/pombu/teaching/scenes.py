"""What the notebook looks at besides numbers: the first seed's models, policies and data, kept by the run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labkit.papers.pombu.experiment import zone
from labkit.papers.pombu.experiment.calibration import Calibration
from labkit.papers.pombu.experiment.kept import MapFile, pairs_of
from labkit.papers.pombu.experiment.offline import TimedValue
from labkit.papers.pombu.experiment.zone import Zone
from labkit.papers.pombu.method.ensemble import DynamicsEnsemble
from labkit.papers.pombu.method.imagination import draw, imagine
from labkit.papers.pombu.method.networks import GaussianPolicy
from labkit.papers.pombu.method.uncertainty import propagate
from labkit.rl.streams import Streams
from labkit.workbench import records
from labkit.workbench.runs import Run

RECORDED = (
    "zone",
    "zone-action-noise",
    "zone-observation-noise",
    "zone-more-data",
    "zone-balanced",
    "zone-reward-x10",
    "zone-reward-x10-official",
    "zone-reward-x0.1",
    "zone-reward-x0.1-official",
)  # what the records' picture shows, in this order

LEFT = {1: "zone", **{episodes: f"zone-left-{episodes}" for episodes in (2, 4, 8, 16)}}  # by episodes on the left
DATA_COMMAND = (
    "labkit record pombu --scale lesson --seeds 0,1,2 --label data -p studies zone-left-2,zone-left-4,zone-left-8,"
    "zone-left-16,zone-more-data,zone-balanced,zone-slow"
)


@dataclass(frozen=True, eq=False)
class Maps:
    """A Zone study's first seed.

    Args:
        data: the recorded states. arms: their names. updates: after how many updates policies were kept.
        policies: one copy per kept policy: update number u of arm number a is copy u * len(arms) + a.
    """

    task: Zone
    data: Float[Tensor, "rows 2"]
    arms: tuple[str, ...]
    updates: tuple[int, ...]
    policies: GaussianPolicy
    ensemble: DynamicsEnsemble
    value: TimedValue

    @torch.no_grad()
    def actions(self, states: Float[Tensor, "n 2"], arm: str, update: int) -> Float[Tensor, "n 2"]:
        """The mean actions of one kept policy, cut to [-1, 1]."""
        copy = self.updates.index(update) * len(self.arms) + self.arms.index(arm)
        return self.policies(states.expand(self.policies.mean.copies, -1, -1))[0][copy].clamp(-1, 1)

    @torch.no_grad()
    def turn(self, states: Float[Tensor, "n 2"]) -> Float[Tensor, "n members 2"]:
        """Where each member believes that a full step to the right leads."""
        action = torch.tensor([1.0, 0.0]).expand(1, len(states), 2)
        return (self.ensemble(states[None], action) - states[None, None])[0].transpose(0, 1)

    def sqrt_u(self, states: Float[Tensor, "n 2"], rollouts: int = 4) -> Float[Tensor, " n"]:
        """sqrt(U) of the first policy from these states, the mean U over a few imagined episodes."""
        first = GaussianPolicy(2, 2, self.policies.mean.sizes[1:-1], [0])
        first.load_state_dict({name: value[:1] for name, value in self.policies.state_dict().items()})
        draws = draw(Streams([0]), self.task.horizon, len(states) * rollouts, 2, self.ensemble.members)
        start = states.repeat_interleave(rollouts, 0)[None]
        rollout = imagine(
            self.ensemble, first, self.value.value, self.task.reward, start, draws,
            gamma=self.task.gamma, state_bound=self.task.reach,
        )  # fmt: skip
        u = propagate(rollout.reward, rollout.uncertainty, gamma=self.task.gamma).uncertainty_target
        return u[0, 0].view(-1, rollouts).mean(1).sqrt()


def maps_of(run: Run, study: str = "zone") -> Maps:
    """What the run kept of a Zone study.

    Raises:
        RunError: the run has no such study. TensorFileError: what it kept is damaged.
    """
    task, kept = zone.task_of(study), MapFile(run.directory, study)
    policies, ensemble, first = kept.policies(task), kept.ensemble(task), kept.value(task)
    return Maps(task, kept.data(task), kept.header.arms, kept.header.updates, policies, ensemble, first)


def calibrations_of(run: Run) -> dict[str, Calibration]:
    """The pairs of prediction and error behind the calibration table, by row.

    Raises:
        RunError: the run has no calibration study. TensorFileError: what it kept is damaged.
    """
    return {row: Calibration(**pairs) for row, pairs in pairs_of(run.directory).items()}


def pooled(study: str) -> Mapping[str, Any] | None:
    """A Zone study of all recorded runs at scale lesson: arms that all of them have, their seeds put together.

    None where there is no record.

    Returns:
        {"arms": {arm: {"real", "claimed": one gain a seed, "left", "right": means}}}, and "record": its file.
    """
    for record in records.load_all("pombu"):
        measured = [result[study]["arms"] for result in record.results if study in result]
        if record.scale != "lesson" or not measured:
            continue
        arms = {
            arm: {key: [x for one in measured for x in one[arm][key]] for key in ("real", "claimed")}
            | {key: float(np.mean([one[arm][key] for one in measured])) for key in ("left", "right")}
            for arm in measured[0]
            if all(arm in one for one in measured)
        }
        return {"arms": arms, "record": record.name}
    return None


def by_left() -> dict[int, Mapping[str, Any]]:
    """The recorded Zone studies that differ in the amount of data on the left only, by that amount, as `pooled` gives
    them; those without a record are left out."""
    return {episodes: measured for episodes, study in LEFT.items() if (measured := pooled(study))}
