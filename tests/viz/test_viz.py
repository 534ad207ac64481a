"""What notebooks show: the true source, the true ledger, figures that follow their handles."""

import subprocess
import sys

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
import pytest
import toy_paper

from labkit import paths, viz
from labkit.errors import InputError

GRID = np.linspace(0, 1, 50)


def wave(frequency: float = 1.0, kind: str = "sine") -> go.Figure:
    """A figure whose data, title, colour and marks all depend on the state."""
    if frequency == 13:
        raise InputError("13 <b>brings</b> no luck")
    curve = np.sin(frequency * GRID) if kind == "sine" else np.cos(frequency * GRID)
    figure = go.Figure([go.Scatter(x=GRID, y=curve), go.Bar(x=[0, 1], y=[frequency, 2])])
    if kind == "cosine":
        figure.add_vline(x=frequency)
        figure.update_layout(title=f"{kind} {frequency}", yaxis={"range": [0, 1]})
        figure.data[0].line.color = "red"
    return figure


def content(figure: go.Figure) -> dict:
    """A figure's data and layout, without the ids that a widget adds."""
    plain = figure.to_plotly_json()
    for trace in plain["data"]:
        trace.pop("uid", None)
        for name in [name for name, value in trace.items() if isinstance(value, dict) and not value]:
            del trace[name]  # `line: {}` says no more than no line at all
    return {"data": plain["data"], "layout": {key: value for key, value in plain["layout"].items() if value}}


def assert_shows(box: widgets.VBox, expected: go.Figure) -> None:
    found, wanted = content(box.children[-1]), content(expected)
    found["layout"].pop("template", None)
    wanted["layout"].pop("template", None)
    assert found["layout"] == wanted["layout"]
    for trace, other in zip(found["data"], wanted["data"], strict=True):
        assert trace.keys() == other.keys()
        for key in trace:
            np.testing.assert_equal(trace[key], other[key])


@pytest.fixture
def box() -> widgets.VBox:
    return viz.explore(
        wave,
        frequency=widgets.FloatSlider(2.0, min=0, max=20),
        kind=widgets.Dropdown(options=["sine", "cosine"], value="sine"),
    )


def test_a_widget_begins_with_the_figure_of_its_handles(box):
    assert_shows(box, wave(2.0, "sine"))


def test_each_handle_redraws_what_the_pure_function_draws(box):
    """Catches: a handle that is not wired, one that forgets the others, marks and titles of an earlier state."""
    frequency, kind, _, _ = box.children
    frequency.value = 5.0
    assert_shows(box, wave(5.0, "sine"))
    kind.value = "cosine"
    assert_shows(box, wave(5.0, "cosine"))
    frequency.value = 7.0
    assert_shows(box, wave(7.0, "cosine"))
    kind.value = "sine"
    assert_shows(box, wave(7.0, "sine"))


def test_a_refused_state_keeps_the_last_picture_and_says_why(box):
    frequency, _, message, _ = box.children
    frequency.value = 5.0
    frequency.value = 13.0
    assert_shows(box, wave(5.0, "sine"))
    assert message.value == "13 &lt;b&gt;brings&lt;/b&gt; no luck"
    frequency.value = 6.0
    assert message.value == ""
    assert_shows(box, wave(6.0, "sine"))


def test_other_traces_than_before_are_an_error_of_the_author():
    def growing(count: int) -> go.Figure:
        return go.Figure([go.Scatter(y=[1, 2])] * count)

    box = viz.explore(growing, count=widgets.IntSlider(1, min=1, max=3))
    with pytest.raises(ValueError, match="same traces in every state"):
        box.children[0].value = 2


def shown(monkeypatch: pytest.MonkeyPatch, *things: object) -> str:
    """What `show_source` puts on the page, as text."""
    from labkit.viz import show

    pieces: list[str] = []
    monkeypatch.setattr(show, "display", lambda thing: pieces.append(str(getattr(thing, "data", thing))))
    viz.show_source(*things)
    return "\n".join(pieces)


def test_show_source_shows_what_runs_and_where_it_stands(monkeypatch):
    text = shown(monkeypatch, toy_paper.build_model)
    assert "`toy_paper.build_model`, line " in text
    assert "def build_model(config: ToyConfig)" in text
    assert str(paths.root()) not in text


def test_show_source_of_a_method_keeps_its_indentation(monkeypatch):
    text = shown(monkeypatch, paths.root, go.Figure.add_scatter)
    assert "\ndef add_scatter(\n    self,\n" in text
    compile(shown(monkeypatch, toy_paper.Paper.open_run).split("\n", 1)[1], "source", "exec")


def test_show_source_of_something_without_source_is_refused():
    with pytest.raises(TypeError):
        viz.show_source(len)


def test_pictures_are_plain_values_that_nothing_global_keeps():
    from matplotlib import pyplot

    figure, axes = viz.subplots(1, 2, figsize=(6, 2), width_ratios=[1, 2])
    assert len(axes) == 2
    assert figure.get_size_inches().tolist() == [6, 2]
    assert pyplot.get_fignums() == []


def test_each_meaning_has_a_colour_of_its_own():
    assert len(set(viz.COLORS.values())) == len(viz.COLORS)
    assert {"float", "ours", "baseline", "bad"} <= viz.COLORS.keys()


@pytest.mark.slow
def test_use_keeps_figures_small_and_offline():
    """In a process of its own, because these settings are global."""
    code = (
        "import matplotlib, plotly.io, plotly.graph_objects as go\n"
        "from labkit import viz\n"
        "viz.use()\n"
        "assert plotly.io.renderers.default == 'plotly_mimetype'\n"
        "assert matplotlib.rcParams['figure.dpi'] == matplotlib.rcParams['savefig.dpi'] == 80\n"
        "assert len(go.Figure(go.Scatter(y=[1, 2])).to_json()) < 2000\n"
    )
    call = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=paths.root())
    assert call.returncode == 0, call.stderr
