"""What the notebook asks of a run besides its tables: trained networks, and one pixel's way through the integers."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError
from labkit.kernels.int8_conv import requantize
from labkit.papers.brelu.experiment.config import Config
from labkit.papers.brelu.experiment.data import INPUT_RATIO, Pair, superresolution
from labkit.papers.brelu.experiment.evaluate import residual_of, restored
from labkit.papers.brelu.experiment.regression import RULE, Study, snap_pictures
from labkit.papers.brelu.method.bounded_relu import BoundedReLU, set_rounding
from labkit.papers.brelu.method.bounds import Statistics
from labkit.papers.brelu.method.integer import IntegerNetwork, to_integer
from labkit.papers.brelu.method.network import Network
from labkit.papers.brelu.method.snap import Scales
from labkit.papers.brelu.method.weights import Layer
from labkit.workbench import training
from labkit.workbench.runs import Run


@dataclass(frozen=True, eq=False)
class SuperResolution:
    """The super-resolution networks of a finished run, and what shows them.

    picture: a piece of a test picture, (bicubic, original).
    """

    network: Network
    statistics: Statistics
    tuned: Network
    scales: Scales
    integer: IntegerNetwork
    picture: Pair


def open_superresolution(config: Config, run: Run, side: int = 96) -> SuperResolution:
    """Load what a finished run trained; nothing is trained here.

    Raises:
        InputError: the run has no super-resolution in it.
    """
    if "superresolution" not in config.tasks:
        raise InputError("this run trained no super-resolution; add it to the config's tasks.")
    with training.workers("cpu") as workers:
        study = Study.open("superresolution", config, superresolution(config, workers), run)
        tuned = study.tuned(RULE)
    scales = snap_pictures(tuned, 127)
    pairs, _ = study.pictures.tests[study.pictures.first_test]
    piece = _busiest(pairs, side)
    return SuperResolution(study.network, study.statistics, tuned, scales, to_integer(tuned, scales), piece)


def _busiest(pairs: list[Pair], side: int) -> Pair:
    """The piece, among a grid of them, that bicubic gets most wrong: edges, where networks have something to do."""
    largest, busiest = -1.0, pairs[0]
    for picture, original in pairs:
        for top in range(0, picture.shape[0] - side + 1, side // 2):
            for left in range(0, picture.shape[1] - side + 1, side // 2):
                piece = (slice(top, top + side), slice(left, left + side))
                error = float((picture[piece] - original[piece]).square().mean())
                if error > largest:
                    largest, busiest = error, (picture[piece], original[piece])
    return busiest


@torch.no_grad()
def follow_pixel(shown: SuperResolution, row: int, column: int, layers: int = 3) -> list[dict[str, Any]]:
    """One output value of each of the first layers: every integer, and the real number that it stands for.

    Of each layer the channel with the largest sum at that pixel is followed.

    Returns:
        A line per step: "layer", "step", "integer", "ratio" (integers per unit), "stands for", "float network has".

    Raises:
        InputError: the pixel lies outside of the picture.
    """
    picture, _ = shown.picture
    h, w = picture.shape
    if not (0 <= row < h and 0 <= column < w):
        raise InputError(f"the picture has rows 0..{h - 1} and columns 0..{w - 1}; got {row}, {column}.")
    top, left = max(0, row - layers), max(0, column - layers)  # nothing further away can reach the pixel
    piece = picture[top : row + layers + 1, left : column + layers + 1]
    codes = shown.integer.to_codes((piece - 128) / INPUT_RATIO)[None, None]
    row, column = row - top, column - left
    real = codes.float() / INPUT_RATIO
    lines = [_line("input", "pixel - 128", int(codes[0, 0, row, column]), INPUT_RATIO, real[0, 0, row, column])]
    for node in [node for node in shown.tuned.nodes if node.operation == "layer"][:layers]:
        relu = shown.tuned.consumers(node.name)[0].name
        layer, clip = shown.tuned.parts[node.name], shown.tuned.parts[relu]
        assert isinstance(layer, Layer)
        assert isinstance(clip, BoundedReLU)
        weight, bias = (getattr(shown.integer, f"{node.name}_{kind}").long() for kind in ("weight", "bias"))
        sums = torch.nn.functional.conv2d(codes.long(), weight, padding=1)
        channel = int((sums[0, :, row, column] + bias).argmax())
        value = layer(real)
        real, at = clip.clip(value), (0, channel, row, column)
        integers = (int(sums[at]), int(bias[channel]))
        reals = (float(value[at]), float(layer.folded()[1][channel]), float(real[at]))
        lines += _steps(shown.scales, f"{node.name}, channel {channel}", (node.name, relu), integers, reals)
        codes = requantize((sums + bias[:, None, None]).int(), shown.scales.requantizers[relu])
    return lines


def _steps(
    scales: Scales, name: str, nodes: tuple[str, str], integers: tuple[int, int], reals: tuple[float, float, float]
) -> list[dict[str, Any]]:
    """Sum, bias, clip, multiply, shift of one value. reals: with bias, the bias, and clipped."""
    (layer, relu), (u, bias), (value, real_bias, after) = nodes, integers, reals
    ratio, requantizer = scales.sums[layer], scales.requantizers[relu]
    clipped, half = min(max(u + bias, 0), requantizer.u_max), (1 << requantizer.shift) // 2
    product = clipped * requantizer.mul + half
    return [
        _line(name, "sum of weight x code", u, ratio, value - real_bias),
        _line(name, f"+ bias {bias}", u + bias, ratio, value),
        _line(name, f"clip to 0..{requantizer.u_max}", clipped, ratio, after),
        _line(name, f"x {requantizer.mul} + {half}", product, ratio * requantizer.mul, None),
        _line(name, f">> {requantizer.shift}", product >> requantizer.shift, scales.codes[relu], after),
    ]


def _line(layer: str, step: str, integer: int, ratio: float, real: Tensor | float | None) -> dict[str, Any]:
    return {"layer": layer, "step": step, "integer": integer, "ratio": ratio, "stands for": integer / ratio,
            "float network has": None if real is None else float(real)}  # fmt: skip


@torch.no_grad()
def restored_at(network: Network, picture: Float[Tensor, "h w"], levels: int | None) -> Float[Tensor, "h w"]:
    """The picture after the network, at so many levels; None leaves activations unrounded."""
    set_rounding(network, levels is not None, levels)
    output = restored(picture, residual_of(network, torch.device("cpu")))
    set_rounding(network, False)
    return output
