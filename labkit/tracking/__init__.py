"""A toolkit for single-object tracking: the tracker protocol, a benchmark runner, OpenCV's trackers, video files."""
