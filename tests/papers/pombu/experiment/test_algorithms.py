"""POMBU and its rivals by name: every one plays the same task, every switch changes something, killed runs go on."""

import json

import numpy as np
import pytest
import torch
from papers.pombu.killed import killed_and_resumed

from labkit.errors import InputError
from labkit.papers.pombu.experiment.algorithms import IN_LOOP, learner_for, learning_curves, run_loop
from labkit.papers.pombu.experiment.config import ALGORITHMS, Config
from labkit.papers.pombu.experiment.tasks import TASKS, GymnasiumTask
from labkit.papers.pombu.experiment.trust_region import TrustRegionPass
from labkit.workbench.runs import Run

TINY = Config(
    environments=("pendulum",), replicas=1, iterations=2, episodes=2, horizon=8, updates=2, rollouts=8, epochs=2,
    batch_size=32, members=2, model_hidden=(32, 32), policy_hidden=(16, 16), model_batch=16, model_epochs=10,
    model_learning_rate=2e-3, learning_rate=1e-3, evaluations=2, mbpo_updates=1, mbpo_rollouts=16, mbpo_keep=20,
)  # fmt: skip
CPU = torch.device("cpu")


def curves(tmp_path, algorithm: str, name: str = "run", environment: str = "pendulum", **changes: object):
    config = TINY.override(**changes)
    run = Run.open(tmp_path / name, config)
    result = learning_curves(algorithm, environment, config, run, CPU)
    run.close()
    return result


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_rival_plays_the_same_task_for_as_many_steps(tmp_path, algorithm):
    before = np.random.get_state()[1].tolist(), torch.get_rng_state()  # Python's: the run-time type checks draw from it
    result = curves(tmp_path, algorithm)
    assert torch.equal(before[1], torch.get_rng_state())
    assert np.random.get_state()[1].tolist() == before[0]
    assert result["steps"] == [16, 32]
    for name in ("stochastic_return", "mean_return"):
        assert len(result[name]) == 1
        assert len(result[name][0]) == 2
        assert all(-8 * 20 < value <= 0 for value in result[name][0])


@pytest.mark.slow
def test_a_killed_run_ends_like_an_undisturbed_one(tmp_path):
    config = TINY.override(replicas=2, iterations=3)
    whole = run_loop(learner_for("pombu", "pendulum", config, CPU), Run.open(tmp_path / "whole", config))
    resumed, again = killed_and_resumed(tmp_path / "killed", config, CPU)
    assert resumed == whole
    assert [line["step"] for line in again.metrics()] == [0, 1, 2]


@pytest.fixture(scope="module")
def plain_result(tmp_path_factory):
    return curves(tmp_path_factory.mktemp("plain"), "pombu")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": 3.0}, {"u_scaling": "paper"}, {"exploration": "policy"}, {"bessel": True},
        {"objective": "p_improve_ppo"}, {"objective": "p_improve_ppo2"}, {"lam": 0.5}, {"beta": 0.0}, {"seed": 1},
        {"observation_noise": 0.1}, {"action_noise": 0.1}, {"std_resets": 0}, {"reinitialise_every": 1},
        {"starts": "recorded"}, {"reward_clip": 1.0},
    ],
)  # fmt: skip
def test_every_switch_changes_what_comes_out(tmp_path, plain_result, changes):
    result = curves(tmp_path, "pombu", **changes)
    assert json.dumps(plain_result) != json.dumps(result)
    assert torch.isfinite(torch.tensor(result["stochastic_return"])).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if isinstance(task, GymnasiumTask)])
def test_the_papers_networks_on_every_task(tmp_path, name):
    """The full configuration's shapes, with few and short episodes; noise on both sides."""
    few = {"horizon": 5, "updates": 1, "rollouts": 4, "epochs": 1, "batch_size": 10, "model_epochs": 2}
    papers = {key: Config.model_fields[key].default for key in ("members", "model_hidden", "policy_hidden")}
    noise = {"observation_noise": 0.1, "action_noise": 0.1}
    result = curves(tmp_path, "pombu", environment=name, evaluations=1, **few, **papers, **noise)
    assert torch.isfinite(torch.tensor([value for key, value in result.items() if key != "steps"])).all()


def test_rivals_in_the_loop_differ_where_they_say_and_nowhere_else():
    config = TINY.override(u_scaling="official", alpha=0.7)
    learners = {name: learner_for(name, "pendulum", config, CPU) for name in IN_LOOP}
    settings = {name: learner.settings for name, learner in learners.items()}
    assert settings["pombu"] == config
    assert settings["pombu-scaled"] == config.override(u_scaling="paper")
    assert settings["meppo"] == settings["me-trpo"] == config.override(alpha=0.0, exploration="policy")
    assert {name for name, one in learners.items() if isinstance(one.improve, TrustRegionPass)} == {"me-trpo"}
    first = {name: learner.collect(0).tolist() for name, learner in learners.items()}
    assert len({tuple(returns) for returns in first.values()}) == 1  # the same first policy in the same worlds


def test_an_unknown_rival_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no algorithm 'td3'"):
        curves(tmp_path, "td3")
