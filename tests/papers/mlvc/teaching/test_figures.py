"""Every picture: pure, with the content that its sentence says; every widget moves within its states."""

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
import pytest
from matplotlib.figure import Figure

from labkit.errors import InputError
from labkit.papers.mlvc import PAPER
from labkit.papers.mlvc.experiment.anchors import ANCHORS
from labkit.papers.mlvc.experiment.comparison import ARMS
from labkit.papers.mlvc.experiment.config import Config
from labkit.papers.mlvc.experiment.schedule import SCHEDULES
from labkit.papers.mlvc.teaching import figures, scenes
from labkit.viz import COLORS
from labkit.viz.picture import picture
from labkit.workbench.runs import Run

SMALL = Config(families=("disc",), arms=("raw-motion", "warp", "linear-2", "single", "multi"), quantizers=(8.0, 24.0),
               training_scenes=2, test_scenes=3, scene_frames=4, combiner_steps=10, combiner_batch=4,
               combiner_channels=4)  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    run = Run.open(tmp_path_factory.mktemp("run"), SMALL)
    return PAPER.run(SMALL, run), run


@pytest.fixture(scope="module")
def look(done):
    return scenes.look_inside(SMALL, done[1])


def moved(box: widgets.VBox) -> go.Figure:
    """Every control to its other end: the figure follows."""
    before = go.Figure(box.children[-1]).to_json()
    for control in box.children[:-2]:
        values = control.options if hasattr(control, "options") else (control.min, control.max)
        ends = [value[1] if isinstance(value, tuple) else value for value in values]
        control.value = ends[0] if control.value != ends[0] else ends[-1]
    figure = go.Figure(box.children[-1])
    assert figure.to_json() != before
    assert box.children[-2].value == ""
    assert picture(figure) is not None
    return figure


def test_where_the_newest_reference_fails_two_disagree_and_extrapolation_is_better():
    """What section 1 says, for every frame with four different references."""
    for number in range(4, 9):
        now = scenes.moment(number)
        errors = scenes.errors_inside_and_outside(now)
        assert errors["the one before"][0] > errors["newest"][0] > 1.2 * errors["extrapolated"][0]
        assert errors["extrapolated"][1] > errors["newest"][1]
        assert now.disagreement[now.hidden].mean() > 3 * now.disagreement[~now.hidden].mean()


@pytest.mark.parametrize(
    "make",
    [figures.idea_figure, figures.chain_figure, figures.motion_figure, figures.symbols_figure, figures.price_figure,
     figures.schedule_figure, figures.averaging_figure],
)  # fmt: skip
def test_still_pictures_have_axes_with_content(make):
    figure = make()
    assert isinstance(figure, Figure)
    assert all(axis.has_data() for axis in figure.axes)


@pytest.mark.slow
def test_pictures_of_a_run(done, look):
    result, _ = done
    rates = figures.rd_figure(result)
    assert len(rates.axes[0].lines) == len(SMALL.arms)
    saved = figures.savings_figure(result)
    assert len(saved.axes[0].get_yticks()) == len(SMALL.arms) - 1
    assert len(figures.prediction_figure(look).axes) == 4
    assert len(scenes.saving_rows(result)) == len(SMALL.arms) - 1
    with pytest.raises(InputError, match="this run did not code 'disc' with 'multi-2'"):
        figures.rd_explorer(result, "disc", "multi-2", "warp")


def test_every_arm_and_codec_has_a_look_of_its_own_and_none_is_a_failure():
    """Red and green mean failure and success in all notebooks, so that no arm may stand in them."""
    assert set(figures.ARM_LOOKS) == set(figures.NAMES) == set(ARMS)
    assert set(figures.CODEC_LOOKS) == {*SCHEDULES, *ANCHORS}
    for looks in (figures.ARM_LOOKS, figures.CODEC_LOOKS):
        assert len(set(looks.values())) == len(looks)
        assert not {look[0] for look in looks.values()} & {COLORS["bad"], COLORS["good"]}


def test_whole_videos_are_averaged_point_by_point():
    def points(shift):
        return [{"bpp": 0.1 + shift, "psnr": 30.0}, {"bpp": 0.3 + shift, "psnr": 33.0 + shift}]

    videos = {"a": {"stepwise": points(0.0), "x265-veryfast": points(0.1)}, "b": {"stepwise": points(0.2)}}
    result = {"coded": {"scenes": {"videos": videos}}}
    assert list(scenes.mean_curves(result, "scenes")) == ["stepwise"]
    rate, quality = scenes.mean_curves(result, "scenes")["stepwise"]
    assert rate == pytest.approx([0.2, 0.4])
    assert quality == pytest.approx([30.0, 33.1])
    assert len(figures.coded_figure(result).axes[0].lines) == 1


def test_saving_rows_and_curves_of_a_run_without_scenes():
    assert scenes.saving_rows({}) == []
    assert scenes.curves({}, "disc") == {}
    assert scenes.savings({}, "disc", "warp") == {}


def test_speeds_come_from_the_record_of_the_bench():
    """A row for each codec, seconds to encode and to decode; ours first."""
    rows = [row.strip("| ").split(" | ") for row in scenes.speed_rows()]
    assert [row[0] for row in rows] == ["all networks at width 1/8", "default networks", "x265 veryfast, FFmpeg"]
    assert all(0 < float(value) < 100 for row in rows for value in row[1:])


@pytest.mark.slow
def test_the_budget_is_what_the_clip_costs(look):
    """Frame by frame prices add up to the price of the whole."""
    from labkit.papers.mlvc.experiment.entropy import Tables

    for arm, bits in look.bits.items():
        symbols = look.coded[arm].symbols
        whole = Tables.learned([symbols]).bits(symbols)
        assert sum(bits["motion"]) == pytest.approx(float(whole.motion[0]), rel=1e-4)
        assert sum(bits["residual"]) == pytest.approx(float(whole.residual[0]), rel=1e-4)
        assert min(bits["residual"]) > 0
    assert sum(look.bits["warp"]["motion"]) < sum(look.bits["raw-motion"]["motion"])
    with pytest.raises(InputError, match="not coded by 'linear-2'"):
        figures.budget_figure(look, "linear-2")


@pytest.mark.slow
def test_widgets_move(done, look):
    result, _ = done
    moved(figures.references_widget())
    moved(figures.motion_widget())
    moved(figures.rd_widget(result))
    moved(figures.budget_widget(look))


@pytest.mark.slow
def test_the_protocol_widget_moves():
    figure = moved(figures.protocol_widget())
    assert "against itself" in figure.layout.title.text
    with pytest.raises(InputError, match="protocol must be one of gop-12"):
        figures.protocol_figure("stretch")


def test_bad_states_are_refused():
    with pytest.raises(InputError, match="there are four references; got 5"):
        figures.references_figure(7, 5)


def test_flow_colours():
    """Hue turns with the direction, and what stands still is white."""
    flow = np.zeros((2, 1, 3))
    flow[0, 0, 1], flow[1, 0, 2] = 2.0, 2.0
    colors = figures.flow_colors(flow, 2.0)
    assert colors[0, 0].tolist() == [1, 1, 1]
    assert colors[0, 1].tolist() == [1, 0, 0]
    assert colors[0, 2, 1] > colors[0, 2, 0]


def test_prediction_of_motion_saves_less_with_noise():
    saved = [1 - scenes.motion(noise=x).bits_predicted / scenes.motion(noise=x).bits_raw for x in (0.0, 4.0)]
    assert saved[0] > 0.3
    assert saved[1] < 0.7 * saved[0]
