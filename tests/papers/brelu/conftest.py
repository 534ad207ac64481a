"""A finished run of a few steps, made once: super-resolution, artifact reduction and classification."""

import pytest
import torch

from labkit.papers import load
from labkit.papers.brelu.experiment.config import CONFIGS
from labkit.workbench.runs import Run

TINY = CONFIGS["smoke"].override(
    tasks=["superresolution", "artifacts", "classification"], steps=12, artifact_steps=6, tune_steps=3, class_steps=20,
    class_tune_steps=3, vrcnn_width=8, patches=64, artifact_patch_size=16, test_examples=60, factors=[0.25, 1.0, 8.0],
    peers=True, log_every=2, calibration_examples=32, train_examples=320,
)  # fmt: skip


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """(config, run directory, result)."""
    torch.set_num_threads(1)
    config, directory = TINY, tmp_path_factory.mktemp("brelu") / "run"
    run = Run.open(directory, config)
    return config, run, load("brelu").run(config, run)
