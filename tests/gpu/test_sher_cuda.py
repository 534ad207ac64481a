"""The learners on a real GPU: captured updates are the ordinary ones, and the gpu scale starts."""

import pytest
import torch

from labkit.papers.sher.experiment import train as loop
from labkit.papers.sher.experiment.config import CONFIGS, Config
from labkit.workbench.runs import Run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

SMALL = Config(
    experiments=("reach",), arms=("SHER", "HER", "SHER-official"), replicas=2, cycles=3, updates=8, batch_size=32,
    test_episodes=5, evaluate_every=3, exact=False, device="cuda",
)  # fmt: skip


def weights(folder):
    from safetensors.torch import load_file

    return {path.parent.name: load_file(path) for path in sorted(folder.rglob("weights.safetensors"))}


def test_a_captured_update_is_the_ordinary_one(tmp_path):
    """Catches: a moment reset in every replay, random numbers frozen in the graph, a buffer length read once."""
    for captured in (True, False):
        config = SMALL.override(captured=captured)
        loop.train(config, Run.open(tmp_path / str(captured), config))
    first, second = (weights(tmp_path / name) for name in ("True", "False"))
    assert first.keys() == second.keys()
    for part, values in first.items():
        for name, value in values.items():
            torch.testing.assert_close(value, second[part][name], rtol=1e-3, atol=1e-4)


def test_the_gpu_learns_what_the_cpu_learns(tmp_path):
    """Random numbers differ between the devices, so only the outcome can be compared: 12 bits, with hindsight.

    On the CPU 20 seeds have .965 with a deviation of .033.
    """
    config = Config(
        experiments=("bits",), arms=("hindsight",), replicas=3, test_episodes=40, exact=False, device="cuda"
    )
    actual = loop.train(config, Run.open(tmp_path / "run", config))
    assert min(actual["bits"]["arms"]["hindsight"]["success"][""]) > 0.7


def test_the_gpu_scale_starts(tmp_path):
    config = CONFIGS["gpu"].override(cycles=2, episodes=4, test_episodes=4, updates=5, evaluate_every=2, device="cuda")
    actual = loop.train(config, Run.open(tmp_path / "run", config))
    assert set(actual["fetch-push"]["arms"]) == {"SHER", "HER"}
