"""Raw text in, raw text out: the model with its tokenizer and its BERT.

The official code wants every sentence twice, in two tokenizations; here both views are made from one raw line.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.bertfused.method.bert import Bert, Words
from labkit.papers.bertfused.method.decoding import translate_ids
from labkit.papers.bertfused.method.layers import Architecture
from labkit.papers.bertfused.method.transformer import Transformer
from labkit.ranges import within
from labkit.text.search import Hypothesis


@runtime_checkable
class Tokenizer(Protocol):
    """The translation model's own view of text; ids are those of `Architecture`, without bos, eos and padding."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


class Translator:
    """Translates sentences.

        translator = Translator(model, tokenizer, bert)
        translator.translate(["two dogs run .", ""], beam=5)     # ["zwei hunde laufen .", ""]

    Args:
        model: plain or fused; evaluated, never changed.
        bert: needed where the model is fused.
        document: BERT reads the sentence before, too: lines are a document in order, an empty line begins another.

    Raises:
        InputError: the model is fused and there is no BERT, or one of another width.
    """

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer, bert: Bert | None = None, document: bool = False
    ) -> None:
        fused = model.fusion.mode != "off"
        if fused and bert is None:
            raise InputError("this model is fused: give the BERT that it was trained with.")
        if fused and bert is not None and bert.width != model.fusion.bert_width:
            raise InputError(
                f"the model was trained with a BERT of width {model.fusion.bert_width}; this one has {bert.width}."
            )
        self.model, self.tokenizer, self.document = model, tokenizer, document
        self.bert = bert if fused else None

    def translate(
        self,
        sentences: Sequence[str],
        *,
        beam: int = 5,
        length_penalty: float = 1.0,
        batch_tokens: int = 4000,
        progress: Callable[[int], None] | None = None,
    ) -> list[str]:
        """The best translation of each sentence, in the given order; a blank line stays an empty one.

        Args:
            batch_tokens: sentences are translated together as long as their tokens, padding and hypotheses included,
                are not more than these.
            progress: called with the number of sentences that are done.

        Raises:
            InputError: a sentence is longer than the model takes, which is said before anything is translated.
        """
        best = self.search(
            sentences, beam=beam, length_penalty=length_penalty, batch_tokens=batch_tokens, progress=progress
        )
        return [self.tokenizer.decode(hypotheses[0].tokens) if hypotheses else "" for hypotheses in best]

    def search(
        self,
        sentences: Sequence[str],
        *,
        beam: int = 5,
        length_penalty: float = 1.0,
        batch_tokens: int = 4000,
        progress: Callable[[int], None] | None = None,
    ) -> list[list[Hypothesis]]:
        """`translate` with everything that the beam found, as token ids; nothing for a blank line."""
        within(1, 1000, beam=beam)
        within(1, 10**9, batch_tokens=batch_tokens)
        results: list[list[Hypothesis]] = [[] for _ in sentences]
        sources, words = self._tokenized(sentences)
        done = len(sentences) - len(sources)
        for batch in _batches(sources, words, batch_tokens // beam):
            source = padded([sources[line] for line in batch], self.model.sizes, self._device)
            view = None if self.bert is None else self.bert.view([words[line] for line in batch])
            beams = translate_ids(self.model, source, view, beam=beam, length_penalty=length_penalty)
            for line, hypotheses in zip(batch, beams, strict=True):
                results[line] = hypotheses
            done += len(batch)
            if progress is not None:
                progress(done)
        return results

    def to(self, device: torch.device | str) -> "Translator":
        """This translator, with its model and BERT on another device."""
        self.model.to(device)
        if self.bert is not None:
            self.bert.to(device)
        return self

    @property
    def _device(self) -> torch.device:
        return self.model.embed_tokens.weight.device

    def _tokenized(self, sentences: Sequence[str]) -> tuple[dict[int, list[int]], dict[int, Words]]:
        """Both views of the lines that are not blank, by their number.

        Raises:
            InputError: one is too long.
        """
        lines = [number for number, sentence in enumerate(sentences) if sentence.strip()]
        sources = {}
        for line in lines:
            sources[line] = [*self.tokenizer.encode(sentences[line]), self.model.sizes.eos]
            if len(sources[line]) > self.model.sizes.longest:
                raise InputError(
                    f"line {line + 1} has {len(sources[line])} tokens, and the model takes "
                    f"{self.model.sizes.longest} at most: split it into sentences."
                )
        if self.bert is None:
            return sources, {}
        before = [sentences[line - 1].strip() if line else "" for line in lines] if self.document else None
        tokenized = self.bert.tokenize([sentences[line].strip() for line in lines], before)
        return sources, dict(zip(lines, tokenized, strict=True))


def padded(
    rows: Sequence[Sequence[int]], sizes: Architecture, device: torch.device | str = "cpu"
) -> Int[Tensor, "batch length"]:
    """Token ids as one tensor, padded on the right."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[sizes.pad] * (longest - len(row))] for row in rows], device=device)


def _batches(sources: dict[int, list[int]], words: dict[int, Words], tokens: int) -> Iterator[list[int]]:
    """Lines of like length together, the longest first: if one does not fit into memory, it shows at once."""

    def size(line: int) -> int:
        return max(len(sources[line]), len(words[line].ids) if words else 0)

    batch: list[int] = []
    for line in sorted(sources, key=lambda line: (-size(line), line)):
        if batch and (len(batch) + 1) * size(batch[0]) > tokens:
            yield batch
            batch = []
        batch.append(line)
    if batch:
        yield batch
