"""Suppression: against the definition, in any order, in groups, and through its Triton body."""

import pytest
import torch
from jaxtyping import TypeCheckError

from labkit.errors import InputError
from labkit.kernels.tubelet_iou import tubelet_iou
from labkit.kernels.tubelet_nms import reference, tubelet_nms


def crowd(n: int = 60, frames: int = 2, seed: int = 0):
    """Random tubelets within 23 x 23, and a score each."""
    generator = torch.Generator().manual_seed(seed)
    corner, extent = torch.rand(2, n, frames, 2, generator=generator, dtype=torch.float64)
    scores = torch.rand(n, generator=generator, dtype=torch.float64)
    return torch.cat([corner * 12, corner * 12 + extent * 10 + 1], -1), scores


def kept_by_definition(tubelets, scores, threshold):
    kept: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: -float(scores[i])):
        overlaps = [float(tubelet_iou(tubelets[[i]], tubelets[[k]])) for k in kept]
        if all(overlap <= threshold for overlap in overlaps):
            kept.append(i)
    return kept


@pytest.mark.parametrize("threshold", [0.1, 0.4])
def test_it_is_the_definition(threshold):
    tubelets, scores = crowd()
    kept = tubelet_nms(tubelets, scores, threshold)
    assert kept.tolist() == kept_by_definition(tubelets, scores, threshold)
    assert 1 < len(kept) < 60


def test_twice_is_once_and_the_order_does_not_matter():
    tubelets, scores = crowd(seed=3)
    kept = tubelet_nms(tubelets, scores, 0.3)
    assert tubelet_nms(tubelets[kept], scores[kept], 0.3).tolist() == list(range(len(kept)))
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    assert order[tubelet_nms(tubelets[order], scores[order], 0.3)].tolist() == kept.tolist()


def test_an_overlap_equal_to_the_threshold_stays_and_equal_scores_keep_the_first():
    boxes = torch.tensor([[0.0, 0, 20, 20], [0, 0, 20, 10]])[:, None]  # overlap 1/2, exact in binary
    assert tubelet_nms(boxes, torch.ones(2), 0.5).tolist() == [0, 1]
    assert tubelet_nms(boxes, torch.ones(2), 0.49).tolist() == [0]


def test_groups_leave_each_other_alone():
    tubelets, scores = crowd(seed=5)
    groups = torch.arange(60) % 3
    kept = tubelet_nms(tubelets, scores, 0.2, groups)
    alone = torch.cat(
        [m[tubelet_nms(tubelets[m], scores[m], 0.2)] for m in ((groups == g).nonzero()[:, 0] for g in range(3))]
    )
    assert sorted(kept.tolist()) == sorted(alone.tolist())
    assert (scores[kept].diff() <= 0).all()
    assert tubelet_nms(tubelets[:0], scores[:0], 0.2).tolist() == []


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t, s: tubelet_nms(t[:, 0], s, 0.5), "one frame"),
        (lambda t, s: tubelet_nms(t, s[:3], 0.5), "one score each"),
        (lambda t, s: tubelet_nms(t, s, 1.5), "between 0 and 1"),
        (lambda t, s: tubelet_nms(t, s * float("nan"), 0.5), "not a number"),
        (lambda t, s: tubelet_nms(t, s, 0.5, torch.zeros(3, dtype=torch.long)), "one group a tubelet"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises((InputError, TypeCheckError)) as caught:
        call(*crowd())
    assert isinstance(caught.value, TypeCheckError) or words in str(caught.value)


def compare_triton_with_torch() -> None:
    """Runs in a process of its own, where Triton is its interpreter."""
    from labkit.kernels.tubelet_nms.triton import suppression_bits

    for n in (1, 40, 70):
        tubelets, scores = crowd(n, seed=n)
        ordered = tubelets[scores.argsort(descending=True)]
        groups = torch.arange(n) % 2
        got = reference.scan(suppression_bits(ordered, groups, 0.2), n)
        assert torch.equal(got, reference.tubelet_nms_reference(ordered, groups, 0.2))
