"""Byte-pair encoding: the words of a translation model, learned from its own text.

By the library `tokenizers`. The bytes of UTF-8 are its letters, so that every text has a code, none is unknown, and the
text comes back from it.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from labkit.errors import InputError
from labkit.ranges import within

SPECIAL = ("<pad>", "<bos>", "<eos>", "<blank>")
"""Their ids are 0, 1, 2 and 3; the text of a user never becomes one of them."""
PAD, BOS, EOS, BLANK = range(4)
SMALLEST = len(SPECIAL) + 256


class Bpe:
    """Text to token ids and back.

        bpe = Bpe.train(sentences, 8000)
        bpe.decode(bpe.encode("two dogs run ."))       # "two dogs run ."

    Source and target share it; `SeparateBpe` is one for each.

    Runs of spaces become one, and there is none at the ends: in the text that comes back, too.

    Attributes:
        size: number of tokens, the special ones included.
        lowercase: text is lowercased first; the translations are in lower case then.
    """

    def __init__(self, tokenizer: Any, lowercase: bool) -> None:
        self._tokenizer, self.lowercase = tokenizer, lowercase
        self.size: int = tokenizer.get_vocab_size()

    @classmethod
    def train(cls, sentences: Iterable[str], size: int, lowercase: bool = False) -> "Bpe":
        """Learn the merges from text, source and target together for a joint vocabulary.

        Args:
            size: of the vocabulary; fewer tokens where the text has not as many different pairs.

        Raises:
            InputError: a size that does not hold the 256 bytes and the special tokens.
        """
        within(SMALLEST, 2**20, **{"the size of a vocabulary": size})
        tokenizers = _tokenizers()
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = tokenizers.decoders.ByteLevel()
        alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size, special_tokens=list(SPECIAL), show_progress=False, initial_alphabet=alphabet
        )
        tokenizer.train_from_iterator((_clean(text, lowercase) for text in sentences), trainer)
        tokenizer.encode_special_tokens = True
        return cls(tokenizer, lowercase)

    @property
    def target(self) -> "Bpe":
        """What the target is written in."""
        return self

    def reversed(self) -> "Bpe":
        """Of the other direction of translation."""
        return self

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(_clean(text, self.lowercase)).ids
        return ids

    def encode_all(self, sentences: Sequence[str]) -> list[list[int]]:
        """`encode` of many."""
        encodings = self._tokenizer.encode_batch([_clean(text, self.lowercase) for text in sentences])
        return [one.ids for one in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """Special tokens are left out; bytes that are no UTF-8 become the replacement character."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def pieces(self, text: str) -> list[str]:
        """The tokens as people read them; `▁` is a space before a word."""
        return [self._tokenizer.decode([number]).replace(" ", "▁") for number in self.encode(text)]

    def to_json(self) -> str:
        """Everything, for a file; `from_json` reads it."""
        return str(self._tokenizer.to_str())

    @classmethod
    def from_json(cls, text: str, lowercase: bool) -> "Bpe":
        """What `to_json` wrote, of a joint one or of separate ones.

        Raises:
            InputError: it is something else.
        """
        sides = _sides(text)
        if sides is not None:
            return SeparateBpe(*(Bpe._one_from_json(side, lowercase) for side in sides))
        return cls._one_from_json(text, lowercase)

    @classmethod
    def _one_from_json(cls, text: str, lowercase: bool) -> "Bpe":
        try:
            tokenizer = _tokenizers().Tokenizer.from_str(text)
        except Exception as error:  # the library raises the bare class
            raise InputError(f"this is no tokenizer ({str(error).splitlines()[0]}).") from None
        if [tokenizer.token_to_id(token) for token in SPECIAL] != list(range(len(SPECIAL))):
            raise InputError(f"this tokenizer's first tokens are not {', '.join(SPECIAL)}: another program wrote it.")
        tokenizer.encode_special_tokens = True
        return cls(tokenizer, lowercase)


class SeparateBpe(Bpe):
    """A vocabulary for each side: `encode` and `pieces` take source text, `decode` gives target text.

    For languages that share no words, such as English and Chinese; `target` encodes the target side.
    """

    def __init__(self, source: Bpe, target: Bpe) -> None:
        super().__init__(source._tokenizer, source.lowercase)
        self._source, self._target = source, target

    @property
    def target(self) -> Bpe:
        return self._target

    def reversed(self) -> Bpe:
        return SeparateBpe(self._target, self._source)

    def decode(self, ids: Sequence[int]) -> str:
        return self._target.decode(ids)

    def to_json(self) -> str:
        return json.dumps({"source": self._source.to_json(), "target": self._target.to_json()}, ensure_ascii=False)


def _sides(text: str) -> tuple[str, str] | None:
    """Source and target of what a `SeparateBpe` wrote; None: it is something else."""
    try:
        sides = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(sides, dict) or sides.keys() != {"source", "target"}:
        return None
    source, target = sides["source"], sides["target"]
    return (source, target) if isinstance(source, str) and isinstance(target, str) else None


def _clean(text: str, lowercase: bool) -> str:
    text = " ".join(text.split())
    return text.lower() if lowercase else text


def _tokenizers() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ModuleNotFoundError:
        raise InputError("this needs the package tokenizers: pip install 'labkit[text]'") from None
    return tokenizers
