"""Every generator has a stream of its own: no two copies, purposes, iterations or runs share one."""

import torch

from labkit.papers.pombu.experiment import offline, worlds
from labkit.papers.pombu.method import loop
from labkit.papers.pombu.method.loop import Learner, LoopConfig


def test_no_two_streams_of_a_zone_study_meet():
    """Runs 0 to 2 with 100 copies each; a member's weights have its number as a further key."""
    seeds = [seed for run in range(3) for seed in offline.seeds_of(run, 100)]
    states = [s.initial_seed() for p in offline.Purpose for s in offline.streams_for(seeds, p).generators]
    states += [offline.derive(seed, offline.Purpose.MEMBER, member) for seed in seeds for member in range(5)]
    assert len(set(states)) == len(seeds) * (len(offline.Purpose) + 5)


def test_no_two_streams_of_the_loop_meet(monkeypatch):
    """All generators of two runs of three replicas: those of the worlds, of the actions, of the models, of the draws.

    The noise of one evaluation and the world of the other once started from one state.
    """
    config = LoopConfig(
        environment="pendulum", replicas=3, iterations=2, episodes=2, horizon=3, updates=1, rollouts=4, epochs=1,
        batch_size=12, members=2, model_hidden=(4,), policy_hidden=(4,), model_epochs=1, evaluations=2,
    )  # fmt: skip
    seen: list[int] = []
    original = torch.Generator.manual_seed

    class Watched(torch.Generator):
        def manual_seed(self, seed):
            seen.append(seed)
            return original(self, seed)

    monkeypatch.setattr(torch, "Generator", Watched)
    for seed in (0, 1):
        learner = Learner(config.model_copy(update={"seed": seed}), torch.device("cpu"))
        begun = len(seen)
        for iteration in range(2):
            learner.begin(iteration)
            learner.collect(iteration)
            learner.refresh()
            learner.learn_models(iteration)
            learner.improve_policy(iteration)
            learner.evaluate(iteration)
        assert len(seen) - begun > 50
    assert len(set(seen)) == len(seen)
    assert isinstance(learner.world, worlds.TorchPendulum)
    assert len(set(loop.Purpose)) == len(loop.Purpose.__members__)
