"""The notebook's pictures. Pure: the same input gives the same arrays; tested without a browser.

Colours: several references, by a network, blue; their rivals orange, of which least squares is dashed; the plain warp
grey; the truth black. Of the bits of a P-frame the residual is blue as well, the motion a darker, the scales a lighter.
"""

import math
from collections.abc import Mapping
from typing import Any

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
import torch
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from plotly.subplots import make_subplots

from labkit.errors import InputError
from labkit.kernels.flow_warp import chained_warp
from labkit.papers.mlvc.experiment import blocks
from labkit.papers.mlvc.experiment.bjontegaard import bd_rate
from labkit.papers.mlvc.experiment.scenes import uncovered
from labkit.papers.mlvc.experiment.schedule import STEPWISE
from labkit.papers.mlvc.method.priors import gaussian_likelihood
from labkit.papers.mlvc.teaching import scenes
from labkit.papers.mlvc.teaching.scenes import BitstreamLab, LookInside, Moment
from labkit.viz import COLORS, explore, subplots

ARM_LOOKS = {  # colour, line, marker
    "raw-motion": (COLORS["straw"], "-", "."),
    "warp": (COLORS["float"], "-", "."),
    "linear-1": (COLORS["baseline"], "--", "."),
    "linear-2": (COLORS["baseline"], "--", "+"),
    "linear-4": (COLORS["baseline"], "--", "x"),
    "single": (COLORS["baseline"], "-", "."),
    "multi": (COLORS["ours"], "-", "."),
    "multi-2": (COLORS["ours"], "-", "+"),
    "single-mse": (COLORS["baseline"], ":", "."),
    "multi-mse": (COLORS["ours"], ":", "."),
}
CODEC_LOOKS = {  # colour, line
    "stepwise": (COLORS["ours"], "-"),
    "single": (COLORS["baseline"], "-"),
    "short": (COLORS["ours"], ":"),
    "scratch": (COLORS["straw"], "-"),
    "unrefined": (COLORS["straw"], ":"),
    "x265-veryfast": (COLORS["hard"], "--"),
    "x265-medium": (COLORS["hard"], ":"),
    "x264-veryfast": (COLORS["float"], "--"),
    "x264-medium": (COLORS["float"], ":"),
}
STREAM_COLORS = {"motion": "#0b3c6b", "scales": "#9cc7ea", "residual": COLORS["ours"]}
"""What a P-frame's bits are: three strengths of one blue."""
NAMES = {
    "raw-motion": "plain warp, motion not predicted",
    "warp": "plain warp",
    "linear-1": "least squares, 1 reference",
    "linear-2": "least squares, 2 references",
    "linear-4": "least squares, 4 references",
    "single": "network, 1 reference",
    "multi": "network, 4 references",
    "multi-2": "network, 2 references",
    "single-mse": "network, 1 reference, MSE",
    "multi-mse": "network, 4 references, MSE",
}
GREY = {"cmap": "gray", "vmin": 0, "vmax": 255}
ERROR = {"cmap": "magma", "vmin": 0, "vmax": 40}


def _picture(axis: Any, values: np.ndarray, title: str, **options: Any) -> None:
    axis.imshow(values, interpolation="nearest", **options)
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()


# -- 1 the idea in one picture ----------------------------------------------------------------------------------------


