"""Pictures are pure: the same state gives the same arrays, every state in reach draws, refused states say why."""

import time

import numpy as np
import pytest
import torch

from labkit.errors import InputError
from labkit.metrics.intervals import wilson
from labkit.papers.pombu.experiment import offline, zone
from labkit.papers.pombu.experiment.calibration import Calibration
from labkit.papers.pombu.experiment.config import CONFIGS
from labkit.papers.pombu.experiment.offline import Setting
from labkit.papers.pombu.experiment.zone import Zone
from labkit.papers.pombu.teaching import figures, scenes
from labkit.papers.pombu.teaching.scenes import Maps


@pytest.fixture(scope="module")
def maps():
    """Untrained models and policies: pictures need no good ones."""
    task, setting = Zone(), Setting(clone_steps=20, model_steps=20)
    prepared = offline.prepare(task, setting, (0,))
    policies = offline.repeat_policy(prepared.policy, 4)
    with torch.no_grad():
        policies.mean.layers[-1].bias[2:] += 0.3
    value = offline.first_value(task, setting, prepared.policy, prepared.ensemble, (0,), 4)
    return Maps(task, prepared.states[0], ("alpha-0", "alpha-2"), (0, 30), policies, prepared.ensemble, value)


@pytest.mark.parametrize(
    ("figure", "states"),
    [
        (
            figures.bounds_explorer,
            [{"horizon": 1}, {"horizon": 40, "shared": True}, {"gamma": 1.0}, {"data": 100.0, "gamma": 0.5}],
        ),
        (
            figures.loss_explorer,
            [{"advantage": -2.0}, {"sqrt_u": 2.0}, {"alpha": 0.0}, {"clip": 0.45}, {"advantage": 0.0, "sqrt_u": 0.0}],
        ),
    ],
)
def test_interactive_figures_are_pure_quick_and_keep_their_traces(figure, states):
    traces = len(figure().data)
    for state in states:
        start = time.process_time()
        first = figure(**state)
        assert time.process_time() - start < 1.5  # checks of shapes included
        assert first.to_json() == figure(**state).to_json()
        assert len(first.data) == traces


def test_bounds_explorer_says_when_the_bound_breaks():
    def low(**state):
        title = figures.bounds_explorer(**state).layout.title.text
        return float(title.split(": ")[1].split(" to ")[0])

    assert low() >= 1.0
    assert low(horizon=1) == pytest.approx(1.0)
    assert low(horizon=40, shared=True) < 0.5


def test_loss_explorer_has_its_dead_zone():
    def best(**state):
        return figures.loss_explorer(**state).data[3].x[0]

    assert best(advantage=1.0, sqrt_u=0.3, alpha=2.0) == pytest.approx(0.2)
    assert best(advantage=-1.0, sqrt_u=0.3, alpha=2.0) == pytest.approx(-0.2)
    assert best(advantage=1.0, sqrt_u=0.6, alpha=2.0) == 0.0
    with pytest.raises(InputError, match="at least 0"):
        figures.loss_explorer(alpha=-1.0)


def test_change_explorer_draws_every_kept_policy(maps):
    for arm in maps.arms:
        for update in maps.updates:
            drawn = figures.change_explorer(maps, arm, update)
            assert len(drawn.data) == 3
    still, moved = (figures.change_explorer(maps, "alpha-0", u) for u in (0, 30))
    length = [np.nanmax(np.abs(np.diff(np.asarray(f.data[0].x, dtype=float)))) if len(f.data[0].x) else 0.0
              for f in (still, moved)]  # fmt: skip
    assert length[0] < length[1]
    with pytest.raises(InputError, match="there are arms alpha-0, alpha-2"):
        figures.change_explorer(maps, "alpha-7", 30)


def test_widgets_hold_their_figures(maps):
    for widget in (figures.bounds_widget(), figures.loss_widget(), figures.change_widget(maps)):
        control = widget.children[0]
        before = widget.children[-1].to_json()
        control.value = control.options[-1][1] if hasattr(control, "options") else control.value + control.step
        assert widget.children[-1].to_json() != before


@pytest.mark.slow
def test_static_figures_draw(maps):
    figures.idea_figure(
        {"arms": {a: {"claimed": [4.0], "real": [g]} for a, g in (("alpha-0", -1.0), ("alpha-2", 1.0))}}
    )
    figures.bounds_figure()
    figures.maps_figure(maps)
    assert len(figures.changes_figure(maps, ("alpha-0", "alpha-9", "alpha-2")).axes) == 2
    generator = torch.Generator().manual_seed(0)
    pairs = [torch.rand(2, 9, generator=generator) for _ in range(4)]
    figures.calibration_figure({"zone-8": Calibration(*pairs), "fake-0.01": Calibration(*pairs[:2])})
    curve = {"real_curve": [0.0, 1.0], "claimed_curve": [0.0, 2.0], "left": -1.0, "right": 1.0}
    arms = {arm: {"real": [0.5, -0.5], "claimed": [1.0, 1.5], **curve} for arm in CONFIGS["lesson"].zone_arms}
    figures.promise_figure({"arms": arms})
    figures.learning_figure({"arms": arms})
    studies = {name: {"arms": arms} for name in zone.VARIATIONS}
    for share in range(25):  # none of 24 improve, ..., all do
        gains = [1.0] * share + [-1.0] * (24 - share)
        figures.variations_figure({"zone": {"arms": {"alpha-0": {"real": gains}}}})
        figures.promise_figure({"arms": {"alpha-0": {"real": gains, "claimed": gains}}})
    drawn = figures.variations_figure(studies)
    assert len(drawn.axes[1].get_yticks()) == 4


