"""The stack of networks on a real GPU: what it trains is what the CPU trains, and the gpu scale's options work."""

import pytest
import torch

from labkit.papers.itid import PAPER
from labkit.papers.itid.experiment.config import Config
from labkit.workbench.runs import Run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

SMALL = Config(
    experiments=("backgrounds",), replicas=2, steps=20, train_examples=120, test_examples=100, batch_size=24, probes=10
)


def test_the_gpu_trains_what_the_cpu_trains(tmp_path):
    """Catches: a draw from the device's own generator, tensors left on the other side."""
    config = SMALL.override(arms=["ERM", "IE-swap"])
    results = [
        PAPER.train(c, Run.open(tmp_path / c.device, c)) for c in (config.override(device=d) for d in ("cpu", "cuda"))
    ]
    for arm in ("ERM", "IE-swap"):
        on_cpu, on_gpu = (result["backgrounds"]["arms"][arm]["target"] for result in results)
        assert on_gpu == pytest.approx(on_cpu, abs=0.05)


def test_bfloat16_and_one_by_one_training_start(tmp_path):
    for change in ({"bf16": True}, {"stacked": False}):
        config = SMALL.override(device="cuda", arms=["ERM", "IE-swap"], **change)
        result = PAPER.train(config, Run.open(tmp_path / next(iter(change)), config))
        assert 0 <= result["backgrounds"]["arms"]["IE-swap"]["target"] <= 1
