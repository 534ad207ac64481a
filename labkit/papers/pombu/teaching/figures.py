"""The notebook's pictures. Pure: the same input gives the same arrays; tested without a browser."""

from collections.abc import Mapping, Sequence
from functools import cache
from textwrap import fill
from typing import Any

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from labkit.errors import InputError
from labkit.metrics.intervals import Interval, wilson
from labkit.papers.pombu.experiment.calibration import Calibration
from labkit.papers.pombu.experiment.config import parse_arm
from labkit.papers.pombu.experiment.zone import VARIATIONS, Zone
from labkit.papers.pombu.method import tabular
from labkit.papers.pombu.method.objective import conservative_loss
from labkit.papers.pombu.teaching.scenes import DATA_COMMAND, Maps
from labkit.viz import COLORS, explore, subplots


def color_of(arm: str) -> str:
    """alpha > 0 is ours, alpha = 0 the reference, the controls are rivals: the same colours in all notebooks."""
    kind, alpha = parse_arm(arm)
    if kind != "alpha":
        return COLORS["baseline"] if kind == "shuffled" else COLORS["straw"]
    return COLORS["ours"] if alpha else COLORS["float"]


def label_of(arm: str) -> str:
    kind, alpha = parse_arm(arm)
    return f"α = {alpha:g}" + {"alpha": "", "shuffled": ", √U shuffled", "constant": ", mean √U"}[kind]


def grid(step: float = 0.15, half: float = 1.35) -> Float[Tensor, "n 2"]:
    """Places on which the maps are drawn."""
    axis = torch.arange(-half, half + 1e-6, step)
    return torch.cartesian_prod(axis, axis)


# -- 1 the idea in one picture ----------------------------------------------------------------------------------------


def world(axis: Any, task: Zone) -> Any:
    """The steering angle as a background."""
    side = torch.linspace(-1.4, 1.4, 141)
    angle = task.angle(torch.cartesian_prod(side, side)).view(141, 141).T
    image = axis.contourf(side.numpy(), side.numpy(), angle.numpy(), levels=6, cmap="Purples", vmin=0, vmax=6)
    axis.scatter(0, 0, marker="*", s=90, color=COLORS["hard"], zorder=5)
    axis.set(xlabel="x", ylabel="y", xlim=(-1.4, 1.4), ylim=(-1.4, 1.4))
    return image


def idea_figure(study: Mapping[str, Any]) -> Figure:
    """Same first policy, data and models: the mean gain that the models predict and the real one, in two ways."""
    figure, axes = subplots(1, 2, figsize=(7.5, 3.4), sharey=True)
    words = {"alpha-0": "without caution (α = 0)", "alpha-2": "with caution (α = 2)"}
    for axis, (arm, title) in zip(axes, words.items(), strict=True):
        gains = [float(np.mean(study["arms"][arm][key])) for key in ("claimed", "real")]
        colors = (COLORS["straw"], COLORS["good"] if gains[1] > 0 else COLORS["bad"])
        bars = axis.bar(("predicted\nby the models", "in the\nreal world"), gains, 0.55, color=colors)
        axis.bar_label(bars, [f"{gain:+.2f}" for gain in gains], padding=3)
        axis.axhline(0, color=COLORS["hard"], lw=0.8)
        axis.set_title(title)
    axes[0].set_ylabel("mean gain of return")
    axes[0].margins(y=0.15)
    return figure


# -- 5 prove it -------------------------------------------------------------------------------------------------------


@cache
def bars_of(horizon: int, data: float, gamma: float, shared: bool) -> dict[str, np.ndarray]:
    """True variance and the two bounds at the first step, one number per (s, a)."""
    posterior = tabular.random_posterior(seed=0, horizon=1 if shared else horizon, gamma=gamma, data=data)
    if shared:
        posterior = tabular.stationary(posterior, horizon)
    models = tabular.sample(posterior, 1000, np.random.default_rng(0))
    exact = models.q.var(0) if shared else tabular.exact_variance(posterior)[0]
    q_max = float(np.abs(models.q).max())
    tight = tabular.propagate(tabular.local_uncertainty(posterior), posterior)
    loose = tabular.propagate(tabular.loose_local_uncertainty(posterior, q_max), posterior)
    return {name: bars[0].reshape(-1) for name, bars in (("true", exact), ("tight", tight), ("loose", loose))}


