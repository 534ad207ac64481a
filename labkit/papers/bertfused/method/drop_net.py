"""Drop-net: in training a layer listens to one of its two attentions alone, now to this one, now to that. [paper]

Of rate p, per layer and forward pass, with U ~ Uniform[0, 1]:

    U < p / 2        weights (1, 0)      the native attention alone
    U > 1 - p / 2    weights (0, 1)      the attention to BERT alone
    else             weights (1/2, 1/2)

The mean over U is (1/2, 1/2) for every p: what is used outside of training. The flag of the official code is p / 2.
With p = 1 the mixture that inference uses never occurs in training.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError
from labkit.ranges import within

Weight = float | Float[Tensor, "1 1 1"]
Mix = tuple[Weight, Weight]
"""(r_native, r_BERT): numbers, or tensors. A number 0: the branch need not be computed."""

HALVES: Mix = (0.5, 0.5)


class DropNet:
    """Draws the weights of the branches from a generator of its own, which `state_dict` carries through checkpoints.

    The official code draws from a global generator that nothing seeds: its runs cannot be repeated, and processes that
    train together draw differently. Here equal seeds give equal draws, in every process.

    Args:
        rate: p, in [0, 1].
        seed: of the generator.
        skip: a branch of weight 0 is left out, half of the extra work at p = 1. Without it both branches are computed
            and weighed, as in the [official code]: every parameter has a gradient, which DistributedDataParallel wants.
        mixture: the weights where both are heard, (1/2, 1/2) in the paper. Without its drop-net flag the official code
            takes (1, 1), a sum.
    """

    def __init__(self, rate: float = 1.0, seed: int = 0, *, skip: bool = True, mixture: Mix = HALVES) -> None:
        within(0, 1, **{"the drop-net rate": rate})
        if seed < 0:
            raise InputError(f"a seed must be at least 0; got {seed}.")
        self.rate, self.skip, self.mixture = rate, skip, mixture
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, layers: int) -> list[Mix]:
        """The weights of each layer for one forward pass."""
        if not self.rate:
            return [self.mixture] * layers
        u = torch.rand(layers, generator=self.generator, dtype=torch.float64)
        native_alone, bert_alone = u < self.rate / 2, u > 1 - self.rate / 2
        native = torch.where(native_alone, 1.0, torch.where(bert_alone, 0.0, self.mixture[0]))
        bert = torch.where(bert_alone, 1.0, torch.where(native_alone, 0.0, self.mixture[1]))
        if self.skip:
            return list(zip(native.tolist(), bert.tolist(), strict=True))
        return list(zip(*(r.float()[:, None, None, None] for r in (native, bert)), strict=True))

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.generator.set_state(state_dict["generator"])
