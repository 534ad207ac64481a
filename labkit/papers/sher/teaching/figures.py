"""Pure figure builders and widget shells for the notebook."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
import torch
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from labkit.errors import InputError
from labkit.metrics.intervals import Interval, bootstrap
from labkit.papers.sher.experiment.claims import over_seeds, strata
from labkit.papers.sher.experiment.config import BOX
from labkit.papers.sher.experiment.evaluate import GRID
from labkit.papers.sher.experiment.worlds.small import LAYOUTS
from labkit.papers.sher.method import soft_tabular
from labkit.papers.sher.method.hindsight import future_law
from labkit.papers.sher.teaching import scenes
from labkit.papers.sher.teaching.rendering import film_strip
from labkit.papers.sher.teaching.scenes import Failure, LineValues
from labkit.rl.gaussian import log_tanh_slope, tanh_gaussian
from labkit.rl.statistics import mean_seed_deviation, pooled_iqm
from labkit.viz import COLORS, explore, subplots
from labkit.workbench.claims import Result

ARM_COLORS = {
    "SHER": COLORS["ours"],
    "HER-none": COLORS["straw"],
    "HER-eps": COLORS["baseline"],
    "HER-noise": COLORS["baseline"],
}


def _color(arm: str) -> str:
    """SHER and its variants blue, HER's orange, what lacks exploration or hindsight sand."""
    if arm in ARM_COLORS:
        return ARM_COLORS[arm]
    if "no-hindsight" in arm:
        return COLORS["straw"]
    return COLORS["baseline"] if arm.startswith(("HER", "CHER")) else COLORS["ours"]


# -- the idea ---------------------------------------------------------------------------------------------------------


def idea_figure(failure: Failure | None = None) -> Figure:
    """The same failed episode twice: with the goal that was asked for, and with one that it did reach."""
    failure = failure or scenes.failure()
    figure, axes = subplots(1, 2, figsize=(7.6, 3.6))
    later = len(failure.path) - 6
    shown = (
        ("the goal that was asked for", failure.goal, COLORS["float"]),
        ("a goal that was reached later", failure.path[later], COLORS["ours"]),
    )
    for axis, (title, goal, color) in zip(axes, shown, strict=True):
        near = np.linalg.norm(failure.path - goal, axis=1) <= failure.tolerance
        for (x0, y0), (x1, y1) in failure.walls:
            axis.plot([x0, x1], [y0, y1], color=COLORS["hard"], lw=3)
        axis.plot(*failure.path.T, color=COLORS["float"], lw=1, zorder=1)
        colors = np.where(near, COLORS["good"], COLORS["bad"])
        axis.scatter(*failure.path[1:].T, c=colors[1:], s=18, zorder=2)
        axis.scatter(*failure.path[0], marker="s", color=COLORS["hard"], zorder=3)
        axis.scatter(*goal, marker="*", s=160, color=color, zorder=3)
        circle = np.linspace(0, 2 * np.pi, 60)
        axis.plot(goal[0] + failure.tolerance * np.cos(circle), goal[1] + failure.tolerance * np.sin(circle),
                  color=color, lw=1)  # fmt: skip
        reached = int(near[1:].sum())
        steps = len(near) - 1
        axis.set(title=f"{title}\nreward -1 in {steps - reached} of {steps} steps", aspect="equal")
        axis.set(xlim=(-1, 1), ylim=(-1, 1), xticks=[], yticks=[])
    return figure


