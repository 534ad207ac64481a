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


def relabel_goal_only(batch: dict[str, Tensor], goal: Tensor) -> dict[str, Tensor]:
    """Transitions as if `goal` had been the goal."""
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
        task="Return t' for `future`: moments t (0..T-1), the horizon T and uniform numbers u give one of t+1..T.",
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
        task="With this relabelling nothing is ever learned, although the goals are right. Find out why, and mend it.",
        properties={"goal and reward belong together": checks.check_relabelling},
        solution=relabel,
        wrong={
            "goal only": relabel_goal_only,
            "always reached": relabel_as_reached,
            "overwrites what happened": relabel_in_place,
        },
        difficulty=2,
        minutes=10,
        hints=(
            "A transition has five parts. Which of them depend on the goal?",
            (
                "`checks.reward_of(batch['next_achieved'], goal)` says what the step is worth under a goal. Return "
                "a new dictionary."
            ),
        ),
    ),
    Exercise(
        key="log-slope",
        kind="fill in",
        task="Write log(1 - tanh(u)^2) so that it is right for small u and finite for u = 40 in float32.",
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
            "log(e^u + e^-u) = u + log(1 + e^(-2u)), and the last term is `softplus(-2 * u)`.",
        ),
    ),
    Exercise(
        key="soft-backup",
        kind="fill in",
        task="From Q (states, actions) and alpha return V and the policy that maximize E[Q] + alpha H(pi).",
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
                "pi is proportional to exp(Q / alpha). Put it in: V is alpha times the logarithm of the normalising"
                " sum, `torch.logsumexp`."
            ),
        ),
    ),
    Exercise(
        key="width",
        kind="predict, then run",
        task="Q(a) = -2 (a - .3)^2 and alpha = .04. Which mean and deviation does the best Gaussian policy have?",
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
                "Maximise -2 ((mu - .3)^2 + sigma^2) + alpha log sigma: set the derivative by mu and the one by "
                "sigma to zero."
            ),
        ),
    ),
    Exercise(
        key="strategy",
        kind="ablation",
        task="Choose strategy and k so that Q-learning on nine bits succeeds in 80 % after 160 episodes.",
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
            "A goal is useful when some step on the way to it still has a reward of -1, and a later one has not.",
            (
                "Draw goals from what the same episode reached after the step, and make several such copies of each"
                " transition."
            ),
        ),
    ),
)
