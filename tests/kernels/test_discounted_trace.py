"""The backward discounted sum: written out, at its ends, and through its Triton body."""

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from labkit.errors import InputError
from labkit.kernels.discounted_trace import discounted_trace, reference


def numbers(steps: int, *shape: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(steps)
    x, value = torch.randn(2, steps, *shape, generator=generator, dtype=torch.float64)
    return x, value, torch.rand(steps, *shape, generator=generator) < 0.2


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_it_is_the_recursion(lam):
    x, value, done = numbers(9, 4)
    last = torch.tensor([1.0, -2.0, 3.0, 0.0], dtype=torch.float64)
    got = discounted_trace(x, value, last, discount=0.9, lam=lam, done=done)
    for lane in range(4):
        after, trace = float(last[lane]), 0.0
        for t in range(8, -1, -1):
            keep = 0.0 if done[t, lane] else 1.0
            trace = float(x[t, lane]) + 0.9 * keep * after - float(value[t, lane]) + 0.9 * lam * keep * trace
            after = float(value[t, lane])
            assert got[t, lane].item() == pytest.approx(trace, abs=1e-12)


def test_any_lanes_and_layouts():
    x, value, done = numbers(5, 2, 3, 4)
    flat = discounted_trace(x.flatten(1), value.flatten(1), discount=0.9, done=done.flatten(1))
    assert torch.equal(discounted_trace(x, value, discount=0.9, done=done).flatten(1), flat)
    across = [thing.transpose(1, 3) for thing in (x, value, done)]
    got = discounted_trace(across[0], across[1], discount=0.9, done=across[2])
    torch.testing.assert_close(got.transpose(1, 3).flatten(1), flat)
    assert discounted_trace(x[:, :, :0], value[:, :, :0], discount=0.9).shape == (5, 2, 0, 4)
    assert not discounted_trace(x.requires_grad_(), value, discount=0.9).requires_grad


def test_last_value_is_what_follows_the_last_step():
    x, value, _ = numbers(4, 3)
    last = torch.full((3,), 7.0, dtype=torch.float64)
    got = discounted_trace(x, value, last, discount=0.9, lam=0.0)[-1]
    torch.testing.assert_close(got, x[-1] + 0.9 * 7 - value[-1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: discounted_trace(x[:0], x[:0], discount=0.9), "at least one step"),
        (lambda x: discounted_trace(x, x, discount=1.5), "discount and lam"),
        (lambda x: discounted_trace(x, x, x[0, :1], discount=0.9), "last_value must be like x"),
        (lambda x: discounted_trace(x, x.double(), discount=0.9), "value must be like x"),
        (lambda x: discounted_trace(x, x, discount=0.9, done=x[:2] > 0), "done must have the shape"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises((InputError, TypeCheckError)) as caught:
        call(torch.zeros(3, 2))
    assert isinstance(caught.value, TypeCheckError) or words in str(caught.value)


def compare_triton_with_torch() -> None:
    """Runs in a process of its own, where Triton is its interpreter."""
    from labkit.kernels.discounted_trace.triton import discounted_trace_triton

    for steps, width, dtype in ((1, 1, torch.float32), (7, 300, torch.float64), (20, 128, torch.float32)):
        generator = torch.Generator().manual_seed(steps)
        x, value = torch.randn(2, steps, width, generator=generator, dtype=dtype)
        last = torch.randn(width, generator=generator, dtype=dtype)
        for done in (None, torch.rand(steps, width, generator=generator) < 0.1):
            inputs = reference.Inputs(x, value, last, done, 0.9, 0.8)
            tolerance = 1e-12 if dtype == torch.float64 else 1e-5
            got, wanted = discounted_trace_triton(inputs), reference.discounted_trace_reference(inputs)
            torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)
