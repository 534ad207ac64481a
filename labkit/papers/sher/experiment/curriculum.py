"""CHER's sampler: of relabelled candidates keep half, the diverse ones first, later those near what was achieved.

[official code] Facility location with a similarity between each goal and its *one* nearest neighbour, minus
lambda ||g - m(s)||, lambda growing by 1.0001 a step; lazy greedy: each pick is the best of three random candidates.

With one neighbour each candidate i is served by exactly one other, nn(i), so that the set function is a plain sum of

    diversity(j) = sum over i with nn(i) = j of exp(-d_i^2 / mean(d)^2)

over the set. The released greedy gives this sum a memory, `max_set`, that it overwrites *inside* of its loop over the
three: a candidate that led for a moment and was then beaten has entered it, though it was not picked. If such a
candidate is looked at again its diversity counts no more. We follow it: `spent`, below.

lambda grows once an update; the released sampler also counts its calls for the normalizer, 41 a cycle where we have 40,
and gives the normalizer 64 chosen rows per two episodes, where we give it all relabelled steps played. [ours]
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.sher.method.hindsight import Transitions

CANDIDATES_PER_PICK = 3
POOL = 64  # picks from a pool of twice as many candidates: the released code's batch of one worker
GROWTH = 1.0001  # of lambda, per update


def pools_of(batch: int) -> int:
    """A batch of several workers' size is chosen as they choose it, 64 of 128 each; any other from one pool. [ours]"""
    return batch // POOL if batch % POOL == 0 else 1


def nearest_neighbours(
    goals: Float[Tensor, "pools candidates goal"],
) -> tuple[Float[Tensor, "pools candidates"], Int[Tensor, "pools candidates"]]:
    """Distance to the nearest other goal, and which one it is."""
    gaps = (goals[:, :, None] - goals[:, None, :]).norm(dim=-1)
    itself = torch.eye(goals.shape[1], dtype=torch.bool, device=goals.device)
    return gaps.masked_fill(itself, torch.inf).min(-1)


def diversity(goals: Float[Tensor, "pools candidates goal"]) -> Float[Tensor, "pools candidates"]:
    """How many goals have j as their nearest neighbour, weighted by how near."""
    distance, neighbour = nearest_neighbours(goals)
    scale = distance.mean(-1, keepdim=True).clamp(min=1e-12)
    return torch.zeros_like(distance).scatter_add_(1, neighbour, torch.exp(-((distance / scale) ** 2)))


def lazy_greedy(
    gain: Float[Tensor, "pools candidates"],
    cost: Float[Tensor, "pools candidates"],
    picks: int,
    u: Float[Tensor, "pools picks candidates"],
) -> Int[Tensor, "pools picks"]:
    """Pick by pick, the first best of three candidates drawn without replacement from those left; u: uniform numbers.

    score = gain - cost, but -cost once the gain is spent: by having led among three before. [official code]

    Raises:
        InputError: fewer candidates left than a pick looks at.
    """
    candidates = gain.shape[1]
    if picks + CANDIDATES_PER_PICK - 1 > candidates:
        raise InputError(f"{picks} picks of the best of {CANDIDATES_PER_PICK} need more than {candidates} candidates.")
    gone, left = torch.zeros_like(gain), gain.clone()
    order = torch.arange(1, CANDIDATES_PER_PICK + 1, device=gain.device)
    chosen = []
    for pick in range(picks):
        three = (u[:, pick] - gone).topk(CANDIDATES_PER_PICK, dim=-1).indices
        scores = left.gather(1, three) - cost.gather(1, three)
        led = torch.ones_like(three, dtype=torch.bool)
        led[:, 1:] = scores[:, 1:] > scores.cummax(1).values[:, :-1]
        index = three.gather(1, (led * order).argmax(-1, keepdim=True))  # who led last
        left.scatter_(1, three, torch.where(led, 0.0, left.gather(1, three)))
        gone.scatter_(1, index, 2.0)
        chosen.append(index)
    return torch.cat(chosen, 1)


def curriculum(
    candidates: Transitions, picks: int, step: Tensor | int, u: Float[Tensor, "pools picks_of_pool candidates_of_pool"]
) -> Transitions:
    """`picks` of each copy's candidates; lambda = 1.0001^step. The number of pools is that of u's rows.

    Pools are cut from the candidates in their order: pool by pool, then copy by copy.
    """
    copies, pools = len(candidates.goal), len(u)
    goal, achieved = (g.reshape(pools, -1, g.shape[-1]) for g in (candidates.goal, candidates.achieved))
    cost = GROWTH**step * (goal - achieved).norm(dim=-1)
    index = lazy_greedy(diversity(goal), cost, picks * copies // pools, u)
    first = torch.arange(pools // copies, device=index.device) * goal.shape[1]
    index = (index.view(copies, -1, index.shape[1]) + first[:, None]).view(copies, picks)
    return Transitions(*(_rows(values, index) for values in candidates))


def _rows(values: Tensor, index: Int[Tensor, "copies picks"]) -> Tensor:
    if values.dim() == 2:
        return values.gather(1, index)
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
