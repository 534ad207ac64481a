"""Word error rate: what is wrong in transcripts, by kind, over a whole corpus; jiwer does the alignment.

    WER = (substitutions + deletions + insertions) / words of the references

summed over the corpus before dividing, so that long sentences count for what they hold; it can exceed 1.  All edits
cost 1.  NIST's sclite, which older tables of sign language recognition used, weighs 4 / 3 / 3: its total can be one
edit off, its split into deletions and insertions more.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from labkit.errors import InputError

Words = str | Sequence[str]
Kind = Literal["equal", "substitute", "delete", "insert"]


@dataclass(frozen=True)
class Edit:
    """One column of an alignment; empty where one side has no word."""

    kind: Kind
    reference: str
    hypothesis: str


@dataclass(frozen=True)
class WordErrors:
    """Counts over a corpus of `words` reference words, and each sentence's alignment."""

    substitutions: int
    deletions: int
    insertions: int
    words: int
    sentences: tuple[tuple[Edit, ...], ...]

    @property
    def rate(self) -> float:
        """WER, as a share."""
        return (self.substitutions + self.deletions + self.insertions) / self.words


def word_errors(references: Sequence[Words], hypotheses: Sequence[Words]) -> WordErrors:
    """The errors of a corpus, sentence k of `hypotheses` against sentence k of `references`.

    Args:
        references, hypotheses: sentences; each as text with spaces between words, or as a sequence of words.

    Raises:
        InputError: another number of hypotheses than references, no word in any reference, a word with a space in it;
            or jiwer is not installed.
    """
    if len(references) != len(hypotheses):
        raise InputError(f"{len(references)} references and {len(hypotheses)} hypotheses: one each is needed.")
    left, right = ([_text(sentence) for sentence in side] for side in (references, hypotheses))
    if not any(left):
        raise InputError("the references hold no word; an error rate needs something to divide by.")
    output = _jiwer().process_words(left, right)
    sentences = tuple(
        tuple(_edits(chunks, reference, hypothesis))
        for chunks, reference, hypothesis in zip(output.alignments, output.references, output.hypotheses, strict=True)
    )
    words = sum(len(text.split()) for text in left)
    return WordErrors(output.substitutions, output.deletions, output.insertions, words, sentences)


def _edits(chunks: Iterable[Any], reference: Sequence[str], hypothesis: Sequence[str]) -> Iterable[Edit]:
    for chunk in chunks:
        left = reference[chunk.ref_start_idx : chunk.ref_end_idx]
        right = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
        for k in range(max(len(left), len(right))):
            yield Edit(chunk.type, left[k] if k < len(left) else "", right[k] if k < len(right) else "")


def _text(sentence: Words) -> str:
    if isinstance(sentence, str):
        return " ".join(sentence.split())
    for word in sentence:
        if not word or word.split() != [word]:
            raise InputError(f"a word of a sentence holds no space and is not empty; got {word!r}.")
    return " ".join(sentence)


def _jiwer() -> Any:
    try:
        import jiwer
    except ImportError:
        raise InputError("the word error rate needs jiwer. Get it: pip install 'labkit[video]'") from None
    return jiwer


# -- clean-up of RWTH-PHOENIX-Weather 2014 ----------------------------------------------------------------------------

_PREFIXES = re.compile(r"loc-|cl-|qu-|poss-|lh-")
_DROPPED = {"__EMOTION__", "__PU__", "__LEFTHAND__", "__EPENTHESIS__", ""}
_SPELLED = re.compile(r"(?:[A-Z]|SCH|NN)(?:\+(?:[A-Z]|SCH|NN))*")  # fingerspelled letters, joined or not


def rwth_clean(glosses: Words) -> tuple[str, ...]:
    """Glosses as the evaluation of RWTH-PHOENIX-Weather 2014 compares them.  [peer code: its preprocess script]

    Markers go (loc- cl- qu- poss- lh-, -PLUSPLUS, a RAUM at the end), variants of a sign become one (S0NNE, HABEN2,
    WIE AUSSEHEN, ZEIGEN), spelled letters are joined by +, words without meaning are dropped, and a word that is
    repeated at once counts once.  It changes error rates by whole points: say whether it was applied.

    >>> rwth_clean("KUEHL KUEHL loc-NORD MINUS loc-MINUS-PLUSPLUS S P D")
    ('KUEHL', 'NORD', 'MINUS', 'S+P+D')
    """
    words = _text(glosses).split()
    words = [_one_word(word) for word in words]
    words = [word for word in words if word not in _DROPPED]
    words = re.sub(r"\bWIE AUSSEHEN\b", "WIE-AUSSEHEN", " ".join(words)).split()
    words = ["ZEIGEN-BILDSCHIRM" if word == "ZEIGEN" else word for word in words]
    joined: list[str] = []
    for word in words:
        if joined and _SPELLED.fullmatch(word) and _SPELLED.fullmatch(joined[-1]):
            joined[-1] += "+" + word
        elif not joined or joined[-1] != word:
            joined.append(word)
    return tuple(joined)


def _one_word(word: str) -> str:
    word = _PREFIXES.sub("", word).replace("S0NNE", "SONNE").replace("HABEN2", "HABEN")
    return re.sub(r"([A-Z][A-Z])RAUM", r"\1", word).replace("-PLUSPLUS", "")
