"""Do the bounds hold, and how often? Thousands of samples of the enumeration toy, all 256 hypotheses at once."""

from dataclasses import asdict, dataclass

import numpy as np
import torch

from labkit.errors import InputError
from labkit.papers.itid.method import bounds, measures
from labkit.papers.itid.method.task import NuisanceLaw, all_hypotheses, toy_task, zero_one

D = 0.1  # the bounds may fail in one sample of ten
TRAINING_RHO, TARGET_RHO = (0.9, 0.8), 0.1  # colour agrees with the label in 90 and 80 % of the data, then in 10 %


@dataclass(frozen=True)
class Coverage:
    """Rates are shares of the samples; risks and iota are means over them of what the learner picked.

    erm_*: ERM over all hypotheses; invariant_*: over the 16 invariant ones; rerendered_*: over all, on data whose
    nuisance was drawn anew. *_violations: samples in which the bound fails for at least one hypothesis.
    """

    n: int
    penalty: float
    invariant_penalty: float
    itid_violations: float
    iid_violations: float
    invariant_violations: float
    rerendered_violations: float
    erm_train: float
    erm_target: float
    erm_iota: float
    invariant_target: float
    rerendered_target: float

    def as_json(self) -> dict[str, float | int]:
        return asdict(self)


def measure_coverage(n: int, samples: int, seed: int) -> Coverage:
    """Half of the data with rho = .9, half with .8, target rho = .1, d = .1 (sheet of checks 4.2 and 4.3, [ours])."""
    if samples < 1:
        raise InputError(f"at least one sample is needed; got {samples}.")
    task, generator = toy_task(), np.random.default_rng(seed)
    hypotheses = all_hypotheses(4, 2)
    losses = zero_one(hypotheses, 2)
    laws, target = [NuisanceLaw.aligned(rho, 4) for rho in TRAINING_RHO], NuisanceLaw.aligned(TARGET_RHO, 4)
    fresh = NuisanceLaw.aligned(0.5, 4)  # U of Theorem 8
    iotas = torch.stack([measures.iota(task, losses, law, target) for law in laws]).mean(0)
    fresh_iotas = measures.iota(task, losses, fresh, target)
    truth = task.risk(losses, target)
    invariant = measures.oscillation(task, losses) == 0
    seen: dict[str, list[float]] = {name: [] for name in Coverage.__dataclass_fields__ if "penalty" not in name}
    for _ in range(samples):
        counts = task.sample_counts(laws, n, generator) / n
        risks = torch.einsum("cyz,hcyz->h", counts, losses)
        rerendered = torch.einsum("cy,cyz,hcyz->h", counts.sum(-1), fresh.table, losses)
        erm, best = int(risks.argmin()), int(torch.where(invariant, risks, 2.0).argmin())
        seen["n"].append(n)
        seen["itid_violations"].append(_fails(truth, bounds.itid_bound(risks, iotas, n, D)))
        seen["iid_violations"].append(_fails(truth, bounds.iid_bound(risks, n, D)))
        seen["invariant_violations"].append(_fails(truth[invariant], bounds.iid_bound(risks[invariant], n, D)))
        seen["rerendered_violations"].append(_fails(truth, bounds.rerendered_bound(rerendered, fresh_iotas, n, D)))
        seen["erm_train"].append(float(risks[erm]))
        seen["erm_target"].append(float(truth[erm]))
        seen["erm_iota"].append(float(iotas[erm]))
        seen["invariant_target"].append(float(truth[best]))
        seen["rerendered_target"].append(float(truth[int(rerendered.argmin())]))
    means = {name: float(np.mean(values)) for name, values in seen.items()} | {"n": n}
    return Coverage(
        penalty=bounds.deviation(n, D, len(hypotheses)),
        invariant_penalty=bounds.deviation(n, D, int(invariant.sum())),
        **means,  # type: ignore[arg-type]
    )


def _fails(truth: torch.Tensor, bound: torch.Tensor) -> float:
    return float(bool((truth > bound + 1e-12).any()))
