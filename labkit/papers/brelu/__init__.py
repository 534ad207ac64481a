"""Efficient integer-arithmetic-only convolutional networks with bounded ReLU (arXiv 2006.11735)."""

from typing import TYPE_CHECKING

from labkit.lazy import lazily
from labkit.workbench.experiment import Paper

if TYPE_CHECKING:
    from labkit.papers.brelu.experiment.config import Config
    from labkit.papers.brelu.experiment.export import load
    from labkit.papers.brelu.experiment.model import vdsr, vrcnn
    from labkit.papers.brelu.method.bounded_relu import BoundedReLU
    from labkit.papers.brelu.method.convert import convert
    from labkit.papers.brelu.method.integer import IntegerNetwork, to_integer
    from labkit.papers.brelu.method.multiply_shift import mul_shift, mul_shift_ratio
    from labkit.papers.brelu.method.network import calibrate, set_bounds
    from labkit.papers.brelu.method.snap import InputScale, snap
    from labkit.papers.brelu.method.trace import trace
    from labkit.papers.brelu.method.weights import quantize_layers

PAPER = Paper(
    room=__name__,
    title="Efficient Integer-Arithmetic-Only Convolutional Neural Networks with Bounded ReLU",
    arxiv="2006.11735",
    venue="ISCAS 2021",
    idea="Networks of integers alone: clip every ReLU at a tuned bound, then multiply and shift.",
    notebook="02_brelu",
    needs={
        "gpu": ("T91", "Set5", "Set14", "BSD68", "cifar10"),
        "full": ("T91", "BSD200", "Set5", "Set14", "BSD68", "imagenet"),
    },
)

__all__ = [
    "PAPER",
    "BoundedReLU",
    "Config",
    "InputScale",
    "IntegerNetwork",
    "calibrate",
    "convert",
    "load",
    "mul_shift",
    "mul_shift_ratio",
    "quantize_layers",
    "set_bounds",
    "snap",
    "to_integer",
    "trace",
    "vdsr",
    "vrcnn",
]

__getattr__, __dir__ = lazily(__name__)
