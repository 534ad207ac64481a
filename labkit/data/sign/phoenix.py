"""RWTH-PHOENIX-Weather 2014 and 2014-T: signed weather forecasts of German public television.

    phoenix2014/phoenix-2014-multisigner/
        annotations/manual/{train,dev,test}.corpus.csv              id|folder|signer|annotation
        features/fullFrame-210x260px/<split>/<id>/1/*.png
    phoenix2014t/PHOENIX-2014-T/
        annotations/manual/PHOENIX-2014-T.<split>.corpus.csv        name|video|start|end|speaker|orth|translation
        features/fullFrame-210x260px/<split>/<name>/images0001.png

Annotation files come with a header line and, as some projects pass them on, without one: both are read.  Frames are
found by the sentence's name; the folder column of 2014-T does not fit the release.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from labkit.data.registry import require
from labkit.data.sign.keypoints import read_points
from labkit.data.sign.sentence import Sentence
from labkit.data.tracking.text import read_lines
from labkit.errors import DataError

Split = Literal["train", "dev", "test"]
PIXELS = "features/fullFrame-210x260px"


def phoenix2014(split: Split) -> list[Sentence]:
    """Sentences of RWTH-PHOENIX-Weather 2014, multi-signer: 5,672 / 540 / 629.

    Raises:
        DataError: the corpus is not there, or an annotation file is damaged; names the line.
    """
    root = require("phoenix2014") / "phoenix-2014-multisigner"
    return read_corpus(
        root / "annotations" / "manual" / f"{split}.corpus.csv", corpus_2014, root / PIXELS / split, inner="1"
    )


def phoenix2014t(split: Split) -> list[Sentence]:
    """Sentences of RWTH-PHOENIX-Weather 2014-T, with translations: 7,096 / 519 / 642.

    Raises:
        DataError: the corpus is not there, or an annotation file is damaged; names the line.
    """
    root = require("phoenix2014t") / "PHOENIX-2014-T"
    return read_corpus(
        root / "annotations" / "manual" / f"PHOENIX-2014-T.{split}.corpus.csv", corpus_2014t, root / PIXELS / split
    )


Row = tuple[str, str, str, str]
"""name, signer, glosses, translation"""


def corpus_2014(cells: Sequence[str]) -> Row:
    """id, folder, signer, annotation."""
    name, _, signer, glosses = cells
    return name, signer, glosses, ""


def corpus_2014t(cells: Sequence[str]) -> Row:
    """name, video, start, end, speaker, orth, translation."""
    name, _, _, _, signer, glosses, text = cells
    return name, signer, glosses, text


def read_corpus(path: Path, row: Callable[[Sequence[str]], Row], pixels: Path, inner: str = "") -> list[Sentence]:
    """The sentences of an annotation file whose columns are separated by |.

    Args:
        row: `corpus_2014` or `corpus_2014t`.
        pixels: the folder with one folder of frames a sentence; key points are looked for beside it.
        inner: a folder inside of each sentence's.

    Raises:
        DataError: the file is missing or damaged, or holds a sentence twice or one without glosses; names the line.
    """
    lines, points = read_lines(path), read_points(pixels.parent / f"{pixels.name}-keypoints.npz")
    sentences: dict[str, Sentence] = {}
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        try:
            name, signer, text, translation = row(line.rstrip("\r\n").split("|"))
        except ValueError:
            raise DataError(f"{where}: {line.count('|') + 1} columns between | are not those of this corpus.") from None
        if number == 1 and name in ("id", "name"):
            continue  # the header
        if not name or name in (".", "..") or "/" in name or not text.split():
            raise DataError(f"{where}: a sentence needs a name that can be a folder's, and glosses; got {line[:60]!r}.")
        if name in sentences:
            raise DataError(f"{where}: '{name}' stands there twice.")
        sentences[name] = Sentence(
            name, signer.capitalize(), tuple(text.split()), pixels / name / inner, points.get(name), translation
        )
    if not sentences:
        raise DataError(f"{path} holds no sentence.")
    return list(sentences.values())


def read_stm(path: Path) -> dict[str, tuple[str, ...]]:
    """References in NIST's stm format, by sentence: `<id> 1 <signer> 0.0 1.79769e+308 GLOSS GLOSS ...`.

    Raises:
        DataError: the file is missing, or a line has fewer than five fields or names a sentence again.
    """
    references: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(read_lines(path), 1):
        fields = line.split()
        if len(fields) < 5:
            raise DataError(f"{path}, line {number}: an stm line has five fields before its words; got {line[:60]!r}.")
        if fields[0] in references:
            raise DataError(f"{path}, line {number}: '{fields[0]}' stands there twice.")
        references[fields[0]] = tuple(fields[5:])
    return references


def write_ctm(sentences: dict[str, Sequence[tuple[str, float, float]]]) -> str:
    """Hypotheses in NIST's ctm format: `<id> 1 <start> <duration> GLOSS`, one word a line, for sclite.

    Args:
        sentences: by name, each gloss with its first and its last second. A sentence without glosses becomes [EMPTY].
    """
    lines = []
    for name, glosses in sentences.items():
        for gloss, start, end in glosses or [("[EMPTY]", 0.0, 0.0)]:
            lines.append(f"{name} 1 {start:.2f} {end - start:.2f} {gloss}\n")
    return "".join(lines)
