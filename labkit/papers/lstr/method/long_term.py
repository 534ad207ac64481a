"""Long-term relation: a graph convolution over all tubelets of all clips of a video.

[paper]: temporal dynamics across clips through a graph convolutional network, cascaded on the short-term relation.
[inferred]: the form. Nodes are the tubelets, X (nodes, width). A layer is

    X <- X + relu(A X W)

with one of these adjacencies: softmax, A_ij = softmax_j(10 cos(phi(x_i), phi'(x_j))) over the j that the mask allows;
centered, the same after batch normalization, since vectors without negative entries all point the same way; or
symmetric, D^-1/2 (S + I) D^-1/2 with S_ij = max(0, cos) on the same pairs, in both directions (Kipf and Welling).
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.kernels.tubelet_iou import tubelet_iou

Adjacency = Literal["softmax", "centered", "symmetric", "identity", "shuffled"]
Mask = Literal["past", "all", "window", "linked"]
LINK = 0.2
"""Least overlap of boxes that continue each other [peer code: ACT's linking]."""
SHARPNESS = 10.0
"""Of the softmax over cosines, which lie within -1 and 1."""


class Reasoned(NamedTuple):
    """features: X after the layers, (videos, nodes, width). adjacency: A of the last layer, (videos, nodes, nodes)."""

    features: Tensor
    adjacency: Tensor


def allowed(
    clip: Int[Tensor, " nodes"],
    valid: Bool[Tensor, "videos nodes"],
    mask: Mask,
    window: int = 2,
    tubelets: Float[Tensor, "videos nodes frames 4"] | None = None,
) -> Bool[Tensor, "videos nodes nodes"]:
    """Which j node i may listen to: itself always, and what the mask lets through and is no padding.

    past: nodes of earlier clips. all: nodes of other clips. window: nodes of other clips, up to `window` clips away.
    linked: nodes of the clips just before and after whose tubelets continue the node's, see `links`.

    Raises:
        InputError: mask "linked" without tubelets.
    """
    apart = clip[None] - clip[:, None]
    if mask == "linked":
        if tubelets is None:
            raise InputError("the mask 'linked' looks at boxes: give the tubelets, too.")
        lets = links(clip, tubelets)
    else:
        lets = {"past": apart < 0, "all": apart != 0, "window": (apart != 0) & (apart.abs() <= window)}[mask][None]
    own = torch.eye(len(clip), dtype=torch.bool, device=clip.device)
    return (lets & valid[:, None, :] & valid[:, :, None]) | own


def links(
    clip: Int[Tensor, " nodes"], tubelets: Float[Tensor, "videos nodes frames 4"]
) -> Bool[Tensor, "videos nodes nodes"]:
    """Pairs of successive clips where the last box of the earlier and the first box of the later overlap by LINK."""
    goes_on = tubelet_iou(tubelets[:, :, -1:], tubelets[:, :, :1]) >= LINK  # from node i to node j
    follows = goes_on & (clip[None] - clip[:, None] == 1)
    return follows | follows.transpose(1, 2)


class GraphConvolution(nn.Module):
    """One layer, X + relu(A X W), and its adjacency.

    Args:
        adjacency: softmax, centered, symmetric; or a control: identity (no edges), shuffled (softmax weights, each
            row's handed out at random among the nodes that it may listen to).
    """

    def __init__(self, width: int, inner: int = 32, adjacency: Adjacency = "softmax") -> None:
        super().__init__()
        self.kind = adjacency
        if adjacency != "identity":
            self.phi, self.phi2 = nn.Linear(width, inner), nn.Linear(width, inner)
            self.phi2.load_state_dict(self.phi.state_dict())  # at first, who looks alike listens to each other
        self.center = nn.BatchNorm1d(width, affine=False) if adjacency == "centered" else None
        self.weight = nn.Linear(width, width, bias=False)

    def forward(
        self,
        x: Float[Tensor, "videos nodes width"],
        pairs: Bool[Tensor, "videos nodes nodes"],
        trust: Float[Tensor, "videos nodes"] | None = None,
    ) -> Reasoned:
        """trust: added to the scores of node j, such as the log of its objectness."""
        adjacency = self.adjacency(x, pairs, trust)
        return Reasoned(x + F.relu(self.weight(adjacency @ x)), adjacency)

    def adjacency(self, x: Tensor, pairs: Tensor, trust: Tensor | None = None) -> Float[Tensor, "videos nodes nodes"]:
        if self.kind == "identity":
            return torch.eye(x.shape[1], device=x.device).to(x).expand(len(x), -1, -1)
        compared = x if self.center is None else self.center(x.flatten(0, 1)).view_as(x)
        cosine = F.normalize(self.phi(compared), dim=-1) @ F.normalize(self.phi2(compared), dim=-1).transpose(1, 2)
        if self.kind == "symmetric":
            return symmetric(cosine, pairs)
        scores = SHARPNESS * cosine
        if trust is not None:
            scores = scores + trust[:, None]
        weights = scores.masked_fill(~pairs, -1e9).softmax(-1)
        return _shuffled(weights, pairs) if self.kind == "shuffled" else weights


def symmetric(cosine: Float[Tensor, "v n n"], pairs: Bool[Tensor, "v n n"]) -> Float[Tensor, "v n n"]:
    """D^-1/2 (S + I) D^-1/2; S is made symmetric, and a pair counts if either direction is allowed.

    Its largest eigenvalue is 1.
    """
    own = torch.eye(cosine.shape[-1], device=cosine.device).to(cosine)
    weights = cosine.clamp(min=0) * pairs * (1 - own)
    weights = (weights + weights.transpose(1, 2)) / 2 + own
    degree = weights.sum(-1).rsqrt()
    return degree[..., None] * weights * degree[:, None]


def _shuffled(weights: Tensor, pairs: Tensor) -> Tensor:
    """The same row sums on other edges: a fixed permutation of the places that each row may use."""
    generator = torch.Generator().manual_seed(pairs.shape[-1])
    keys = torch.rand(pairs.shape[-1], generator=generator).to(weights.device)
    order = torch.where(pairs, keys, keys + 2).argsort(-1)  # allowed places first, in random order
    slots = torch.where(pairs, 0.0, 2.0).argsort(dim=-1, stable=True)  # allowed ones first, in their own order
    return torch.zeros_like(weights).scatter(-1, slots, weights.gather(-1, order))


class LongTermRelation(nn.Module):
    """One to three layers of graph convolution over (videos, clips, k) tubelets.

    Args:
        bank: features of other clips as a bank, without gradient through them: each node's own feature keeps its
            gradient, its neighbours' do not (as in long-term feature banks). False: the whole video is trained end to
            end.
    """

    def __init__(
        self,
        width: int,
        layers: int = 1,
        inner: int = 32,
        adjacency: Adjacency = "softmax",
        mask: Mask = "past",
        window: int = 2,
        bank: bool = False,
    ) -> None:
        super().__init__()
        if not 1 <= layers <= 3:
            raise InputError(f"a graph has 1 to 3 layers, beyond which nodes become alike; got {layers}.")
        if window < 1:
            raise InputError(f"window is at least 1 clip; got {window}.")
        self.mask: Mask = mask
        self.window, self.bank = window, bank
        self.layers = nn.ModuleList(GraphConvolution(width, inner, adjacency) for _ in range(layers))

    def forward(
        self,
        x: Float[Tensor, "videos clips k width"],
        valid: Bool[Tensor, "videos clips k"],
        trust: Float[Tensor, "videos clips k"] | None = None,
        tubelets: Float[Tensor, "videos clips k frames 4"] | None = None,
    ) -> Reasoned:
        """tubelets: needed by the mask "linked" alone."""
        clips, k = x.shape[1:3]
        clip = torch.arange(clips, device=x.device).repeat_interleave(k)
        flat = None if tubelets is None else tubelets.flatten(1, 2)
        pairs = allowed(clip, valid.flatten(1), self.mask, self.window, flat)
        nodes, reach = x.flatten(1, 2), pairs
        flat_trust = None if trust is None else trust.flatten(1)
        for layer in self.layers:
            assert isinstance(layer, GraphConvolution)
            nodes, reach = self._layer(layer, nodes, pairs, flat_trust)
        return Reasoned(nodes.unflatten(1, (clips, k)), reach)

    def _layer(self, layer: GraphConvolution, x: Tensor, pairs: Tensor, trust: Tensor | None) -> Reasoned:
        if not self.bank:
            return layer(x, pairs, trust)
        adjacency = layer.adjacency(x.detach(), pairs, trust)
        own = adjacency.diagonal(dim1=1, dim2=2)[..., None] * x
        others = (adjacency - torch.diag_embed(adjacency.diagonal(dim1=1, dim2=2))) @ x.detach()
        return Reasoned(x + F.relu(layer.weight(own + others)), adjacency)