def idea_figure(now: Moment | None = None) -> Figure:
    """Where the newest reference is wrong, two references disagree, and their difference tells by how much."""
    now = now or scenes.moment()
    figure, axes = subplots(1, 4, figsize=(10, 2.7), width_ratios=(1, 1, 1, 1.35))
    _picture(axes[0], now.frame, f"frame {now.number}; outline: uncovered", **GREY)
    _picture(axes[1], now.errors[0], "error of the newest reference", **ERROR)
    _picture(axes[2], now.disagreement, "difference of the two newest", **ERROR)
    for axis in axes[:3]:
        axis.contour(now.hidden, levels=[0.5], colors=COLORS["baseline"], linewidths=0.7)
    errors = scenes.errors_inside_and_outside(now)
    at = np.arange(len(errors))
    for offset, side, color, name in ((-0.2, 0, "baseline", "inside the outline"), (0.2, 1, "float", "elsewhere")):
        bars = axes[3].bar(at + offset, [pair[side] for pair in errors.values()], 0.4, color=COLORS[color], label=name)
        axes[3].bar_label(bars, fmt="%.1f", fontsize=8)
    axes[3].set_xticks(at, list(errors), fontsize=8)
    axes[3].set(ylabel="mean error, grey levels", ylim=(0, 1.35 * max(map(max, errors.values()))))
    axes[3].legend(frameon=False, fontsize=8)
    return figure


# -- 4 the method -----------------------------------------------------------------------------------------------------


def chain_figure(degrees: float = 12.0) -> Figure:
    """Where a pixel of a turning scene was one to four frames ago: the chain of flows, and one flow four times."""
    size, start = 65, np.array([52.0, 32.0])
    turn = math.radians(degrees)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    y, x = np.mgrid[:size, :size]
    centred = np.stack([x - 32.0, y - 32.0], -1)
    flow = torch.from_numpy((centred @ (rotation - np.eye(2)).T).transpose(2, 0, 1)).float()
    flows = flow.expand(1, 4, 2, size, size)
    chain = chained_warp(torch.zeros(1, 4, 1, size, size), flows)[1][0, :, :, int(start[1]), int(start[0])].numpy()
    truth = [32 + np.linalg.matrix_power(rotation, k) @ (start - 32) for k in range(5)]
    figure, axis = subplots(figsize=(5.6, 3.4))
    axis.plot(*np.array(truth).T, "o", color=COLORS["hard"], ms=9, fillstyle="none", label="where it really was")
    points = np.vstack([start, start + chain])
    axis.plot(*points.T, ".-", color=COLORS["ours"], label="chain of flows")
    straight = start + np.arange(5)[:, None] * chain[0]
    axis.plot(*straight.T, "x--", color=COLORS["bad"], label="the first flow again and again")
    for k, (px, py) in enumerate(truth):
        axis.annotate(f"t-{k}" if k else "t", (px + 1.2, py - 1.2), fontsize=8)
    axis.set(xlim=(36, 60), ylim=(54, 28), xlabel="x, pixels", ylabel="y, pixels", aspect="equal")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def flow_colors(flow: np.ndarray, largest: float) -> np.ndarray:
    """Direction as hue, length as saturation; white stands still."""
    hue = (np.arctan2(flow[1], flow[0]) / (2 * math.pi)) % 1
    length = np.minimum(np.hypot(flow[0], flow[1]) / largest, 1)
    return hsv_to_rgb(np.stack([hue, length, np.ones_like(hue)], -1))


def motion_figure(noise: float = 0.0) -> Figure:
    """v_t, v̄_t and d_t of one frame, and what sending costs with and without prediction."""
    now = scenes.motion(noise=noise)
    largest = float(np.hypot(*now.flow).max())
    figure, axes = subplots(1, 4, figsize=(9.5, 2.6), width_ratios=(1, 1, 1, 1.1))
    for axis, flow, title in zip(
        axes,
        (now.flow, now.predicted, now.difference),
        ("flow $v_t$", "predicted $\\bar v_t$", "difference $d_t$"),
        strict=False,
    ):
        _picture(axis, flow_colors(flow, largest), title)
    bars = axes[3].bar(["$v_t$", "$d_t$"], [now.bits_raw, now.bits_predicted], color=(COLORS["straw"], COLORS["ours"]))
    axes[3].bar_label(bars, fmt="%.0f")
    axes[3].set(ylabel="bits a frame", ylim=(0, 1.15 * max(now.bits_raw, now.bits_predicted)))
    axes[3].set_title("what is sent", fontsize=9)
    return figure