def relabel_figure(failure: Failure, t: int = 5, later: int = 12) -> go.Figure:
    """An episode, the present t, a later moment as goal, every reward under that goal, the probabilities of t'."""
    horizon = len(failure.path) - 1
    if not 0 <= t < horizon:
        raise InputError(f"t must lie between 0 and {horizon - 1}; got {t}.")
    if not t < later <= horizon:
        raise InputError(f"t' must lie between t + 1 = {t + 1} and {horizon}: hindsight looks at what came later.")
    goal = failure.path[later]
    near = np.linalg.norm(failure.path - goal, axis=1) <= failure.tolerance
    future = np.arange(horizon + 1) > t
    figure = make_subplots(1, 2, column_widths=[0.55, 0.45], subplot_titles=("the episode", "probability of t'"))
    for (x0, y0), (x1, y1) in failure.walls:
        figure.add_scatter(x=[x0, x1], y=[y0, y1], mode="lines", showlegend=False,
                           line={"color": COLORS["hard"], "width": 4}, row=1, col=1)  # fmt: skip
    figure.add_scatter(x=failure.path[:, 0], y=failure.path[:, 1], mode="lines", showlegend=False,
                       line={"color": COLORS["float"], "width": 1}, row=1, col=1)  # fmt: skip
    for some, size in ((~future, 5), (future, 9)):
        figure.add_scatter(
            x=failure.path[some, 0], y=failure.path[some, 1], mode="markers", showlegend=False,
            marker={"color": [COLORS["good"] if n else COLORS["bad"] for n in near[some]], "size": size},
            row=1, col=1,
        )  # fmt: skip
    stars = (("asked for", failure.goal, "float"), ("new goal", goal, "ours"), ("now", failure.path[t], "hard"))
    for name, point, color in stars:
        figure.add_scatter(
            x=[point[0]], y=[point[1]], mode="markers", name=name,
            marker={"color": COLORS[color], "size": 15, "symbol": "square" if name == "now" else "star"}, row=1, col=1,
        )  # fmt: skip
    moments = np.arange(1, horizon + 1)
    chance = np.where(moments > t, 1 / (horizon - t), 0)
    figure.add_bar(x=moments, y=chance, name="given t", marker_color=COLORS["ours"], row=1, col=2)
    law = future_law(horizon).numpy()
    left = horizon - t
    figure.add_scatter(x=t + moments[:left], y=law[:left], mode="lines", name="over all t, of t' - t",
                       line={"color": COLORS["float"], "dash": "dash"}, row=1, col=2)  # fmt: skip
    figure.update_xaxes(range=[-1, 1], row=1, col=1)
    figure.update_yaxes(range=[-1, 1], scaleanchor="x", row=1, col=1)
    figure.update_xaxes(title_text="later moment", range=[0, horizon + 1], row=1, col=2)
    reward, reached = "0" if near[t + 1] else "-1", int(near[1:].sum())
    return figure.update_layout(
        template="none", height=400, margin={"t": 70, "b": 90, "l": 40, "r": 10},
        legend={"orientation": "h", "y": -0.3, "yanchor": "top"},
        title={"text": f"t = {t}, goal from t' = {later}: reward {reward}; {reached} of {horizon} rewards are 0",
               "font": {"size": 14}},
    )  # fmt: skip


def relabel_widget(failure: Failure) -> widgets.VBox:
    """`relabel_figure` with both moments to choose."""
    horizon = len(failure.path) - 1

    def figure(t: int, later: int) -> go.Figure:
        return relabel_figure(failure, t, later)

    return explore(
        figure,
        t=widgets.IntSlider(5, min=0, max=horizon - 1, description="t"),
        later=widgets.IntSlider(12, min=1, max=horizon, description="t'"),
    )


# -- the density ------------------------------------------------------------------------------------------------------


def slope_figure() -> Figure:
    """log(1 - tanh(u)^2) in float32: the definition falls to minus infinity, the stable form does not."""
    figure, axis = subplots(figsize=(6, 3))
    u = torch.linspace(-12, 12, 2001)
    with np.errstate(divide="ignore"):
        naive = torch.log(1 - torch.tanh(u) ** 2)
    official = torch.log(1 - torch.tanh(u) ** 2 + 1e-6)
    axis.plot(u, log_tanh_slope(u), color=COLORS["ours"], lw=3, label="exact (exercise log-slope)")
    axis.plot(u, official, color=COLORS["baseline"], label="with 1e-6 added [official code]")
    axis.plot(
        u, naive, color=COLORS["bad"], ls="--", label=f"as written: -inf at {int(torch.isinf(naive).sum())} of 2,001"
    )
    axis.set(xlabel="u, before the tanh", ylabel="log(1 - tanh(u)^2)", ylim=(-24, 1))
    axis.legend(frameon=False, fontsize=8)
    return figure


