"""OpenCV's trackers behind our convention, and the box that never moves."""

import sys
import types

import numpy as np
import pytest

from labkit.errors import InputError
from labkit.tracking import peers
from labkit.tracking.tracker import Tracker


def moving_square(count: int = 12, step: int = 2) -> tuple[list[np.ndarray], np.ndarray]:
    """Frames with a textured square of 24 pixels on noise, and its boxes."""
    random = np.random.default_rng(0)
    ground = random.integers(80, 130, (120, 160, 3), dtype=np.uint8)
    target = random.integers(0, 255, (6, 6, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    frames, boxes = [], []
    for t in range(count):
        frame = ground.copy()
        x, y = 40 + step * t, 50
        frame[y : y + 24, x : x + 24] = target
        frames.append(frame)
        boxes.append([x, y, 24, 24])
    return frames, np.array(boxes, dtype=float)


def test_the_static_box_stays():
    frames, boxes = moving_square(3)
    tracker = peers.StaticBox()
    assert isinstance(tracker, Tracker)
    tracker.init(frames[0], tuple(boxes[0]))
    assert tracker.update(frames[2]) == ((40, 50, 24, 24), 1.0, True)
    with pytest.raises(InputError, match="uint8 RGB"):
        tracker.update(frames[2].astype(float))


@pytest.mark.parametrize("name", ["CSRT", "KCF", "MIL"])
def test_opencv_follows_an_easy_target(name):
    pytest.importorskip("cv2", reason="needs the extra 'peers'")
    frames, boxes = moving_square()
    tracker = peers.OpenCVTracker(name)
    assert isinstance(tracker, Tracker)
    tracker.init(frames[0], tuple(boxes[0]))
    for frame in frames[1:]:
        tracked = tracker.update(frame)
    assert tracked.present
    if name == "MIL":  # it draws from a generator that no seed reaches: off by 16 pixels in one run of 14
        assert min(tracked.box[2:]) > 0
    else:
        assert np.abs(np.array(tracked.box) - boxes[-1]).max() < 10  # the target has moved by 22


@pytest.mark.parametrize("name", ["CSRT", "KCF"])
def test_the_same_run_twice_is_the_same(name):
    pytest.importorskip("cv2", reason="needs the extra 'peers'")
    frames, boxes = moving_square()

    def run():
        tracker = peers.OpenCVTracker(name)
        tracker.init(frames[0], tuple(boxes[0]))
        return [tracker.update(frame).box for frame in frames[1:]]

    assert run() == run()


def test_colours_reach_opencv_in_its_own_order(monkeypatch):
    """Catches an adapter that hands over RGB: CSRT's colour names would be others."""
    cv2 = pytest.importorskip("cv2", reason="needs the extra 'peers'")
    calls = []

    class Spy:
        def init(self, frame, box):
            calls.append((frame[0, 0].tolist(), box))

        def update(self, frame):
            calls.append(frame[0, 0].tolist())
            return True, (1, 2, 3, 4)

    monkeypatch.setattr(cv2, "TrackerCSRT", types.SimpleNamespace(create=Spy))
    tracker = peers.OpenCVTracker("CSRT")
    frame = np.zeros((20, 20, 3), dtype=np.uint8)
    frame[0, 0] = 10, 20, 30
    tracker.init(frame, (4.6, 5.4, 9.7, 3.2))
    assert tracker.update(frame).box == (1, 2, 3, 4)
    assert calls == [([30, 20, 10], (5, 5, 9, 4)), [30, 20, 10]]  # whole pixels: corners rounded, not sizes


def lossy(monkeypatch, answers):
    """A CSRT whose updates give `answers` in turn; an error among them is raised."""
    cv2 = pytest.importorskip("cv2", reason="needs the extra 'peers'")
    pending = iter(answers)

    class Loses:
        def init(self, frame, box):
            return None

        def update(self, frame):
            answer = next(pending)
            if isinstance(answer, Exception):
                raise answer
            return answer

    monkeypatch.setattr(cv2, "TrackerCSRT", types.SimpleNamespace(create=Loses))
    tracker = peers.OpenCVTracker("CSRT")
    tracker.init(np.zeros((50, 50, 3), dtype=np.uint8), (10.0, 10.0, 8.0, 8.0))
    return tracker


def test_a_reported_loss_keeps_the_last_box(monkeypatch):
    cv2 = pytest.importorskip("cv2", reason="needs the extra 'peers'")
    frame = np.zeros((50, 50, 3), dtype=np.uint8)
    answers = [
        (True, (12, 10, 8, 8)),
        (False, (0, 0, 0, 0)),
        cv2.error("it broke"),
        (True, (0, 0, 0, 5)),
        (True, (20, 10, 8, 8)),
    ]
    tracker = lossy(monkeypatch, answers)
    tracked = [tracker.update(frame) for _ in answers]
    kept = (12.0, 10.0, 8.0, 8.0)
    assert [each.box for each in tracked] == [kept, kept, kept, kept, (20, 10, 8, 8)]
    assert [each.present for each in tracked] == [True, False, False, False, True]
    assert [each.score for each in tracked] == [1, 0, 0, 0, 1]
    assert tracker.lost == 3


def test_an_error_that_is_not_opencvs_is_not_taken_for_a_loss(monkeypatch):
    tracker = lossy(monkeypatch, [MemoryError()])
    with pytest.raises(MemoryError):
        tracker.update(np.zeros((50, 50, 3), dtype=np.uint8))


def test_a_box_partly_outside_is_cut_to_the_frame():
    pytest.importorskip("cv2", reason="needs the extra 'peers'")
    frames, _ = moving_square(2)
    for name in ("CSRT", "KCF"):
        tracker = peers.OpenCVTracker(name)
        tracker.init(frames[0], (-10.0, 40.0, 40.0, 30.0))
        tracker.update(frames[1])
    with pytest.raises(InputError, match="less than 2 x 2 pixels"):
        tracker.init(frames[0], (-10.0, 40.0, 11.0, 30.0))
    with pytest.raises(InputError, match="lies outside"):
        tracker.init(frames[0], (500.0, 40.0, 11.0, 30.0))


def test_what_is_not_there_says_what_to_install(monkeypatch):
    with pytest.raises(InputError, match="no peer 'Siamese'; OpenCV's trackers are CSRT, KCF"):
        peers.OpenCVTracker("Siamese")
    bare = types.SimpleNamespace(__version__="4.9")
    monkeypatch.setitem(sys.modules, "cv2", bare)
    with pytest.raises(InputError, match=r"OpenCV 4\.9 as installed has no tracker CSRT.*opencv-contrib-python"):
        peers.OpenCVTracker("CSRT")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match=r"pip install 'labkit\[peers\]'"):
        peers.OpenCVTracker("CSRT")
