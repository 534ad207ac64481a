"""Greedy suppression in plain PyTorch, and the scan over suppression bits that both bodies share."""

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from labkit.kernels.tubelet_iou.reference import tubelet_iou_reference

WORD = 32
"""Bits that are written as one number."""


def tubelet_nms_reference(tubelets: Tensor, groups: Tensor, threshold: float) -> Bool[Tensor, " n"]:
    """Which of the tubelets, best first, are kept. Group by group: tubelets of different groups need no overlap."""
    keep = torch.ones(len(tubelets), dtype=torch.bool)
    for group in groups.unique():
        members = (groups == group).nonzero()[:, 0]
        tubes = tubelets[members]
        suppresses = (tubelet_iou_reference(tubes, tubes) > threshold).numpy()
        kept = np.ones(len(members), dtype=bool)
        for i in range(len(members)):
            if kept[i]:
                kept[i + 1 :] &= ~suppresses[i, i + 1 :]
        keep[members] = torch.from_numpy(kept)
    return keep


def scan(bits: Tensor, count: int) -> Bool[Tensor, " n"]:
    """Which are kept, from (n, words) of bits: bit j of row i says that i, if kept, removes the later j."""
    words = bits.cpu().numpy()
    removed = np.zeros(words.shape[1], dtype=np.int64)
    keep = np.zeros(count, dtype=bool)
    for i in range(count):
        if not removed[i // WORD] >> (i % WORD) & 1:
            keep[i] = True
            removed |= words[i]
    return torch.from_numpy(keep)
