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
from labkit.kernels.int8_conv import Geometry

Norm = nn.BatchNorm1d | nn.BatchNorm2d


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
    """A convolution or linear layer with the batch normalisation behind it folded in, quantised once a step is set.

    Batch norm is frozen: running statistics and gamma stay, beta is trained as the bias.  [official code]
    A linear layer is a 1x1 convolution of (n, c, 1, 1).

    Args:
        conv: padded with zeros; other modes take a node of their own before it (`trace` puts one there).
        norm: what follows it; None where nothing does.
        padded: such a node pads for it.

    Raises:
        InputError: a padding mode other than zeros; batch norm without running statistics.
    """

    step: Tensor

    def __init__(self, conv: nn.Conv2d | nn.Linear, norm: Norm | None = None, padded: bool = False) -> None:
        super().__init__()
        self.conv, self.norm = conv, norm
        self.geometry = Geometry()
        if isinstance(conv, nn.Conv2d):
            own = zero_padding(conv)
            if own is None and not padded:
                raise InputError(f"{conv} does not pad with the same zeros on either side; `trace` pads with a node.")
            padding = (0, 0) if padded or own is None else own
            self.geometry = Geometry(pair(conv.stride), padding, pair(conv.dilation), conv.groups)
        self.register_buffer("step", torch.zeros((), dtype=torch.float64))  # 0: float weights
        self.bits = 8
        self.per_channel = False
        self.method: Callable[..., Tensor] | None = None  # another way to quantise the weights, for comparison
        if norm is not None:
            if norm.running_mean is None:
                raise InputError(f"{norm} has no running statistics; its numbers would change with every batch.")
            norm.eval()
            if norm.affine:
                norm.weight.requires_grad_(False)

    def train(self, mode: bool = True) -> "Layer":
        super().train(mode)
        if self.norm is not None:
            self.norm.eval()
        return self

    def folded(self) -> tuple[Float[Tensor, "o c kh kw"], Float[Tensor, " o"]]:
        """W' and b': the layer without batch norm, still in floating point."""
        weight, bias = self.conv.weight, self.conv.bias
        weight = weight[:, :, None, None] if weight.dim() == 2 else weight
        if bias is None:
            bias = weight.new_zeros(len(weight))
        if self.norm is None:
            return weight, bias
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None and variance is not None  # noqa: PT018
        factor = 1 / torch.sqrt(variance + self.norm.eps)
        if not self.norm.affine:
            return weight * factor[:, None, None, None], (bias - mean) * factor
        factor = self.norm.weight.detach() * factor
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
        step = float(self.step)
        return (quantize_straight_through(weight, step, self.bits) if step else weight), bias

    def codes(self) -> Float[Tensor, "o c kh kw"]:
        """w, whole numbers of int8."""
        if not self.step:
            raise InputError("this layer has no step yet: call `quantize_layers` first.")
        return weight_codes(self.folded()[0].detach().double(), float(self.step), self.bits)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o h2 w2"]:
        weight, bias = self.used()
        return F.conv2d(x, weight, bias, *self.geometry)


def pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    """(down, across) of an option that one number may stand for."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))


def zero_padding(conv: nn.Conv2d) -> tuple[int, int] | None:
    """Rows and columns of zeros on either side; None where it pads with something else, or not alike on both sides."""
    if conv.padding == "valid":
        return 0, 0
    if conv.padding_mode != "zeros" and conv.padding != (0, 0):
        return None
    if isinstance(conv.padding, str):
        left, right, top, bottom = same_padding(conv)
        return (top, left) if (left, top) == (right, bottom) else None
    return pair(conv.padding)


def same_padding(conv: nn.Conv2d) -> tuple[int, int, int, int]:
    """(left, right, top, bottom) of padding="same": what is odd goes to the right and the bottom."""
    down, across = (d * (k - 1) for d, k in zip(pair(conv.dilation), pair(conv.kernel_size), strict=True))
    return across // 2, across - across // 2, down // 2, down - down // 2


def layers(model: nn.Module) -> dict[str, Layer]:
    """Every weighted layer of a model by name, in the order in which they compute."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Layer)}


def quantize_layers(model: nn.Module, bits: int = 8, per_channel: bool = False) -> None:
    """Set the step of every layer from its weights. The steps then stay as they are through fine-tuning.

    per_channel: one step for each output channel instead, for comparison; such a network has no integer form here.
    """
    for layer in layers(model).values():
        layer.bits, layer.per_channel = bits, per_channel
        layer.step.fill_(weight_step(layer.folded()[0].detach(), bits))
