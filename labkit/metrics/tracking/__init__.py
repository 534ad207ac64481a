"""Protocols of single-object tracking: one pass, VOT's restarts, OxUvA's presence, and intervals over sequences."""

from labkit.metrics.tracking.bootstrap import Interval, curve_band, interval_of, interval_of_mean
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
    "Interval",
    "LongTerm",
    "OnePass",
    "Summary",
    "SupervisedRun",
    "accuracy_robustness",
    "box_overlaps",
    "box_polygons",
    "centre_errors",
    "curve_band",
    "eao",
    "eao_curve",
    "interval_of",
    "interval_of_mean",
    "long_term",
    "max_gm",
    "one_pass",
    "polygon_overlaps",
    "summary",
]
