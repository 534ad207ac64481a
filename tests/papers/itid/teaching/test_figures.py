"""Pictures are pure: the same state gives the same arrays, every state in reach draws, refused states say why."""

import numpy as np
import pytest
import torch

from labkit.errors import InputError
from labkit.papers.itid.experiment import selection
from labkit.papers.itid.experiment.config import Config
from labkit.papers.itid.method.coverage import coverage_by_size
from labkit.papers.itid.teaching import figures, scenes
from labkit.papers.itid.teaching.figures import Predictions
from labkit.viz import COLORS

GENERATOR = torch.Generator().manual_seed(0)
SHOWN = Predictions(
    torch.rand(30, 1, 8, 8, generator=GENERATOR),
    torch.arange(30) % 10,
    {name: torch.randint(10, (30, 10), generator=GENERATOR) for name in ("ERM", "IE-swap")},
)


@pytest.mark.parametrize(
    ("figure", "states"),
    [
        (figures.transition_figure, [{"rho": 0.5}, {"rho": 0.99}, {"rho": 0.8, "noise": 0.05}, {"test_rho": 1.0}]),
        (figures.map_figure, [{"rho": 0.0, "target": 1.0}, {"rho": 0.5, "target": 0.5}]),
        (figures.casino_figure, [{"criterion": c, "seed": s} for c in selection.CRITERIA for s in (0, 7)]),
        (lambda digit=0: figures.recolour_figure(SHOWN, digit), [{"digit": 0}, {"digit": 29}]),
    ],
)
def test_interactive_figures_are_pure_and_keep_their_traces(figure, states):
    traces = len(figure().data)
    for state in states:
        first = figure(**state)
        assert first.to_json() == figure(**state).to_json()
        assert len(first.data) == traces


def test_the_transition_jumps_where_theory_says():
    before, after = (figures.transition_figure(rho) for rho in (0.74, 0.76))
    assert "follows the content" in before.layout.title.text
    assert "follows the colour; test accuracy 0.10" in after.layout.title.text
    with pytest.raises(InputError, match="choose 0 < label noise"):
        figures.transition_figure(0.3)


def test_the_map_has_nothing_above_its_diagonal_and_16_invariant_dots_at_zero():
    drawn = figures.map_figure(0.86, 0.2).data
    for trace in drawn[1:]:
        assert bool((np.asarray(trace.y) <= np.asarray(trace.x) + 1e-12).all())
    assert len(drawn[2].x) == 16
    assert float(np.abs(np.asarray(drawn[2].x)).max()) < 1e-12


def test_the_casino_keeps_the_worst_by_training_accuracy():
    """The made-up sweep does what DomainBed's tables show: validation on training domains follows the colour."""
    regret = {
        c: np.mean([selection.select(figures.example_sweep(k), c).regret for k in range(40)])
        for c in selection.CRITERIA
    }
    assert regret["oracle"] == pytest.approx(0.0)
    assert regret["training-domain"] > 0.3


def test_widgets_hold_their_figures():
    for widget in (figures.transition_widget(), figures.map_widget(), figures.casino_widget(),
                   figures.recolour_widget(SHOWN)):  # fmt: skip
        slider = widget.children[0]
        before = widget.children[-1].to_json()
        slider.value = slider.options[2] if hasattr(slider, "options") else slider.value + slider.step
        assert widget.children[-1].to_json() != before
    with pytest.raises(InputError, match="there are digits 0 to 29"):
        figures.recolour_figure(SHOWN, 30)


def test_static_figures_show_the_numbers_they_are_given():
    arm = {"aligned": 0.9, "target": 0.5, "delta": 0.4, "ceiling": 0.6, "sd": {"target": 0.1},
           "each": {"aligned": [0.9], "target": [0.5], "iota": [0.4], "omega": [0.6]}}  # fmt: skip
    result = {
        "backgrounds": {"arms": {"ERM": arm, "IE-swap": arm}},
        "shifts-50": {"arms": {"ERM": arm, "IE-uniform": arm}},
    }

    def points(axis):
        return [
            collection.get_offsets()[0].tolist() for collection in axis.collections if len(collection.get_offsets())
        ]

    comparison = figures.comparison_figure(result, {"backgrounds": "one"}).axes[0]
    assert [label.get_text() for label in comparison.get_yticklabels()] == ["ERM", "IE-swap"]
    assert [0.9, 1.0] in points(comparison)
    left, right = figures.theorem_figure(result, ["backgrounds"]).axes
    assert points(left)[0] == pytest.approx([0.4, 0.4])
    assert points(right)[0] == pytest.approx([0.6, 0.5])
    ladder = figures.ladder_figure(result, "backgrounds", ["ERM", "IE-swap"]).axes[0]
    assert [bar.get_width() for bar in ladder.patches[:3]] == pytest.approx([0.1, 0.4, 0.1])
    assert points(ladder)[0] == pytest.approx([0.5, 1.0])
    shifts = figures.shrinking_figure(result).axes[0]
    assert [line.get_ydata().tolist() for line in shifts.lines if line.get_marker() == "o"] == [[0.5], [0.5]]
    delta = figures.learning_figure([{"step": 3, "delta/ERM": 0.5}, {"step": 4}], ["ERM"]).axes[0]
    assert delta.lines[0].get_xydata().tolist() == [[3, 0.5]]
    assert figures.sample_size_figure(0.9).axes[0].texts[0].get_text() == "133"  # 1200 / 9.01
    coverage = coverage_by_size(3, 0)
    iid = figures.coverage_figure(coverage).axes[0].lines[0]
    assert iid.get_ydata().tolist() == [100 * rates["iid_violations"] for rates in coverage.values()]
    heat = figures.heat_figure(SHOWN).axes[0]
    worst = min(float((SHOWN.tables["ERM"][SHOWN.labels == y] == y).double().mean(0).min()) for y in range(10))
    assert f"{worst:.2f}" in heat.get_title()


@pytest.mark.slow
def test_the_first_picture_shows_what_the_networks_say_and_a_swap_keeps_the_digits():
    scene = scenes.first_scene(Config(test_examples=60, train_examples=200))
    answers = {"as they are": [(k + 3) % 10 for k in range(10)], "swapped": list(range(10))}
    said = [text for text in figures.idea_figure(scene, answers).axes[0].texts if text.get_text().isdigit()]
    assert [int(text.get_text()) for text in said] == answers["as they are"] + answers["swapped"]
    assert [text.get_color() for text in said] == [COLORS["bad"]] * 10 + [COLORS["good"]] * 10
    before, after = (np.stack([axis.images[0].get_array() for axis in row]) for row in np.reshape(
        figures.swap_figure(scene).axes, (2, 10)))  # fmt: skip
    backgrounds = [images.min((1, 2)).sum(0) for images in (before, after)]  # channels, over all ten colours
    assert np.allclose(*backgrounds, atol=1e-5)
    assert not np.array_equal(before, after)
