"""Soft Hindsight Experience Replay (He, Zhuang et al., arXiv 2002.02089): HER with maximum-entropy learners.

Of the paper only the abstract is known to us; the method is the authors' released code, complete.
"""

from labkit.papers.sher.experiment.claims import CLAIMS
from labkit.papers.sher.experiment.config import CONFIGS, EXPERIMENTS, Arm, Config, Experiment
from labkit.papers.sher.experiment.train import train as train_arms  # the name `train` stays the module's
from labkit.papers.sher.teaching.exercises import EXERCISES
from labkit.workbench.experiment import Paper

PAPER = Paper(
    slug="sher",
    title="Soft Hindsight Experience Replay",
    arxiv="2002.02089",
    venue="arXiv 2020",
    idea="Relabel failures with the goals they reached, and let an entropy bonus do the exploring.",
    notebook="03_sher",
    configs=CONFIGS,
    train=train_arms,
    claims=CLAIMS,
    exercises=EXERCISES,
)

__all__ = ["EXPERIMENTS", "PAPER", "Arm", "Config", "Experiment"]
