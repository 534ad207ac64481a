"""Four measures of how far a hypothesis is from invariant, exact on finite spaces and estimated from predictions.

    |R_Q - R_Q'| <= iota <= min{ tv_prediction, E[osc_z f * TV(Q, Q')] },   tv_prediction <= delta,   iota <= Omega

(Lemma 0 and Theorem 1, [ours].) *Proof.* First step: the triangle inequality under E_(c,y). iota <= E[osc * TV]: for
fixed (c, y) subtract the midpoint m of f's range, |sum (Q - Q')(f - m)| <= ||Q - Q'||_1 osc / 2 = osc * TV. The others:
|E f(z) - E f(z')| <= P(f(z) != f(z')) <= P(h != h') under *any* coupling of z ~ Q and z' ~ Q'; the best coupling of the
two predictions gives tv_prediction, the independent one gives delta.

The product is the message: make h invariant (osc -> 0), or make the distributions agree (TV -> 0).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from labkit.errors import InputError
from labkit.metrics.intervals import Interval, wilson
from labkit.papers.itid.method.task import NuisanceLaw, Task

Losses = Float[Tensor, "hypotheses contents labels nuisances"]
Hypotheses = Int[Tensor, "hypotheses contents nuisances"]
PerHypothesis = Float[Tensor, " hypotheses"]

# -- exact, for all hypotheses at once --------------------------------------------------------------------------------


def iota(task: Task, losses: Losses, q: NuisanceLaw, q2: NuisanceLaw) -> PerHypothesis:
    """iota(h; Q, Q') = E_(c,y) |E_Q f_h - E_Q' f_h|: the sharpest."""
    return torch.einsum("cy,hcy->h", task.law, ((q.table - q2.table) * losses).sum(-1).abs())


def total_variation(q: NuisanceLaw, q2: NuisanceLaw) -> Float[Tensor, "contents labels"]:
    """TV(Q, Q' | c, y), half the sum of absolute differences."""
    return (q.table - q2.table).abs().sum(-1) / 2


def prediction_law(hypotheses: Hypotheses, q: NuisanceLaw) -> Float[Tensor, "hypotheses contents labels predictions"]:
    """The law of h(g(c, z)) for z ~ Q(. | c, y)."""
    predictions = torch.nn.functional.one_hot(hypotheses, q.table.shape[1]).to(q.table.dtype)
    return torch.einsum("cyz,hczp->hcyp", q.table, predictions)


def tv_prediction(task: Task, hypotheses: Hypotheses, q: NuisanceLaw, q2: NuisanceLaw) -> PerHypothesis:
    """E_(c,y) TV(h#Q, h#Q'): the best coupling of the predictions."""
    apart = (prediction_law(hypotheses, q) - prediction_law(hypotheses, q2)).abs().sum(-1) / 2
    return torch.einsum("cy,hcy->h", task.law, apart)


def delta(task: Task, hypotheses: Hypotheses, q: NuisanceLaw, q2: NuisanceLaw) -> PerHypothesis:
    """P(h(g(c, z)) != h(g(c, z'))), z ~ Q and z' ~ Q' independent given (c, y): the practical one, without labels."""
    same = (prediction_law(hypotheses, q) * prediction_law(hypotheses, q2)).sum(-1)
    return torch.einsum("cy,hcy->h", task.law, 1 - same)


def oscillation(task: Task, losses: Losses) -> PerHypothesis:
    """Omega(h) = E_(c,y)[max_z f_h - min_z f_h]: the worst case over all laws."""
    return torch.einsum("cy,hcy->h", task.law, losses.amax(-1) - losses.amin(-1))


def oscillation_by_label(task: Task, losses: Losses) -> PerHypothesis:
    """Omega_y(h) = sum_y P(y) [max_z E(f | y, z) - min_z E(f | y, z)]: the worst case over laws Q(z | y)."""
    given_label = torch.einsum("cy,hcyz->hyz", task.law, losses)  # P(y) E(f | y, z)
    return (given_label.amax(-1) - given_label.amin(-1)).sum(-1)


def oscillation_times_tv(task: Task, losses: Losses, q: NuisanceLaw, q2: NuisanceLaw) -> PerHypothesis:
    """E_(c,y)[osc_z f_h * TV(Q, Q')], the right-hand side of Theorem 1."""
    weight = task.law * total_variation(q, q2)
    return torch.einsum("cy,hcy->h", weight, losses.amax(-1) - losses.amin(-1))


# -- of a trained network, from its predictions on re-rendered data ----------------------------------------------------


@dataclass(frozen=True)
class LawChange:
    """Effect of changing the nuisance law from Q to Q' on one network: means over the data, in [0, 1].

    risk, risk2: under Q and under Q'. gap: their distance. The others: as the functions above.
    """

    risk: float
    risk2: float
    gap: float
    iota: float
    tv_prediction: float
    delta: float
    oscillation: float
    oscillation_times_tv: float

    @property
    def slack(self) -> float:
        """iota - gap: Theorem 1 says that it is never negative."""
        return self.iota - self.gap


def measure_law_change(
    predictions: Int[Tensor, "n nuisances"],
    labels: Int[Tensor, " n_labels"],
    q: Float[Tensor, "n nuisances"],
    q2: Float[Tensor, "n nuisances"],
) -> LawChange:
    """All measures at once, exact in z: each datum was rendered with *every* nuisance.

    Args:
        predictions: label predicted for datum i rendered with nuisance z. Held-out data, never training data.
        q, q2: nuisance laws, one row per datum.
    """
    wrong = _wrong(predictions, labels)
    for name, law in (("q", q), ("q2", q2)):
        if bool((law.sum(1) - 1).abs().gt(1e-5).any()) or bool((law < 0).any()):
            raise InputError(f"{name} must hold one law per datum: not negative, each row adding up to 1.")
    wrong, q, q2 = wrong.double(), q.double(), q2.double()
    q, q2 = q / q.sum(1, keepdim=True), q2 / q2.sum(1, keepdim=True)  # single precision adds up to 1 only nearly
    risks, risks2 = (wrong * q).sum(1), (wrong * q2).sum(1)
    one_hot = torch.nn.functional.one_hot(predictions).double()
    of_q, of_q2 = (one_hot * q[..., None]).sum(1), (one_hot * q2[..., None]).sum(1)
    oscillation = wrong.amax(1) - wrong.amin(1)
    apart = (q - q2).abs().sum(1) / 2
    return LawChange(
        risk=float(risks.mean()),
        risk2=float(risks2.mean()),
        gap=float((risks.mean() - risks2.mean()).abs()),
        iota=float((risks - risks2).abs().mean()),
        tv_prediction=float(((of_q - of_q2).abs().sum(1) / 2).mean()),
        delta=max(0.0, float((1 - (of_q * of_q2).sum(1)).mean())),
        oscillation=float(oscillation.mean()),
        oscillation_times_tv=float((oscillation * apart).mean()),
    )


def _wrong(predictions: Int[Tensor, "n nuisances"], labels: Int[Tensor, " n_labels"]) -> Bool[Tensor, "n nuisances"]:
    if len(predictions) != len(labels) or len(labels) == 0:
        raise InputError(f"one label per row of predictions is needed; got {len(labels)} and {len(predictions)}.")
    return predictions != labels[:, None]


def estimate_delta(predictions: Int[Tensor, " n"], rerendered: Int[Tensor, " n_too"]) -> Interval:
    """delta without labels: the share of data whose prediction changes when they are rendered anew, with its interval.

    Args:
        predictions, rerendered: for the same contents with z ~ Q and with an independent z' ~ Q'; held-out data.
    """
    if predictions.shape != rerendered.shape:
        raise InputError(f"both renderings must have the same data; got {len(predictions)} and {len(rerendered)}.")
    return wilson(int((predictions != rerendered).sum()), len(predictions))