BARS = (
    ("true", "true variance", "hard"),
    ("tight", "the paper's bound", "ours"),
    ("loose", "the earlier bound", "baseline"),
)


def bounds_figure() -> Figure:
    """Variance of Q and its bounds at the first step: where no state comes back, and where all do."""
    figure, axes = subplots(1, 2, figsize=(9, 3), sharey=True)
    titles = ("a model for every step: a bound", "one model for all 40 steps: not a bound")
    for axis, title, horizon, shared in zip(axes, titles, (5, 40), (False, True), strict=True):
        values = bars_of(horizon, 1.0, 0.95, shared)
        places = np.arange(8)
        for number, (name, label, color) in enumerate(BARS):
            axis.bar(places + 0.27 * (number - 1), values[name], 0.25, color=COLORS[color], label=label)
        axis.set(yscale="log", title=title, xlabel="state and action")
        axis.set_xticks(places, [f"{s}{'ab'[a]}" for s in range(4) for a in range(2)])
    axes[0].set_ylabel("variance of Q at the first step")
    axes[0].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, 0.9))
    return figure


# -- 6 train and compare ----------------------------------------------------------------------------------------------

ROWS = {
    "fake-0.01": "truth + fresh noise",
    "fake-0.03": "truth + more noise",
    "point-4": "point, 4 episodes",
    "point-16": "point, 16 episodes",
    "point-64": "point, 64 episodes",
    "zone-8": "Zone, 8 episodes",
    "zone-32": "Zone, 32 episodes",
}


def calibration_figure(rows: Mapping[str, Calibration]) -> Figure:
    """Above: error of Q against sqrt(U), with the lines of one and two sigmas. Below: how often the error is within
    c sigmas, for sqrt(U) and for members that are followed to the end; a normal law for comparison."""
    from scipy import stats

    figure, axes = subplots(2, len(rows), figsize=(2.6 * len(rows), 5), squeeze=False)
    times = np.linspace(0, 4, 81)
    for (name, values), upper, lower in zip(rows.items(), *axes, strict=True):
        predicted, error = values.predicted.flatten().numpy(), values.error.flatten().numpy()
        upper.scatter(predicted[::3], error[::3], s=4, color=COLORS["ours"])  # a third of them, for legibility
        reach = np.array([0, predicted.max()])
        for c in (-2, -1, 1, 2):
            upper.plot(reach, c * reach, color=COLORS["float"], lw=0.8, ls="-" if abs(c) == 1 else "--")
        upper.set(title=ROWS[name], xlabel="√U")
        shares = [(values.predicted, values.error, "ours", "√U")]
        if values.persistent is not None and values.persistent_error is not None:
            shares.append((values.persistent, values.persistent_error, "baseline", "followed to the end"))
        for sigma, off, color, label in shares:
            ratio = (off.abs() / sigma.clamp_min(1e-9)).flatten().numpy()
            lower.plot(times, (ratio[:, None] <= times).mean(0), color=COLORS[color], label=label)
        lower.plot(times, 2 * stats.norm.cdf(times) - 1, color=COLORS["hard"], lw=1, ls=":", label="normal law")
        lower.set(xlabel="c, sigmas", ylim=(0, 1.02))
    axes[0, 0].set_ylabel("Q in the models − true Q")
    axes[1, 0].set_ylabel("share of |error| ≤ c sigmas")
    axes[1, -1].legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def calibration_table(study: Mapping[str, Any]) -> str:
    """The numbers of the calibration study, in lines of at most 80 columns."""
    lines = [f"{'':41} {'rank':>6} {'within':>7} {'within':>7} {'sd of':>8}",
             f"{'':41} {'corr.':>6} {'1 sigma':>7} {'2 sigma':>7} {'err./sig':>8}"]  # fmt: skip
    for name, measures in study.items():
        for key, label in (("sqrt_u", "√U"), ("persistent", "followed to the end")):
            if key in measures:
                row = measures[key]
                ranks, (one, two, _) = float(np.mean(row["spearman"])), row["coverage"]
                lines.append(
                    f"{ROWS[name] + ', ' + label:41} {ranks:6.2f} {one:7.2f} {two:7.2f} {row['deviation']:8.1f}"
                )
    return "\n".join(lines)


