"""Single-object tracking: `Sequence`, and loaders of eleven benchmarks and five development sequences into it."""

from labkit.data.tracking.benchmarks import BENCHMARKS, Benchmark, benchmark, load
from labkit.data.tracking.development import DEVELOPMENT, development
from labkit.data.tracking.sequence import ImageFiles, Sequence, polygon_boxes

__all__ = [
    "BENCHMARKS",
    "DEVELOPMENT",
    "Benchmark",
    "ImageFiles",
    "Sequence",
    "benchmark",
    "development",
    "load",
    "polygon_boxes",
]
