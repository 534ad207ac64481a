"""The notebook's pictures. Pure: the same input gives the same arrays; tested without a browser.

Colors: the paper's cascade and what it finds blue, single relations orange and brown, own features grey, truth dark.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from plotly.subplots import make_subplots

from labkit.errors import InputError
from labkit.papers.lstr.experiment import actors
from labkit.papers.lstr.method.backbone import SmallBackbone
from labkit.papers.lstr.teaching import scenes
from labkit.papers.lstr.teaching.scenes import Look, Proposed, Walk, Web
from labkit.viz import COLORS, NAMED, explore, image_source, subplots

ARM_COLORS = {"roi": COLORS["float"], "short": COLORS["baseline"], "long": COLORS["straw"], "cascade": COLORS["ours"]}


def color_of(arm: str) -> str:
    return ARM_COLORS.get(arm, COLORS["baseline"])


# -- 1 the idea -------------------------------------------------------------------------------------------------------


def idea_figure(settings: actors.Actors = actors.STANDARD) -> Figure:
    """Five clips of one video: what stands beside an actor now, and what happened to it before."""
    videos, video, color = scenes.story(settings)
    figure, axes = subplots(1, 5, figsize=(10, 2.6))
    for clip, axis in enumerate(axes):
        axis.imshow(scenes.picture(videos, video, clip), interpolation="nearest")
        axis.set_axis_off()
        for a in range(2):
            same = int(videos.identity[video, clip, a]) == color
            _box(axis, videos.boxes[video, clip, a, 0].numpy(), COLORS["ours"] if same else COLORS["float"])
            if same:
                label = actors.CLASSES[int(videos.labels[video, clip, a])]
                axis.set_title(f"clip {clip}: {label}", fontsize=9, color=COLORS["ours"])
    return figure


def _box(axis: Axes, box: np.ndarray, color: str, style: str = "-", width: int | float = 2) -> None:
    x1, y1, x2, y2 = box
    axis.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, ec=color, lw=width, ls=style))


def reach_figure() -> Figure:
    """What the features under an actor's box can see, in the standard videos and in our first design."""
    figure, axes = subplots(1, 2, figsize=(7, 3.2))
    for axis, settings, title in (
        (axes[0], actors.STANDARD, "these videos: the object is out of sight"),
        (axes[1], actors.NEARER, "our first design: the box sees the object"),
    ):
        videos = actors.videos(60, scenes.SEED, actors.TEST, settings)
        axis.imshow(scenes.picture(videos, 3, 0), interpolation="nearest")
        box = videos.boxes[3, 0, 0, 0].numpy()
        _box(axis, box, COLORS["ours"])
        margin = actors.least_reach(settings, SmallBackbone.stride, SmallBackbone.receptive_field)
        margin -= settings.box
        _box(axis, box + np.array([-margin, -margin, margin, margin]), COLORS["bad"], "--")
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    return figure


# -- 4 the method -----------------------------------------------------------------------------------------------------


def anchors_figure() -> Figure:
    """Anchors of a clip: positive ones, negative ones, those that count for nothing."""
    picture, still, kind, truth = scenes.assigned_anchors()
    figure, axis = subplots(1, 1, figsize=(3.6, 3.6))
    axis.imshow(picture, interpolation="nearest")
    center = (still[:, :2] + still[:, 2:]) / 2
    for value, color, size, name in (
        (0, "float", 6, "negative"),
        (-1, "straw", 22, "neither"),
        (1, "ours", 60, "positive"),
    ):
        chosen = center[kind == value]
        edge = "white" if value == 1 else "none"
        axis.scatter(
            chosen[:, 0], chosen[:, 1], s=size, color=COLORS[color], edgecolors=edge, label=name, zorder=2 + value
        )
    for box in truth:
        _box(axis, box, "white")
    axis.legend(fontsize=7, loc="upper center", ncols=3, bbox_to_anchor=(0.5, -0.02), frameon=False)
    axis.set_axis_off()
    return figure


