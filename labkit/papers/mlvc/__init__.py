"""M-LVC (Lin et al., arXiv 2004.10290): learned video compression that predicts from several decoded frames."""

from typing import TYPE_CHECKING

from labkit.lazy import lazily
from labkit.workbench.experiment import Paper

if TYPE_CHECKING:
    from labkit.papers.mlvc.experiment.bjontegaard import bd_rate
    from labkit.papers.mlvc.experiment.config import Config
    from labkit.papers.mlvc.experiment.export import load
    from labkit.papers.mlvc.experiment.scenes import FAMILIES, Clips, Family, scenes
    from labkit.papers.mlvc.method.codec import Codec
    from labkit.papers.mlvc.method.container import DamagedFile, WrongModel
    from labkit.papers.mlvc.method.network import LAMBDAS, Network, Settings
    from labkit.papers.mlvc.method.references import References

PAPER = Paper(
    room=__name__,
    title="M-LVC: Multiple Frames Prediction for Learned Video Compression",
    arxiv="2004.10290",
    venue="CVPR 2020",
    idea="Four decoded frames and the motion between them predict the next frame and its motion: less is left to send.",
    notebook="06_mlvc",
    needs={"gpu": ("video",), "full": ("vimeo90k", "hevc", "uvg")},
)

__all__ = [
    "FAMILIES",
    "LAMBDAS",
    "PAPER",
    "Clips",
    "Codec",
    "Config",
    "DamagedFile",
    "Family",
    "Network",
    "References",
    "Settings",
    "WrongModel",
    "bd_rate",
    "load",
    "scenes",
]

__getattr__, __dir__ = lazily(__name__)
