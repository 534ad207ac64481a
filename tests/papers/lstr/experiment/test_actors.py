"""The generated videos: labels follow from what is drawn, nothing leaks, boxes see no object."""

import numpy as np
import pytest
import torch

from labkit.errors import InputError
from labkit.papers.lstr.experiment import actors, data
from labkit.papers.lstr.experiment.actors import NEARER, STANDARD, TEST, TRAIN, WALKING, Actors, videos


def colors_inside(scenes: actors.Videos, video: int, clip: int, actor: int) -> set[tuple[float, ...]]:
    """Colors inside an actor's box, to one digit."""
    x1, y1, x2, y2 = scenes.boxes[video, clip, actor, 0].round().long().tolist()
    inside = scenes.clips[video, clip, :, 0, y1:y2, x1:x2].flatten(1).T
    return {tuple(round(v, 1) for v in pixel) for pixel in inside.tolist()}


@pytest.mark.parametrize("purpose", [TRAIN, WALKING])
def test_the_late_half_of_a_label_is_an_earlier_rim(purpose):
    scenes = videos(12, 3, purpose)
    for v in range(12):
        for color in scenes.identity[v].unique().tolist():
            rim, late = [], []
            for c in range(5):
                a = int((scenes.identity[v, c] == color).nonzero()[0])
                rim.append((1.0, 1.0, 1.0) in colors_inside(scenes, v, c, a))
                late.append(bool(scenes.labels[v, c, a] % 2))
            assert late == [any(rim[:c]) for c in range(5)]


def test_colors_and_boxes_are_the_actors():
    scenes = videos(6, 0, TRAIN)
    for v in range(6):
        for c in range(5):
            for a in range(2):
                color = tuple(round(float(x), 1) for x in actors.COLORS[scenes.identity[v, c, a]])
                assert color in colors_inside(scenes, v, c, a)
    sides = scenes.boxes[..., 2:] - scenes.boxes[..., :2]
    torch.testing.assert_close(sides, torch.full_like(sides, 10.0))
    assert 0.4 < float((scenes.shaken - scenes.boxes).std()) < 0.6  # 960 draws of deviation .5


def test_actors_keep_apart_and_objects_out_of_reach():
    scenes = videos(40, 1, TRAIN)
    center = (scenes.boxes[..., :2] + scenes.boxes[..., 2:]) / 2
    assert (center[:, :, 0] - center[:, :, 1]).norm(dim=-1).min() > STANDARD.apart
    assert scenes.boxes.min() > 0
    assert scenes.boxes.max() < STANDARD.size
    assert scenes.clips.min() >= 0
    assert scenes.clips.max() <= 1


def test_position_and_order_carry_no_identity():
    """Which actor comes first is a coin: in 200 clips far from 0 and from 200 (chance below 1e-9)."""
    scenes = videos(40, 5, TRAIN)
    first = (scenes.identity[..., 0] < scenes.identity[..., 1]).sum()
    assert 50 < first < 150
    jumps = (scenes.boxes[:, 1:, :, 0, :2] - scenes.boxes[:, :-1, :, -1, :2]).norm(dim=-1)
    assert jumps.median() > 8


def test_walking_actors_go_on_and_keep_their_objects():
    scenes = videos(10, 5, WALKING)
    steps = (scenes.boxes[:, 1:, :, 0] - scenes.boxes[:, :-1, :, -1]).abs()
    assert steps.max() < 1
    kinds = scenes.labels // 2
    assert torch.equal(kinds, kinds[:, :1].expand_as(kinds))


def test_an_event_on_the_object_leaves_the_actor_as_it_is():
    one = videos(10, 2, TRAIN)
    two = videos(10, 2, TRAIN, Actors(event="object"))
    assert torch.equal(one.labels, two.labels)
    orange = tuple(actors.ORANGE)
    marked = (two.clips.permute(0, 1, 3, 4, 5, 2) == torch.tensor(orange)).all(-1).flatten(2).any(2)
    assert marked.any()
    for v in range(10):
        for c in range(5):
            assert (1.0, 1.0, 1.0) not in colors_inside(two, v, c, 0) | colors_inside(two, v, c, 1)
    same = videos(10, 2, TRAIN, Actors(same_color=True))
    assert torch.equal(same.identity[..., 0], same.identity[..., 1])


def test_a_video_does_not_depend_on_how_many_there_are():
    assert torch.equal(videos(3, 9, TEST).clips[2], videos(7, 9, TEST).clips[2])
    assert not torch.equal(videos(3, 9, TEST).clips[0], videos(3, 9, TRAIN).clips[0])


def test_the_guard_refuses_the_first_design():
    """Sheet section 5: an object 10.5 pixels away was seen by the box's own features."""
    actors.check_reach(STANDARD, 4, 7)
    assert actors.least_reach(STANDARD, 4, 7) == 12
    with pytest.raises(InputError, match="without any context"):
        actors.check_reach(NEARER, 4, 7)
    with pytest.raises(InputError, match="without any context"):
        data.Generated(2, 0, TRAIN, NEARER)


@pytest.mark.parametrize("wrong", [{"clips": 1}, {"frames": 0}, {"reach": 4.0}, {"apart": 50.0}])
def test_impossible_videos_are_refused(wrong):
    with pytest.raises(InputError):
        Actors(**wrong)


def test_batches_are_padded():
    source = data.Generated(3, 0, TRAIN)
    window = source.window(0)
    few = data.Window(
        window.clips, window.truth[:, :1], window.valid[:, :1], window.targets[:, :1], window.given[:, :1]
    )
    batch = data.collate([window, few])
    assert batch.truth.shape == (2, 5, 2, 2, 4)
    assert batch.valid.sum().item() == 15
    assert torch.equal(batch.targets[1, :, 0], few.targets[:, 0])


def test_matching_takes_the_best_truth_above_the_threshold():
    truth = torch.tensor([[[[0.0, 0, 10, 10]], [[20, 0, 30, 10]]]])
    predicted = torch.tensor([[[[1.0, 0, 11, 10]], [[20, 0, 30, 10]], [[50, 50, 60, 60]]]])
    targets = torch.eye(2)[None]
    yes, both = torch.ones(1, 3, dtype=torch.bool), torch.ones(1, 2, dtype=torch.bool)
    classes, boxes, matched = data.match(predicted, yes, truth, both, targets)
    assert matched.tolist() == [[True, True, False]]
    assert classes.tolist() == [[[1, 0], [0, 1], [0, 0]]]
    assert torch.equal(boxes[0, :2], truth[0])
    assert data.match(predicted, yes, truth, both & False, targets)[2].sum() == 0
    assert data.match(predicted, yes, truth[:, :0], both[:, :0], targets[:, :0])[2].sum() == 0
    assert np.isfinite(classes.numpy()).all()
