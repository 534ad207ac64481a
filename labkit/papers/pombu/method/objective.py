"""The conservative objective: move the policy where the gain is certain, not where the models merely promise it.

    L(theta) = - E[min(A delta, A clip(delta, -eps, eps))] + alpha E[|delta| sqrt(U)],    delta = pi/pi_old - 1      (5)

To first order the return changes by E[A delta], and the standard deviation of that estimate is at most
E[|delta| sqrt(U)]: alpha says how many standard deviations a step must be worth.  [paper: idea; official code: formula]

Samples are the last axis; all axes before it are copies (seeds, values of alpha), each with a loss of its own. Sum the
copies before `backward`: every copy then gets the gradient it would get alone.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError

Scaling = Literal["paper", "official"]
Objective = Literal["variance_constrain", "p_improve_ppo", "p_improve_ppo2"]
OBJECTIVES: tuple[Objective, ...] = ("variance_constrain", "p_improve_ppo", "p_improve_ppo2")
TINY = 1e-8


# -- the two ingredients ----------------------------------------------------------------------------------------------


def ratio_change(
    log_prob: Float[Tensor, "*copies samples"], old_log_prob: Float[Tensor, "*copies samples"], bound: float = 20.0
) -> Float[Tensor, "*copies samples"]:
    """delta = pi(a|s) / pi_old(a|s) - 1. The log ratio is kept within +-bound, so that nothing overflows.  [ours]"""
    return torch.expm1((log_prob - old_log_prob).clamp(-bound, bound))


def gain(
    delta: Float[Tensor, "*copies samples"], advantage: Float[Tensor, "*copies samples"], clip: float
) -> Float[Tensor, "*copies"]:
    """E[min(A delta, A clip(delta, -eps, eps))]: PPO's surrogate less the constant E[A], so the same gradient."""
    _check(clip, delta, advantage)
    return surrogate(delta, advantage, clip)


