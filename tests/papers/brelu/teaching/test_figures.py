"""Pictures are pure, widgets follow their handles, the pixel's integers are the network's."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from labkit.devices import one_thread
from labkit.errors import InputError
from labkit.papers import load
from labkit.papers.brelu.experiment.config import CONFIGS
from labkit.papers.brelu.method.bounds import ActivationStatistics
from labkit.papers.brelu.teaching import figures, scenes
from labkit.papers.brelu.teaching.roofline import Machine, layer_intensity, measure
from labkit.workbench.runs import Run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The super-resolution of a finished run without its peers: (config, run directory)."""
    config = CONFIGS["smoke"].override(
        tasks=["superresolution"], peers=[], factors=[1.0], rules=["3.5sigma"], untrained_rules=["mse"], levels=[127],
        depth=4, steps=4, tune_steps=2, batch_size=4, patches=64, calibration_examples=32,
    )  # fmt: skip
    run = Run.open(tmp_path_factory.mktemp("superresolution") / "run", config)
    with one_thread():
        load("brelu").run(config, run)
    return config, run


@pytest.fixture(scope="module")
def shown(trained):
    return scenes.open_superresolution(*trained, side=32)


@pytest.fixture(scope="module")
def statistics():
    statistics = ActivationStatistics()
    statistics.add(torch.randn(50_000, generator=torch.Generator().manual_seed(0)).relu())
    return statistics


def test_other_schemes_are_shown_over_seeds():
    results = [{"float": 36.0, "peers": {"LSQ 15": 35.5}}, {"float": 36.0, "peers": {"LSQ 15": 35.7}}]
    assert figures.peers_table(results).splitlines()[2] == "| LSQ | 15 | -0.40 | -0.50 to -0.30 |"


@pytest.mark.slow
def test_static_pictures(finished, shown):
    _, _, result = finished
    pictures = [
        figures.idea_figure(),
        figures.error_figure(),
        figures.map_figure(result["superresolution"]),
        figures.one_at_a_time_figure({k: v for k, v in result.items() if k != "data"}),
        figures.rules_figure(result["superresolution"]),
        figures.classes_figure(result["classification"]),
        figures.size_figure({"a": 10, "b": 20}),
        figures.pictures_figure(shown),
    ]
    assert all(isinstance(picture, Figure) and picture.axes for picture in pictures)


def test_bound_figure_is_pure_and_its_curves_cross_at_the_best_bound(statistics):
    first, again = (figures.bound_figure(statistics, 1.0, 15) for _ in range(2))
    assert first.to_json() == again.to_json()
    curves = {trace.name: np.asarray(trace.y) for trace in first.data if trace.name}
    np.testing.assert_allclose(curves["clipping"] + curves["rounding"], curves["both"], rtol=1e-6, atol=1e-11)
    k = np.asarray(first.data[2].x) * statistics.bound("3.5sigma")
    assert k[int(curves["both"].argmin())] == pytest.approx(2.9, rel=0.15)  # over 24 seeds -0.003 with 0.023


def test_widgets_follow_their_handles(statistics, shown):
    box = figures.bound_widget(statistics)
    before = box.children[-1].layout.title.text
    box.children[0].value = 0.3
    assert box.children[-1].layout.title.text != before
    box = figures.snapping_widget()
    box.children[1].value = 3
    assert "mul" in box.children[-1].layout.title.text
    box = figures.ratio_widget()
    box.children[0].value, box.children[1].value = 25, 6
    assert "takes up the rest" in box.children[-1].layout.title.text
    box = figures.viewer_widget(shown)
    before = box.children[-1].layout.title.text
    box.children[0].value = 3
    assert box.children[-1].layout.title.text.startswith("3 levels")
    assert box.children[-1].layout.title.text != before


def test_snapping_takes_the_nearest_ceiling():
    figure = figures.snapping_figure(46_000, 6)
    ends = np.asarray(figure.data[0].x)
    blue = [color == figures.COLORS["ours"] for color in figure.data[0].marker.color]
    assert blue.index(True) == int(np.abs(ends - 46_000).argmin())
    assert sum(blue) == 1


def test_the_followed_pixel_is_the_networks_own(shown):
    """The code at the end of a layer is what the integer network computes there."""
    lines = scenes.follow_pixel(shown, 10, 12, layers=2)
    assert lines[0]["integer"] == int(shown.picture[0][10, 12]) - 128
    computed = {}
    compute = shown.integer._compute
    try:
        shown.integer._compute = lambda node, values: computed.update(new := compute(node, values)) or new
        shown.integer.engine = "torch"
        shown.integer(((shown.picture[0] - 128) / 255)[None, None])
    finally:
        shown.integer.engine = "auto"
        del shown.integer._compute
    for line, relu in ((lines[5], "relu1"), (lines[10], "relu2")):
        channel = int(line["layer"].split()[-1])
        assert line["integer"] == int(computed[relu][0][0, channel, 10, 12])
        assert line["stands for"] == pytest.approx(line["float network has"], abs=0.05)
    assert "| conv1" in figures.pixel_table(lines)


def test_the_pixel_widget_shows_what_the_table_shows(shown):
    """The crop around the pixel changes nothing, at the border neither; the deepest layer is the network's own."""
    box = figures.pixel_widget(shown)
    row, column, layers = box.children[:3]
    row.value, column.value, layers.value = 0, 31, 3
    table = box.children[-1].data[-1]
    lines = scenes.follow_pixel(shown, 0, 31, 3)
    assert list(table.cells.values[2]) == [f"{line['integer']:,}" for line in lines]
    texts = [text for texts in (table.header.values, *table.cells.values) for text in texts]
    assert not any(" " in text for text in texts)  # a browser shows nothing of a text that plotly wraps
    assert box.children[-1].data[1].x == (31,)
    assert box.children[-1].data[1].y == (0,)
    whole = shown.integer.to_codes((shown.picture[0] - 128) / 255)[None, None]
    weight, bias = (getattr(shown.integer, f"conv1_{kind}").long() for kind in ("weight", "bias"))
    sums = torch.nn.functional.conv2d(whole.long(), weight, padding=1)[0, :, 0, 31]
    channel = int(lines[1]["layer"].split()[-1])
    assert lines[1]["integer"] == int(sums[channel])
    assert lines[2]["integer"] == int((sums + bias).max())


def test_roofline_counts_work_and_bytes():
    """A 1x1 convolution is a matrix product: 2 m n k operations on m k + k n + m n elements."""
    m, k, n = 56 * 56, 64, 256
    assert layer_intensity(k, n, 56, 1, 4) == pytest.approx(2 * m * n * k / (4 * (m * k + k * n + m * n)))
    assert layer_intensity(64, 64, 56, 3, 1) == pytest.approx(4 * layer_intensity(64, 64, 56, 3, 4))
    assert min(measure(rounds=1)) > 0
    machine = Machine(int8_gops=400.0, float_gops=100.0, gbytes=10.0)
    axis = figures.roofline_figure(machine, [(64, 64, 56, 3), (64, 256, 56, 1)]).axes[0]
    roof = axis.lines[0].get_ydata()
    assert (roof[0], roof[-1]) == pytest.approx((10.0, 400.0))
    with pytest.raises(InputError, match="positive sizes"):
        layer_intensity(0, 1, 1, 1, 1)


def test_bad_input(trained, shown):
    config, run = trained
    with pytest.raises(InputError, match=r"rows 0\.\.31"):
        scenes.follow_pixel(shown, 99, 0)
    with pytest.raises(InputError, match="no super-resolution"):
        scenes.open_superresolution(config.override(tasks=["classification"]), run)
