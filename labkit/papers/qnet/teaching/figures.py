"""The notebook's pictures. Pure: the same input gives the same arrays; tested without a browser."""

from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from plotly.subplots import make_subplots
from torch import Tensor

from labkit.papers.qnet.experiment.diagnostics import GradientAgreement, slope
from labkit.papers.qnet.method.levels import LEVELS
from labkit.papers.qnet.method.soft_quantizer import SoftQuantizer, hard_quantize
from labkit.viz import COLORS, explore, subplots

GRID = torch.linspace(-1.6, 1.6, 801)  # stored weight, in units of the largest level


def quantizer_at(levels: str, thresholds: Sequence[float] | None, temperature: float) -> SoftQuantizer:
    """A quantiser in the figures' units: beta = 1, thresholds midway between levels unless given."""
    values = torch.tensor(LEVELS[levels])
    middle = (values[1:] + values[:-1]) / 2
    quantizer = SoftQuantizer(LEVELS[levels], middle if thresholds is None else torch.tensor(sorted(thresholds)))
    quantizer.temperature.fill_(temperature)
    return quantizer


def example_weights(count: int = 4000) -> Float[Tensor, " count"]:
    """Weights as a trained layer has them, near a normal distribution; scaled so that they span the levels of W2."""
    return torch.randn(count, generator=torch.Generator().manual_seed(0)) * 0.55


# -- 1 the idea in one picture ----------------------------------------------------------------------------------------


