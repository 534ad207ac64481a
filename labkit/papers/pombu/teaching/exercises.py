"""The notebook's "your turn" cells: what is asked, how an answer is judged, wrong answers that people give."""

from collections.abc import Sequence
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import Tensor

from labkit import devices
from labkit.papers.pombu.experiment import zone
from labkit.papers.pombu.experiment.config import Config, parse_arm
from labkit.papers.pombu.experiment.evaluate import summarize_zone
from labkit.papers.pombu.experiment.offline import Arms
from labkit.papers.pombu.teaching import checks, scenes
from labkit.workbench.exercises import Exercise
from labkit.workbench.runs import Run

# -- 1 fill in: the uncertainty Bellman equation ----------------------------------------------------------------------


def bellman(u: np.ndarray, transitions: np.ndarray, policy: np.ndarray, gamma: float) -> np.ndarray:
    """The solution."""
    total = u.copy()
    for h in reversed(range(len(u) - 1)):
        following = (policy[h + 1] * total[h + 1]).sum(-1)
        total[h] = u[h] + gamma**2 * transitions[h] @ following
    return total


def gamma_once(u: np.ndarray, transitions: np.ndarray, policy: np.ndarray, gamma: float) -> np.ndarray:
    return bellman(u, transitions, policy, gamma**0.5)


def best_action(u: np.ndarray, transitions: np.ndarray, policy: np.ndarray, gamma: float) -> np.ndarray:
    """Wrong: the most uncertain action in place of the policy's."""
    total = u.copy()
    for h in reversed(range(len(u) - 1)):
        total[h] = u[h] + gamma**2 * transitions[h] @ total[h + 1].max(-1)
    return total


def one_step_only(u: np.ndarray, transitions: np.ndarray, policy: np.ndarray, gamma: float) -> np.ndarray:
    total = u.copy()
    total[:-1] += gamma**2 * (transitions[:-1] @ (policy[1:] * u[1:]).sum(-1)[..., None, :, None])[..., 0]
    return total


# -- 3 find the bug: the scale of U -----------------------------------------------------------------------------------


def broken_scaling(u: Tensor, advantage: Tensor) -> Tensor:
    """sqrt(U) in units of the standardised advantage; `advantage` is raw."""
    advantage = (advantage - advantage.mean()) / advantage.std(correction=0)
    return (u / advantage.var(correction=0)).sqrt()


def paper_scaling(u: Tensor, advantage: Tensor) -> Tensor:
    return (u / advantage.var(correction=0)).sqrt()


# -- 4 fill in: the dead zone -----------------------------------------------------------------------------------------


def best_step(advantage: float, sqrt_u: float, alpha: float, clip: float) -> float:
    """The solution: the slope at 0 decides."""
    if abs(advantage) <= alpha * sqrt_u:
        return 0.0
    return clip if advantage > 0 else -clip


def shrunk_step(advantage: float, sqrt_u: float, alpha: float, clip: float) -> float:
    """Wrong: caution as a smaller step; the objective is piecewise linear, its optimum all or nothing."""
    if advantage == 0:
        return 0.0
    return clip * max(0.0, 1 - alpha * sqrt_u / abs(advantage)) * (1 if advantage > 0 else -1)


# -- 5 fill in: the exact recursion -----------------------------------------------------------------------------------


