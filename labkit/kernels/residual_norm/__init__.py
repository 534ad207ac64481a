"""What ends every sub-block of a post-norm Transformer, in one pass: branches dropped out, weighed, added, normalized.

    y = LayerNorm(x + sum_k r_k dropout(a_k))        LayerNorm(z) = gamma (z - mean z) / sqrt(var z + eps) + beta

One branch is an ordinary sub-block; two are the paper's mixture of a native attention and one to BERT.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError
from labkit.kernels.residual_norm.reference import Weight, residual_norm_reference

__all__ = ["residual_norm", "residual_norm_reference"]

WIDEST = 16_384  # a row has to fit into the registers of one program


def residual_norm(
    x: Float[Tensor, "*rows width"],
    branches: Sequence[Float[Tensor, "*rows width"]],
    weights: Sequence[Weight],
    gamma: Float[Tensor, " width"],
    beta: Float[Tensor, " width"],
    *,
    dropout: float = 0.0,
    eps: float = 1e-5,
) -> Float[Tensor, "*rows width"]:
    """y of the formula above, with gradients for x, the branches, gamma and beta.

    Args:
        branches: a_k, one or two.
        weights: r_k, one a branch: a number, or a tensor that spreads over the branch, such as (batch, 1, 1).
        dropout: probability with which an element of a branch is set to 0, the others scaled by 1 / (1 - dropout).
            The caller gives 0 outside of training.

    Raises:
        InputError: not one weight a branch, shapes that differ, or a dropout outside of [0, 1).
    """
    if not 1 <= len(branches) <= 2 or len(weights) != len(branches):
        raise InputError(f"one or two branches, each with a weight; got {len(branches)} and {len(weights)}.")
    if any(branch.shape != x.shape for branch in branches):
        shapes = ", ".join(str(tuple(branch.shape)) for branch in branches)
        raise InputError(f"branches must have the shape of x, {tuple(x.shape)}; got {shapes}.")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout must lie in [0, 1); got {dropout}.")
    numbers = [weight for weight in weights if not isinstance(weight, Tensor)]
    if x.is_cuda and len(numbers) == len(weights) and x.shape[-1] <= WIDEST:
        from labkit.kernels.residual_norm.triton import residual_norm_triton

        return residual_norm_triton(x, branches, numbers, gamma, beta, dropout, eps)
    return residual_norm_reference(x, branches, weights, gamma, beta, dropout, eps)
