"""Signed sentences: the corpora of continuous sign language recognition, and the reader's own clips."""

from labkit.data.sign.chinese import csl
from labkit.data.sign.folder import sign_folder
from labkit.data.sign.phoenix import phoenix2014, phoenix2014t, read_stm, write_ctm
from labkit.data.sign.sentence import Sentence, read_frames, vocabulary

__all__ = [
    "Sentence",
    "csl",
    "phoenix2014",
    "phoenix2014t",
    "read_frames",
    "read_stm",
    "sign_folder",
    "vocabulary",
    "write_ctm",
]
