"""The notebook's "your turn" cells: tasks, checks, solutions and known wrong answers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from labkit import devices
from labkit.papers.sher.experiment.config import EXPERIMENTS
from labkit.papers.sher.experiment.stacks import Copy
from labkit.papers.sher.experiment.train import fit_unkept
from labkit.papers.sher.method.hindsight import STRATEGIES, hindsight_time
from labkit.papers.sher.teaching import checks
from labkit.rl.gaussian import log_tanh_slope
from labkit.workbench.exercises import Exercise, pair

# -- find the bug -----------------------------------------------------------------------------------------------------


def broken_relabelling(batch: dict[str, Tensor], goal: Tensor) -> dict[str, Tensor]:
    """The transitions of `batch` as they would be stored if `goal` had been asked for."""
    return {**batch, "goal": goal}


def relabel(batch: dict[str, Tensor], goal: Tensor) -> dict[str, Tensor]:
    return {**batch, "goal": goal, "reward": checks.reward_of(batch["next_achieved"], goal)}


def relabel_in_place(batch: dict[str, Tensor], goal: Tensor) -> dict[str, Tensor]:
    batch["goal"].copy_(goal)
    batch["reward"].copy_(checks.reward_of(batch["next_achieved"], goal))
    return batch


def relabel_as_reached(batch: dict[str, Tensor], goal: Tensor) -> dict[str, Tensor]:
    return {**batch, "goal": goal, "reward": torch.zeros_like(batch["reward"])}


# -- fill in: the soft backup -----------------------------------------------------------------------------------------


def soft_backup(q: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    return alpha * torch.logsumexp(q / alpha, -1), torch.softmax(q / alpha, -1)


def without_entropy(q: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    policy = torch.softmax(q / alpha, -1)
    return (policy * q).sum(-1), policy


# -- ablation: which goals to relabel with ----------------------------------------------------------------------------


def success_with(strategy: str, k: float, seed: int = 0) -> float:
    """Mean success of three Q-learners on rows of nine bits after 160 episodes with these goals."""
    bits = EXPERIMENTS["bits"]
    arm = replace(bits.arms["hindsight"], strategy=strategy, k=k)
    stack = [Copy("yours", arm, "", r, seed) for r in range(3)]
    with devices.one_thread():
        _, _, curve = fit_unkept(replace(bits, size=9, cycles=20, updates=40, evaluate_every=20), stack)
    return sum(curve.rates[-1]) / 3


def check_choice(choice: Any) -> None:
    assert isinstance(choice, Mapping), "a dictionary is asked for, such as {'strategy': 'none', 'k': 4}"
    assert {"strategy", "k"} <= choice.keys(), "a dictionary with 'strategy' and 'k' is asked for"
    assert choice["strategy"] in STRATEGIES, f"strategy must be one of {', '.join(STRATEGIES)}"
    assert float(choice["k"]) >= 0, "k, the relabelled transitions per original one, must be at least 0"


def check_learns(choice: Mapping[str, Any]) -> None:
    success = success_with(str(choice["strategy"]), float(choice["k"]))
    assert success >= 0.8, f"success {success:.2f} after 160 episodes; .80 is asked for"


EXERCISES = (
    Exercise(
        key="later",
        kind="fill in",
        task=(
            "Hindsight needs a later moment $t'$ of the same episode. `t` holds moments from 0 to $T-1$, `horizon` is "
            "$T$, and `u` holds uniform numbers in $[0, 1)$, one for each `t`. Return $t'$ as whole numbers, each of "
            "$t+1, \\dots, T$ with equal probability."
        ),
        properties={"evenly in t+1..T": checks.check_later_moments},
        solution=lambda t, horizon, u: hindsight_time("future", t, horizon, u),
        wrong={
            "with the present": lambda t, horizon, u: t + (u * (horizon - t + 1)).long(),
            "anywhere": lambda t, horizon, u: 1 + (u * horizon).long(),
            "never the last": lambda t, horizon, u: t + 1 + (u * (horizon - t - 1)).long(),
            "cut off at the end": lambda t, horizon, u: (t + 1 + (u * horizon).long()).clamp(max=horizon),
        },
        difficulty=1,
        minutes=5,
        hints=(
            "From moment t there are T - t moments left. Which of them does a uniform number in [0, 1) choose?",
            "`u * (horizon - t)` rounded down is 0 to T - t - 1, each as likely; the first moment allowed is t + 1.",
        ),
    ),
    Exercise(
        key="relabel",
        kind="find the bug",
        task=(
            "`batch` is a dictionary with `next_achieved`, `goal` and `reward`, one row for each transition. The "
            "function below should return the transitions as if `goal` had been asked for. A learner that uses it "
            "never improves. Find out why and write it anew."
        ),
        properties={"a relabelled batch": checks.check_relabelling},
        solution=relabel,
        wrong={
            "goal only": broken_relabelling,
            "always reached": relabel_as_reached,
            "overwrites what happened": relabel_in_place,
        },
        difficulty=2,
        minutes=10,
        hints=(
            "Which parts of a transition depend on the goal?",
            (
                "`checks.reward_of(batch['next_achieved'], goal)` says what the step is worth under a goal. Return "
                "a new dictionary."
            ),
        ),
    ),
    Exercise(
        key="log-slope",
        kind="fill in",
        task=(
            "Return $\\log(1-\\tanh^2u)$ for a tensor `u` of float32: right near 0, and finite and right at "
            "$u = \\pm 40$, where $\\tanh u$ rounds to 1."
        ),
        properties={"right and finite": checks.check_log_slope},
        solution=log_tanh_slope,
        wrong={
            "the definition": lambda u: torch.log(1 - torch.tanh(u) ** 2),
            "with 1e-6 [official code]": lambda u: torch.log(1 - torch.tanh(u) ** 2 + 1e-6),
            "half of it": lambda u: log_tanh_slope(u) / 2,
        },
        difficulty=2,
        minutes=10,
        hints=(
            "1 - tanh(u)^2 = 4 / (e^u + e^-u)^2. Take the logarithm before anything is computed.",
            "log(e^u + e^-u) = u + log(1 + e^(-2u)), and `torch.nn.functional.softplus(x)` is log(1 + e^x).",
        ),
    ),
    Exercise(
        key="soft-backup",
        kind="fill in",
        task=(
            "From `q`, of shape (states, actions), and `alpha` return the pair $(V, \\pi)$: the policy that maximises "
            "$\\mathbb E_\\pi[Q]+\\alpha H(\\pi)$ in each state, and the maximum. Derive it with a Lagrange "
            "multiplier for $\\sum_a\\pi(a)=1$."
        ),
        properties={"the best soft value and its policy": checks.check_soft_backup},
        solution=soft_backup,
        wrong={
            "the entropy forgotten": without_entropy,
            "the hard maximum": lambda q, alpha: (q.amax(-1), torch.nn.functional.one_hot(q.argmax(-1), 4).double()),
            "alpha inverted": lambda q, alpha: (torch.logsumexp(q * alpha, -1) / alpha, torch.softmax(q * alpha, -1)),
            "a uniform prior": lambda q, alpha: (
                alpha * (torch.logsumexp(q / alpha, -1) - torch.tensor(4.0).log()),
                torch.softmax(q / alpha, -1),
            ),
        },
        difficulty=3,
        minutes=15,
        hints=(
            "Set the derivative of sum pi Q - alpha sum pi log pi - mu (sum pi - 1) with respect to pi(a) to zero.",
            (
                "pi is proportional to exp(Q / alpha). Insert it: V is alpha times the logarithm of the normalising"
                " sum, which `torch.logsumexp` computes without overflow."
            ),
        ),
    ),
    Exercise(
        key="width",
        kind="predict, then run",
        task=(
            "In one state $Q(a)=-2(a-.3)^2$, and $\\alpha=.04$. A Gaussian policy is to maximise "
            "$\\mathbb E[Q]+\\alpha H$. Which mean and standard deviation does it have? Predict both before you "
            "calculate: does entropy move the mean?"
        ),
        properties={"mean and deviation of the best policy": pair(checks.check_width, "mean, standard deviation")},
        solution=(0.3, 0.1),
        wrong={"no width": (0.3, 0.0), "sigma = alpha / c": (0.3, 0.01), "towards the middle": (0.0, 0.1)},
        difficulty=2,
        minutes=10,
        hints=(
            (
                "For a Gaussian both parts are known: E[Q] depends on the mean and the variance, the entropy on the"
                " logarithm of the deviation."
            ),
            (
                "Maximise -2 ((mu - .3)^2 + sigma^2) + alpha log sigma: set the derivatives with respect to mu and "
                "sigma to zero."
            ),
        ),
    ),
    Exercise(
        key="strategy",
        kind="ablation",
        task=(
            "A relabelled transition gets the goal that was achieved at a moment $t'$. The strategies choose it so: "
            "`future`, after $t$; `final`, the last; `episode`, any of the same episode; `random`, any of any episode; "
            "`next`, $t+1$; `none` relabels nothing. `k` is the number of relabelled transitions for each original "
            "one. Before you run anything: with which strategies does Q-learning learn nothing? Then choose `strategy` "
            "and `k` so that it succeeds in 80 % of the tests on rows of nine bits after 160 episodes."
        ),
        properties={"a choice": check_choice, "it learns": check_learns},
        solution={"strategy": "future", "k": 4.0},
        wrong={
            "no hindsight": {"strategy": "none", "k": 4.0},
            "its own next state": {"strategy": "next", "k": 1e9},
            "k = 0": {"strategy": "future", "k": 0.0},
        },
        difficulty=1,
        minutes=5,
        hints=(
            "A learner tells actions apart by their rewards. Which strategies give it both rewards, -1 and 0?",
            (
                "Take goals from what the same episode achieved after the step, and several such copies of each"
                " transition."
            ),
        ),
    ),
)
