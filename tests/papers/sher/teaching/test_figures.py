"""Figures are pure functions of what they show, and say what they mean to say; widgets only turn handles."""

import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from labkit.errors import InputError
from labkit.papers.sher.experiment import train as loop
from labkit.papers.sher.experiment.config import BOX, Config
from labkit.papers.sher.experiment.evaluate import exact_lab
from labkit.papers.sher.experiment.stacks import build_agent, part_of, stacks_of
from labkit.papers.sher.experiment.worlds.build import build_world, sizes_of
from labkit.papers.sher.method.hindsight import future_law
from labkit.papers.sher.teaching import figures, scenes
from labkit.workbench.runs import Run
from labkit.workbench.training import Workers


@cache
def failure():
    return scenes.failure()


lab = cache(exact_lab)


def result(arms=("SHER", "HER-none"), experiment="walls", seed=0):
    """A made-up result of the real shape: four seeds, two layouts, three evaluations."""
    generator = np.random.default_rng(seed)
    measured = {}
    for arm in arms:
        curve = {layout: np.sort(generator.random((4, 3)), axis=1).round(2).tolist() for layout in ("gap", "twoway")}
        success = {layout: [row[-1] for row in rows] for layout, rows in curve.items()}
        measured[arm] = {"success": success, "curve": curve}
        if arm.startswith("SHER"):
            measured[arm]["official"] = success
    return {experiment: {"arms": measured, "steps": [100, 200, 300]}, "exact": lab()}


def test_the_failure_fails_and_hindsight_finds_something():
    path = failure().path
    assert len(path) == 26
    assert np.linalg.norm(path - failure().goal, axis=1).min() > failure().tolerance
    again = scenes.failure()
    np.testing.assert_array_equal(path, again.path)


def test_the_idea_needs_no_arguments():
    figure = figures.idea_figure()
    titles = [axis.get_title() for axis in figure.axes]
    assert "-1 in 25 of 25 steps" in titles[0]
    assert "25 of 25" not in titles[1]


@pytest.mark.parametrize(("t", "later"), [(0, 1), (5, 12), (24, 25)])
def test_relabelling_under_the_lens(t, later):
    """The picture's rewards are those of the distance, and its bars the law."""
    shown = figures.relabel_figure(failure(), t, later)
    path = failure().path
    near = np.linalg.norm(path - path[later], axis=1) <= failure().tolerance
    assert f"reward {'0' if near[t + 1] else '-1'}; {near[1:].sum()} of 25" in shown.layout.title.text
    bars = next(trace for trace in shown.data if trace.type == "bar")
    assert sum(bars.y) == pytest.approx(1)
    assert all(y == 0 for x, y in zip(bars.x, bars.y, strict=True) if x <= t)
    dashed = next(trace for trace in shown.data if trace.name == "over all t, of t' - t")
    np.testing.assert_allclose(dashed.y, future_law(25).numpy()[: 25 - t])  # what comes later than T is not shown
    assert list(dashed.x) == list(range(t + 1, 26))


def test_relabelling_refuses_the_past_and_the_widget_says_so():
    with pytest.raises(InputError, match="what came later"):
        figures.relabel_figure(failure(), 10, 10)
    box = figures.relabel_widget(failure())
    before = box.children[-1].layout.title.text
    box.children[1].value = 3  # t' before t = 5
    assert "later" in box.children[2].value
    assert box.children[-1].layout.title.text == before
    box.children[0].value = 1
    assert "t = 1, goal from t' = 3" in box.children[-1].layout.title.text


def top(heatmap) -> float:
    return max(value for row in heatmap.z for value in row if value is not None)


def test_alpha_in_numbers():
    cold, hot = figures.alpha_figure(-3.0), figures.alpha_figure(0.0)
    assert top(cold.data[1]) < top(hot.data[1]) <= np.log(5) + 1e-4
    assert list(hot.data[2].y) == [pytest.approx(np.exp(-1)), 1.0]
    assert top(figures.alpha_figure(0.0, clip=True).data[0]) < top(hot.data[0])
    assert "NaN" not in hot.to_json()
    box = figures.alpha_widget()
    box.children[2].value = True
    assert "clipped" in box.children[-1].layout.title.text


def test_static_pictures():
    for figure in (
        figures.slope_figure(),
        figures.temperature_figure(),
        figures.gap_figure(result()),
        figures.curves_figure(result()),
        figures.arms_figure([result()], "walls"),
        figures.film_figure({"before": [np.zeros((20, 30, 3), np.uint8)] * 8}),
        figures.paths_figure({"SHER": (np.zeros((3, 26, 2)), np.ones((3, 2)))}, "gap"),
    ):
        assert isinstance(figure, Figure)


def test_values_on_a_line():
    distance = np.linspace(0, 1, 5)
    values = scenes.LineValues(distance, -distance, {"HER": -distance - 0.5, "SHER": -distance})
    axis = figures.value_figure(values).axes[0]
    said = [text.get_text() for text in axis.get_legend().get_texts()]
    assert said == ["optimal", "HER: off by 0.50 on average", "SHER: off by 0.00 on average"]
    np.testing.assert_allclose(axis.lines[1].get_ydata(), -distance - 0.5)


def test_the_box_picture_has_every_corner():
    walls = {corner: result(("SHER", "HER-none", "HER-noise"))["walls"] for corner in BOX}
    assert len(figures.box_figure([walls, walls]).axes[0].get_xticks()) == 8


