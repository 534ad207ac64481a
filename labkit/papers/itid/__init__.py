"""Independent and Task-Identically Distributed data (Zheng et al., arXiv 1911.12603): generalisation by invariance.

Of the paper only the abstract is known to us: theory and algorithm here are our own formulation, proved and checked.
"""

from labkit.experiment import Paper
from labkit.papers.itid.claims import CLAIMS
from labkit.papers.itid.config import CONFIGS, EXPERIMENTS, Config
from labkit.papers.itid.exercises import EXERCISES
from labkit.papers.itid.modifiers import Adaptive, Batch, Chain, Edit, Mixup, Resample, Swap, Uniform, Weight
from labkit.papers.itid.task import NuisanceLaw, Task, all_hypotheses, toy_task, zero_one
from labkit.papers.itid.train import train as train_arms  # the name `train` stays the module's

PAPER = Paper(
    slug="itid",
    title="A Generalization Theory based on Independent and Task-Identically Distributed Assumption",
    arxiv="1911.12603",
    venue="arXiv 2019",
    idea="A task says what may vary; networks that ignore it generalise. Change the data until they do.",
    notebook="05_itid",
    configs=CONFIGS,
    train=train_arms,
    claims=CLAIMS,
    exercises=EXERCISES,
)

__all__ = [
    "EXPERIMENTS",
    "PAPER",
    "Adaptive",
    "Batch",
    "Chain",
    "Config",
    "Edit",
    "Mixup",
    "NuisanceLaw",
    "Resample",
    "Swap",
    "Task",
    "Uniform",
    "Weight",
    "all_hypotheses",
    "toy_task",
    "zero_one",
]
