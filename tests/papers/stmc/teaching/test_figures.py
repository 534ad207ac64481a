"""Pictures are pure: the same state gives the same arrays, every state in reach draws, refused states say why."""

import pytest
from matplotlib.figure import Figure

from labkit.errors import InputError
from labkit.metrics.wer import word_errors
from labkit.papers.stmc.experiment import avatars
from labkit.papers.stmc.teaching import figures, scenes
from labkit.workbench.records import Record

RECORDED = {
    "full-frame": {0: 0.8, 1: 0.7},
    "multi-cue": {0: 0.1, 1: 0.2},
    "hand-only": {0: 0.6},
    "random-crops": {0: 0.9, 2: 0.8},
}


@pytest.fixture(scope="module")
def reading():
    return scenes.untrained()


def states(reading):
    return [
        (
            figures.pairs_figure,
            [{"gloss": gloss, "cue": cue} for gloss in avatars.GLOSSES[::11] for cue in avatars.CUES],
        ),
        (figures.beam_figure, [{"width": 20, "sharpness": 0.2}, {"width": 1, "sharpness": 3.0, "seed": 20}]),
        (
            lambda **s: figures.player_figure(reading, **s),
            [{"position": 0, "point": 0}, {"position": len(reading.points) - 1, "point": 6}],
        ),
        (
            lambda **s: figures.ridge_figure(reading, **s),
            [{"head": name, "step": len(reading.posteriors["joint"]) - 1} for name in reading.posteriors],
        ),
        (
            lambda **s: figures.switchboard_figure(RECORDED, **s),
            [{}, {"full": False, "face": False, "pose": False}, {"in_place": False}, {"hand": False}],
        ),
    ]


@pytest.mark.parametrize("number", range(5))
def test_interactive_figures_are_pure_and_keep_their_traces(number, reading):
    figure, asked = states(reading)[number]
    kinds = [trace.type for trace in figure().data]
    for state in asked:
        first = figure(**state)
        assert first.to_json() == figure(**state).to_json()
        assert [trace.type for trace in first.data] == kinds


def test_states_out_of_reach_are_refused(reading):
    for call, words in (
        (lambda: figures.pairs_figure("WAVE", "hand"), "a gloss and one of"),
        (lambda: figures.player_figure(reading, 999), "there are frames 0"),
        (lambda: figures.ridge_figure(reading, "feet"), "there are the heads joint"),
        (lambda: figures.ridge_figure(reading, "joint", 99), "there are steps 0"),
    ):
        with pytest.raises(InputError, match=words):
            call()


def test_the_switchboard_says_what_was_recorded():
    assert "multi-cue<br>2 seeds" in figures.switchboard_figure(RECORDED).data[0].x
    assert "multi-cue: 15.0 % WER" in figures.switchboard_figure(RECORDED).layout.title.text
    assert "not recorded" in figures.switchboard_figure(RECORDED, hand=False).layout.title.text
    assert "random-crops: 85.0 %" in figures.switchboard_figure(RECORDED, in_place=False).layout.title.text


def test_the_beam_s_title_tells_when_it_is_right():
    assert "width 20 finds" in figures.beam_figure(20, 0.8, 5).layout.title.text
    assert "width 2 misses" in figures.beam_figure(2, 0.8, 5).layout.title.text


def test_still_pictures_draw(reading):
    numbers = {"wer": 0.5, "substitutions": 0.2, "deletions": 0.2, "insertions": 0.1}
    cues = {cue: {"alone": 0.1, "any": 0.2} for cue in avatars.CUES}
    result = {"arms": {"full-frame": numbers | {"confusions": cues}, "multi-cue": numbers | {"confusions": cues}}}
    lines = [{"step": 0, "loss": 3.0}, {"step": 20, "loss": 1.0}]
    for figure in (
        figures.idea_figure(),
        figures.field_figure(),
        figures.ladder_figure(),
        figures.strip_figure(reading.sentence),
        figures.comparison_figure(result),
        figures.confusions_figure(result),
        figures.training_figure({"multi-cue, stage 1": lines, "multi-cue, stage 2": lines}),
        figures.recorded_figure(RECORDED),
    ):
        assert isinstance(figure, Figure)


def test_an_alignment_colours_errors_and_escapes_words():
    text = figures.alignment_html(word_errors(["A <B> C"], ["A X C D"]).sentences)
    assert "&lt;B&gt;<br>X" in text
    assert figures.KINDS["substitute"] in text
    assert "2 errors in 3 words: 1 substituted, 0 deleted, 1 inserted" in text


def test_scenes_without_a_run_or_a_record(tmp_path, monkeypatch):
    from labkit.papers.stmc.experiment.config import CONFIGS
    from labkit.workbench.runs import Run

    monkeypatch.setenv("LABKIT_RECORDS", str(tmp_path))
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    assert scenes.recorded() == {}
    assert scenes.leads() == {}
    assert scenes.published_predictions() == []
    config = CONFIGS["smoke"]
    assert scenes.reading(config, Run.open(tmp_path / "run", config)) is None
    assert scenes.transcripts(config, {"arms": {}}, "multi-cue") == []


def test_leads_compare_arms_of_one_record_and_seed(tmp_path, monkeypatch):
    """The second record has multi-cue anew: its arms are compared with that one."""
    monkeypatch.setenv("LABKIT_RECORDS", str(tmp_path))
    (tmp_path / "stmc").mkdir()
    for label, rates in (
        ("", {0: {"full-frame": 0.8, "multi-cue": 0.3}, 1: {"full-frame": 0.7, "multi-cue": 0.1}}),
        ("controls", {0: {"intra-only": 0.4, "multi-cue": 0.5}, 1: {"intra-only": 0.35, "multi-cue": 0.1}}),
    ):
        results = [{"arms": {arm: {"wer": rate} for arm, rate in one.items()}} for one in rates.values()]
        Record(
            paper="stmc", scale="lesson", device="cpu", label=label, seeds=list(rates), results=results, config={},
            environment={}, wall_seconds=[1.0, 1.0], command="", recorded="2026-01-01",
        ).write()  # fmt: skip
    leads = scenes.leads()
    assert {arm: [round(v, 6) for v in by_seed.values()] for arm, by_seed in leads.items()} == {
        "full-frame": [0.5, 0.6],
        "intra-only": [-0.1, 0.25],
    }
    assert scenes.lead_lines(leads) == [
        "full-frame  better in 2 of 2 seeds, by 50 to 60 points",
        "intra-only  better in 1 of 2 seeds, by -10 to 25 points",
    ]
    assert scenes.lead_lines({}) == []
    recorded = scenes.recorded()
    assert scenes.pair_line(recorded, "intra-only", "full-frame") == (
        "intra-only reads better than full-frame in 2 of 2 seeds"
    )
    assert scenes.pair_line(recorded, "intra-only", "multi-cue").endswith("in 0 of 2 seeds")  # the first record's
    assert scenes.pair_line({}, "intra-only", "multi-cue").endswith("in 0 of 0 seeds")


def test_a_reading_holds_probabilities(reading):
    assert reading.maps.sum((2, 3)) == pytest.approx(1, abs=1e-4)
    for table in reading.posteriors.values():
        assert table.sum(1) == pytest.approx(1, abs=1e-6)
    assert list(reading.posteriors) == ["joint", "full frame", "hands", "face", "pose"]
