"""What notebooks show: the true source, the true ledger, figures that follow their handles."""

import base64
import gzip
import io
import itertools
import json
import subprocess
import sys
import types

import ipywidgets as widgets
import numpy as np
import plotly
import plotly.graph_objects as go
import pytest
import toy_paper
from ipywidgets.embed import dependency_state
from PIL import Image
from plotly.subplots import make_subplots

from labkit import paths, viz
from labkit.errors import InputError
from labkit.viz.picture import picture

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
    actual, wanted = content(box.children[-1]), content(expected)
    actual["layout"].pop("template", None)
    wanted["layout"].pop("template", None)
    assert actual["layout"] == wanted["layout"]
    for trace, other in zip(actual["data"], wanted["data"], strict=True):
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
    from labkit.viz import page

    pieces: list[str] = []
    monkeypatch.setattr(page, "display", lambda thing: pieces.append(str(getattr(thing, "data", thing))))
    viz.show_source(*things)
    return "\n".join(pieces)


def test_an_image_source_holds_every_pixel():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    head, _, content = viz.image_source(pixels).partition(",")
    assert head == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))), pixels)


def test_show_source_shows_what_runs_and_where_it_stands(monkeypatch):
    text = shown(monkeypatch, toy_paper.build_model)
    assert "`toy_paper.build_model`, line " in text
    assert "def build_model(config: ToyConfig)" in text
    assert str(paths.root()) not in text


def test_show_source_of_a_method_keeps_its_indentation(monkeypatch):
    text = shown(monkeypatch, paths.root, go.Figure.add_scatter)
    assert "\ndef add_scatter(\n    self,\n" in text
    compile(shown(monkeypatch, toy_paper.Paper.open_run).split("````")[1].removeprefix("python"), "source", "exec")


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


# -- show -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, dict]]:
    """What `viz.show` displays: the thing or its bundle of types, and the metadata."""
    from labkit.viz import page

    outputs: list[tuple[object, dict]] = []
    monkeypatch.setattr(page, "display", lambda thing, metadata=None, raw=False: outputs.append((thing, metadata)))
    return outputs


def test_a_picture_has_twice_the_pixels_and_a_sentence_for_who_cannot_see_it(outputs):
    figure, axes = viz.subplots(figsize=(3, 2))
    axes.plot([1, 2])
    viz.show(figure, "a rising line")
    ((data, metadata),) = outputs
    assert data["text/plain"] == "a rising line"
    assert metadata["image/png"] == {"width": 240, "height": 160, "alt": "a rising line"}
    assert Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).size == (480, 320)


def test_a_plotly_figure_has_its_picture_above_it(outputs):
    figure = wave()
    viz.show(figure, "a wave")
    assert [isinstance(outputs[0][0], dict), outputs[1][0] is figure] == [True, True]
    assert outputs[0][0].keys() == {"image/png", "text/plain"}


def test_a_widget_and_its_picture_are_one_output(outputs, box):
    viz.show(box, "a wave with handles")
    ((data, _),) = outputs
    assert data.keys() == {"image/png", "text/plain", "application/vnd.jupyter.widget-view+json"}
    assert "VBox" not in data["text/plain"]


def test_a_finished_png_is_shown_at_half_its_pixels(outputs):
    image = io.BytesIO()
    Image.new("RGB", (40, 20)).save(image, format="png")
    viz.show(image.getvalue(), "black")
    assert outputs[0][1]["image/png"] == {"width": 20, "height": 10, "alt": "black"}


def test_a_film_is_an_image_with_its_sentence(outputs):
    viz.show(b"GIF89a", 'the "ball" rolls')
    assert outputs[0][0].data == '<img src="data:image/gif;base64,R0lGODlh" alt="the &quot;ball&quot; rolls">'


