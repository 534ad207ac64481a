"""Several references brought to the current frame along a chain of flows, each with one interpolation.

    f_1 = v_1,      f_{k+1} = f_k + W(v_{k+1}, f_k)          out_k(p) = W(image_k, f_k)(p)

W(a, f)(p) = a(p + f(p)) is bilinear, coordinates clamped to the border; channel 0 of a flow is x, in pixels. v_1 is the
flow from the current frame to the one before, v_2 the flow that this one had to the one before it, and so on.
[official code] of M-LVC (2004.10290)

A pixel of the fourth reference is read once, at p + f_4(p): warping what was already warped would blur it four times.
On a GPU f_1..f_R of a pixel live in registers, all references and channels are gathered by the same program and the
result is written where the next convolution reads it: no grid, no copy for a concatenation.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError
from labkit.kernels.flow_warp.reference import Body, chained_warp_reference, warp

__all__ = ["chained_warp", "chained_warp_reference", "warp"]


def chained_warp(
    images: Float[Tensor, "batch refs channels height width"], flows: Float[Tensor, "batch refs 2 height width"]
) -> tuple[Float[Tensor, "batch refs channels height width"], Float[Tensor, "batch refs 2 height width"]]:
    """(out_1..out_R, f_1..f_R) of the chain above. Gradients reach images and flows, except where a coordinate is
    clamped: there the border does not move.

    On a GPU the backward pass is that of the plain chain, computed again from the inputs.

    Raises:
        InputError: shapes, types or devices that do not fit together; no reference at all.
    """
    _check(images, flows)
    if not images.is_cuda:
        return chained_warp_reference(images, flows)
    out: tuple[Tensor, Tensor] = _Fused.apply(images, flows)
    return out


class _Fused(torch.autograd.Function):
    """One kernel forward; backward through the reference, which costs its memory only then."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, flows: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(images, flows)
        return _body(images)(images, flows)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            needed = zip(ctx.saved_tensors, ctx.needs_input_grad, strict=True)
            inputs = [t.detach().requires_grad_(is_needed) for t, is_needed in needed]
            outputs = chained_warp_reference(*inputs)
        wanted = [t for t in inputs if t.requires_grad]
        gradients = iter(torch.autograd.grad(outputs, wanted, outer, allow_unused=True))
        return tuple(next(gradients) if t.requires_grad else None for t in inputs)


def _body(images: Tensor) -> Body:
    try:
        from labkit.kernels.flow_warp.triton import chained_warp_triton
    except ImportError:  # no Triton on this system: the plain chain works on any device, only more slowly
        return chained_warp_reference
    return chained_warp_triton


def _check(images: Tensor, flows: Tensor) -> None:
    if images.dim() != 5 or flows.dim() != 5 or flows.shape[2] != 2 or images.shape[1] < 1:
        raise InputError(
            "images must be (batch, refs, channels, height, width) and flows (batch, refs, 2, height, width) with one "
            f"reference at least; got {tuple(images.shape)} and {tuple(flows.shape)}."
        )
    if images.shape[:2] != flows.shape[:2] or images.shape[3:] != flows.shape[3:]:
        raise InputError(
            f"images and flows must agree in batch, refs, height and width; got {tuple(images.shape)} and "
            f"{tuple(flows.shape)}."
        )
    if images.dtype != flows.dtype or images.device != flows.device or not images.is_floating_point():
        raise InputError(
            f"images and flows must be floating point, of one type, on one device; got {images.dtype} on "
            f"{images.device} and {flows.dtype} on {flows.device}. Half-precision coordinates are whole pixels beyond "
            "1024: convert both to float32."
        )
