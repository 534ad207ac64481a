"""CHER's sampler: of relabelled candidates keep half, the diverse ones first, later those near what was achieved.

[official code] Facility location with a similarity between each goal and its *one* nearest neighbour, minus
lambda ||g - m(s)||, lambda growing by 1.0001 a step; lazy greedy: each pick is the best of three random candidates.

With one neighbour each candidate i is served by exactly one other, nn(i), so that the gain of picking j,

    gain(j) = sum over i with nn(i) = j of exp(-d_i^2 / mean(d)^2),

does not depend on what was picked before: the set function is a plain sum, and the greedy needs no memory. [ours]
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.sher.method.hindsight import Transitions

CANDIDATES_PER_PICK = 3
GROWTH = 1.0001  # of lambda, per update


def nearest_neighbours(
    goals: Float[Tensor, "copies candidates goal"],
) -> tuple[Float[Tensor, "copies candidates"], Int[Tensor, "copies candidates"]]:
    """Distance to the nearest other goal, and which one it is."""
    gaps = (goals[:, :, None] - goals[:, None, :]).norm(dim=-1)
    itself = torch.eye(goals.shape[1], dtype=torch.bool, device=goals.device)
    return gaps.masked_fill(itself, torch.inf).min(-1)


def diversity(goals: Float[Tensor, "copies candidates goal"]) -> Float[Tensor, "copies candidates"]:
    """gain(j): how many goals have j as their nearest neighbour, weighted by how near."""
    distance, neighbour = nearest_neighbours(goals)
    scale = distance.mean(-1, keepdim=True).clamp(min=1e-12)
    return torch.zeros_like(distance).scatter_add_(1, neighbour, torch.exp(-((distance / scale) ** 2)))


def lazy_greedy(
    scores: Float[Tensor, "copies candidates"], picks: int, u: Float[Tensor, "copies picks candidates"]
) -> Int[Tensor, "copies picks"]:
    """Pick by pick, the best of three candidates drawn without replacement from those left; u: uniform numbers.

    Raises:
        InputError: fewer candidates left than a pick looks at.
    """
    candidates = scores.shape[1]
    if picks + CANDIDATES_PER_PICK - 1 > candidates:
        raise InputError(f"{picks} picks of the best of {CANDIDATES_PER_PICK} need more than {candidates} candidates.")
    gone = torch.zeros_like(scores)
    chosen = []
    for pick in range(picks):
        looked_at = (u[:, pick] - gone).topk(CANDIDATES_PER_PICK, dim=-1).indices
        best = scores.gather(1, looked_at).argmax(-1, keepdim=True)
        index = looked_at.gather(1, best)
        gone.scatter_(1, index, 2.0)
        chosen.append(index)
    return torch.cat(chosen, 1)


def curriculum(
    candidates: Transitions, picks: int, step: Tensor | int, u: Float[Tensor, "copies picks candidates"]
) -> Transitions:
    """`picks` of the candidates; score = diversity of goals - lambda ||g - m(s)||, lambda = 1.0001^step."""
    distance = (candidates.goal - candidates.achieved).norm(dim=-1)
    index = lazy_greedy(diversity(candidates.goal) - GROWTH**step * distance, picks, u)
    return Transitions(*(_rows(values, index) for values in candidates))


def _rows(values: Tensor, index: Int[Tensor, "copies picks"]) -> Tensor:
    if values.dim() == 2:
        return values.gather(1, index)
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
