"""The stack is its networks; many processes are one; a killed run ends as an undisturbed one; every scale starts."""

import json
from dataclasses import replace

import pytest
import torch
from killed import Killed, killed
from safetensors.torch import load_file

from labkit.errors import ConfigError, InputError
from labkit.papers.itid import PAPER
from labkit.papers.itid.experiment import data, loop, train
from labkit.papers.itid.experiment.config import CONFIGS, EXPERIMENTS, Arm, Config
from labkit.papers.itid.experiment.evaluate import measures_of, prediction_table
from labkit.papers.itid.experiment.jobs import Job, build_networks, make_jobs
from labkit.papers.itid.experiment.model import Single, Stack, build_network
from labkit.papers.itid.experiment.objectives import Penalized
from labkit.papers.itid.method.modifiers import Unchanged
from labkit.workbench import training
from labkit.workbench.runs import Run

SMALL = Config(
    experiments=("backgrounds",), replicas=2, steps=6, train_examples=120, test_examples=100, batch_size=24, probes=10
)
ALL_KINDS = ("ERM", "mixup", "IRM-1e4", "V-REx", "GroupDRO-group", "IE-weight", "IE-resample", "IE-adaptive", "IE-swap",
             "consistency")  # fmt: skip


def run_of(folder, config):
    return Run.open(folder, config)


def test_a_stack_is_its_networks():
    networks = [build_network("mlp", (3, 8, 8), 16, 10) for _ in range(4)]
    stack, images = Stack(networks), torch.rand(4, 7, 3, 8, 8)
    for k, network in enumerate(networks):
        torch.testing.assert_close(stack(images)[k], network(images[k]))
        assert float(stack.squared_norms()[k].detach()) == pytest.approx(
            sum(float(p.detach().square().sum()) for p in network.parameters())
        )
    torch.testing.assert_close(stack(images[1:3], slice(1, 3)), stack(images)[1:3])
    with pytest.raises(InputError, match="cannot be stacked"):
        Stack([build_network("resnet18", (3, 32, 32), 0, 10)])
    with pytest.raises(InputError, match="there is no network"):
        build_network("vit", (3, 8, 8), 16, 10)


@pytest.mark.slow
def test_training_the_stack_is_training_one_by_one(tmp_path):
    """Every kind of arm, Adam, L2, annealing: the same networks up to rounding."""
    config = SMALL.override(arms=ALL_KINDS, replicas=1, steps=12)
    experiment = replace(config.experiment("backgrounds"), anneal=5, l2=1e-3)
    scenes = [data.build(experiment, 3)]
    with training.workers("cpu") as workers:
        jobs = make_jobs(list(experiment.arms), experiment, scenes, config)
        stack = build_networks(jobs, experiment, config)
        loop.fit(stack, jobs, experiment, config, workers, run_of(tmp_path / "stack", config))
        alone = config.override(stacked=False)
        for k, job in enumerate(make_jobs(list(experiment.arms), experiment, scenes, config)):
            single = build_networks([job], experiment, alone)
            loop.fit(single, [job], experiment, alone, workers, run_of(tmp_path / job.arm, alone))
            pairs = [(v[k], single.network.get_parameter(n)) for n, v in zip(stack.names, stack.values, strict=True)]
            assert distance(*zip(*pairs, strict=True)) < 1e-2, job.arm  # 1e-5 over 20 seeds; arms are more than 1 apart


def trained(arm, folder, steps=15, **changes):
    config = Config(experiments=("backgrounds",), replicas=1, train_examples=200, test_examples=100, probes=0)
    experiment = replace(config.experiment("backgrounds"), arms={"arm": arm}, steps=steps, **changes)
    with training.workers("cpu") as workers:
        jobs = make_jobs(["arm"], experiment, [data.build(experiment, 0)], config)
        stack = build_networks(jobs, experiment, config)
        loop.fit(stack, jobs, experiment, config, workers, run_of(folder, config))
    return list(stack.values), stack


def distance(first, second):
    """Root of the sum of squares: Adam turns a rounding error of a vanishing gradient into a step of some weight."""
    return sum(float((a - b).detach().square().sum()) for a, b in zip(first, second, strict=True)) ** 0.5


