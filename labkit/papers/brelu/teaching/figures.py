"""The notebook's pictures. Pure: the same input gives the same arrays; tested without a browser."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
import torch
from matplotlib.figure import Figure
from plotly.subplots import make_subplots
from torch import Tensor

from labkit.data.superresolution import psnr
from labkit.papers.brelu.experiment.evaluate import residual_of, restored
from labkit.papers.brelu.method.bounded_relu import round_to_levels
from labkit.papers.brelu.method.bounds import ActivationStatistics, best_bound, gaussian_error
from labkit.papers.brelu.method.multiply_shift import snapped
from labkit.papers.brelu.method.network import set_bounds
from labkit.papers.brelu.teaching.roofline import Machine, layer_intensity
from labkit.papers.brelu.teaching.scenes import SuperResolution, follow_pixel, restored_at
from labkit.viz import COLORS, explore, subplots
from labkit.workbench.claims import table_row

SHADES = {"127": 1.0, "31": 0.65, "15": 0.4, "7": 0.35, "3": 0.3, "1": 0.25}

# -- 1 the idea in one picture ----------------------------------------------------------------------------------------


def idea_figure() -> Figure:
    """The same activations and the same 7 levels under two bounds: what is clipped, and what is rounded away."""
    figure, axes = subplots(1, 2, figsize=(9, 3.2), sharex=True, sharey=True)
    x = torch.linspace(-0.5, 4.5, 2001)
    relu = x.relu()
    titles = {1.5: "small bound: fine steps, large values clipped", 4.5: "large bound: nothing clipped, coarse steps"}
    for axis, (bound, title) in zip(axes, titles.items(), strict=True):
        codes = round_to_levels(x.clamp(0, bound), bound, 7)
        axis.fill_between(x, relu, codes, where=x <= bound, color=COLORS["baseline"], lw=0, alpha=0.6, label="rounded")
        axis.fill_between(x, relu, codes, where=x >= bound, color=COLORS["bad"], lw=0, alpha=0.35, label="clipped")
        axis.plot(x, relu, color=COLORS["float"], lw=1, label="ReLU")
        axis.plot(x, codes, color=COLORS["ours"], label="bounded ReLU, 7 levels")
        axis.set(title=title, xlabel="input")
    axes[0].set(ylabel="output")
    axes[0].legend(frameon=False, fontsize=8, loc="upper left")
    return figure


# -- 4 the method: snapping -------------------------------------------------------------------------------------------


def snapping_figure(u_max: int = 46_000, bits: int = 6) -> go.Figure:
    """Ceilings that a multiplier of so many bits can have, around the one that is asked for; the nearest is taken."""
    shift = max(0, min(24, math.floor(math.log2((2**bits - 1) * u_max / 127))))
    middle = round(127 * 2**shift / u_max)
    muls = [m for m in range(middle - 4, middle + 5) if m > 0]
    ends = [snapped(m, shift, 127).u_max for m in muls]
    nearest = min(range(len(muls)), key=lambda i: abs(ends[i] - u_max))
    colors = [COLORS["ours"] if i == nearest else COLORS["straw"] for i in range(len(muls))]
    figure = go.Figure(go.Bar(x=ends, y=[1] * len(ends), marker_color=colors, width=max(1, u_max / 400),
                              text=[f"mul {m}" for m in muls], showlegend=False))  # fmt: skip
    figure.add_scatter(x=[u_max, u_max], y=[0, 1.15], mode="lines", line={"color": COLORS["hard"]}, name="asked for")
    off = 100 * (ends[nearest] / u_max - 1)
    return figure.update_layout(
        template="none", height=260, margin={"t": 50, "b": 45, "l": 20, "r": 10}, yaxis={"visible": False},
        xaxis={"title": {"text": "u_max: the sum that gets code 127"}, "range": [u_max * 0.85, u_max * 1.15]},
        title={"text": f"mul {muls[nearest]}, shift {shift}: the bound moves by {off:+.2f} %", "font": {"size": 14}},
    )  # fmt: skip


def snapping_widget() -> widgets.VBox:
    return explore(
        snapping_figure,
        u_max=widgets.IntSlider(46_000, min=2_000, max=120_000, step=250, description="u_max"),
        bits=widgets.IntSlider(6, min=3, max=12, description="bits of mul"),
    )


# -- 5 prove it -------------------------------------------------------------------------------------------------------


def error_figure() -> Figure:
    """Mean squared error of a normal activation against its bound; a dot at the least."""
    figure, axis = subplots(figsize=(6.5, 3.2))
    k = np.linspace(1, 8, 200)
    for levels, shade in ((127, 1.0), (31, 0.65), (15, 0.4)):
        errors = [gaussian_error(value, levels) for value in k]
        axis.semilogy(k, errors, color=COLORS["ours"], alpha=shade, label=f"{levels} levels")
        best = best_bound(gaussian_error, levels)
        axis.scatter([best], [gaussian_error(best, levels)], color=COLORS["ours"], alpha=shade, zorder=3)
    for sigma in (3.0, 3.5):
        axis.axvline(sigma, color=COLORS["hard"], lw=0.8, ls=":")
        axis.annotate(f"{sigma:g} σ", (sigma, 0.1), fontsize=8, ha="center", backgroundcolor="white")
    axis.set(xlabel="bound, in standard deviations", ylabel="mean squared error", ylim=(2e-6, 0.2))
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


# -- 6 train and compare ----------------------------------------------------------------------------------------------


def map_figure(result: Mapping[str, Any]) -> Figure:
    """PSNR against the bound, one curve per number of levels, without and with fine-tuning: the paper's trade-off."""
    figure, axes = subplots(1, 2, figsize=(10, 3.4), sharey=True)
    for axis, key, title in zip(
        axes, ("untrained", "retrained"), ("bounds set, not trained", "fine-tuned"), strict=True
    ):
        table = result["map"][key]
        factors = sorted(map(float, table))
        for levels in next(iter(table.values())):
            values = [table[f"{factor:g}"][levels] for factor in factors]
            axis.semilogx(factors, values, marker="o", color=COLORS["ours"], alpha=SHADES.get(levels, 0.5),
                          label=f"{levels} levels")  # fmt: skip
        axis.axhline(result["float"], color=COLORS["float"], lw=1, label="float")
        axis.set_xticks(factors, [f"{factor:g}" for factor in factors])
        axis.minorticks_off()
        axis.set(title=title, xlabel="bound, as a multiple of the 3.5 σ rule's")
    axes[0].set(ylabel=f"PSNR on {result['test']}, dB")
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def one_at_a_time_figure(results: Mapping[str, Mapping[str, Any]]) -> Figure:
    """What is lost when only weights, or only activations, are quantised; one panel a task that measures this."""
    results = {task: result for task, result in results.items() if "weights" in result}
    figure, axes = subplots(1, len(results), figsize=(3.8 * len(results), 3.4), squeeze=False)
    for axis, (task, result) in zip(axes[0], results.items(), strict=True):
        bars = {f"weights, {n} bits": (result["float"] - value, "float") for n, value in result["weights"].items()}
        for rule, color in (("max", "baseline"), ("3.5sigma", "ours")):
            bars |= {
                f"{levels} levels, {rule.replace('sigma', ' σ')}": (result["float"] - value, color)
                for levels, value in result["activations"].get(rule, {}).items()
            }
        axis.barh(
            list(bars)[::-1], [v for v, _ in bars.values()][::-1], color=[COLORS[c] for _, c in bars.values()][::-1]
        )
        axis.set(title=task, xlabel="points lost" if task == "classification" else "PSNR lost, dB")
        axis.tick_params(axis="y", labelsize=8)
    return figure


