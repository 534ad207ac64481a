"""Average precision of detections in videos: by frame, by tube, and by AVA's protocol. NumPy alone, usable alone.

from labkit.metrics.detection import ava, frame_map, video_map

ava.evaluate("truth.csv", "detections.csv").mean      # or: labkit detection-map ava truth.csv detections.csv
"""

from labkit.metrics.detection import ava
from labkit.metrics.detection.average_precision import AveragePrecisions, average_precision
from labkit.metrics.detection.frames import Boxes, frame_map
from labkit.metrics.detection.overlap import pairwise_iou, row_iou, tube_overlap
from labkit.metrics.detection.tables import read_boxes, read_tubes
from labkit.metrics.detection.tubes import OVERLAPS, Tube, mean_video_map, video_map

__all__ = [
    "OVERLAPS",
    "AveragePrecisions",
    "Boxes",
    "Tube",
    "ava",
    "average_precision",
    "frame_map",
    "mean_video_map",
    "pairwise_iou",
    "read_boxes",
    "read_tubes",
    "row_iou",
    "tube_overlap",
    "video_map",
]
