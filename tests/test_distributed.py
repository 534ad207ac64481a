"""Two processes on one machine compute what one does, write once, and hand over to each other."""

import json
import os
from pathlib import Path

import pytest
import together
import torch
from safetensors.torch import load_file
from toy_paper import PAPER, ToyConfig

from labkit.workbench.runs import Run

pytestmark = pytest.mark.slow  # each starts processes
FIELDS = {"precision": "float64", "steps": 20}
WORDS = ("train", "toy", "--scale", "smoke", "-p", "precision", "float64", "-p", "steps", "20", "--device", "cpu")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run in one process."""
    directory = tmp_path_factory.mktemp("alone") / "run"
    config = ToyConfig(**FIELDS)
    PAPER.run(config, Run.open(directory, config))
    return directory


def assert_same_training(directory: Path, alone: Path) -> None:
    """The same loss curve and weights up to the order of additions; every step logged once."""
    for arm in ("plain", "noisy"):
        actual, wanted = (
            [json.loads(line) for line in (folder / arm / "metrics.jsonl").read_text().splitlines()]
            for folder in (directory, alone)
        )
        assert [line["step"] for line in actual] == [line["step"] for line in wanted]
        assert [line["loss"] for line in actual] == pytest.approx([line["loss"] for line in wanted], rel=1e-9)
        weights, expected = (load_file(folder / arm / "weights.safetensors") for folder in (directory, alone))
        torch.testing.assert_close(weights, expected, rtol=1e-9, atol=1e-12)
    actual, wanted = (json.loads((folder / "result.json").read_text()) for folder in (directory, alone))
    assert actual["plain"] == pytest.approx(wanted["plain"], rel=1e-9)


def test_batch_normalisation_over_two_processes_is_that_over_the_whole_batch():
    """Forward, backward and running statistics; every kind of input and every option a room may use."""
    call = together.run(Path(__file__).with_name("two_processes.py"), (), os.environ, processes=2)
    assert call.returncode == 0, call.stderr
    assert call.stdout.count("same: ") == 3 * 4 + 1
    assert "refused: batch normalisation needs more than one value a channel" in call.stdout
    assert "refused: batch_size 15 must be a multiple of the 2 processes that share it." in call.stdout


def test_two_processes_give_the_loss_curve_of_one_and_only_the_first_writes(labkit, tmp_path, alone):
    """Catches: local batch statistics, summed instead of averaged gradients, two writers."""
    call = labkit(*WORDS, "--run-dir", str(tmp_path / "run"), processes=2, tensorboard=1)
    assert call.returncode == 0, call.stderr
    assert_same_training(tmp_path / "run", alone)
    assert call.stdout.count(" learns ") == 1
    assert len(list((tmp_path / "run" / "plain").glob("events.*"))) == 1


def test_two_processes_killed_one_goes_on(labkit, tmp_path, alone):
    call = labkit(*WORDS, "--run-dir", str(tmp_path / "run"), processes=2, fault="step:28", seconds=0)
    assert call.returncode != 0
    assert (tmp_path / "run" / "plain" / "result.json").exists()
    config = ToyConfig(**FIELDS)
    run = Run.open(tmp_path / "run", config)
    assert not run.result
    PAPER.run(config, run)
    assert_same_training(tmp_path / "run", alone)


def test_one_process_killed_two_go_on_that_it_starts_itself(labkit, tmp_path, alone, stop_at):
    """`-p devices 2` starts torchrun, really; the number of processes is no part of a run's identity."""
    stop_at(tmp_path / "run", 8, ToyConfig(**FIELDS))
    call = labkit(*WORDS, "-p", "devices", "2", "--run-dir", str(tmp_path / "run"), "--resume")
    assert call.returncode == 0, call.stderr
    assert_same_training(tmp_path / "run", alone)
    assert call.stdout.count(" learns ") == 1