def rules_figure(result: Mapping[str, Any]) -> Figure:
    """Every bound rule at every number of levels, relative to float: untrained, fine-tuned, integers."""
    figure, axis = subplots(figsize=(8.5, 3.4))
    levels = list(next(iter(result["untrained"].values())))
    rows: list[tuple[str, dict[str, float], str, str]] = []
    rows += [(f"{rule}, untrained", table, "straw", "o") for rule, table in result["untrained"].items()]
    rows += [
        (f"{rule}, fine-tuned", table, "baseline" if rule == "max" else "ours", "s")
        for rule, table in result["tuned"].items()
    ]
    rows += [("3.5sigma, integers", result["integer"], "hard", "x")]
    heights = np.arange(len(rows))[::-1]
    for i, count in enumerate(levels):
        values = [table[count] - result["float"] for _, table, _, _ in rows]
        axis.scatter(values, heights, c=[COLORS[color] for *_, color, _ in rows], alpha=SHADES.get(count, 0.5),
                     marker="osDx"[i % 4], label=f"{count} levels")  # fmt: skip
    axis.axvline(0, color=COLORS["float"], lw=1)
    axis.set_yticks(heights, [name.replace("sigma", " σ") for name, *_ in rows], fontsize=8)
    axis.grid(axis="x", alpha=0.3)
    axis.set(xlabel=f"dB relative to the float network on {result['test']}")
    axis.legend(frameon=False, fontsize=8, loc="lower left")
    return figure


