"""How often the bounds fail: thousands of samples of the enumeration toy, all 256 hypotheses at once."""

import numpy as np
import torch

from labkit.errors import InputError
from labkit.papers.itid.method import bounds, measures
from labkit.papers.itid.method.task import NuisanceLaw, all_hypotheses, toy_task, zero_one

D = 0.1  # the bounds may fail in one sample of ten
SIZES = (50, 200, 800)
TRAINING_RHO, TARGET_RHO = (0.9, 0.8), 0.1  # colour agrees with the label in 90 and 80 % of the data, then in 10 %


def coverage_by_size(samples: int, seed: int) -> dict[str, dict[str, int | float]]:
    """`measure_coverage` at each sample size of `SIZES`."""
    return {str(n): measure_coverage(n, samples, seed) for n in SIZES}


def measure_coverage(n: int, samples: int, seed: int) -> dict[str, int | float]:
    """Half of the data with rho = .9, half with .8, target rho = .1, d = .1 (sheet of checks 4.2 and 4.3, [ours]).

    Returns:
        penalty, invariant_penalty: sqrt(ln(|H| / d) / (2n)) for all hypotheses and for the invariant ones.
        *_violations: share of the samples in which a bound fails for at least one hypothesis.
        erm_*: of ERM over all hypotheses, the mean training risk, target risk and iota; invariant_target: target risk
        of ERM over the 16 invariant hypotheses; rerendered_target: of ERM over all, on data with their nuisance drawn
        anew from a fixed law.
    """
    if samples < 1:
        raise InputError(f"at least one sample is needed; got {samples}.")
    task, generator = toy_task(), np.random.default_rng(seed)
    hypotheses = all_hypotheses(4, 2)
    losses = zero_one(hypotheses, 2)
    laws, target = [NuisanceLaw.aligned(rho, 4) for rho in TRAINING_RHO], NuisanceLaw.aligned(TARGET_RHO, 4)
    fixed = NuisanceLaw.aligned(0.5, 4)  # U of Theorem 8
    iotas = torch.stack([measures.iota(task, losses, law, target) for law in laws]).mean(0)
    fixed_iotas = measures.iota(task, losses, fixed, target)
    truth = task.risk(losses, target)
    invariant = measures.oscillation(task, losses) == 0
    rows = []
    for _ in range(samples):
        frequencies = task.sample_counts(laws, n, generator) / n
        risks = torch.einsum("cyz,hcyz->h", frequencies, losses)
        rerendered = torch.einsum("cy,cyz,hcyz->h", frequencies.sum(-1), fixed.table, losses)
        erm, best_invariant = int(risks.argmin()), int(torch.where(invariant, risks, 2.0).argmin())
        rows.append({
            "itid_violations": _fails(truth, bounds.itid_bound(risks, iotas, n, D)),
            "iid_violations": _fails(truth, bounds.iid_bound(risks, n, D)),
            "invariant_violations": _fails(truth[invariant], bounds.iid_bound(risks[invariant], n, D)),
            "rerendered_violations": _fails(truth, bounds.rerendered_bound(rerendered, fixed_iotas, n, D)),
            "erm_train": float(risks[erm]),
            "erm_target": float(truth[erm]),
            "erm_iota": float(iotas[erm]),
            "invariant_target": float(truth[best_invariant]),
            "rerendered_target": float(truth[int(rerendered.argmin())]),
        })  # fmt: skip
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    penalties = (bounds.deviation(n, D, count) for count in (len(hypotheses), int(invariant.sum())))
    return {"n": n, **dict(zip(("penalty", "invariant_penalty"), penalties, strict=True)), **means}


def _fails(truth: torch.Tensor, bound: torch.Tensor) -> float:
    return float(bool((truth > bound + 1e-12).any()))
