"""The warp and the chain in PyTorch, by `grid_sample`."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Body = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def warp(
    image: Float[Tensor, "batch channels height width"], flow: Float[Tensor, "batch 2 height width"]
) -> Float[Tensor, "batch channels height width"]:
    """W(image, flow)(p) = image(p + flow(p)), bilinear, clamped to the border; flow in pixels, channel 0 is x."""
    height, width = image.shape[2:]
    x = torch.arange(width, dtype=flow.dtype, device=flow.device) + flow[:, 0]
    y = torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None] + flow[:, 1]
    # align_corners: -1 and 1 are the centres of the outer pixels, so that a step of one pixel is 2 / (size - 1)
    grid = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], dim=-1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)


def chained_warp_reference(
    images: Float[Tensor, "batch refs channels height width"], flows: Float[Tensor, "batch refs 2 height width"]
) -> tuple[Float[Tensor, "batch refs channels height width"], Float[Tensor, "batch refs 2 height width"]]:
    """The chain step by step: what the kernel is tested against, and its rival in the benchmark."""
    f = flows[:, 0]
    chain = [f]
    for k in range(1, flows.shape[1]):
        f = f + warp(flows[:, k], f)
        chain.append(f)
    warped = [warp(images[:, k], f) for k, f in enumerate(chain)]
    return torch.stack(warped, dim=1), torch.stack(chain, dim=1)