def proposals_figure(proposed: Proposed) -> Figure:
    """The best proposals of a clip, blue the two that are kept, with scores and overlaps."""
    figure, (left, right) = subplots(1, 2, figsize=(7, 3), width_ratios=(1, 1.3))
    left.imshow(proposed.picture, interpolation="nearest")
    for box in proposed.truth:
        _box(left, box, "white", width=3)
    for k, box in enumerate(proposed.boxes):
        _box(left, box, COLORS["ours"] if k < 2 else COLORS["baseline"], width=1.5)
    left.set_axis_off()
    left.set_title("white: truth; blue: kept", fontsize=9)
    at = np.arange(len(proposed.scores))
    right.bar(at - 0.2, proposed.scores, 0.4, color=COLORS["ours"], label="objectness")
    right.bar(at + 0.2, proposed.overlaps, 0.4, color=COLORS["hard"], label="overlap with the truth")
    right.set(xticks=at, xlabel="proposal, best first", ylim=(0, 1.05))
    right.legend(frameon=False, fontsize=8)
    return figure


# -- 6 compare --------------------------------------------------------------------------------------------------------


def blocks_figure(result: Mapping[str, Any], settings: actors.Actors = actors.STANDARD) -> Figure:
    """What each network knows of the two halves of the label, with the ceilings of who knows less."""
    names, limits = list(result["arms"]), scenes.ceilings(settings)
    figure, (left, right) = subplots(1, 2, figsize=(9, 3), sharey=True)
    for axis, key, title in (
        (left, "object", "S: which object stands there"),
        (right, "late", "L: was there an event before"),
    ):
        values = [result["arms"][name][key] for name in names]
        axis.bar(names, values, color=[color_of(name) for name in names])
        axis.set_title(title)
        axis.tick_params(axis="x", rotation=90 if len(names) > 6 else 0)
        axis.set_ylim(0, 1.05)
        lines = (
            {"chance": 1 / 3} if key == "object" else {"likelier answer": limits["guess"], "counts": limits["count"]}
        )
        for name, level in lines.items():
            axis.axhline(level, color=COLORS["hard"], lw=1, ls="--")
            axis.text(1.01, level, name, fontsize=8, va="center", transform=axis.get_yaxis_transform())
    left.set_ylabel("accuracy, true boxes given")
    return figure


def comparison_figure(result: Mapping[str, Any]) -> Figure:
    """Frame-mAP and video-mAP of every arm, end to end on proposals."""
    names = list(result["arms"])
    figure, axes = subplots(1, 2, figsize=(9, 3), sharey=True)
    for axis, title, read in (
        (axes[0], "frame-mAP at overlap .5", lambda arm: arm["frame_map"]),
        (axes[1], "video-mAP of walking videos at .5", lambda arm: arm.get("video", {}).get("0.5", np.nan)),
    ):
        values = [read(result["arms"][name]) for name in names]
        axis.bar(names, values, color=[color_of(name) for name in names])
        for k, value in enumerate(values if len(names) <= 8 else ()):  # more numbers would cover each other
            axis.text(k, value + 0.01, f"{value:.2f}", ha="center", fontsize=8)
        axis.set_title(title)
        axis.tick_params(axis="x", rotation=90 if len(names) > 6 else 0)
        axis.set_ylim(0, 1.05)
    axes[0].set_ylabel("mean average precision")
    return figure


def recorded_figure(panels: Mapping[str, Mapping[str, Sequence[float]]], unit: str) -> Figure:
    """Recorded arms, a dot a seed and a bar at the mean; one panel a record."""
    shown = {title: arms for title, arms in panels.items() if arms}
    if not shown:
        raise InputError("nothing is recorded.")
    longest = max(len(arms) for arms in shown.values())
    figure, axes = subplots(1, len(shown), figsize=(4.6 * len(shown), 0.28 * longest + 1.2), squeeze=False)
    for axis, (title, arms) in zip(axes[0], shown.items(), strict=True):
        for k, (name, values) in enumerate(arms.items()):
            axis.scatter(values, [k] * len(values), s=18, color=color_of(name), zorder=2)
            axis.plot([np.mean(values)] * 2, [k - 0.3, k + 0.3], color=COLORS["hard"], lw=2)
        axis.set_yticks(range(len(arms)), list(arms), fontsize=8)
        axis.set(title=title, xlabel=unit, xlim=(0, 1.02))
        axis.invert_yaxis()
        axis.grid(axis="x", lw=0.4)
    return figure


