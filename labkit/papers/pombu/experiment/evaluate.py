"""Plain numbers from what was trained."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from labkit.papers.pombu.experiment.offline import Arms, History


def summarize_zone(history: History, arms: Arms) -> dict[str, Any]:
    """A Zone study in numbers, by arm; gains are returns minus those of the policy that every arm started from.

    Returns:
        {arm: {"real", "claimed": one gain a seed, in the world and in the models; "left", "right": their halves' mean
        gains; "worst": the least real gain; "steps": share of single updates that improved; "ratio": mean sqrt(U) over
        std(A); "real_curve", "claimed_curve", "improved_curve": over the updates, the last one the share of seeds
        that are better than at the start}}, and "start": the mean real return of the first policy.
    """
    copies = (-1, len(arms.names), arms.seeds)
    left, right, model, ratio = (history[name].view(copies) for name in ("left", "right", "model", "ratio"))
    real = (left + right) / 2
    gain, claimed = real - real[:1], model - model[:1]
    summary: dict[str, Any] = {}
    for number, name in enumerate(arms.names):
        gains = gain[:, number]
        summary[name] = {
            "real": numbers(gains[-1]),
            "claimed": numbers(claimed[-1, number]),
            "left": round(float((left[-1] - left[0])[number].mean()), 4),
            "right": round(float((right[-1] - right[0])[number].mean()), 4),
            "worst": round(float(gains[-1].min()), 4),
            "steps": round(float((gains[1:] > gains[:-1]).float().mean()), 4),
            "ratio": round(float(ratio[:, number].mean()), 4),
            "real_curve": numbers(gains.mean(1)),
            "claimed_curve": numbers(claimed[:, number].mean(1)),
            "improved_curve": numbers((gains > 0).float().mean(1)),
        }
    return {"start": round(float(real[0].mean()), 4), "arms": summary}


def numbers(values: Float[Tensor, " n"]) -> list[float]:
    return [round(float(value), 4) for value in values]