def value_figure(values: LineValues) -> Figure:
    """Value against distance: the staircase of the optimal value, and the estimates of the learners."""
    figure, axis = subplots(figsize=(5.4, 3))
    axis.step(values.distance, values.optimal, color=COLORS["hard"], label="optimal", where="mid")
    colors = {"HER": COLORS["baseline"], "SHER": COLORS["ours"]}
    for name, learned in values.learned.items():
        error = float(np.abs(learned - values.optimal).mean())
        axis.plot(values.distance, learned, color=colors[name], label=f"{name}: off by {error:.2f} on average")
    axis.set(xlabel="distance from the goal", ylabel="value")
    axis.legend(frameon=False, fontsize=8)
    return figure


# -- the exact lab ----------------------------------------------------------------------------------------------------


@cache
def _grid() -> tuple[soft_tabular.Task, np.ndarray]:
    task, cells = soft_tabular.grid(GRID)
    return task, cells.numpy()


def _painted(values: np.ndarray) -> np.ndarray:
    """Numbers of the free cells as a picture; walls are NaN."""
    picture = np.full((len(GRID), len(GRID[0])), np.nan)
    cells = _grid()[1]
    picture[cells[:, 0], cells[:, 1]] = values
    return picture


def temperature_figure(alphas: Sequence[float] = (0.003, 0.1, 1.0), gamma: float = 0.95) -> Figure:
    """A maze solved exactly at three temperatures: values above, the policy's entropy below."""
    figure, axes = subplots(2, len(alphas), figsize=(2.5 * len(alphas), 4.4))
    task, _ = _grid()
    for column, alpha in enumerate(alphas):
        soft = soft_tabular.soft_values(task, alpha, gamma)
        for axis, values, name in zip(axes[:, column], (soft.v, soft.entropy), ("V", "entropy"), strict=True):
            top = {"V": None, "entropy": float(np.log(5))}[name]
            low = 0.0 if name == "entropy" else None
            picture = _painted(values.numpy())
            cells = axis.imshow(picture, cmap="viridis" if name == "V" else "magma", vmin=low, vmax=top)
            for (r, c), value in np.ndenumerate(picture):
                if not np.isnan(value):
                    ink = "white" if sum(cells.cmap(cells.norm(value))[:3]) < 1.5 else "black"
                    axis.text(c, r, f"{value:.1f}", ha="center", va="center", color=ink, fontsize=8)
            axis.set(title=f"{name}, α = {alpha:g}", xticks=[], yticks=[])
    return figure


def alpha_figure(log_alpha: float = -1.0, gamma: float = 0.95, clip: bool = False) -> go.Figure:
    """The same maze at any temperature: V, the entropy of pi, and what the inference view calls p(O = 1 | r)."""
    alpha = 10**log_alpha
    soft = soft_tabular.soft_values(_grid()[0], alpha, gamma, clip=clip, tolerance=1e-4)  # for the eye, and quick
    figure = make_subplots(1, 3, subplot_titles=("soft value V", "entropy of π", "p(O = 1) = exp(r / α)"))
    panels = ((soft.v, None, None, "Viridis"), (soft.entropy, 0, float(np.log(5)), "Magma"))
    for column, (values, low, top, colors) in enumerate(panels, 1):
        upside_down = _painted(values.numpy())[::-1].round(4).astype(object)
        upside_down[upside_down != upside_down] = None  # a message to the browser cannot hold NaN
        figure.add_heatmap(z=upside_down.tolist(), zmin=low, zmax=top, showscale=False,
                           colorscale=colors, texttemplate="%{z:.2f}", row=1, col=column)  # fmt: skip
    figure.add_bar(x=["r = -1", "r = 0"], y=[float(np.exp(-1 / alpha)), 1.0], showlegend=False,
                   marker_color=[COLORS["bad"], COLORS["good"]], row=1, col=3)  # fmt: skip
    figure.update_xaxes(visible=False, col=1)
    figure.update_xaxes(visible=False, col=2)
    figure.update_yaxes(visible=False, col=1)
    figure.update_yaxes(visible=False, col=2)
    top = float(soft.v.max())
    return figure.update_layout(
        template="none", height=320, margin={"t": 70, "b": 40, "l": 20, "r": 10},
        title={"text": f"α = {alpha:.3g}; V at the goal {top:+.2f}" + (", clipped" if clip else ""),
               "font": {"size": 14}},
    )  # fmt: skip


