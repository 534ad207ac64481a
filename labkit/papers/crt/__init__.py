"""Cascaded Regression Tracking (Wang et al., arXiv 2006.10336): towards online hard distractor discrimination.

Of the paper only the abstract is known to us: the cascade of convolutional and ridge regression is the paper's,
every concrete setting a documented default of its nearest relatives (ATOM, DCFST) or our own.
"""

from labkit.experiment import Paper
from labkit.papers.crt.cascade import Cascade, CascadeTracker, Settings, stage1_only
from labkit.papers.crt.claims import CLAIMS
from labkit.papers.crt.clips import KINDS, LookAlikes, look_alikes
from labkit.papers.crt.config import ARMS, CONFIGS, Arm, Config
from labkit.papers.crt.exercises import EXERCISES
from labkit.papers.crt.features import HandMade, Learned, ResNetFeatures
from labkit.papers.crt.ridge_head import Ridge
from labkit.papers.crt.tracker import Box, Tracked, Tracker
from labkit.papers.crt.tracking import track_together
from labkit.papers.crt.train import train as track_arms  # the name `train` stays the module's

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