def surrogate(delta: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """E[min(A delta, A clip(delta, -eps, eps))], the gain of (5)."""
    return torch.minimum(advantage * delta, advantage * delta.clamp(-clip, clip)).mean(-1)


def risk(delta: Float[Tensor, "*copies samples"], sqrt_u: Float[Tensor, "*copies samples"]) -> Float[Tensor, "*copies"]:
    """E[|delta| sqrt(U)]. At delta = 0 autograd takes the slope of |.| as 0: before the first step there is no pull."""
    return (delta.abs() * sqrt_u).mean(-1)


# -- the objectives ---------------------------------------------------------------------------------------------------


def conservative_loss(
    delta: Float[Tensor, "*copies samples"],
    advantage: Float[Tensor, "*copies samples"],
    sqrt_u: Float[Tensor, "*copies samples"],
    alpha: Float[Tensor, "*copies"] | float,
    clip: float,
) -> Float[Tensor, "*copies"]:
    """(5), one loss a copy. alpha = 0 is PPO in a model ensemble (MEPPO).

    Args:
        advantage, sqrt_u: as `standardize` and `scale_uncertainty` leave them; no gradient goes there.
        alpha: caution in standard deviations, one number or one a copy.
        clip: eps of PPO, acting on delta.

    Raises:
        InputError: a negative alpha, clip <= 0, shapes that differ.
    """
    _check(clip, delta, advantage, sqrt_u)
    if not isinstance(alpha, Tensor) and alpha < 0:
        raise InputError(f"alpha must be 0 or more: a negative one seeks uncertainty; got {alpha}.")
    return loss_5(delta, advantage, sqrt_u, alpha, clip)


def loss_5(delta: Tensor, advantage: Tensor, sqrt_u: Tensor, alpha: Tensor | float, clip: float) -> Tensor:
    """L = - E[min(A delta, A clip(delta, -eps, eps))] + alpha E[|delta| sqrt(U)]."""
    return alpha * risk(delta, sqrt_u) - surrogate(delta, advantage, clip)


def p_improve_ppo(
    delta: Float[Tensor, "*copies samples"],
    advantage: Float[Tensor, "*copies samples"],
    sqrt_u: Float[Tensor, "*copies samples"],
    clip: float,
    tiny: float = 1e-5,
) -> Float[Tensor, "*copies"]:
    """- gain / (risk + 1e-5): how many standard deviations the step is worth, maximised itself.  [official code]"""
    _check(clip, delta, advantage, sqrt_u)
    return -gain(delta, advantage, clip) / (risk(delta, sqrt_u) + tiny)


def p_improve_ppo2(
    delta: Float[Tensor, "*copies samples"],
    advantage: Float[Tensor, "*copies samples"],
    sqrt_u: Float[Tensor, "*copies samples"],
    clip: float,
    low: float = 0.1,
    high: float = 0.8,
    tiny: float = 1e-5,
) -> Float[Tensor, "*copies"]:
    """(5) with alpha = gain / risk of this very minibatch, kept within [0.1, 0.8] and held fixed.  [official code]"""
    _check(clip, delta, advantage, sqrt_u)
    alpha = (gain(delta, advantage, clip) / (risk(delta, sqrt_u) + tiny)).detach().clamp(low, high)
    return conservative_loss(delta, advantage, sqrt_u, alpha, clip)


def policy_loss(
    objective: Objective,
    delta: Float[Tensor, "*copies samples"],
    advantage: Float[Tensor, "*copies samples"],
    sqrt_u: Float[Tensor, "*copies samples"],
    alpha: Float[Tensor, "*copies"] | float,
    clip: float,
) -> Float[Tensor, "*copies"]:
    """The named objective; alpha counts for "variance_constrain" only."""
    if objective == "variance_constrain":
        return conservative_loss(delta, advantage, sqrt_u, alpha, clip)
    if objective == "p_improve_ppo":
        return p_improve_ppo(delta, advantage, sqrt_u, clip)
    if objective == "p_improve_ppo2":
        return p_improve_ppo2(delta, advantage, sqrt_u, clip)
    raise InputError(f"objective must be one of {', '.join(OBJECTIVES)}; got {objective!r}.")


def dead_zone(
    advantage: Float[Tensor, "*copies samples"],
    sqrt_u: Float[Tensor, "*copies samples"],
    alpha: Float[Tensor, "*copies"] | float,
) -> Float[Tensor, "*copies"]:
    """The share of samples with |A| < alpha sqrt(U): for them (5) is least where nothing moves.  [official code]"""
    _check(1.0, advantage, sqrt_u)
    bar = torch.as_tensor(alpha, dtype=sqrt_u.dtype, device=sqrt_u.device)[..., None] * sqrt_u
    return (advantage.abs() < bar).to(sqrt_u.dtype).mean(-1)


# -- scales -----------------------------------------------------------------------------------------------------------


def standardize(
    advantage: Float[Tensor, "*copies samples"], clip: float = 5.0, *, clip_first: bool = True
) -> Float[Tensor, "*copies samples"]:
    """(A - mean) / std over all samples of an update, each copy by itself.

    Args:
        clip: bound of |A|; math.inf for none.
        clip_first: the bound is in units of the return  [official code]; False: in standard deviations, after.  [ours]

    Raises:
        InputError: clip <= 0.
    """
    if not clip > 0:
        raise InputError(f"clip must be positive (math.inf for none); got {clip}.")
    if clip_first:
        advantage = advantage.clamp(-clip, clip)
    centred = advantage - advantage.mean(-1, keepdim=True)
    standard = centred / (_deviation(advantage) + TINY)
    return standard if clip_first else standard.clamp(-clip, clip)


def scale_uncertainty(
    u: Float[Tensor, "*copies samples"],
    advantage: Float[Tensor, "*copies samples"],
    mode: Scaling = "paper",
    *,
    low: float = 1e-8,
    high: float = 5.0,
    clip: float = 5.0,
    clip_first: bool = True,
) -> Float[Tensor, "*copies samples"]:
    """sqrt(U) in the units in which the standardised advantage is: the root of U / Var[A], kept in [low, high].

    Args:
        u: U(s,a), the target that `propagate` gives.
        advantage: A *before* it is standardised.
        mode: "paper": Var of the advantage itself, so that scaling all rewards changes nothing [ours: what the
            division must be for]. "official": Var of the advantage after it was standardised, which is 1: no rescaling
            at all, and rewards ten times larger make the penalty ten times stronger.  [official code]
        low, high: bounds of U / Var[A].  [official code]
        clip, clip_first: as given to `standardize`: U is divided by the very variance that A was.

    Raises:
        InputError: another mode, bounds out of order, shapes that differ, a negative U.
    """
    _check(1.0, u, advantage)
    if not 0 < low < high:
        raise InputError(f"the bounds of U must satisfy 0 < low < high; got {low} and {high}.")
    if mode == "paper":
        scaled = advantage.clamp(-clip, clip) if clip_first else advantage
    elif mode == "official":
        scaled = standardize(advantage, clip, clip_first=clip_first)
    else:
        raise InputError(f"mode must be 'paper' or 'official'; got {mode!r}.")
    return root_in_deviations(u, scaled, low, high)


def root_in_deviations(u: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """sqrt(U / Var[A]), with U / Var[A] kept in [low, high]."""
    return (u / (_deviation(advantage) + TINY).square()).clamp(low, high).sqrt()


# -- the size of a step -----------------------------------------------------------------------------------------------


def approximate_kl(
    log_prob: Float[Tensor, "*copies samples"], old_log_prob: Float[Tensor, "*copies samples"]
) -> Float[Tensor, "*copies"]:
    """1/2 E[(log pi - log pi_old)^2], KL to second order; never negative, unlike the plain mean.  [official code]"""
    return 0.5 * (log_prob - old_log_prob).square().mean(-1)


def _deviation(values: Tensor) -> Tensor:
    return values.std(-1, keepdim=True, correction=0)


def _check(clip: float, *samples: Tensor) -> None:
    if not clip > 0:
        raise InputError(f"clip must be positive: the policy could not move; got {clip}.")
    shapes = {tuple(x.shape) for x in samples}
    if len(shapes) > 1:
        raise InputError(f"delta, advantage and uncertainty must have one shape; got {sorted(shapes)}.")
