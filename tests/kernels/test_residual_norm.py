"""The end of a sub-block: against LayerNorm written out, by finite differences, and through its Triton body."""

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from labkit.errors import InputError
from labkit.kernels.residual_norm import residual_norm, residual_norm_reference


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """x, two branches, gamma, beta."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(3, *shape, generator=draw, dtype=dtype)
    return *rows, *torch.randn(2, shape[-1], generator=draw, dtype=dtype)


def test_it_is_the_formula():
    x, a, b, gamma, beta = numbers(2, 3, 7)
    z = x + 0.5 * a + 0.25 * b
    wanted = (z - z.mean(-1, keepdim=True)) / (z.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt() * gamma + beta
    got = residual_norm(x, [a, b], [0.5, 0.25], gamma, beta)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    each = torch.tensor([[[0.5]], [[0.5]]], dtype=torch.float64)
    torch.testing.assert_close(residual_norm(x, [a, b], [each, each / 2], gamma, beta), wanted, rtol=0, atol=1e-12)
    one = residual_norm(x, [a], [1.0], gamma, beta)
    torch.testing.assert_close(one, residual_norm(x, [a, b], [1.0, 0.0], gamma, beta), rtol=0, atol=1e-12)


def test_its_gradients():
    inputs = [value.requires_grad_() for value in numbers(2, 3, 5)]

    def call(x: Tensor, a: Tensor, b: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return residual_norm(x, [a, b], [0.5, 0.25], gamma, beta)

    assert torch.autograd.gradcheck(call, inputs)


def test_dropout_falls_on_branches_alone_and_keeps_their_mean():
    """40,000 elements, each kept with probability 0.7: the mean of the kept lies within 5 sigma of it."""
    torch.manual_seed(0)
    ones, zeros = torch.ones(200, 200), torch.zeros(200, 200)
    gamma, beta = torch.ones(200), torch.zeros(200)
    got = residual_norm(zeros, [ones], [1.0], gamma, beta, dropout=0.3)
    high = got > 0
    assert abs(float(high.float().mean()) - 0.7) < 5 * (0.3 * 0.7 / 40_000) ** 0.5
    still = residual_norm(torch.randn(200, 200), [zeros], [1.0], gamma, beta, dropout=0.9)
    torch.testing.assert_close(still.mean(-1), torch.zeros(200), rtol=0, atol=1e-5)
    assert not torch.equal(got, residual_norm(zeros, [ones], [1.0], gamma, beta, dropout=0.3))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x, g: residual_norm(x, [], [], g, g), "one or two branches"),
        (lambda x, g: residual_norm(x, [x, x], [1.0], g, g), "each with a weight"),
        (lambda x, g: residual_norm(x, [x[:1]], [1.0], g, g), "shape of x"),
        (lambda x, g: residual_norm(x, [x], [1.0], g, g, dropout=1.0), "dropout must lie"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises((InputError, TypeCheckError)) as caught:
        call(torch.zeros(3, 2), torch.ones(2))
    assert isinstance(caught.value, TypeCheckError) or words in str(caught.value)


def compare_triton_with_torch() -> None:
    """Runs in a process of its own, where Triton is its interpreter."""
    from labkit.kernels.residual_norm.triton import residual_norm_triton

    for shape, count, kind in (
        ((5, 3, 12), 2, torch.float32),
        ((7, 33), 1, torch.float32),
        ((4, 16), 2, torch.float16),
    ):
        inputs = [value.requires_grad_() for value in numbers(*shape, dtype=torch.float32)]
        lower = [inputs[0], *(value.detach().to(kind).requires_grad_() for value in inputs[1:3]), *inputs[3:]]
        weights, results = [0.5, 0.25][:count], []
        for body in (residual_norm_reference, residual_norm_triton):
            for value in lower:
                value.grad = None
            y = body(lower[0], lower[1 : 1 + count], weights, lower[3], lower[4])
            (y * torch.linspace(-1, 2, y.numel()).view_as(y)).sum().backward()
            results.append([y, *(lower[i].grad for i in (0, *range(1, 1 + count), 3, 4))])
        for ours, theirs in zip(results[1], results[0], strict=True):
            tolerance = 1e-5 if theirs.dtype == torch.float32 else 2e-3
            torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    the_same_elements_are_dropped_both_ways()


def the_same_elements_are_dropped_both_ways() -> None:
    """What was dropped shows in the gradients of the branches: with these masks, the formula gives the same y."""
    from labkit.kernels.residual_norm.triton import residual_norm_triton

    torch.manual_seed(0)
    x, a, b, gamma, beta = (value.requires_grad_() for value in numbers(40, 50, dtype=torch.float32))
    y = residual_norm_triton(x, [a, b], [0.5, 0.25], gamma, beta, dropout=0.3)
    (y * torch.linspace(-1, 2, 2000).view_as(y)).sum().backward()
    first, second = ((value.grad != 0).float() for value in (a, b))
    wanted = residual_norm_reference(x, [a * first / 0.7, b * second / 0.7], [0.5, 0.25], gamma, beta)
    torch.testing.assert_close(y, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(a.grad, 0.5 * first / 0.7 * x.grad, rtol=1e-5, atol=1e-6)
    for mask, expected in ((first, 0.7), (second, 0.7), ((first == second).float(), 0.7**2 + 0.3**2)):
        assert abs(float(mask.mean()) - expected) < 5 * (0.25 / 2000) ** 0.5  # 5 sigma of 2000 draws at most
