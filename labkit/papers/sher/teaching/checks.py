"""Properties that tell a right implementation from a wrong one. One check, three uses: test, exercise, mutants.

Each takes the candidate as its argument and raises AssertionError, in words a student can act on.
"""

import math
from collections.abc import Callable

import torch
from scipy import stats
from torch import Tensor

from labkit.papers.sher.method import soft_tabular
from labkit.papers.sher.method.hindsight import future_law
from labkit.workbench.exercises import close

ROWS = 100_000


def check_later_moments(law: Callable[[Tensor, int, Tensor], Tensor]) -> None:
    """`law(t, horizon, u)` gives t' in t+1..horizon, every one of them equally likely."""
    horizon = 20
    generator = torch.Generator().manual_seed(0)
    t = torch.randint(horizon, (ROWS,), generator=generator)
    u = torch.rand(ROWS, generator=generator)
    later = torch.as_tensor(law(t, horizon, u))
    assert later.shape == t.shape, f"one later moment per row: wanted {tuple(t.shape)}, got {tuple(later.shape)}"
    offset = (later - t).long()
    assert int(offset.min()) >= 1, "the present must not be drawn: t' starts at t + 1"
    assert int(later.max()) <= horizon, f"the episode has moments 0..{horizon}; you drew {int(later.max())}"
    assert int(later.max()) == horizon, "the last moment T is achieved, too: it must be possible"
    counts = torch.bincount(offset, minlength=horizon + 1)[1:]
    p = stats.chisquare(counts.numpy(), future_law(horizon).numpy() * ROWS).pvalue
    assert p > 1e-4, f"every moment of t+1..T must be equally likely; here P(t' = t+1) is {float(counts[0]) / ROWS:.3f}"


def check_relabelling(relabel: Callable[[dict[str, Tensor], Tensor], dict[str, Tensor]]) -> None:
    """`relabel(batch, goal)`: batch has next_achieved, goal, reward; a new dict with new goals *and* rewards."""
    generator = torch.Generator().manual_seed(0)
    achieved, old = torch.rand(200, 2, generator=generator), torch.rand(200, 2, generator=generator)
    new = torch.where(torch.arange(200)[:, None] % 2 == 0, achieved + 0.05, old)
    before = {"next_achieved": achieved, "goal": old.clone(), "reward": reward_of(achieved, old)}
    kept = {name: value.clone() for name, value in before.items()}
    after = relabel(before, new)
    assert all(torch.equal(before[name], kept[name]) for name in kept), "the stored batch must stay as it is"
    assert torch.equal(after["goal"], new), "the goal must be the new one"
    wrong = int((after["reward"] != reward_of(achieved, new)).sum())
    assert wrong == 0, f"{wrong} of 200 transitions differ from those that the environment gives under the new goal"


def reward_of(achieved: Tensor, goal: Tensor) -> Tensor:
    """-1 away from the goal, 0 within .15 of it."""
    return -((achieved - goal).norm(dim=-1) > 0.15).float()


def check_log_slope(slope: Callable[[Tensor], Tensor]) -> None:
    """`slope(u)` = log(1 - tanh(u)^2), right for small u and finite for large ones."""
    near = torch.linspace(-3, 3, 601)
    wanted = torch.log(1 - torch.tanh(near.double()) ** 2).float()
    close(slope(near), wanted, "At |u| < 3 it must be log(1 - tanh(u)^2).", 1e-4)
    far = torch.tensor([-40.0, -12.0, 12.0, 40.0])
    result = torch.as_tensor(slope(far))
    assert bool(torch.isfinite(result).all()), (
        "at |u| = 12 and 40 it must be finite: 1 - tanh(u)^2 is 0 in float32 there"
    )
    close(result, 2 * math.log(2) - 2 * far.abs(), "Far out it is 2 log 2 - 2|u|.", 1e-3)


def check_soft_backup(backup: Callable[[Tensor, float], tuple[Tensor, Tensor]]) -> None:
    """`backup(q, alpha)` gives V (states) and pi (states, actions) from Q (states, actions)."""
    q = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for alpha in (0.03, 0.5, 4.0):
        v, policy = backup(q, alpha)
        assert tuple(policy.shape) == (50, 4), f"the policy has the shape of Q, (50, 4); got {tuple(policy.shape)}"
        assert torch.allclose(policy.sum(-1), torch.ones(50).double()), "each row of the policy must add up to 1"
        own = (policy * q).sum(-1) - alpha * torch.special.xlogy(policy, policy).sum(-1)
        close(v, own, "V must be the policy's own soft value: E[Q - alpha log pi].", 1e-7)
        best = alpha * torch.logsumexp(q / alpha, -1)
        assert torch.allclose(v, best, atol=1e-8), (
            f"another policy is worth {float((best - v).max()):.3f} more at alpha = {alpha:g}"
        )


def check_width(mean: float, deviation: float, alpha: float = 0.04, curvature: float = 4.0, peak: float = 0.3) -> None:
    """Mean and standard deviation of the Gaussian that maximizes E[Q] + alpha H for Q = -c/2 (a - peak)^2."""
    assert abs(mean - peak) < 1e-6, f"another mean makes E[Q] larger and leaves the entropy alone; you said {mean:g}"
    wanted = optimal_width(alpha, curvature)
    assert abs(deviation - wanted) < 0.05 * wanted, (
        f"another deviation makes -c sigma^2 / 2 + alpha log sigma larger, with c = -Q''; you said {deviation:g}"
    )


def optimal_width(alpha: float, curvature: float) -> float:
    """Temperature is width: sigma^2 = alpha / |Q''|."""
    return math.sqrt(alpha / curvature)


def lab_values(alpha: float = 0.1, gamma: float = 0.98) -> tuple[float, float]:
    """Largest gap between soft and hard values on six bits, and its bound."""
    task = soft_tabular.bit_flip(6, stay=True)
    gap = soft_tabular.soft_values(task, alpha, gamma).v - soft_tabular.hard_values(task, gamma).v
    return float(gap.max()), soft_tabular.gap_bound(task, alpha, gamma)