def symbols_figure() -> Figure:
    """Probabilities of rounded Gaussian symbols for three scales; entropy against scale and its limit."""
    figure, (left, right) = subplots(1, 2, figsize=(8.5, 2.8))
    k = torch.arange(-6, 7)
    for offset, sigma, strength in ((-0.28, 0.3, 0.3), (0.0, 1.0, 0.6), (0.28, 3.0, 1.0)):
        p = gaussian_likelihood(k.float(), torch.full((len(k),), sigma))
        name = f"$\\sigma$ = {sigma:g}"
        left.bar(k.numpy() + offset, p.numpy(), 0.28, color=COLORS["ours"], alpha=strength, label=name)
    left.set(xlabel="symbol", ylabel="probability")
    left.legend(frameon=False)
    sigmas = torch.logspace(-0.9, 1, 60)
    wide = torch.arange(-80, 81).float()
    p = gaussian_likelihood(wide.expand(60, -1), sigmas[:, None].expand(-1, 161)).double().clamp_min(1e-300)
    right.plot(sigmas, -(p * p.log2()).sum(1), color=COLORS["ours"], label="rounded symbols")
    limit = np.log2(sigmas.numpy() * math.sqrt(2 * math.pi * math.e))
    right.plot(sigmas, limit, ":", color=COLORS["hard"], label="$\\log_2(\\sigma\\sqrt{2\\pi e})$")
    right.set(xscale="log", ylim=(-0.3, 5.5), xlabel="scale $\\sigma$", ylabel="bits a symbol")
    right.legend(frameon=False)
    return figure


def price_figure(step: float = 16.0) -> Figure:
    """J of a residual coefficient beside its squared error; what a few large ones weigh in each."""
    figure, (left, right) = subplots(1, 2, figsize=(8.5, 2.8))
    c = np.linspace(0, 8 * step, 300)
    price = blocks.rate_distortion(
        torch.from_numpy(c).float().view(1, -1, 1, 1), torch.full((1, 1, 1, 1), step)
    ).flatten()
    left.plot(c / step, price, color=COLORS["ours"], label="J, in bits")
    left.plot(c / step, (c / step) ** 2 / 8, color=COLORS["baseline"], label="squared error, scaled")
    left.set(xlabel="coefficient, in quantiser steps", ylabel="price", ylim=(0, 6))
    left.legend(frameon=False)
    clips, coded = scenes.film()
    assert coded.aligned is not None
    residual = (clips.frames[1:, 0] - coded.aligned[:, 0, :1]).flatten(0, 0)
    each = blocks.dct(residual)
    shares = {
        "squared error": each.square().sum(1).flatten(),
        "J": blocks.rate_distortion(each, torch.full((len(each), 1, 1, 1), step)).sum(1).flatten(),
    }
    for (name, values), color in zip(shares.items(), ("baseline", "ours"), strict=True):
        ordered = values.sort(descending=True).values.cumsum(0) / values.sum()
        right.plot(np.linspace(0, 100, len(ordered)), 100 * ordered, color=COLORS[color], label=name)
    right.set(xlabel="worst blocks, % of all", ylabel="their share, %", xlim=(0, 100), ylim=(0, 102))
    right.legend(frameon=False)
    return figure


def schedule_figure() -> Figure:
    """Which module learns in which stage."""
    modules = list(dict.fromkeys(name for stage in STEPWISE for name in stage.trains))
    figure, axis = subplots(figsize=(8.5, 2.9))
    start = 0
    for stage in STEPWISE:
        for name in stage.trains:
            color = COLORS["float"] if stage.joint else COLORS["ours"]
            axis.barh(modules.index(name), stage.units, left=start, color=color, edgecolor="white")
        axis.text(start + stage.units / 2, -0.75, stage.name.replace(" ", "\n"), ha="center", va="bottom", fontsize=8)
        start += stage.units
    axis.set_yticks(range(len(modules)), [name.replace("_", " ") for name in modules], fontsize=8)
    axis.set(xlabel="units of training steps", xlim=(0, start), ylim=(len(modules) - 0.4, -1.6))
    return figure