# -- 7 explore --------------------------------------------------------------------------------------------------------


def attention_figure(looks: Sequence[Look], clip: int = 0, actor: int = 0, part: str = "both") -> go.Figure:
    """An actor's attention over its clip: as it is, or from one of the two terms of its score alone."""
    look = looks[clip]
    figure = make_subplots(1, 2, subplot_titles=("the clip's first frame", f"attention: {part}"))
    figure.add_trace(go.Image(source=_source(look.picture)), 1, 1)
    weights = look.weights[part][actor]
    at = np.arange(weights.shape[0]) * SmallBackbone.stride
    figure.add_trace(go.Heatmap(z=weights, x=at, y=at, colorscale="Magma", showscale=False, zmin=0), 1, 2)
    x1, y1, x2, y2 = look.boxes[actor].tolist()
    for column in (1, 2):
        outline = {"color": COLORS["ours"] if column == 1 else "white", "width": 3}
        figure.add_trace(
            go.Scatter(x=[x1, x2, x2, x1, x1], y=[y1, y1, y2, y2, y1], mode="lines", line=outline, showlegend=False),
            1, column,
        )  # fmt: skip
        figure.update_xaxes(range=[-0.5, 55.5], visible=False, row=1, col=column)
        figure.update_yaxes(
            range=[55.5, -0.5], visible=False, scaleanchor="x" if column == 1 else "x2", row=1, col=column
        )
    named = {"square": "a square", "cross": "a cross", "hollow": "a hollow square"}
    title = f"clip {clip}, actor {actor} beside {named[look.objects[actor]]}"
    return figure.update_layout(title=title, height=330, width=640, margin={"t": 70, "b": 10, "l": 10, "r": 10})


def attention_widget(looks: Sequence[Look]) -> widgets.VBox:
    return explore(
        lambda clip, actor, part: attention_figure(looks, clip, actor, part),
        clip=widgets.IntSlider(0, min=0, max=len(looks) - 1, description="clip"),
        actor=widgets.IntSlider(0, min=0, max=1, description="actor"),
        part=widgets.Dropdown(options=("both", "content", "geometry"), description="score from"),
    )


def web_figure(shown: Web, node: int = 8, threshold: float = 0.1, hops: int = 1) -> go.Figure:
    """Tubelets clip by clip; lines to those that `node` listens to, over `hops` steps, thicker for more weight."""
    k = int((shown.clip == 0).sum())
    x, y = shown.clip.astype(float), np.arange(len(shown.clip)) % k
    figure, reached, connected = go.Figure(), {node}, {node}
    edges: list[tuple[int, int, float]] = []
    for _ in range(hops):
        candidates = [(i, j, float(shown.adjacency[i, j])) for i in reached for j in range(len(x)) if j != i]
        fresh = [edge for edge in candidates if edge[2] >= threshold]
        edges += fresh
        reached = {j for _, j, _ in fresh} - connected
        connected |= reached
    for width, low, high in ((1.5, 0.0, 0.2), (4, 0.2, 0.5), (8, 0.5, 1.01)):
        kept = [(i, j) for i, j, w in edges if low <= w < high]
        xs = [value for i, j in kept for value in (x[i], x[j], None)]
        ys = [value for i, j in kept for value in (y[i], y[j], None)]
        figure.add_trace(go.Scatter(x=xs, y=ys, mode="lines", line={"width": width, "color": COLORS["straw"]},
                                    name=f"weight {low:g} to {min(high, 1):g}"))  # fmt: skip
    outline = [COLORS["bad"] if i == node else "black" if shown.event[i] else "white" for i in range(len(x))]
    colors = [f"rgb({','.join(str(int(255 * c)) for c in actors.COLORS[i])})" for i in shown.identity]
    text = [
        ", ".join(["listens"] * (i == node) + ["event"] * bool(shown.event[i]) + ["later"] * bool(shown.labels[i] % 2))
        for i in range(len(x))
    ]
    marker = {"size": 26, "color": colors, "line": {"width": 4, "color": outline}}
    figure.add_trace(go.Scatter(x=x, y=y, mode="markers", showlegend=False, marker=marker))
    figure.add_trace(go.Scatter(x=x, y=y + 0.22, mode="text", text=text, showlegend=False))
    steps = "1 hop" if hops == 1 else f"{hops} hops"
    others = "1 other" if len(connected) == 2 else f"{len(connected) - 1} others"
    title = f"tubelet {node} listens to {others} (weight {threshold:g} or more, {steps})"
    return figure.update_layout(
        title=title, height=330, width=700, margin={"t": 60, "b": 50},
        xaxis={"title": "clip", "tickvals": list(range(int(shown.clip.max()) + 1))},
        yaxis={"visible": False, "range": [-0.6, k - 0.2]}, legend={"orientation": "h", "y": -0.25},
    )  # fmt: skip


