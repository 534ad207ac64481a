"""Properties that tell a right implementation from a wrong one. One check, three uses: test, exercise, mutants.

Each takes the candidate as its argument and raises AssertionError, in words a student can act on.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit.papers.itid.method import bounds, measures
from labkit.papers.itid.method.modifiers import g_statistic
from labkit.papers.itid.method.task import NuisanceLaw, Task, all_hypotheses, random_law, toy_task, zero_one
from labkit.workbench.exercises import close, number

G_LIMIT = 126.08  # 99.9 % quantile of chi-squared with 81 degrees of freedom


def check_iota(iota: Callable[[Tensor, Tensor, Tensor, Tensor], Any]) -> None:
    """`iota(p, f, q, q2)`: p (c, y), f and laws (c, y, z); mean over (c, y) of |difference of means over z|."""
    generator, task = np.random.default_rng(0), toy_task()
    losses = zero_one(all_hypotheses(4, 2), 2)
    q, q2 = random_law(task, 2, 1.0, generator), random_law(task, 2, 1.0, generator)
    wanted = measures.iota(task, losses, q, q2)
    for h in (37, 137, 201, 255):
        got = iota(task.law, losses[h], q.table, q2.table)
        gap = float((task.risk(losses[h : h + 1], q) - task.risk(losses[h : h + 1], q2)).abs())
        assert float(got) >= gap - 1e-12, f"iota must not be below the gap of the risks: {float(got):.4f} < {gap:.4f}."
        close(got, wanted[h], "iota is E_(c,y) |E_Q f - E_Q' f|: the absolute value stands inside of the mean.")


def check_osc_times_tv(bound: Callable[[Tensor, Tensor, Tensor, Tensor], Any]) -> None:
    """`bound(p, f, q, q2)`, the right-hand side of Theorem 1: never below iota, and reached."""
    generator, task = np.random.default_rng(1), toy_task()
    losses = zero_one(all_hypotheses(4, 2), 2)
    for _ in range(20):
        q, q2 = random_law(task, 2, 0.5, generator), random_law(task, 2, 0.5, generator)
        wanted = measures.oscillation_times_tv(task, losses, q, q2)
        for h in (37, 137, 201):
            close(bound(task.law, losses[h], q.table, q2.table), wanted[h],
                   "The bound is E[(max f - min f) * TV]; TV is *half* the sum of absolute differences.")  # fmt: skip


def check_extreme_laws(laws: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
    """`laws(f)` for losses f (c, y, z): two laws (c, y, z) between which the risk changes by exactly Omega."""
    task = toy_task()
    generator = torch.Generator().manual_seed(0)
    for trial in range(20):
        losses = torch.rand(4, 2, 3, generator=generator, dtype=torch.float64)
        both = laws(losses)
        assert isinstance(both, tuple), f"a pair of laws is asked for; got {type(both).__name__}"
        assert len(both) == 2, f"a pair of laws is asked for; got {len(both)} things"
        for law in both:
            assert law.shape == (4, 2, 3), f"a law has the shape of the losses, (4, 2, 3); got {tuple(law.shape)}"
            assert float(law.min()) >= 0, "probabilities are not negative"
            assert torch.allclose(law.sum(-1).double(), torch.ones(4, 2).double()), "each law adds up to 1 over z"
        first, second = (task.risk(losses[None], NuisanceLaw(law.double())) for law in both)
        omega = float(measures.oscillation(task, losses[None]))
        gap = float((first - second).abs())
        assert abs(gap - omega) < 1e-9, f"the risks differ by {gap:.4f}, and Omega is {omega:.4f} (case {trial})"


def example_data(n: int = 1200, rho: float = 0.98) -> tuple[Tensor, Tensor]:
    """Labels and colours that agree almost always."""
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 10, n)
    nuisance = np.where(generator.random(n) < rho, labels, generator.integers(0, 10, n))
    return torch.from_numpy(labels), torch.from_numpy(nuisance)


def check_swap(swap: Callable[[Tensor, Tensor, torch.Generator], Tensor]) -> None:
    """`swap(labels, nuisance, generator)` gives the new nuisance: the same histogram, independent of the label."""
    labels, nuisance = example_data()
    kept = labels.clone()
    generator = torch.Generator().manual_seed(0)
    results = [swap(labels, nuisance, generator) for _ in range(40)]
    assert torch.equal(labels, kept), "The labels must stay as they are: only the nuisance is swapped."
    for result in results:
        assert torch.equal(result.sort().values, nuisance.sort().values), (
            "The histogram of the nuisance must stay: every z is handed on exactly once."
        )
    assert not torch.equal(results[0], results[1]), "Draw anew in every call: the generator is there to be used."
    worst, mean = (f([g_statistic(labels, r)[0] for r in results]) for f in (max, np.mean))
    assert worst < 3 * G_LIMIT, f"z still tells the label: G = {worst:.0f}, with 81 degrees of freedom about 81."
    assert 70 < mean < 100, f"G is {mean:.0f} on average; independence gives about 83."


def check_variance_penalty(penalty: Callable[[Tensor], Any]) -> None:
    """`penalty(risks)` for the risks of the environments: their biased variance, and nothing else."""
    close(penalty(torch.tensor([0.7, 0.7, 0.7])), 0.0, "Equal risks cost nothing.", 1e-6)
    close(penalty(torch.tensor([0.2, 0.8])), 0.09, "Two risks .2 and .8: .3 squared, .09.", 1e-6)
    close(penalty(torch.tensor([0.1, 0.4, 1.0])), 0.14,
           "Three risks .1, .4, 1: mean squared distance .14; divide by the number, not one less.", 1e-6)  # fmt: skip
    risks = torch.tensor([0.3, 0.9, 0.6], requires_grad=True)
    value = penalty(risks)
    assert isinstance(value, Tensor), "the gradient must be able to pass: return a tensor"
    assert value.requires_grad, "the gradient must be able to pass: nothing may be detached"
    value.backward()
    assert risks.grad is not None
    close(risks.grad, 2 / 3 * (risks.detach() - 0.6).double(), "d penalty / d R_e = 2 (R_e - mean) / E.", 1e-6)


def check_phase_transition(below: Any, above: Any) -> None:
    """The test accuracies at rho = .65 and .75, where 30 % of the labels are noise and test rho is .2."""
    for rho, got in ((0.65, below), (0.75, above)):
        wanted = bounds.two_colour_accuracies(rho, 0.3, 0.2)[1]
        number(wanted, 0.01, f"at rho = {rho} the Bayes classifier has another accuracy than {got}")(got)


def order_of_couplings() -> float:
    """The largest violation of Lemma 0 over many random problems with three labels; at most rounding."""
    generator, worst = np.random.default_rng(1), -1.0
    hypotheses = torch.from_numpy(generator.integers(0, 3, (200, 3, 4)))
    task_law = torch.from_numpy(generator.dirichlet(np.ones(9)).reshape(3, 3))
    task, losses = Task(task_law), zero_one(hypotheses, 3)
    for _, concentration in itertools.product(range(20), (0.2, 1.0)):
        q, q2 = (random_law(task, 4, concentration, generator) for _ in range(2))
        iota = measures.iota(task, losses, q, q2)
        tv = measures.tv_prediction(task, hypotheses, q, q2)
        gap = (task.risk(losses, q) - task.risk(losses, q2)).abs()
        delta, omega = measures.delta(task, hypotheses, q, q2), measures.oscillation(task, losses)
        links = (gap - iota, iota - tv, tv - delta, iota - omega)
        worst = max(worst, *(float(link.max()) for link in links))
    return worst
