"""Objectives: ERM, and the rivals, which change the loss instead of the data. Exact forms of the peers' codes.

Every loss is a function of the logits, (*networks, batch, classes), and gives one number per network; with one class
it is the binary cross-entropy of y = 1. Environment means are taken over the data of an environment in the batch.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from labkit.errors import InputError

Logits = Float[Tensor, "*networks batch classes"]
PerDatum = Float[Tensor, "*networks batch"]
PerNetwork = Float[Tensor, "*networks"]


@dataclass(frozen=True, eq=False)
class Targets:
    """What a loss depends on besides the logits; fields as in `Batch`, stacked over networks. partner: logits."""

    labels: Int[Tensor, "*networks batch"]
    weights: PerDatum
    environment: Int[Tensor, "*networks batch"]
    nuisance: Int[Tensor, "*networks batch"]
    environments: int
    nuisances: int
    second_labels: Int[Tensor, "*networks batch"] | None = None
    mix: PerDatum | None = None
    partner: Logits | None = None


def cross_entropy(logits: Logits, labels: Int[Tensor, "*networks batch"]) -> PerDatum:
    """The loss of each datum."""
    if logits.shape[-1] == 1:
        return F.binary_cross_entropy_with_logits(logits[..., 0], labels.to(logits.dtype), reduction="none")
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none").view(labels.shape)


def sample_losses(logits: Logits, targets: Targets) -> PerDatum:
    """Weighted loss of each datum; of mixed data, the mixture of two losses."""
    losses = cross_entropy(logits, targets.labels)
    if targets.mix is not None and targets.second_labels is not None:
        losses = targets.mix * losses + (1 - targets.mix) * cross_entropy(logits, targets.second_labels)
    return targets.weights * losses


def group_means(values: PerDatum, group: Int[Tensor, "*networks batch"], groups: int) -> tuple[Tensor, Tensor]:
    """Mean of `values` in each group, and which groups have data; both (*networks, groups)."""
    return masked_means(values, F.one_hot(group, groups).to(values.dtype))


def masked_means(values: PerDatum, member: Tensor) -> tuple[Tensor, Tensor]:
    """The same for groups given as a mask (*networks, batch, groups)."""
    counts = member.sum(-2)
    return (values[..., None] * member).sum(-2) / counts.clamp(min=1), counts > 0


def mean_of_present(values: Tensor, present: Tensor) -> Tensor:
    """Mean over the last axis where `present`."""
    return (values * present).sum(-1) / present.sum(-1)


def scale_gradients(logits: Logits, labels: Int[Tensor, "*networks batch"]) -> PerDatum:
    """d/dw l(w * logits, y) at w = 1 for each datum, in closed form: <softmax(o), o> - o_y, or (sigmoid(o) - y) o.

    No second autograd graph is needed, and it is differentiable.
    """
    if logits.shape[-1] == 1:
        o = logits[..., 0]
        return (o.sigmoid() - labels) * o
    expected = (logits.softmax(-1) * logits).sum(-1)
    return expected - logits.gather(-1, labels[..., None])[..., 0]


def irm_penalty(logits: Logits, targets: Targets) -> PerNetwork:
    """mean_e (d/dw R_e(w logits) at w = 1)^2: the square of the whole environment's gradient [official code of IRM]."""
    slopes, present = group_means(scale_gradients(logits, targets.labels), targets.environment, targets.environments)
    return mean_of_present(slopes**2, present)


def irm_split_penalty(logits: Logits, targets: Targets) -> PerNetwork:
    """mean_e g_even g_odd, gradients of every other datum of an environment: unbiased, and *can be negative*.

    [peer code: DomainBed, WILDS]
    """
    slopes = scale_gradients(logits, targets.labels)
    member = F.one_hot(targets.environment, targets.environments)
    rank = (member.cumsum(-2) * member).sum(-1) - 1  # the datum's number within its environment
    (even, has_even), (odd, has_odd) = (masked_means(slopes, member * (rank % 2 == half)[..., None]) for half in (0, 1))
    present = has_even & has_odd
    return (even * odd * present).sum(-1) / present.sum(-1).clamp(min=1)


def variance_penalty(logits: Logits, targets: Targets) -> PerNetwork:
    """V-REx: mean_e (R_e - mean)^2, the biased variance of the environments' risks [peer code]."""
    risks, present = group_means(sample_losses(logits, targets), targets.environment, targets.environments)
    mean = mean_of_present(risks, present)
    return mean_of_present((risks - mean[..., None]) ** 2, present)