# -- 5 prove it -------------------------------------------------------------------------------------------------------


def averaging_figure() -> Figure:
    """Gain of k references over one: the law and what least squares reaches."""
    figure, axis = subplots(figsize=(4.6, 2.8))
    k = np.arange(1, 5)
    axis.plot(k, 10 * np.log10(2 / (1 + 1 / k)), color=COLORS["hard"], label="$10\\,\\log_{10}\\,2/(1+1/k)$")
    axis.plot(k, scenes.averaging(), "o", color=COLORS["baseline"], label="least squares")
    axis.set(xlabel="aligned references $k$", ylabel="gain over one, dB", xticks=k)
    axis.legend(frameon=False)
    return figure


# -- 6 train and compare ----------------------------------------------------------------------------------------------


def rd_figure(result: Mapping[str, Any]) -> Figure:
    """PSNR against bits a pixel, every arm, one panel a family."""
    families = list(result["scenes"])
    figure, axes = subplots(1, len(families), figsize=(4.6 * len(families), 3.4), squeeze=False)
    for axis, family in zip(axes[0], families, strict=True):
        for arm, (rate, quality) in scenes.curves(result, family).items():
            color, line, marker = ARM_LOOKS[arm]
            axis.plot(rate, quality, line, marker=marker, color=color, label=NAMES[arm])
        axis.set(xscale="log", xlabel="bits a pixel", ylabel="PSNR, dB")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_title(family)
    axes[0][-1].legend(frameon=False, fontsize=7, loc="lower right")
    return figure


def savings_figure(result: Mapping[str, Any], anchor: str = "warp") -> Figure:
    """What every arm saves against the plain warp: a dot a scene, a bar the mean."""
    families = list(result["scenes"])
    figure, axes = subplots(1, len(families), figsize=(4.8 * len(families), 3.0), squeeze=False)
    for axis, family in zip(axes[0], families, strict=True):
        saved = {arm: values for arm, values in scenes.savings(result, family, anchor).items() if arm != anchor}
        for row, (arm, values) in enumerate(saved.items()):
            spread = np.linspace(-0.18, 0.18, len(values))
            axis.plot(values, row + spread, ".", color=ARM_LOOKS[arm][0], alpha=0.6)
            axis.plot([np.nanmean(values)] * 2, [row - 0.35, row + 0.35], color=COLORS["hard"], lw=2)
        axis.axvline(0, color=COLORS["float"], lw=0.8)
        axis.set_yticks(range(len(saved)), [NAMES[arm] for arm in saved], fontsize=8)
        axis.set(xlabel="bits saved at equal PSNR, %", ylim=(len(saved) - 0.4, -0.6))
        axis.set_title(family)
    return figure


def prediction_figure(look: LookInside) -> Figure:
    """One frame and the errors of its predictions, of one and of four references."""
    frame = scenes.telling_frame(look)
    shown = [arm for arm in ("warp", "single", "multi") if arm in look.coded]
    figure, axes = subplots(1, 1 + len(shown), figsize=(2.5 * (1 + len(shown)), 2.7))
    target = look.clips.frames[frame, 0, 0].numpy()
    hidden = uncovered(look.clips)[frame, 0].numpy() > 0
    _picture(axes[0], target, f"frame {frame}", **GREY)
    for axis, arm in zip(axes[1:], shown, strict=True):
        predicted = look.coded[arm].predicted
        assert predicted is not None
        error = np.abs(predicted[frame - 1, 0, 0].numpy() - target)
        _picture(axis, error, f"{NAMES[arm]}\nmean error {error.mean():.2f}", cmap="magma", vmin=0, vmax=20)
    for axis in axes:
        axis.contour(hidden, levels=[0.5], colors=COLORS["baseline"], linewidths=1)
    return figure


