"""A task with a closed form: y = +-1, content c = y + N(0, 1), nuisance z = a y + N(0, 1).

The Bayes direction is (1, a). Trained with it, tested with the sign of the nuisance flipped:
accuracy Phi(sqrt(1 + a^2)) in training, Phi((1 - a^2) / sqrt(1 + a^2)) in test; the invariant rule has Phi(1) in both.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError


def normal_cdf(x: float) -> float:
    """Phi(x)."""
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def accuracies(a: float) -> dict[str, float]:
    """Accuracy of the Bayes rule in training and on the flipped nuisance, and of the invariant rule."""
    if not math.isfinite(a):
        raise InputError(f"the strength a of the nuisance must be finite; got {a}.")
    scale = math.sqrt(1 + a * a)
    return {"train": normal_cdf(scale), "flipped": normal_cdf((1 - a * a) / scale), "invariant": normal_cdf(1.0)}


def sample(
    n: int, a: float, generator: torch.Generator
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """(y, c, z) in float64."""
    y = torch.randint(0, 2, (n,), generator=generator, dtype=torch.float64) * 2 - 1
    c, z = (torch.randn(n, generator=generator, dtype=torch.float64) for _ in range(2))
    return y, y + c, a * y + z


def least_squares(c: Float[Tensor, " n"], z: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> Float[Tensor, "2"]:
    """Weights of y on (c, z). In the population (1, a) / (2 + a^2); after permuting z: (1/2, 0)."""
    return torch.linalg.lstsq(torch.stack([c, z], 1), y[:, None]).solution[:, 0]
