"""Short-term human-context relation: each actor attends to every position of its clip.

[paper]: interactions of human, object and scene inside a clip, through spatio-temporal attention. [inferred]: the form,

    e_ij = (W_q x_i) . (W_k F_j) / sqrt(d) + g(rho_ij)      a_i = softmax_j(e_ij)
    r_i  = sum_j a_ij W_v F_j                               x_i <- x_i + relu(W_o LN(r_i))

with the relative geometry rho_ij = ((x_j - x_i) / s, (y_j - y_i) / s, distance, t_j - t) of position j and actor i.
g is a small network on rho and on a basis of the distance, less c distance^2 with a learned c: an actor looks near it
first. Prototypes without LN, basis and c often stood still for many epochs; with all three they learned.  [ours]

Factorized, position j = (t, p) weighs a_ij = a^t a^s: a^t is a softmax over the steps t of the means over p of e_ij,
a^s one over the cells p of the means over t.  [inferred] With one step it is the attention above.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.lstr.method.roi import boxes_over_time

RINGS = 12
"""Bumps along the distance that g sees: a ring around the actor is then a linear function."""

Context = Literal["clip", "actors"]


class Related(NamedTuple):
    """features: x_i after the relation, (clips, k, width). weights: a_ij, (clips, k, heads, positions)."""

    features: Tensor
    weights: Tensor


def relative_geometry(
    tubelets: Float[Tensor, "clips k frames 4"], steps: int, height: int, width: int, stride: int
) -> Float[Tensor, "clips k positions 4"]:
    """rho_ij of every position j = (t, y, x) of the map, in quarters of the frame's longer side; time in -.5..+.5.

    Absolute lengths, not the actor's size: what stands 17 pixels away does so for tall and for small actors.  [ours]
    """
    boxes = boxes_over_time(tubelets, steps)  # (clips, steps, k, 4)
    center = ((boxes[..., :2] + boxes[..., 2:]) / 2).transpose(1, 2)  # (clips, k, steps, 2)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    cells = torch.stack([x, y], -1).to(center) * stride
    unit = max(height, width) * stride / 4
    away = (cells - center[:, :, :, None, None]) / unit  # (clips, k, steps, height, width, 2)
    distance = away.norm(dim=-1, keepdim=True)
    time = torch.linspace(0, 1, steps, device=away.device).to(away) - 0.5
    time = time[:, None, None, None].expand(*distance.shape)
    return torch.cat([away, distance, time], -1).flatten(2, 4)


class ShortTermRelation(nn.Module):
    """The attention above, with several heads.

    Args:
        width: D, of the actors' vectors. inner: d, of queries and keys, over all heads.
        geometry: with g(rho); without it, attention knows content alone.
        uniform: every position weighs the same: averaged context.
        factorized: weights are a product of one over time and one over space.
        context: "clip", all positions of the map; "actors", the other tubelets of the clip alone.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int,
        inner: int = 32,
        heads: int = 1,
        geometry: bool = True,
        uniform: bool = False,
        context: Context = "clip",
        factorized: bool = False,
    ) -> None:
        super().__init__()
        if factorized and context != "clip":
            raise InputError("factorized attention is over the positions of a clip: context must be 'clip'.")
        if heads < 1 or inner % heads or width % heads:
            raise InputError(f"heads must divide inner {inner} and width {width}; got {heads}.")
        self.stride, self.heads, self.uniform, self.context = stride, heads, uniform, context
        self.factorized = factorized
        source = channels if context == "clip" else width
        self.query, self.key, self.value = nn.Linear(width, inner), nn.Linear(source, inner), nn.Linear(source, width)
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, width)
        bent = geometry and not uniform
        self.geometry = nn.Sequential(nn.Linear(4 + RINGS, 16), nn.ReLU(), nn.Linear(16, heads)) if bent else None
        self.near = nn.Parameter(torch.ones(heads)) if bent else None

    def forward(
        self,
        features: Float[Tensor, "clips k width"],
        maps: Float[Tensor, "clips c t h w"],
        tubelets: Float[Tensor, "clips k frames 4"],
        valid: Tensor | None = None,
    ) -> Related:
        """valid: (clips, k), which tubelets are no padding; padding is never attended to."""
        clips, k, _ = features.shape
        source = maps.flatten(2).transpose(1, 2) if self.context == "clip" else features
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, features), (self.key, source), (self.value, source))
        )
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5  # (clips, heads, k, positions)
        if self.uniform:
            scores = scores * 0
        elif self.geometry is not None:
            scores = scores + self.bias(maps, tubelets)
        weights = factorized(scores, maps.shape[2]) if self.factorized else self._masked(scores, valid).softmax(-1)
        context = (weights @ value).transpose(1, 2).reshape(clips, k, -1)
        return Related(features + F.relu(self.out(self.norm(context))), weights.transpose(1, 2))

    def bias(self, maps: Tensor, tubelets: Tensor) -> Tensor:
        """g(rho_ij), (clips, heads, k, positions)."""
        assert self.geometry is not None
        assert self.near is not None
        if self.context == "clip":
            steps, height, width = maps.shape[2:]
            rho = relative_geometry(tubelets, steps, height, width, self.stride)
        else:
            rho = _between(tubelets, max(maps.shape[-2:]) * self.stride / 4)
        at = torch.linspace(0, 3.5, RINGS, device=rho.device)
        rings = torch.exp(-(((rho[..., 2:3] - at) / 0.3) ** 2))
        bias = self.geometry(torch.cat([rho, rings], -1)) - self.near * rho[..., 2:3] ** 2
        return bias.permute(0, 3, 1, 2)

    def _masked(self, scores: Tensor, valid: Tensor | None) -> Tensor:
        if self.context == "clip" or valid is None:
            return scores
        own = torch.eye(scores.shape[-1], dtype=torch.bool, device=scores.device)
        return scores.masked_fill(~(valid[:, None, None, :] | own), -1e9)