def alpha_widget() -> widgets.VBox:
    """`alpha_figure` with temperature, discount and the released code's clip."""
    return explore(
        alpha_figure,
        log_alpha=widgets.FloatSlider(-1.0, min=-3, max=1, step=0.1, description="log10 α"),
        gamma=widgets.FloatSlider(0.95, min=0.8, max=0.99, step=0.01, description="gamma"),
        clip=widgets.Checkbox(False, description="clip targets at 0"),
    )


def gap_figure(result: Result) -> Figure:
    """Soft minus hard values against the bound, and the goal's value with and without the clip at 0."""
    figure, (left, right) = subplots(1, 2, figsize=(8, 2.9))
    rows = result["exact"]["rows"]
    alphas = [float(a) for a in rows]
    left.loglog(alphas, [row["bound"] for row in rows.values()], color=COLORS["hard"], ls="--", label="bound")
    left.loglog(alphas, [max(row["gap"], 1e-12) for row in rows.values()], color=COLORS["ours"], marker="o",
                label="largest gap")  # fmt: skip
    left.set(xlabel="α", ylabel="V soft - V hard", title=f"bit flipping, {result['exact']['bits']} bits")
    right.semilogx(
        alphas, [row["at_goal"] for row in rows.values()], color=COLORS["ours"], marker="o", label="not clipped"
    )
    right.semilogx(alphas, [row["at_goal_clipped"] for row in rows.values()], color=COLORS["baseline"], marker="o",
                   label="clipped at 0 [official code]")  # fmt: skip
    right.set(xlabel="α", ylabel="V at the goal", title="the maze, its goal in a corner")
    for axis in (left, right):
        axis.legend(frameon=False, fontsize=8)
    return figure


# -- seeds ------------------------------------------------------------------------------------------------------------


def curves_figure(result: Result, experiment: str = "walls") -> Figure:
    """All seeds' success curves, thin; their mean, thick. One panel a layout and arm family."""
    arms, steps = result[experiment]["arms"], result[experiment]["steps"]
    layouts, names = list(next(iter(arms.values()))["curve"]), list(arms)
    figure, axes = subplots(len(layouts), len(names), figsize=(2.3 * len(names), 2.1 * len(layouts)), squeeze=False,
                            sharex=True, sharey=True)  # fmt: skip
    for row, layout in enumerate(layouts):
        for column, arm in enumerate(names):
            axis, curves = axes[row][column], np.array(arms[arm]["curve"][layout])
            axis.plot(steps, curves.T, color=_color(arm), lw=0.7, alpha=0.6)
            axis.plot(steps, curves.mean(0), color=_color(arm), lw=2.5)
            axis.set(ylim=(-0.03, 1.03))
            if row == 0:
                axis.set_title(arm)
            if column == 0:
                axis.set_ylabel(f"{layout}: success" if layout else "success")
            if row == len(layouts) - 1:
                axis.set_xlabel("environment steps")
    return figure


def pooled(results: Sequence[Result], experiment: str, arm: str) -> list[np.ndarray]:
    """Per layout, the final success of all seeds of all runs."""
    runs = [seeds for result in results if (seeds := strata(result, experiment, arm)) is not None]
    if not runs:
        raise InputError(f"none of these results has '{arm}' in '{experiment}'.")
    return [np.concatenate(parts) for parts in zip(*runs, strict=True)]


def iqm_interval(layouts: Sequence[np.ndarray], draws: int = 4000) -> Interval:
    """Interquartile mean of all seeds, resampled inside of each layout."""
    return bootstrap(layouts, lambda *layouts, axis: pooled_iqm(layouts), draws=draws)


