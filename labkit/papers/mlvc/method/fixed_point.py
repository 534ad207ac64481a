"""The receiver's networks in integers, so that every machine decodes the same picture from the same file.

Floating-point sums depend on their order, and the order on the number of threads, the instruction set and the library;
one unit in the last place of one scale makes an entropy decoder lose its way. Here no sum is ever rounded:

1. What enters a convolution is rounded to a multiple of 2^-12 and limited to +-2^12; weights are multiples of 2^-16.
   All are carried as whole numbers in float64. `ExactConv` proves when it is made that sum |w| * 2^24 + |b| < 2^52 for
   each of its outputs, so every partial sum, in any order, with or without fused multiply-add, is an exact integer.
2. IGDN is the same with x^2 (multiples of 2^-12) and an integer square root; warps have weights in multiples of 1/64;
   enlarging by 2 has weights in multiples of 1/4: exact products and sums again.
3. Everything between is one operation on one number (add, multiply by a constant, maximum), which IEEE 754 rounds the
   same way everywhere. No exponential, no logarithm, no division.

Convolutions are matrix products, one for each tap of the kernel or after im2col (oneDNN has no float64, cuDNN is
switched off), never Winograd or Fourier transforms, which would leave the integers. Since nothing depends on order,
frames are worked on in strips of rows and memory stays bounded.  [ours]
"""

import copy
import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.mlvc.method.gdn import Gdn
from labkit.papers.mlvc.method.layers import ChainedWarp, Maps, Up2
from labkit.papers.mlvc.method.network import Network
from labkit.papers.mlvc.method.references import FLOW_STEPS

STEPS, LIMIT = 2.0**12, 2.0**24
"""Activations: steps in a unit, and the largest number of steps: +-4096."""
WEIGHT_STEPS = 2.0**16
LARGEST_SUM = 2.0**52
"""Below it float64 holds every integer, and twice as much."""
ENERGY_LIMIT = 2.0**28
"""Of x^2 in IGDN, in steps: |x| counts as 256 at most there."""
FLOW_LIMIT = 2.0**13
"""Pixels; a flow that points further is one into the border anyway."""
STRIP = 2**19
"""Numbers that a convolution may write at a time: 4 MB, which stay in cache (measured: twice as quick as 32 MB)."""


