"""Losses and penalties against finite differences, closed forms, scikit-learn, and each other."""

import pytest
import torch
from scipy.optimize import brentq
from sklearn.linear_model import LogisticRegression

from labkit.errors import InputError
from labkit.papers.itid.experiment.objectives import (
    ERM,
    Consistency,
    GroupDRO,
    Penalized,
    Targets,
    cross_entropy,
    environment_risk,
    irm_penalty,
    irm_split_penalty,
    scale_gradients,
    variance_penalty,
)
from labkit.papers.itid.teaching import checks, exercises


def example(classes=10, batch=40, networks=2, environments=2, seed=0, equal=True):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(networks, batch, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(max(2, classes), (networks, batch), generator=generator)
    environment = torch.arange(batch) % environments if equal else (torch.arange(batch) < 30).long()
    targets = Targets(
        labels, torch.ones(networks, batch).double(), environment.expand(networks, batch), labels % 3, environments, 3
    )
    return logits, targets


@pytest.mark.parametrize("classes", [1, 2, 10])
def test_scale_gradient_is_a_finite_difference(classes):
    logits, targets = example(classes)
    h = 1e-5
    wanted = (cross_entropy(logits * (1 + h), targets.labels) - cross_entropy(logits * (1 - h), targets.labels)) / (
        2 * h
    )
    torch.testing.assert_close(scale_gradients(logits, targets.labels), wanted, rtol=0, atol=1e-9)


def autograd_penalty(logits, targets):
    """The definition, with a dummy scale and a second graph."""
    total = 0
    for e in range(targets.environments):
        mine = targets.environment[0] == e
        scale = torch.ones(1, dtype=logits.dtype, requires_grad=True)
        risk = cross_entropy(logits[:, mine] * scale, targets.labels[:, mine]).mean()
        total = total + torch.autograd.grad(risk, scale, create_graph=True)[0].square().sum()
    return total / targets.environments


@pytest.mark.parametrize("classes", [1, 10])
def test_irm_penalty_and_its_gradient_are_those_of_the_definition(classes):
    logits, targets = example(classes, networks=1)
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    mine, wanted = irm_penalty(ours, targets).sum(), autograd_penalty(theirs, targets)
    torch.testing.assert_close(mine, wanted, rtol=1e-12, atol=0)
    first, second = torch.autograd.grad(mine, ours)[0], torch.autograd.grad(wanted, theirs)[0]
    torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-14)
    assert float(first.abs().max()) > 1e-4  # a detached dummy scale would leave nothing


def test_split_penalty_is_the_product_of_half_gradients_and_unbiased():
    """Over random orders its mean is gbar^2 - s^2 / n, below the full batch's square; single values may be negative."""
    logits, targets = example(1, batch=40, networks=1, environments=1)
    slopes = scale_gradients(logits, targets.labels)[0]
    wanted = slopes.mean() ** 2 - slopes.var() / len(slopes)
    order = torch.rand(20_000, 40, generator=torch.Generator().manual_seed(0)).argsort(1)
    zeros = torch.zeros(20_000, 40, dtype=torch.int64)
    shuffled = Targets(targets.labels[0, order], torch.ones(20_000, 40).double(), zeros, zeros, 1, 3)
    values = irm_split_penalty(logits[0, order], shuffled)
    even, odd = slopes[::2].mean(), slopes[1::2].mean()
    assert float(irm_split_penalty(logits, targets)) == pytest.approx(float(even * odd), rel=1e-12)
    assert float(values.mean()) == pytest.approx(float(wanted), abs=5 * float(values.std()) / 20_000**0.5)
    assert float(irm_penalty(logits, targets)) - float(wanted) > 10 * float(values.std()) / 20_000**0.5
    ones, alternating = torch.ones(1, 40, 1).double(), (torch.arange(40) % 2)[None]
    opposed = Targets(alternating, targets.weights, targets.environment, targets.nuisance, 1, 3)
    assert float(irm_split_penalty(ones, opposed)) < -0.1