def coded_figure(result: Mapping[str, Any]) -> Figure:
    """Whole videos by the networks and the anchors: PSNR against bits a pixel, the mean over the videos of each set."""
    sets = list(result["coded"])
    figure, axes = subplots(1, len(sets), figsize=(4.6 * len(sets), 3.2), squeeze=False)
    for axis, name in zip(axes[0], sets, strict=True):
        for codec, (rate, quality) in scenes.mean_curves(result, name).items():
            color, line = CODEC_LOOKS[codec]
            axis.plot(rate, quality, line, marker=".", color=color, label=codec)
        axis.set(xscale="log", xlabel="bits a pixel, of the file", ylabel="PSNR (RGB), dB")
        axis.set_title(name)
    axes[0][-1].legend(frameon=False, fontsize=7)
    return figure


# -- 7 explore --------------------------------------------------------------------------------------------------------


def references_figure(frame: int = 7, reference: int = 2) -> go.Figure:
    """A frame, one of its references on its grid, that reference's error, and its difference to the newest."""
    now = scenes.moment(frame)
    if not 1 <= reference <= 4:
        raise InputError(f"there are four references; got {reference}.")
    titles = (
        f"frame {frame}",
        f"reference {frame - reference}, aligned",
        "error of that reference",
        "difference to the newest",
    )
    figure = make_subplots(1, 4, subplot_titles=titles, horizontal_spacing=0.02)
    pictures = (
        (now.frame, "Greys_r", 255.0),
        (now.aligned[reference - 1], "Greys_r", 255.0),
        (now.errors[reference - 1], "Magma", 40.0),
        (np.abs(now.aligned[reference - 1] - now.aligned[0]), "Magma", 40.0),
    )
    for column, (values, colors, largest) in enumerate(pictures, 1):
        figure.add_trace(
            go.Heatmap(z=np.round(values), colorscale=colors, zmin=0, zmax=largest, showscale=False), 1, column
        )
    inside, everywhere = now.errors[reference - 1][now.hidden].mean(), now.errors[reference - 1].mean()
    _as_pictures(figure, 4)
    title = f"error {everywhere:.1f} grey levels; where the newest reference is blind {inside:.1f}"
    return figure.update_layout(title=title, height=290, width=860, margin={"t": 70, "b": 10, "l": 10, "r": 10})


def _as_pictures(figure: go.Figure, columns: int) -> None:
    for column in range(1, columns + 1):
        figure.update_xaxes(visible=False, constrain="domain", col=column)
        figure.update_yaxes(
            visible=False,
            constrain="domain",
            autorange="reversed",
            scaleanchor=f"x{column if column > 1 else ''}",
            col=column,
        )


def references_widget() -> widgets.VBox:
    return explore(
        references_figure,
        frame=widgets.IntSlider(7, min=4, max=9, description="frame"),
        reference=widgets.IntSlider(2, min=1, max=4, description="frames back"),
    )


def motion_noise_figure(noise: float = 0.0) -> go.Figure:
    """Bits of the motion with and without prediction against the noise of the motion search."""
    levels = [0.0, 0.5, 1.0, 2.0, 4.0]
    both = [(scenes.motion(noise=x).bits_raw, scenes.motion(noise=x).bits_predicted) for x in levels]
    now = scenes.motion(noise=noise)
    figure = go.Figure(
        [
            go.Scatter(x=levels, y=[b[0] for b in both], name="flow itself", line={"color": COLORS["straw"]}),
            go.Scatter(x=levels, y=[b[1] for b in both], name="difference", line={"color": COLORS["ours"]}),
            go.Scatter(
                x=[noise, noise], y=[now.bits_raw, now.bits_predicted], mode="markers", name="now",
                marker={"color": COLORS["hard"], "size": 10},
            ),
        ]
    )  # fmt: skip
    saved = 100 * (1 - now.bits_predicted / now.bits_raw)
    return figure.update_layout(
        title=f"noise {noise:g} pixels: prediction saves {saved:.0f} % of the motion's bits", height=320,
        xaxis_title="noise of the motion search, pixels",
        yaxis={"title": "bits a frame", "range": [0, 1.1 * max(b[0] for b in both)]},
        margin={"t": 50, "b": 45},
    )  # fmt: skip


