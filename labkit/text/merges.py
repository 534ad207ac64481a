"""Byte-pair encoding with somebody else's merges: `vocab.json` and `merges.txt`, as XLM and fastBPE write them.

A word is its letters, the last one marked with `</w>`; the pair of neighbors that stands highest in the list of merges
becomes one, until no pair stands there. What the vocabulary lacks is unknown.
"""

import functools
import itertools
import re
import unicodedata
from collections.abc import Mapping, Sequence

from labkit.errors import InputError
from labkit.text.bpe import BLANK, BOS, EOS, PAD, Bpe

END = "</w>"
_WORD = re.compile(r"\w+|[^\w\s]")
_MARK = re.compile(r"</?s>|<pad>|<unk>|<special\d+>")


class MergesBpe(Bpe):
    """Text to the ids of an existing vocabulary and back, with the special tokens where `Bpe` has them.

    Our ids 0 to 3 are padding, beginning, end and blank; the vocabulary's own tokens follow in their order. `rows` says
    for each of our ids which entry of the vocabulary it is.

    Words are told from punctuation by their letters [ours]; XLM runs Moses' tokenizer over its text, which cuts a few
    words otherwise. What comes back has a space between a word and the punctuation after it.

    Args:
        vocabulary: number of each token, from 0.
        merges: pairs, the first one first.
        special: what stands for padding, beginning, end and blank in the vocabulary, and for an unknown token.
        plain_letters: accents go, and all is in lower case.

    Raises:
        InputError: numbers that are not 0, 1, 2, ..., or no such special token.
    """

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        special: tuple[str, str, str, str, str] = ("<pad>", "</s>", "</s>", "<special1>", "<unk>"),
        lowercase: bool = False,
        plain_letters: bool = False,
    ) -> None:
        if sorted(vocabulary.values()) != list(range(len(vocabulary))):
            raise InputError("the numbers of a vocabulary's tokens must be 0, 1, 2, ..., each once.")
        if missing := [token for token in special if token not in vocabulary]:
            raise InputError(f"the vocabulary has no token '{missing[0]}'.")
        self.lowercase, self.plain_letters = lowercase or plain_letters, plain_letters
        self._tokens = sorted(vocabulary, key=vocabulary.__getitem__)
        self.rows = [*(vocabulary[token] for token in special[:4]), *range(len(vocabulary))]
        self.size = len(self.rows)
        self._ids = {token: number + 4 for token, number in vocabulary.items()}
        self._unknown = self._ids[special[4]]
        self._never = {self._ids[token] for token in vocabulary if token in special or _MARK.fullmatch(token)}
        self._ranks = {pair: rank for rank, pair in reversed(list(enumerate(merges)))}
        self._of_word = functools.lru_cache(2**16)(self._merge)

    def encode(self, text: str) -> list[int]:
        return [self._ids.get(piece, self._unknown) for word in self._words(text) for piece in self._of_word(word)]

    def encode_all(self, sentences: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in sentences]

    def decode(self, ids: Sequence[int]) -> str:
        pieces = (self._tokens[number - 4] for number in ids if number >= 4 and number not in self._never)
        return "".join(pieces).replace(END, " ").strip()

    def pieces(self, text: str) -> list[str]:
        """`▁` is a space before a word, as in `Bpe.pieces`; an unknown piece stands as it was written."""
        words = [self._of_word(word) for word in self._words(text)]
        return [f"{'' if i else '▁'}{piece.removesuffix(END)}" for word in words for i, piece in enumerate(word)]

    def to_json(self) -> str:
        raise InputError("an XLM's vocabulary stays in its folder, and is not written again.")

    def _words(self, text: str) -> list[str]:
        text = text.lower() if self.lowercase else text
        if self.plain_letters:
            text = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
        return _WORD.findall(text)

    def _merge(self, word: str) -> tuple[str, ...]:
        pieces = [*word[:-1], word[-1] + END]
        while len(pieces) > 1:
            best = min(itertools.pairwise(pieces), key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            merged, i = [], 0
            while i < len(pieces):
                both = i + 1 < len(pieces) and (pieces[i], pieces[i + 1]) == best
                merged.append(pieces[i] + pieces[i + 1] if both else pieces[i])
                i += 2 if both else 1
            pieces = merged
        return tuple(pieces)


def read_merges(text: str) -> list[tuple[str, str]]:
    """The pairs of a `merges.txt`: a line each, and what follows the second column, such as counts, is left out.

    Raises:
        InputError: a line that is no pair; names it.
    """
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        columns = line.split()
        if line.startswith("#version") or not columns:
            continue
        if len(columns) < 2:
            raise InputError(f"line {number} of the merges, '{line[:40]}', is no pair.")
        pairs.append((columns[0], columns[1]))
    return pairs


assert (PAD, BOS, EOS, BLANK) == (0, 1, 2, 3)  # the order of `special`