def environment_risk(logits: Logits, targets: Targets) -> PerNetwork:
    """mean_e R_e: not the pooled mean where environments have different sizes."""
    return mean_of_present(*group_means(sample_losses(logits, targets), targets.environment, targets.environments))


# -- objectives: called as objective(logits, targets, step) -----------------------------------------------------------


@dataclass
class ERM:
    """The mean of the weighted losses: what Algorithm IE minimises, too."""

    def __call__(self, logits: Logits, targets: Targets, step: int) -> PerNetwork:
        return sample_losses(logits, targets).mean(-1)

    def divisor(self, step: int) -> float:
        """By what the loss and its L2 term are divided."""
        return 1.0


@dataclass
class Penalized:
    """mean_e R_e + lam * penalty. lam is 1 before step `anneal`; afterwards the loss is divided by it [official code].

    Args:
        kind: 'irm', 'irm-split' or 'vrex'.
        rescale: divide by lam; without it (DomainBed) the optimiser must be started anew at `anneal`, or Adam's moments
            blow up. The training loop does that.
    """

    kind: str
    lam: float
    anneal: int = 0
    rescale: bool = True

    def __post_init__(self) -> None:
        if self.kind not in PENALTIES:
            raise InputError(f"kind must be one of {', '.join(PENALTIES)}; got {self.kind!r}.")
        if self.lam < 0 or self.anneal < 0:
            raise InputError(f"lam and anneal are not negative; got {self.lam} and {self.anneal}.")

    def strength(self, step: int) -> float:
        return self.lam if step >= self.anneal else 1.0

    def __call__(self, logits: Logits, targets: Targets, step: int) -> PerNetwork:
        return environment_risk(logits, targets) + self.strength(step) * PENALTIES[self.kind](logits, targets)

    def divisor(self, step: int) -> float:
        return max(1.0, self.strength(step)) if self.rescale else 1.0


PENALTIES = {"irm": irm_penalty, "irm-split": irm_split_penalty, "vrex": variance_penalty}


@dataclass
class GroupDRO:
    """q_g *= exp(eta R_g), normalised, loss sum_g q_g R_g; the weights q see the risks detached.

    Args:
        by: 'environment' (DomainBed) or 'label-nuisance', the groups of Sagawa et al. Groups that a batch lacks keep
            their q and add nothing, and the sum is divided by the q of those present.
    """

    by: str = "environment"
    eta: float = 0.1
    q: Tensor = field(default_factory=lambda: torch.empty(0))

    def __post_init__(self) -> None:
        if self.by not in ("environment", "label-nuisance"):
            raise InputError(f"groups are made by 'environment' or 'label-nuisance'; got {self.by!r}.")
        if self.eta < 0:
            raise InputError(f"eta is not negative; got {self.eta}.")

    def __call__(self, logits: Logits, targets: Targets, step: int) -> PerNetwork:
        group, groups = targets.environment, targets.environments
        if self.by == "label-nuisance":
            classes = max(2, logits.shape[-1])
            group, groups = targets.labels * targets.nuisances + targets.nuisance, classes * targets.nuisances
        risks, present = group_means(sample_losses(logits, targets), group, groups)
        if not self.q.numel():
            self.q = torch.full_like(risks, 1 / groups).detach()
        self.q = (self.q * (self.eta * risks.detach()).exp()).to(risks)
        self.q = self.q / self.q.sum(-1, keepdim=True)
        return (self.q * risks * present).sum(-1) / (self.q * present).sum(-1).clamp(min=1e-8)

    def divisor(self, step: int) -> float:
        return 1.0

    def state_dict(self) -> dict[str, Any]:
        return {"q": self.q}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.q = state_dict["q"]


@dataclass
class Consistency:
    """CE + lam * mean |logits(x) - logits(x~)|^2 over data and classes; x~ comes from `Paired`."""

    lam: float = 1.0

    def __call__(self, logits: Logits, targets: Targets, step: int) -> PerNetwork:
        if targets.partner is None:
            raise InputError("the consistency penalty needs a second view of the data; wrap a modifier in Paired.")
        return sample_losses(logits, targets).mean(-1) + self.lam * ((logits - targets.partner) ** 2).mean((-2, -1))

    def divisor(self, step: int) -> float:
        return 1.0


Objective = ERM | Penalized | GroupDRO | Consistency
