"""Policy Optimization with Model-Based Uncertainty (Zhou, Li, Wang; arXiv 1911.12574): caution where models disagree.

Of the paper abstract and introduction are known to us; hyper-parameters are the official code's, the theory is derived
and checked here.
"""

from labkit.experiment import Paper
from labkit.papers.pombu.claims import CLAIMS
from labkit.papers.pombu.config import CONFIGS, Config
from labkit.papers.pombu.ensemble import DynamicsEnsemble
from labkit.papers.pombu.exercises import EXERCISES
from labkit.papers.pombu.objective import conservative_loss, scale_uncertainty
from labkit.papers.pombu.train import train as train_units  # the name `train` stays the module's
from labkit.papers.pombu.uncertainty import local_uncertainty, propagate
from labkit.papers.pombu.zone import Zone

PAPER = Paper(
    slug="pombu",
    title="Deep Model-Based Reinforcement Learning via Estimated Uncertainty and Conservative Policy Optimization",
    arxiv="1911.12574",
    venue="AAAI 2020",
    idea="Models disagree where they are wrong. Change the policy only where the gain is larger than the disagreement.",
    notebook="04_pombu",
    configs=CONFIGS,
    train=train_units,
    claims=CLAIMS,
    exercises=EXERCISES,
)

__all__ = [
    "PAPER",
    "Config",
    "DynamicsEnsemble",
    "Zone",
    "conservative_loss",
    "local_uncertainty",
    "propagate",
    "scale_uncertainty",
]
