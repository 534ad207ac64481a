"""Cascaded Regression Tracking (Wang et al., arXiv 2006.10336): towards online hard distractor discrimination.

Of the paper only the abstract is known to us: the cascade of convolutional and ridge regression is the paper's,
every concrete setting a documented default of its nearest relatives (ATOM, DCFST) or our own.
"""

from typing import TYPE_CHECKING

from labkit.lazy import lazily
from labkit.workbench.experiment import Paper

if TYPE_CHECKING:
    from labkit.papers.crt.experiment.clips import KINDS, LookAlikes, look_alikes
    from labkit.papers.crt.experiment.config import ARMS, Arm, Config
    from labkit.papers.crt.experiment.export import load
    from labkit.papers.crt.experiment.tracking import track_together
    from labkit.papers.crt.method.cascade import Cascade, CascadeTracker, Settings, stage1_only
    from labkit.papers.crt.method.features import HandMade, Learned, ResNetFeatures
    from labkit.papers.crt.method.ridge_head import Ridge
    from labkit.tracking.tracker import Box, Tracked, Tracker

PAPER = Paper(
    room=__name__,
    title="Cascaded Regression Tracking: Towards Online Hard Distractor Discrimination",
    arxiv="2006.10336",
    venue="IEEE TCSVT 2020",
    idea="A quick filter drops the easy negatives; ridge regression in closed form double-checks the look-alikes.",
    notebook="07_crt",
    needs={
        "full": (
            "otb2013",
            "otb2015",
            "tc128",
            "uav123",
            "uav20l",
            "nfs",
            "trackingnet",
            "lasot",
            "vot2018",
            "vot2019",
            "oxuva",
            "ResNet weights",
        )
    },
)

__all__ = [
    "ARMS",
    "KINDS",
    "PAPER",
    "Arm",
    "Box",
    "Cascade",
    "CascadeTracker",
    "Config",
    "HandMade",
    "Learned",
    "LookAlikes",
    "ResNetFeatures",
    "Ridge",
    "Settings",
    "Tracked",
    "Tracker",
    "load",
    "look_alikes",
    "stage1_only",
    "track_together",
]

__getattr__, __dir__ = lazily(__name__)
