"""Soft Hindsight Experience Replay (He, Zhuang et al., arXiv 2002.02089): HER with maximum-entropy learners.

Of the paper only the abstract is known to us; the method is the authors' released code, complete.
"""

from typing import TYPE_CHECKING

from labkit.lazy import lazily
from labkit.workbench.experiment import Paper

if TYPE_CHECKING:
    from labkit.papers.sher.experiment.algorithm import HER, SAC, SHER, load
    from labkit.papers.sher.experiment.config import EXPERIMENTS, Arm, Config, Experiment

PAPER = Paper(
    room=__name__,
    title="Soft Hindsight Experience Replay",
    arxiv="2002.02089",
    venue="arXiv 2020",
    idea="Relabel failures with the goals they reached, and let an entropy bonus do the exploring.",
    notebook="03_sher",
)

__all__ = ["EXPERIMENTS", "HER", "PAPER", "SAC", "SHER", "Arm", "Config", "Experiment", "load"]

__getattr__, __dir__ = lazily(__name__)
