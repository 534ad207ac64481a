"""Pictures of the notebook: pure builders, and thin shells for the ones with handles."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from plotly.subplots import make_subplots

from labkit.data.sign import Sentence
from labkit.errors import InputError
from labkit.metrics.wer import Edit
from labkit.papers.stmc.experiment import avatars
from labkit.papers.stmc.method.temporal import RECEPTIVE_FIELD, STRIDE
from labkit.papers.stmc.teaching import scenes
from labkit.papers.stmc.teaching.scenes import Reading
from labkit.text import ctc
from labkit.viz import COLORS, NAMED, explore, image_source, pale, subplots

SYMBOLS = ("square", "diamond", "triangle-up", "x", "star")
"""Marks of curves that have only a name."""
BONES = ((0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6))
"""Nose, shoulders, elbows, wrists: which points a stick figure joins."""
CROP = COLORS["ours"]  # around hands and face
ERRORS = {"substitute": COLORS["bad"], "delete": COLORS["float"], "insert": COLORS["straw"]}
KINDS = {"equal": "white"} | {kind: pale(color) for kind, color in ERRORS.items()}
ARM_COLORS = {"multi-cue": COLORS["ours"], "random-crops": COLORS["straw"]}


def color_of(arm: str) -> str:
    """The paper's network blue, crops at random places sand, all others as rivals."""
    return ARM_COLORS.get(arm, COLORS["baseline"])


# -- 1 the idea -------------------------------------------------------------------------------------------------------


def idea_figure(seed: int = 8) -> Figure:
    """One frame; the same frame with what the network looks at; the four cues, enlarged."""
    sentence = avatars.clip("LOWER-PLUS-OPEN", seed)
    frame, points = sentence.frames[4], sentence.points[4] * (avatars.FRAME - 1)  # type: ignore[index]
    figure, axes = subplots(1, 5, figsize=(9, 2.7), width_ratios=(1.3, 1.3, 0.9, 0.9, 0.9))
    axes[0].set_title("one frame: a full-frame\nnetwork sees this")
    axes[1].set_title("where the hands and\nthe face are")
    for axis in axes[:2]:
        axis.imshow(frame, interpolation="nearest")
    for k, side in ((0, 14), (5, 9), (6, 9)):
        x, y = points[k]
        axes[1].add_patch(Rectangle((x - side / 2, y - side / 2), side, side, fill=False, ec=CROP, lw=2.5))
    for axis, k, side, title in ((axes[2], 6, 4, "a hand"), (axes[3], 0, 7, "the face")):
        x, y = (round(float(v)) for v in points[k])
        axis.imshow(frame[max(y - side, 0) : y + side + 1, max(x - side, 0) : x + side + 1], interpolation="nearest")
        axis.set_title(title)
    stick(axes[4], points)
    axes[4].set_title("the pose")
    for axis in axes:
        axis.set_axis_off()
    return figure


def stick(axis: Any, points: np.ndarray) -> None:
    """A stick figure from key points (column, row) in pixels."""
    for a, b in BONES:
        axis.plot(*points[[a, b]].T, color=COLORS["ours"], lw=2)
    axis.plot(*points.T, "o", color=COLORS["hard"], ms=4)
    axis.set(xlim=(5, 34), ylim=(34, 5), aspect="equal")


def pairs_figure(gloss: str = "LOWER-RING-SHUT", cue: str = "hand") -> go.Figure:
    """Two glosses that one cue tells apart: three frames of each, the same signer.

    Raises:
        InputError: no such gloss or cue.
    """
    if gloss not in avatars.GLOSSES or cue not in avatars.CUES:
        raise InputError(f"a gloss and one of {', '.join(avatars.CUES)} are asked for; got {gloss} and {cue}.")
    partner = next(other for other in avatars.GLOSSES if avatars.cues_between(gloss, other) == (cue,))
    figure = make_subplots(2, 3, horizontal_spacing=0.02, vertical_spacing=0.12)
    for row, name in enumerate((gloss, partner), 1):
        frames = avatars.clip(name, 5).frames
        assert isinstance(frames, np.ndarray)
        for column, share in enumerate((0.3, 0.6, 0.99), 1):
            picture = frames[int(share * len(frames))]
            figure.add_trace(go.Image(source=image_source(picture)), row, column)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure.update_layout(
        title=f"above {gloss}, below {partner}: told apart by the {cue}", height=430, width=620,
        margin={"t": 50, "b": 10, "l": 10, "r": 10},
    )  # fmt: skip


