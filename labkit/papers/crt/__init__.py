"""Cascaded Regression Tracking (Wang et al., arXiv 2006.10336): towards online hard distractor discrimination.

Of the paper only the abstract is known to us: the cascade of convolutional and ridge regression is the paper's,
every concrete setting a documented default of its nearest relatives (ATOM, DCFST) or our own.
"""

from labkit.papers.crt.experiment.claims import CLAIMS
from labkit.papers.crt.experiment.clips import KINDS, LookAlikes, look_alikes
from labkit.papers.crt.experiment.config import ARMS, CONFIGS, Arm, Config
from labkit.papers.crt.experiment.tracking import track_together
from labkit.papers.crt.experiment.train import train as track_arms  # the name `train` stays the module's
from labkit.papers.crt.method.cascade import Cascade, CascadeTracker, Settings, stage1_only
from labkit.papers.crt.method.features import HandMade, Learned, ResNetFeatures
from labkit.papers.crt.method.ridge_head import Ridge
from labkit.papers.crt.teaching.exercises import EXERCISES
from labkit.tracking.tracker import Box, Tracked, Tracker
from labkit.workbench.experiment import Paper

PAPER = Paper(
    slug="crt",
    title="Cascaded Regression Tracking: Towards Online Hard Distractor Discrimination",
    arxiv="2006.10336",
    venue="IEEE TCSVT 2020",
    idea="A quick filter drops the easy negatives; ridge regression in closed form double-checks the look-alikes.",
    notebook="07_crt",
    configs=CONFIGS,
    train=track_arms,
    claims=CLAIMS,
    exercises=EXERCISES,
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
    "look_alikes",
    "stage1_only",
    "track_together",
]
