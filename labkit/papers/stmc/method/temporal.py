"""TMC, the temporal multi-cue module: each cue keeps a path of its own, and a joint path listens to all of them.

    intra:  f_l,n = ReLU(conv_5(f_l-1,n))                                       N paths of C / N channels
    inter:  o_l = [ReLU(conv_5(o_l-1)) ; ReLU(conv_1([f_l,1 ... f_l,N]))]        C channels, half and half

o_0 = [f_0,1 ... f_0,N].  Two blocks, each followed by a maximum over pairs of steps.  Information flows from the cues
into the joint path, never back.  Without padding T frames become T' = floor((floor((T - 4) / 2) - 4) / 2) steps: each
sees 16 frames, and they start 4 frames apart.  [author net]
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.stmc.method.architecture import Architecture, Path

KERNEL, POOL, BLOCKS = 5, 2, 2
RECEPTIVE_FIELD = 16  # frames that one step sees: 5 + 1, then (5 - 1 + 1) steps that are 2 frames apart
STRIDE = POOL**BLOCKS


def steps_of(frames: int | Int64[Tensor, "*batch"], padded: bool = False) -> int | Int64[Tensor, "*batch"]:
    """T' of T frames; 0 or less where there are too few."""
    for _ in range(BLOCKS):
        frames = (frames if padded else frames - (KERNEL - 1)) // POOL
    return frames


def fewest_frames(padded: bool = False) -> int:
    """Frames that make one step."""
    return STRIDE if padded else RECEPTIVE_FIELD


class TemporalBlock(nn.Module):
    """One level of both paths. `path` "intra" or "inter" leaves the other one out, for ablations.

    sizes: channels of each cue. joint: channels of o_l-1. intra, inter: channels that come out, a cue and jointly.
    """

    def __init__(self, sizes: tuple[int, ...], joint: int, intra: int, inter: int, path: Path, padding: int) -> None:
        super().__init__()
        self.path, self.padding = path, padding
        has_intra, has_inter = path != "inter", path != "intra"
        self.intra = nn.ModuleList([nn.Conv1d(size, intra, KERNEL) for size in sizes] if has_intra else [])
        half = inter // 2 if path == "both" else inter
        self.inter = nn.Conv1d(joint, half, KERNEL) if has_inter else None
        self.merge = nn.Conv1d(intra * len(sizes), inter - half, 1) if path == "both" else None

    def forward(
        self, cues: list[Tensor], joint: Float[Tensor, "batch joint time"]
    ) -> tuple[list[Tensor], Float[Tensor, "batch inter steps"]]:
        if self.path != "inter":
            cues = [F.relu(conv(self._padded(f))) for conv, f in zip(self.intra, cues, strict=True)]
        if self.inter is None:
            return cues, torch.cat(cues, 1)
        parts = [F.relu(self.inter(self._padded(joint)))]
        if self.merge is not None:
            parts.append(F.relu(self.merge(torch.cat(cues, 1))))
        return cues, torch.cat(parts, 1)

    def _padded(self, values: Tensor) -> Tensor:
        return F.pad(values, (self.padding, self.padding)) if self.padding else values


class TemporalMultiCue(nn.Module):
    """Two blocks with their poolings, for a batch of sentences of different lengths."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = architecture
        self.padded, self.path = a.padded, a.path
        sizes, joint = a.cue_sizes, sum(a.cue_sizes)
        blocks = []
        for _ in range(BLOCKS):
            padding = KERNEL // 2 if a.padded else 0
            blocks.append(TemporalBlock(sizes, joint, a.intra_size, a.inter_size, a.path, padding))
            sizes, joint = (a.intra_size,) * len(sizes), a.inter_size
        self.blocks = nn.ModuleList(blocks)
        self.dropout = nn.Dropout(a.dropout)

    def forward(
        self, cues: list[Tensor], lengths: Int64[Tensor, " batch"]
    ) -> tuple[list[Tensor], Float[Tensor, "batch inter steps"], Int64[Tensor, " batch"]]:
        """Paths of the cues (batch, C / N, T'), the joint path (batch, C, T'), and T' of each sentence.

        Steps beyond a sentence's end are zero, and do not depend on what stands in the padding.

        Args:
            cues: (batch, d, time) of each cue.  lengths: frames of each sentence.

        Raises:
            InputError: a sentence is shorter than one step sees.
        """
        if int(lengths.min()) < fewest_frames(self.padded):
            raise InputError(
                f"a sentence needs {fewest_frames(self.padded)} frames at least; the shortest has {int(lengths.min())}."
            )
        cues = [_masked(f, lengths) for f in cues]
        joint = torch.cat(cues, 1)
        for block in self.blocks:
            cues, joint = block(cues, joint)
            lengths = (lengths if self.padded else lengths - (KERNEL - 1)) // POOL
            cues = [_masked(F.max_pool1d(f, POOL), lengths) for f in cues] if self.path != "inter" else cues
            joint = _masked(F.max_pool1d(joint, POOL), lengths)
        return (cues if self.path != "inter" else []), self.dropout(joint), lengths


def _masked(values: Float[Tensor, "batch channels time"], lengths: Tensor) -> Float[Tensor, "batch channels time"]:
    """Zero beyond each sentence's end, where a padded convolution of a sentence by itself would see zeros."""
    inside = torch.arange(values.shape[-1], device=values.device) < lengths.to(values.device)[:, None]
    return values * inside[:, None].to(values.dtype)