@pytest.mark.slow
def test_penalties_of_strength_0_follow_erm(tmp_path):
    """Full batch: both environments have the same size. GroupDRO with eta 0 and equal groups, too."""
    erm, _ = trained(Arm(), tmp_path / "erm", batch=0)
    same = {kind: Arm(objective=kind, lam=0.0, anneal=0) for kind in ("irm", "irm-split", "vrex")}
    for name, arm in (same | {"dro": Arm(objective="dro-environment", eta=0.0)}).items():
        assert distance(erm, trained(arm, tmp_path / name, batch=0)[0]) < 1e-2  # rounding
    for name, arm in {"irm-100": Arm(objective="irm", lam=100.0, anneal=0), "swap": Arm("swap")}.items():
        assert distance(erm, trained(arm, tmp_path / name, batch=0)[0]) > 1  # 5.4 +- .2 and 4.8 +- .1 over 20 seeds


def test_a_large_penalty_needs_the_rescaling_or_a_fresh_optimiser(tmp_path):
    """Without either, Adam's moments from before the anneal step carry over and the step sizes differ."""
    rescaled, _ = trained(Arm(objective="irm", lam=1e4, anneal=8), tmp_path / "rescaled")
    fresh, _ = trained(Arm(objective="irm", lam=1e4, anneal=8, rescale=False), tmp_path / "fresh")
    assert distance(rescaled, fresh) > 0.1
    assert loop.needs_fresh_optimizer(Penalized("irm", 1e4, 8, rescale=False), 8)
    assert not loop.needs_fresh_optimizer(Penalized("irm", 1e4, 8), 8)


@pytest.mark.slow
def test_theorem_1_on_a_trained_network_and_its_certificate(smoke_run):
    run = smoke_run(PAPER)
    result = run.result
    arms = result["backgrounds"]["arms"]
    for actual in arms.values():
        assert abs(actual["aligned"] - actual["target"]) <= actual["iota"] + 1e-6
        assert actual["iota"] <= min(actual["tv_prediction"], actual["oscillation_times_tv"], actual["omega"]) + 1e-6
        assert actual["tv_prediction"] <= actual["delta"] + 1e-6
        assert 1 - actual["target"] <= actual["ceiling"]  # .19 +- .04 below it
    assert arms["ERM"]["delta"] > arms["IE-swap"]["delta"] + 0.2  # .82 +- .02 over 24 seeds
    assert result["coverage"]["50"]["iid_violations"] == 1.0
    assert PAPER.run(PAPER.config("smoke"), run) == result  # finished: read, not trained again


def test_oscillation_is_measured_on_test_data(tmp_path):
    """Omega of the training points' answers would be nearly nothing for an interpolating network."""
    _, stack = trained(Arm(), tmp_path, steps=60)
    experiment = replace(EXPERIMENTS["backgrounds"], train_examples=200, test_examples=100)
    scene = data.build(experiment, 0)
    job = Job("arm", 0, 0, scene, Unchanged())
    table = prediction_table(stack, [job])[0]
    assert table.shape == (100, 10)
    assert measures_of(table, scene)["omega"] > 0.5  # 1.00 in 24 seeds


# -- killed and resumed -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_and_resumed_ends_as_undisturbed(tmp_path):
    """Three times. GroupDRO's weights and IE-adaptive's probabilities are part of the state, like networks and Adam."""
    arms = ("ERM", "GroupDRO-group", "IE-adaptive", "IE-swap", "mixup")
    config = SMALL.override(arms=arms, steps=30, replicas=1)
    undisturbed = PAPER.run(config, run_of(tmp_path / "whole", config))
    for stop in (1, 2, 4):
        with killed(stop):
            PAPER.run(config, run_of(tmp_path / "run", config))
    assert not (tmp_path / "run" / "result.json").exists()
    assert PAPER.run(config, run_of(tmp_path / "run", config)) == undisturbed
    first, second = (load_file(tmp_path / name / "backgrounds" / "weights.safetensors") for name in ("whole", "run"))
    for name, value in first.items():
        assert torch.equal(value, second[name])
    steps = [line["step"] for line in run_of(tmp_path / "run", config).part("backgrounds").metrics()]
    assert steps == sorted(set(steps))


