"""Annotations of actions in videos: UCF-101-24, J-HMDB, UCF-Sports as tubes, frames of them and of AVA as arrays."""

from labkit.data.action.annotations import ActionSet, ActionVideo, AnnotatedTube
from labkit.data.action.datasets import jhmdb, ucf24, ucf_sports
from labkit.data.action.frames import Frames, ImageFrames, VideoFrames, frames_of, read_frame_list

__all__ = [
    "ActionSet",
    "ActionVideo",
    "AnnotatedTube",
    "Frames",
    "ImageFrames",
    "VideoFrames",
    "frames_of",
    "jhmdb",
    "read_frame_list",
    "ucf24",
    "ucf_sports",
]