def web_widget(shown: Web) -> widgets.VBox:
    last = len(shown.clip) - 1
    first = int(np.flatnonzero((shown.labels % 2 == 1) & (shown.clip == shown.clip[-1]))[0])
    return explore(
        lambda node, threshold, hops: web_figure(shown, node, threshold, hops),
        node=widgets.IntSlider(first, min=0, max=last, description="tubelet"),
        threshold=widgets.FloatSlider(0.1, min=0.01, max=0.9, step=0.01, description="least weight"),
        hops=widgets.IntSlider(1, min=1, max=3, description="hops"),
    )


def tube_figure(walk: Walk, beta: float = 0.0, clip: int = 0) -> go.Figure:
    """A clip with the best path's box, and the scores of both tubelets in all clips with the path through them."""
    best = scenes.linked(walk, beta)[0]
    figure = make_subplots(1, 2, subplot_titles=(f"clip {clip}", f'score of "{walk.label}"'), column_widths=[0.4, 0.6])
    figure.add_trace(go.Image(source=_source(walk.pictures[clip])), 1, 1)
    for k in range(2):
        x1, y1, x2, y2 = walk.boxes[clip, k, 0].tolist()
        line = {"color": COLORS["ours"] if best.nodes[clip] == k else COLORS["float"], "width": 3}
        figure.add_trace(
            go.Scatter(x=[x1, x2, x2, x1, x1], y=[y1, y1, y2, y2, y1], mode="lines", line=line, showlegend=False), 1, 1
        )
    clips = list(range(len(walk.scores)))
    for k in range(2):
        marker = {"size": 10, "color": (NAMED[0], NAMED[3])[k], "symbol": ("circle", "square")[k]}
        dots = go.Scatter(x=clips, y=walk.scores[:, k], mode="markers", name=f"tubelet {k}", marker=marker)
        figure.add_trace(dots, 1, 2)
    path = [float(walk.scores[c, i]) for c, i in enumerate(best.nodes)]
    figure.add_trace(go.Scatter(x=clips, y=path, mode="lines", name="best path", line={"color": COLORS["ours"]}), 1, 2)
    figure.update_xaxes(range=[-0.5, 55.5], visible=False, row=1, col=1)
    figure.update_yaxes(range=[55.5, -0.5], visible=False, scaleanchor="x", row=1, col=1)
    figure.update_xaxes(title="clip", tickvals=clips, row=1, col=2)
    changes = int((np.diff(best.nodes) != 0).sum())
    title = f"β = {beta:g}: changes of actor on the path: {changes}, mean score {best.score:.2f}"
    return figure.update_layout(title=title, height=320, width=720, margin={"t": 70, "b": 50, "l": 20})


def tube_widget(walk: Walk) -> widgets.VBox:
    return explore(
        lambda beta, clip: tube_figure(walk, beta, clip),
        beta=widgets.FloatSlider(0.0, min=0.0, max=1.0, step=0.02, description="β"),
        clip=widgets.IntSlider(0, min=0, max=len(walk.scores) - 1, description="clip"),
    )