def idea_figure() -> Figure:
    """The same weights at a low and at a high temperature: the function they pass through, and which of them learn."""
    figure, panels = subplots(1, 2, figsize=(9, 3.4), sharey=True)
    weights, edges = example_weights(), np.linspace(-1.6, 1.6, 65)
    for axes, temperature, when in zip(panels, (3.0, 60.0), ("early in training", "at the end"), strict=True):
        quantizer = quantizer_at("W2", None, temperature)
        bell = slope(quantizer, weights)
        learning = bell > 0.01 * float(slope(quantizer, GRID).max())
        counts = axes.twinx()
        stacks = [weights[learning].numpy(), weights[~learning].numpy()]
        colors = [COLORS["good"], COLORS["float"]]
        _, _, bars = counts.hist(stacks, edges, stacked=True, alpha=0.4, color=colors)
        counts.set(yticks=[], ylim=(0, 420))
        counts.spines["right"].set_visible(False)
        with torch.no_grad():
            (soft,) = axes.plot(GRID, quantizer(GRID), color=COLORS["ours"], lw=2)
        hard = hard_quantize(GRID, quantizer.levels, quantizer.thresholds, quantizer.alpha, quantizer.beta).detach()
        (steps,) = axes.plot(GRID, hard, color=COLORS["hard"], lw=1, ls="--")
        axes.set(title=f"{when}: T = {temperature:.0f}", xlabel="stored weight / largest level")
    panels[0].set(ylabel="weight the network uses", ylim=(-1.2, 1.2))
    names = ["value used in training", "value used when deployed", "weights that still learn", "frozen weights"]
    figure.legend([soft, steps, *bars], names, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


# -- 7 explore: staircase, slope, histogram ---------------------------------------------------------------------------


def staircase_figure(
    levels: str = "W2", log10_temperature: float = 1.0, shift: float = 0.0, weights: Tensor | None = None
) -> go.Figure:
    """Three panels: the staircase, its slope, and the weights; those that get over 1 % of the peak slope in colour.

    Args:
        levels: name of a weight level set.
        shift: moves the outer thresholds towards zero (negative) or away from it, in units of the largest level.
        weights: stored weights in units of the largest level; None: an example.
    """
    values = torch.tensor(LEVELS[levels])
    middle = (values[1:] + values[:-1]) / 2
    temperature, top = 10**log10_temperature, float(values.max())
    quantizer = quantizer_at(levels, (middle + shift * top * middle.sign()).tolist(), temperature / top)
    stored = (example_weights() if weights is None else weights) * top
    grid = GRID * top
    bell = slope(quantizer, stored)
    learning = bell > 0.01 * float(slope(quantizer, grid).max())
    edges = np.linspace(-1.6, 1.6, 65)
    counts = [np.histogram((stored[part] / top).numpy(), edges)[0] for part in (learning, ~learning)]
    centres = (edges[1:] + edges[:-1]) / 2

    figure = make_subplots(1, 3, subplot_titles=("weight used", "slope", "stored weights"), horizontal_spacing=0.07)
    with torch.no_grad():
        line = {"color": COLORS["ours"]}
        figure.add_scatter(x=GRID.numpy(), y=quantizer(grid).numpy(), line=line, name="soft", row=1, col=1)
        hard = hard_quantize(grid, quantizer.levels, quantizer.thresholds, quantizer.alpha, quantizer.beta)
        dashes = {"color": COLORS["hard"], "dash": "dot"}
        figure.add_scatter(x=GRID.numpy(), y=hard.numpy(), line=dashes, name="deployed", row=1, col=1)
        figure.add_scatter(x=GRID.numpy(), y=slope(quantizer, grid).numpy(), line=line, showlegend=False, row=1, col=2)
    figure.add_bar(x=centres, y=counts[0], marker_color=COLORS["good"], name="still learning", row=1, col=3)
    figure.add_bar(x=centres, y=counts[1], marker_color=COLORS["float"], name="frozen", row=1, col=3)
    share = 100 * float(learning.float().mean())
    figure.update_xaxes(title_text="stored weight / largest level")
    return figure.update_layout(
        template="none", barmode="stack", height=340, margin={"t": 60, "b": 50, "l": 50, "r": 10},
        title={"text": f"T = {temperature:.3g}: {share:.0f} % of the weights still learn", "font": {"size": 14}},
    )  # fmt: skip


def staircase_widget() -> widgets.VBox:
    """`staircase_figure` with sliders: temperature, outer thresholds, level set."""
    return explore(
        staircase_figure,
        levels=widgets.Dropdown(options=["W1", "W2", "W3pm2", "W3pm4"], value="W2", description="levels"),
        log10_temperature=widgets.FloatSlider(1.0, min=0, max=3, step=0.1, description="log₁₀ T"),
        shift=widgets.FloatSlider(0.0, min=-0.2, max=0.4, step=0.02, description="thresholds"),
    )


# -- 6 train and compare ----------------------------------------------------------------------------------------------


ARM_LABELS = {
    "W1": "W1: 1 bit",
    "BWN": "BWN: 1 bit, straight-through",
    "W2": "W2: ternary",
    "TWN": "TWN: ternary, straight-through",
    "W3pm2": "W3pm2: 5 levels",
    "W3pm4": "W3pm4: 7 levels",
    "A2": "A2: 2-bit activations",
    "A2-bell": "A2-bell: ... with a wide bell",
    "A2-LSQ": "A2-LSQ: ... straight-through",
}


def comparison_figure(result: Mapping[str, Any], arms: Sequence[str]) -> Figure:
    """Deployed accuracy per arm: untrained, untrained with batch norm re-estimated, trained. Right: the upper end."""
    figure, (whole, top) = subplots(1, 2, figsize=(10, 0.42 * len(arms) + 1.3), sharey=True)
    rows = np.arange(len(arms))[::-1]
    marks = (("ptq", "untrained", "straw", "o"), ("ptq_bn", "untrained, batch norm re-estimated", "baseline", "D"))
    for axes in (whole, top):
        for key, label, color, marker in (*marks, ("hard", "trained", "ours", "s")):
            axes.scatter([result[a][key] for a in arms], rows, c=COLORS[color], marker=marker, label=label, zorder=3)
        axes.axvline(result["float"]["hard"], color=COLORS["float"], lw=1, label="float network")
        axes.set_yticks(rows, [ARM_LABELS.get(arm, arm) for arm in arms])
        axes.set(xlabel=f"accuracy, {result['data']}, %")
        axes.grid(axis="x", alpha=0.3)
    upper = [result["float"]["hard"], *(result[arm][key] for arm in arms for key in ("ptq_bn", "hard"))]
    top.locator_params(axis="x", nbins=6)
    room = 0.05 * (max(upper) - min(upper)) + 0.1
    top.set(xlim=(min(upper) - room, max(upper) + room), title="the upper end of the same axis")
    figure.legend(*whole.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    return figure


def seeds_figure(results: Sequence[Mapping[str, Any]], arms: Mapping[str, str]) -> Figure:
    """Deployed accuracy of several seeds, a dot each, a bar at their mean; arms by name with the label to show."""
    figure, axes = subplots(1, 1, figsize=(8.5, 0.42 * len(arms) + 0.9))
    rows = np.arange(len(arms))[::-1]
    for row, arm in zip(rows.tolist(), arms, strict=True):
        values = [result[arm]["hard"] for result in results]
        axes.scatter(values, [row] * len(values), color=COLORS["ours"], alpha=0.6)
        axes.plot([np.mean(values)] * 2, [row - 0.25, row + 0.25], color=COLORS["hard"])
    axes.axvline(np.mean([result["float"]["hard"] for result in results]), color=COLORS["float"], lw=1)
    axes.set_yticks(rows, list(arms.values()))
    axes.set(xlabel="accuracy as deployed, %", title=f"{results[0]['data']}, {len(results)} seeds; line: float network")
    axes.grid(axis="x", alpha=0.3)
    return figure


def gap_figure(result: Mapping[str, Any], arms: Mapping[float, str]) -> Figure:
    """Soft and hard accuracy against the final temperature: the clearest picture of 'lossless', and of its price.

    Blue and black as in the first picture: the value used in training, the value used when deployed.
    """
    figure, axes = subplots(figsize=(5.6, 3.2))
    temperatures = sorted(arms)
    styles = (
        ("hard", "hard", "-", "hard, as deployed"),
        ("hard_bn", "hard", ":", "hard, batch norm re-estimated"),
        ("soft", "ours", "--", "soft, as trained"),
    )
    for key, color, line, label in styles:
        axes.semilogx(
            temperatures,
            [result[arms[t]][key] for t in temperatures],
            line,
            marker="o",
            color=COLORS[color],
            label=label,
        )
    axes.axhline(result["float"]["hard"], color=COLORS["float"], lw=1, label="float network")
    axes.set(xlabel="final temperature", ylabel="accuracy, %", title="1-bit weights")
    axes.legend(frameon=False, fontsize=8)
    return figure


def splitting_figure(metrics: Sequence[Mapping[str, Any]], edges: Sequence[float]) -> Figure:
    """Histogram of the stored weights over training (down) as an image, beside the share that still learns."""
    lines = [line for line in metrics if "histogram" in line]
    counts = np.array([line["histogram"] for line in lines])
    figure, (image, curve) = subplots(1, 2, figsize=(9, 3.2), width_ratios=(2, 1))
    extent = (edges[0], edges[-1], lines[-1]["step"], lines[0]["step"])
    image.imshow(np.log1p(counts), aspect="auto", extent=extent, cmap="Blues")
    image.set(xlabel="stored weight / largest level", ylabel="step", title="stored weights while T rises")
    curve.plot([100 * line["still_learning"] for line in lines], [line["step"] for line in lines], color=COLORS["ours"])
    curve.set_ylim(image.get_ylim())
    curve.set(xlabel="% of the weights", title="weights that still learn")
    return figure


def splitting_animation(metrics: Sequence[Mapping[str, Any]], edges: Sequence[float]) -> go.Figure:
    """The same histogram as an animation: one frame per logged step, with the temperature in the title."""
    lines = [line for line in metrics if "histogram" in line]
    centres = (np.asarray(edges)[1:] + np.asarray(edges)[:-1]) / 2

    def bars(line: Mapping[str, Any]) -> go.Bar:
        return go.Bar(x=centres, y=np.asarray(line["histogram"], dtype=np.int32), marker_color=COLORS["ours"])

    def title(line: Mapping[str, Any]) -> dict[str, Any]:
        return {"text": f"step {line['step']}: T = {line['temperature']:.0f}", "font": {"size": 14}}

    frames = [go.Frame(data=[bars(line)], name=str(line["step"]), layout={"title": title(line)}) for line in lines]
    play = {"label": "play", "method": "animate", "args": [None, {"frame": {"duration": 150}, "fromcurrent": True}]}
    stop = {"mode": "immediate", "frame": {"duration": 0}}
    steps = [{"label": frame.name, "method": "animate", "args": [[frame.name], stop]} for frame in frames]
    top = float(np.max([line["histogram"] for line in lines[1:] or lines]))
    return go.Figure(
        data=[bars(lines[0])],
        frames=frames,
        layout={
            "template": "none", "height": 340, "title": title(lines[0]), "showlegend": False,
            "xaxis": {"title": {"text": "stored weight / largest level"}},
            "yaxis": {"range": [0, top], "title": {"text": "weights per bin"}},
            "updatemenus": [{"type": "buttons", "buttons": [play], "x": 0, "y": 1.2}],
            "sliders": [{"steps": steps, "currentvalue": {"prefix": "step "}}],
        },
    )  # fmt: skip


def agreement_figure(agreements: Mapping[float, GradientAgreement]) -> Figure:
    """Why annealing fails for activations: the gradient grows with T and batches stop agreeing on a direction."""
    figure, (left, right) = subplots(1, 2, figsize=(8, 2.9))
    temperatures = list(agreements)
    left.loglog(temperatures, [a.norm for a in agreements.values()], marker="o", color=COLORS["ours"])
    left.set(xlabel="temperature of the activations", ylabel="gradient norm")
    right.semilogx(temperatures, [a.cosine for a in agreements.values()], marker="o", color=COLORS["ours"])
    right.axhline(0, color=COLORS["float"], lw=1)
    right.set(xlabel="temperature of the activations", ylabel="cosine between batches", ylim=(-0.2, 1))
    return figure


def memory_figure(sizes: Mapping[str, int]) -> Figure:
    """Bytes on disk of the same network, stored in different ways."""
    figure, axes = subplots(figsize=(6, 0.4 * len(sizes) + 0.9))
    names = list(sizes)[::-1]
    colors = [COLORS["float" if n == "float" else "ours"] for n in names]
    bars = axes.barh(names, [sizes[n] / 1000 for n in names], color=colors)
    axes.bar_label(bars, [f"{sizes[n]:,} bytes" for n in names], padding=3, fontsize=8)
    axes.set(xlabel="file size, kB", xlim=(0, 1.3 * max(sizes.values()) / 1000))
    return figure