def test_penalty_vanishes_at_the_optimal_scale():
    logits, targets = example(10, networks=1, environments=1)
    slope = lambda scale: float(scale_gradients(logits * scale, targets.labels).mean()) / scale  # noqa: E731
    scale = brentq(slope, -5.0, 6.0, xtol=1e-15)  # the risk is convex in the scale
    assert float(irm_penalty(logits, targets)) > 1e-3
    assert float(irm_penalty(logits * scale, targets)) < 1e-20


def test_v_rex():
    logits, targets = example()
    same = Targets(targets.labels[:, :20].repeat(1, 2), targets.weights, (torch.arange(40) >= 20).long().expand(2, 40),
                targets.nuisance, 2, 3)  # fmt: skip
    equal = logits[:, :20].repeat(1, 2, 1)
    assert float(variance_penalty(equal, same).abs().max()) < 1e-28
    risks = torch.stack([cross_entropy(logits, targets.labels)[:, e::2].mean(1) for e in (0, 1)], 1)
    torch.testing.assert_close(variance_penalty(logits, targets), risks.var(1, correction=0))
    checks.check_variance_penalty(exercises.variance_of_risks)


def test_lam_0_is_erm_where_environments_are_equal_and_the_environment_mean_where_not():
    logits, targets = example()
    for kind in ("irm", "irm-split", "vrex"):
        torch.testing.assert_close(
            Penalized(kind, 0.0)(logits, targets, 0), ERM()(logits, targets, 0), rtol=1e-12, atol=0
        )
    logits, uneven = example(equal=False)
    risk = Penalized("irm", 0.0)(logits, uneven, 0)
    assert float((risk - ERM()(logits, uneven, 0)).abs().max()) > 1e-4
    torch.testing.assert_close(risk, environment_risk(logits, uneven))


def test_an_environment_missing_from_the_batch_counts_for_nothing():
    logits, targets = example()
    more = Targets(targets.labels, targets.weights, targets.environment, targets.nuisance, 5, 3)
    torch.testing.assert_close(environment_risk(logits, more), environment_risk(logits, targets))
    torch.testing.assert_close(irm_penalty(logits, more), irm_penalty(logits, targets))


def test_annealing_and_rescaling():
    objective = Penalized("irm", 1e4, anneal=100)
    logits, targets = example()
    assert [objective.strength(step) for step in (0, 99, 100)] == [1.0, 1.0, 1e4]
    assert [objective.divisor(step) for step in (0, 99, 100)] == [1.0, 1.0, 1e4]
    assert [Penalized("irm", 0.1, anneal=100).strength(step) for step in (0, 99, 100)] == [1.0, 1.0, 0.1]  # [peer code]
    assert Penalized("irm", 1e4, anneal=100, rescale=False).divisor(100) == 1.0
    late = objective(logits, targets, 100) / objective.divisor(100)
    torch.testing.assert_close(late, (environment_risk(logits, targets) + 1e4 * irm_penalty(logits, targets)) / 1e4)


def test_group_dro():
    logits, targets = example()
    still = GroupDRO(eta=0.0)
    torch.testing.assert_close(still(logits, targets, 0), environment_risk(logits, targets))
    moving = GroupDRO(eta=0.5)
    for step in range(5):
        loss = moving(logits, targets, step)
    assert torch.allclose(moving.q.sum(-1), torch.ones(2).double())
    risks = torch.stack([cross_entropy(logits, targets.labels)[:, e::2].mean(1) for e in (0, 1)], 1)
    wanted = torch.softmax(5 * 0.5 * risks, -1)
    torch.testing.assert_close(moving.q, wanted)
    torch.testing.assert_close(loss, (wanted * risks).sum(-1))
    again = GroupDRO(eta=0.5)
    again.load_state_dict(moving.state_dict())
    assert torch.equal(again.q, moving.q)


