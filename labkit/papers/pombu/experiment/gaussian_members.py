"""Members that predict a variance of their own: PETS' and MBPO's, for the rival  [peer: Chua et al. 2018]

    loss = mean[(y - mu)^2 exp(-l) + l] + c sum(l_max - l_min),    l = log sigma^2(x),    c = 0.01

The first term is twice the negative log-likelihood of N(mu, sigma^2), less log 2 pi. It is least where sigma^2 is the
mean squared error; where a network fits its data exactly l would fall for ever, hence its two bounds, learned as well.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from labkit.papers.pombu.method.ensemble import DynamicsEnsemble
from labkit.rl.networks import StackedMLP

FIRST_BOUNDS = (-10.0, 0.5)  # of l, in units of the normalised targets' variance  [peer]
BOUND_WEIGHT = 0.01  # c  [peer]


def gaussian_loss(
    mean: Float[Tensor, "*shape"], log_variance: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """(y - mu)^2 exp(-l) + l, element by element."""
    return (target - mean).square() * (-log_variance).exp() + log_variance


def soft_bound(
    raw: Float[Tensor, "copies batch outputs"],
    lowest: Float[Tensor, "copies 1 outputs"],
    highest: Float[Tensor, "copies 1 outputs"],
) -> Float[Tensor, "copies batch outputs"]:
    """Bend `raw` into [lowest, highest], nearly unchanged between them; the slope is never 0, unlike a clamp's."""
    below = highest - softplus(highest - raw)
    return lowest + softplus(below - lowest)


class StackedGaussianMLP(nn.Module):
    """mu and log sigma^2 of every copy, both from one `StackedMLP`.

    forward: mu alone, (copies, batch, inputs) -> (copies, batch, outputs), so that it stands in for a plain member.

    Args:
        sizes: widths from the input to the output; the last layer is twice as wide as said.
    """

    def __init__(
        self,
        copies: int,
        sizes: Sequence[int],
        activation: str = "relu",
        generators: Sequence[torch.Generator] | None = None,
    ) -> None:
        super().__init__()
        *inner, outputs = sizes
        self.copies, self.sizes = copies, tuple(sizes)
        self.body = StackedMLP(copies, (*inner, 2 * outputs), activation, generators=generators)
        self.lowest = nn.Parameter(torch.full((copies, 1, outputs), FIRST_BOUNDS[0]))
        self.highest = nn.Parameter(torch.full((copies, 1, outputs), FIRST_BOUNDS[1]))

    @torch.no_grad()
    def initialize(self, generators: Sequence[torch.Generator] | None) -> None:
        """Weights and bounds anew, in place."""
        self.body.initialize(1.0, generators)
        self.lowest.fill_(FIRST_BOUNDS[0])
        self.highest.fill_(FIRST_BOUNDS[1])

    def distribution(
        self, x: Float[Tensor, "copies batch inputs"]
    ) -> tuple[Float[Tensor, "copies batch outputs"], Float[Tensor, "copies batch outputs"]]:
        """mu and l."""
        mean, raw = self.body(x).chunk(2, -1)
        return mean, soft_bound(raw, self.lowest, self.highest)

    def forward(self, x: Float[Tensor, "copies batch inputs"]) -> Float[Tensor, "copies batch outputs"]:
        return self.distribution(x)[0]

    def loss(
        self, x: Float[Tensor, "copies batch inputs"], y: Float[Tensor, "copies batch outputs"]
    ) -> Float[Tensor, " copies"]:
        """One loss a copy; their sum has each copy's own gradient."""
        mean, log_variance = self.distribution(x)
        width = (self.highest - self.lowest).sum((1, 2))
        return gaussian_loss(mean, log_variance, y).mean((1, 2)) + BOUND_WEIGHT * width


class GaussianEnsemble(DynamicsEnsemble):
    """An ensemble whose members predict a variance too. Validation and early stopping go by the squared error  [peer].

    Arguments as `DynamicsEnsemble`; layers are plain.
    """

    def build(self, sizes: Sequence[int], activation: str, weight_norm: bool) -> nn.Module:
        blank = [torch.Generator() for _ in range(self.networks)]  # torch's global generator is left alone
        return StackedGaussianMLP(self.networks, sizes, activation, blank)

    def losses(
        self, inputs: Float[Tensor, "networks batch inputs"], targets: Float[Tensor, "networks batch outputs"]
    ) -> Float[Tensor, " networks"]:
        assert isinstance(self.net, StackedGaussianMLP)
        return self.net.loss(inputs, targets)

    def outcome(
        self, state: Float[Tensor, "copies batch observation"], action: Float[Tensor, "copies batch action"]
    ) -> tuple[Float[Tensor, "copies members batch observation"], Float[Tensor, "copies members batch observation"]]:
        """The next states that members expect, and their standard deviations."""
        assert isinstance(self.net, StackedGaussianMLP)
        change, log_variance = self.net.distribution(self.network_inputs(state, action))
        std = (log_variance / 2).exp().view(self.copies, self.members, *change.shape[1:])
        return self.outcomes(state, change), std * self.output_std[:, None]
