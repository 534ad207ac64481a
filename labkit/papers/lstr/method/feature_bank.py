"""Long-term feature banks (Wu et al., CVPR 2019) as baselines: each actor reads features of other clips.

    x_i <- x_i + relu(W_o pool_j(x_j))

over the tubelets j of other clips that the mask allows; pool is a mean, a maximum, or non-local attention. No gradient
flows into the bank [peer code: the LFB repository]; here it holds the features of the same pass.  [ours]
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from labkit.papers.lstr.method.long_term import Mask, Reasoned, allowed

Pooling = Literal["mean", "max", "non-local"]


class FeatureBank(nn.Module):
    """The bank's reader, over (videos, clips, k) tubelets like `LongTermRelation`."""

    def __init__(self, width: int, pooling: Pooling, inner: int = 32, mask: Mask = "past", window: int = 2) -> None:
        super().__init__()
        self.pooling: Pooling = pooling
        self.mask: Mask = mask
        self.window = window
        if pooling == "non-local":
            self.query, self.key = nn.Linear(width, inner), nn.Linear(width, inner)
            self.value = nn.Linear(width, width)
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "videos clips k width"],
        valid: Bool[Tensor, "videos clips k"],
        trust: Float[Tensor, "videos clips k"] | None = None,
        tubelets: Float[Tensor, "videos clips k frames 4"] | None = None,
    ) -> Reasoned:
        clips, k = x.shape[1:3]
        clip = torch.arange(clips, device=x.device).repeat_interleave(k)
        own = torch.eye(clips * k, dtype=torch.bool, device=x.device)
        flat = None if tubelets is None else tubelets.flatten(1, 2)
        others = allowed(clip, valid.flatten(1), self.mask, self.window, flat) & ~own
        nodes = x.flatten(1, 2)
        bank = nodes.detach()
        weights = self._weights(nodes, bank, others)
        if self.pooling == "max":
            pooled = bank[:, None].expand(-1, clips * k, -1, -1).masked_fill(~others[..., None], -torch.inf).amax(2)
            pooled = torch.where(others.any(-1, keepdim=True), pooled, 0.0)
        else:
            pooled = weights @ (self.value(bank) if self.pooling == "non-local" else bank)
        empty = ~others.any(-1, keepdim=True)
        added = F.relu(self.out(self.norm(pooled))).masked_fill(empty, 0.0)
        return Reasoned((nodes + added).unflatten(1, (clips, k)), weights)

    def _weights(self, nodes: Tensor, bank: Tensor, others: Tensor) -> Tensor:
        """Rows sum to 1 where there is somebody to listen to, else to 0."""
        if self.pooling == "non-local":
            scores = self.query(nodes) @ self.key(bank).transpose(1, 2) / self.query.out_features**0.5
        else:
            scores = torch.zeros(others.shape, device=nodes.device).to(nodes)
        return scores.masked_fill(~others, -1e9).softmax(-1) * others