def test_group_weights_are_detached():
    """A gradient through q would add eta * covariance terms."""
    logits, targets = example(networks=1)
    logits.requires_grad_()
    objective = GroupDRO(eta=2.0)
    gradient = torch.autograd.grad(objective(logits, targets, 0).sum(), logits)[0]
    risks = torch.stack([cross_entropy(logits, targets.labels)[:, e::2].mean(1) for e in (0, 1)], 1)
    wanted = torch.autograd.grad((objective.q.detach() * risks).sum(), logits, retain_graph=True)[0]
    torch.testing.assert_close(gradient, wanted)
    leaky = torch.autograd.grad((torch.softmax(2.0 * risks, -1) * risks).sum(), logits)[0]
    assert float((leaky - wanted).abs().max()) > 1e-4


def test_groups_by_label_and_nuisance_leave_out_what_the_batch_lacks():
    logits, targets = example()
    objective = GroupDRO("label-nuisance", eta=0.0)
    group = targets.labels * 3 + targets.nuisance
    means = [cross_entropy(logits, targets.labels)[0][group[0] == g].mean() for g in group[0].unique()]
    assert float(objective(logits, targets, 0)[0]) == pytest.approx(float(torch.stack(means).mean()), rel=1e-12)
    assert objective.q.shape == (2, 30)


def test_consistency_is_zero_for_equal_views_and_needs_two():
    logits, targets = example()
    with pytest.raises(InputError, match="second view"):
        Consistency()(logits, targets, 0)
    twice = Targets(targets.labels, targets.weights, targets.environment, targets.nuisance, 2, 3, partner=logits)
    torch.testing.assert_close(Consistency(3.0)(logits, twice, 0), ERM()(logits, targets, 0))
    apart = Targets(targets.labels, targets.weights, targets.environment, targets.nuisance, 2, 3, partner=logits + 0.5)
    torch.testing.assert_close(Consistency(3.0)(logits, apart, 0), ERM()(logits, targets, 0) + 3 * 0.25)


def test_mixed_labels_mix_the_losses():
    logits, targets = example()
    second = (targets.labels + 1) % 10
    for share in (1.0, 0.3):
        mixed = Targets(targets.labels, targets.weights, targets.environment, targets.nuisance, 2, 3, second,
                     torch.full((2, 40), share).double())  # fmt: skip
        wanted = share * cross_entropy(logits, targets.labels) + (1 - share) * cross_entropy(logits, second)
        torch.testing.assert_close(ERM()(logits, mixed, 0), wanted.mean(-1))


def test_weighted_erm_finds_what_scikit_learn_finds():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (400,), generator=generator)
    x = torch.stack([labels * 2.0 - 1, labels * 1.0], 1).double() + torch.randn(400, 2, generator=generator)
    weights = torch.rand(400, generator=generator).double() * 3
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=300, tolerance_grad=1e-10, line_search_fn="strong_wolfe")
    zeros = torch.zeros(1, 400, dtype=torch.int64)

    def closure():
        optimizer.zero_grad()
        logits = (x @ w[:2] + w[2])[None, :, None]
        loss = ERM()(logits, Targets(labels[None], weights[None], zeros, zeros, 1, 1), 0).sum()
        loss = loss + w[:2].square().sum() / (2 * 400)
        loss.backward()
        return loss

    optimizer.step(closure)
    theirs = LogisticRegression(tol=1e-10, max_iter=1000).fit(x.numpy(), labels.numpy(), sample_weight=weights.numpy())
    assert w[:2].detach().tolist() == pytest.approx(theirs.coef_[0].tolist(), abs=1e-4)
    assert float(w[2].detach()) == pytest.approx(float(theirs.intercept_[0]), abs=1e-4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Penalized("rex", 1.0), "kind must be one of"),
        (lambda: Penalized("irm", -1.0), "not negative"),
        (lambda: GroupDRO("colour"), "groups are made by"),
        (lambda: GroupDRO(eta=-0.1), "eta is not negative"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(InputError, match=words):
        call()
