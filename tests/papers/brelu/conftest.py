"""A finished run of a few steps, made once: all tasks, all peers."""

from typing import get_args

import pytest

from labkit.devices import one_thread
from labkit.papers import load
from labkit.papers.brelu.experiment.config import CONFIGS, Peer
from labkit.workbench.runs import Run

TINY = CONFIGS["smoke"].override(
    tasks=["superresolution", "artifacts", "classification", "mobilenet"], steps=12, artifact_steps=6, tune_steps=3,
    vrcnn_width=8, patches=64, artifact_patch_size=16, levels=[127, 31, 15], factors=[0.25, 1.0, 8.0],
    log_every=2, calibration_examples=32, peers=get_args(Peer),
    classification={"steps": 20, "tune_steps": 3, "train_examples": 320, "test_examples": 60, "levels": [127, 15, 3]},
)  # fmt: skip


@pytest.fixture(scope="session")
def finished(trained_once):
    """(config, run directory, result)."""
    with one_thread():
        run = Run.open(trained_once(load("brelu"), TINY, "tiny"), TINY)
    return TINY, run, run.result
