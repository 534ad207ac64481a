"""Quantization Networks (Yang et al., CVPR 2019, arXiv 1911.09464): quantisation as a function that is trained."""

from typing import TYPE_CHECKING

from labkit.lazy import lazily
from labkit.workbench.experiment import Paper

if TYPE_CHECKING:
    from labkit.papers.qnet.experiment.config import ARMS, Config
    from labkit.papers.qnet.experiment.export import load
    from labkit.papers.qnet.experiment.fit import fit
    from labkit.papers.qnet.experiment.model import build_model
    from labkit.papers.qnet.method.batch_norm import reestimate_batch_norm
    from labkit.papers.qnet.method.levels import LEVELS, level_set
    from labkit.papers.qnet.method.onnx import export_onnx
    from labkit.papers.qnet.method.packed_file import save
    from labkit.papers.qnet.method.packing import pack
    from labkit.papers.qnet.method.quantize import placement, quantize
    from labkit.papers.qnet.method.soft_quantizer import (
        SoftQuantizer,
        forward_mode,
        hard_quantize,
        quantizer_parameters,
        set_temperature,
        soft_quantize,
    )
    from labkit.papers.qnet.method.thresholds import kmeans_thresholds
    from labkit.papers.qnet.method.weights import quantize_weights

PAPER = Paper(
    room=__name__,
    title="Quantization Networks",
    arxiv="1911.09464",
    venue="CVPR 2019",
    idea="Quantisation as a sum of sigmoids that sharpens into a staircase while the network trains.",
    notebook="01_qnet",
    needs={"gpu": ("cifar10",), "full": ("imagenet",)},
)

__all__ = [
    "ARMS",
    "LEVELS",
    "PAPER",
    "Config",
    "SoftQuantizer",
    "build_model",
    "export_onnx",
    "fit",
    "forward_mode",
    "hard_quantize",
    "kmeans_thresholds",
    "level_set",
    "load",
    "pack",
    "placement",
    "quantize",
    "quantize_weights",
    "quantizer_parameters",
    "reestimate_batch_norm",
    "save",
    "set_temperature",
    "soft_quantize",
]

__getattr__, __dir__ = lazily(__name__)