def spread(mixed: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Variance of values (..., next) under distributions (..., states, next)."""
    return (mixed * values[..., None, :] ** 2).sum(-1) - (mixed * values[..., None, :]).sum(-1) ** 2


def exact_local(
    v_mean: np.ndarray,
    mean: np.ndarray,
    policy: np.ndarray,
    models_v: np.ndarray,
    models: np.ndarray,
    gamma: float,
) -> np.ndarray:
    """The solution: Luis et al."""
    outer = spread((policy[..., None] * mean).sum(-2), v_mean[1:])
    inner = spread((policy[..., None] * models).sum(-2), models_v[:, 1:])
    return gamma**2 * (outer - inner.mean(0))


def without_the_gap(
    v_mean: np.ndarray,
    mean: np.ndarray,
    policy: np.ndarray,
    models_v: np.ndarray,
    models: np.ndarray,
    gamma: float,
) -> np.ndarray:
    """Wrong: the paper's local term at the level of V, an upper bound only."""
    reached = (policy[..., None] * models).sum(-2)
    return gamma**2 * (reached * v_mean[1:][None, :, None, :]).sum(-1).var(0)


def mean_value_inside(
    v_mean: np.ndarray,
    mean: np.ndarray,
    policy: np.ndarray,
    models_v: np.ndarray,
    models: np.ndarray,
    gamma: float,
) -> np.ndarray:
    return exact_local(v_mean, mean, policy, np.broadcast_to(v_mean, models_v.shape), models, gamma)


# -- 6 ablation with a bar: how cautious? -----------------------------------------------------------------------------

SMALL = Config(studies=("zone",), zone_copies=4, zone_evaluations=100)


def train_arms(*arms: str) -> dict[str, dict[str, Any]]:
    """A small Zone study: 4 seeds of each arm; some seconds."""
    config = SMALL.override(zone_arms=list(arms))
    with TemporaryDirectory() as folder, devices.one_thread():
        run = Run.open(folder, config)
        _, _, improved = zone.run_study("zone", config, run)
        run.close()
    return summarize_zone(improved.history, Arms(arms, config.zone_copies))["arms"]


@cache
def trained(arm: str) -> dict[str, Any]:
    """The arm's part of `train_arms`."""
    return train_arms(arm)[arm]


def check_known_arm(answer: Any) -> None:
    assert isinstance(answer, str), f"answer with the name of an arm, such as 'alpha-0.5'; got {answer!r}"
    try:
        parse_arm(answer)
    except ValueError as error:
        raise AssertionError(str(error)) from None


def check_promises_are_kept(answer: str) -> None:
    result = trained(answer)
    claimed, real = (float(np.mean(result[key])) for key in ("claimed", "real"))
    assert claimed - real < 2.5, (
        f"the models predict {claimed:+.2f}, real is {real:+.2f}: too little caution (the excess is above 2.50)"
    )


def check_gain_is_worth_it(answer: str) -> None:
    gain = float(np.mean(trained(answer)["real"]))
    assert gain > 0.3, f"the mean gain is {gain:+.2f}: too much caution, the policy hardly moves (need +0.30)"


# -- 7 predict, then look: data in place of caution -------------------------------------------------------------------


def _recorded() -> dict[int, Any]:
    studies = scenes.by_left()
    assert len(studies) == len(scenes.LEFT), f"the records are not all here; make them: {scenes.DATA_COMMAND}"
    return studies


def check_two_numbers(answer: Any) -> None:
    assert isinstance(answer, tuple | list), "answer with two numbers: an amount of episodes, and an alpha"
    assert len(answer) == 2, f"answer with two numbers: an amount of episodes, and an alpha; got {len(answer)}"
    assert answer[0] in scenes.LEFT, f"amounts are {', '.join(map(str, scenes.LEFT))}; got {answer[0]!r}"
    assert answer[1] in (0, 0.5, 1, 2, 4), f"alphas are 0, .5, 1, 2 and 4; got {answer[1]!r}"


def check_half_improve(answer: Sequence[int | float]) -> None:
    """The least amount at which half of the seeds improve with alpha = 0."""
    improved = {n: np.mean(np.array(result["arms"]["alpha-0"]["real"]) > 0) for n, result in _recorded().items()}
    amount, wanted = int(answer[0]), min(n for n, share in improved.items() if share >= 0.5)
    word = "that is more than is needed" if amount > wanted else "not yet half"
    assert amount == wanted, f"with {amount} episodes on the left alpha = 0 improves {improved[amount]:.0%}: {word}"


def check_best_alpha(answer: Sequence[int | float]) -> None:
    """The alpha whose mean real gain is largest with the most data."""
    arms = _recorded()[max(scenes.LEFT)]["arms"]
    gains = {parse_arm(arm)[1]: float(np.mean(result["real"])) for arm, result in arms.items() if arm[:5] == "alpha"}
    mine = gains[answer[1]]
    assert mine == max(gains.values()), f"alpha = {answer[1]:g} gains {mine:+.2f} on average; another gains more"


EXERCISES = (
    Exercise(
        key="bellman",
        kind="fill in",
        task="Write the recursion in (1) as a function `(u, transitions, policy, gamma)` that returns $U$. All are "
        "NumPy arrays: `u` (h, s, a), mean `transitions` (h, s, a, next), `policy` (h, s, a). $U=0$ after the last "
        "step.",
        properties={"the uncertainty Bellman equation": checks.check_propagation},
        solution=bellman,
        wrong={
            "gamma once": gamma_once,
            "most uncertain action": best_action,
            "one step": one_step_only,
            "nothing": lambda u, transitions, policy, gamma: u,
        },
        difficulty=2,
        minutes=10,
        hints=(
            "Start at the last step, where U equals u, and go back to the first.",
            (
                "Average over the next action with `policy[h + 1]`, then over the next state with `transitions[h] @ "
                "...`. A variance is discounted by the square of gamma."
            ),
        ),
    ),
    Exercise(
        key="bias",
        kind="predict, then run",
        task="The estimate (4) divides the sum of squares over $K$ models by $K$. Which share of the true variance is "
        "that on average, for $K=2$, 5 and 20? Three numbers.",
        properties={"measured on 40,000 ensembles": checks.check_bias},
        solution=(0.5, 0.8, 0.95),
        wrong={"unbiased": (1.0, 1.0, 1.0), "the other way round": (2.0, 1.25, 1.05), "one number": 0.8},
        difficulty=1,
        minutes=5,
        hints=(
            "The mean that is subtracted is computed from the same K numbers.",
            "Which divisor makes a sample variance unbiased? The share is that divisor over K.",
        ),
    ),
    Exercise(
        key="scaling",
        kind="find the bug",
        task="The function below follows the official code. Multiply all rewards by 10: the result must stay the same, "
        "and it does not. Write a function `(u, advantage)` that returns $\\sqrt U$ in standard deviations of the "
        "advantage; `advantage` is raw, not standardised.",
        properties={"the reward's unit cancels": checks.check_scaling},
        solution=paper_scaling,
        wrong={
            "as it is": broken_scaling,
            "U by the deviation": lambda u, advantage: (u / advantage.std(correction=0)).sqrt(),
            "no root": lambda u, advantage: u / advantage.var(correction=0),
        },
        difficulty=2,
        minutes=10,
        hints=(
            "If rewards are measured in euros, what is the unit of U? By which quantity must it be divided?",
            "Follow `advantage` through the function. What is its variance after the first line?",
        ),
    ),
    Exercise(
        key="dead-zone",
        kind="fill in",
        task="For one sample with advantage $A$ and $\\sqrt U$: which $\\delta$ in $[-\\epsilon,\\epsilon]$ minimises "
        "(5)? If several do, return the one nearest to 0. Write a function `(advantage, sqrt_u, alpha, clip)`.",
        properties={"the minimum of the loss": checks.check_best_step},
        solution=best_step,
        wrong={
            "caution as a smaller step": shrunk_step,
            "no caution": lambda advantage, sqrt_u, alpha, clip: best_step(advantage, sqrt_u, 0.0, clip),
            "gains only": lambda advantage, sqrt_u, alpha, clip: max(0.0, best_step(advantage, sqrt_u, alpha, clip)),
        },
        difficulty=2,
        minutes=10,
        hints=(
            "Within the clip the loss consists of two straight lines that meet at 0. Where can its minimum be?",
            (
                "Compare the slope |A| of the gain with the slope alpha sqrt(U) of the penalty. If it is smaller, "
                "stay at 0; otherwise go to the end of the interval on the side of A."
            ),
        ),
    ),
    Exercise(
        key="exact",
        kind="fill in",
        task="Luis et al. (2023) turn the inequality into an equality. For known rewards write their local term "
        "$w(h,s)=\\gamma^2\\{\\mathrm{Var}_{a,s'\\sim\\pi,\\bar P}[\\bar V]-"
        "\\mathbb E_p\\mathrm{Var}_{a,s'\\sim\\pi,P}[V_p]\\}$, with which "
        "$U^h(s)=w^h(s)+\\gamma^2\\,\\mathbb E_{\\pi,\\bar P}U^{h+1}$ is $\\mathrm{Var}_p[V]$ itself. Given are "
        "`v_mean` (h + 1, s), `mean` (h, s, a, next), `policy`, and of $n$ sampled models `models_v` (n, h + 1, s) and "
        "`models` (n, h, s, a, next).",
        properties={"the recursion is exact": checks.check_exact_recursion},
        solution=exact_local,
        wrong={"the paper's term": without_the_gap, "mean values inside": mean_value_inside},
        difficulty=3,
        minutes=25,
        hints=(
            (
                "Both terms are a variance of values over action and next state: once in the mean model, once in "
                "each sampled model and then averaged."
            ),
            (
                "`(policy[..., None] * models).sum(-2)` are the probabilities of the next state. Variance: mean of "
                "squares minus square of the mean, with values of step h + 1."
            ),
        ),
    ),
    Exercise(
        key="caution",
        kind="ablation",
        task="Choose an arm `alpha-A`. Over four seeds the mean real gain must be at least 0.30, and the gain that the "
        "models predict may exceed it by at most 2.50. (The check trains for some seconds.)",
        properties={
            "an arm": check_known_arm,
            "predictions are kept": check_promises_are_kept,
            "the gain is large enough": check_gain_is_worth_it,
        },
        solution="alpha-3",
        wrong={"no caution": "alpha-0", "too much": "alpha-50", "not an arm": 2},
        difficulty=2,
        minutes=10,
        hints=(
            (
                "With alpha = 0 the predicted gain is far above the real one. With a very large alpha the policy "
                "hardly changes. Values between meet both conditions."
            ),
            (
                "Read the left picture of the gains over the updates in section 6: dashed minus solid is the excess. "
                "If your arm is just too optimistic, add 1 to alpha."
            ),
        ),
    ),
    Exercise(
        key="data",
        kind="predict, then run",
        task="Section 6 is repeated with 1, 2, 4, 8 and 16 recorded episodes on the left, and seven on the right. What "
        "is the least number of episodes with which $\\alpha=0$ improves at least half of the seeds? With 16, which of "
        "the five $\\alpha$ of section 6 has the largest mean real gain? Answer before you move the last slider of "
        "section 7; the check reads the records.",
        properties={
            "two numbers": check_two_numbers,
            "half improve": check_half_improve,
            "the best alpha": check_best_alpha,
        },
        solution=(2, 0.5),
        wrong={
            "one is enough": (1, 0.5),
            "eight times are needed": (8, 0.5),
            "all of them are needed": (16, 0.5),
            "data make caution useless": (2, 0),
            "the alpha of one episode": (2, 2),
            "one number": 2,
            "not an amount": (3, 0.5),
        },
        difficulty=2,
        minutes=5,
        hints=(
            "The slider at the end of section 7 shows the recorded runs. Where does alpha = 0 exceed one half?",
            (
                "Call `figures.data_figure(amounts)`: on the left, follow alpha = 0; on the right, read the mean "
                "gains at 16 episodes."
            ),
        ),
    ),
)
