"""Policy Optimization with Model-Based Uncertainty (Zhou, Li, Wang; arXiv 1911.12574): caution where models disagree.

Of the paper abstract and introduction are known to us; hyper-parameters are the official code's, the theory is derived
and checked here.
"""

from typing import TYPE_CHECKING

from labkit.lazy import lazily
from labkit.workbench.experiment import Paper

if TYPE_CHECKING:
    from labkit.papers.pombu.experiment.config import Config
    from labkit.papers.pombu.experiment.zone import Zone
    from labkit.papers.pombu.method.algorithm import POMBU, load
    from labkit.papers.pombu.method.ensemble import DynamicsEnsemble
    from labkit.papers.pombu.method.objective import conservative_loss, scale_uncertainty
    from labkit.papers.pombu.method.uncertainty import local_uncertainty, propagate

PAPER = Paper(
    room=__name__,
    title="Deep Model-Based Reinforcement Learning via Estimated Uncertainty and Conservative Policy Optimization",
    arxiv="1911.12574",
    venue="AAAI 2020",
    idea="Models disagree where they are wrong. Change the policy only where the gain is larger than the disagreement.",
    notebook="04_pombu",
)

__all__ = [
    "PAPER",
    "POMBU",
    "Config",
    "DynamicsEnsemble",
    "Zone",
    "conservative_loss",
    "load",
    "local_uncertainty",
    "propagate",
    "scale_uncertainty",
]

__getattr__, __dir__ = lazily(__name__)