@pytest.mark.parametrize("missing", [None, False, [], {}, 0])
def test_where_a_part_is_missing_nothing_is_drawn_and_a_line_says_so(outputs, capsys, missing):
    viz.show(lambda: 1 / 0, "never drawn", when=missing, otherwise="not recorded yet: labkit record toy")
    assert capsys.readouterr().out == "not recorded yet: labkit record toy\n"
    assert outputs == []
    viz.show(lambda: viz.subplots()[0], "drawn", when=[1])
    assert len(outputs) == 1


def test_a_picture_without_a_sentence_and_a_thing_without_a_picture_are_refused():
    with pytest.raises(ValueError, match="alt is empty"):
        viz.show(wave(), " ")
    with pytest.raises(TypeError, match="no picture of a int"):
        viz.show(3, "three")


# -- a plotly figure as a still picture -------------------------------------------------------------------------------


def everything() -> go.Figure:
    """Each kind of trace that the rooms draw."""
    figure = make_subplots(2, 3, specs=[[{}, {}, {}], [{}, {}, {"type": "table"}]], subplot_titles=("lines", "bars"))
    figure.add_scatter(x=[1, 10, 100], y=[1, 2, None], name="line", line={"dash": "dot", "shape": "hv"}, row=1, col=1)
    figure.add_scatter(y=[1, 2], mode="markers+text", text=["a", "b"], row=1, col=1,
                       marker={"symbol": "x", "color": ["red", "blue"], "size": np.array([5, 10])},
                       error_y={"type": "data", "array": [1, 1]})  # fmt: skip
    figure.add_bar(x=["one", "two"], y=[3, 4], name="first", row=1, col=2)
    figure.add_bar(x=["one", "two"], y=[1, 1], name="second", marker_color="rgb(1, 2, 3)", row=1, col=2)
    figure.add_heatmap(z=[[1, 2], [3, None]], texttemplate="%{z:.1f}", row=1, col=3)
    figure.add_image(z=np.zeros((2, 2, 3)), row=2, col=1)
    figure.add_histogram(x=[1, 1, 2], xbins={"start": 0, "end": 3, "size": 1}, row=2, col=2)
    figure.add_table(header={"values": ["layer"]}, cells={"values": [["conv"]]}, row=2, col=3)
    figure.update_xaxes(type="log", range=[0, 2], title_text="steps", row=1, col=1)
    return figure.update_layout(title="five<br>kinds", barmode="stack", width=640, height=400)


def test_a_picture_has_the_axes_words_and_values_of_the_figure():
    drawn = picture(everything())
    lines, bars, heat, image, histogram, table = drawn.axes
    assert drawn.texts[0].get_text() == "five\nkinds"
    assert (lines.get_title(), bars.get_title()) == ("lines", "bars")
    assert (lines.get_xscale(), lines.get_xlim(), lines.get_xlabel()) == ("log", (1.0, 100.0), "steps")
    assert lines.lines[0].get_xdata().tolist() == [1, 10, 100]
    assert lines.collections[-1].get_sizes().tolist() == pytest.approx([16, 64]), "areas in square points"
    assert [patch.get_y() for patch in bars.patches] == [0, 0, 3, 4], "stacked"
    assert bars.patches[2].get_facecolor()[:3] == pytest.approx((1 / 255, 2 / 255, 3 / 255))
    assert [text.get_text() for text in heat.texts] == ["1.0", "2.0", "3.0"]
    assert image.images[0].get_array().shape == (2, 2, 3)
    assert [patch.get_height() for patch in histogram.patches] == [0, 2, 1]
    assert {cell.get_text().get_text() for cell in table.tables[0].get_celld().values()} == {"layer", "conv"}
    assert {text.get_text() for text in drawn.legends[0].get_texts()} == {"line", "first", "second"}


def test_a_kind_of_trace_without_a_picture_is_refused_by_name():
    with pytest.raises(InputError, match="no picture of a plotly pie"):
        picture(go.Figure(go.Pie(values=[1, 2])))