def motion_widget() -> widgets.VBox:
    slider = widgets.SelectionSlider(options=[0.0, 0.5, 1.0, 2.0, 4.0], value=0.0, description="noise")
    return explore(motion_noise_figure, noise=slider)


def rd_explorer(result: Mapping[str, Any], family: str, ours: str, anchor: str) -> go.Figure:
    """Two arms' curves and the BD-rate between them."""
    curves = scenes.curves(result, family)
    for arm in (ours, anchor):
        if arm not in curves:
            raise InputError(f"this run did not code '{family}' with '{arm}'.")
    saved = -bd_rate(*curves[anchor], *curves[ours])
    low = max(min(curves[arm][1]) for arm in (ours, anchor))
    high = min(max(curves[arm][1]) for arm in (ours, anchor))
    figure = go.Figure()
    for arm, color in ((anchor, COLORS["baseline"]), (ours, COLORS["ours"])):
        rate, quality = curves[arm]
        figure.add_scatter(x=rate, y=quality, name=NAMES[arm], mode="lines+markers", line={"color": color})
    for level in (low, high):
        figure.add_scatter(
            x=[min(curves[ours][0]), max(curves[anchor][0])], y=[level, level], mode="lines", showlegend=False,
            line={"color": COLORS["float"], "dash": "dot", "width": 1},
        )  # fmt: skip
    return figure.update_layout(
        title=f"{family}: {saved:+.1f} % of the bits saved between the dotted lines", height=380,
        xaxis={"type": "log", "title": "bits a pixel"}, yaxis_title="PSNR, dB", margin={"t": 50, "b": 45},
    )  # fmt: skip


def rd_widget(result: Mapping[str, Any]) -> widgets.VBox:
    families = list(result["scenes"])
    arms = list(scenes.curves(result, families[0]))
    ours, anchor = ("multi" if "multi" in arms else arms[-1]), ("single" if "single" in arms else arms[0])
    return explore(
        lambda family, ours, anchor: rd_explorer(result, family, ours, anchor),
        family=widgets.Dropdown(options=families, value=families[0], description="scenes"),
        ours=widgets.Dropdown(options=arms, value=ours, description="arm"),
        anchor=widgets.Dropdown(options=arms, value=anchor, description="against"),
    )


def budget_figure(look: LookInside, arm: str = "multi") -> go.Figure:
    """Bits of every P-frame: motion and residual."""
    if arm not in look.bits:
        raise InputError(f"this clip was not coded by '{arm}'; it was by {', '.join(look.bits)}.")
    bits, pixels = look.bits[arm], 64 * 64
    frames = list(range(1, len(bits["motion"]) + 1))
    total = sum(map(sum, bits.values())) / (len(frames) * pixels)
    figure = go.Figure(
        [
            go.Bar(x=frames, y=[b / pixels for b in bits[name]], name=name, marker={"color": color})
            for name, color in STREAM_COLORS.items()
            if name in bits
        ]
    )
    largest = max(sum(pair) for one in look.bits.values() for pair in zip(one["motion"], one["residual"], strict=True))
    return figure.update_layout(
        barmode="stack", title=f"{NAMES[arm]}: {total:.3f} bits a pixel", height=320, xaxis_title="frame",
        yaxis={"title": "bits a pixel", "range": [0, 1.05 * largest / pixels]}, margin={"t": 50, "b": 45},
    )  # fmt: skip


def budget_widget(look: LookInside) -> widgets.VBox:
    arms = list(look.bits)
    return explore(
        lambda arm: budget_figure(look, arm),
        arm=widgets.Dropdown(options=arms, value=arms[-1], description="arm"),
    )


