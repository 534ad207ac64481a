"""Stage 1: a convolution that answers with a Gaussian at the target.  It filters out the many easy negatives.

    L(P, f) = sum_j g_j | m (phi(f * (P x_j)) - y_j) |^2 + lam_f |f|^2 + lam_P |P|^2                  [peer code: ATOM]

x_j are the feature maps in memory and g_j their weights, which sum to 1. y_j is a Gaussian with sigma = a quarter of
the target. P is a 1x1 projection, learned with the first frame only. phi is the identity or MLU. m^2 = 1 + 4 y gives
the target's cells more weight [ours]. `gauss_newton` minimises L, a few conjugate-gradient steps at a time.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.crt.method.gauss_newton import Trace, gauss_newton
from labkit.ranges import within


def mlu(x: Float[Tensor, "*shape"], alpha: float = 0.05) -> Float[Tensor, "*shape"]:
    """x for x >= 0, alpha (exp(x / alpha) - 1) below: a background cell at -alpha no longer pulls on the filter.

    [ATOM]
    """
    return torch.where(x >= 0, x, alpha * torch.expm1(x.clamp_max(0) / alpha))


@dataclass(frozen=True)
class Convolution:
    """Settings of stage 1.  Lengths in cells unless said."""

    kernel: int = 7
    projection: int = 0  # channels after P; 0: no projection
    activation: Literal["identity", "mlu"] = "identity"
    lam_filter: float = 0.1
    lam_projection: float = 1e-4
    target_weight: float = 4.0  # m^2 - 1 at the target
    memory: int = 24
    rate: float = 0.02  # a new sample weighs 1 / (1 - rate) times the one before
    first_share: float = 0.0  # least weight of the first frame's samples together; .25 in ATOM
    first_steps: tuple[int, ...] = (40,)  # CG steps of each Gauss-Newton step in the first frame
    steps: int = 5  # CG steps of an update
    beta: Literal["PR", "FR"] = "PR"

    def __post_init__(self) -> None:
        within(1, 63, kernel=self.kernel)
        within(0, 4096, projection=self.projection)
        within(1e-12, 1e6, lam_filter=self.lam_filter, lam_projection=self.lam_projection)
        within(0, 1e6, target_weight=self.target_weight)
        within(1, 10_000, memory=self.memory)
        within(0, 0.5, rate=self.rate)
        within(0, 0.99, first_share=self.first_share)
        for count in (len(self.first_steps), *self.first_steps, self.steps):
            within(1, 10_000, steps=count)


ATOM = Convolution(
    kernel=4, projection=64, activation="mlu", target_weight=0.0, memory=250, rate=0.01, first_share=0.25,
    first_steps=(10,) * 6,
)  # fmt: skip
"""What ATOM does with deep features [peer code]."""


class Regression:
    """f (and P) of each target, and the memory they are learned from.  The first axis of every tensor is the target."""

    def __init__(self, settings: Convolution, channels: int, sigma: Float[Tensor, "batch 2"]) -> None:
        """sigma: of the Gaussian labels, x and y, in cells."""
        self.settings, self.sigma = settings, sigma
        batch, self.channels = len(sigma), settings.projection or channels
        self.filter = sigma.new_zeros(batch, self.channels, settings.kernel, settings.kernel)
        self.projection: Tensor | None = None

    # -- labels and scores --------------------------------------------------------------------------------------------

    @property
    def shift(self) -> float:
        """Where a score stands in its cell: in the middle; an even kernel's scores stand on the cells' edges."""
        return 0.5 * (self.settings.kernel % 2)

    def labels(self, centres: Float[Tensor, "*n 2"], cells: int) -> Float[Tensor, "*n rows columns"]:
        """Gaussians around `centres` (x, y in cells) on the grid of scores."""
        side = cells + 1 - self.settings.kernel % 2
        at = torch.arange(side, dtype=centres.dtype, device=centres.device) + self.shift
        exponent = (at - centres[..., None]).square() / (2 * self.sigma[..., None].square())  # x and y, then places
        return torch.exp(-exponent[..., 0, None, :] - exponent[..., 1, :, None])

    def score(self, x: Float[Tensor, "batch channels cells cells"]) -> Float[Tensor, "batch rows columns"]:
        """f * (P x) of one search image per target."""
        return _answers(self._projected(x[None]), self.filter)[0]

    def _projected(self, x: Tensor) -> Tensor:
        return x if self.projection is None else torch.einsum("nbchw,bdc->nbdhw", x, self.projection)

    # -- learning -----------------------------------------------------------------------------------------------------

    def first(
        self,
        x: Float[Tensor, "n batch channels cells cells"],
        centres: Float[Tensor, "n batch 2"],
        generator: torch.Generator | None = None,
        trace: Trace | None = None,
    ) -> None:
        """Learn from the first frame and its augmentations; starts the memory."""
        n, batch, _, cells, _ = x.shape
        size = self.settings.memory
        if n > size:
            raise InputError(f"memory must hold the first frame's {n} samples and more; got memory={size}")
        y = self.labels(centres, cells)
        self.count_first = n
        if self.settings.projection:
            self._learn_projection(x, y, generator, trace)
        x = self._projected(x)
        self.x = x.new_zeros(size, *x.shape[1:])
        self.y = y.new_zeros(size, *y.shape[1:])
        self.x[:n], self.y[:n] = x, y
        self.weight = x.new_zeros(size, batch)
        self.weight[:n] = 1 / n
        self.newest = self.weight[0].clone()
        if not self.settings.projection:
            self.improve(self.settings.first_steps, trace)

    def _learn_projection(self, x: Tensor, y: Tensor, generator: torch.Generator | None, trace: Trace | None) -> None:
        """P and f together: the one non-linear part (a product), hence several Gauss-Newton steps."""
        s, (n, batch, channels) = self.settings, x.shape[:3]
        start = torch.randn(s.projection, channels, generator=generator) / channels**0.5
        projection = start.to(x.device).expand(batch, -1, -1).clone()
        g = x.new_full((n, batch), 1 / n)

        def residuals(parameters: list[Tensor]) -> list[Tensor]:
            f, p = parameters
            answers = _answers(torch.einsum("nbchw,bdc->nbdhw", x, p), f)
            return [self._misfit(answers, y, g), s.lam_filter**0.5 * f, s.lam_projection**0.5 * p]

        scales = (s.lam_filter, s.lam_projection)
        steps = s.first_steps
        self.filter, self.projection = gauss_newton(residuals, [self.filter, projection], steps, s.beta, scales, trace)

    def improve(
        self,
        steps: tuple[int, ...] | None = None,
        trace: Trace | None = None,
        only: Bool[Tensor, " batch"] | None = None,
    ) -> None:
        """A few conjugate-gradient steps on f, from where it stands, over the memory; of the targets in `only`."""
        s = self.settings
        used = int((self.weight > 0).any(1).sum())
        x, y, g = self.x[:used], self.y[:used], self.weight[:used]

        def residuals(parameters: list[Tensor]) -> list[Tensor]:
            (f,) = parameters
            return [self._misfit(_answers(x, f), y, g), s.lam_filter**0.5 * f]

        (better,) = gauss_newton(residuals, [self.filter], steps or (s.steps,), s.beta, trace=trace)
        self.filter = better if only is None else torch.where(only[:, None, None, None], better, self.filter)

    def _misfit(self, answers: Tensor, y: Tensor, g: Tensor) -> Tensor:
        """sqrt(g_j) m (phi(answer) - y), problems' axis first."""
        s = self.settings
        r = (mlu(answers) if s.activation == "mlu" else answers) - y
        return (r * ((1 + s.target_weight * y) * g[:, :, None, None]).sqrt()).transpose(0, 1)

    def remember(
        self,
        x: Float[Tensor, "batch channels cells cells"],
        centre: Float[Tensor, "batch 2"],
        mask: Bool[Tensor, " batch"],
        rate: float | Tensor | None = None,
    ) -> None:
        """Put the search image of the targets in `mask` in place of their lightest sample that is not of the first
        frame.
        """
        lightest = self.weight[self.count_first :].argmin(0) + self.count_first  # an empty place weighs 0
        chosen = mask.nonzero()[:, 0]
        at = lightest[chosen]
        self.x[at, chosen] = self._projected(x[None])[0, chosen]
        self.y[at, chosen] = self.labels(centre, x.shape[-1])[chosen]
        fresh = self.newest / (1 - (self.settings.rate if rate is None else rate))
        self.weight[at, chosen] = fresh[chosen]
        self.newest = torch.where(mask, fresh, self.newest)
        self._normalize()

    def _normalize(self) -> None:
        """Weights sum to 1, those of the first frame to `first_share` at least."""
        total = self.weight.sum(0)
        self.weight, self.newest = self.weight / total, self.newest / total
        first = self.weight[: self.count_first].sum(0)
        least = self.settings.first_share
        if least > 0:
            short = first < least
            up = torch.where(short, least / first, torch.ones_like(first))
            down = torch.where(short, (1 - least) / (1 - first).clamp_min(1e-9), torch.ones_like(first))
            self.weight[: self.count_first] *= up
            self.weight[self.count_first :] *= down
            self.newest = self.newest * down