def test_tables_count_seeds_over_runs():
    runs = [result(seed=0), result(seed=1)]
    table = figures.seeds_table(runs)
    assert table[2].startswith("| SHER |")
    assert table[2].endswith("of 16 |")
    everyone = np.concatenate(figures.pooled(runs, "walls", "SHER"))
    assert f"| {everyone.min():.2f} | {int((everyone < 0.5).sum())} of 16 |" in table[2]
    assert figures.differences_table(runs, [("SHER", "SHER")])[2].count("+0.00") >= 2
    with pytest.raises(InputError, match="none of these results"):
        figures.pooled(runs, "walls", "TQC")


def test_the_cloud_shows_every_seed():
    shown = figures.cloud_figure([result(), result(seed=1)])
    assert len(shown.data[0].x) == 2 * 2 * 8
    official = figures.cloud_figure([result()], measure="official")
    assert list(official.layout.xaxis.ticktext) == ["SHER"]
    box = figures.cloud_widget({"this run": ([result()], "walls")})
    box.children[1].value = "official"
    assert list(box.children[-1].layout.xaxis.ticktext) == ["SHER"]
    with pytest.raises(InputError, match="no experiment"):
        figures.cloud_widget({})


@pytest.fixture(scope="module")
def learners(tmp_path_factory):
    """Two learners after two cycles, read back from their run directory as the notebook does."""
    config = Config(
        experiments=("walls",), arms=("SHER", "HER-none"), replicas=2, cycles=2, updates=2, batch_size=8, hidden=(8,),
        test_episodes=2, exact=False, device="cpu",
    )  # fmt: skip
    run = Run.open(tmp_path_factory.mktemp("run"), config)
    loop.train(config, run)
    return config, run, {a: scenes.trained(config, run, "walls", a, "twoway", 1) for a in config.arms}


def test_a_learner_read_back_is_the_one_in_the_stack(learners):
    config, run, trained = learners
    copies = next(s for s in stacks_of("walls", config) if s[0].name == "SHER")
    experiment = config.experiment("walls")
    world = build_world(experiment, [copy.layout for copy in copies], Workers(0, 1, torch.device("cpu")))
    stack = build_agent(copies, experiment, sizes_of(world), torch.device("cpu"))
    part_of(copies, run.part("walls")).read_weights(stack)
    row = next(r for r, copy in enumerate(copies) if (copy.layout, copy.replica) == ("twoway", 1))
    x = torch.linspace(-1, 1, 20).view(1, 5, 4)
    alone = trained["SHER"].agent.act(x, None)
    torch.testing.assert_close(stack.act(x.expand(len(copies), -1, -1), None)[row], alone[0])
    paths, goals = scenes.fixed_paths(trained["SHER"], 6)
    assert paths.shape == (6, 26, 2)
    assert goals.shape == (6, 2)
    with pytest.raises(InputError, match="no arm 'SHER' with layout 'pocket'"):
        scenes.trained(config, run, "walls", "SHER", "pocket")


def test_landscapes(learners):
    """Rows are y, columns are x: the value under a policy's action is the critic's own."""
    agents = {name: learner.agent for name, learner in learners[2].items()}
    values, chosen = figures.landscape(agents["HER-none"], (-0.3, -0.2), (0.5, 0.1))
    assert values.shape == (figures.SIDE, figures.SIDE)
    assert chosen.shape == (1, 2)
    axis = torch.linspace(-1, 1, figures.SIDE)
    action = torch.stack([axis[20], axis[5]])[None, None]  # x, y
    with torch.no_grad():
        x = agents["HER-none"].inputs(torch.tensor([[[-0.3, -0.2]]]), torch.tensor([[[0.5, 0.1]]]))
        wanted = float(agents["HER-none"].q(x, action))
    assert values[5, 20] == pytest.approx(wanted, abs=1e-5)
    assert figures.landscape(agents["SHER"], (0.0, 0.0), (0.5, 0.5))[1].shape == (120, 2)
    shown = figures.landscape_figure({"HER-none": agents["HER-none"]}, "twoway", -0.3, -0.2, 0.5, 0.1)
    heat, dots = shown.data[-2:]
    np.testing.assert_allclose(heat.z, values, atol=1e-3)  # rows grow upwards with y
    np.testing.assert_allclose([dots.x[0], dots.y[0]], chosen[0], atol=1e-6)
    box = figures.landscape_widget(agents, "twoway")
    box.children[0].value = 0.4
    assert box.children[-1].data[1].x[0] == 0.4


@pytest.mark.slow
def test_training_goes_on_after_the_first_picture():
    """Catches: Mesa's LLVM loaded before Triton's, which ends the process at the first optimiser."""
    from labkit.papers.sher.teaching import rendering

    if reason := rendering.gl_available():
        pytest.skip(reason)
    program = (
        "from labkit.papers.sher.experiment.worlds.robots import RobotWorld; import torch\n"
        "from labkit.papers.sher.teaching.rendering import camera\n"
        "world = RobotWorld('FetchReach-v4'); world.reset(1, 1, [torch.Generator()])\n"
        "with camera(world, 64, 48) as picture: picture(0)\n"
        "torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))]); print('alive')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.strip().endswith("alive"), done.stderr[-500:]


def test_records_by_label(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RECORDS", str(tmp_path))
    assert scenes.recorded("box") == []