def pairs_widget() -> widgets.VBox:
    return explore(
        pairs_figure,
        gloss=widgets.Dropdown(options=list(avatars.GLOSSES), description="gloss"),
        cue=widgets.ToggleButtons(options=list(avatars.CUES), description="partner"),
    )


# -- 4 the method -----------------------------------------------------------------------------------------------------


def field_figure(time: int = 28) -> Figure:
    """Which frames each step of the temporal module sees, without padding."""
    steps = (((time - 4) // 2) - 4) // 2
    figure, axis = subplots(figsize=(7, 0.35 * steps + 1.3))
    for s in range(steps):
        axis.barh(s, RECEPTIVE_FIELD, left=STRIDE * s - 0.5, height=0.6, color=COLORS["ours"], alpha=0.75)
    axis.set(
        xlabel="frame", ylabel="step", yticks=range(steps), xticks=range(0, time, 4), xlim=(-1, time),
        ylim=(steps - 0.4, -0.6),
        title=f"{time} frames make {steps} steps; each sees {RECEPTIVE_FIELD} frames, {STRIDE} after the one before",
    )  # fmt: skip
    return figure


def ladder_figure(labels: Sequence[str] = ("A", "B"), seed: int = 4, time: int = 7) -> Figure:
    """CTC's states over time: the best path of a labelling, over the posterior of each state."""
    log_probs = scenes.toy_posteriors(1.3, seed, time, len(labels) + 1)
    alignment = ctc.align(log_probs, range(1, len(labels) + 1))
    names = ["-"]
    for label in labels:
        names += [label, "-"]
    rows = np.array([[log_probs[t, 0 if k % 2 == 0 else k // 2 + 1] for t in range(time)] for k in range(len(names))])
    visited, state = [], 0
    for said in alignment.path:
        while (0 if state % 2 == 0 else state // 2 + 1) != said:
            state += 1
        visited.append(state)
    figure, axis = subplots(figsize=(6, 2.8))
    axis.imshow(np.exp(rows), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.plot(range(time), visited, "o-", color=COLORS["baseline"], lw=2)
    axis.set(
        xlabel="step", yticks=range(len(names)), yticklabels=names, ylabel="state",
        title="the best path of 'A B': shades are posteriors, '-' is the blank",
    )  # fmt: skip
    return figure


def beam_figure(width: int = 2, sharpness: float = 0.8, seed: int = 5) -> go.Figure:
    """The best labellings with all their paths, beside what a beam of this width finds."""
    log_probs = scenes.toy_posteriors(sharpness, seed, 7, 4)
    exact = {h.labels: h.log_prob for h in ctc.beam_search(log_probs, 4**7)}
    beam = ctc.beam_search(log_probs, width)[:6]
    greedy = ctc.greedy(log_probs).labels
    top = sorted(exact, key=lambda labels: -exact[labels])[:6]
    names = ["".join("-ABC"[c] for c in labels) or "(nothing)" for labels in top]
    kept = {h.labels: float(np.exp(h.log_prob)) for h in beam}
    marks = [COLORS["baseline"] if labels == greedy else COLORS["float"] for labels in top]
    figure = go.Figure(
        [
            go.Bar(x=names, y=[float(np.exp(exact[labels])) for labels in top], name="all paths",
                   marker={"color": marks}),
            go.Bar(x=names, y=[kept.get(labels, 0.0) for labels in top], name="found by the beam",
                   marker={"color": COLORS["ours"]}),
        ]
    )  # fmt: skip
    verb = "finds" if beam[0].labels == top[0] else "misses"
    best_path = "".join("-ABC"[c] for c in greedy) or "(nothing)"
    return figure.update_layout(
        title=f"width {width} {verb} the best labelling; the best path reads {best_path}",
        xaxis_title="labelling", yaxis_title="probability", height=330, margin={"t": 50, "b": 50},
    )  # fmt: skip


def beam_widget() -> widgets.VBox:
    return explore(
        beam_figure,
        width=widgets.IntSlider(2, min=1, max=20, description="beam width"),
        sharpness=widgets.FloatSlider(0.8, min=0.2, max=3.0, step=0.1, description="sharpness"),
        seed=widgets.IntSlider(5, min=0, max=20, description="example"),
    )


# -- 6 train and compare ----------------------------------------------------------------------------------------------


def comparison_figure(result: Mapping[str, Any]) -> Figure:
    """Word error rate of each arm, by kind of error."""
    arms = result["arms"]
    figure, axis = subplots(figsize=(7, 0.5 * len(arms) + 1.5))
    left = np.zeros(len(arms))
    for kind, color in (
        ("substitutions", ERRORS["substitute"]),
        ("deletions", ERRORS["delete"]),
        ("insertions", ERRORS["insert"]),
    ):
        values = np.array([100 * arm[kind] for arm in arms.values()])
        axis.barh(list(arms), values, left=left, color=color, label=kind)
        left += values
    for k, arm in enumerate(arms.values()):
        axis.text(left[k] + 1, k, f"{100 * arm['wer']:.1f} %", va="center")
    axis.set(xlabel="word error rate, % of the reference words", xlim=(0, max(100, left.max() + 12)))
    axis.invert_yaxis()
    axis.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncol=3)  # above: bars may be long
    return figure


def confusions_figure(result: Mapping[str, Any]) -> Figure:
    """How often each cue was misread among the words that were found at their place."""
    arms = {name: arm["confusions"] for name, arm in result["arms"].items() if "confusions" in arm}
    figure, axis = subplots(figsize=(7, 2.8))
    width, at = 0.8 / max(len(arms), 1), np.arange(len(avatars.CUES))
    for k, (name, table) in enumerate(arms.items()):
        values = [100 * table[cue]["any"] for cue in avatars.CUES]
        axis.bar(at + (k - (len(arms) - 1) / 2) * width, values, width, label=name, color=color_of(name))
    for k, chance in enumerate((50, 50, 67)):
        label = "guessing" if k == 0 else None
        axis.plot([k - 0.45, k + 0.45], [chance, chance], "--", color=COLORS["hard"], lw=1, label=label)
    axis.set(xticks=at, xticklabels=avatars.CUES, ylabel="% of aligned words", title="which cue was misread")
    axis.legend(frameon=False, fontsize=8)
    return figure


def training_figure(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """The loss of stage 1 and of stage 2 of each arm."""
    figure, axes = subplots(1, 2, figsize=(8, 2.6))
    for axis, stage in zip(axes, ("stage 1", "stage 2"), strict=True):
        for name, lines in curves.items():
            arm, _, of = name.partition(", ")
            if of == stage:
                steps, losses = ([line[key] for line in lines] for key in ("step", "loss"))
                axis.plot(steps, losses, label=arm, color=color_of(arm))
        axis.set(xlabel="step", ylabel="loss", title=f"{stage}: " + ("cross-entropy" if stage == "stage 1" else "CTC"))
    axes[1].legend(frameon=False, fontsize=8)
    return figure


def recorded_figure(values: Mapping[str, Mapping[int, float]]) -> Figure:
    """Word error rates of all recorded arms: the number of each seed, a bar at the mean."""
    figure, axis = subplots(figsize=(7, 0.32 * len(values) + 1.2))
    for row, (name, by_seed) in enumerate(values.items()):
        color = color_of(name)
        for seed, rate in by_seed.items():
            axis.plot(100 * rate, row, marker=f"${seed}$", color=color, ms=8)
        axis.plot([100 * _mean(by_seed)] * 2, [row - 0.35, row + 0.35], color=COLORS["float"], lw=2, zorder=0)
    axis.set(
        yticks=range(len(values)),
        yticklabels=list(values),
        xlabel="word error rate, %",
        xlim=(-2, 105),
        title="each digit is a run, and the seed of it",
    )
    axis.invert_yaxis()
    return figure


def _mean(by_seed: Mapping[int, float]) -> float:
    return sum(by_seed.values()) / len(by_seed)


# -- 7 explore --------------------------------------------------------------------------------------------------------


def player_figure(reading: Reading, position: int = 6, point: int = 6) -> go.Figure:
    """A frame with what the pose branch found, the heat map of one point, and the crops.

    Raises:
        InputError: no such frame or point.
    """
    frames = reading.sentence.frames
    assert isinstance(frames, np.ndarray)
    if not 0 <= position < len(frames) or not 0 <= point < reading.maps.shape[1]:
        raise InputError(f"there are frames 0 to {len(frames) - 1} and points 0 to {reading.maps.shape[1] - 1}.")
    side = frames.shape[1]
    figure = make_subplots(
        1, 2, horizontal_spacing=0.05, subplot_titles=("frame, J and crops", f"heat map of point {point}")
    )
    figure.add_trace(go.Image(source=image_source(frames[position])), 1, 1)
    points = reading.points[position] * (side - 1)
    true = reading.sentence.points
    figure.add_trace(_dots(points, "found", COLORS["ours"]), 1, 1)
    figure.add_trace(
        _dots(true[position][:, ::-1] * (side - 1) if true is not None else points[:0], "true", "white"), 1, 1
    )
    for k, window in ((0, reading.window[0]), (5, reading.window[1]), (6, reading.window[1])):
        figure.add_trace(_square(points[k], window * side / reading.maps.shape[-1]), 1, 1)
    figure.add_trace(go.Heatmap(z=reading.maps[position, point], colorscale="Magma", showscale=False), 1, 2)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.update_yaxes(range=[side - 0.5, -0.5], scaleanchor="x", col=1)
    figure.update_yaxes(autorange="reversed", scaleanchor="x2", col=2)
    return figure.update_layout(
        title=f"frame {position} of {' '.join(reading.sentence.glosses)}", height=380, showlegend=False,
        margin={"t": 70, "b": 20},
    )  # fmt: skip


def _dots(points: np.ndarray, name: str, color: str) -> go.Scatter:
    """Points (row, column) in pixels."""
    return go.Scatter(
        x=points[:, 1], y=points[:, 0], mode="markers", name=name,
        marker={"color": color, "size": 7, "symbol": "circle-open", "line": {"width": 2}},
    )  # fmt: skip


def _square(at: np.ndarray, side: float) -> go.Scatter:
    """A square around a point (row, column)."""
    half = side / 2
    x, y = at[1] + half * np.array([-1, 1, 1, -1, -1]), at[0] + half * np.array([-1, -1, 1, 1, -1])
    return go.Scatter(x=x, y=y, mode="lines", line={"color": CROP, "width": 3})


def player_widget(reading: Reading) -> widgets.VBox:
    return explore(
        lambda position, point: player_figure(reading, position, point),
        position=widgets.IntSlider(6, min=0, max=len(reading.points) - 1, description="frame"),
        point=widgets.IntSlider(6, min=0, max=reading.maps.shape[1] - 1, description="point"),
    )


def ridge_figure(reading: Reading, head: str = "joint", step: int = 2) -> go.Figure:
    """Posteriors of one head over time, of the blank and the five likeliest glosses; four frames of one step's middle.

    Raises:
        InputError: no such head or step.
    """
    if head not in reading.posteriors:
        raise InputError(f"there are the heads {', '.join(reading.posteriors)}; got {head}.")
    table = reading.posteriors[head]
    if not 0 <= step < len(table):
        raise InputError(f"there are steps 0 to {len(table) - 1}; got {step}.")
    frames = reading.sentence.frames
    assert isinstance(frames, np.ndarray)
    figure = make_subplots(
        2,
        4,
        specs=[[{"colspan": 4}, None, None, None], [{}, {}, {}, {}]],
        row_heights=[0.65, 0.35],
        vertical_spacing=0.12,
    )
    names = ("blank", *reading.glosses)
    lines = {"mode": "lines+markers"}
    blank = {"color": COLORS["float"], "dash": "dot"}
    figure.add_trace(go.Scatter(y=table[:, 0], name="blank", line=blank, **lines), 1, 1)
    for label, color, symbol in zip(1 + np.argsort(-table[:, 1:].max(0)), NAMED, SYMBOLS, strict=False):
        marker = {"symbol": symbol, "size": 8}
        figure.add_trace(
            go.Scatter(y=table[:, label], name=names[label], line={"color": color}, marker=marker, **lines), 1, 1
        )
    for k in range(4):
        picture = frames[min(STRIDE * step + k, len(frames) - 1)]
        figure.add_trace(go.Image(source=image_source(picture)), 2, k + 1)
    for k in range(2, 6):
        axis = "" if k == 1 else str(k)
        figure.update_layout({f"xaxis{axis}": {"visible": False}, f"yaxis{axis}": {"visible": False}})
    figure.update_xaxes(title="step", row=1, col=1)
    figure.update_yaxes(title="posterior", range=[-0.02, 1.05], row=1, col=1)
    best = names[int(table[step].argmax())]
    return figure.update_layout(title=f"head: {head}; step {step} says {best}", height=460, margin={"t": 50, "b": 20})


def ridge_widget(reading: Reading) -> widgets.VBox:
    return explore(
        lambda head, step: ridge_figure(reading, head, step),
        head=widgets.Dropdown(options=list(reading.posteriors), description="head"),
        step=widgets.IntSlider(2, min=0, max=len(reading.posteriors["joint"]) - 1, description="step"),
    )


SWITCHES = {
    (True, False, False, False, True): "full-frame", (False, True, False, False, True): "hand-only",
    (False, False, True, False, True): "face-only", (False, False, False, True, True): "pose-only",
    (True, True, True, True, True): "multi-cue", (True, True, True, True, False): "random-crops",
}  # fmt: skip
"""Full frame, hands, face, pose; crops in place: the recorded arm of each setting."""


def switchboard_figure(
    values: Mapping[str, Mapping[int, float]], full: bool = True, hand: bool = True, face: bool = True,
    pose: bool = True, in_place: bool = True,
) -> go.Figure:  # fmt: skip
    """The recorded error rate of the network with these cues; a note where that network was not recorded."""
    arm = SWITCHES.get((full, hand, face, pose, in_place), "")
    recorded = arm in values
    names = [
        name
        for name in ("full-frame", "hand-only", "face-only", "pose-only", "random-crops", "multi-cue")
        if name in values
    ]
    means = [100 * _mean(values[name]) for name in names]
    labels = [f"{name}<br>{len(values[name])} seeds" for name in names]
    colors = [COLORS["ours"] if name == arm else COLORS["straw"] for name in names]
    title = f"{arm}: {100 * _mean(values[arm]):.1f} % WER" if recorded else "these cues together were not recorded"
    return go.Figure(go.Bar(x=labels, y=means, marker={"color": colors})).update_layout(
        title=title, yaxis_title="word error rate, %", yaxis_range=[0, 105], height=330, margin={"t": 50, "b": 40}
    )


def switchboard_widget(values: Mapping[str, Mapping[int, float]]) -> widgets.VBox:
    def switch(name: str) -> widgets.Checkbox:
        return widgets.Checkbox(True, description=name, indent=False)

    return explore(
        lambda **on: switchboard_figure(values, **on),
        full=switch("full frame"), hand=switch("hands"), face=switch("face"), pose=switch("pose"),
        in_place=switch("crops where the hands are"),
    )  # fmt: skip


def alignment_html(sentences: Sequence[Sequence[Edit]]) -> str:
    """References above what was read, word under word; errors in colour."""
    tables = []
    for edits in sentences:
        cells = [
            "<td style='background:{};padding:2px 6px;text-align:center'>{}<br>{}</td>".format(
                KINDS[edit.kind], html.escape(edit.reference or "·"), html.escape(edit.hypothesis or "·")
            )
            for edit in edits
        ]
        tables.append(f"<table><tr><td><b>reference</b><br><b>read</b></td>{''.join(cells)}</tr></table>")
    key = "".join(
        f"<span style='background:{color};padding:1px 6px'>{name}</span> "
        for name, color in (
            ("substituted", KINDS["substitute"]),
            ("deleted", KINDS["delete"]),
            ("inserted", KINDS["insert"]),
        )
    )
    substitutions, deletions, insertions, words = scenes.counts(sentences)
    total = substitutions + deletions + insertions
    line = f"{total} errors in {words} words: {substitutions} substituted, {deletions} deleted, {insertions} inserted"
    return f"<p>{key}</p>{''.join(tables)}<p>{line}</p>"


def strip_figure(sentence: Sentence, count: int = 8) -> Figure:
    """Frames of a sentence, evenly spaced, under the gloss that each belongs to."""
    assert isinstance(sentence.frames, np.ndarray)
    figure, axes = subplots(1, count, figsize=(9, 1.6))
    spans = sentence.meta["spans"]
    for axis, t in zip(axes, np.linspace(0, len(sentence.frames) - 1, count).astype(int), strict=True):
        axis.imshow(sentence.frames[t], interpolation="nearest")
        gloss = next(g for g, (first, last) in zip(sentence.glosses, spans, strict=True) if first <= t <= last)
        axis.set_title("\n".join(gloss.split("-")), fontsize=7)
        axis.set_axis_off()
    return figure
