"""A gloss for every step of a sentence, which nobody annotated: evenly divided, or by forced alignment."""

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from numpy.typing import ArrayLike
from torch import Tensor

from labkit.papers.stmc.method.network import BLANK
from labkit.text import ctc


def even_labels(glosses: Sequence[int], steps: int) -> Int64[Tensor, " steps"]:
    """The sentence cut into equal parts: the start of everything, where no network can align yet.  [ours]"""
    return torch.tensor([glosses[step * len(glosses) // steps] for step in range(steps)])


def aligned_labels(log_probs: ArrayLike, glosses: Sequence[int]) -> Int64[Tensor, " steps"] | None:
    """Labels by the best path of a trained network's posteriors; None where the sentence is too short for its glosses.

    CTC's paths are mostly blank. Each blank step takes the gloss of the nearest step that has one, the earlier one of
    two equally near, so that glosses fill the sentence.  [ours; that
    stage 1 trains on aligned labels: recalled]
    """
    log_probs = torch.as_tensor(log_probs)
    if len(log_probs) < ctc.shortest(glosses):
        return None
    path = ctc.align(log_probs.double().cpu().numpy(), glosses, BLANK).path
    spoken = [step for step, label in enumerate(path) if label != BLANK]
    return torch.tensor([path[min(spoken, key=lambda s: (abs(s - step), s))] for step in range(len(path))])
