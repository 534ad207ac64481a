"""Stage 1: the convolution is torch's, translations move the map, MLU, labels, memory weights, candidates, ATOM's
states.
"""

import itertools

import pytest
import torch
import torch.nn.functional as F

from labkit.errors import InputError
from labkit.papers.crt.method.convolution import (
    ATOM,
    Convolution,
    Regression,
    State,
    _answers,
    candidates,
    localise,
    mlu,
)
from labkit.papers.crt.method.gauss_newton import Trace
from labkit.papers.crt.teaching import checks, exercises


@pytest.mark.parametrize("k", [1, 4, 5, 7])
def test_answers_are_a_grouped_convolution(k):
    generator = torch.Generator().manual_seed(k)
    x, f = torch.randn(3, 2, 5, 12, 12, generator=generator), torch.randn(2, 5, k, k, generator=generator)
    wanted = F.conv2d(x.reshape(3, 10, 12, 12), f, padding=k // 2, groups=2)
    torch.testing.assert_close(_answers(x, f), wanted, rtol=1e-4, atol=1e-4)


def test_mlu():
    x = torch.tensor([-1e3, -0.1, 0.0, 0.3], dtype=torch.float64, requires_grad=True)
    y = mlu(x)
    assert y.detach().tolist() == pytest.approx([-0.05, -0.05 * (1 - 2.718281828**-2), 0.0, 0.3])
    for at in (-1e-9, 1e-9):
        point = torch.tensor(at, dtype=torch.float64, requires_grad=True)
        assert float(torch.autograd.grad(mlu(point), point)[0]) == pytest.approx(1.0, abs=1e-6)
    assert bool(torch.autograd.grad(y.sum(), x)[0].isfinite().all())  # the branch not taken must not overflow


def regression(settings=None, channels=3, cells=20, n=2, batch=1):
    """Noise, in which each sample has the same patch at its centre: the target."""
    head = Regression(settings or Convolution(), channels, torch.full((batch, 2), 2.0))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, batch, channels, cells, cells, generator=generator)
    middle = slice(cells // 2 - 2, cells // 2 + 2)
    x[..., middle, middle] = 4 * torch.randn(channels, 4, 4, generator=generator).sign()
    return head, x, torch.full((n, batch, 2), cells / 2)


def test_a_translated_map_has_a_translated_answer():
    head, x, centres = regression()
    head.first(x, centres)
    plain, moved = head.score(x[0]), head.score(x[0].roll((2, -3), (2, 3)))
    torch.testing.assert_close(moved.roll((-2, 3), (1, 2))[:, 6:14, 6:14], plain[:, 6:14, 6:14], rtol=1e-4, atol=1e-5)


def test_labels_peak_at_the_target_for_odd_and_even_kernels():
    for kernel, side in ((7, 20), (4, 21)):
        head, *_ = regression(Convolution(kernel=kernel))
        y = head.labels(torch.tensor([[6.5, 9.0]]), 20)[0]
        assert y.shape == (side, side)
        row, column = divmod(int(y.argmax()), side)
        assert abs(column + head.shift - 6.5) <= 0.5
        assert abs(row + head.shift - 9.0) <= 0.5
    head = Regression(Convolution(), 1, torch.tensor([[1.0, 3.0]]))
    y = head.labels(torch.tensor([[10.5, 10.5]]), 20)[0]
    assert float(y[10, 11]) == pytest.approx(torch.exp(torch.tensor(-0.5)).item())  # sigma 1 across
    assert float(y[13, 10]) == pytest.approx(torch.exp(torch.tensor(-0.5)).item())  # sigma 3 down


def test_places_of_scores():
    checks.check_pixel(exercises.pixel_of)


@pytest.mark.parametrize("settings", [Convolution(), Convolution(activation="mlu", target_weight=0.0)])
def test_learning_lowers_the_loss_and_finds_the_target(settings):
    head, x, centres = regression(settings)
    trace = Trace()
    head.first(x, centres, trace=trace)
    for _ in range(3):
        head.improve(trace=trace)
    losses = [float(v) for v in trace.losses]
    assert losses[-1] < 0.8 * losses[0]  # over 60 seeds .04 to .51, mean .21, deviation .09
    # a converged loss moves by its rounding: up to 2e-7 of it over 60 seeds
    assert all(after <= before * (1 + 1e-5) for before, after in itertools.pairwise(losses))
    row, column = divmod(int(head.score(x[0])[0].argmax()), 20)
    assert max(abs(row - 9.5), abs(column - 9.5)) <= 1  # half a cell over 60 seeds


def test_the_filter_is_the_dense_solution():
    """phi = identity: enough CG steps reach (A^T G A + lam I)^-1 A^T G y, with A built from unfolded patches."""
    settings = Convolution(kernel=3, first_steps=(60,), lam_filter=0.5)
    head, x, centres = regression(settings, channels=2, cells=8)
    head.first(x, centres)
    y = head.labels(centres, 8).reshape(2, 64).double()
    a = F.unfold(x[:, 0].double(), 3, padding=1).mT  # (n, places, channels * 9)
    weight = (1 + 4 * y) / 2
    left = torch.einsum("npi,np,npj->ij", a, weight, a) + 0.5 * torch.eye(18, dtype=torch.float64)
    right = torch.einsum("npi,np,np->i", a, weight, y)
    torch.testing.assert_close(head.filter.flatten().double(), torch.linalg.solve(left, right), rtol=1e-3, atol=1e-5)


def test_projection_is_learned_in_the_first_frame_only():
    settings = Convolution(kernel=4, projection=2, first_steps=(10,) * 4, activation="mlu", target_weight=0.0)
    head, x, centres = regression(settings, channels=6)
    trace = Trace()
    head.first(x, centres, torch.Generator().manual_seed(0), trace)
    assert float(trace.losses[-1]) < 0.9 * float(trace.losses[0])  # over 60 seeds .11 to .50, deviation .1
    before = head.projection.clone()
    head.remember(x[0], centres[0], torch.ones(1, dtype=torch.bool))
    head.improve()
    torch.testing.assert_close(head.projection, before)
    assert head.filter.shape == (1, 2, 4, 4)
    assert head.score(x[0]).shape == (1, 21, 21)


def test_memory_weights():
    """New samples weigh 1 / (1 - rate) times the last; the lightest one that is not of the first frame goes."""
    head, x, centres = regression(Convolution(memory=4, rate=0.1, first_steps=(1,)))
    head.first(x, centres)
    everyone = torch.ones(1, dtype=torch.bool)
    for _ in range(3):
        head.remember(x[0], centres[0], everyone)
    weight = head.weight[:, 0]
    assert float(weight.sum()) == pytest.approx(1.0)
    assert float(weight[2] / weight[3]) == pytest.approx(1 / 0.9)  # the third went where the first new one was
    assert float(weight[3] / weight[0]) == pytest.approx(1 / 0.9**2)
    untouched = head.weight.clone()
    head.remember(x[0], centres[0], torch.zeros(1, dtype=torch.bool))
    torch.testing.assert_close(head.weight, untouched)


def test_the_first_frame_keeps_its_share_of_the_memory():
    head, x, centres = regression(Convolution(memory=6, rate=0.5, first_share=0.25, first_steps=(1,)))
    head.first(x, centres)
    for _ in range(8):
        head.remember(x[0], centres[0], torch.ones(1, dtype=torch.bool))
    assert float(head.weight[:2].sum()) == pytest.approx(0.25, abs=1e-5)
    assert float(head.weight.sum()) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(InputError, match="memory must hold"):
        regression(Convolution(memory=1))[0].first(x, centres)


def scores_with(peaks, side=40):
    scores = torch.zeros(1, side, side)
    for row, column, value in peaks:
        scores[0, row, column] = value
    return scores


def test_candidates():
    scores = scores_with([(5, 6, 1.0), (20, 30, 0.5), (21, 31, 0.45), (30, 8, 0.3), (12, 12, 0.07)])
    actual = candidates(scores)
    assert actual.at[0][actual.valid[0]].tolist() == [[6, 5], [30, 20]]  # .45 stands beside .5, .3 is below kappa
    assert candidates(scores, kappa=0.2).valid.sum() == 3
    assert candidates(scores, most=1).at.shape == (1, 1, 2)
    assert not candidates(scores_with([(5, 5, 0.07)])).valid.any()  # the floor
    with pytest.raises(InputError, match="kappa"):
        candidates(scores, kappa=1.0)


TARGET, MIDDLE = torch.tensor([[6.0, 6.0]]), torch.tensor([[20.0, 20.0]])


@pytest.mark.parametrize(
    ("peaks", "position", "state"),
    [
        ([(20, 20, 0.2)], (20, 20), State.NOT_FOUND),
        ([(20, 22, 0.9)], (22, 20), State.NORMAL),
        ([(20, 22, 0.9), (20, 26, 0.89)], (22, 20), State.NORMAL),  # hidden by the mask of 2.2 targets
        ([(20, 22, 0.9), (20, 33, 0.6)], (22, 20), State.HARD_NEGATIVE),  # more than half
        ([(20, 20, 0.9), (20, 35, 0.85)], (20, 20), State.HARD_NEGATIVE),  # rival far away
        ([(20, 35, 0.9), (20, 20, 0.85)], (20, 20), State.HARD_NEGATIVE),  # the stronger is the far one: not taken
        ([(20, 28, 0.9), (20, 12, 0.85)], (28, 20), State.UNCERTAIN),
    ],
)
def test_localisation_states(peaks, position, state):
    """0.8 * 6 * 5 / 2 = 12 cells is far."""
    at, actual = localise(scores_with(peaks), TARGET, MIDDLE, search=5.0)
    assert actual.item() == state
    assert tuple(at[0].tolist()) == position


def test_atom_settings_are_the_peers():
    assert (ATOM.kernel, ATOM.projection, ATOM.memory, ATOM.rate, ATOM.first_steps) == (4, 64, 250, 0.01, (10,) * 6)