def _answers(
    x: Float[Tensor, "n batch channels cells cells"], f: Float[Tensor, "batch channels k k"]
) -> Float[Tensor, "n batch rows columns"]:
    """Each target's filter over its own samples: the grouped convolution conv2d(x, f, padding=k//2).

    With one output channel it is quicker as a product over channels, then `fold`: the k^2 products per cell are
    added up where they belong.  Its derivatives unfold a single channel instead of all of x, which makes a
    conjugate-gradient step 3.6 times as fast on a CPU as with conv2d's own [measured].
    """
    (n, batch, channels, cells, _), k = x.shape, f.shape[-1]
    products = f.flip(2, 3).reshape(batch, channels, k * k).transpose(1, 2) @ x.reshape(n, batch, channels, cells**2)
    back = k - 1 - k // 2
    side = cells + k - 1 - 2 * back
    folded = F.fold(products.reshape(n * batch, k * k, cells**2), (side, side), k, padding=back)
    return folded.reshape(n, batch, side, side)


# -- what a score map says --------------------------------------------------------------------------------------------


class Candidates(NamedTuple):
    """Local maxima of the score maps, strongest first."""

    at: Int[Tensor, "batch n 2"]
    """Column, row."""
    score: Float[Tensor, "batch n"]
    valid: Bool[Tensor, "batch n"]
    """False fills up the rows with fewer candidates."""