def factorized(
    scores: Float[Tensor, "clips heads k positions"], steps: int
) -> Float[Tensor, "clips heads k positions"]:
    """a_ij = a^t a^s from scores e_ij over positions (steps, cells); rows sum to 1."""
    e = scores.unflatten(-1, (steps, -1))
    over_time, over_space = e.mean(-1).softmax(-1), e.mean(-2).softmax(-1)
    return (over_time[..., None] * over_space[..., None, :]).flatten(-2)


def _between(tubelets: Tensor, unit: float) -> Tensor:
    """rho of every actor to every other, (clips, k, k, 4), at the clip's mean box."""
    boxes = tubelets.mean(2)
    center = (boxes[..., :2] + boxes[..., 2:]) / 2
    away = (center[:, None] - center[:, :, None]) / unit
    distance = away.norm(dim=-1, keepdim=True)
    return torch.cat([away, distance, torch.zeros_like(distance)], -1)


class ActorCentricRelation(nn.Module):
    """ACRN's way (Sun et al., ECCV 2018) as a baseline: x_i is put beside every position, a 1 x 1 convolution, a mean.

        x_i <- x_i + relu(W_o mean_j relu(W [x_i; F_j]))

    No attention: every position counts the same after the convolution.
    """

    def __init__(self, channels: int, width: int, inner: int = 32) -> None:
        super().__init__()
        self.actor, self.scene = nn.Linear(width, inner), nn.Linear(channels, inner)  # one matrix, in two parts
        self.out = nn.Linear(inner, width)

    def forward(
        self,
        features: Float[Tensor, "clips k width"],
        maps: Float[Tensor, "clips c t h w"],
        tubelets: Float[Tensor, "clips k frames 4"],
        valid: Tensor | None = None,
    ) -> Related:
        scene = self.scene(maps.flatten(2).transpose(1, 2))
        pairs = F.relu(self.actor(features)[:, :, None] + scene[:, None])
        weights = pairs.new_full((*features.shape[:2], 1, scene.shape[1]), 1 / scene.shape[1])
        return Related(features + F.relu(self.out(pairs.mean(2))), weights)
