"""The batched ensemble against K ordinary modules, torch's weight norm, and the splits that must be drawn once."""

import math
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from labkit.errors import InputError
from labkit.papers.pombu.method import ensemble as e

COPIES, MEMBERS, OBSERVATION, ACTION, HIDDEN = 2, 3, 4, 2, (16, 12)


def an_ensemble(weight_norm: bool = True, **options: object) -> e.DynamicsEnsemble:
    ensemble = e.DynamicsEnsemble(
        COPIES, MEMBERS, OBSERVATION, ACTION, HIDDEN, weight_norm=weight_norm, seeds=[5, 8], **options
    )
    generator = torch.Generator().manual_seed(1)
    ensemble.normalize_by(
        torch.randn(COPIES, 6, generator=generator), torch.rand(COPIES, 6, generator=generator) + 0.5,
        torch.randn(COPIES, 4, generator=generator), torch.rand(COPIES, 4, generator=generator) + 0.5,
    )  # fmt: skip
    return ensemble


def one_module(net: e.StackedWeightNormMLP, member: int) -> nn.Sequential:
    """Member `member` with torch's own layers and torch's own weight norm."""
    layers: list[nn.Module] = []
    for layer in net.layers:
        linear = weight_norm(nn.Linear(layer.inputs, layer.outputs), dim=0)
        with torch.no_grad():
            linear.parametrizations.weight.original0.copy_(layer.gain[member].T)
            linear.parametrizations.weight.original1.copy_(layer.direction[member].T)
            linear.bias.copy_(layer.bias[member, 0])
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def some_data(rows: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A smooth system that a small network can learn; rows of every copy."""
    generator = torch.Generator().manual_seed(seed)
    state = torch.randn(COPIES, rows, OBSERVATION, generator=generator)
    action = torch.randn(COPIES, rows, ACTION, generator=generator)
    turn = torch.tensor([0.3, -0.2, 0.1, 0.4])
    return state, action, state + 0.1 * torch.sin(state) * turn + 0.1 * torch.cat([action, -action], -1)


def fitted_normalization(ensemble: e.DynamicsEnsemble, state: Tensor, action: Tensor, after: Tensor) -> None:
    inputs, change = torch.cat([state, action], -1), after - state
    ensemble.normalize_by(inputs.mean(1), inputs.std(1), change.mean(1), change.std(1))


# -- the networks -----------------------------------------------------------------------------------------------------


def test_all_members_at_once_are_separate_modules():
    ensemble = an_ensemble()
    state, action, _ = some_data(7)
    got = ensemble(state, action)
    assert got.shape == (COPIES, MEMBERS, 7, OBSERVATION)
    for copy in range(COPIES):
        inputs = torch.cat([state[copy], action[copy]], -1)
        normal = (inputs - ensemble.input_mean[copy]) / ensemble.input_std[copy]
        for k in range(MEMBERS):
            change = one_module(ensemble.net, copy * MEMBERS + k)(normal)
            wanted = state[copy] + change * ensemble.output_std[copy] + ensemble.output_mean[copy]
            torch.testing.assert_close(got[copy, k], wanted, rtol=0, atol=1e-6)


def test_the_gradients_are_those_of_torchs_weight_norm():
    ensemble = an_ensemble()
    x, y = torch.randn(2, COPIES * MEMBERS, 9, 6, generator=torch.Generator().manual_seed(2))
    y = y[..., :4]
    (ensemble.net(x) - y).square().mean((1, 2)).sum().backward()
    for k in range(COPIES * MEMBERS):
        alone = one_module(ensemble.net, k)
        (alone(x[k]) - y[k]).square().mean().backward()
        for mine, theirs in zip(ensemble.net.layers, alone[::2], strict=True):
            weights = theirs.parametrizations.weight
            torch.testing.assert_close(mine.gain.grad[k].T, weights.original0.grad, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(mine.direction.grad[k].T, weights.original1.grad, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(mine.bias.grad[k, 0], theirs.bias.grad, rtol=1e-4, atol=1e-6)


def test_the_initial_weights():
    net = e.StackedWeightNormMLP(4, (100, 200, 50), generators=[torch.Generator().manual_seed(i) for i in range(4)])
    for layer in net.layers:
        assert layer.direction.std().item() == pytest.approx(0.05, rel=0.03)
        assert (layer.gain == 1).all()
        assert (layer.bias == 0).all()
        torch.testing.assert_close(layer.weight().norm(dim=1), torch.ones(4, layer.outputs))


@pytest.mark.parametrize("weight_norm", [True, False])
def test_a_member_depends_on_its_copies_seed_only(weight_norm):
    pair = an_ensemble(weight_norm)
    alone = e.DynamicsEnsemble(1, MEMBERS, OBSERVATION, ACTION, HIDDEN, weight_norm=weight_norm, seeds=[8])
    for mine, theirs in zip(pair.net.parameters(), alone.net.parameters(), strict=True):
        assert torch.equal(mine[MEMBERS:], theirs)
    weights = next(iter(pair.net.parameters()))
    assert len({tuple(w.flatten().tolist()) for w in weights}) == COPIES * MEMBERS


def test_making_and_freezing_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    an_ensemble().freeze()
    an_ensemble(False)
    assert torch.equal(before, torch.get_rng_state())


def test_a_frozen_ensemble_is_the_same_function():
    ensemble = an_ensemble()
    state, action, _ = some_data(7)
    wanted = ensemble(state, action)
    ensemble.freeze()
    frozen = ensemble(state, action)
    torch.testing.assert_close(frozen, wanted, rtol=0, atol=1e-6)
    assert not frozen.requires_grad
    assert not any("plain" in name for name in ensemble.state_dict())
    ensemble.initialize([1, 2])  # frozen weights would be stale
    assert ensemble(state, action).requires_grad
    fresh = ensemble(state, action)
    assert not torch.allclose(fresh, wanted)
    ensemble.freeze()
    torch.testing.assert_close(ensemble(state, action), fresh, rtol=0, atol=1e-6)


def test_further_outputs_are_predicted_as_they_are():
    """No state is added to them, and they are normalized like the rest."""
    ensemble = e.DynamicsEnsemble(COPIES, MEMBERS, OBSERVATION, ACTION, HIDDEN, seeds=[5, 8], extra_outputs=2)
    state, action, after = some_data(200)
    outcome = torch.cat([after, state[..., :1] * 3 + 7, (state[..., :1] > 0).float()], -1)
    inputs, change = torch.cat([state, action], -1), torch.cat([after - state, outcome[..., 4:]], -1)
    ensemble.normalize_by(inputs.mean(1), inputs.std(1), change.mean(1), change.std(1))
    _, targets = ensemble.normalized(state, action, outcome)
    torch.testing.assert_close(targets.mean(1), torch.zeros(COPIES, 6), rtol=0, atol=1e-4)
    torch.testing.assert_close(targets.std(1), torch.ones(COPIES, 6), rtol=0, atol=1e-4)
    net = ensemble.net(ensemble.network_inputs(state, action)).view(COPIES, MEMBERS, 200, 6)
    raw = net * ensemble.output_std[:, None] + ensemble.output_mean[:, None]
    torch.testing.assert_close(ensemble(state, action)[..., 4:], raw[..., 4:])
    torch.testing.assert_close(ensemble(state, action)[..., :4], raw[..., :4] + state[:, None])
    wide = [x[:, None].expand(-1, MEMBERS, -1, -1).contiguous() for x in (state, action)]
    torch.testing.assert_close(ensemble.by_member(*wide), ensemble(state, action), rtol=0, atol=1e-6)
    splits, generator = e.TrajectorySplits(COPIES, MEMBERS), torch.Generator().manual_seed(4)
    splits.add(4, 50, generator)
    report = e.fit(ensemble, state, action, outcome, splits, generator, e.FitSettings(5e-3, batch=40, rounds=60))
    assert (report.best < 0.5).all()  # a guess of the mean has 1; .05 +- .01 over 20 seeds, the worst member each


def test_following_members_is_picking_them():
    ensemble = an_ensemble()
    state, action, _ = some_data(7)
    wide = [x[:, None].expand(-1, MEMBERS, -1, -1).contiguous() for x in (state, action)]
    torch.testing.assert_close(ensemble.by_member(*wide), ensemble(state, action), rtol=0, atol=1e-6)


# -- the splits -------------------------------------------------------------------------------------------------------


def check_splits(make: Callable[[int, int], e.TrajectorySplits]) -> None:
    """What the only bootstrap of the method must be: own cuts, inside each trajectory, drawn once."""
    splits, generator = make(COPIES, MEMBERS), torch.Generator().manual_seed(0)
    splits.add(3, 10, generator)
    first = splits.train.clone(), splits.valid.clone()
    splits.add(2, 5, generator)
    assert torch.equal(splits.train[:, :24], first[0]), "old trajectories were cut again"
    assert torch.equal(splits.valid[:, :6], first[1]), "old trajectories were cut again"
    for network in range(COPIES * MEMBERS):
        rows = torch.cat([splits.train[network], splits.valid[network]])
        assert rows.sort().values.tolist() == list(range(40))
        held = splits.valid[network]
        borders = ((0, 10), (10, 20), (20, 30), (30, 35), (35, 40))
        assert [int(((held >= a) & (held < b)).sum()) for a, b in borders] == [2, 2, 2, 1, 1]
    assert len({tuple(held.sort().values.tolist()) for held in splits.valid}) == COPIES * MEMBERS


def test_the_splits():
    check_splits(e.TrajectorySplits)


class DrawsAnewEachTime(e.TrajectorySplits):
    """The bug of mbrl-lib's pull request 61: every iteration all members see other rows, in the end all rows."""

    def add(self, trajectories, length, generator):
        lengths = [*getattr(self, "lengths", []), (trajectories, length)]
        self.__init__(self.copies, self.members)
        self.lengths = lengths
        for one in lengths:
            super().add(*one, generator)


class SameForAllMembers(e.TrajectorySplits):
    def add(self, trajectories, length, generator):
        super().add(trajectories, length, generator)
        self.train[:], self.valid[:] = self.train[:1].clone(), self.valid[:1].clone()


class AcrossTrajectories(e.TrajectorySplits):
    def add(self, trajectories, length, generator):
        super().add(1, trajectories * length, generator)


@pytest.mark.parametrize("wrong", [DrawsAnewEachTime, SameForAllMembers, AcrossTrajectories])
def test_the_check_rejects(wrong):
    with pytest.raises(AssertionError):
        check_splits(wrong)


def test_resampling_repeats_training_rows_only():
    splits, generator = e.TrajectorySplits(1, 2), torch.Generator().manual_seed(0)
    splits.add(20, 50, generator)
    drawn = splits.resampled(generator)
    assert torch.equal(drawn.valid, splits.valid)
    for k in range(2):
        mine = set(drawn.train[k].tolist())
        assert mine <= set(splits.train[k].tolist())
        assert len(mine) / splits.train.shape[1] == pytest.approx(1 - 1 / math.e, abs=0.03)


def test_splits_survive_a_checkpoint():
    splits, again = e.TrajectorySplits(1, 2), e.TrajectorySplits(1, 2)
    splits.add(2, 10, torch.Generator().manual_seed(0))
    again.load_state_dict(splits.state_dict())
    assert torch.equal(again.train, splits.train)
    assert again.rows == 20
    for one in (splits, again):
        one.redraw(torch.Generator().manual_seed(1))
    assert torch.equal(again.train, splits.train)


def test_fresh_cuts_are_cuts_of_the_same_trajectories():
    splits, generator = e.TrajectorySplits(COPIES, MEMBERS), torch.Generator().manual_seed(0)
    splits.add(3, 10, generator)
    splits.add(2, 5, generator)
    before = splits.valid.clone()
    splits.redraw(generator)
    assert splits.rows == 40
    assert not torch.equal(splits.valid, before)
    fresh, generator = e.TrajectorySplits(COPIES, MEMBERS), torch.Generator().manual_seed(3)
    splits.redraw(generator)
    fresh.add(3, 10, generator.manual_seed(3))
    fresh.add(2, 5, generator)
    assert torch.equal(splits.train, fresh.train)


@pytest.mark.parametrize(("patience", "rounds"), [(4, 8), (5, 8), (6, 10)])
def test_patience_is_what_a_member_may_wait(patience, rounds, monkeypatch):
    """Validated every 2 rounds, with the first its best: stopped as soon as it has waited for longer than its patience,
    after 2 + 6 rounds with a patience of 4 or 5, after 2 + 8 with one of 6."""
    errors = iter(range(1, 100))
    monkeypatch.setattr(e, "validation_error", lambda *a: torch.full((COPIES * MEMBERS,), float(next(errors))))
    ensemble, data, splits = an_ensemble(), some_data(20), e.TrajectorySplits(COPIES, MEMBERS)
    generator = torch.Generator().manual_seed(0)
    splits.add(2, 10, generator)
    settings = e.FitSettings(batch=8, rounds=40, validate_every=2, patience=patience)
    report = e.fit(ensemble, *data, splits, generator, settings)
    assert report.rounds == rounds
    assert (report.best == 1).all()


# -- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_epoch", [pytest.param(True, marks=pytest.mark.slow), False])
def test_training_at_once_is_training_one_by_one(by_epoch, monkeypatch, double_precision):
    """Same minibatches, own stop each, best restored."""
    rows, settings = 40, e.FitSettings(1e-2, batch=8, by_epoch=by_epoch, rounds=80, validate_every=2, patience=6)
    together, data = an_ensemble(), some_data(40)
    fitted_normalization(together, *data)
    splits, generator = e.TrajectorySplits(COPIES, MEMBERS), torch.Generator().manual_seed(4)
    splits.add(4, 10, generator)
    before, drawn = deepcopy(together.state_dict()), []
    original = e._minibatches
    monkeypatch.setattr(e, "_minibatches", lambda *a: drawn.append(original(*a)) or drawn[-1])
    report = e.fit(together, *data, splits, generator, settings)
    if by_epoch:
        assert report.rounds < settings.rounds, "the patience never ran out: the test says nothing about stopping"
    for copy in range(COPIES):
        for k in range(MEMBERS):
            network = copy * MEMBERS + k
            alone = e.DynamicsEnsemble(COPIES, MEMBERS, OBSERVATION, ACTION, HIDDEN)
            alone.load_state_dict(before)
            net = one_module(alone.net, network)
            inputs, targets = (t.flatten(0, 1) for t in alone.normalized(*data))
            best = train_alone(net, inputs, targets, [[b[network] for b in m] for m in drawn],
                               splits.valid[network] + copy * rows, settings)  # fmt: skip
            assert report.best[network].item() == pytest.approx(best, rel=1e-7)
            state, action, _ = (x[copy] for x in some_data(9, seed=7))
            normal = (torch.cat([state, action], -1) - alone.input_mean[copy]) / alone.input_std[copy]
            got = together(*some_data(9, seed=7)[:2])[copy, k]
            wanted = state + net(normal) * alone.output_std[copy] + alone.output_mean[copy]
            torch.testing.assert_close(got, wanted, rtol=0, atol=1e-8)


def train_alone(net, inputs, targets, batches, valid, settings) -> float:
    """The rules of the sheet for one ordinary module; `net` has its best weights in the end."""
    optimizer = torch.optim.Adam(net.parameters(), settings.learning_rate)
    best, kept, stale = math.inf, deepcopy(net.state_dict()), 0
    for number, rows in enumerate(batches, start=1):
        for index in rows:
            optimizer.zero_grad()
            (net(inputs[index]) - targets[index]).square().mean().backward()
            nn.utils.clip_grad_norm_(net.parameters(), settings.max_norm)
            optimizer.step()
        if number % settings.validate_every:
            continue
        with torch.no_grad():
            error = (net(inputs[valid]) - targets[valid]).square().mean().item()
        if error < best:
            best, kept, stale = error, deepcopy(net.state_dict()), 0
        else:
            stale += settings.validate_every
            if stale > settings.patience:
                break
    net.load_state_dict(kept)
    return best


def test_training_lowers_the_validation_error_and_restores_the_best():
    """Over 20 seeds at most .011 of the error is left."""
    ensemble, data = an_ensemble(), some_data(300)
    fitted_normalization(ensemble, *data)
    splits, generator = e.TrajectorySplits(COPIES, MEMBERS), torch.Generator().manual_seed(4)
    splits.add(6, 50, generator)
    inputs, targets = (t.flatten(0, 1) for t in ensemble.normalized(*data))
    copy = torch.arange(COPIES).repeat_interleave(MEMBERS)[:, None] * 300
    before = e.validation_error(ensemble.net, inputs, targets, splits.valid + copy)
    report = e.fit(ensemble, *data, splits, generator, e.FitSettings(5e-3, batch=60, rounds=60))
    assert (report.best < 0.05 * before).all()
    torch.testing.assert_close(report.best, report.history.min(0).values)
    torch.testing.assert_close(
        e.validation_error(ensemble.net, inputs, targets, splits.valid + copy, chunk=7),
        report.best,
        rtol=1e-4,
        atol=1e-7,
    )


def test_the_step_size_falls():
    net = nn.Linear(2, 1)
    optimizer = e.make_adam(net.parameters(), 1e-3)
    settings = e.FitSettings(1.0, 0.0, rounds=4)
    assert [e._learning_rate(settings, i) for i in range(4)] == [1.0, 0.75, 0.5, 0.25]
    e.set_learning_rate(optimizer, 0.5)
    before = net.weight.detach().clone()
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()  # the first step of a fresh Adam is the step size itself
    torch.testing.assert_close((before - net.weight).abs(), torch.full((1, 2), 0.5), rtol=1e-5, atol=0)


def single_steps() -> e.TrajectorySplits:
    splits = e.TrajectorySplits(COPIES, MEMBERS)
    splits.add(5, 1, torch.Generator())
    return splits


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: e.DynamicsEnsemble(1, 1, 3, 1), "two members"),
        (lambda: e.DynamicsEnsemble(1, 2, 0, 1), "at least 1"),
        (lambda: e.DynamicsEnsemble(2, 2, 3, 1, seeds=[1]), "one seed a copy"),
        (lambda: an_ensemble().normalize_by(*[torch.zeros(2, n) for n in (6, 6, 4, 4)]), "must be positive"),
        (lambda: e.TrajectorySplits(1, 2, 1.5), "valid_fraction"),
        (lambda: e.TrajectorySplits(1, 2).add(0, 5, torch.Generator()), "cannot cut"),
        (lambda: e.TrajectorySplits(1, 2).add(3, 0, torch.Generator()), "cannot cut"),
        (lambda: e.fit(an_ensemble(), *some_data(5), single_steps(), torch.Generator()), "with its first step"),
        (lambda: e.FitSettings(batch=0), "at least 1"),
        (lambda: e.FitSettings(learning_rate=0.0), "must be positive"),
        (lambda: e.fit(an_ensemble(), *some_data(5), e.TrajectorySplits(2, 3), torch.Generator()), "the splits are of"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises((InputError, TypeCheckError)) as caught:
        call()
    assert isinstance(caught.value, TypeCheckError) or words in str(caught.value)
