"""Batches of sentences by their tokens: as many as fit, of like lengths, in an order that a resumed run knows again."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from labkit.errors import InputError
from labkit.ranges import within
from labkit.seeds import derive

ORDER = 0  # what batches draw random numbers for


class TokenBatches:
    """Endless batches of sentence numbers; each epoch depends on (seed, epoch) alone.

    A sentence is seen in several ways, say source, target and BERT's words, each with a length of its own; the largest
    of them counts, as padding makes all rows of a batch as long as the longest one. In an epoch every sentence comes
    once. Sentences are sorted by length within buckets, and batches come in random order.

    Args:
        lengths: (sentences, ways).
        tokens: a batch's sentences times its longest length are at most these.

    Raises:
        InputError: a sentence alone has more tokens; there are none.
    """

    def __init__(self, lengths: Int[np.ndarray, "sentences ways"], tokens: int, seed: int = 0) -> None:
        within(1, 10**9, tokens=tokens)
        self.lengths = lengths.max(1) if lengths.size else np.zeros(0, dtype=np.int64)
        if not len(self.lengths):
            raise InputError("there are no sentences to make batches of.")
        if (longest := int(self.lengths.max())) > tokens:
            raise InputError(
                f"sentence {int(self.lengths.argmax()) + 1} has {longest} tokens, and a batch holds {tokens}: "
                "leave long sentences out, or make batches larger."
            )
        self.tokens, self.seed = tokens, seed
        self.epoch = self.position = 0
        self._batches = self._of_epoch()

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        return self

    def __next__(self) -> NDArray[np.int64]:
        if self.position == len(self._batches):
            self.epoch, self.position = self.epoch + 1, 0
            self._batches = self._of_epoch()
        self.position += 1
        return self._batches[self.position - 1]

    def __len__(self) -> int:
        """Batches of this epoch."""
        return len(self._batches)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epoch, self.position = state_dict["epoch"], state_dict["position"]
        self._batches = self._of_epoch()

    def _of_epoch(self) -> list[NDArray[np.int64]]:
        draw = np.random.default_rng(derive(self.seed, ORDER, self.epoch))
        order = draw.permutation(len(self.lengths))
        order = order[np.argsort(self.lengths[order], kind="stable")]  # equal lengths stay in random order
        batches = cut(self.lengths, order, self.tokens)
        return [batches[i] for i in draw.permutation(len(batches))]


def cut(
    lengths: Int[np.ndarray, " sentences"], order: Int[np.ndarray, " some"], tokens: int
) -> list[NDArray[np.int64]]:
    """Sentences in `order`, cut into batches of at most `tokens`, padding included; a longer one is a batch alone."""
    batches, start, longest = [], 0, 0
    for end, sentence in enumerate(order):
        longest = max(longest, int(lengths[sentence]))
        if end > start and (end - start + 1) * longest > tokens:
            batches.append(order[start:end])
            start, longest = end, int(lengths[sentence])
    return [*batches, order[start:]] if len(order) else []
