"""CSL: one hundred Chinese sentences, fifty signers, five times each; word by word.

csl/corpus.txt                       000000 sentence, words with blanks between
csl/color/<sentence>/<video>.avi     P41_s1_00_0_color: signer, session, sentence, repetition
csl/split_1_{train,test}.txt         <path of the video>  TAB  <sentence>        split I: signers 41 to 50 unseen
csl/split_2_{train,test}.txt                                                     split II: six sentences unseen
"""

import re
from pathlib import Path
from typing import Literal

from labkit.data.registry import require
from labkit.data.sign.keypoints import read_points
from labkit.data.sign.sentence import VIDEOS, Sentence
from labkit.data.tracking.text import read_lines
from labkit.errors import DataError

_VIDEO = re.compile(r"(?:.*/)?(?P<sentence>\d+)/(?P<video>(?P<signer>P\d+)_[^/\s]+?)(?:\.\w+)?")


def csl(split: Literal[1, 2], part: Literal["train", "test"]) -> list[Sentence]:
    """The sentences of one part of one split.

    Raises:
        DataError: the corpus is not there, or its list is damaged; names the line.
    """
    root = require("csl")
    return read_list(root / f"split_{split}_{part}.txt", root / "color")


def read_list(path: Path, videos: Path) -> list[Sentence]:
    """The sentences of a list of videos; those are found by the last two parts of the path it gives.

    Raises:
        DataError: the list is missing or damaged; names the line.
    """
    points, sentences = read_points(videos.parent / "keypoints.npz"), {}
    for number, line in enumerate(read_lines(path), 1):
        address, tab, text = line.rstrip("\r\n").partition("\t")
        parts = _VIDEO.fullmatch(address)
        if not tab or not parts or not text.split():
            raise DataError(f"{path}, line {number}: '<sentence>/P.._..' and words, a tab between; got {line[:60]!r}.")
        name = parts["video"]
        if name in sentences:
            raise DataError(f"{path}, line {number}: '{name}' stands there twice.")
        sentences[name] = Sentence(
            name, parts["signer"], tuple(text.split()), _source(videos / parts["sentence"] / name), points.get(name)
        )
    if not sentences:
        raise DataError(f"{path} holds no sentence.")
    return list(sentences.values())


def _source(path: Path) -> Path:
    """A video file of that name with any ending, or else the folder with its frames."""
    return next((path.with_name(path.name + end) for end in VIDEOS if path.with_name(path.name + end).is_file()), path)