def snapped(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """x in whole steps, limited."""
    return (x * STEPS).round_().clamp_(-LIMIT, LIMIT)


class ExactConv(nn.Module):
    """A convolution or transposed convolution of integers.

    Raises:
        InputError: weights so large that a sum could leave the integers of float64.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: nn.Conv2d | nn.ConvTranspose2d, name: str) -> None:
        super().__init__()
        transposed = isinstance(layer, nn.ConvTranspose2d)
        self.stride, self.padding, self.dilation = layer.stride[0], int(layer.padding[0]), layer.dilation[0]
        self.transposed, self.size = transposed, layer.kernel_size[0]
        self.reach = self.dilation * (self.size - 1) + 1
        weight = (layer.weight.detach().double() * WEIGHT_STEPS).round()
        bias = torch.zeros(layer.out_channels, dtype=torch.float64, device=weight.device)
        if layer.bias is not None:
            bias = (layer.bias.detach().double() * (WEIGHT_STEPS * STEPS)).round()
        reach = weight.abs().sum((0, 2, 3) if transposed else (1, 2, 3)) * LIMIT + bias.abs()
        if not bool((reach < LARGEST_SUM).all()):  # true of NaN, too
            raise InputError(
                f"the weights of {name} are too large to be coded in exact integers (sum of |w| up to "
                f"{float(reach.max()) / LIMIT / WEIGHT_STEPS:.3g}, at most {LARGEST_SUM / LIMIT / WEIGHT_STEPS:g}). "
                "That training diverged."
            )
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Maps) -> Float[Tensor, "batch _ _ _"]:
        return self._transposed(x) if self.transposed else self._direct(x)

    def _direct(self, x: Tensor) -> Tensor:
        """Strip by strip from rounding to scaling, so that all but input and output stays in cache."""
        height, width = x.shape[2:]
        rows, columns = ((side + 2 * self.padding - self.reach) // self.stride + 1 for side in (height, width))
        y = x.new_empty(len(x), len(self.weight), rows, columns)
        written = x.shape[1] * self.size**2 if self.stride > 1 else 2 * x.shape[1]  # a column of im2col; of strip, sums
        at_once = max(1, STRIP // (written * max(1, columns)))
        for first in range(0, rows, at_once):
            last = min(first + at_once, rows)
            above, below = first * self.stride - self.padding, (last - 1) * self.stride - self.padding + self.reach
            part = snapped(x[:, :, max(above, 0) : min(below, height)])
            part = F.pad(part, [self.padding, self.padding, max(-above, 0), max(below - height, 0)])
            for strip, result in zip(part, y[:, :, first:last], strict=True):
                sums = self._by_im2col(strip) if self.stride > 1 else self._by_taps(strip)
                torch.mul(sums, 1 / (STEPS * WEIGHT_STEPS), out=result)
        return y

    def _by_im2col(self, strip: Tensor) -> Tensor:
        with torch.backends.cudnn.flags(enabled=False):
            return F.conv2d(strip[None], self.weight, self.bias, self.stride, 0, self.dilation)[0]

    def _by_taps(self, strip: Tensor) -> Tensor:
        """A matrix product for each tap of the kernel, without im2col's copies (measured: 1.5 times as quick).

        Rows lie end to end, so a tap sees the strip from some number on; sums across the end of a row are dropped.
        """
        wide, rows = strip.shape[2], strip.shape[1] - self.reach + 1
        flat, count = strip.flatten(1), rows * wide - self.reach + 1
        sums = self.bias[:, None].repeat(1, rows * wide)
        for i, j in itertools.product(range(self.size), repeat=2):
            start = self.dilation * (i * wide + j)
            sums[:, :count].addmm_(self.weight[:, :, i, j], flat[:, start : start + count])
        return sums.unflatten(1, (rows, wide))[:, :, : wide - self.reach + 1]

    def _transposed(self, x: Tensor) -> Tensor:
        """Strips with the neighbours that reach into them; what these miss beyond is cut off again."""
        height, width = x.shape[2:]
        halo = self.size // self.stride // 2
        y = x.new_empty(len(x), self.weight.shape[1], height * self.stride, width * self.stride)
        at_once = max(1, STRIP // (self.weight.shape[1] * self.size**2 * width))
        for first in range(0, height, at_once):
            last = min(first + at_once, height)
            above, below = max(first - halo, 0), min(last + halo, height)
            with torch.backends.cudnn.flags(enabled=False):
                sums = F.conv_transpose2d(
                    snapped(x[:, :, above:below]), self.weight, self.bias, self.stride, self.padding, self.stride - 1
                )
            kept = sums[:, :, (first - above) * self.stride : (last - above) * self.stride]
            torch.mul(kept, 1 / (STEPS * WEIGHT_STEPS), out=y[:, :, first * self.stride : last * self.stride])
        return y


class ExactIgdn(nn.Module):
    """y_i = x_i * floor-sqrt(beta_i + sum_j gamma_ij x_j^2), x_j^2 in whole steps.

    Raises InputError where a gamma is too large for exact sums.
    """

    gamma: Tensor
    beta: Tensor

    def __init__(self, layer: Gdn, name: str) -> None:
        super().__init__()
        if not layer.inverse:
            raise InputError(f"{name}: only IGDN is part of a receiver.")
        gamma = (layer.gamma.detach().double() * WEIGHT_STEPS).round()
        beta = (layer.beta.detach().double() * (WEIGHT_STEPS * STEPS)).round()
        if not bool((gamma.abs().sum(1) * ENERGY_LIMIT + beta.abs() < LARGEST_SUM).all()):
            raise InputError(f"gamma of {name} is too large to be coded in exact integers. That training diverged.")
        self.register_buffer("gamma", gamma[:, :, None, None])
        self.register_buffer("beta", beta)

    def forward(self, x: Maps) -> Maps:
        x = snapped(x)
        energy = (x * x).mul_(1 / STEPS).round_().clamp_(max=ENERGY_LIMIT)  # x * x: at most 2^48, exact
        with torch.backends.cudnn.flags(enabled=False):
            root = integer_root(F.conv2d(energy, self.gamma, self.beta))  # in steps of 2^-14
        return x.mul_(root).mul_(1 / (STEPS * 2.0**14))  # at most 2^50, exact


def integer_root(n: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """floor(sqrt(n)) of whole numbers 0 <= n < 2^52, whatever the last bit of the machine's own square root."""
    root = n.clamp(min=0).sqrt_().floor_()
    root -= (root * root > n).double()
    root += ((root + 1) * (root + 1) <= n).double()
    return root


class ExactWarp(nn.Module):
    """`ChainedWarp` with flows in multiples of 1/64 pixel, and images in steps."""

    def forward(
        self,
        images: Float[Tensor, "batch refs channels height width"],
        flows: Float[Tensor, "batch refs 2 height width"],
    ) -> tuple[Float[Tensor, "batch refs channels height width"], Float[Tensor, "batch refs 2 height width"]]:
        steps = [_flow_steps(flow) for flow in flows.unbind(1)]
        f, warped, chain = torch.zeros_like(steps[0]), [], []
        for k, (image, flow) in enumerate(zip(images.unbind(1), steps, strict=True)):
            moved = flow if k == 0 else _sampled(flow, f).mul_(1 / FLOW_STEPS**2).round_()
            f = (f + moved).clamp_(-FLOW_LIMIT * FLOW_STEPS, FLOW_LIMIT * FLOW_STEPS)
            warped.append(_sampled(snapped(image), f).mul_(1 / (STEPS * FLOW_STEPS**2)))
            chain.append(f * (1 / FLOW_STEPS))
        return torch.stack(warped, dim=1), torch.stack(chain, dim=1)


def _flow_steps(flow: Tensor) -> Tensor:
    return (flow * FLOW_STEPS).round_().clamp_(-FLOW_LIMIT * FLOW_STEPS, FLOW_LIMIT * FLOW_STEPS)


def _sampled(image: Tensor, flow: Tensor) -> Tensor:
    """64^2 W(image, flow), all in integers: image in steps, flow in 1/64 pixel."""
    return torch.stack([_sampled_one(plane, move) for plane, move in zip(image, flow, strict=True)])


def _sampled_one(image: Tensor, flow: Tensor) -> Tensor:
    channels, height, width = image.shape
    x = torch.arange(width, dtype=torch.float64, device=image.device) * FLOW_STEPS + flow[0]
    y = torch.arange(height, dtype=torch.float64, device=image.device)[:, None] * FLOW_STEPS + flow[1]
    x, y = x.clamp_(0, (width - 1) * FLOW_STEPS), y.clamp_(0, (height - 1) * FLOW_STEPS)
    left, top = (x * (1 / FLOW_STEPS)).floor_(), (y * (1 / FLOW_STEPS)).floor_()
    wx, wy = (x - left * FLOW_STEPS).view(-1, 1), (y - top * FLOW_STEPS).view(-1, 1)
    x0, y0 = left.long(), top.long()
    x1, y1 = (x0 + 1).clamp_(max=width - 1), (y0 + 1).clamp_(max=height - 1)
    pixels = image.flatten(1).t().contiguous()  # a pixel's channels lie together: a tap is one read

    def row(y: Tensor) -> Tensor:
        near, far = (pixels.index_select(0, (y * width + x).flatten()) for x in (x0, x1))
        return near.mul_(FLOW_STEPS - wx).add_(far.mul_(wx))

    return row(y0).mul_(FLOW_STEPS - wy).add_(row(y1).mul_(wy)).t().reshape(channels, height, width)


class ExactUp2(nn.Module):
    """Twice as large, bilinear: weights 1/4 and 3/4 along each side."""

    def forward(self, x: Maps) -> Float[Tensor, "batch _ _ _"]:
        x = snapped(x)
        for side in (2, 3):
            size = x.shape[side]
            index = torch.arange(size, device=x.device)
            before, after = (x.index_select(side, (index + step).clamp_(0, size - 1)) for step in (-1, 1))
            pair = torch.stack([before.add_(x, alpha=3), after.add_(x, alpha=3)], dim=side + 1)
            x = pair.flatten(side, side + 1)
        return x.mul_(1 / (STEPS * 16))


def receiver(network: Network) -> Network:
    """A copy of `network` without the sender's half, in exact integers; its methods from `predict_motion` to
    `reconstruct` take and give float64.

    Raises:
        InputError: weights that are too large or not finite.
    """
    twin = copy.deepcopy(network).requires_grad_(False)
    del twin.motion_estimation
    for part in (twin.motion_coding, twin.residual_coding, twin.hyperprior):
        del part.analysis
    for part in (twin.motion_coding, twin.hyperprior):
        del part.prior  # the tables of the entropy coder hold all that is needed of it
    _replace(twin)
    return twin.double()


EXACT: dict[type[nn.Module], Callable[..., nn.Module]] = {
    nn.Conv2d: ExactConv,
    nn.ConvTranspose2d: ExactConv,
    Gdn: ExactIgdn,
    ChainedWarp: lambda layer, name: ExactWarp(),
    Up2: lambda layer, name: ExactUp2(),
}


def _replace(module: nn.Module, prefix: str = "") -> None:
    for name, child in module.named_children():
        if make := EXACT.get(type(child)):
            setattr(module, name, make(child, f"{prefix}{name}"))
        else:
            _replace(child, f"{prefix}{name}.")
