"""A discounted sum backwards over time, as in generalised advantage estimation; on a GPU one kernel in place of 2 T.

    delta_t = x_t + g k_t v_{t+1} - v_t        A_t = delta_t + g lam k_t A_{t+1}

k_t is 0 where an episode ends at step t, else 1.

Time is the first axis, so that neighbours in memory are neighbours in the batch: every read of the kernel is whole
lines, and each element is read once.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from labkit.errors import InputError
from labkit.kernels.discounted_trace.reference import Body, Inputs, discounted_trace_reference

__all__ = ["discounted_trace", "discounted_trace_reference"]


def discounted_trace(
    x: Float[Tensor, "time *batch"],
    value: Float[Tensor, "time *batch"],
    last_value: Float[Tensor, "*batch"] | None = None,
    *,
    discount: float,
    lam: float = 1.0,
    done: Bool[Tensor, "time *batch"] | None = None,
) -> Float[Tensor, "time *batch"]:
    """A_t of the recursion above; no gradient flows through it. With lam = 1 and v = 0: sum_j g^j x_{t+j}.

    Args:
        value: v_t, what is expected from step t on; `last_value` is v after the last step, 0 where it is not given.
        done: the episode ends with step t: nothing after it counts for t.

    Raises:
        InputError: a discount or lam outside [0, 1], shapes or dtypes that differ.
    """
    if not 0 <= discount <= 1 or not 0 <= lam <= 1:
        raise InputError(f"discount and lam must lie in [0, 1]; got {discount} and {lam}.")
    if x.dim() < 1 or len(x) < 1:
        raise InputError(f"a trace needs at least one step in its first axis; got shape {tuple(x.shape)}.")
    last = torch.zeros_like(x[0]) if last_value is None else last_value
    for name, other in (
        ("value", value),
        ("last_value", last[None].expand_as(x) if last.shape == x.shape[1:] else last),
    ):
        if other.shape != x.shape or other.dtype != x.dtype or other.device != x.device:
            raise InputError(
                f"{name} must be like x, {tuple(x.shape)} {x.dtype} on {x.device}; "
                f"got {tuple(other.shape)} {other.dtype} on {other.device}."
            )
    if done is not None and done.shape != x.shape:
        raise InputError(f"done must have the shape of x, {tuple(x.shape)}; got {tuple(done.shape)}.")
    flat = [t.detach().reshape(len(x), -1).contiguous() for t in (x, value)]
    ends = None if done is None else done.reshape(len(x), -1).contiguous()
    inputs = Inputs(flat[0], flat[1], last.detach().reshape(-1).contiguous(), ends, discount, discount * lam)
    return _body(x)(inputs).view(x.shape)


def _body(x: Tensor) -> Body:
    if x.is_cuda:
        from labkit.kernels.discounted_trace.triton import discounted_trace_triton

        return discounted_trace_triton
    return discounted_trace_reference