KINDS = {"header": 0, "packet header": 1, "picture": 2, "motion": 3, "scales": 4, "residual": 5}
KIND_COLORS = ("#ffffff", *(COLORS[name] for name in ("hard", "float", "baseline")), *STREAM_COLORS.values())


def bitstream_figure(lab: BitstreamLab, position: int = 0) -> go.Figure:
    """A file's bytes, coloured by what they are; one of them is flipped, and below stands what is shown then."""
    hurt = lab.damaged[position]
    width = 96
    kinds = np.full(-(-len(lab.data) // width) * width, -1)  # beyond the end: white
    for start, end, what in lab.layout:
        kinds[start:end] = KINDS[what.split(" ", 1)[-1]]
    stops = [(edge, color) for k, color in enumerate(KIND_COLORS) for edge in (k / 7, (k + 1) / 7)]
    rows = make_subplots(2, 1, row_heights=[0.62, 0.38], vertical_spacing=0.12)
    rows.add_trace(go.Heatmap(z=kinds.reshape(-1, width), colorscale=stops, zmin=-1.5, zmax=5.5, showscale=False), 1, 1)
    rows.add_trace(
        go.Scatter(
            x=[hurt.at % width], y=[hurt.at // width], mode="markers", showlegend=False,
            marker={"color": COLORS["bad"], "size": 14, "symbol": "x"},
        ), 1, 1,
    )  # fmt: skip
    frames = list(range(len(hurt.shown)))
    right = [COLORS["good"] if k == t else COLORS["bad"] for t, k in enumerate(hurt.shown)]
    rows.add_trace(
        go.Bar(x=frames, y=[min(p, 60.0) for p in hurt.psnr], marker={"color": right}, showlegend=False), 2, 1
    )
    rows.update_yaxes(autorange="reversed", visible=False, row=1)
    rows.update_xaxes(visible=False, row=1)
    rows.update_yaxes(title="PSNR, dB", range=[0, 62], row=2)
    rows.update_xaxes(title="frame on the screen", dtick=1, range=[-0.6, len(lab.damaged[0].shown) + 7.6], row=2)
    return rows.update_layout(
        title=f"byte {hurt.at:,} flipped: {_short(hurt.says)}", height=470, margin={"t": 70, "b": 45}
    )


def _short(text: str, most: int = 90) -> str:
    return text if len(text) <= most else text[: most - 1].rsplit(" ", 1)[0] + " ..."


def bitstream_widget(lab: BitstreamLab) -> widgets.VBox:
    slider = widgets.IntSlider(len(lab.damaged) // 3, min=0, max=len(lab.damaged) - 1, description="byte")
    return explore(lambda position: bitstream_figure(lab, position), position=slider)


def protocol_figure(protocol: str = "crop") -> go.Figure:
    """One encoder, one clip, two protocols: the curve moves and nothing was coded better."""
    curves = scenes.protocol_curves()
    if protocol not in curves:
        raise InputError(f"protocol must be one of {', '.join(curves)}; got '{protocol}'.")
    anchor = "gop-12"
    figure = go.Figure()
    for name, color in ((anchor, COLORS["float"]), (protocol, COLORS["baseline"])):
        rate, quality = curves[name]
        label = f"x265, {scenes.SETTINGS[name]}"
        figure.add_scatter(x=rate, y=quality, name=label, mode="lines+markers", line={"color": color})
    saved = -bd_rate(*curves[anchor], *curves[protocol])
    return figure.update_layout(
        title=f"{scenes.SETTINGS[protocol]}: x265 'saves' {saved:+.1f} % against itself", height=360,
        xaxis={"type": "log", "title": "bits a pixel"}, yaxis_title="PSNR, dB", margin={"t": 50, "b": 45},
    )  # fmt: skip


def protocol_widget() -> widgets.VBox:
    choice = widgets.Dropdown(
        options=[(text, name) for name, text in scenes.SETTINGS.items()], value="crop", description="protocol"
    )
    return explore(protocol_figure, protocol=choice)