def candidates(
    scores: Float[Tensor, "batch rows columns"],
    kappa: float = 0.35,
    floor: float = 0.08,
    most: int = 12,
    window: int = 5,
) -> Candidates:
    """What stage 1 lets through: local maxima of at least max(kappa times the peak, floor), at most `most` [ours].

    Everything else is filtered out: with one candidate left, stage 2 has nothing to decide.
    """
    if not (0 < kappa < 1 and most >= 1 and window % 2 == 1):
        raise InputError(f"need 0 < kappa < 1, most >= 1, an odd window; got {kappa}, {most}, {window}")
    kept = peaks(scores, kappa, floor, window)
    values, flat = torch.where(kept, scores, scores.new_tensor(-torch.inf)).flatten(1).topk(most)
    columns = scores.shape[2]
    valid = values > -torch.inf
    return Candidates(torch.stack([flat % columns, flat // columns], -1), values.masked_fill(~valid, 0.0), valid)


def peaks(
    scores: Float[Tensor, "batch rows columns"], kappa: float, floor: float, window: int
) -> Bool[Tensor, "batch rows columns"]:
    """Cells that are the largest of their neighbourhood and above max(kappa times the peak, floor)."""
    around = F.max_pool2d(scores[:, None], window, 1, window // 2)[:, 0]
    least = (kappa * scores.amax((1, 2))).clamp_min(floor)
    return (scores == around) & (scores > least[:, None, None])


class State(IntEnum):
    """What a score map says about the target [peer code: ATOM]."""

    NORMAL = 0
    HARD_NEGATIVE = 1  # a distractor answers: learn from this frame, and at once
    UNCERTAIN = 2  # two places answer alike: follow the stronger, learn nothing
    NOT_FOUND = 3  # nothing answers: stay, learn nothing


def localise(
    scores: Float[Tensor, "batch rows columns"],
    target: Float[Tensor, "batch 2"],
    previous: Float[Tensor, "batch 2"],
    search: float = 5.0,
) -> tuple[Float[Tensor, "batch 2"], Tensor]:
    """The target's place (column, row) and state, from the two strongest separate peaks [peer code: ATOM].

    Args:
        target: width and height of the target in cells; a mask of 2.2 targets around the first peak hides it for the
            second.
        previous: where the target was, column and row.
        search: side of the search area in targets.
    """
    first, s1 = _peak(scores)
    rows = torch.arange(scores.shape[1], device=scores.device)
    columns = torch.arange(scores.shape[2], device=scores.device)
    hidden = ((rows - first[:, 1, None]).abs() <= 1.1 * target[:, 1, None])[:, :, None] & (
        (columns - first[:, 0, None]).abs() <= 1.1 * target[:, 0, None]
    )[:, None, :]
    second, s2 = _peak(scores.masked_fill(hidden, -torch.inf))
    reach = 0.8 * target.prod(1).sqrt() * search / 2
    far1, far2 = (first - previous).norm(dim=1) > reach, (second - previous).norm(dim=1) > reach
    close = s2 > 0.8 * s1
    position = torch.where((close & far1 & ~far2)[:, None], second, first)
    state = torch.full_like(s1, State.NORMAL, dtype=torch.int64)
    state[(s2 > 0.5 * s1) & (s2 > 0.25)] = State.HARD_NEGATIVE
    state[close & (far1 == far2)] = State.UNCERTAIN
    state[close & (far1 != far2)] = State.HARD_NEGATIVE
    state[s1 < 0.25] = State.NOT_FOUND
    return torch.where((state == State.NOT_FOUND)[:, None], previous, position), state


def _peak(scores: Tensor) -> tuple[Tensor, Tensor]:
    value, flat = scores.flatten(1).max(1)
    return torch.stack([flat % scores.shape[2], flat // scores.shape[2]], 1).to(scores.dtype), value
