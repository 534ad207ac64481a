"""A run of the loop that is killed and goes on, on any device."""

from pathlib import Path
from typing import Any

import pytest
import torch

from labkit.papers.pombu.experiment.algorithms import learner_for, run_loop
from labkit.papers.pombu.experiment.config import Config
from labkit.papers.pombu.method.loop import Learner
from labkit.workbench.runs import Run


def killed_and_resumed(folder: Path, config: Config, device: torch.device) -> tuple[dict[str, Any], Run]:
    """POMBU on the pendulum, killed at the start of its third iteration; what the next process makes of the run."""
    original = Learner.begin

    def dying(learner: Learner, iteration: int) -> None:
        if iteration == 2:
            raise KeyboardInterrupt
        original(learner, iteration)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "begin", dying)
        killed = Run.open(folder, config, checkpoint_seconds=0.0)
        with pytest.raises(KeyboardInterrupt):
            run_loop(learner_for("pombu", "pendulum", config, device), killed)
    again = Run.open(folder, config)
    return run_loop(learner_for("pombu", "pendulum", config, device), again), again
