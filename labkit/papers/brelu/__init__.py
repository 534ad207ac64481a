"""Efficient integer-arithmetic-only convolutional networks with bounded ReLU (arXiv 2006.11735)."""

from labkit.experiment import Paper
from labkit.papers.brelu.bounded_relu import BoundedReLU
from labkit.papers.brelu.claims import CLAIMS
from labkit.papers.brelu.config import CONFIGS, Config
from labkit.papers.brelu.exercises import EXERCISES
from labkit.papers.brelu.integer import IntegerNetwork, snap, to_integer
from labkit.papers.brelu.model import from_resnet, vdsr, vrcnn
from labkit.papers.brelu.multiply_shift import mul_shift, mul_shift_ratio
from labkit.papers.brelu.network import calibrate, set_bounds
from labkit.papers.brelu.train import train as train_tasks  # the name `train` stays the module's
from labkit.papers.brelu.weights import quantize_layers

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
