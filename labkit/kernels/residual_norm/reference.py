"""Inputs of the residual sum with normalization, and its body in PyTorch."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

Weight = float | Tensor


def residual_norm_reference(
    x: Tensor,
    branches: Sequence[Tensor],
    weights: Sequence[Weight],
    gamma: Tensor,
    beta: Tensor,
    dropout: float = 0.0,
    eps: float = 1e-5,
) -> Tensor:
    """Plain PyTorch: nine passes over memory with two branches, and autograd's own gradients."""
    total = x
    for branch, weight in zip(branches, weights, strict=True):
        dropped = F.dropout(branch, dropout) if dropout else branch
        total = total + (dropped if isinstance(weight, float) and weight == 1 else weight * dropped)
    return F.layer_norm(total, gamma.shape, gamma, beta, eps)
