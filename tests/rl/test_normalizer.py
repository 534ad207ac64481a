"""Check 8: statistics of batches are those of the whole stream; floor and clip."""

import pytest
import torch

from labkit.errors import InputError
from labkit.rl.normalizer import RunningNormalizer


@pytest.mark.parametrize("sizes", [(100,), (1, 99), (30, 1, 50, 19), (0, 60, 40)])
def test_batches_add_up_to_the_whole_stream(sizes):
    """A mean of 1e4 with deviation 1: sums of squares in float32 would be lost."""
    data = 1e4 + torch.randn(1, 100, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    running = RunningNormalizer(3, copies=1)
    for part in data.split(list(sizes), dim=1):
        running.update(part)
    assert int(running.count) == 100
    torch.testing.assert_close(running.mean, data.mean(1))
    torch.testing.assert_close(running.std, data.std(1, correction=0))


def test_copies_have_statistics_of_their_own():
    data = torch.randn(3, 40, 5, 2, generator=torch.Generator().manual_seed(2)) * torch.tensor([1.0, 2, 3]).view(
        3, 1, 1, 1
    )
    together = RunningNormalizer(2, copies=3)
    together.update(data)
    for copy in range(3):
        alone = RunningNormalizer(2, copies=1)
        alone.update(data[copy : copy + 1])
        torch.testing.assert_close(together.mean[copy], alone.mean[0])
        torch.testing.assert_close(together.normalize(data)[copy], alone.normalize(data[copy : copy + 1])[0])


def test_floor_and_clip():
    running = RunningNormalizer(2, copies=1, floor=0.5, clip=2.0)
    running.update(torch.tensor([[[3.0, -1.0], [3.0, 1.0]]]))
    assert running.std.tolist() == [[0.5, 1.0]]  # a constant component gets the floor
    out = running.normalize(torch.tensor([[[3.2, 9.0], [-50.0, 0.5]]]))
    torch.testing.assert_close(out, torch.tensor([[[0.4, 2.0], [-2.0, 0.5]]]))
    assert out.dtype == torch.float32
    capped = RunningNormalizer(1, copies=1, raw_clip=200.0)
    capped.update(torch.tensor([[[1e9], [0.0]]]))
    assert float(capped.mean) == 100


def test_before_the_first_update_it_is_the_identity_up_to_the_clip():
    running = RunningNormalizer(2, copies=1)
    torch.testing.assert_close(running.normalize(torch.tensor([[0.3, -9.0]])), torch.tensor([[0.3, -5.0]]))


def test_state_dict_carries_it():
    running, other = RunningNormalizer(2, copies=2), RunningNormalizer(2, copies=2)
    running.update(torch.randn(2, 9, 2))
    other.load_state_dict(running.state_dict())
    x = torch.randn(2, 4, 2)
    assert torch.equal(running.normalize(x), other.normalize(x))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: RunningNormalizer(0, copies=1), "at least 1"),
        (lambda: RunningNormalizer(2, copies=1, floor=0.0), "above 0"),
        (lambda: RunningNormalizer(2, copies=1).update(torch.zeros(1, 5, 3)), r"\(1, \.\.\., 2\)"),
        (lambda: RunningNormalizer(2, copies=3).normalize(torch.zeros(2, 5, 2)), r"\(3, \.\.\., 2\)"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(InputError, match=words):
        call()
