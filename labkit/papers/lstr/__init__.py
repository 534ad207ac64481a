"""Long Short-Term Relation Networks for Video Action Detection (Li et al., arXiv 2003.14065).

Of the paper only the abstract is known to us: the pipeline (tubelets, attention inside a clip, a graph over clips, in a
cascade) is the paper's, every formula and setting is our reading.
"""

from typing import TYPE_CHECKING

from labkit.lazy import lazily
from labkit.workbench.experiment import Paper

if TYPE_CHECKING:
    from labkit.metrics.detection import Tube
    from labkit.papers.lstr.experiment.config import ARMS, Config
    from labkit.papers.lstr.experiment.detector import Detector, load
    from labkit.papers.lstr.method.linking import link_greedy, link_viterbi, trim
    from labkit.papers.lstr.method.long_term import LongTermRelation
    from labkit.papers.lstr.method.network import Long, Lstr, Proposer, Settings, Short
    from labkit.papers.lstr.method.proposals import ProposalNetwork, ProposalSettings
    from labkit.papers.lstr.method.short_term import ShortTermRelation

PAPER = Paper(
    room=__name__,
    title="Long Short-Term Relation Networks for Video Action Detection",
    arxiv="2003.14065",
    venue="ACM Multimedia 2019",
    idea="Each actor looks around in its clip, then listens along a graph to what was seen in other clips.",
    notebook="10_lstr",
    needs={"full": ("ucf24",)},
)

__all__ = [
    "ARMS",
    "PAPER",
    "Config",
    "Detector",
    "Long",
    "LongTermRelation",
    "Lstr",
    "ProposalNetwork",
    "ProposalSettings",
    "Proposer",
    "Settings",
    "Short",
    "ShortTermRelation",
    "Tube",
    "link_greedy",
    "link_viterbi",
    "load",
    "trim",
]

__getattr__, __dir__ = lazily(__name__)
