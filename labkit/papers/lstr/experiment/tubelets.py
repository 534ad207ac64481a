"""The proposals of windows, kept where windows are always the same."""

from weakref import WeakKeyDictionary

import torch
from jaxtyping import Int
from torch import Tensor

from labkit.papers.lstr.experiment.data import Batch, Source
from labkit.papers.lstr.method.network import Proposer
from labkit.papers.lstr.method.proposals import Proposals


class Tubelets:
    """The proposals of windows. Those of a fixed source are kept: every arm and every epoch asks for them again."""

    def __init__(self, proposer: Proposer, most: int, size: int) -> None:
        self.proposer, self.most, self.size = proposer, most, size
        self._kept: WeakKeyDictionary[Source, dict[int, Proposals]] = WeakKeyDictionary()

    def of(self, source: Source, index: Int[Tensor, " batch"], batch: Batch) -> Proposals:
        """Proposals of all clips of a batch, its windows one after the other."""
        if not source.fixed:
            return self._propose(batch.clips.flatten(0, 1))
        kept, keys = self._kept.setdefault(source, {}), index.tolist()
        for n, key in enumerate(keys):
            if key not in kept:  # alone: a window's proposals must not depend, in any digit, on who stands beside it
                kept[key] = self._propose(batch.clips[n])
        parts = [kept[key] for key in keys]
        return Proposals(*(torch.cat([getattr(p, name) for p in parts]) for name in ("tubelets", "scores", "valid")))

    @torch.no_grad()
    def _propose(self, clips: Tensor) -> Proposals:
        return self.proposer.proposals.propose(self.proposer(clips), self.most, (self.size, self.size))