def classes_figure(result: Mapping[str, Any]) -> Figure:
    """Accuracy against the number of levels, untrained, for every rule."""
    figure, axis = subplots(figsize=(6, 3.1))
    for i, (rule, table) in enumerate(result["activations"].items()):
        color = COLORS["baseline"] if rule == "max" else COLORS["ours"]
        axis.semilogx(list(map(int, table)), list(table.values()), marker="o", color=color, alpha=1 - 0.18 * i,
                      label=rule.replace("sigma", " σ"))  # fmt: skip
    axis.axhline(result["float"], color=COLORS["float"], lw=1, label="float")
    ticks = sorted(int(levels) for levels in next(iter(result["activations"].values())))
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()
    axis.set(xlabel="levels of an activation", ylabel="accuracy, %", title="bounds set, not trained")
    axis.legend(frameon=False, fontsize=8)
    return figure


def peers_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Other quantisation schemes as a Markdown table: dB relative to the float network, mean and range over runs."""
    rows = []
    for name in results[0]["peers"] if results else ():
        scheme, _, levels = name.rpartition(" ")
        gaps = [result["peers"][name] - result["float"] for result in results]
        mean, low, high = (f"{round(gap, 2) + 0.0:+.2f}" for gap in (sum(gaps) / len(gaps), min(gaps), max(gaps)))
        rows.append(table_row((scheme, levels, mean, f"{low} to {high}")))
    return "\n".join(["| scheme | levels | dB relative to float | over seeds |\n|---|---:|---:|---:|", *rows])


def size_figure(sizes: Mapping[str, int]) -> Figure:
    """Bytes of the same network stored in different ways."""
    figure, axis = subplots(figsize=(6, 0.4 * len(sizes) + 0.9))
    names = list(sizes)[::-1]
    colors = [COLORS["float" if name.startswith("float") else "ours"] for name in names]
    bars = axis.barh(names, [sizes[name] / 1000 for name in names], color=colors)
    axis.bar_label(bars, [f"{sizes[name]:,} bytes" for name in names], padding=3, fontsize=8)
    axis.set(xlabel="kB", xlim=(0, 1.35 * max(sizes.values()) / 1000))
    return figure


def pictures_figure(shown: SuperResolution) -> Figure:
    """A piece of a picture: bicubic, float, integers, original; below, 8 times the difference from the original."""
    bicubic, original = shown.picture
    device = torch.device("cpu")
    panels = {
        "bicubic": bicubic,
        "float": restored_at(shown.network, bicubic, None),
        "integers only": restored(bicubic, residual_of(shown.integer, device)),
        "original": original,
    }
    figure, axes = subplots(2, 4, figsize=(10, 5.2))
    for column, (name, image) in enumerate(panels.items()):
        label = name if name == "original" else f"{name}, {psnr(image, original, 2):.2f} dB"
        _show(axes[0, column], image, label)
        _show(axes[1, column], 128 + 8 * (image - original), "" if name == "original" else "8 x difference")
    return figure


def _show(axis: Any, image: Tensor, title: str) -> None:
    axis.imshow(image.clamp(0, 255).numpy(), cmap="gray", vmin=0, vmax=255)
    axis.set_title(title, fontsize=9)
    axis.axis("off")


# -- 7 explore --------------------------------------------------------------------------------------------------------


def bound_figure(statistics: ActivationStatistics, bound: float = 1.0, levels: int = 127) -> go.Figure:
    """The activations of one layer with the bound on them; the two errors and their sum against the bound.

    Args:
        bound: as a multiple of the 3.5-sigma rule's.
    """
    unit = statistics.bound("3.5sigma")
    here = bound * unit
    edges = np.linspace(0, statistics.limit, 129)
    counts = statistics.histogram.reshape(128, -1).sum(1)
    centres = (edges[1:] + edges[:-1]) / 2
    colors = np.where(centres <= here, COLORS["ours"], COLORS["bad"])
    k = np.geomspace(0.1, 8, 80)
    curves = {
        "clipping": ([statistics.clip_error(v * unit) for v in k], COLORS["bad"]),
        "rounding": ([statistics.rounding_error(v * unit, levels) for v in k], COLORS["baseline"]),
        "both": ([statistics.error(v * unit, levels) for v in k], COLORS["hard"]),
    }
    figure = make_subplots(1, 2, subplot_titles=("activations above zero", "mean squared error"))
    figure.add_bar(x=centres / unit, y=np.log10(counts + 1), marker_color=list(colors), showlegend=False, row=1, col=1)
    figure.add_scatter(x=[bound, bound], y=[0, float(np.log10(counts + 1).max())], mode="lines",
                       line={"color": COLORS["hard"], "dash": "dash"}, name="bound", row=1, col=1)  # fmt: skip
    for name, (values, color) in curves.items():
        figure.add_scatter(x=k, y=np.maximum(values, 1e-12), line={"color": color}, name=name, row=1, col=2)
    marks = [1.0, statistics.bound("3sigma") / unit, statistics.bound("max") / unit]
    figure.add_scatter(x=marks, y=[max(statistics.error(m * unit, levels), 1e-12) for m in marks], mode="markers+text",
                       text=["3.5σ", "3σ", "max"], textposition="top center", marker_color=COLORS["hard"],
                       showlegend=False, row=1, col=2)  # fmt: skip
    figure.add_scatter(x=[bound], y=[max(statistics.error(here, levels), 1e-12)], mode="markers", showlegend=False,
                       marker={"color": COLORS["ours"], "size": 12}, row=1, col=2)  # fmt: skip
    figure.update_xaxes(title_text="multiple of the 3.5 σ bound", row=1, col=1)
    figure.update_xaxes(title_text="multiple of the 3.5 σ bound", type="log", row=1, col=2)
    figure.update_yaxes(title_text="log10 of the count", row=1, col=1)
    figure.update_yaxes(type="log", row=1, col=2)
    clipped = 100 * statistics.clip_rate(here)
    title = f"bound {here:.3f}: {clipped:.3f} % of all values are clipped, steps of {here / levels:.5f}"
    return figure.update_layout(template="none", height=360, margin={"t": 70, "b": 50, "l": 55, "r": 10},
                                title={"text": title, "font": {"size": 14}})  # fmt: skip


def bound_widget(statistics: ActivationStatistics) -> widgets.VBox:
    def figure(bound: float, levels: int) -> go.Figure:
        return bound_figure(statistics, bound, levels)

    return explore(
        figure,
        bound=widgets.FloatLogSlider(1.0, min=-1, max=0.9, step=0.02, description="bound"),
        levels=widgets.SelectionSlider(options=[3, 7, 15, 31, 63, 127, 255], value=31, description="levels"),
    )


def viewer_figure(shown: SuperResolution, levels: int = 127, factor: float = 1.0) -> go.Figure:
    """The piece of the picture at so many levels and this multiple of the bounds, and 8 times its difference."""
    network = copy.deepcopy(shown.network)
    set_bounds(network, shown.statistics, "3.5sigma", levels, factor)
    bicubic, original = shown.picture
    image = restored_at(network, bicubic, levels)
    figure = make_subplots(1, 2, subplot_titles=("restored", "8 x difference from the original"))
    for column, plane in ((1, image), (2, 128 + 8 * (image - original))):
        values = plane.clamp(0, 255).to(torch.uint8).numpy()[::-1]
        figure.add_heatmap(z=values, zmin=0, zmax=255, colorscale="gray", showscale=False, row=1, col=column)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, scaleanchor="x")
    text = f"{levels} levels, {factor:g} times the 3.5 σ bounds: {psnr(image, original, 2):.2f} dB"
    return figure.update_layout(template="none", height=360, margin={"t": 70, "b": 10, "l": 10, "r": 10},
                                title={"text": text, "font": {"size": 14}})  # fmt: skip


def viewer_widget(shown: SuperResolution) -> widgets.VBox:
    def figure(levels: int, factor: float) -> go.Figure:
        return viewer_figure(shown, levels, factor)

    return explore(
        figure,
        levels=widgets.SelectionSlider(options=[3, 7, 15, 31, 63, 127, 255], value=127, description="levels"),
        factor=widgets.FloatLogSlider(1.0, min=-2, max=3, base=2, step=0.5, description="x bound"),
    )


def ratio_figure(mul: int = 1, shift: int = 0, r_main: float = 23_900.0, r_shortcut: float = 61_300.0) -> go.Figure:
    """The puzzle of an addition: integers per unit on both sides; they must be equal."""
    side = r_shortcut * mul / 2**shift
    off = 100 * (side / r_main - 1)
    good = abs(off) < 1
    figure = go.Figure(go.Bar(x=[r_main, side], y=["main path", f"shortcut x {mul} >> {shift}"], orientation="h",
                              marker_color=[COLORS["ours"], COLORS["good" if good else "bad"]]))  # fmt: skip
    text = f"{off:+.2f} %: " + ("the weight step takes up the rest" if good else "the operands have different ratios")
    return figure.update_layout(template="none", height=240, margin={"t": 50, "b": 45, "l": 160, "r": 30},
                                xaxis={"title": {"text": "integers per unit"}, "range": [0, 80_000]},
                                title={"text": text, "font": {"size": 14}})  # fmt: skip


def ratio_widget() -> widgets.VBox:
    return explore(
        ratio_figure,
        mul=widgets.IntSlider(1, min=1, max=127, description="mul"),
        shift=widgets.IntSlider(0, min=0, max=10, description="shift"),
    )


def pixel_figure(shown: SuperResolution, row: int = 40, column: int = 40, layers: int = 3) -> go.Figure:
    """One pixel through the integers: where it lies, and what each integer stands for beside the float value."""
    lines = follow_pixel(shown, row, column, layers)
    picture = shown.picture[0].clamp(0, 255).to(torch.uint8).numpy()
    figure = make_subplots(1, 2, column_widths=[0.28, 0.72], specs=[[{"type": "xy"}, {"type": "table"}]])
    figure.add_heatmap(z=picture, colorscale="gray", showscale=False, hoverinfo="x+y", row=1, col=1)
    figure.add_scatter(x=[column], y=[row], mode="markers", showlegend=False, row=1, col=1,
                       marker={"symbol": "circle-open", "size": 14, "color": COLORS["ours"], "line": {"width": 3}},
                       )  # fmt: skip
    reals = [line["float network has"] for line in lines]
    columns = {
        "layer": [line["layer"] for line in lines],
        "step": [line["step"] for line in lines],
        "integer": [f"{line['integer']:,}" for line in lines],
        "stands for": [f"{line['stands for']:+.5f}" for line in lines],
        "float network": ["" if real is None else f"{real:+.5f}" for real in reals],
    }
    cells = [[_unbroken(text) for text in texts] for texts in columns.values()]
    figure.add_table(header={"values": [_unbroken(name) for name in columns]}, cells={"values": cells, "align": "left"},
                     columnwidth=[20, 24, 16, 13, 15], row=1, col=2)  # fmt: skip
    figure.update_xaxes(visible=False, constrain="domain")
    figure.update_yaxes(visible=False, autorange="reversed", scaleanchor="x", constrain="domain", constraintoward="top")
    off = abs(lines[-1]["stands for"] - reals[-1])
    text = f"pixel ({row}, {column}), {layers} layers: integers and float end {off:.5f} apart"
    height = 120 + 26 * min(len(lines), 16)
    return figure.update_layout(template="none", height=height, margin={"t": 50, "b": 10, "l": 10, "r": 10},
                                title={"text": text, "font": {"size": 14}})  # fmt: skip


def _unbroken(text: str) -> str:
    """With spaces that break no line: plotly's tables lose a text that they have to wrap."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def pixel_widget(shown: SuperResolution) -> widgets.VBox:
    """Handles on the pixel and on how many layers to follow it through."""

    def figure(row: int, column: int, layers: int) -> go.Figure:
        return pixel_figure(shown, row, column, layers)

    height, width = shown.picture[0].shape
    deepest = sum(node.operation == "bounded_relu" for node in shown.tuned.nodes)
    return explore(
        figure,
        row=widgets.IntSlider(height // 2, min=0, max=height - 1, description="row"),
        column=widgets.IntSlider(width // 2, min=0, max=width - 1, description="column"),
        layers=widgets.IntSlider(min(3, deepest), min=1, max=deepest, description="layers"),
    )


def roofline_figure(machine: Machine, shapes: Sequence[tuple[int, int, int, int]]) -> Figure:
    """What this machine can do at best against the work per byte, in int8 and in float32, and where layers lie.

    Args:
        machine: measured peaks, see `roofline.measure`.
        shapes: convolutions as (channels in, channels out, side, kernel).
    """
    figure, axis = subplots(figsize=(7.5, 3.4))
    intensity = np.geomspace(1, 4000, 200)
    for name, peak, size, color in (
        ("int8", machine.int8_gops, 1, "ours"),
        ("float32", machine.float_gops, 4, "float"),
    ):
        axis.loglog(intensity, np.minimum(peak, machine.gbytes * intensity), color=COLORS[color], label=f"{name}, roof")
        points = [layer_intensity(*shape, size) for shape in shapes]
        axis.scatter(points, np.minimum(peak, machine.gbytes * np.array(points)), color=COLORS[color], zorder=3)
    for shape in shapes:
        x = layer_intensity(*shape, 1)
        text = f"{shape[0]}→{shape[1]}, {shape[3]}x{shape[3]}"
        axis.annotate(text, (x, min(machine.int8_gops, machine.gbytes * x)), fontsize=7, rotation=25,
                      textcoords="offset points", xytext=(2, 4))  # fmt: skip
    axis.set(xlabel="operations per byte moved", ylabel="billion operations per second",
             title="this machine, one thread: products, and memory")  # fmt: skip
    axis.set_ylim(top=machine.int8_gops * 4)
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def pixel_table(lines: Sequence[Mapping[str, Any]]) -> str:
    """`scenes.follow_pixel` as a Markdown table."""
    head = "| layer | step | integer | stands for | float network has |\n|---|---|---:|---:|---:|"
    rows = []
    for line in lines:
        real = "" if line["float network has"] is None else f"{line['float network has']:+.5f}"
        rows.append(f"| {line['layer']} | {line['step']} | {line['integer']:,} | {line['stands for']:+.5f} | {real} |")
    return "\n".join([head, *rows])
