"""Independent and Task-Identically Distributed data (Zheng et al., arXiv 1911.12603): generalisation by invariance.

Of the paper only the abstract is known to us: theory and algorithm here are our own formulation, proved and checked.
"""

from typing import TYPE_CHECKING

from labkit.lazy import lazily
from labkit.workbench.experiment import Paper

if TYPE_CHECKING:
    from labkit.papers.itid.experiment.config import EXPERIMENTS, Config
    from labkit.papers.itid.method.modifiers import Adaptive, Batch, Chain, Edit, Mixup, Resample, Swap, Uniform, Weight
    from labkit.papers.itid.method.task import NuisanceLaw, Task, all_hypotheses, toy_task, zero_one

PAPER = Paper(
    room=__name__,
    title="A Generalization Theory based on Independent and Task-Identically Distributed Assumption",
    arxiv="1911.12603",
    venue="arXiv 2019",
    idea="A task says what may vary; networks that ignore it generalise. Change the data until they do.",
    notebook="05_itid",
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

__getattr__, __dir__ = lazily(__name__)
