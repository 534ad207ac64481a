"""The overlap of tubelets in plain PyTorch, frame by frame."""

import torch
from torch import Tensor


def tubelet_iou_reference(first: Tensor, second: Tensor) -> Tensor:
    """(..., m, frames, 4) and (..., n, frames, 4) -> (..., m, n)."""
    frames = first.shape[-2]
    total = first.new_zeros(*first.shape[:-3], first.shape[-3], second.shape[-3])
    for t in range(frames):
        total += _iou(first[..., t, :], second[..., t, :])
    return total / frames


def _iou(a: Tensor, b: Tensor) -> Tensor:
    corner = torch.maximum(a[..., :, None, :2], b[..., None, :, :2])
    opposite = torch.minimum(a[..., :, None, 2:], b[..., None, :, 2:])
    shared = (opposite - corner).clamp(min=0).prod(-1)
    union = _area(a)[..., :, None] + _area(b)[..., None, :] - shared
    return torch.where(union > 0, shared / union.clamp(min=torch.finfo(union.dtype).tiny), 0.0)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)