def precision_figure(shift: float = 0.0, threshold: float = 0.5, score: float = 0.9) -> go.Figure:
    """Three truths, five detections, one of which can be moved; precision against recall with the area that counts."""
    curve, moved, scores = scenes.curve(shift, threshold, score), scenes.DETECTED.copy(), scenes.SCORES.copy()
    moved[0, [0, 2]] += shift
    scores[0] = score
    figure = make_subplots(1, 2, subplot_titles=("truth dark, detections blue", "precision against recall"))
    for boxes, color, width in ((scenes.TRUTH, COLORS["hard"], 3), (moved, COLORS["ours"], 1.5)):
        xs = [v for x1, _, x2, _ in boxes.tolist() for v in (x1, x2, x2, x1, x1, None)]
        ys = [v for _, y1, _, y2 in boxes.tolist() for v in (y1, y1, y2, y2, y1, None)]
        figure.add_trace(
            go.Scatter(x=xs, y=ys, mode="lines", line={"color": color, "width": width}, showlegend=False), 1, 1
        )
    below = np.where(np.arange(len(moved)) < len(moved) - 1, moved[:, 3] + 4, moved[:, 1] - 5)  # the last: above
    figure.add_trace(go.Scatter(x=moved[:, [0, 2]].mean(1), y=below, mode="text", text=[f"{s:.2f}" for s in scores],
                                showlegend=False), 1, 1)  # fmt: skip
    recall, envelope = np.concatenate([[0], curve.recall]), np.concatenate([curve.envelope[:1], curve.envelope])
    figure.add_trace(go.Scatter(x=recall, y=envelope, mode="lines", line={"shape": "vh", "color": COLORS["ours"]},
                                fill="tozeroy", name="envelope"), 1, 2)  # fmt: skip
    figure.add_trace(go.Scatter(x=curve.recall, y=curve.precision, mode="markers+lines", name="after each detection",
                                line={"color": COLORS["float"]}), 1, 2)  # fmt: skip
    figure.update_xaxes(range=[0, 100], visible=False, row=1, col=1)
    figure.update_yaxes(range=[75, 0], visible=False, row=1, col=1)
    figure.update_xaxes(title="recall", range=[0, 1.05], row=1, col=2)
    figure.update_yaxes(title="precision", range=[0, 1.05], row=1, col=2)
    title = f"overlap of the moved box {curve.overlap:.2f}; AP {curve.ap:.3f}"
    return figure.update_layout(
        title=title, height=330, width=760, margin={"t": 70, "b": 50}, legend={"y": 0.1, "x": 0.6}
    )


def precision_widget() -> widgets.VBox:
    return explore(
        precision_figure,
        shift=widgets.FloatSlider(0.0, min=-15.0, max=15.0, step=0.5, description="shift, pixels"),
        threshold=widgets.FloatSlider(0.5, min=0.05, max=0.95, step=0.05, description="threshold"),
        score=widgets.FloatSlider(0.9, min=0.05, max=1.0, step=0.05, description="its score"),
    )


def detected_figure(
    frames: Sequence[np.ndarray], truth: Sequence[Any], detected: Sequence[Any], classes: Sequence[str]
) -> Figure:
    """Spans of true and found tubes over the frames of a walking video, beside two of its frames with boxes."""
    figure, axes = subplots(1, 3, figsize=(10, 2.8), width_ratios=(1, 1, 1.8))
    for axis, t in zip(axes[:2], (0, len(frames) - 1), strict=True):
        axis.imshow(frames[t], interpolation="nearest")
        for tube in truth:
            if tube.start <= t < tube.end:
                _box(axis, tube.boxes[t - tube.start], "white", width=3)
        for tube in detected:
            if tube.start <= t < tube.end:
                _box(axis, tube.boxes[t - tube.start], COLORS["ours"])
        axis.set_title(f"frame {t}", fontsize=9)
        axis.set_axis_off()
    rows = [(tube, COLORS["hard"], "true") for tube in truth] + [(tube, COLORS["ours"], "found") for tube in detected]
    for k, (tube, color, name) in enumerate(rows):
        axes[2].barh(k, tube.end - tube.start, left=tube.start, color=color, height=0.7)
        score = "" if name == "true" else f" {tube.score:.2f}"
        axes[2].text(tube.end + 0.1, k, f"{classes[tube.label]}{score}", va="center", fontsize=8)
    axes[2].set(yticks=[], xlabel="frame", xlim=(0, len(frames) + 5), title="dark: true tubes; blue: found")
    axes[2].invert_yaxis()
    return figure


def _source(pixels: np.ndarray) -> str:
    """A picture in 0..1 as a data address."""
    return image_source((pixels * 255).round().astype(np.uint8))
