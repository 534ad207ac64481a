"""Efficient integer-arithmetic-only convolutional networks with bounded ReLU (arXiv 2006.11735)."""

from labkit.papers.brelu.experiment.claims import CLAIMS
from labkit.papers.brelu.experiment.config import CONFIGS, Config
from labkit.papers.brelu.experiment.model import from_resnet, vdsr, vrcnn
from labkit.papers.brelu.experiment.train import train as train_tasks  # the name `train` stays the module's
from labkit.papers.brelu.method.bounded_relu import BoundedReLU
from labkit.papers.brelu.method.integer import IntegerNetwork, to_integer
from labkit.papers.brelu.method.multiply_shift import mul_shift, mul_shift_ratio
from labkit.papers.brelu.method.network import calibrate, set_bounds
from labkit.papers.brelu.method.snap import snap
from labkit.papers.brelu.method.weights import quantize_layers
from labkit.papers.brelu.teaching.exercises import EXERCISES
from labkit.workbench.experiment import Paper

PAPER = Paper(
    slug="brelu",
    title="Efficient Integer-Arithmetic-Only Convolutional Neural Networks with Bounded ReLU",
    arxiv="2006.11735",
    venue="ISCAS 2021",
    idea="Networks of integers alone: clip every ReLU at a tuned bound, then multiply and shift.",
    notebook="02_brelu",
    configs=CONFIGS,
    train=train_tasks,
    claims=CLAIMS,
    exercises=EXERCISES,
)

__all__ = [
    "PAPER",
    "BoundedReLU",
    "Config",
    "IntegerNetwork",
    "calibrate",
    "from_resnet",
    "mul_shift",
    "mul_shift_ratio",
    "quantize_layers",
    "set_bounds",
    "snap",
    "to_integer",
    "train_tasks",
    "vdsr",
    "vrcnn",
]
