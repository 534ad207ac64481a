"""The body of `crop_windows` in PyTorch: one gather, and its transpose."""

from collections.abc import Callable

import torch
from torch import Tensor

Forward = Callable[[Tensor, Tensor, int], Tensor]
Backward = Callable[[Tensor, Tensor, int, int], Tensor]


def crop_windows_reference(maps: Tensor, corners: Tensor, side: int) -> Tensor:
    """(frames, channels, height, width) and (frames, windows, 2) to (frames, windows, channels, side, side)."""
    rows, columns = _cells(corners, side)
    frame = torch.arange(len(maps), device=maps.device)[:, None, None, None]
    # channels last, so that one index picks a cell with all its channels
    return maps.permute(0, 2, 3, 1)[frame, rows[..., :, None], columns[..., None, :]].permute(0, 1, 4, 2, 3)


def crop_windows_backward_reference(gradient: Tensor, corners: Tensor, height: int, width: int) -> Tensor:
    """The gradient of the maps: each cell gets the sum over the windows that saw it."""
    frames, _, channels, side, _ = gradient.shape
    rows, columns = _cells(corners, side)
    out = gradient.new_zeros(frames, height, width, channels)
    frame = torch.arange(frames, device=gradient.device)[:, None, None, None]
    out.index_put_((frame, rows[..., :, None], columns[..., None, :]), gradient.permute(0, 1, 3, 4, 2), accumulate=True)
    return out.permute(0, 3, 1, 2)


def _cells(corners: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of each window, both (frames, windows, side)."""
    steps = torch.arange(side, device=corners.device)
    return corners[..., 0, None] + steps, corners[..., 1, None] + steps
