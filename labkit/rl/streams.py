"""Random numbers for stacked copies: each copy draws from a generator of its own, so N copies are N single ones."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError


class Streams:
    """One random generator per copy. A draw of shape (...) gives (copies, ...), row i from generator i.

    What copy i gets depends on its seed and on the order of the calls alone, not on the other copies. Numbers are drawn
    on the generators' own device; `state_dict` carries them through checkpoints.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        if not seeds:
            raise InputError("at least one seed is needed.")
        self.device = torch.device(device)
        self.generators = [torch.Generator(self.device).manual_seed(seed) for seed in seeds]

    def __len__(self) -> int:
        return len(self.generators)

    def uniform(self, *shape: int) -> Float[Tensor, "copies *shape"]:
        """Uniform in [0, 1)."""
        return torch.stack([torch.rand(shape, generator=g, device=self.device) for g in self.generators])

    def normal(self, *shape: int) -> Float[Tensor, "copies *shape"]:
        """Standard normal."""
        return torch.stack([torch.randn(shape, generator=g, device=self.device) for g in self.generators])

    def integers(self) -> list[int]:
        """One a copy, to seed what brings random numbers of its own: a simulator."""
        return [int(torch.randint(2**31, (1,), generator=g, device=self.device)) for g in self.generators]

    def state_dict(self) -> dict[str, Any]:
        return {"states": [generator.get_state() for generator in self.generators]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        states = state_dict["states"]
        if len(states) != len(self.generators):
            raise ValueError(f"{len(states)} generators were saved, {len(self.generators)} are wanted")
        for generator, state in zip(self.generators, states, strict=True):
            generator.set_state(state)
