"""The rivals: quantisers with a straight-through gradient, in the same harness as the paper's.

    forward  y = scale * Y_k, the nearest level (or whatever rule the method has)
    backward dL/dx = dL/dy, as if quantising were the identity, within the bounds the method sets

Each function here is a `method` for `quantize_weights` or `quantize_activations`: it takes a sample of values, or makes
a function that does. Post-training quantisation needs none: it is the paper's quantiser in `eval()`, never trained.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from scipy import stats
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.qnet.method.levels import activation_levels
from labkit.papers.qnet.method.soft_quantizer import Quantizer
from labkit.papers.qnet.method.thresholds import initialize
from labkit.vision import quantizers

Fit = Callable[[Tensor], Quantizer]


class StraightThroughQuantizer(Quantizer):
    """y = scale(x) * levels[codes(x)], the gradient passed on as it comes."""

    def __init__(self, levels: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("levels", torch.tensor(levels))

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        quantized = (self.scale(x) * self.levels[self.codes(x).int()]).to(x.dtype)
        return quantizers.straight_through(x, quantized, self.passes(x))

    def passes(self, x: Tensor) -> Tensor | None:
        """Where the gradient passes; None: everywhere."""
        return None


# --- weights -----------------------------------------------------------------------------------------------------


class BinaryWeights(StraightThroughQuantizer):
    """BWN (Rastegari et al. 2016): sign(w) times the mean |w| of its filter."""

    def __init__(self) -> None:
        super().__init__((-1.0, 1.0))

    def codes(self, x: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
        return (x > 0).to(torch.uint8)

    def scale(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "..."]:
        return x.detach().abs().mean(tuple(range(1, x.dim())), keepdim=True)


class TernaryWeights(StraightThroughQuantizer):
    """TWN (Li et al. 2016): 0 where |w| <= 0.7 mean |w| of the layer; elsewhere the sign times the mean |w| left."""

    def __init__(self) -> None:
        super().__init__((-1.0, 0.0, 1.0))

    def codes(self, x: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
        threshold = 0.7 * x.abs().mean()
        return (1 + (x > threshold).to(torch.uint8) - (x < -threshold).to(torch.uint8)).to(torch.uint8)

    def scale(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "..."]:
        magnitude = x.detach().abs()
        kept = magnitude > 0.7 * magnitude.mean()
        return (magnitude * kept).sum() / kept.sum().clamp(min=1)


class DoReFaWeights(Quantizer):
    """DoReFa, see `dorefa_weights`: the levels are odd whole numbers."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        steps = 2**bits - 1
        self.register_buffer("levels", torch.arange(-steps, steps + 1.0, 2.0))
        self.bits = bits

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return quantizers.dorefa_weights(x, self.bits)

    def codes(self, x: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
        return quantizers.dorefa_codes(x, self.bits).to(torch.uint8)

    def scale(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
        return quantizers.dorefa_scale(x, self.bits)


class LearnedStep(Quantizer):
    """LSQ, see `learned_step`; `batched` where x is an activation, whose first axis counts examples."""

    def __init__(self, step: float, lowest: int, highest: int, *, batched: bool) -> None:
        super().__init__()
        if not 0 < step < math.inf:
            raise InputError(f"LSQ needs a positive first step; got {step}")
        self.register_buffer("levels", torch.arange(lowest, highest + 1.0))
        self.step = nn.Parameter(torch.tensor(step))
        self.lowest, self.highest, self.batched = lowest, highest, batched

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        features = x[:1].numel() if self.batched else x.numel()
        return quantizers.learned_step(x, self.step, self.lowest, self.highest, features)

    def codes(self, x: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
        ratio = (x.detach() / self.step.detach()).clamp(self.lowest, self.highest)
        return (ratio.round() - self.lowest).to(torch.uint8)

    def scale(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
        return self.step.detach()


def binary_weights(samples: Float[Tensor, "*shape"]) -> BinaryWeights:
    """BWN, 1 bit."""
    return BinaryWeights()


def ternary_weights(samples: Float[Tensor, "*shape"]) -> TernaryWeights:
    """TWN, 2 bits."""
    return TernaryWeights()


def dorefa_weights(bits: int) -> Fit:
    """DoReFa with `bits` from 1 to 8."""
    _check_bits("DoReFa", bits, 1)
    return lambda samples: DoReFaWeights(bits)


def lsq_weights(bits: int) -> Fit:
    """LSQ with levels -2^(k-1), ..., 2^(k-1) - 1, `bits` from 2 to 8; the step starts at 2 mean |w| / sqrt(highest)."""
    _check_bits("LSQ of weights", bits, 2)
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def fit(samples: Tensor) -> LearnedStep:
        step = 2 * samples.abs().mean().item() / math.sqrt(highest)
        return LearnedStep(step, lowest, highest, batched=False).to(samples.device)

    return fit


# --- activations -------------------------------------------------------------------------------------------------


class UniformActivations(StraightThroughQuantizer):
    """DoReFa's activations: k bits on [0, clip], the gradient passed within. Its own clip is 1."""

    def __init__(self, bits: int, clip: float) -> None:
        super().__init__(activation_levels(bits))
        self.register_buffer("clip", torch.tensor(clip))

    clip: Tensor

    def codes(self, x: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
        return (x.detach() / self.scale(x)).round().clamp(0, len(self.levels) - 1).to(torch.uint8)

    def scale(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
        return self.clip / (len(self.levels) - 1)

    def passes(self, x: Tensor) -> Tensor:
        return (x >= 0) & (x <= self.clip)


class HalfGaussianActivations(StraightThroughQuantizer):
    """HWGQ (Cai et al. 2017): the Lloyd-Max levels of a half Gaussian, times its sigma; the gradient of a clipped ReLU.

    What batch norm gives a ReLU is nearly Gaussian, so the levels are known beforehand and only sigma is estimated.
    Levels are not uniform here; the paper's tables also have a uniform variant.
    """

    sigma: Tensor
    thresholds: Tensor

    def __init__(self, bits: int, sigma: float) -> None:
        levels, thresholds = half_gaussian_levels(2**bits - 1)
        super().__init__((0.0, *levels))
        self.register_buffer("thresholds", torch.tensor(thresholds))
        self.register_buffer("sigma", torch.tensor(sigma))

    def codes(self, x: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
        return torch.bucketize((x.detach() / self.sigma).float(), self.thresholds.float()).to(torch.uint8)

    def scale(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
        return self.sigma

    def passes(self, x: Tensor) -> Tensor:
        return (x > 0) & (x <= self.sigma * self.levels[-1])


class SignActivations(StraightThroughQuantizer):
    """XNOR-Net (Rastegari et al. 2016), in place of the ReLU: sign(x) times the mean |x| of the example.

    The gradient passes where |x| <= 1. The paper's scale is a map, the mean |x| around each output pixel; one mean per
    example is the part of it that a following convolution does not see apart [ours].
    """

    def __init__(self) -> None:
        super().__init__((-1.0, 1.0))

    def codes(self, x: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
        return (x > 0).to(torch.uint8)

    def scale(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "..."]:
        return x.detach().abs().mean(tuple(range(1, x.dim())), keepdim=True)

    def passes(self, x: Tensor) -> Tensor:
        return x.abs() <= 1


def dorefa_activations(bits: int, clip: float | None = None) -> Fit:
    """DoReFa with `bits` from 1 to 8. `clip` None: the largest value but outliers [ours]; 1.0 is the original's."""
    _check_bits("DoReFa", bits, 1)

    def fit(samples: Tensor) -> UniformActivations:
        beta, _ = initialize(samples, activation_levels(bits), "trimmed")
        upper = (2**bits - 1) / beta if clip is None else clip
        return UniformActivations(bits, upper).to(samples.device)

    return fit


def lsq_activations(bits: int) -> Fit:
    """LSQ with levels 0, ..., 2^k - 1, `bits` from 1 to 8. The step starts where its squared error is least [ours]."""
    _check_bits("LSQ", bits, 1)

    def fit(samples: Tensor) -> LearnedStep:
        beta, _ = initialize(samples, activation_levels(bits), "mse")
        return LearnedStep(1 / beta, 0, 2**bits - 1, batched=True).to(samples.device)

    return fit


def hwgq_activations(bits: int) -> Fit:
    """HWGQ with `bits` from 1 to 4; sigma is the root mean square of the positive samples."""
    _check_bits("HWGQ", bits, 1, 4)

    def fit(samples: Tensor) -> HalfGaussianActivations:
        positive = samples[samples > 0]
        if len(positive) == 0:
            raise InputError("the samples have no positive value to estimate sigma from. Is the ReLU dead?")
        return HalfGaussianActivations(bits, positive.square().mean().sqrt().item()).to(samples.device)

    return fit


def xnor_activations(samples: Float[Tensor, "*shape"]) -> SignActivations:
    """XNOR-style binary activations, 1 bit, in place of the ReLU."""
    return SignActivations()


xnor_activations.replaces_relu = True  # type: ignore[attr-defined]


def half_gaussian_levels(count: int, rounds: int = 10_000) -> tuple[list[float], list[float]]:
    """`count` Lloyd-Max levels of |N(0, 1)|, and the thresholds below each, the first of which is 0.

    A level is the mean of its interval, (pdf(low) - pdf(high)) / (cdf(high) - cdf(low)); a threshold lies midway
    between two levels. Both are iterated until they agree. They are the upper half of the 2 `count` levels of N(0, 1).
    """
    thresholds = np.linspace(0, 3, count, endpoint=False)
    for _ in range(rounds):
        edges = np.append(thresholds, np.inf)
        levels = -np.diff(stats.norm.pdf(edges)) / np.diff(stats.norm.cdf(edges))
        previous, thresholds = thresholds, np.append(0.0, (levels[1:] + levels[:-1]) / 2)
        if np.abs(previous - thresholds).max() < 1e-12:
            break
    return levels.tolist(), thresholds.tolist()


def _check_bits(method: str, bits: int, lowest: int, highest: int = 8) -> None:
    if not lowest <= bits <= highest:
        hint = "; for 1-bit weights use binary_weights" if lowest == 2 and bits == 1 else ""
        raise InputError(f"{method} takes {lowest} to {highest} bits; got {bits}{hint}")
