"""Boxes around a target, their labels and weights; the hard negatives kept are the hardest."""

import pytest
import torch

from labkit.errors import InputError
from labkit.papers.crt.method.sampling import HardNegatives, admitted, away, boxes_at, iou, labels, ring_boxes

TARGET = torch.tensor([[30.0, 40.0, 20.0, 10.0]])


def test_iou_counts_pixels():
    """Whole numbers: the overlap of two painted rectangles, counted; apart, nested, and the same."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(1, 12, (60, 4), generator=generator).double() for _ in range(2))
    b[:5] = a[:5]
    for first, second, actual in zip(a.int().tolist(), b.int().tolist(), iou(a, b).tolist(), strict=True):
        painted = torch.zeros(2, 30, 30)
        for layer, (x, y, w, h) in enumerate((first, second)):
            painted[layer, y : y + h, x : x + w] = 1
        assert actual == pytest.approx(float(painted.prod(0).sum() / painted.amax(0).sum()), abs=1e-6)


def test_rings_are_in_units_of_the_target():
    boxes = ring_boxes(torch.tensor([[40.0, 45.0]]), torch.tensor([[20.0, 10.0]]))
    torch.testing.assert_close(boxes[0, 0], TARGET[0])
    assert boxes.shape == (1, 29, 4)
    centres = boxes[0, :, :2] + boxes[0, :, 2:] / 2 - torch.tensor([40.0, 45.0])
    radius = (centres / torch.tensor([20.0, 10.0])).norm(dim=1)
    torch.testing.assert_close(radius[5:].reshape(3, 8), torch.tensor([[0.5], [0.9], [1.4]]).expand(3, 8))


def test_labels():
    boxes = boxes_at(torch.tensor([[[40.0, 45.0], [45.0, 45.0], [44.0, 45.0], [90.0, 90.0]]]), TARGET[:, 2:])
    y, omega = labels(boxes, TARGET)
    assert y[0].tolist() == pytest.approx([1.0, 2.718281828**-0.5, 2.718281828 ** (-8 * 0.04), 0.0], abs=1e-5)
    assert omega[0].tolist() == [0.25] * 4


def test_away_is_in_units_of_the_target():
    """0.6 targets of 20 x 10 around (40, 45): 12 pixels across, 6 down."""
    at = torch.tensor([[[40.0, 45.0], [51.9, 45.0], [52.1, 45.0], [40.0, 50.9], [40.0, 38.9]]])
    actual = away(at, torch.tensor([[40.0, 45.0]]), TARGET[:, 2:])
    assert actual[0].tolist() == [False, False, True, False, True]
    assert away(at[:, None], torch.tensor([[40.0, 45.0]]), TARGET[:, 2:]).shape == (1, 1, 5)


def test_the_buffer_keeps_the_hardest_of_all():
    x = torch.tensor([[[1.0], [5.0], [3.0]]])
    buffer = HardNegatives(1, 2, x)
    w, boxes = torch.ones(1, 1), torch.zeros(1, 3, 4)
    buffer.push(x, torch.tensor([[True, False, True]]), boxes, 7, w)  # the 5 is no negative
    assert buffer.x[0, :, 0].tolist() == [3.0, 1.0]
    buffer.push(torch.tensor([[[2.0]]]), torch.tensor([[True]]), boxes[:, :1], 9, w)
    assert buffer.x[0, :, 0].tolist() == [3.0, 2.0]
    assert buffer.frame[0].tolist() == [7, 9]
    buffer.push(
        torch.tensor([[[-4.0]]]), torch.tensor([[True]]), boxes[:, :1], 11, -w
    )  # hardness by the solution of today
    assert buffer.x[0, :, 0].tolist() == [-4.0, 2.0]


def test_the_gate_admits_by_confidence_lead_and_hardness():
    """Winner .8; others .5 and .3.  Least .4, lead of 30 %, hardness of half the winner."""
    fused = torch.tensor([[0.8, 0.5, 0.3]])
    others = torch.tensor([[False, True, True]])

    def mined(confidence, gate):
        return admitted(others, fused, torch.tensor([confidence]), gate)[0].tolist()

    assert mined(0.8, (0.4, 0.3, 0.5)) == [False, True, False]
    assert mined(0.8, (0.4, 0.3, 0.2)) == [False, True, True]
    assert mined(0.8, (0.4, 0.4, 0.2)) == [False, False, False]  # .3 ahead is less than .4 x .8
    assert mined(0.8, (0.9, 0.3, 0.2)) == [False, False, False]
    assert mined(0.0, (0.0, 0.0, 0.0)) == [False, False, False]  # 0: nothing is to be learned


def test_bad_input():
    with pytest.raises(InputError, match="capacity"):
        HardNegatives(1, 0, torch.ones(1, 1, 1))