def seeds_table(results: Sequence[Result], experiment: str = "walls") -> list[str]:
    """Markdown: arm, IQM with its bootstrap interval, spread, worst seed, seeds below a half."""
    arms = list(results[0][experiment]["arms"])
    lines = ["| arm | IQM of success | spread over seeds | worst | below .5 |", "|---|---|---|---|---|"]
    for arm in arms:
        seeds = pooled(results, experiment, arm)
        everyone, middle = np.concatenate(seeds), iqm_interval(seeds)
        spread = bootstrap(seeds, lambda *layouts, axis: mean_seed_deviation(layouts))
        lines.append(
            f"| {arm} | {middle.value:.2f} [{middle.low:.2f}, {middle.high:.2f}] | "
            f"{spread.value:.2f} [{spread.low:.2f}, {spread.high:.2f}] | {everyone.min():.2f} | "
            f"{int((everyone < 0.5).sum())} of {len(everyone)} |"
        )
    return lines


def differences_table(
    results: Sequence[Result], pairs: Sequence[tuple[str, str]], experiment: str = "walls"
) -> list[str]:
    """Markdown: differences of IQM and of spread between arms, with the ledger's intervals."""
    lines = ["| | IQM | spread over seeds |", "|---|---|---|"]
    for first, second in pairs:
        iqm, spread = (
            over_seeds(statistic, experiment, first, second)(results) for statistic in (pooled_iqm, mean_seed_deviation)
        )
        lines.append(f"| {first} - {second} | {iqm} | {spread} |")
    return lines


def cloud_figure(results: Sequence[Result], experiment: str = "walls", measure: str = "success") -> go.Figure:
    """Every seed a dot, per arm; the interquartile mean and its bootstrap interval beside them."""
    arms = [arm for arm, values in results[0][experiment]["arms"].items() if measure in values]
    if not arms:
        raise InputError(f"no arm of '{experiment}' has '{measure}'.")
    figure = go.Figure()
    jitter = np.random.default_rng(0)
    dots: dict[str, list[Any]] = {"x": [], "y": [], "color": []}
    middles = []
    for x, arm in enumerate(arms):
        runs = [result[experiment]["arms"][arm][measure].values() for result in results]
        seeds = [np.concatenate(parts) for parts in zip(*runs, strict=True)]
        everyone = np.concatenate(seeds)
        dots["x"] += list(x + jitter.uniform(-0.22, 0.12, len(everyone)))
        dots["y"] += list(everyone + jitter.uniform(-0.008, 0.008, len(everyone)))
        dots["color"] += [_color(arm)] * len(everyone)
        middles.append(iqm_interval(seeds, draws=500))
    figure.add_scatter(x=dots["x"], y=dots["y"], mode="markers", marker={"color": dots["color"], "size": 6},
                       opacity=0.5, name="seeds")  # fmt: skip
    figure.add_scatter(
        x=[x + 0.28 for x in range(len(arms))], y=[m.value for m in middles], mode="markers",
        name="IQM, 95 % interval", marker={"color": COLORS["hard"], "size": 10, "symbol": "diamond"},
        error_y={"type": "data", "symmetric": False, "array": [m.high - m.value for m in middles],
                 "arrayminus": [m.value - m.low for m in middles], "color": COLORS["hard"]},
    )  # fmt: skip
    return figure.update_layout(
        template="none", height=380, margin={"t": 50, "b": 70, "l": 50, "r": 10},
        xaxis={"tickvals": list(range(len(arms))), "ticktext": arms}, legend={"orientation": "h", "y": 1.12},
        yaxis={"title": {"text": "success at the last step"}, "range": [-0.05, 1.05]},
    )  # fmt: skip


def cloud_widget(sources: Mapping[str, tuple[Sequence[Result], str]]) -> widgets.VBox:
    """`cloud_figure` of several experiments: {name: (results, experiment)}; deterministic or official evaluation.

    Raises:
        InputError: there is nothing to show.
    """
    if not sources:
        raise InputError("no experiment was given.")

    def figure(source: str, measure: str) -> go.Figure:
        results, experiment = sources[source]
        return cloud_figure(results, experiment, measure)

    return explore(
        figure,
        source=widgets.Dropdown(options=list(sources), description="experiment"),
        measure=widgets.Dropdown(options=["success", "official"], description="evaluation"),
    )


