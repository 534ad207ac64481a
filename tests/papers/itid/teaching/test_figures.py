"""Pictures are pure: the same state gives the same arrays, every state in reach draws, refused states say why."""

import time

import numpy as np
import pytest
import torch

from labkit.errors import InputError
from labkit.papers.itid.experiment import selection
from labkit.papers.itid.method.coverage import coverage_by_size
from labkit.papers.itid.teaching import figures
from labkit.papers.itid.teaching.figures import Predictions

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
def test_interactive_figures_are_pure_quick_and_keep_their_traces(figure, states):
    traces = len(figure().data)
    for state in states:
        start = time.process_time()
        first = figure(**state)
        seconds = time.process_time() - start
        assert seconds < 0.5  # 0.1 on a free machine, checks of shapes included
        assert first.to_json() == figure(**state).to_json()
        assert len(first.data) == traces


def test_the_transition_jumps_where_theory_says():
    before, after = (figures.transition_figure(rho) for rho in (0.74, 0.76))
    assert "follows the content" in before.layout.title.text
    assert "follows the colour; flipped 0.10" in after.layout.title.text
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


def test_static_figures_draw():
    figures.heat_figure(SHOWN)
    found = {"aligned": 0.9, "target": 0.5, "delta": 0.4, "ceiling": 0.6, "sd": {"target": 0.1},
             "each": {"aligned": [0.9], "target": [0.5], "iota": [0.4], "omega": [0.6]}}  # fmt: skip
    result = {
        "backgrounds": {"arms": {"ERM": found, "IE-swap": found}},
        "shifts-50": {"arms": {"ERM": found, "IE-uniform": found}},
    }
    figures.comparison_figure(result, {"backgrounds": "one"})
    figures.theorem_figure(result, ["backgrounds"])
    figures.ladder_figure(result, "backgrounds", ["ERM", "IE-swap"])
    figures.shrinking_figure(result)
    figures.learning_figure([{"step": 0, "delta/ERM": 0.5}], ["ERM"])
    figures.sample_size_figure(0.9)
    figures.coverage_figure(coverage_by_size(3, 0))
