"""Other ways to 8 bits and fewer, simulated in float: gemmlowp, TensorRT, DoReFa, LSQ.

Each changes the layers and bounded ReLUs of a copy of the float network; what they share with the paper's way (folded
batch norm, the same batches and budget) is the same code.
"""

import copy
import math
from collections.abc import Collection, Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit.papers.brelu.method.bounded_relu import BoundedReLU, set_rounding
from labkit.papers.brelu.method.bounds import Statistics
from labkit.papers.brelu.method.network import Network, set_bounds
from labkit.papers.brelu.method.weights import layers, quantize_layers
from labkit.vision.quantizers import dorefa_weights, learned_step


def gemmlowp(network: Network, statistics: Statistics) -> Network:
    """Jacob et al., CVPR 2018: uint8 with a zero-point for weights, 255 steps up to the largest value seen.

    After a ReLU the zero-point of an activation is 0, so what is asymmetric here are the weights.
    """
    network = copy.deepcopy(network)
    quantize_layers(network)
    for layer in layers(network).values():
        layer.method = asymmetric
    set_bounds(network, statistics, "max", 127)
    set_rounding(network, True, 255)
    return network


def tensorrt(network: Network, statistics: Statistics, levels: int = 127) -> Network:
    """TensorRT's post-training calibration: one weight step per channel, bounds by relative entropy, no training."""
    network = copy.deepcopy(network)
    quantize_layers(network, per_channel=True)
    set_bounds(network, statistics, "kl", levels)
    set_rounding(network, True, levels)
    return network


def untrained(
    names: Collection[str], network: Network, statistics: Statistics, levels: Iterable[int]
) -> dict[str, Network]:
    """Those of gemmlowp (255 levels) and TensorRT (at all of `levels`) that are asked for, by name and levels."""
    peers = {"gemmlowp 255": gemmlowp(network, statistics)} if "gemmlowp" in names else {}
    if "TensorRT" in names:
        peers |= {f"TensorRT {count}": tensorrt(network, statistics, count) for count in levels}
    return peers


def asymmetric(weight: Float[Tensor, "*shape"], bits: int = 8) -> Tensor:
    """W ~ scale (q - zero), q in 0..2^bits - 1, the range widened to hold 0 and nudged so that 0 is a code."""
    top = 2**bits - 1
    fixed = weight.detach()
    low, high = min(float(fixed.min()), 0.0), max(float(fixed.max()), 0.0)
    scale = (high - low) / top
    zero = round(-low / scale)
    q = torch.clamp(torch.round(fixed / scale) + zero, 0, top)
    return weight + ((q - zero) * scale - fixed)


def dorefa(network: Network, statistics: Statistics, levels: int, bits: int) -> Network:
    """Zhou et al. 2016: weights by a tanh, activations rounded while training; bounds at the largest value seen."""
    network = copy.deepcopy(network)
    quantize_layers(network, bits)
    for layer in layers(network).values():
        layer.method = dorefa_in_range
    set_bounds(network, statistics, "max", levels)
    set_rounding(network, True, levels)
    return network


def dorefa_in_range(weight: Float[Tensor, "*shape"], bits: int) -> Tensor:
    """DoReFa gives weights in -1..1; max |W| puts them back where a network trained in float expects them [ours]."""
    return weight.detach().abs().max() * dorefa_weights(weight, bits)


def lsq(network: Network, statistics: Statistics, levels: int) -> Network:
    """Esser et al., ICLR 2020: rounding in training, and the steps of weights and activations are learnt."""
    network = copy.deepcopy(network)
    quantize_layers(network)
    set_bounds(network, statistics, "3.5sigma", levels)
    for layer in layers(network).values():
        layer.method = LearnedSteps(layer.folded()[0].detach())
    for name, relu in list(network.parts.items()):
        if isinstance(relu, BoundedReLU) and math.isfinite(float(relu.bound)):
            network.parts[name] = LearnedStepReLU(float(relu.bound), levels)
    return network


class LearnedSteps(nn.Module):
    """LSQ for weights: s starts at 2 mean|W| / sqrt(127)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.step = nn.Parameter(2 * weight.abs().mean() / math.sqrt(127))

    def forward(self, weight: Float[Tensor, "*shape"], bits: int = 8) -> Tensor:
        top = 2 ** (bits - 1)
        return learned_step(weight, self.step, -top, top - 1, features=weight.numel())


class LearnedStepReLU(BoundedReLU):
    """LSQ for activations: B / levels is a parameter; rounding is always on."""

    def __init__(self, bound: float, levels: int) -> None:
        super().__init__(bound, levels)
        self.step = nn.Parameter(torch.tensor(bound / levels))

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return self.clip(x)

    def clip(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return learned_step(x, self.step, 0, self.levels, features=x[0].numel())

    def round(self, y: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return y


def learn_bounds(network: Network) -> list[nn.Parameter]:
    """PACT (Choi et al. 2018): turn every finite bound into a parameter, and give them for an optimiser."""
    learnt = []
    for relu in network.modules():
        if isinstance(relu, BoundedReLU) and math.isfinite(float(relu.bound)):
            value = relu.bound.clone()
            del relu.bound
            relu.bound = nn.Parameter(value)
            learnt.append(relu.bound)
    return learnt
