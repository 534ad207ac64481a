"""Independent and Task-Identically Distributed data (Zheng et al., arXiv 1911.12603): generalisation by invariance.

Of the paper only the abstract is known to us: theory and algorithm here are our own formulation, proved and checked.
"""

from typing import TYPE_CHECKING

from labkit.lazy import lazily
from labkit.workbench.experiment import Paper

if TYPE_CHECKING:
    from labkit.papers.itid.experiment.config import EXPERIMENTS, Config
    from labkit.papers.itid.experiment.export import Classifier, load
    from labkit.papers.itid.method.batch import Batch
    from labkit.papers.itid.method.edits import EditTransform
    from labkit.papers.itid.method.loading import BatchModifier
    from labkit.papers.itid.method.modifiers import (
        Adaptive,
        Chain,
        Edit,
        InterdomainMixup,
        Mixup,
        Neutral,
        Paired,
        Resample,
        Swap,
        Uniform,
        Weight,
        balancing_probabilities,
    )
    from labkit.papers.itid.method.renderers import Backgrounds, Borders, Cutouts
    from labkit.papers.itid.method.task import NuisanceLaw, Task, all_hypotheses, toy_task, zero_one

PAPER = Paper(
    room=__name__,
    title="A Generalization Theory based on Independent and Task-Identically Distributed Assumption",
    arxiv="1911.12603",
    venue="arXiv 2019",
    idea="A task says what may vary; networks that ignore it generalise. Change the data until they do.",
    notebook="05_itid",
    needs={"gpu": ("mnist", "cifar10"), "full": ("mnist", "cifar10")},
)

__all__ = [
    "EXPERIMENTS",
    "PAPER",
    "Adaptive",
    "Backgrounds",
    "Batch",
    "BatchModifier",
    "Borders",
    "Chain",
    "Classifier",
    "Config",
    "Cutouts",
    "Edit",
    "EditTransform",
    "InterdomainMixup",
    "Mixup",
    "Neutral",
    "NuisanceLaw",
    "Paired",
    "Resample",
    "Swap",
    "Task",
    "Uniform",
    "Weight",
    "all_hypotheses",
    "balancing_probabilities",
    "load",
    "toy_task",
    "zero_one",
]

__getattr__, __dir__ = lazily(__name__)