def promise_figure(study: Mapping[str, Any], arms: Sequence[str] = ("alpha-0", "alpha-2", "shuffled-2")) -> Figure:
    """Claimed against real gain, a dot a seed; and the share of seeds that really improve, with Wilson's interval."""
    figure, (left, right) = subplots(1, 2, figsize=(9, 3.6))
    values = study["arms"]
    shown = [arm for arm in arms if arm in values]
    high = max(max(values[arm]["claimed"]) for arm in shown) + 0.3
    left.plot([0, high], [0, high], color=COLORS["hard"], lw=1, ls="--")
    left.axhline(0, color=COLORS["float"], lw=0.8)
    for arm in shown:
        left.scatter(values[arm]["claimed"], values[arm]["real"], color=color_of(arm), label=label_of(arm), s=22)
    left.set(xlabel="gain of return that the models predict", ylabel="real gain of return")
    left.legend(frameon=False, fontsize=8)
    _shares(right, values)
    right.set_xlabel("share of seeds that improve")
    return figure


def _reach(share: Interval) -> list[list[float]]:
    """Lengths of an error bar; rounding must not make one negative where none or all improve."""
    return [[max(0.0, share.value - share.low)], [max(0.0, share.high - share.value)]]


def improvement_share(gains: Sequence[float]) -> Interval:
    """P(improve) with Wilson's interval."""
    return wilson(sum(gain > 0 for gain in gains), len(gains))


def _shares(axis: Any, arms: Mapping[str, Any]) -> None:
    rows = np.arange(len(arms))[::-1]
    for row, (arm, values) in zip(rows, arms.items(), strict=True):
        share = improvement_share(values["real"])
        axis.errorbar(share.value, row, xerr=_reach(share), marker="s", color=color_of(arm), capsize=3)
    axis.set_yticks(rows, [label_of(arm) for arm in arms], fontsize=8)
    axis.set(xlim=(-0.02, 1.02))
    axis.grid(axis="x", alpha=0.3)


def learning_figure(study: Mapping[str, Any]) -> Figure:
    """Mean gains over the updates: what the models claim (dashed), what is real."""
    figure, (left, right) = subplots(1, 2, figsize=(9, 3.2))
    for arm, values in study["arms"].items():
        shade = _shade(arm)
        left.plot(values["real_curve"], color=color_of(arm), alpha=shade, label=label_of(arm))
        left.plot(values["claimed_curve"], color=color_of(arm), alpha=shade, ls="--", lw=0.8)
        right.plot([0, 1], [values["left"], values["right"]], marker="o", color=color_of(arm), alpha=shade)
    left.axhline(0, color=COLORS["hard"], lw=0.8)
    left.set(xlabel="policy updates, no new data", ylabel="mean gain of return", title="predicted (dashed) and real")
    left.legend(frameon=False, fontsize=7, ncols=2)
    right.axhline(0, color=COLORS["hard"], lw=0.8)
    right.set_xticks([0, 1], ["starts on the left\n(1 episode recorded)", "starts on the right\n(7 episodes recorded)"])
    right.set(ylabel="real gain at the end", title="by start", xlim=(-0.3, 1.3))
    return figure


def maps_figure(maps: Maps) -> Figure:
    """What the models believe a step to the right does, against the truth; and sqrt(U) with the data that were seen."""
    figure, (left, right) = subplots(1, 2, figsize=(9, 3.8))
    places = grid(0.27)
    truth = maps.task.step(places, torch.tensor([1.0, 0.0]).expand_as(places)) - places
    believed = maps.turn(places)
    world(left, maps.task)
    x, y = places.T.numpy()
    left.quiver(x, y, *truth.T.numpy(), color=COLORS["hard"], width=0.004, scale=2.2, label="truth")
    for member in range(believed.shape[1]):
        u, v = believed[:, member].T.numpy()
        left.quiver(x, y, u, v, color=COLORS["ours"], width=0.002, scale=2.2)
    left.set_title("a step to the right: truth and five models")
    fine = grid(0.135)
    side = round(len(fine) ** 0.5)
    shown = right.imshow(maps.sqrt_u(fine).view(side, side).T.numpy(), origin="lower", cmap="magma_r",
                         extent=(-1.4, 1.4, -1.4, 1.4))  # fmt: skip
    right.scatter(*maps.data.T.numpy(), s=4, color=COLORS["hard"])
    right.set(title="√U of the first policy; dots: data", xlabel="x", ylabel="y",
              xlim=(-1.4, 1.4), ylim=(-1.4, 1.4))  # fmt: skip
    figure.colorbar(shown, ax=right, shrink=0.8)
    return figure