def box_figure(results: Sequence[Result]) -> Figure:
    """Success at the eight corners of the hyper-parameter box: where the headline holds, and where it does not."""
    figure, axis = subplots(figsize=(7.5, 3.2))
    corners = [corner for corner in BOX if corner in results[0]]
    arms = list(results[0][corners[0]]["arms"])
    for offset, arm in zip(np.linspace(-0.25, 0.25, len(arms)), arms, strict=True):
        seeds = [np.concatenate(pooled(results, corner, arm)) for corner in corners]
        x = np.arange(len(corners)) + offset
        axis.bar(x, [s.mean() for s in seeds], width=0.22, color=_color(arm), label=arm)
        axis.scatter(np.repeat(x, [len(s) for s in seeds]), np.concatenate(seeds), s=4, color=COLORS["hard"])
    axis.set_xticks(range(len(corners)), [c.removeprefix("box-").replace("-", "\n", 2) for c in corners], fontsize=8)
    axis.set(ylabel="success", xlabel="learning rate, share kept by the target, batch size", ylim=(0, 1))
    axis.legend(frameon=False, fontsize=8, ncols=len(arms))
    return figure


def arms_figure(results: Sequence[Result], experiment: str) -> Figure:
    """Interquartile mean with its interval, and every seed, of all arms of an experiment."""
    arms = list(results[0][experiment]["arms"])
    figure, axis = subplots(figsize=(max(4.5, 1.0 * len(arms)), 2.9))
    for x, arm in enumerate(arms):
        seeds = pooled(results, experiment, arm)
        everyone, middle = np.concatenate(seeds), iqm_interval(seeds)
        axis.scatter(np.full(len(everyone), x) - 0.15, everyone, s=6, color=_color(arm), alpha=0.5)
        axis.errorbar(x + 0.15, middle.value, [[middle.value - middle.low], [middle.high - middle.value]],
                      fmt="D", color=COLORS["hard"], ms=5, capsize=3)  # fmt: skip
    axis.set_xticks(range(len(arms)), arms, rotation=25, ha="right", fontsize=8)
    axis.set(ylabel="success", ylim=(-0.03, 1.03))
    return figure


# -- what was learned -------------------------------------------------------------------------------------------------


def paths_figure(shown: Mapping[str, tuple[np.ndarray, np.ndarray]], layout: str, tolerance: float = 0.15) -> Figure:
    """Test episodes of several learners in the same world: {name: (paths, goals)}; green arrives, red does not."""
    figure, axes = subplots(1, len(shown), figsize=(2.9 * len(shown), 3.4), squeeze=False)
    for axis, (name, (paths, goals)) in zip(axes[0], shown.items(), strict=True):
        for (x0, y0), (x1, y1) in LAYOUTS[layout].walls:
            axis.plot([x0, x1], [y0, y1], color=COLORS["hard"], lw=3)
        arrived = np.linalg.norm(paths[:, -1] - goals, axis=1) <= tolerance
        for path, goal, good in zip(paths, goals, arrived, strict=True):
            color = COLORS["good"] if good else COLORS["bad"]
            axis.plot(*path.T, color=color, lw=0.8, alpha=0.7)
            axis.scatter(*goal, marker="*", color=color, s=30, zorder=3)
        axis.set(
            title=f"{name}: {arrived.mean():.2f}", xlim=(-1, 1), ylim=(-1, 1), aspect="equal", xticks=[], yticks=[]
        )
    return figure


SIDE = 31  # points per axis of the action square


