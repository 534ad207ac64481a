"""How many bits a symbol costs: the factorised prior of m̂ and ẑ, and the Gaussian of ŷ given ẑ.

Both give the probability of a whole bin, P(k) = F(k + 1/2) - F(k - 1/2), F a cumulative distribution. In training
quantisation is additive noise U(-1/2, 1/2) and the same formula its density; at test time symbols are rounded.  [paper]
"""

import itertools
import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from labkit.papers.mlvc.method.gdn import lower_bound

SMALLEST_LIKELIHOOD = 1e-9
"""Bound below which a likelihood counts as this, with a gradient that passes.  [official code]"""
SMALLEST_SCALE = 0.11
"""Lowest sigma that is coded; [official code] adds 1e-8 in its place, [peer code] has this bound."""


def bits(likelihood: Float[Tensor, "batch *shape"]) -> Float[Tensor, " batch"]:
    """-sum log2 p for each item of a batch."""
    return -torch.log2(lower_bound(likelihood, SMALLEST_LIKELIHOOD)).flatten(1).sum(1)


def noisy(y: Float[Tensor, "*shape"], generator: torch.Generator | None = None) -> Float[Tensor, "*shape"]:
    """y + U(-1/2, 1/2), drawn from `generator`, or torch's own."""
    return y + torch.empty_like(y).uniform_(-0.5, 0.5, generator=generator)


def gaussian_likelihood(y: Float[Tensor, "*shape"], sigma: Float[Tensor, "*#shape"]) -> Float[Tensor, "*shape"]:
    """p(y) = Phi((y + 1/2) / sigma) - Phi((y - 1/2) / sigma), sigma at least `SMALLEST_SCALE`.  [paper]

    Computed on the negative side, where the two terms are small and their difference loses no digits.
    """
    sigma = lower_bound(sigma, SMALLEST_SCALE)
    distance = y.abs()
    upper, lower = (0.5 - distance) / sigma, (-0.5 - distance) / sigma
    return (torch.erfc(-upper * math.sqrt(0.5)) - torch.erfc(-lower * math.sqrt(0.5))) / 2


class FactorizedPrior(nn.Module):
    """One non-parametric distribution per channel (Balle et al. 2018, appendix 6.1): F_c is a tiny monotone network.

        F_c(x) = sigmoid(g_4(g_3(g_2(g_1(x)))))     g_k(u) = h_k(softplus(H_k) u + b_k)
        h_k(v) = v + tanh(a_k) * tanh(v), k < 4     h_4(v) = v                                      [paper]

    Symbols are rounded relative to the median: ẑ = round(z - m_c) + m_c. `median` is solved for whenever the prior
    goes to evaluation mode [ours]; [peer code] trains it by a loss of its own.

    Args:
        channels: C.
        filters: widths of the inner layers.
        init_scale: about the width of the initial distribution.
    """

    median: Float[Tensor, " channels"]

    def __init__(self, channels: int, filters: tuple[int, ...] = (3, 3, 3), init_scale: float = 10.0) -> None:
        super().__init__()
        widths = (1, *filters, 1)
        scale = init_scale ** (1 / (len(widths) - 1))
        self.matrices, self.biases, self.factors = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in itertools.pairwise(widths):
            start = math.log(math.expm1(1 / scale / outputs))
            self.matrices.append(nn.Parameter(torch.full((channels, outputs, inputs), start)))
            self.biases.append(nn.Parameter(torch.empty(channels, outputs, 1).uniform_(-0.5, 0.5)))
        for outputs in filters:
            self.factors.append(nn.Parameter(torch.zeros(channels, outputs, 1)))
        self.register_buffer("median", torch.zeros(channels))

    def logits(self, x: Float[Tensor, "channels 1 points"]) -> Float[Tensor, "channels 1 points"]:
        """The argument of the last sigmoid: F = sigmoid(logits)."""
        for k, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            x = F.softplus(matrix) @ x + bias
            if k < len(self.factors):
                x = x + torch.tanh(self.factors[k]) * torch.tanh(x)
        return x

    def likelihood(
        self, y: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """P of each entry of y, noisy or rounded."""
        flat = y.transpose(0, 1).flatten(1)[:, None]
        lower, upper = self.logits(flat - 0.5), self.logits(flat + 0.5)
        sign = -torch.sign(lower + upper).detach()  # both on the side where the sigmoid is small, as for the Gaussian
        p = (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()
        batch, channels, height, width = y.shape
        return p.view(channels, batch, height, width).transpose(0, 1)

    def quantize(self, y: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """round(y - median) + median"""
        median = self.median[:, None, None]
        return torch.round(y - median) + median

    def train(self, mode: bool = True) -> "FactorizedPrior":
        super().train(mode)
        if not mode:
            self.median.copy_(self.quantile(0.5))
        return self

    @torch.no_grad()
    def quantile(self, probability: float) -> Float[Tensor, " channels"]:
        """x with F_c(x) = probability, by bisection in float64."""
        twin = [list(p.detach().double() for p in group) for group in (self.matrices, self.biases, self.factors)]
        target = math.log(probability / (1 - probability))
        channels = len(self.median)
        low = torch.full((channels, 1, 1), -1.0, dtype=torch.float64, device=self.median.device)
        high = -low

        def logits(x: Tensor) -> Tensor:
            for k, (matrix, bias) in enumerate(zip(*twin[:2], strict=True)):
                x = F.softplus(matrix) @ x + bias
                if k < len(twin[2]):
                    x = x + torch.tanh(twin[2][k]) * torch.tanh(x)
            return x

        for _ in range(40):  # F is monotone, so an interval that holds the answer is found by doubling
            low = torch.where(logits(low) > target, 2 * low, low)
            high = torch.where(logits(high) < target, 2 * high, high)
        for _ in range(60):
            middle = (low + high) / 2
            below = logits(middle) < target
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return ((low + high) / 2).flatten().to(self.median.dtype)
