"""Weights in 8 bits: symmetric, one step per layer, taken on the weights with batch normalisation folded in.

    W' = W gamma / sqrt(var + eps),   b' = beta - mean gamma / sqrt(var + eps)
    s  = max(max(W') / 127, |min(W')| / 128),   w = clip(round(W' / s), -128, 127)          [official code]

Seen from W this is one step per channel, s_c = s sqrt(var_c + eps) / gamma_c: batch norm makes it per channel for free.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import InputError


def weight_step(weight: Float[Tensor, "*shape"], bits: int = 8) -> float:
    """s = max(max(W) / (2^(bits-1) - 1), |min(W)| / 2^(bits-1)): the finest step that loses neither end.

    Raises:
        InputError: all weights are zero, or one of them is not finite.
    """
    if not 2 <= bits <= 8:
        raise InputError(f"weights have 2 to 8 bits; got {bits}.")
    top = 2 ** (bits - 1)
    step = max(float(weight.max()) / (top - 1), -float(weight.min()) / top)
    if not 0 < step < float("inf"):
        raise InputError(
            f"no step fits these weights: they are all zero or not finite (largest {float(weight.max())})."
        )
    return step


def weight_codes(weight: Float[Tensor, "*shape"], step: float | Tensor, bits: int = 8) -> Float[Tensor, "*shape"]:
    """w = clip(round(W / s), -2^(bits-1), 2^(bits-1) - 1), as whole numbers in the dtype of the weights."""
    top = 2 ** (bits - 1)
    return torch.round(weight / step).clamp(-top, top - 1)


def quantize_straight_through(weight: Float[Tensor, "*shape"], step: float | Tensor, bits: int = 8) -> Tensor:
    """The quantised weight forward, the identity backward: gradients move the float weight behind it.

    The paper's loop keeps a float shadow Wf, lets the optimiser step from Wq to Wn, and adds Wn - Wq to Wf [official
    code]. That is this function with Wf as the parameter, for every optimiser whose step depends on gradients alone;
    weight decay then acts on Wf where the loop lets it act on Wq, half a step apart at most.
    """
    quantized = weight_codes(weight.detach(), step, bits) * step
    return weight + (quantized.to(weight.dtype) - weight.detach())


class Layer(nn.Module):
    """A convolution with the batch normalisation behind it folded in, its weights quantised once a step is set.

    Batch norm is frozen: running statistics and gamma stay, beta is trained as the bias.  [official code]

    Args:
        conv: its groups and dilation are 1.
        norm: what follows it; None where nothing does.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None = None) -> None:
        super().__init__()
        if conv.groups != 1 or conv.dilation != (1, 1) or conv.stride[0] != conv.stride[1]:
            raise InputError(f"integer convolutions here have groups 1, dilation 1 and square strides; got {conv}.")
        self.conv, self.norm = conv, norm
        self.step, self.bits = 0.0, 8  # a step of 0: float weights
        self.per_channel = False
        self.method: Callable[..., Tensor] | None = None  # another way to quantise the weights, for comparison
        if norm is not None:
            norm.eval().weight.requires_grad_(False)

    def train(self, mode: bool = True) -> "Layer":
        super().train(mode)
        if self.norm is not None:
            self.norm.eval()
        return self

    def folded(self) -> tuple[Float[Tensor, "o c kh kw"], Float[Tensor, " o"]]:
        """W' and b': the layer without batch norm, still in floating point."""
        weight, bias = self.conv.weight, self.conv.bias
        if bias is None:
            bias = weight.new_zeros(len(weight))
        if self.norm is None:
            return weight, bias
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None and variance is not None  # noqa: PT018
        factor = self.norm.weight.detach() / torch.sqrt(variance + self.norm.eps)
        return weight * factor[:, None, None, None], self.norm.bias + (bias - mean) * factor

    def used(self) -> tuple[Float[Tensor, "o c kh kw"], Float[Tensor, " o"]]:
        """The weights the network computes with: W' on its grid where a step is set."""
        weight, bias = self.folded()
        if self.method is not None:
            return self.method(weight, self.bits), bias
        if self.per_channel:
            tops = torch.stack([weight.amax((1, 2, 3)) / (2 ** (self.bits - 1) - 1),
                                -weight.amin((1, 2, 3)) / 2 ** (self.bits - 1)])  # fmt: skip
            steps = tops.amax(0).clamp(min=1e-12).detach()[:, None, None, None]
            return quantize_straight_through(weight, steps, self.bits), bias
        return (quantize_straight_through(weight, self.step, self.bits) if self.step else weight), bias

    def codes(self) -> Float[Tensor, "o c kh kw"]:
        """w, whole numbers of int8."""
        if not self.step:
            raise InputError("this layer has no step yet: call `quantize_layers` first.")
        return weight_codes(self.folded()[0].detach().double(), self.step, self.bits)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o h2 w2"]:
        weight, bias = self.used()
        return F.conv2d(x, weight, bias, self.conv.stride, self.conv.padding)


def layers(model: nn.Module) -> dict[str, Layer]:
    """Every weighted layer of a model by name, in the order in which they compute."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Layer)}


def quantize_layers(model: nn.Module, bits: int = 8, per_channel: bool = False) -> None:
    """Set the step of every layer from its weights. The steps then stay as they are through fine-tuning.

    per_channel: one step for each output channel instead, for comparison; such a network has no integer form here.
    """
    for layer in layers(model).values():
        layer.bits, layer.per_channel = bits, per_channel
        layer.step = weight_step(layer.folded()[0].detach(), bits)
