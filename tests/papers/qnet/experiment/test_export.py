import pytest
import torch

from labkit.errors import ConfigError, InputError
from labkit.papers.qnet import PAPER, load
from labkit.papers.qnet.experiment import data
from labkit.papers.qnet.experiment.export import arms, export
from labkit.papers.qnet.experiment.train import load_arm
from labkit.workbench.runs import Run
from labkit.workbench.training import Workers

ALONE = Workers(0, 1, torch.device("cpu"))
FEW = {"float_steps": 4, "steps": 3, "test_examples": 50, "calibration_examples": 251, "device": "cpu"}

pytestmark = pytest.mark.slow  # of what was trained


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """251 examples to re-estimate batch norm from: the last batch must not be a single image."""
    config = PAPER.config("smoke", arms=["W2", "A2-LSQ", "A1-XNOR", "W2A2"], **FEW)
    run = Run.open(tmp_path_factory.mktemp("run"), config)
    PAPER.run(config, run)
    return config, run


@pytest.mark.parametrize("arm", ["W2", "A2-LSQ", "W2A2"])
def test_what_was_trained_is_what_is_loaded(trained, tmp_path, arm):
    config, run = trained
    export(config, run, arm, tmp_path)
    task = data.load(config, ALONE)
    images = task.to_input(next(task.test_batches())[0])
    model, loaded = load_arm(arm, config, task, ALONE, run).eval(), load(tmp_path)
    same = torch.isclose(loaded(images), model(images), rtol=1e-4, atol=1e-5).all(1)
    assert same.double().mean() > 0.9  # rounding may carry an activation over a threshold (measured: all the same)
    assert torch.equal(load(tmp_path / "model.safetensors")(images), loaded(images))


def test_arms_best_first_and_only_those_with_a_packed_form(trained):
    config, run = trained
    there = arms(config, run)
    assert set(there) == {"W2", "A2-LSQ", "W2A2"}
    accuracies = [run.result[name]["hard"] for name in there]
    assert accuracies == sorted(accuracies, reverse=True)


def test_refusals(trained, tmp_path):
    config, run = trained
    with pytest.raises(InputError, match="there is no arm 'A1-XNOR' to export; there are"):
        export(config, run, "A1-XNOR", tmp_path)
    with pytest.raises(InputError, match="is not finished yet; go on with --resume, then export"):
        export(config, Run.open(tmp_path / "new", config), "W2", tmp_path)
    with pytest.raises(InputError, match="there is no file"):
        load(tmp_path / "nothing")
    for name in ("batch_size", "calibration_examples"):
        with pytest.raises(ConfigError, match=f"{name} .*greater than or equal to 2; got 1"):
            config.override(**{name: 1})