def test_the_first_message_of_a_widget_holds_the_whole_figure(monkeypatch):
    """plotly opens its channel first and sends the data after; a view drawn in between stays empty for good."""
    import comm

    opened: list[dict] = []
    plain = comm.create_comm

    def spy(**options):
        if "AnyModel" in str(options.get("data")):
            opened.append(options["data"]["state"])
        return plain(**options)

    monkeypatch.setattr("ipywidgets.widgets.widget.comm.create_comm", spy)
    viz.explore(wave, frequency=widgets.FloatSlider(2.0))
    assert [len(state["_widget_data"]) for state in opened] == [2]
    assert len(opened[0]["_esm"]) < 5000, "a page gives its script two seconds"
    assert opened[0]["_library"].startswith("IPY_MODEL_"), "plotly, which follows"


def test_a_saved_notebook_holds_plotly_once_and_packed():
    """Catches: five megabytes a figure in the notebook of every run."""
    boxes = [viz.explore(wave, frequency=widgets.FloatSlider(2.0)) for _ in range(5)]
    states = dependency_state(boxes)
    assert len(json.dumps(states)) < 2_500_000
    (library,) = {state["state"]["_library"] for state in states.values() if "_library" in state["state"]}
    (packed,) = states[library.removeprefix("IPY_MODEL_")]["buffers"]
    assert gzip.decompress(base64.b64decode(packed["data"])).decode() == str(go.FigureWidget._esm)


def test_on_colab_its_own_renderer_is_taken_and_widgets_are_let_in(monkeypatch):
    asked = []
    output = types.SimpleNamespace(enable_custom_widget_manager=lambda: asked.append("widgets"))
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(output=output))
    viz.use()
    assert (plotly.io.renderers.default, asked) == ("colab", ["widgets"])
    monkeypatch.delitem(sys.modules, "google.colab")
    viz.use()
    assert (plotly.io.renderers.default, asked) == ("plotly_mimetype", ["widgets"])


# What eyes see that lack the red, the green or the blue cone: linear RGB times this. Machado, Oliveira and Fernandes,
# IEEE TVCG 2009, severity 1.
CONES = {
    "all": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)


def cielab(color: str, cones: list[list[float]]) -> np.ndarray:
    """An sRGB colour in CIE L*a*b*, white point D65."""
    share = np.array([int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(np.array(cones) @ linear, 0, 1) / (0.95047, 1, 1.08883)
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("cones", CONES)
def test_colours_that_mean_something_differ_for_all_eyes(cones):
    """Catches: a red and a green of one lightness. A difference of 2.3 can just be seen."""
    colors = {name: cielab(color, CONES[cones]) for name, color in viz.COLORS.items()}
    near = [(a, b) for a, b in itertools.combinations(colors, 2) if np.linalg.norm(colors[a] - colors[b]) < 19]
    assert near == []


@pytest.mark.parametrize("cones", CONES)
def test_curves_with_a_mere_name_can_be_told_apart(cones):
    """Each from the next lighter one, and all from the paper; marks of their own do the rest."""
    seen = [cielab(color, CONES[cones]) for color in (*viz.NAMED, "#ffffff")]
    assert min(np.linalg.norm(a - b) for a, b in itertools.pairwise(seen)) > 12
    assert not {*viz.NAMED} & {*viz.COLORS.values()}


def test_a_pale_colour_is_a_quarter_of_it_on_white():
    assert viz.pale("#ffffff") == "#ffffff"
    assert viz.pale("#000000") == "#bfbfbf"
    assert viz.pale("#ff0040") == "#ffbfcf"


def test_the_measure_of_colours_is_that_of_cielab():
    """White is (100, 0, 0), sRGB's red (53.24, 80.09, 67.20)."""
    np.testing.assert_allclose(cielab("#ffffff", CONES["all"]), (100, 0, 0), atol=0.02)
    np.testing.assert_allclose(cielab("#ff0000", CONES["all"]), (53.24, 80.09, 67.20), atol=0.02)
