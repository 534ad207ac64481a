"""Pictures that need no trained model."""

import pytest

from labkit.papers.bertfused.teaching import figures, scenes


def test_the_idea_with_and_without_a_record():
    figure = figures.idea_figure({"plain": {"seen": 99.0, "unseen": 7.0}, "fused": {"seen": 99.0, "unseen": 60.0}})
    assert [bar.get_height() for bar in figure.axes[1].patches] == [99, 7, 99, 60]
    assert len(figures.idea_figure({}).axes) == 2
    figures.idea_figure()


def test_a_table_of_a_record_shows_the_spread_over_seeds():
    """A column a test, a row an arm; one number that a seed lacks leaves the cell open."""
    seeds = [{"seen": {"bleu": b}, "unseen": {"bleu": b / 10} if b < 95 else {}} for b in (90.0, 100.0)]
    table = scenes._table_of([{"arms": {"fused": {"tests": tests}}} for tests in seeds], "bleu").splitlines()
    assert table == ["| 2 seeds | `seen` | `unseen` |", "|---|---|---|", "| `fused` | 95.0 (90.0 to 100.0) | – |"]
    shares = [{"arms": {"fused": {"tests": {"seen": {"pronouns": 0.5}}}}}]
    assert scenes._table_of(shares, "pronouns").endswith("| `fused` | 50% (50% to 50%) |")


def test_what_is_not_recorded_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_RECORDS", str(tmp_path))
    assert scenes.recorded_table("sentences") == "Not recorded."


def test_drop_net_keeps_the_mean():
    for rate in (0.0, 0.3, 1.0):
        bars = figures.drop_net_figure(rate).data
        assert sum(bars[0].y) == pytest.approx(1)
        assert list(bars[1].y) == pytest.approx([0.5, 0.5])
    box = figures.drop_net_widget()
    box.children[0].value = 0.5
    assert list(box.children[-1].data[0].y) == pytest.approx([0.25, 0.25, 0.5])
