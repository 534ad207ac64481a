"""Spatial-Temporal Multi-Cue network (Zhou et al., AAAI 2020, arXiv 2002.03187): reads signed sentences.

The network is that of the file its first author shared; losses and schedule are recalled, and marked so.
"""

from typing import TYPE_CHECKING

from labkit.lazy import lazily
from labkit.workbench.experiment import Paper

if TYPE_CHECKING:
    from labkit.papers.stmc.experiment.avatars import World, sentences
    from labkit.papers.stmc.experiment.config import ARMS, Arm, Config
    from labkit.papers.stmc.experiment.export import load
    from labkit.papers.stmc.experiment.recognizer import Recognizer, Transcript
    from labkit.papers.stmc.method.architecture import MEDIUM, SMALL, Architecture
    from labkit.papers.stmc.method.network import STMC

PAPER = Paper(
    room=__name__,
    title="Spatial-Temporal Multi-Cue Network for Continuous Sign Language Recognition",
    arxiv="2002.03187",
    venue="AAAI 2020",
    idea="Look at hands, face and posture one by one, follow each through time, and let a joint path listen to all.",
    notebook="09_stmc",
    needs={"full": ("phoenix2014",)},
)

__all__ = [
    "ARMS",
    "MEDIUM",
    "PAPER",
    "SMALL",
    "STMC",
    "Architecture",
    "Arm",
    "Config",
    "Recognizer",
    "Transcript",
    "World",
    "load",
    "sentences",
]

__getattr__, __dir__ = lazily(__name__)
