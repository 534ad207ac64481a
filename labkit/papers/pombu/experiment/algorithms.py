"""POMBU, its variants and its rivals by name: learning curves of any of them on one task.

pombu        the loop of `method`
pombu-scaled the same with U divided by the raw advantages' variance, whatever the config says of pombu  [ours]
meppo        an ensemble and PPO: the loop with alpha = 0 and episodes by the policy itself  [paper]
me-trpo      an ensemble and trust regions: meppo with another policy step
others       see `baselines`
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.pombu.experiment.baselines import train_replica
from labkit.papers.pombu.experiment.config import ALGORITHMS, Config
from labkit.papers.pombu.experiment.kept import policy_name
from labkit.papers.pombu.experiment.offline import History
from labkit.papers.pombu.experiment.trust_region import TrustRegionPass
from labkit.papers.pombu.experiment.worlds import make_world
from labkit.papers.pombu.method.algorithm import policy_file
from labkit.papers.pombu.method.loop import Learner
from labkit.progress import progress
from labkit.seeds import derive
from labkit.workbench.runs import Run

IN_LOOP: dict[str, dict[str, object]] = {
    "pombu": {},
    "pombu-scaled": {"u_scaling": "paper"},
    "meppo": {"alpha": 0.0, "exploration": "policy"},
    "me-trpo": {"alpha": 0.0, "exploration": "policy"},
}


def learning_curves(algorithm: str, environment: str, config: Config, run: Run, device: torch.device) -> dict[str, Any]:
    """Every replica of one algorithm on one task, with as many real steps as the loop takes.

    Returns:
        {"steps": real steps after each iteration, "stochastic_return": one list a replica, "mean_return": the same},
        and what else the loop measures.

    Raises:
        InputError: no such algorithm.
    """
    if algorithm not in ALGORITHMS:
        raise InputError(f"there is no algorithm '{algorithm}'; there are {', '.join(ALGORITHMS)}.")
    if algorithm in IN_LOOP:
        return run_loop(learner_for(algorithm, environment, config, device), run)
    replicas = [train_replica(algorithm, environment, config, r, run, device) for r in range(config.replicas)]
    names = ("stochastic_return", "mean_return")
    return {"steps": replicas[0]["steps"], **{name: [one[name] for one in replicas] for name in names}}


def learner_for(algorithm: str, environment: str, config: Config, device: torch.device) -> Learner:
    """The loop's learner for one of the algorithms `IN_LOOP`."""
    settings = config.override(**IN_LOOP[algorithm])
    world = make_world(environment, config.horizon, config.observation_noise, config.action_noise)
    seeds = [derive(config.seed, replica) for replica in range(config.replicas)]
    trust_region = partial(TrustRegionPass, max_kl=config.max_kl) if algorithm == "me-trpo" else None
    return Learner(world, settings, seeds, device, trust_region)


def run_loop(learner: Learner, run: Run) -> dict[str, Any]:
    """All iterations in `run`, which keeps the policies.

    It resumes after the last finished iteration, and ends as if it had never been killed (on a CPU).
    """
    settings, history = learner.settings, History()
    state = {**learner.state(), "history": history}
    first = run.resume(state)
    if first:
        learner.resumed()
    iterations = range(first, settings.iterations)
    for iteration in progress(iterations, run.directory.name, settings.iterations, first):
        measured = {name: value.cpu() for name, value in learner.iterate(iteration).items()}
        history.add(**measured)
        run.log(
            iteration, **{f"{r}/{name}": x for name, value in measured.items() for r, x in enumerate(value.tolist())}
        )
        run.save_if_due(iteration + 1, state)
    steps = [settings.episodes * settings.horizon * (i + 1) for i in range(settings.iterations)]
    for replica, seed in enumerate(learner.seeds):
        name = learner.task.name
        run.write_bytes(policy_name(replica), policy_file(learner.policy, replica, name, seed, steps[-1]))
    return {"steps": steps, **{name: _by_replica(history[name]) for name in history.values}}


def _by_replica(values: Tensor) -> list[list[float]]:
    return values.T.tolist()
