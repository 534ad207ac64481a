"""Parallel text: sentences with their translations, from a reader's own files and in the layouts of IWSLT and WMT.

Text is raw, as in the files; no Moses tokenizer is applied. Sentence i of one side is the translation
of sentence i of the other.
"""

import gzip
import re
import xml.sax.saxutils
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from labkit.data.registry import require
from labkit.errors import DataError, InputError

LONGEST_LINE = 100_000  # characters; a longer line is no sentence, and eats memory squared
_TAG = re.compile(r"^\s*<")
_SEGMENT = re.compile(r"<seg[^>]*>(.*?)</seg>", re.DOTALL | re.IGNORECASE)
_DOCUMENT = re.compile(r"<doc[^>]*>(.*?)</doc>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class ParallelText:
    """Sentences, their translations and, where the files say it, the document of each: a talk, an article."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    documents: tuple[int, ...] = ()
    """Numbers that grow from document to document; empty: unknown."""

    def __post_init__(self) -> None:
        if len(self.sources) != len(self.targets) or (self.documents and len(self.documents) != len(self.sources)):
            raise InputError(f"{len(self.sources):,} sentences have {len(self.targets):,} translations: not parallel.")

    def __len__(self) -> int:
        return len(self.sources)

    def select(self, rows: Sequence[int]) -> "ParallelText":
        """These sentences, in this order."""
        documents = tuple(self.documents[i] for i in rows) if self.documents else ()
        return ParallelText(tuple(self.sources[i] for i in rows), tuple(self.targets[i] for i in rows), documents)

    def contexts(self) -> tuple[str, ...]:
        """The source sentence before each one; empty at the beginning of a document.

        Raises:
            InputError: the documents are not known.
        """
        if not self.documents:
            raise InputError("this text does not say where a document begins: there is no sentence before.")
        numbered = enumerate(self.documents)
        return tuple(self.sources[i - 1] if i and self.documents[i - 1] == of else "" for i, of in numbered)

    def reversed(self) -> "ParallelText":
        """The other direction of translation."""
        return ParallelText(self.targets, self.sources, self.documents)


class Splits(NamedTuple):
    train: ParallelText
    valid: ParallelText
    test: ParallelText


def join(parts: Sequence[ParallelText]) -> ParallelText:
    """One text after another; documents stay apart."""
    documents: list[int] = []
    for part in parts:
        first = documents[-1] + 1 if documents else 0
        documents += [first + of - part.documents[0] for of in part.documents]
    sources, targets = (tuple(s for part in parts for s in getattr(part, side)) for side in ("sources", "targets"))
    return ParallelText(sources, targets, tuple(documents) if len(documents) == len(sources) else ())


def clean(text: ParallelText, longest: int = 175, ratio: float = 1.5) -> ParallelText:
    """Pairs without an empty side, of at most `longest` words, none `ratio` times as long as the other.

    As `clean-corpus-n.perl` of Moses with the official code's arguments; words are what spaces divide.
    """
    kept = []
    for i, sides in enumerate(zip(text.sources, text.targets, strict=True)):
        counts = [len(side.split()) for side in sides]
        if min(counts) >= 1 and max(counts) <= min(longest, ratio * min(counts)):
            kept.append(i)
    return text.select(kept)


def every(text: ParallelText, step: int = 23) -> tuple[ParallelText, ParallelText]:
    """Every `step`-th pair, and the rest: how IWSLT'14 gets its validation set [official code]."""
    marked = [i for i in range(len(text)) if i % step == 0]
    return text.select(marked), text.select([i for i in range(len(text)) if i % step])


# -- a reader's own files ---------------------------------------------------------------------------------------------


def parallel(path: str) -> ParallelText:
    """From "pairs.tsv" (source, tab, target), or "train.en,train.de": two files, line by line.

    Files that end with .gz are unpacked. Pairs with an empty side are left out.

    Raises:
        InputError: no such file, other numbers of lines, a line without a tab; names the line.
    """
    try:
        if "," in path and not Path(path).exists():
            first, _, second = (Path(part.strip()) for part in path.partition(","))
            sources, targets = _lines(first), _lines(second)
            if len(sources) != len(targets):
                raise InputError(
                    f"'{first}' has {len(sources):,} lines and '{second}' {len(targets):,}: line i of one must be the "
                    "translation of line i of the other."
                )
        else:
            sources, targets = _two_columns(Path(path))
    except DataError as error:
        raise InputError(str(error)) from None
    kept = [i for i, pair in enumerate(zip(sources, targets, strict=True)) if all(side.strip() for side in pair)]
    if not kept:
        raise InputError(f"'{path}' holds no pair of sentences.")
    return ParallelText(tuple(sources[i].strip() for i in kept), tuple(targets[i].strip() for i in kept))


def monolingual(path: str) -> tuple[str, ...]:
    """The sentences of a text file, a line each; blank lines are left out.

    Raises:
        InputError: no such file, or no sentence in it.
    """
    try:
        sentences = tuple(line.strip() for line in _lines(Path(path)) if line.strip())
    except DataError as error:
        raise InputError(str(error)) from None
    if not sentences:
        raise InputError(f"'{path}' holds no sentence.")
    return sentences


def split(text: ParallelText, most: int = 1000) -> Splits:
    """For text that comes in one piece: a twentieth of its pairs, spread evenly, to test, another one to validate.

    Raises:
        InputError: fewer than 20 pairs.
    """
    if len(text) < 20:
        raise InputError(f"20 pairs of sentences or more are needed; got {len(text)}.")
    step = max(20, -(-len(text) // most))
    test = list(range(0, len(text), step))
    valid = list(range(step // 2, len(text), step))
    out = {*test, *valid}
    return Splits(text.select([i for i in range(len(text)) if i not in out]), text.select(valid), text.select(test))


def _two_columns(path: Path) -> tuple[list[str], list[str]]:
    rows = [line.split("\t") for line in _lines(path)]
    for number, row in enumerate(rows, 1):
        if len(row) < 2 and row != [""]:
            raise InputError(
                f"'{path}', line {number}: a sentence, a tab and its translation are needed; got '{row[0][:60]}'. "
                "Two files are given as 'first,second'."
            )
    rows = [row for row in rows if row != [""]]
    return [row[0] for row in rows], [row[1] for row in rows]


def _lines(path: Path) -> list[str]:
    """The lines of a text file, of a packed one, too.

    Raises DataError when it is not there, or no text.
    """
    try:
        content = _unpacked(path) if path.suffix == ".gz" else path.read_bytes()
        lines = content.decode("utf-8-sig").split("\n")  # not splitlines: a sentence may hold U+2028
    except FileNotFoundError:
        raise DataError(f"there is no file '{path}'.") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        reason = "it is not text in UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise DataError(f"'{path}' cannot be read: {reason}.") from None
    lines = [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
    for number, line in enumerate(lines, 1):
        if len(line) > LONGEST_LINE:
            raise DataError(f"'{path}', line {number}: {len(line):,} characters are no sentence.")
    return lines


def _unpacked(path: Path) -> bytes:
    """Text gets three to ten times smaller; what gets more than fifty times larger is made to fill the memory."""
    most = 2**24 + 50 * path.stat().st_size
    with gzip.open(path) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise DataError(f"'{path}' unpacks to more than {most:,} bytes: that is no text.")
    return content


# -- layouts of the benchmarks ----------------------------------------------------------------------------------------


def multi30k(source: str = "en", target: str = "de") -> Splits:
    """Multi30k, task 1: 29,000 captions to train on, 1,014 to validate, 1,000 to test.

    Raises:
        DataError: it is not in LABKIT_DATA.
        InputError: a language that it does not have.
    """
    for language in (source, target):
        if language not in ("en", "de", "fr"):
            raise InputError(f"multi30k has en, de and fr; got '{language}'.")
    folder = require("multi30k")
    parts = [_plain(folder, f"{name}.{{}}.gz", source, target) for name in ("train", "val", "test_2016_flickr")]
    return Splits(*parts)


def iwslt14(source: str, target: str) -> Splits:
    """IWSLT'14, German and English, or English and Spanish: TED talks, a document each.

    Below LABKIT_DATA: iwslt14/<pair>/train.tags.<pair>.<language> and IWSLT14.TED*.<pair>.<language>.xml, where <pair>
    is de-en or es-en. Validation is every 23rd pair of training, the tests are dev2010, dev2012 and tst2010 to 2012
    [official code]; what of them is there.

    Raises:
        DataError: it is not there, or not whole.
    """
    folder, pair = _pair_folder("iwslt14", source, target)
    valid, train = every(clean(_tagged(folder / f"train.tags.{pair}", source, target)))
    return Splits(train, valid, _xml_tests(folder, r"\.TEDX?\.(dev2010|dev2012|tst201[012])\.", pair, source, target))


def iwslt17(source: str, target: str) -> Splits:
    """IWSLT'17, English and French or Chinese; validation tst2013 to 2015, test tst2017 [peer code].

    Below LABKIT_DATA: iwslt17/<pair>/train.tags.<pair>.<language> and IWSLT17.TED.tst*.<pair>.<language>.xml. Chinese
    is taken raw: the byte-level BPE needs no word borders, where the official recipe cuts words with jieba first.

    Raises:
        DataError: it is not there, or not whole.
    """
    folder, pair = _pair_folder("iwslt17", source, target)
    longest = float("inf") if "zh" in (source, target) else 1.5  # words are not divided by spaces there
    train = clean(_tagged(folder / f"train.tags.{pair}", source, target), ratio=longest)
    parts = [_xml_tests(folder, rf"\.TED\.({years})\.", pair, source, target) for years in ("tst201[345]", "tst2017")]
    return Splits(train, *parts)


def wmt14(source: str, target: str) -> Splits:
    """WMT'14, English and German or French: validation newstest2012 and 2013, test newstest2014.

    Below LABKIT_DATA: wmt14/<pair>/ with europarl-v7.<pair>.<language>, commoncrawl.<pair>.<language>,
    news-commentary*.<pair>.<language> and so on, all that is there; newstest2012.<language>, newstest2013.<language>;
    newstest2014-<xxyy>-{src,ref}.<language>.sgm.

    Raises:
        DataError: it is not there, or not whole.
    """
    return _wmt("wmt14", source, target, ("newstest2012", "newstest2013"), "newstest2014")


def wmt16(source: str, target: str) -> Splits:
    """WMT'16, Romanian and English: validation newsdev2016, test newstest2016; the layout is that of `wmt14`.

    Back-translations of others are bitext, too: any <name>.<pair>.<language> of the folder is trained on.

    Raises:
        DataError: it is not there, or not whole.
    """
    return _wmt("wmt16", source, target, ("newsdev2016",), "newstest2016")


CORPORA = {"multi30k": multi30k, "iwslt14": iwslt14, "iwslt17": iwslt17, "wmt14": wmt14, "wmt16": wmt16}
"""Loaders by name: (source, target) -> Splits."""


def _pair_folder(dataset: str, source: str, target: str) -> tuple[Path, str]:
    """The folder of a language pair, whose name has the languages in either order."""
    root = require(dataset)
    for pair in (f"{source}-{target}", f"{target}-{source}"):
        if (root / pair).is_dir():
            return root / pair, pair
    there = ", ".join(sorted(path.name for path in root.iterdir() if path.is_dir()))
    raise DataError(f"{root} has no folder {source}-{target} or {target}-{source}; it has {there}.")


def _plain(folder: Path, pattern: str, source: str, target: str) -> ParallelText:
    """Two files of one sentence a line; `{}` stands for the language."""
    sources, targets = (_lines(folder / pattern.format(language)) for language in (source, target))
    return _parallel(sources, targets, folder / pattern)


def _parallel(sources: list[str], targets: list[str], where: Path, documents: Sequence[int] = ()) -> ParallelText:
    if len(sources) != len(targets):
        raise DataError(f"{where}: {len(sources):,} sentences have {len(targets):,} translations; get the files anew.")
    first, second = (tuple(side.strip() for side in sides) for sides in (sources, targets))
    return ParallelText(first, second, tuple(documents))


def _tagged(stem: Path, source: str, target: str) -> ParallelText:
    """Training text of IWSLT: sentences, and lines with tags of which <talkid> begins another talk."""
    sides = [_untagged(Path(f"{stem}.{language}")) for language in (source, target)]
    (sources, documents), (targets, others) = sides
    if documents != others:
        raise DataError(f"{stem}: the talks of both languages differ ({len(sources):,}, {len(targets):,} sentences).")
    return _parallel(sources, targets, stem, documents)


def _untagged(path: Path) -> tuple[list[str], list[int]]:
    sentences, documents, talk = [], [], 0
    for line in _lines(path):
        if not _TAG.match(line):
            sentences.append(line)
            documents.append(talk)
        elif line.lstrip().startswith("<talkid"):
            talk += 1
    if not sentences:
        raise DataError(f"'{path}' holds no sentence.")
    return sentences, documents


def _xml_tests(folder: Path, names: str, pair: str, source: str, target: str) -> ParallelText:
    """All test sets whose names fit, in the order of their names."""
    files = sorted(path for path in folder.glob(f"*.{pair}.{source}.xml") if re.search(names, path.name))
    if not files:
        raise DataError(f"{folder} holds no test set '{names}' as *.{pair}.{source}.xml.")
    return join(
        [_segments(path, path.with_name(path.name.replace(f".{source}.xml", f".{target}.xml"))) for path in files]
    )


def _segments(first: Path, second: Path) -> ParallelText:
    """Two files of XML or SGM: <doc> ... <seg id=1> sentence </seg>."""
    (sources, documents), (targets, others) = (_of_documents(path) for path in (first, second))
    if documents != others:
        raise DataError(f"'{first}' and '{second}' have documents of different lengths.")
    return _parallel(sources, targets, first, documents)


def _of_documents(path: Path) -> tuple[list[str], list[int]]:
    content = "\n".join(_lines(path))
    sentences, documents = [], []
    for number, document in enumerate(_DOCUMENT.findall(content)):
        for segment in _SEGMENT.findall(document):
            sentences.append(xml.sax.saxutils.unescape(" ".join(segment.split()), {"&quot;": '"', "&apos;": "'"}))
            documents.append(number)
    if not sentences:
        raise DataError(f"'{path}' holds no <doc> with <seg> in it.")
    return sentences, documents


def _wmt(dataset: str, source: str, target: str, valid: Sequence[str], test: str) -> Splits:
    folder, pair = _pair_folder(dataset, source, target)
    names = sorted(path.name.removesuffix(f".{source}") for path in folder.glob(f"*.{pair}.{source}"))
    if not names:
        raise DataError(f"{folder} holds no training text such as europarl-v7.{pair}.{source}.")
    train = clean(join([_plain(folder, f"{name}.{{}}", source, target) for name in names]))
    return Splits(
        train, join([_news(folder, name, source, target) for name in valid]), _news(folder, test, source, target)
    )


def _news(folder: Path, name: str, source: str, target: str) -> ParallelText:
    """newstest2014.de and .en, or newstest2014-deen-src.en.sgm and -ref.de.sgm, as the task gives them out."""
    if (folder / f"{name}.{source}").is_file():
        return _plain(folder, f"{name}.{{}}", source, target)
    for between in (f"{source}{target}", f"{target}{source}"):
        first = folder / f"{name}-{between}-src.{source}.sgm"
        if first.is_file():
            return _segments(first, folder / f"{name}-{between}-ref.{target}.sgm")
    raise DataError(f"{folder} lacks {name}.{source}, or {name}-{source}{target}-src.{source}.sgm.")
