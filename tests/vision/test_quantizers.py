"""LSQ and DoReFa: values, and gradients by their formulas."""

import pytest
import torch

from labkit.errors import InputError
from labkit.vision import quantizers


def test_straight_through_is_exact_forward_and_the_identity_backward():
    x = torch.tensor([0.1, 0.2, 0.3], requires_grad=True)
    q = torch.tensor([1e-8, 3.0, 7.0])
    y = quantizers.straight_through(x, q, torch.tensor([True, False, True]))
    assert torch.equal(y, q)
    assert torch.autograd.grad(y, x, torch.tensor([2.0, 3.0, 4.0]))[0].tolist() == [2, 0, 4]


def test_lsq_values_and_gradients_by_the_formula():
    x = torch.tensor([0.26, 0.74, 5.0, -1.0], dtype=torch.float64, requires_grad=True)
    step = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    y = quantizers.learned_step(x, step, -1, 3, features=4)
    torch.testing.assert_close(y.detach(), torch.tensor([0.5, 0.5, 1.5, -0.5], dtype=torch.float64))
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64))
    slopes = (1 - 0.52) + (1 - 1.48) + 3 - 1
    assert float(step.grad) == pytest.approx(slopes / (4 * 3) ** 0.5)


def test_the_step_of_a_mean_loss_moves_alike_at_every_batch_size():
    """The reason why N leaves the batch out. A batch of 16 equal examples gives the gradient of one of them."""
    one = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gradients = []
    for batch in (one, one.expand(16, -1, -1, -1)):
        step = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        quantizers.learned_step(batch, step, -4, 3, batch[0].numel()).square().flatten(1).sum(1).mean().backward()
        gradients.append(float(step.grad))
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-12)
    assert gradients[0] != 0


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_dorefa_weights_are_evenly_spaced(bits):
    weight = torch.linspace(-2, 2, 4001)
    wanted = torch.linspace(-1, 1, 2**bits) if bits > 1 else torch.tensor([-1.0, 1.0])
    torch.testing.assert_close(quantizers.dorefa_weights(weight, bits).unique(), wanted, rtol=0, atol=5e-4)


def test_dorefa_gradient_is_that_of_tanh():
    weight = torch.linspace(-2, 2, 401, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(quantizers.dorefa_weights(weight, 2).sum(), weight)
    largest = torch.tanh(torch.tensor(2.0, dtype=torch.float64))
    torch.testing.assert_close(slope, (1 - weight.detach().tanh() ** 2) / largest)
    (slope,) = torch.autograd.grad(quantizers.dorefa_weights(weight, 1).sum(), weight)
    assert torch.equal(slope, torch.ones_like(weight))


def test_impossible_bits():
    with pytest.raises(InputError, match="DoReFa takes 1 to 8 bits; got 9"):
        quantizers.dorefa_weights(torch.ones(3), 9)
