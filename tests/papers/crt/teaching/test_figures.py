"""Pictures are pure: the same state gives the same arrays, every state in reach draws, refused states say why."""

import functools

import numpy as np
import pytest

from labkit.errors import InputError
from labkit.papers.crt import look_alikes
from labkit.papers.crt.experiment.clips import LookAlikes
from labkit.papers.crt.experiment.config import MINING, Config
from labkit.papers.crt.teaching import exercises, figures, rehearsal, scenes
from labkit.workbench.records import Record


@functools.cache
def crowd():
    return look_alikes(LookAlikes(frames=10, rivals=3, similarity=0.85, height=140, width=180), 1)


@functools.cache
def described():
    return rehearsal.describe(crowd(), (5, 7))


@pytest.fixture(scope="module")
def snapshots():
    return scenes.snapshots(crowd(), 10, guided=True)


STATES = [
    (figures.cost_figure, [{"d": 64}, {"d": 4608}]),
    (figures.loo_figure, [{"noise": 0.0}, {"noise": 0.5}]),
    (figures.rival_figure, [{"x": 30, "y": 30}, {"x": 170, "y": 170, "similarity": 1.0}, {"x": 100, "y": 100}]),
    (figures.eao_figure, [{"failure": 1}, {"failure": 380, "low": 46, "high": 291}, {"overlap": 1.0}]),
]


@pytest.mark.parametrize(("figure", "states"), STATES)
def test_interactive_figures_are_pure_and_keep_their_traces(figure, states):
    kinds = [trace.type for trace in figure().data]
    for state in states:
        first = figure(**state)
        assert first.to_json() == figure(**state).to_json()
        assert [trace.type for trace in first.data] == kinds


def test_snapshots_and_scrubber(snapshots):
    kinds = {tuple(t.type for t in figures.scrubber_figure(snapshots, k).data) for k in range(len(snapshots))}
    assert len(kinds) == 1
    look = scenes.most_ambiguous(snapshots)
    assert look.target >= 0
    assert look.s1.shape == look.s2.shape == (len(look.at),)
    assert list(look.s1) == sorted(look.s1, reverse=True)
    with pytest.raises(InputError, match="frames 0 to 8"):
        figures.scrubber_figure(snapshots, 9)


def test_most_ambiguous_is_where_a_rival_answers_most(snapshots):
    def doubt(look):
        return (
            np.delete(look.s1, look.target).max() - look.s1[look.target]
            if look.target >= 0 and len(look.s1) > 1
            else -9
        )

    assert doubt(scenes.most_ambiguous(snapshots)) == max(map(doubt, snapshots))


def test_the_scene_answers_for_target_and_copy():
    """A perfect copy gets the target's score; a stranger less, in both stages."""
    scene = scenes.scene()
    _, first, second = scene.maps((140.0, 100.0), 1.0)
    assert first.max() > 0.5
    for scores, step in ((first, 4), (second, 6)):
        copy = figures._rival_share(scores, 140.0, 100.0, step)
        assert copy == pytest.approx(1.0, abs=0.12)
    _, first, second = scene.maps((140.0, 100.0), 0.2)
    assert figures._rival_share(first, 140.0, 100.0, 4) < 0.85
    assert figures._rival_share(second, 140.0, 100.0, 6) < 0.7
    with pytest.raises(InputError, match="similarity"):
        scene.maps((10.0, 10.0), 1.5)


def test_cost_crosses_where_the_flops_do():
    assert "about" in figures.cost_figure(576).layout.title.text
    drawn = figures.cost_figure(576).data
    n, primal, dual = (np.asarray(v) for v in (drawn[0].x, drawn[0].y, drawn[1].y))
    assert dual[n < 400].max() < primal[n < 400].max()
    assert dual[-1] > primal[-1]
    with pytest.raises(InputError, match="at least 1"):
        figures.cost_figure(0)


def test_measured_solves_lie_on_or_above_the_line_of_the_quickest():
    costs = [scenes.Cost("primal", 100, 576, 4.0), scenes.Cost("dual", 100, 576, 1.0), scenes.Cost("dual", 10, 64, 9.0)]
    drawn = {trace.name: trace for trace in figures.cost_figure(576, costs).data}
    assert (list(drawn["primal, measured"].x), list(drawn["primal, measured"].y)) == ([100], [4.0])
    assert (list(drawn["dual, measured"].x), list(drawn["dual, measured"].y)) == ([100], [1.0])
    speed = max((100 * 576**2 + 576**3 / 3) / 4, 100**2 * 576 + 100**3 / 3)  # operations a millisecond
    n = np.asarray(drawn["dual: n x n"].x)
    np.testing.assert_allclose(drawn["dual: n x n"].y, (n**2 * 576.0 + n**3 / 3) / speed)