def variations_figure(studies: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Left: P(improve) per arm when noise comes or the data change. Right: rewards in another unit, real gain."""
    figure, (left, right) = subplots(1, 2, figsize=(9, 3.6), width_ratios=[1.3, 1])
    plain = [name for name in studies if "reward" not in name]
    for number, name in enumerate(plain):
        arms = studies[name]["arms"]
        shown = [arm for arm in ("alpha-0", "alpha-1", "alpha-2", "shuffled-2") if arm in arms]
        for slot, arm in enumerate(shown):
            share = improvement_share(arms[arm]["real"])
            x = number + 0.18 * (slot - 1.5)
            left.errorbar(x, share.value, _reach(share), marker="o", ms=4,
                          color=color_of(arm), alpha=0.5 if arm == "alpha-1" else 1, capsize=2,
                          label=label_of(arm) if number == 0 else None)  # fmt: skip
    left.set_xticks(range(len(plain)), [fill(VARIATIONS[name].title, 13) for name in plain], fontsize=7)
    left.set(ylabel="share of seeds that improve", ylim=(-0.02, 1.02))
    left.legend(frameon=False, fontsize=7, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    scaled = [name for name in studies if "reward" in name]
    for row, name in enumerate(scaled):
        unit = VARIATIONS[name].task["unit"]
        for arm in ("alpha-0", "alpha-2"):
            gains = np.array(studies[name]["arms"][arm]["real"]) / unit
            right.scatter(gains, np.full(len(gains), row), s=8, color=color_of(arm), alpha=0.5)
            right.scatter(gains.mean(), row, marker="|", s=220, color=color_of(arm))
    right.set_visible(bool(scaled))
    right.axvline(0, color=COLORS["hard"], lw=0.8)
    right.set_yticks(range(len(scaled)), [VARIATIONS[name].title.replace(", ", ",\n") for name in scaled], fontsize=7)
    right.set(xlabel="real gain in the old unit; bar: mean")
    return figure


RIVALS = {"pombu-scaled": "good", "meppo": "float", "me-trpo": "straw", "mbpo": "baseline", "ppo": "hard", "sac": "bad"}


def returns_figure(result: Mapping[str, Any], environments: Sequence[str]) -> Figure:
    """Learning curves of the loop and its rivals: thin lines are seeds, thick ones their mean."""
    figure, axes = subplots(1, len(environments), figsize=(max(4.5, 3.2 * len(environments)), 3), squeeze=False)
    for axis, environment in zip(axes[0], environments, strict=True):
        for algorithm, values in result[environment].items():
            curves, color = np.array(values["stochastic_return"]), COLORS[RIVALS.get(algorithm, "ours")]
            axis.plot(values["steps"], curves.T, color=color, lw=0.6, alpha=0.5)
            axis.plot(values["steps"], curves.mean(0), color=color, label=algorithm)
        axis.set(title=environment, xlabel="real steps", ylabel="return")
        axis.legend(frameon=False, fontsize=8)
    return figure


# -- 7 explore --------------------------------------------------------------------------------------------------------


def bounds_explorer(horizon: int = 5, data: float = 1.0, gamma: float = 0.95, shared: bool = False) -> go.Figure:
    """True variance and bounds at the first step; `shared`: one model for all steps, so that states come back."""
    values = bars_of(int(horizon), float(data), float(gamma), bool(shared))
    names = [f"state {s}, action {'ab'[a]}" for s in range(4) for a in range(2)]
    figure = go.Figure([go.Bar(x=names, y=values[n], name=label, marker_color=COLORS[c]) for n, label, c in BARS])
    ratio = values["tight"] / values["true"]
    return figure.update_layout(
        template="none", height=340, margin={"t": 50, "b": 60, "l": 60, "r": 10}, barmode="group",
        yaxis={"type": "log", "title": {"text": "variance of Q"}, "exponentformat": "power"},
        title={"text": f"bound over truth: {ratio.min():.2f} to {ratio.max():.2f}", "font": {"size": 14}},
    )  # fmt: skip


def bounds_widget() -> widgets.VBox:
    """`bounds_explorer` with handles."""
    return explore(
        bounds_explorer,
        horizon=widgets.IntSlider(5, min=1, max=40, description="horizon"),
        data=widgets.SelectionSlider(value=1.0, options=[0.3, 1.0, 3.0, 10.0, 100.0], description="data"),
        gamma=widgets.FloatSlider(0.95, min=0.5, max=1.0, step=0.05, description="gamma"),
        shared=widgets.Checkbox(False, description="one model for all steps: cyclic", layout={"width": "380px"}),
    )


def loss_explorer(advantage: float = 1.0, sqrt_u: float = 0.3, alpha: float = 2.0, clip: float = 0.2) -> go.Figure:
    """Objective (5) for one sample: the gain, the penalty, their sum, and the best change of probability."""
    if alpha < 0 or sqrt_u < 0 or not 0 < clip < 1:
        raise InputError(f"choose alpha and sqrt(U) of at least 0 and 0 < clip < 1; got {alpha}, {sqrt_u} and {clip}.")
    delta = torch.arange(-100, 101)[:, None] / 200
    filled, none = torch.full_like(delta, advantage), torch.zeros_like(delta)
    gain = conservative_loss(delta, filled, none, 0.0, clip)
    loss = conservative_loss(delta, filled, torch.full_like(delta, sqrt_u), alpha, clip)
    best = float(delta[(loss <= loss.min() + 1e-6).nonzero()[:, 0]][:, 0].abs().min()) * (1 if advantage >= 0 else -1)
    x, figure = delta[:, 0].numpy(), go.Figure()
    figure.add_scatter(x=x, y=gain.numpy(), name="− clipped gain", line_color=COLORS["float"])
    figure.add_scatter(x=x, y=(loss - gain).numpy(), name="α |δ| √U", line_color=COLORS["bad"])
    figure.add_scatter(x=x, y=loss.numpy(), name="loss", line={"color": COLORS["ours"], "width": 3})
    figure.add_scatter(x=[best], y=[float(loss.min())], mode="markers", name="best δ",
                       marker={"color": COLORS["hard"], "size": 11})  # fmt: skip
    word = "stay" if abs(advantage) <= alpha * sqrt_u else "move"
    return figure.update_layout(
        template="none", height=340, margin={"t": 50, "b": 45, "l": 55, "r": 10},
        xaxis_title="δ", yaxis={"title": {"text": "loss"}, "range": [-0.8, 1.2]},
        title={"text": f"|A| = {abs(advantage):.2f}, α √U = {alpha * sqrt_u:.2f}: {word}", "font": {"size": 14}},
    )  # fmt: skip


def loss_widget() -> widgets.VBox:
    """`loss_explorer` with handles."""
    return explore(
        loss_explorer,
        advantage=widgets.FloatSlider(1.0, min=-2, max=2, step=0.1, description="A"),
        sqrt_u=widgets.FloatSlider(0.3, min=0, max=2, step=0.05, description="√U"),
        alpha=widgets.FloatSlider(2.0, min=0, max=4, step=0.25, description="α"),
        clip=widgets.FloatSlider(0.2, min=0.05, max=0.45, step=0.05, description="clip"),
    )


CAUTION = ("alpha-0", "alpha-0.5", "alpha-1", "alpha-2", "alpha-4", "shuffled-2")  # arms at every amount of data
Amounts = Mapping[int, Mapping[str, Any]]  # Zone studies by the episodes that start on the left


def data_figure(studies: Amounts) -> Figure:
    """Against the episodes recorded on the left: P(improve) with Wilson's interval, and the mean real gain."""
    figure, (left, right) = subplots(1, 2, figsize=(9, 3.5))
    amounts = sorted(studies)
    for number, arm in enumerate(CAUTION):
        there = [n for n in amounts if arm in studies[n]["arms"]]
        gains = [studies[n]["arms"][arm]["real"] for n in there]
        look = {"color": color_of(arm), "alpha": _shade(arm), "label": label_of(arm), "marker": "o", "ms": 4}
        right.plot(there, [np.mean(g) for g in gains], **look)
        if arm in ("alpha-1", "alpha-4"):  # like alpha = 2 here: the widget shows them
            continue
        shares = [improvement_share(g) for g in gains]
        reach = np.concatenate([_reach(share) for share in shares], axis=1)
        beside = np.array(there) * 1.05 ** (number - 3)  # side by side, not one upon the other
        left.errorbar(beside, [share.value for share in shares], reach, capsize=2, **look)
    for axis, words in ((left, "share of seeds that improve"), (right, "mean real gain of return")):
        axis.set(xscale="log", xlabel="episodes on the left (7 on the right)", ylabel=words)
        axis.set_xticks(amounts, [str(n) for n in amounts])
        axis.minorticks_off()
    left.set_ylim(-0.02, 1.04)
    right.axhline(0, color=COLORS["hard"], lw=0.8)
    right.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def _shade(arm: str) -> float:
    """More caution, darker; the reference and the controls are never pale."""
    kind, alpha = parse_arm(arm)
    return 0.35 + 0.65 * min(1.0, alpha / 4) if kind == "alpha" and alpha else 1.0


def data_explorer(studies: Amounts, left: int = 1) -> go.Figure:
    """P(improve) against alpha with Wilson's interval, for one amount of data on the left; grey: the least amount.

    Raises:
        InputError: an amount that was not recorded.
    """
    if left not in studies:
        known = ", ".join(str(n) for n in sorted(studies))
        raise InputError(f"there are records for {known or 'no'} episodes on the left; got {left}.")
    figure, least = go.Figure(), min(studies)
    plain, shuffled = CAUTION[:-1], CAUTION[-1:]
    _share_trace(figure, studies[least], plain, f"with {least} on the left", COLORS["float"], -0.08)
    _share_trace(figure, studies[left], plain, "√U unchanged", COLORS["ours"])
    _share_trace(figure, studies[left], shuffled, "√U shuffled", COLORS["baseline"], 0.12)
    now = {arm: values["real"] for arm, values in studies[left]["arms"].items()}
    counts = [f"{label_of(arm)}: {sum(g > 0 for g in now[arm])} of {len(now[arm])}, {np.mean(now[arm]):+.2f}"
              for arm in ("alpha-0", "alpha-2") if arm in now]  # fmt: skip
    return figure.update_layout(
        template="none", height=360, margin={"t": 50, "b": 45, "l": 55, "r": 10},
        xaxis={"title": {"text": "α"}, "tickvals": list(range(len(plain))), "range": [-0.3, len(plain) - 0.7],
               "ticktext": [f"{parse_arm(arm)[1]:g}" for arm in plain], "zeroline": False},
        yaxis={"title": {"text": "share of seeds that improve"}, "range": [-0.03, 1.05]},
        title={"text": f"episodes on the left: {left} · " + " · ".join(counts) + " (mean gain)", "font": {"size": 13}},
    )  # fmt: skip


def _share_trace(
    figure: go.Figure, study: Mapping[str, Any], arms: Sequence[str], name: str, color: str, beside: float = 0.0
) -> None:
    """One dot an arm, at the place of its alpha among those of `CAUTION`, `beside` it a little."""
    places = {parse_arm(arm)[1]: number for number, arm in enumerate(CAUTION[:-1])}
    there = [arm for arm in arms if arm in study["arms"]]
    shares = [improvement_share(study["arms"][arm]["real"]) for arm in there]
    above, below = ([_reach(share)[side][0] for share in shares] for side in (1, 0))
    figure.add_scatter(
        x=[places[parse_arm(arm)[1]] + beside for arm in there], y=[share.value for share in shares], name=name,
        mode="markers" if len(arms) == 1 else "lines+markers", line_color=color, marker={"size": 9, "color": color},
        error_y={"type": "data", "symmetric": False, "array": above, "arrayminus": below, "color": color},
    )  # fmt: skip


def data_widget(studies: Amounts) -> widgets.VBox:
    """`data_explorer` with a handle; without a record, how to make one."""
    if not studies:
        return widgets.VBox([widgets.HTML(f"There is no record of these studies here. <code>{DATA_COMMAND}</code>")])
    return explore(
        lambda left: data_explorer(studies, left),
        left=widgets.SelectionSlider(options=sorted(studies), value=min(studies), description="left data"),
    )


def change_explorer(maps: Maps, arm: str = "alpha-0", updates: int = 30) -> go.Figure:
    """How the policy's steps moved since the start, in the real world: arrows from the old end of a step to the new."""
    if arm not in maps.arms or updates not in maps.updates:
        raise InputError(f"there are arms {', '.join(maps.arms)} and updates {maps.updates}; got {arm} and {updates}.")
    places = grid(0.15)
    before, after = (maps.task.step(places, maps.actions(places, arm, u)) for u in (0, updates))
    closer = before.norm(dim=-1) - after.norm(dim=-1)
    figure = go.Figure()
    for sign, color, name in ((1, "good", "nearer to the goal"), (-1, "bad", "farther from it")):
        chosen = sign * closer > 0
        ends = torch.stack([before[chosen], before[chosen] + 3 * (after - before)[chosen]], 1)
        lines = torch.cat([ends, torch.full_like(ends[:, :1], float("nan"))], 1).flatten(0, 1).numpy()
        figure.add_scatter(x=lines[:, 0], y=lines[:, 1], mode="lines", name=name, line_color=COLORS[color])
    data = maps.data.numpy()
    figure.add_scatter(x=data[:, 0], y=data[:, 1], mode="markers", name="data",
                       marker={"size": 3, "color": COLORS["hard"]})  # fmt: skip
    halves = [
        float(closer[side].mean()) for side in (places[:, 0] < maps.task.border, places[:, 0] >= maps.task.border)
    ]
    return figure.update_layout(
        template="none", height=460, width=560, margin={"t": 50, "b": 45, "l": 55, "r": 10},
        xaxis={"range": [-1.5, 1.5], "title": {"text": "x"}}, yaxis={"range": [-1.5, 1.5], "title": {"text": "y"}},
        title={"text": f"{label_of(arm)}, {updates} updates: nearer by {1000 * halves[0]:+.1f} (left), "
               f"{1000 * halves[1]:+.1f} (right) thousandths a step", "font": {"size": 13}},
    )  # fmt: skip


def change_widget(maps: Maps) -> widgets.VBox:
    """`change_explorer` with handles."""
    return explore(
        lambda arm, updates: change_explorer(maps, arm, updates),
        arm=widgets.Dropdown(options=[(label_of(arm), arm) for arm in maps.arms], description="arm"),
        updates=widgets.SelectionSlider(options=maps.updates, value=maps.updates[-1], description="updates"),
    )


def changes_figure(maps: Maps, arms: Sequence[str]) -> Figure:
    """The same for some arms side by side, at the end."""
    shown = [arm for arm in arms if arm in maps.arms]
    figure, axes = subplots(1, len(shown), figsize=(3.1 * len(shown), 3.2), squeeze=False)
    places = grid(0.2)
    for axis, arm in zip(axes[0], shown, strict=True):
        before, after = (maps.task.step(places, maps.actions(places, arm, u)) for u in (0, maps.updates[-1]))
        closer = before.norm(dim=-1) - after.norm(dim=-1)
        move = (after - before).numpy()
        colors = [COLORS["good"] if c > 0 else COLORS["bad"] for c in closer]
        axis.axvspan(-1.4, maps.task.border, color=COLORS["straw"], alpha=0.35, lw=0)
        axis.quiver(*before.T.numpy(), *move.T, color=colors, angles="xy", scale_units="xy", scale=0.33, width=0.004)
        axis.scatter(0, 0, marker="*", s=60, color=COLORS["hard"])
        axis.set(title=label_of(arm), xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), xlabel="x")
    return figure
