"""Check 8: merged statistics are those of the whole stream; floor and clip."""

import pytest
import torch

from labkit.errors import InputError
from labkit.rl.normalizer import RunningNormalizer


@pytest.mark.parametrize("sizes", [(100,), (1, 99), (30, 1, 50, 19), (0, 60, 40)])
def test_batches_add_up_to_the_whole_stream(sizes):
    """A mean of 1e4 with deviation 1: sums of squares in float32 would be lost."""
    data = 1e4 + torch.randn(100, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    running = RunningNormalizer(3)
    for part in data.split(list(sizes)):
        running.update(part)
    assert int(running.count) == 100
    torch.testing.assert_close(running.mean, data.mean(0))
    torch.testing.assert_close(running.std, data.std(0, correction=0))


def test_merging_two_streams():
    data = torch.randn(70, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 50.0]) + 3
    first, second = RunningNormalizer(2), RunningNormalizer(2)
    first.update(data[:20])
    second.update(data[20:])
    first.merge(second)
    torch.testing.assert_close(first.mean, data.double().mean(0))
    torch.testing.assert_close(first.std, data.double().std(0, correction=0))
    empty = RunningNormalizer(2)
    empty.merge(first)
    torch.testing.assert_close(empty.std, first.std)


def test_copies_have_statistics_of_their_own():
    data = torch.randn(3, 40, 5, 2, generator=torch.Generator().manual_seed(2)) * torch.tensor([1.0, 2, 3]).view(
        3, 1, 1, 1
    )
    together = RunningNormalizer(2, copies=3)
    together.update(data)
    for copy in range(3):
        alone = RunningNormalizer(2)
        alone.update(data[copy])
        torch.testing.assert_close(together.mean[copy], alone.mean)
        torch.testing.assert_close(together.normalize(data)[copy], alone.normalize(data[copy]))


def test_floor_clip_and_back():
    running = RunningNormalizer(2, floor=0.5, clip=2.0)
    data = torch.tensor([[3.0, -1.0], [3.0, 1.0]])
    running.update(data)
    assert running.std.tolist() == [0.5, 1.0]  # a constant component gets the floor
    out = running.normalize(torch.tensor([[3.2, 9.0], [-50.0, 0.5]]))
    torch.testing.assert_close(out, torch.tensor([[0.4, 2.0], [-2.0, 0.5]]))
    assert out.dtype == torch.float32
    inside = torch.tensor([[3.3, 0.7]])
    torch.testing.assert_close(running.denormalize(running.normalize(inside)), inside)
    capped = RunningNormalizer(1, raw_clip=200.0)
    capped.update(torch.tensor([[1e9], [0.0]]))
    assert float(capped.mean) == 100


def test_nothing_seen_is_the_identity_up_to_the_clip():
    running = RunningNormalizer(2)
    torch.testing.assert_close(running.normalize(torch.tensor([0.3, -9.0])), torch.tensor([0.3, -5.0]))


def test_state_dict_carries_it():
    running, other = RunningNormalizer(2, copies=2), RunningNormalizer(2, copies=2)
    running.update(torch.randn(2, 9, 2))
    other.load_state_dict(running.state_dict())
    x = torch.randn(2, 4, 2)
    assert torch.equal(running.normalize(x), other.normalize(x))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: RunningNormalizer(0), "at least 1"),
        (lambda: RunningNormalizer(2, floor=0.0), "above 0"),
        (lambda: RunningNormalizer(2).update(torch.zeros(5, 3)), r"\(\.\.\., 2\)"),
        (lambda: RunningNormalizer(2, copies=3).normalize(torch.zeros(2, 5, 2)), r"\(3, \.\.\., 2\)"),
        (lambda: RunningNormalizer(2).merge(RunningNormalizer(3)), "do not fit"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(InputError, match=words):
        call()