def test_solves_are_measured_in_both_forms_and_none_is_long():
    costs = scenes.ridge_costs(rows=(20, 40), rounds=1)
    assert {(c.form, c.d) for c in costs} >= {("primal", 64), ("dual", 64), ("dual", 4608)}
    assert all(scenes.operations(c.form, c.n, c.d) <= scenes.MOST for c in costs)
    assert max(c.d for c in costs if c.form == "primal") == 576  # 1024^3 / 3 alone is beyond it


def test_a_later_failure_costs_less():
    said = [text.get_text() for text in figures.eao_picture().axes[0].get_legend().get_texts()]
    values = [float(text.split()[-1]) for text in said]
    assert [text.partition(":")[0] for text in said] == ["fails at 60", "fails at 150", "fails at 300"]
    assert values == sorted(values)
    assert len(set(values)) == 3


def test_leave_one_out_dots_lie_on_the_line():
    drawn = figures.loo_figure(0.2).data
    np.testing.assert_allclose(drawn[1].y, np.asarray(drawn[0].y)[::8], rtol=1e-6)


def test_eao_in_closed_form():
    """Constant overlap c: a steady run and one that fails at f and starts anew."""
    title = figures.eao_figure(failure=380, overlap=0.6).layout.title.text
    assert title == "EAO = 0.600"  # the failure comes after the window
    assert float(figures.eao_figure(failure=40, overlap=0.6).layout.title.text.split()[-1]) < 0.5
    with pytest.raises(InputError, match="1 <= low < high"):
        figures.eao_figure(low=300, high=200)


KNOBS = [{"kappa": 0.9}, {"mix": 0.0}, {"lam": 1.0}, {"eta": 0.3}, {"mining": "anchored"}, {"kernel": 5}]


@pytest.mark.parametrize("state", KNOBS, ids=lambda state: next(iter(state)))
def test_every_knob_moves_the_picture_and_only_by_its_value(state):
    start = figures.knobs_figure(described())
    first = figures.knobs_figure(described(), **state)
    assert first.to_json() == figures.knobs_figure(described(), **state).to_json()
    assert first.to_json() != start.to_json()
    assert [trace.name for trace in first.data] == [trace.name for trace in start.data]
    for words in ("skip rate", "n = ", "d = 256", "ms a solve", "negatives mined"):
        assert words in first.layout.title.text


def test_a_knob_out_of_range_leaves_the_picture_and_says_why():
    widget = figures.knobs_widget(described())
    before = widget.children[-1].to_json()
    widget.children[5].options = [("9 x 9", 9)]
    assert widget.children[-1].to_json() == before
    assert "filters of 5, 7; got 9" in widget.children[-2].value


def test_widgets_hold_their_figures(snapshots):
    for widget in (figures.cost_widget(()), figures.loo_widget(), figures.rival_widget(), figures.eao_widget(),
                   figures.scrubber_widget(snapshots), figures.knobs_widget(described())):  # fmt: skip
        control = widget.children[0]
        before = widget.children[-1].to_json()
        if hasattr(control, "options"):
            control.value = control.options[-1]
        else:
            control.value = control.value + control.step if control.value < control.max else control.min
        assert widget.children[-1].to_json() != before


@pytest.mark.slow
def test_the_first_picture_shows_one_frame_with_two_outcomes():
    shown = scenes.two_outcomes().snapshot
    assert shown.winner == shown.target != int(shown.s1.argmax())
    boxes = [axis.patches[0].get_xy() for axis in figures.idea_figure().axes]
    assert boxes[1] != boxes[2]


def test_the_scrubber_begins_with_the_most_ambiguous_frame(snapshots):
    number = scenes.most_ambiguous(snapshots).number
    assert figures.scrubber_widget(snapshots).children[-1].layout.title.text.startswith(f"frame {number}:")


@pytest.mark.parametrize(
    ("value", "text"), [(-0.0004, "+0.000"), (0.0, "+0.000"), (-0.0686, "-0.069"), (1.0, "+1.000")]
)
def test_numbers_of_tables_have_three_decimals_and_no_minus_before_zero(value, text):
    assert scenes.signed(value) == text


