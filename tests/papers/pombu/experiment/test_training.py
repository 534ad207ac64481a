"""A killed run ends as an undisturbed one, two processes do what one does, every scale starts, bad input is refused."""

import json

import pytest
from killed import killed
from safetensors.torch import load_file

from labkit.errors import ConfigError, InputError, RunError
from labkit.papers.pombu import PAPER
from labkit.papers.pombu.experiment import zone
from labkit.papers.pombu.experiment.config import CONFIGS, Config, parse_arm
from labkit.papers.pombu.experiment.train import units_of
from labkit.papers.pombu.method.loop import Settings
from labkit.papers.pombu.teaching import scenes
from labkit.workbench.runs import Run

SMALL = Config(
    studies=("tabular", "zone"),
    posterior_samples=500,
    zone_copies=1,
    zone_arms=("alpha-0", "shuffled-2"),
    zone_updates=4,
    zone_model_steps=60,
    zone_clone_steps=60,
    zone_evaluations=10,
)
LOOP = {
    name: getattr(CONFIGS["smoke"], name)
    for name in ("iterations", "episodes", "horizon", "updates", "rollouts", "epochs", "batch_size", "members",
                 "model_hidden", "policy_hidden", "model_batch", "model_epochs", "evaluations")
}  # fmt: skip


@pytest.mark.slow
def test_killed_and_resumed_ends_as_undisturbed(tmp_path):
    undisturbed = PAPER.run(SMALL, Run.open(tmp_path / "whole", SMALL))
    with killed(2):
        PAPER.run(SMALL, Run.open(tmp_path / "run", SMALL))
    assert (tmp_path / "run" / "tabular" / "result.json").exists()  # finished units stay
    assert not (tmp_path / "run" / "result.json").exists()
    assert PAPER.run(SMALL, Run.open(tmp_path / "run", SMALL)) == undisturbed
    first, second = (load_file(tmp_path / name / "zone" / "maps.safetensors") for name in ("whole", "run"))
    assert all((value == second[name]).all() for name, value in first.items())
    assert PAPER.run(SMALL, Run.open(tmp_path / "run", SMALL)) == undisturbed  # finished: read, not trained again


@pytest.mark.shapes_unchecked
@pytest.mark.slow
def test_two_processes_deal_the_units_out(tmp_path):
    config = SMALL.override(environments=["pendulum"], algorithms=["pombu"], replicas=1, **LOOP)
    one = PAPER.run(config, Run.open(tmp_path / "one", config))
    two = config.override(devices=2, device="cpu")
    both = PAPER.run(two, Run.open(tmp_path / "two", two))
    assert both == one
    assert json.loads((tmp_path / "two" / "result.json").read_text()) == one


@pytest.mark.slow
def test_smoke_measures_every_part(smoke_run):
    result = smoke_run(PAPER).result
    assert set(result) == {"data", "tabular", "zone", "pendulum"}
    assert result["tabular"]["tight_min"] >= 0.999
    assert set(result["zone"]["arms"]) == {"alpha-0", "alpha-2"}
    curve = result["pendulum"]["pombu"]
    assert len(curve["stochastic_return"][0]) == CONFIGS["smoke"].iterations
    errors = curve["validation_error"][0]
    assert errors[-1] < 1.0  # the models explain part of the state's change
    measured = [v for v in PAPER.verdicts(result, "lesson") if v.measured is not None]
    assert {v.key for v in measured} >= {"upper-bound", "more-often-than-plain"}


def test_every_unit_of_every_scale_is_known():
    for config in CONFIGS.values():
        wanted = len(config.studies) + len(config.environments) * len(config.algorithms)
        assert len(units_of(config)) == wanted


@pytest.mark.slow
def test_the_run_keeps_what_the_notebook_draws(tmp_path):
    config = SMALL.override(
        studies=["calibration", "zone"], calibrations=["fake-0.01"], calibration_copies=1, calibration_queries=8
    )
    run = Run.open(tmp_path, config)
    PAPER.run(config, run)
    maps = scenes.maps_of(run)
    assert maps.arms == ("alpha-0", "shuffled-2")
    assert maps.updates == (0, 4)
    states = maps.data[:5]
    assert maps.actions(states, "alpha-0", 0).equal(maps.actions(states, "shuffled-2", 0))
    assert not maps.actions(states, "alpha-0", 0).equal(maps.actions(states, "alpha-0", 4))
    assert maps.turn(states).shape == (5, 5, 2)
    assert bool((maps.sqrt_u(states) > 0).all())
    rows = scenes.calibrations_of(run)
    assert rows["fake-0.01"].predicted.shape == (1, 8)
    with pytest.raises(RunError, match="without the study 'zone-slow'"):
        scenes.maps_of(run, "zone-slow")


