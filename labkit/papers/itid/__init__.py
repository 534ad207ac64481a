"""Independent and Task-Identically Distributed data (Zheng et al., arXiv 1911.12603): generalisation by invariance.

Of the paper only the abstract is known to us: theory and algorithm here are our own formulation, proved and checked.
"""

from labkit.papers.itid.experiment.claims import CLAIMS
from labkit.papers.itid.experiment.config import CONFIGS, EXPERIMENTS, Config
from labkit.papers.itid.experiment.train import train as train_arms  # the name `train` stays the module's
from labkit.papers.itid.method.batch import Batch
from labkit.papers.itid.method.modifiers import Adaptive, Chain, Edit, Mixup, Resample, Swap, Uniform, Weight
from labkit.papers.itid.method.task import NuisanceLaw, Task, all_hypotheses, toy_task, zero_one
from labkit.papers.itid.teaching.exercises import EXERCISES
from labkit.workbench.experiment import Paper

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