@pytest.mark.slow
def test_static_figures_draw(snapshots):
    figures.idea_figure()
    figures.snapshot_figure(snapshots[0])
    figures.convergence_figure()
    figures.clip_figure("walkers", frames=(0, 5))
    figures.hard_negatives_figure([])
    figures.knobs_picture(described())
    figures.presence_figure(exercises.goes_away())
    figures.hard_negatives_figure(scenes.hard_negatives(crowd(), 10))
    each = {"lost": [0.1, 0.2], "success": [[1.0] * 20 + [0.0]] * 2}
    arm = {"each": each, "hard_share": 0.03, "hard_response": 0.4}
    result = {"clips": {"plain": {"arms": {"stage-1": arm, "cascade": arm}}}}
    figures.comparison_figure(result)
    figures.success_figure(result, "plain")
    figures.minority_figure(result)
    with pytest.raises(InputError, match="neither clips nor footage"):
        figures.comparison_figure({})


def test_hard_negatives_name_the_frame_they_come_from():
    hard = look_alikes(LookAlikes(frames=14, rivals=5, similarity=0.9, height=140, width=180), 2)
    negatives = scenes.hard_negatives(hard, 14)
    assert negatives
    assert all(1 <= each.frame < 14 for each in negatives)
    assert all(each.patch.shape == (48, 48, 3) for each in negatives)


def test_real_frames_are_never_shown_unasked(monkeypatch):
    monkeypatch.setattr(scenes.data, "footage_is_there", lambda: True)
    monkeypatch.setattr(scenes.data, "footage", lambda *_: crowd())
    name, _ = scenes.headline(Config(footage=("TLD_pedestrian2",), frames=6), 4)
    assert name == "plain-0-0"
    name, _ = scenes.headline(Config(footage=("TLD_pedestrian2",), show_footage=True), 4)
    assert name == crowd().name


def test_recorded_differences_are_paired_over_all_clips(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RECORDS", str(tmp_path))
    assert scenes.recorded_differences("evidence", "stage-1", "lost") == []

    def result(shift):
        arms = {"stage-1": {"each": {"lost": [0.1, 0.3]}}, "cascade": {"each": {"lost": [0.1 + shift, 0.3 + shift]}}}
        return {"clips": {"plain": {"arms": arms}}}

    record = Record(
        paper="crt", scale="lesson", device="cpu", label="evidence", seeds=[0, 1], results=[result(0.1), result(0.1)],
        config={}, environment={}, wall_seconds=[1.0, 1.0], command="", recorded="2026-01-01",
    )  # fmt: skip
    record.path.parent.mkdir(parents=True)
    record.path.write_text(record.model_dump_json())
    figure = figures.mining_figure()  # neither of its two records is there
    assert [line.get_label() for line in figure.axes[0].lines if "features" in line.get_label()] == [
        "hand-made features: not recorded",
        "learned features: not recorded",
    ]
    rows = scenes.recorded_differences("evidence", "stage-1", "lost")
    assert rows == ["| cascade | +0.100 | [+0.100, +0.100] | 4 |"]


def test_mining_figure_draws_each_reading_beside_the_same_cascade_without_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RECORDS", str(tmp_path))

    def write(label, ending, shift):
        each = {"auc": [0.5, 0.7], "lost": [0.1, 0.3]}
        arms = {"cascade" + ending: {"each": each}}
        arms |= {way + ending: {"each": {n: [v + k * shift for v in vs] for n, vs in each.items()}}
                 for k, way in enumerate(MINING)}  # fmt: skip
        record = Record(
            paper="crt", scale="lesson", device="cpu", label=label, seeds=[0],
            results=[{"clips": {"plain": {"arms": arms}}}], config={}, environment={}, wall_seconds=[1.0], command="",
            recorded="2026-01-01",
        )  # fmt: skip
        record.path.parent.mkdir(parents=True, exist_ok=True)
        record.path.write_text(record.model_dump_json())

    write("mining", "", -0.02)
    write("mining-learned", "-learned", 0.01)
    left = figures.mining_figure().axes[0]
    drawn = {line.get_label(): line.get_xdata() for line in left.lines}
    np.testing.assert_allclose(drawn["hand-made features, 2 clips"], -0.02 * np.arange(5), atol=1e-12)
    np.testing.assert_allclose(drawn["learned features, 2 clips"], 0.01 * np.arange(5), atol=1e-12)
    assert [label.get_text() for label in left.get_yticklabels()] == list(MINING)
