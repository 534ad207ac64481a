"""Pictures and widgets without a browser: what they show is what was computed."""

import numpy as np
import plotly.graph_objects as go
import pytest

from labkit.errors import InputError
from labkit.papers.bertfused import PAPER
from labkit.papers.bertfused.experiment.config import CONFIGS
from labkit.papers.bertfused.experiment.grammar import NOUNS
from labkit.papers.bertfused.teaching import figures, scenes
from labkit.papers.bertfused.teaching.scenes import KINDS, RATIOS
from labkit.viz.picture import picture
from labkit.workbench.runs import Run

CONFIG = CONFIGS["smoke"].override(
    experiments=("sentences",),
    arms=("plain", "fused", "no-drop-net"),
    layers=2,
    tests=2,
    beam=1,
    steps=3,
    fused_steps=3,
    vocabulary=600,
)
pytestmark = [pytest.mark.slow, pytest.mark.shapes_unchecked]  # the models that are looked at are trained first

SENTENCE = "the dog sees the hound ."


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = Run.open(tmp_path_factory.mktemp("run"), CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(tmp_path_factory.mktemp("runs")))
        PAPER.run(CONFIG, run)
    return run


@pytest.fixture(scope="module")
def scene(run):
    return scenes.trained(CONFIG, run)


def test_both_views_have_their_own_lengths(scene):
    looked = scenes.look(scene, SENTENCE)
    assert looked.source[-1] == looked.target[-1] == "⏎"
    assert (looked.words[0], looked.words[-1]) == ("[CLS]", "[SEP]")
    assert len(looked.source) != len(looked.words)
    assert figures.views_figure(looked.source[:-1], looked.words).axes[0].get_yticks().tolist() == [0.42, 1.42]


@pytest.mark.parametrize("kind", list(KINDS))
def test_attention_rows_are_shares(scene, kind):
    looked = scenes.look(scene, SENTENCE)
    for head in (0, 1, 2):
        figure = figures.attention_figure(looked, kind, 2, head)
        weights = np.array(figure.data[0].z)
        np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
        assert (len(figure.layout.yaxis.ticktext), len(figure.layout.xaxis.ticktext)) == weights.shape
        assert picture(figure).axes
    with pytest.raises(InputError, match="there is no"):
        figures.attention_figure(looked, kind, 9)


def test_the_attention_widget_reads_a_typed_sentence(scene):
    box = figures.attention_widget(scene, SENTENCE)
    text, kind, layer, head = box.children[:4]
    before = np.shape(box.children[-1].data[0].z)[1]
    text.value = "a very long and strange sentence with new words ."
    assert np.shape(box.children[-1].data[0].z)[1] > before
    text.value = " "
    assert "1 to 200 characters" in box.children[-2].value
    text.value, kind.value, layer.value, head.value = SENTENCE, next(iter(KINDS)), 1, 1
    assert list(box.children[-1].layout.xaxis.ticktext) == scenes.look(scene, SENTENCE).source


def test_the_switch_at_a_half_is_the_models_own_translation(scene):
    switch = scenes.branch_switch(scene, count=1)
    assert set(switch.bleu) == {"fused", "no-drop-net"}
    assert switch.translations["fused"][RATIOS.index(0.5)] == scenes.say(scene, "fused", switch.source)
    assert scene.models["fused"].mixture == (0.5, 0.5)
    box = figures.switch_widget(switch)
    assert picture(go.Figure(box.children[-1])).axes
    box.children[0].value = 1.0
    assert [trace.x[0] for trace in box.children[-1].data if trace.mode == "markers"] == [1.0] * 4
    assert switch.translations["fused"][-1] in box.children[-1].layout.title.text


def test_synonyms_know_their_family(scene):
    names, held_out, points = scenes.noun_map(scene.bert)
    assert points.shape == (len(names), 2)
    assert sum(held_out) == len({n for n, held in zip(names, held_out, strict=True) if held})
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-9)
    nouns = [noun for noun in NOUNS if noun.german in ("Hund", "Lampe")]
    box = figures.synonym_widget(scene, "hound", nouns)
    box.children[0].value = "lantern"
    assert set(box.children[-1].data[-1].text) == {"lamp", "lantern"}
    assert len(box.children[-1].data[0].y) == 10
    assert picture(go.Figure(box.children[-1])).axes
    for synonym in scenes.synonyms(scene, nouns):
        for guess in synonym.guesses.values():
            assert guess.probabilities == sorted(guess.probabilities, reverse=True)
            assert 0 < sum(guess.probabilities) <= 1 + 1e-6


def test_the_beam_tree_is_the_search(scene):
    nodes = scenes.beam_tree(scene, SENTENCE)
    by_step: dict[int, list] = {}
    for node in nodes:
        by_step.setdefault(node.step, []).append(node)
    for number, of_step in by_step.items():
        assert [node.log_prob for node in of_step] == sorted((node.log_prob for node in of_step), reverse=True)
        for node in of_step:
            if number:
                (parent,) = [p for p in by_step[number - 1] if p.survivor == node.parent]
                assert node.log_prob <= parent.log_prob + 1e-5  # a probability is at most 1
    box = figures.beam_widget(nodes)
    assert picture(go.Figure(box.children[-1])).axes
    box.children[0].value = 1
    assert max(max(trace.x or [0]) for trace in box.children[-1].data[1:]) == 1


def test_curves_begin_where_stage_1_ends(run):
    result = run.result["sentences"]["arms"]
    stage_1 = scenes.stage_1(run)
    figure = figures.curves_figure({name: arm["curve"] for name, arm in result.items()}, stage_1, CONFIG.steps)
    lines = figure.axes[0].lines
    assert lines[0].get_xdata()[-1] == lines[1].get_xdata()[0] == CONFIG.steps
    assert lines[0].get_ydata()[-1] == pytest.approx(lines[1].get_ydata()[0])  # the plain arm goes on
    assert lines[2].get_ydata()[0] != pytest.approx(lines[1].get_ydata()[0])  # a fused one jumps


def test_tables_and_gains(run):
    result = run.result
    assert len(scenes.table(result["sentences"]["arms"])) == 6
    lines = scenes.gains(result)
    assert lines[0].startswith("seen: ")
    assert lines[-1].startswith("nrefs:1|case:lc")
    assert figures.comparison_figure(result["sentences"]["arms"]).axes
    assert scenes.gains({}) == []


def test_costs_are_rates(scene):
    costs = scenes.costs(scene, count=8, rounds=1)
    assert all(value > 0 for rates in costs.values() for value in rates.values())
    assert not any(model.training for model in scene.models.values())
    assert len(figures.cost_figure(costs).axes) == 2


def test_a_run_without_the_fused_arm_shows_nothing(run):
    assert scenes.trained(CONFIG.override(arms=("plain",)), run) is None
    assert scenes.trained(CONFIG.override(experiments=("documents",)), run) is None