def test_pooled_puts_all_seeds_of_a_record_together(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RECORDS", str(tmp_path))
    assert scenes.pooled("zone") is None
    arm = {"real": [1.0, -1.0], "claimed": [2.0, 2.0], "left": 0.5, "right": 1.5}
    record = {
        "paper": "pombu", "scale": "lesson", "device": "cpu", "seeds": [0, 1],
        "results": [{"zone": {"arms": arms}} for arms in ({"alpha-2": arm, "alpha-9": arm}, {"alpha-2": arm})],
        "config": {}, "environment": {},
        "wall_seconds": [1.0, 1.0], "command": "labkit record", "recorded": "2026-01-01",
    }  # fmt: skip
    (tmp_path / "pombu").mkdir()
    (tmp_path / "pombu" / "lesson-cpu.json").write_text(json.dumps(record))
    actual = scenes.pooled("zone")
    assert actual["arms"]["alpha-2"]["real"] == [1.0, -1.0, 1.0, -1.0]
    assert actual["arms"]["alpha-2"]["right"] == 1.5
    assert set(actual["arms"]) == {"alpha-2"}  # the other one is not in every run
    assert scenes.pooled("zone-slow") is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"studies": ["mud"]}, "there is no 'mud'; there are tabular"),
        ({"studies": ["zone", "zone"]}, "stands there twice"),
        ({"studies": [], "environments": []}, "at least one study or environment"),
        ({"calibrations": ["point-5"]}, "there is no 'point-5'"),
        ({"zone_arms": ["alpha-minus"]}, "is no arm"),
        ({"zone_arms": ["alpha--1"]}, "is no arm"),
        ({"zone_arms": []}, "at least one arm"),
        ({"environments": ["humanoid"]}, "there is no 'humanoid'"),
        ({"environments": ["ant"], "algorithms": []}, "at least one algorithm"),
        ({"algorithms": ["td3"]}, "there is no 'td3'"),
        ({"batch_size": 10_000_000}, "imagined transitions"),
        ({"alpha": -1.0}, "alpha"),
        ({"horizon": 1}, "horizon .* greater than or equal to 2"),
        ({"mbpo_schedule": [100, 20, 1, 15]}, "from epoch, to epoch"),
        ({"mbpo_schedule": [20, 100, 0, 15]}, "1 <= k_min <= k_max"),
        ({"u_scaling": "none"}, "u_scaling"),
        ({"zone_copie": 3}, "did you mean zone_copies"),
    ],
)
def test_config_answers_back(changes, words):
    with pytest.raises(ConfigError, match=words):
        CONFIGS["smoke"].override(**changes)


def test_the_command_line_reaches_every_hyper_parameter():
    config = CONFIGS["smoke"].override_text({"max_kl": "0.02", "mbpo_schedule": "0,1,3,3", "model_hidden": "16,8"})
    assert (config.max_kl, config.mbpo_schedule, config.model_hidden) == (0.02, (0, 1, 3, 3), (16, 8))
    assert set(Settings.model_fields) < set(Config.model_fields)
    assert not set(Settings.model_fields) & set(Config.__annotations__)  # each field stands once


def test_names_of_arms():
    assert parse_arm("shuffled-0.5") == ("shuffled", 0.5)
    assert parse_arm("alpha-0") == ("alpha", 0.0)
    for name in ("alpha", "beta-2", "alpha-inf", "constant-"):
        with pytest.raises(ValueError, match="is no arm"):
            parse_arm(name)


def test_an_unknown_exercise_is_refused():
    with pytest.raises(InputError, match="no exercise 'nothing'"):
        PAPER.exercise("nothing")


# -- the large scales, a few steps of them ----------------------------------------------------------------------------

FEW = {
    "replicas": 1, "iterations": 1, "episodes": 2, "horizon": 12, "updates": 1, "rollouts": 6, "epochs": 1,
    "batch_size": 24, "model_epochs": 4, "model_batch": 16, "evaluations": 1, "model_hidden": [16, 16],
}  # fmt: skip


def test_gpu_scale_for_a_few_steps(tmp_path):
    config = CONFIGS["gpu"].override(**FEW)
    result = PAPER.run(config, Run.open(tmp_path, config))
    assert set(result["half-cheetah"]) == set(config.algorithms)
    measured = {v.key for v in PAPER.verdicts(result, "gpu") if v.measured is not None}
    assert measured == {"beats-its-own-ablation"}


def test_the_large_scales_do_what_the_released_code_does():
    """Its alpha was chosen with U left as it is; Zone keeps the division, whatever the loop does."""
    for scale in ("gpu", "full"):
        config = CONFIGS[scale]
        assert (config.alpha, config.u_scaling, config.beta) == (0.5, "official", 10.0)
    assert zone.setting_of("zone", CONFIGS["lesson"]).u_scaling == "paper"


@pytest.mark.slow
def test_full_scale_for_a_few_steps(tmp_path):
    """Every algorithm once; every environment has its own test in test_worlds."""
    small_mbpo = {"mbpo_updates": 1, "mbpo_rollouts": 16}
    config = CONFIGS["full"].override(**FEW, environments=["swimmer"], observation_noise=0.1, **small_mbpo)
    result = PAPER.run(config, Run.open(tmp_path, config))
    assert set(result["swimmer"]) == set(config.algorithms)
    measured = {v.key for v in PAPER.verdicts(result, "full") if v.measured is not None}
    assert measured == {"sample-efficiency", "asymptote"}
