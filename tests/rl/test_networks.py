"""Stacked networks: every copy is the network it would be alone."""

import math

import pytest
import torch
from torch import nn

from labkit.errors import InputError
from labkit.rl.networks import StackedLinear, StackedMLP, clip_grad_norm_per_copy, polyak_


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def plain(stack: StackedMLP, copy: int) -> nn.Sequential:
    """The same network made of torch's own layers."""
    layers = []
    for layer in stack.layers:
        linear = nn.Linear(layer.inputs, layer.outputs)
        linear.weight.data, linear.bias.data = layer.weight.data[copy].T.clone(), layer.bias.data[copy, 0].clone()
        layers += [linear, nn.ReLU() if stack.activation == "relu" else nn.Tanh()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_every_copy_is_the_plain_network(activation):
    """Catches: transposed weights, a bias shared by the copies, an activation after the last layer."""
    stack = StackedMLP(3, (4, 8, 8, 2), activation, generators=generators(0, 1, 2))
    for layer in stack.layers:
        layer.bias.data.normal_(generator=torch.Generator().manual_seed(3))  # they start at 0
    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(9))
    for copy in range(3):
        torch.testing.assert_close(stack(x)[copy], plain(stack, copy)(x[copy]), rtol=1e-4, atol=1e-5)


def test_copy_i_starts_as_a_single_network_with_generator_i():
    together = StackedMLP(3, (4, 8, 2), generators=generators(5, 6, 7))
    for copy, seed in enumerate((5, 6, 7)):
        alone = StackedMLP(1, (4, 8, 2), generators=generators(seed))
        for ours, theirs in zip(together.parameters(), alone.parameters(), strict=True):
            assert torch.equal(ours[copy], theirs[0])


def test_initial_weights_have_the_stated_ranges():
    """A uniform law in +-b has standard deviation b / sqrt(3)."""
    xavier = StackedMLP(1, (300, 200), generators=generators(0)).requires_grad_(False).layers[0]
    bound = math.sqrt(6 / 500)
    assert float(xavier.weight.abs().max()) <= bound
    assert float(xavier.weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.01)
    assert float(xavier.bias.abs().max()) == 0
    small = StackedMLP(1, (300, 200), final_gain=0.1, generators=generators(0)).requires_grad_(False).layers[0]
    torch.testing.assert_close(small.weight, 0.1 * xavier.weight)


def test_training_a_stack_is_training_its_networks():
    """One loss summed over copies and one Adam; catches a mean over copies, which would divide gradients by N.

    In double precision: Adam turns the sign of a gradient that is all rounding into a whole step.
    """
    stack = StackedMLP(2, (3, 16, 1), generators=generators(0, 1)).double()
    singles = [StackedMLP(1, (3, 16, 1), generators=generators(copy)).double() for copy in range(2)]
    draw = torch.Generator().manual_seed(2)
    x, y = (torch.randn(2, 20, size, generator=draw, dtype=torch.float64) for size in (3, 1))

    def trained(network, x, y):
        optimizer = torch.optim.Adam(network.parameters(), 1e-2)
        for _ in range(30):
            optimizer.zero_grad()
            ((network(x) - y) ** 2).mean((1, 2)).sum().backward()
            optimizer.step()
        return network(x).detach()

    together = trained(stack, x, y)
    for copy, single in enumerate(singles):
        alone = trained(single, x[copy : copy + 1], y[copy : copy + 1])[0]
        torch.testing.assert_close(alone, together[copy], rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_copy_by_copy():
    """Each copy gets what torch's own clipping gives it alone; the second one is below the bound and keeps its own."""
    stack = StackedMLP(2, (3, 4, 1), generators=generators(0, 1))
    scale = torch.tensor([100.0, 1e-3]).view(2, 1, 1)
    (stack(torch.ones(2, 5, 3)) * scale).sum().backward()
    wanted = []
    for copy in range(2):
        parts = [nn.Parameter(p[copy].detach()) for p in stack.parameters()]
        for part, p in zip(parts, stack.parameters(), strict=True):
            part.grad = p.grad[copy].clone()
        wanted.append((float(nn.utils.clip_grad_norm_(parts, 0.5)), [part.grad for part in parts]))
    norms = clip_grad_norm_per_copy(stack.parameters(), 0.5)
    for copy, (norm, gradients) in enumerate(wanted):
        assert float(norms[copy]) == pytest.approx(norm, rel=1e-5)
        for p, gradient in zip(stack.parameters(), gradients, strict=True):
            torch.testing.assert_close(p.grad[copy], gradient, rtol=1e-4, atol=1e-6)


def test_polyak_after_n_steps_with_a_constant_source():
    """Check 9: from 0 towards 1, n steps with keep .95 arrive at 1 - .95^n."""
    target, source = (StackedMLP(2, (3, 4, 1), generators=generators(0, 1)) for _ in range(2))
    for p in target.parameters():
        nn.init.zeros_(p)
    for p in source.parameters():
        nn.init.ones_(p)
    for n in range(1, 31):
        polyak_(target, source, 0.95)
        for p in target.parameters():
            assert torch.allclose(p, torch.full_like(p, 1 - 0.95**n), atol=1e-6)
    assert all(bool((p == 1).all()) for p in source.parameters())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: StackedLinear(2, 3, 4)(torch.zeros(3, 5, 3)), r"\(copies, batch, inputs\)"),
        (lambda: StackedLinear(2, 3, 4)(torch.zeros(2, 5, 2)), "x.expand"),
        (lambda: StackedLinear(0, 3, 4), "copies must be at least 1"),
        (lambda: StackedMLP(1, (3,)), "at least two"),
        (lambda: StackedMLP(2, (3, 1), generators=generators(0)), "one generator per copy"),
        (lambda: polyak_(StackedMLP(1, (3, 1)), StackedMLP(1, (3, 1)), 1.5), "between 0 and 1"),
        (lambda: clip_grad_norm_per_copy(StackedMLP(1, (3, 1)).parameters(), 1.0), "backward first"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(InputError, match=words):
        call()