@torch.no_grad()
def landscape(agent: Any, position: tuple[float, float], goal: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Q over the square of actions at one position, (SIDE, SIDE), rows along y; and actions of the policy, (n, 2)."""
    axis = torch.linspace(-1, 1, SIDE)
    actions = torch.cartesian_prod(axis, axis).flip(-1)[None]  # rows: y, columns: x
    here, there = (torch.tensor(point)[None, None].expand(1, len(actions[0]), 2) for point in (position, goal))
    x = agent.inputs(here, there)
    q = agent.q1 if hasattr(agent, "q1") else agent.q
    values = q(x, actions)[0].view(SIDE, SIDE).numpy()
    if hasattr(agent, "q1"):
        mean, log_std = agent.policy(x[:, :1].expand(-1, 120, -1))
        noise = torch.randn(1, 120, 2, generator=torch.Generator().manual_seed(0))
        chosen = tanh_gaussian(mean, log_std, noise)[0][0]
    else:
        chosen = agent.act(x[:, :1], None)[0]
    return values, chosen.numpy()


def landscape_figure(
    agents: Mapping[str, Any], layout: str, x: float = -0.3, y: float = -0.3, gx: float = 0.5, gy: float = -0.3
) -> go.Figure:
    """Left, position and goal; then Q over all actions for each learner, with actions of its policy (dots)."""
    figure = make_subplots(1, 1 + len(agents), subplot_titles=("position", *agents))
    for (x0, y0), (x1, y1) in LAYOUTS[layout].walls:
        figure.add_scatter(
            x=[x0, x1], y=[y0, y1], mode="lines", line={"color": COLORS["hard"], "width": 4}, row=1, col=1
        )
    figure.add_scatter(x=[x], y=[y], mode="markers", marker={"color": COLORS["ours"], "size": 12}, row=1, col=1)
    figure.add_scatter(x=[gx], y=[gy], mode="markers", row=1, col=1,
                       marker={"color": COLORS["hard"], "size": 15, "symbol": "star"})  # fmt: skip
    side = np.linspace(-1, 1, SIDE)
    for column, agent in enumerate(agents.values(), 2):
        values, chosen = landscape(agent, (x, y), (gx, gy))
        figure.add_heatmap(
            x=side, y=side, z=np.round(values, 3), showscale=False, colorscale="Viridis", row=1, col=column
        )
        figure.add_scatter(x=chosen[:, 0], y=chosen[:, 1], mode="markers", row=1, col=column,
                           marker={"color": "white", "size": 12 if len(chosen) == 1 else 5,
                                   "line": {"color": "black", "width": 1}})  # fmt: skip
    figure.update_xaxes(range=[-1.02, 1.02])
    figure.update_yaxes(range=[-1.02, 1.02])
    for column in range(2, 2 + len(agents)):
        figure.update_xaxes(title_text="action, horizontal", row=1, col=column)
    figure.update_yaxes(title_text="vertical", row=1, col=2)
    return figure.update_layout(
        template="none", height=340, showlegend=False, margin={"t": 50, "b": 50, "l": 40, "r": 10}
    )


def landscape_widget(agents: Mapping[str, Any], layout: str) -> widgets.VBox:
    """`landscape_figure` with sliders for position and goal."""

    def figure(x: float, y: float, gx: float, gy: float) -> go.Figure:
        return landscape_figure(agents, layout, x, y, gx, gy)

    starts = {"x": -0.3, "y": -0.3, "gx": 0.5, "gy": -0.3}
    names = {"x": "position x", "y": "position y", "gx": "goal x", "gy": "goal y"}
    sliders = {
        key: widgets.FloatSlider(value, min=-0.9, max=0.9, step=0.05, description=names[key])
        for key, value in starts.items()
    }
    return explore(figure, **sliders)


def film_figure(films: Mapping[str, Sequence[np.ndarray]], columns: int = 5) -> Figure:
    """Films as strips, one below the other: green frame, the goal is reached."""
    figure, axes = subplots(len(films), 1, figsize=(8, 1.35 * len(films)), squeeze=False)
    for axis, (name, frames) in zip(axes[:, 0], films.items(), strict=True):
        axis.imshow(film_strip(frames, columns))
        axis.set(xticks=[], yticks=[], ylabel=name)
        for spine in axis.spines.values():
            spine.set_visible(False)
    return figure
