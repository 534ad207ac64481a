"""Every generator has a stream of its own: no two copies, purposes, iterations or runs share one."""

import torch

from labkit.papers.pombu.experiment import offline
from labkit.papers.pombu.experiment.worlds import make_world
from labkit.papers.pombu.method.loop import Learner, Settings
from labkit.seeds import derive


def test_no_two_streams_of_a_zone_study_meet():
    """Runs 0 to 2 with 100 copies each; a member's weights have its number as a further key."""
    seeds = [seed for run in range(3) for seed in offline.seeds_of(run, 100)]
    states = [s.initial_seed() for p in offline.Purpose for s in offline.streams_for(seeds, p).generators]
    states += [derive(seed, offline.Purpose.MEMBER, member) for seed in seeds for member in range(5)]
    assert len(set(states)) == len(seeds) * (len(offline.Purpose) + 5)


def test_no_two_streams_of_the_loop_meet(monkeypatch):
    """All generators of two runs of three replicas: those of the worlds, of the actions, of the models, of the draws.

    The noise of one evaluation and the world of the other once started from one state.
    """
    settings = Settings(
        iterations=2, episodes=2, horizon=3, updates=1, rollouts=4, epochs=1, batch_size=12, members=2,
        model_hidden=(4,), policy_hidden=(4,), model_epochs=1, evaluations=2,
    )  # fmt: skip
    started: list[int] = []
    original = torch.Generator.manual_seed

    class Watched(torch.Generator):
        def manual_seed(self, seed):
            started.append(seed)
            return original(self, seed)

    monkeypatch.setattr(torch, "Generator", Watched)
    for seed in (0, 1):
        seeds = [derive(seed, replica) for replica in range(3)]
        learner = Learner(make_world("pendulum", settings.horizon), settings, seeds, torch.device("cpu"))
        begun = len(started)
        for iteration in range(2):
            learner.iterate(iteration)
        assert len(started) - begun > 50
    assert len(set(started)) == len(started)
