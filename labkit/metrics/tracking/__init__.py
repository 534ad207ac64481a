"""Protocols of single-object tracking: one pass, VOT's restarts, OxUvA's presence."""

from labkit.metrics.tracking.ope import OVERLAPS, PIXELS, SHARES, OnePass, Summary, one_pass, summary
from labkit.metrics.tracking.overlap import box_overlaps, box_polygons, centre_errors, polygon_overlaps
from labkit.metrics.tracking.presence import Counts, LongTerm, long_term, max_gm
from labkit.metrics.tracking.supervised import (
    WINDOWS,
    AccuracyRobustness,
    SupervisedRun,
    accuracy_robustness,
    eao,
    eao_curve,
)

__all__ = [
    "OVERLAPS",
    "PIXELS",
    "SHARES",
    "WINDOWS",
    "AccuracyRobustness",
    "Counts",
    "LongTerm",
    "OnePass",
    "Summary",
    "SupervisedRun",
    "accuracy_robustness",
    "box_overlaps",
    "box_polygons",
    "centre_errors",
    "eao",
    "eao_curve",
    "long_term",
    "max_gm",
    "one_pass",
    "polygon_overlaps",
    "summary",
]