def test_killed_between_the_weights_and_the_result(tmp_path, monkeypatch):
    config = SMALL.override(arms=("ERM",), replicas=1)
    undisturbed = PAPER.run(config, run_of(tmp_path / "whole", config))

    def dying(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(train, "summarize", dying)
        with pytest.raises(Killed):
            PAPER.run(config, run_of(tmp_path / "run", config))
    assert PAPER.run(config, run_of(tmp_path / "run", config)) == undisturbed


# -- several processes ------------------------------------------------------------------------------------------------


@pytest.mark.shapes_unchecked
@pytest.mark.slow
def test_two_processes_train_what_one_trains(tmp_path):
    """Batches are shared, logits gathered: penalties and group weights stay exact."""
    arms = ("ERM", "IRM-1e2", "GroupDRO-group", "IE-swap", "consistency", "mixup")
    config = SMALL.override(arms=arms, steps=12, replicas=1)
    PAPER.run(config, run_of(tmp_path / "one", config))
    two = config.override(devices=2, device="cpu")
    PAPER.run(two, run_of(tmp_path / "two", two))
    first, second = (load_file(tmp_path / name / "backgrounds" / "weights.safetensors") for name in ("one", "two"))
    assert distance(first.values(), [second[name] for name in first]) < 1e-2  # rounding
    one, both = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two"))
    for arm, actual in one["backgrounds"]["arms"].items():
        assert both["backgrounds"]["arms"][arm]["target"] == pytest.approx(actual["target"], abs=0.05)


def test_a_batch_that_cannot_be_shared_says_so():
    with pytest.raises(InputError, match="must be a multiple of the 2 processes"):
        loop.forward(
            Single(torch.nn.Flatten()),
            [torch.zeros(3, 1, 2, 2)],
            slice(None),
            training.Workers(0, 2, torch.device("cpu")),
        )


# -- the other experiments, and what the config refuses ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["two-colours", "mild", "shifts-50"])
def test_every_lesson_experiment_starts(tmp_path, name):
    config = Config(experiments=(name,), replicas=1, steps=2, train_examples=60, test_examples=60, batch_size=20)
    result = PAPER.run(config, run_of(tmp_path, config))
    assert set(result[name]["arms"]) == set(EXPERIMENTS[name].arms)
    assert min(actual["slack"] for actual in result[name]["arms"].values()) > -1e-6
    if name == "two-colours":
        assert result[name]["arms"]["oracle"]["vary"] == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"experiments": ("cats",)}, "there is no experiment 'cats'"),
        ({"experiments": ("mild", "mild")}, "is named twice"),
        ({"experiments": (), "arms": ()}, "at least one experiment"),
        ({"arms": ("IE-magic",)}, "no experiment asked for has an arm 'IE-magic'"),
        ({"sweep": ("pacs",)}, "folder:PATH"),
        ({"sweep": ("folder:a", "folder:a")}, "named twice"),
        ({"image_size": 4}, "image_size"),
        ({"algorithms": ("SGD",)}, "there is no algorithm 'SGD'"),
        ({"replicas": 0}, "replicas"),
        ({"step": 5}, "did you mean steps"),
    ],
)
def test_config_answers_back(changes, words):
    with pytest.raises(ConfigError, match=words):
        CONFIGS["smoke"].override(**changes)


def test_too_many_examples_are_refused_before_training():
    with pytest.raises(InputError, match="must be at most 1797"):
        data.build(replace(EXPERIMENTS["backgrounds"], train_examples=1700), 0)
    with pytest.raises(InputError, match="there is no scene 'moon'"):
        data.build(replace(EXPERIMENTS["backgrounds"], scene="moon"), 0)


def test_single_behaves_like_a_stack_of_one():
    network = build_network("resnet18", (3, 32, 32), 0, 10)
    single = Single(network).eval()
    images = torch.rand(1, 2, 3, 32, 32)
    torch.testing.assert_close(single(images)[0], network(images[0]))
    assert single.squared_norms().shape == (1,)
    assert sum(p.numel() for p in network.parameters()) == 11_173_962  # ResNet-18 for CIFAR-10