def amounts(**improving: int) -> dict[int, dict]:
    """Two amounts of data on the left; of 10 seeds so many improve with alpha 0 and with the others."""

    def arms(plain: int, others: int) -> dict:
        return {arm: {"real": [1.0] * n + [-0.5] * (10 - n)}
                for arm in figures.CAUTION for n in [plain if arm == "alpha-0" else others]}  # fmt: skip

    return {4: {"arms": arms(improving.get("later", 9), 10)}, 1: {"arms": arms(1, 6)}}


def test_data_explorer_counts_seeds_at_the_amount_asked_for():
    few, many = (figures.data_explorer(amounts(), left) for left in (1, 4))
    for figure, shares in ((few, [0.1, 0.6, 0.6, 0.6, 0.6]), (many, [0.9, 1.0, 1.0, 1.0, 1.0])):
        reference, ours, control = figure.data
        assert list(ours.y) == pytest.approx(shares)
        assert list(reference.y) == pytest.approx([0.1, 0.6, 0.6, 0.6, 0.6])  # the least amount, whatever is chosen
        assert list(ours.x) == [0, 1, 2, 3, 4]  # five alphas, in their order
        assert list(figure.layout.xaxis.ticktext) == ["0", "0.5", "1", "2", "4"]
        assert list(control.y) == [shares[3]]
        assert abs(control.x[0] - 3) < 0.5  # beside alpha = 2, whose penalties are shuffled
        share = wilson(round(10 * shares[0]), 10)
        assert ours.error_y.array[0] == pytest.approx(share.high - share.value)
        assert ours.error_y.arrayminus[0] == pytest.approx(share.value - share.low)
        assert min(*ours.error_y.array, *ours.error_y.arrayminus) >= 0
    assert "α = 0: 9 of 10, +0.85 · α = 2: 10 of 10, +1.00" in many.layout.title.text
    assert many.to_json() == figures.data_explorer(amounts(), 4).to_json()
    with pytest.raises(InputError, match="records for 1, 4 episodes on the left; got 3"):
        figures.data_explorer(amounts(), 3)
    with pytest.raises(InputError, match="records for no episodes"):
        figures.data_explorer({}, 1)


def test_data_explorer_is_quick_and_draws_a_study_that_lacks_arms():
    few = {1: {"arms": {arm: amounts()[1]["arms"][arm] for arm in ("alpha-0", "alpha-2")}}}
    assert [len(trace.x) for trace in figures.data_explorer(few).data] == [2, 2, 0]
    assert list(figures.data_explorer(few).data[1].x) == [0, 3]
    studies = amounts()
    start = time.process_time()
    for _ in range(10):
        figures.data_explorer(studies, 4)
    assert time.process_time() - start < 1.0  # a callback has 100 ms


def test_data_widget_follows_its_handle_or_says_what_is_missing():
    widget = figures.data_widget(amounts())
    slider, shown = widget.children[0], widget.children[-1]
    assert list(slider.options) == [1, 4]
    assert shown.data[1].y[0] == pytest.approx(0.1)
    slider.value = 4
    assert shown.data[1].y[0] == pytest.approx(0.9)
    assert shown.layout.title.text.startswith("episodes on the left: 4")
    missing = figures.data_widget({})
    assert scenes.DATA_COMMAND in missing.children[0].value


def test_data_figure_shows_shares_and_gains():
    drawn = figures.data_figure(amounts())
    shares, gains = drawn.axes
    assert [line.get_ydata().tolist() for line in gains.lines[:2]] == [[-0.35, 0.85], [0.4, 1.0]]  # alpha 0, .5
    assert len(gains.get_legend().get_texts()) == len(figures.CAUTION)
    plain = shares.containers[0]
    assert plain.lines[0].get_ydata().tolist() == [0.1, 0.9]
    assert len(shares.containers) == 4  # alpha 0, .5, 2 and shuffled
    assert [label.get_text() for label in gains.get_xticklabels()] == ["1", "4"]


def test_by_left_reads_the_records_there_are(monkeypatch):
    assert set(scenes.LEFT.values()) <= set(zone.VARIATIONS)
    assert all(zone.task_of(study).left == episodes for episodes, study in scenes.LEFT.items())
    assert all(study in scenes.DATA_COMMAND for episodes, study in scenes.LEFT.items() if episodes > 1)
    recorded = {"zone": {"arms": {}, "record": "a"}, "zone-left-8": {"arms": {}, "record": "b"}}
    monkeypatch.setattr(scenes, "pooled", recorded.get)
    assert scenes.by_left() == {1: recorded["zone"], 8: recorded["zone-left-8"]}


def test_learning_curves_draw_every_algorithm():
    curves = {"steps": [10, 20], "stochastic_return": [[0.0, 1.0], [1.0, 2.0]]}
    result = {name: dict.fromkeys(CONFIGS["full"].algorithms, curves) for name in CONFIGS["full"].environments}
    drawn = figures.returns_figure(result, CONFIGS["full"].environments)
    assert len(drawn.axes) == 5
    assert len(drawn.axes[0].lines) == 3 * len(CONFIGS["full"].algorithms)


def test_colours_and_names_of_arms():
    assert figures.label_of("shuffled-2") == "α = 2, √U shuffled"
    assert len({figures.color_of(arm) for arm in ("alpha-0", "alpha-2", "shuffled-2", "constant-2")}) == 4
