"""The whole network: features of each tubelet, what its clip adds, what the video adds, and what is said of it.

[paper]: first the short-term relation, on its result the long-term one, "in a cascaded manner". Parallel, either alone
and neither are what it is compared with.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.lstr.method.backbone import PerFrame, SmallBackbone, small_2d
from labkit.papers.lstr.method.feature_bank import FeatureBank
from labkit.papers.lstr.method.heads import Head, Labels
from labkit.papers.lstr.method.long_term import Adjacency, LongTermRelation, Mask
from labkit.papers.lstr.method.proposals import ProposalNetwork, ProposalSettings
from labkit.papers.lstr.method.roi import TubeletFeatures
from labkit.papers.lstr.method.short_term import ActorCentricRelation, Context, ShortTermRelation
from labkit.vision.slow_only import SlowOnly

BackboneName = Literal["small", "small-2d", "slow-only"]


@dataclass(frozen=True)
class Short:
    """The short-term relation. kind: attention, or acrn's convolution. The rest: see `ShortTermRelation`."""

    kind: Literal["attention", "acrn"] = "attention"
    heads: int = 1
    geometry: bool = True
    uniform: bool = False
    context: Context = "clip"
    factorized: bool = False


@dataclass(frozen=True)
class Long:
    """The long-term relation. kind: graph, or how a feature bank is pooled. The rest: see `LongTermRelation`."""

    kind: Literal["graph", "mean", "max", "non-local"] = "graph"
    layers: int = 1
    adjacency: Adjacency = "softmax"
    mask: Mask = "past"
    window: int = 2
    bank: bool = False


@dataclass(frozen=True)
class Settings:
    """What a network consists of; None leaves a relation out.

    order: cascade, the long-term relation sees what the short-term one made of a tubelet; parallel, both see its own
    features, and their additions are summed. width: D. bins: of RoIAlign. inner: d of queries and keys.
    """

    short: Short | None = field(default_factory=Short)
    long: Long | None = field(default_factory=Long)
    order: Literal["cascade", "parallel"] = "cascade"
    backbone: BackboneName = "small"
    width: int = 64
    bins: int = 4
    inner: int = 32

    def __post_init__(self) -> None:
        if min(self.width, self.bins, self.inner) < 1:
            raise InputError(f"width, bins and inner are at least 1; got {self.width}, {self.bins}, {self.inner}.")


class Output(NamedTuple):
    """logits (videos, clips, k, outputs), offsets (videos, clips, k, frames, 4); what the relations looked at, if any.

    attention: (videos, clips, k, heads, positions). adjacency: (videos, nodes, nodes), nodes clip by clip.
    """

    logits: Tensor
    offsets: Tensor
    attention: Tensor | None
    adjacency: Tensor | None


class Lstr(nn.Module):
    """Scores of tubelets in the clips of videos.

    Args:
        classes, frames, labels: see `Head`; frames is T, of a clip.
    """

    def __init__(self, settings: Settings, classes: int, frames: int, labels: Labels = "single") -> None:
        super().__init__()
        self.settings = settings
        self.backbone = make_backbone(settings.backbone)
        channels, stride, width = self.backbone.channels, self.backbone.stride, settings.width
        self.pool = TubeletFeatures(channels, stride, width, settings.bins)
        self.short = _short(settings, channels, stride)
        self.long = _long(settings)
        self.head = Head(width, classes, frames, labels)

    def forward(
        self,
        clips: Float[Tensor, "videos n 3 frames h w"],
        tubelets: Float[Tensor, "videos n k frames 4"],
        valid: Bool[Tensor, "videos n k"],
        trust: Float[Tensor, "videos n k"] | None = None,
    ) -> Output:
        """Class scores and box corrections of the tubelets of n clips in a row.

        Args:
            clips: RGB frames, `n` clips of each video in order of time.
            tubelets: corners x1, y1, x2, y2 in pixels, one box a frame.
            valid: which tubelets are no padding; clips of one video may have different numbers of them.
            trust: log of how sure a tubelet is one, as the proposal network has it; later clips listen less to
                doubtful ones.  [ours]
        """
        videos, n = clips.shape[:2]
        maps = self.backbone(clips.flatten(0, 1))
        flat, real = tubelets.flatten(0, 1), valid.flatten(0, 1)
        x = self.pool(maps, flat)
        near, attention = x, None
        if self.short is not None:
            near, attention = self.short(x, maps, flat, real)
        source = x if self.settings.order == "parallel" else near
        features, adjacency = near, None
        if self.long is not None:
            reasoned = self.long(source.unflatten(0, (videos, n)), valid, trust, tubelets)
            far, adjacency = reasoned.features.flatten(0, 1), reasoned.adjacency
            features = near + far - x if self.settings.order == "parallel" else far
        logits, offsets = self.head(features.unflatten(0, (videos, n)))
        return Output(logits, offsets, None if attention is None else attention.unflatten(0, (videos, n)), adjacency)


class Proposer(nn.Module):
    """A backbone of its own with a proposal network on it: the first of two steps."""

    def __init__(self, backbone: BackboneName, frames: int, settings: ProposalSettings | None = None) -> None:
        super().__init__()
        self.backbone = make_backbone(backbone)
        self.proposals = ProposalNetwork(self.backbone.channels, frames, self.backbone.stride, settings)

    def forward(self, clips: Float[Tensor, "n 3 frames h w"]) -> Float[Tensor, "n c t h2 w2"]:
        return self.backbone(clips)


def make_backbone(name: BackboneName) -> SmallBackbone | PerFrame | SlowOnly:
    """The backbone of that name: "small" (3-D), "small-2d", or "slow-only" (ResNet-50, 2048 channels)."""
    if name == "slow-only":
        return SlowOnly()
    return SmallBackbone() if name == "small" else small_2d()


def _short(settings: Settings, channels: int, stride: int) -> ShortTermRelation | ActorCentricRelation | None:
    short = settings.short
    if short is None:
        return None
    if short.kind == "acrn":
        return ActorCentricRelation(channels, settings.width, settings.inner)
    return ShortTermRelation(
        channels, settings.width, stride, settings.inner, short.heads, short.geometry, short.uniform, short.context,
        short.factorized,
    )  # fmt: skip


def _long(settings: Settings) -> LongTermRelation | FeatureBank | None:
    long = settings.long
    if long is None:
        return None
    if long.kind == "graph":
        return LongTermRelation(
            settings.width, long.layers, settings.inner, long.adjacency, long.mask, long.window, long.bank
        )
    return FeatureBank(settings.width, long.kind, settings.inner, long.mask, long.window)
