"""The notebook's pictures. Pure: the same input gives the same arrays; tested without a browser.

Colours: the target and the cascade blue, rivals orange, stage 1 grey, what is lost red.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from plotly.subplots import make_subplots

from labkit.data import tracking
from labkit.errors import InputError
from labkit.metrics.intervals import bootstrap_band
from labkit.metrics.tracking import OVERLAPS, SupervisedRun, eao_curve
from labkit.papers.crt.experiment.claims import CLAIMS
from labkit.papers.crt.experiment.config import MINING
from labkit.papers.crt.experiment.tracking import Track
from labkit.papers.crt.method import ridge
from labkit.papers.crt.method.convolution import Convolution, Regression
from labkit.papers.crt.method.gauss_newton import Trace
from labkit.papers.crt.method.ridge_head import Mining
from labkit.papers.crt.teaching import rehearsal, scenes
from labkit.papers.crt.teaching.rehearsal import Rehearsal
from labkit.papers.crt.teaching.scenes import DIMENSIONS, Cost, HardNegative, Snapshot, operations
from labkit.viz import COLORS, NAMED, explore, image_source, subplots

ARM_COLORS = {"stage-1": COLORS["float"], "cascade": COLORS["ours"]}
STRIDE, SIZE = 4, 160


def color_of(arm: str) -> str:
    """Stage 1 alone and the cascade as everywhere; other arms as rivals."""
    return ARM_COLORS.get(arm, COLORS["baseline"])


# -- 1 the idea in one picture ----------------------------------------------------------------------------------------


def idea_figure(situation: scenes.Situation | None = None) -> Figure:
    """One frame, two outcomes: stage 1 alone follows a look-alike, both stages together follow the target."""
    shown = situation or scenes.two_outcomes()
    figure, axes = subplots(1, 3, figsize=(8, 3.4))
    snapshot = shown.snapshot
    width, height = snapshot.size
    alone = int(snapshot.s1.argmax())
    pictures = (
        (shown.first, (SIZE / 2, SIZE / 2), "hard", "given: the target in frame 0"),
        (snapshot.picture, snapshot.at[alone], "bad", f"frame {snapshot.number}, stage 1 alone:\na look-alike"),
        (snapshot.picture, snapshot.at[snapshot.winner], "ours", f"frame {snapshot.number}, both stages:\nthe target"),
    )
    for axis, (picture, (x, y), color, title) in zip(axes, pictures, strict=True):
        axis.imshow(picture, interpolation="nearest")
        axis.add_patch(Rectangle((x - width / 2, y - height / 2), width, height, fill=False, ec=COLORS[color], lw=3))
        axis.set_title(title, color=COLORS[color])
        axis.set_axis_off()
    return figure


def snapshot_figure(snapshot: Snapshot, title: str = "") -> Figure:
    """Search image with candidates, stage 1's score map, and both scores of each candidate."""
    figure, (left, middle, right) = subplots(1, 3, figsize=(8, 2.6), width_ratios=(1, 1, 1.2))
    left.imshow(snapshot.picture, interpolation="nearest")
    middle.imshow(snapshot.scores, cmap="magma", extent=(0, SIZE, SIZE, 0), vmin=min(0.0, float(snapshot.scores.min())))
    width, height = snapshot.size
    for k, (x, y) in enumerate(snapshot.at):
        color = COLORS["ours"] if k == snapshot.target else COLORS["baseline"]
        for axis in (left, middle):
            axis.add_patch(Rectangle((x - width / 2, y - height / 2), width, height, fill=False, ec=color, lw=1.5))
        left.text(x - width / 2, y - height / 2 - 2, str(k), color=color, fontsize=8)
    left.set_title(f"search image, frame {snapshot.number}")
    middle.set_title("stage 1: score of every cell")
    for axis in (left, middle):
        axis.set_axis_off()
    _score_bars(right, snapshot)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _score_bars(axis: Any, snapshot: Snapshot) -> None:
    at = np.arange(len(snapshot.s1))
    colors = [COLORS["ours"] if k == snapshot.target else COLORS["baseline"] for k in at]
    axis.bar(at - 0.2, snapshot.s1, 0.4, color=COLORS["float"], label="stage 1")
    axis.bar(at + 0.2, snapshot.s2, 0.4, color=colors, label="stage 2")
    axis.set(xticks=at, xlabel="candidate (blue: the target)", ylabel="score", title="both scores of each candidate")
    axis.axhline(0, color=COLORS["hard"], lw=0.5)
    axis.legend(frameon=False, fontsize=8)


# -- 5 prove it -------------------------------------------------------------------------------------------------------


@cache
def convergence(kind: str) -> tuple[list[float], ...]:
    """Losses while the filter of a generated clip's first frame is learned: 10 CG steps at a time, PR and FR."""
    x, centre, sigma = _first_frame()
    curves = []
    for beta in ("PR", "FR"):
        trace = Trace()
        settings = Convolution(activation=kind, beta=beta, first_steps=(1,))  # type: ignore[arg-type]
        regression = Regression(settings, 16, sigma)
        regression.first(x, centre)
        for _ in range(8):
            regression.improve((5,), trace)
        curves.append([float(loss) for loss in trace.losses])
    return tuple(curves)


@cache
def _first_frame() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    from labkit.papers.crt.experiment.clips import look_alikes
    from labkit.papers.crt.method.crop import View, crop
    from labkit.papers.crt.method.features import hand_made

    clip = look_alikes(seed=2)
    box = torch.from_numpy(clip.boxes[0]).float()
    view = View((box[:2] + box[2:] / 2)[None], 5 * box[2:].prod().sqrt()[None], SIZE)
    maps = hand_made(crop([clip.frames[0]], view), STRIDE)
    sigma = (box[2:] * SIZE / float(view.side) / STRIDE / 4)[None]
    return maps[None], torch.full((1, 1, 2), SIZE / 2 / STRIDE), sigma


def convergence_figure() -> Figure:
    """Half the squared residual against conjugate-gradient steps, for both betas and both activations."""
    figure, axes = subplots(1, 2, figsize=(9, 2.8))
    for axis, kind, name in zip(axes, ("identity", "mlu"), ("φ = identity: linear", "φ = MLU"), strict=True):
        for losses, beta, line in zip(
            convergence(kind), ("Polak-Ribière", "Fletcher-Reeves"), ("-", "--"), strict=True
        ):
            axis.plot(5 * np.arange(len(losses)) + 1, losses, line, color=COLORS["ours"], label=beta)
        axis.set(xlabel="conjugate-gradient steps", ylabel="half squared residual", title=name, yscale="log")
        axis.legend(frameon=False, fontsize=8)
    return figure


def loo_figure(noise: float = 0.1) -> go.Figure:
    """Leave-one-out error against lam: closed form (line), refits (dots).  noise: added to the labels."""
    if noise < 0:
        raise InputError(f"noise must not be negative; got {noise}.")
    rows = scenes.frame_rows()
    generator = torch.Generator().manual_seed(0)
    y = rows.y + noise * torch.randn(rows.y.shape, generator=generator, dtype=torch.float64)
    lams = np.logspace(-5, 1, 25)
    fast = [float((rows.omega * ridge.leave_one_out(rows.x, y, float(lam), rows.omega) ** 2).sum()) for lam in lams]
    slow = [_refitted(rows.x, y, rows.omega, float(lam)) for lam in lams[::8]]
    inside = [
        float(
            (rows.omega * (y - (rows.x @ ridge.fit(rows.x, y, float(lam), rows.omega)[..., None])[..., 0]) ** 2).sum()
        )
        for lam in lams
    ]
    best = lams[int(np.argmin(fast))]
    figure = go.Figure(
        [
            go.Scatter(x=lams, y=fast, name="leave one out, one fit", line={"color": COLORS["ours"]}),
            go.Scatter(x=lams[::8], y=slow, mode="markers", name="really left out", marker={"color": COLORS["hard"]}),
            go.Scatter(x=lams, y=inside, name="training error", line={"color": COLORS["float"], "dash": "dot"}),
        ]
    )
    return figure.update_layout(
        title=f"best λ {best:.2g}", xaxis={"type": "log", "title": "λ"},
        yaxis={"type": "log", "title": "squared error"},
        height=320, margin={"t": 40, "b": 40},
    )  # fmt: skip


def _refitted(x: torch.Tensor, y: torch.Tensor, omega: torch.Tensor, lam: float) -> float:
    total = 0.0
    for i in range(x.shape[1]):
        kept = torch.arange(x.shape[1]) != i
        w = ridge.fit(x[:, kept], y[:, kept], lam, omega[:, kept])
        total += float(omega[0, i] * (y[0, i] - x[0, i] @ w[0]) ** 2)
    return total


def loo_widget() -> widgets.VBox:
    return explore(loo_figure, noise=widgets.FloatSlider(0.1, min=0.0, max=0.5, step=0.05, description="label noise"))


def cost_figure(d: int = 576, measured: Sequence[Cost] = ()) -> go.Figure:
    """Cost of primal and dual against the number of rows n, for d features; where they cross.

    Lines count operations. With measured solves (dots) they are milliseconds, at the speed of the quickest of all.
    """
    if d < 1:
        raise InputError(f"d must be at least 1; got {d}.")
    n = np.unique(np.logspace(1, 4, 60).astype(int))
    primal, dual = operations("primal", n, d), operations("dual", n, d)
    crossing = int(n[np.argmax(dual > primal)]) if (dual > primal).any() else int(n[-1])
    speed = max((operations(c.form, c.n, c.d) / c.milliseconds for c in measured), default=1.0)
    colors = {"primal": NAMED[0], "dual": NAMED[3]}
    running = np.full(len(n), operations("primal", 29, d))
    lines = (("primal: d x d", primal, colors["primal"], "solid"), ("dual: n x n", dual, colors["dual"], "solid"),
             ("running Gram, per frame", running, COLORS["ours"], "dash"))  # fmt: skip
    figure = go.Figure(
        [go.Scatter(x=n, y=y / speed, name=name, line={"color": color, "dash": dash}) for name, y, color, dash in lines]
    )
    for form, color in colors.items():
        dots = [(c.n, c.milliseconds) for c in measured if (c.form, c.d) == (form, d)]
        x, y = zip(*dots, strict=True) if dots else ((), ())
        marker = {"color": color, "size": 9, "symbol": "circle" if form == "primal" else "square"}
        figure.add_scatter(x=x, y=y, mode="markers", name=f"{form}, measured", marker=marker)
    return figure.update_layout(
        title=f"{d} features: the dual is cheaper up to about {crossing:,} rows", height=320, margin={"t": 40, "b": 40},
        xaxis={"type": "log", "title": "rows n"},
        yaxis={"type": "log", "title": "milliseconds" if measured else "operations"},
    )  # fmt: skip


def cost_widget(measured: Sequence[Cost]) -> widgets.VBox:
    choice = widgets.SelectionSlider(options=list(DIMENSIONS), value=576, description="features d")
    return explore(lambda d: cost_figure(d, measured), d=choice)


# -- 6 compare --------------------------------------------------------------------------------------------------------


def comparison_figure(result: Mapping[str, Any]) -> Figure:
    """Lost frames of each clip and arm; lines join the same clip.  Footage, where there is some, stands on the left."""
    panels = [(name, part["arms"]) for group in ("footage", "clips") for name, part in result.get(group, {}).items()]
    if not panels:
        raise InputError("the result holds neither clips nor footage.")
    figure, axes = subplots(1, len(panels), figsize=(9, 3), squeeze=False, sharey=True)
    for axis, (name, arms) in zip(axes[0], panels, strict=True):
        names = list(arms)
        table = np.array([arms[arm]["each"]["lost"] for arm in names])
        for column in table.T:
            axis.plot(range(len(names)), column, color=COLORS["straw"], lw=0.8, zorder=1)
        for k, arm in enumerate(names):
            axis.scatter([k] * table.shape[1], table[k], s=14, color=color_of(arm), zorder=2)
            axis.plot([k - 0.25, k + 0.25], [table[k].mean()] * 2, color=COLORS["hard"], lw=2, zorder=3)
        axis.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
        axis.set(title=name, ylim=(-0.03, 1.0))
    axes[0, 0].set_ylabel("lost frames (overlap 0)")
    return figure


def success_figure(result: Mapping[str, Any], kind: str, arms: Sequence[str] = ("stage-1", "cascade")) -> Figure:
    """Success curves with bootstrap bands over clips; the dashed line is what a perfect tracker reaches: 20 of 21."""
    figure, axis = subplots(figsize=(5, 3.2))
    curves = scenes.success_curves(dict(result), kind)
    for arm in arms:
        mean, color = curves[arm].mean(0), color_of(arm)
        axis.step(OVERLAPS, mean, where="post", color=color, label=f"{arm}: {mean.mean():.3f}")
        if len(curves[arm]) > 1:
            low, high = bootstrap_band(curves[arm])
            axis.fill_between(OVERLAPS, low, high, step="post", color=color, alpha=0.15)
    axis.plot([0, 0.95, 0.95, 1], [1, 1, 0, 0], ls="--", lw=1, color=COLORS["hard"], label="perfect: 20/21 = .952")
    axis.set(
        xlabel="overlap t", ylabel="frames with overlap > t", xlim=(0, 1.02), ylim=(0, 1.03), title=f"clips: {kind}"
    )
    axis.legend(frameon=False, fontsize=8, loc="lower left")
    return figure


def mining_figure() -> Figure:
    """Recorded runs: each reading of hard negative mining against the same cascade without it, with hand-made and with
    learned features; means over clips and 95 % intervals of a paired bootstrap.
    """
    figure, axes = subplots(1, 2, figsize=(8.5, 3.2), sharey=True)
    margin = next(claim.margin for claim in CLAIMS if claim.key == "mining-helps-learned-features")
    kinds = (("mining", "cascade", "", "float", "hand-made features"),
             ("mining-learned", "cascade-learned", "-learned", "ours", "learned features"))  # fmt: skip
    for axis, value, title in zip(axes, ("auc", "lost"), ("success (right is better)", "lost frames (left is better)"),
                                  strict=True):  # fmt: skip
        for offset, (label, theirs, ending, color, name) in zip((0.15, -0.15), kinds, strict=True):
            gains = scenes.recorded_gains(label, theirs, value)
            rows = [(k + offset, gains[way + ending]) for k, way in enumerate(MINING) if way + ending in gains]
            at, shown = [y for y, _ in rows], [gain for _, gain in rows]
            clips = f", {shown[0].replicates} clips" if rows else ": not recorded"
            axis.hlines(at, [gain.low for gain in shown], [gain.high for gain in shown], color=COLORS[color])
            axis.plot([gain.value for gain in shown], at, "o", ms=4, color=COLORS[color], label=name + clips)
        axis.axvline(0, color=COLORS["hard"], lw=0.7)
        if value == "auc":
            axis.axvline(margin, color=COLORS["good"], lw=0.9, ls="--", label=f"what counts as help: {margin:g}")
        axis.set(title=title, xlabel="difference from no mining")
        axis.set_yticks(range(len(MINING)), MINING)
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside lower center", ncols=3)
    return figure


def minority_figure(result: Mapping[str, Any], arm: str = "cascade") -> Figure:
    """Few cells are hard, and they carry much of stage 1's answer on negatives; one pair of bars a source."""
    panels = [(n, part["arms"][arm]) for g in ("footage", "clips") for n, part in result.get(g, {}).items()]
    figure, axis = subplots(figsize=(7, 2.6))
    at = np.arange(len(panels))
    for offset, key, label, color in ((-0.2, "hard_share", "share of the negative cells", "float"),
                                      (0.2, "hard_response", "share of the response on negatives", "bad")):  # fmt: skip
        values = [100 * scores[key] for _, scores in panels]
        bars = axis.bar(at + offset, values, 0.4, color=COLORS[color], label=label)
        axis.bar_label(bars, fmt="%.1f %%", fontsize=8)
    axis.set_xticks(at, [name for name, _ in panels])
    axis.set(ylabel="%", ylim=(0, 100), title="hard negatives: share of the cells, share of the response")
    axis.legend(frameon=False, fontsize=8)
    return figure


def hard_negatives_figure(negatives: Sequence[HardNegative]) -> Figure:
    """The ring buffer of hardest negatives, as pictures."""
    figure, axes = subplots(1, max(1, len(negatives)), figsize=(6, 1.25), squeeze=False)
    if not negatives:
        axes[0, 0].text(0.5, 0.5, "the gate admitted no hard negative", ha="center")
    for axis, each in zip(axes[0], negatives, strict=False):
        axis.imshow(each.patch, interpolation="nearest")
        axis.set_title(f"frame {each.frame}\n{each.score:+.2f}", fontsize=8)
    for axis in axes[0]:
        axis.set_axis_off()
    return figure


# -- 7 explore --------------------------------------------------------------------------------------------------------


def scrubber_figure(snapshots: Sequence[Snapshot], position: int = 0) -> go.Figure:
    """One frame of a tracked video: candidates on the search image, stage 1's map, the pair of scores of each
    candidate.
    """
    if not 0 <= position < len(snapshots):
        raise InputError(f"there are frames 0 to {len(snapshots) - 1}; got {position}.")
    snapshot = snapshots[position]
    figure = make_subplots(
        1, 3, column_widths=[0.3, 0.3, 0.4], subplot_titles=("search image", "stage 1: map", "stage 1 grey, 2 colour")
    )
    colors = [COLORS["ours"] if k == snapshot.target else COLORS["baseline"] for k in range(len(snapshot.s1))]
    x, y = snapshot.at[:, 0], snapshot.at[:, 1]
    figure.add_trace(go.Image(source=image_source(snapshot.picture)), 1, 1)
    figure.add_trace(
        go.Scatter(x=x, y=y, mode="markers+text", text=[str(k) for k in range(len(x))], textposition="top center",
                   marker={"color": colors, "size": 10, "symbol": "square-open", "line": {"width": 3}}), 1, 1,
    )  # fmt: skip
    side = SIZE / snapshot.scores.shape[1]
    ticks = side * (np.arange(snapshot.scores.shape[1]) + 0.5)
    figure.add_trace(
        go.Heatmap(z=snapshot.scores, x=ticks, y=ticks, colorscale="Magma", showscale=False, zmin=0, zmax=1), 1, 2
    )
    figure.add_trace(
        go.Bar(x=list(range(len(x))), y=snapshot.s1, name="stage 1", marker={"color": COLORS["float"]}), 1, 3
    )
    figure.add_trace(go.Bar(x=list(range(len(x))), y=snapshot.s2, name="stage 2", marker={"color": colors}), 1, 3)
    _as_pictures(figure, (1, 2))
    figure.update_yaxes(range=[-0.3, 1.2], col=3)
    figure.update_xaxes(title="candidate", tickmode="linear", col=3)
    follows = (
        "the target"
        if snapshot.winner == snapshot.target
        else "a rival"
        if snapshot.target >= 0
        else "(target not among them)"
    )
    return figure.update_layout(
        title=f"frame {snapshot.number}: the cascade follows {follows}",
        height=320,
        showlegend=False,
        margin={"t": 70, "b": 40},
    )


def _as_pictures(figure: go.Figure, columns: Sequence[int]) -> None:
    """Square pixels, rows from the top, no axes."""
    for column in columns:
        figure.update_xaxes(visible=False, constrain="domain", col=column)
        figure.update_yaxes(
            visible=False, constrain="domain", autorange="reversed", scaleanchor=f"x{column}", col=column
        )


def scrubber_widget(snapshots: Sequence[Snapshot]) -> widgets.VBox:
    """It begins with the most ambiguous frame."""
    start = list(snapshots).index(scenes.most_ambiguous(snapshots))
    slider = widgets.IntSlider(start, min=0, max=len(snapshots) - 1, description="frame")
    return explore(lambda position: scrubber_figure(snapshots, position), position=slider)


def rival_figure(x: int = 140, y: int = 100, similarity: float = 0.8) -> go.Figure:
    """A rival put anywhere beside the target: what both stages answer."""
    picture, first, second = scenes.scene().maps((float(x), float(y)), similarity)
    figure = make_subplots(1, 3, subplot_titles=("search image", "stage 1", "stage 2"))
    figure.add_trace(go.Image(source=image_source(picture)), 1, 1)
    for column, scores in ((2, first), (3, second)):
        figure.add_trace(go.Heatmap(z=scores, colorscale="Magma", showscale=False, zmin=0, zmax=1), 1, column)
    _as_pictures(figure, (1, 2, 3))
    far = np.hypot(x - 100, y - 100) > 20
    shares = _rival_share(first, float(x), float(y), STRIDE), _rival_share(second, float(x), float(y), 6)
    title = (
        f"rival / target: stage 1 {shares[0]:.2f}, stage 2 {shares[1]:.2f}" if far else "the rival is under the target"
    )
    return figure.update_layout(title=title, height=280, margin={"t": 60, "b": 20})


def _rival_share(scores: np.ndarray, x: float, y: float, step: int) -> float:
    """Highest score within 12 pixels of the rival over the highest near the target.

    The crop starts at scene pixel 20.
    """
    at = (np.arange(scores.shape[0]) + 0.5) * step + (20 if step == STRIDE else 27)
    rows, columns = np.meshgrid(at, at, indexing="ij")
    near_rival = np.hypot(rows - y, columns - x) < 12
    near_target = np.hypot(rows - 100, columns - 100) < 12
    if not near_rival.any():
        return float("nan")
    return float(scores[near_rival].max() / max(scores[near_target].max(), 1e-6))


def rival_widget() -> widgets.VBox:
    sides = {"min": 30, "max": 170, "step": 5}
    return explore(
        rival_figure,
        x=widgets.IntSlider(140, **sides, description="rival x"),
        y=widgets.IntSlider(100, **sides, description="rival y"),
        similarity=widgets.FloatSlider(0.8, min=0.0, max=1.0, step=0.05, description="similarity"),
    )


def knobs_figure(
    described: Rehearsal, kappa: float = 0.35, mix: float = 0.7, lam: float = 0.002, eta: float = 0.02,
    mining: Mining = "none", kernel: int = 7,
) -> go.Figure:  # fmt: skip
    """The target's lead over its best rival, frame by frame, for these settings; how often stage 2 is needed, and what
    it costs.
    """
    replay = rehearsal.replay(described, rehearsal.Choice(kappa, mix, lam, eta, mining, kernel))
    lead, lead1 = np.asarray(replay.lead), np.asarray(replay.lead1)  # arrays: a list with NaN is no JSON
    frames = np.arange(1, len(lead) + 1)
    wrong, mined = lead < 0, np.asarray(replay.mined) > 0
    lines = {"mode": "lines+markers", "marker": {"size": 4}}
    figure = go.Figure(
        [
            go.Scatter(x=frames, y=lead1, name="stage 1 alone", line={"color": COLORS["float"]}, **lines),
            go.Scatter(x=frames, y=lead, name="both stages", line={"color": COLORS["ours"]}, **lines),
            go.Scatter(x=frames[wrong], y=lead[wrong], name="a rival wins", mode="markers",
                       marker={"size": 10, "color": COLORS["bad"]}),
            go.Scatter(x=frames[mined], y=np.full(mined.sum(), -0.55), name="mined", mode="markers",
                       marker={"size": 8, "symbol": "triangle-up", "color": COLORS["baseline"]}),
        ]
    )  # fmt: skip
    title = (
        f"right in {replay.right:.0%} of the frames, stage 1 alone in {replay.right1:.0%}; "
        f"{np.mean(replay.left):.1f} candidates, skip rate {replay.skip_rate:.0%}<br>n = {replay.rows} rows, "
        f"d = {replay.features} features, {described.milliseconds:.1f} ms a solve; {sum(replay.mined)} negatives "
        f"mined, {sum(replay.corrupted)} of them the target"
    )
    return figure.update_layout(
        title={"text": title, "font": {"size": 13}}, height=330, margin={"t": 60, "b": 40},
        xaxis={"title": "frame"}, yaxis={"title": "lead of the target", "range": [-0.6, 0.9]},
    )  # fmt: skip


def knobs_picture(described: Rehearsal) -> Figure:
    """What the knobs do, without a kernel: leads at the defaults; frames decided rightly against lam and eta, and for
    each size of stage 1's filter.
    """
    figure, (left, middle, right) = subplots(1, 3, figsize=(8.5, 2.6), width_ratios=(1.2, 1, 1))
    replay = rehearsal.replay(described, rehearsal.Choice())
    frames = np.arange(1, len(replay.lead) + 1)
    left.plot(frames, replay.lead1, color=COLORS["float"], label="stage 1 alone")
    left.plot(frames, replay.lead, color=COLORS["ours"], label="both stages")
    left.axhline(0, color=COLORS["hard"], lw=0.5)
    left.set(xlabel="frame", ylabel="lead of the target", title="below 0 a rival wins")
    lams = np.logspace(-5, 0, 6)
    for eta, line in ((0.005, ":"), (0.02, "-"), (0.1, "--")):
        shares = [100 * rehearsal.replay(described, rehearsal.Choice(lam=float(lam), eta=eta)).right for lam in lams]
        middle.plot(lams, shares, line, color=COLORS["ours"], label=f"η {eta:g}")
    middle.set(xscale="log", xlabel="λ", ylabel="frames decided rightly, %", title="both stages")
    at = np.arange(len(described.options))
    sizes = [rehearsal.replay(described, rehearsal.Choice(kernel=kernel)) for kernel in described.options]
    right.bar(at - 0.2, [100 * each.right1 for each in sizes], 0.4, color=COLORS["float"], label="stage 1 alone")
    right.bar(at + 0.2, [100 * each.right for each in sizes], 0.4, color=COLORS["ours"], label="both stages")
    right.set_xticks(at, [f"{kernel} x {kernel}" for kernel in described.options], fontsize=8)
    right.set(ylim=(0, 130), xlabel="stage 1's filter, cells", title="frames decided rightly, %")
    for axis in (left, middle, right):
        axis.legend(frameon=False, fontsize=7)
    return figure


def knobs_widget(described: Rehearsal) -> widgets.VBox:
    return explore(
        lambda **choice: knobs_figure(described, **choice),
        kappa=widgets.FloatSlider(0.35, min=0.1, max=0.9, step=0.05, description="kappa"),
        mix=widgets.FloatSlider(0.7, min=0.0, max=1.0, step=0.05, description="m"),
        lam=widgets.FloatLogSlider(0.002, min=-5, max=0, step=0.1, description="λ"),
        eta=widgets.FloatSlider(0.02, min=0.0, max=0.3, step=0.01, description="η"),
        mining=widgets.Dropdown(options=[("off", "none"), *((way, way) for way in MINING)], description="mining"),
        kernel=widgets.SelectionSlider(
            options=[(f"{k} x {k}", k) for k in described.options], value=7, description="stage 1"
        ),
    )


def presence_figure(tracked: Sequence[tuple[tracking.Sequence, Track]]) -> Figure:
    """The winner's fused score in every frame; grey where the target is absent."""
    figure, axes = subplots(1, len(tracked), figsize=(8.5, 2.2), squeeze=False, sharey=True)
    for axis, (clip, track) in zip(axes[0], tracked, strict=True):
        away = np.flatnonzero(clip.absent)
        if len(away):
            axis.axvspan(away[0] - 0.5, away[-1] + 0.5, color=COLORS["straw"], alpha=0.5, lw=0)
        axis.plot(track.scores, color=COLORS["ours"])
        axis.set(xlabel="frame", ylim=(0, 1.1), title=clip.name)
    axes[0, 0].set_ylabel("score of the winner")
    return figure


def eao_figure(failure: int = 90, overlap: float = 0.6, low: int = 100, high: int = 356) -> go.Figure:
    """Two runs of 400 frames: one is never lost, one fails at `failure` and starts anew; their curve and its mean."""
    if not (1 <= failure <= 380 and 0 < overlap <= 1 and 1 <= low < high < 400):
        raise InputError(
            "a failure from 1 to 380, an overlap in (0, 1] and 1 <= low < high < 400 are needed; "
            f"got {failure}, {overlap}, {low} and {high}."
        )
    codes, overlaps = np.full(400, 3), np.full(400, overlap)
    codes[0] = 1
    failing = codes.copy()
    failing[failure] = 2
    failing[failure + 1 : failure + 5] = 0
    failing[failure + 5] = 1
    runs = [SupervisedRun("steady", codes.astype(np.int64), overlaps),
            SupervisedRun("fails", failing.astype(np.int64), np.where(failing == 3, overlaps, 0.0))]  # fmt: skip
    curve = eao_curve(runs)
    value = float(curve[low : high + 1].mean())
    figure = make_subplots(2, 1, row_heights=[0.3, 0.7], shared_xaxes=True)
    names = {3: "tracked", 0: "skipped", 1: "start", 2: "failure"}
    colors = {0: COLORS["straw"], 1: COLORS["good"], 2: COLORS["bad"], 3: COLORS["ours"]}
    for code, name in names.items():
        at = np.flatnonzero(failing == code)
        figure.add_trace(
            go.Scatter(x=at, y=np.ones(len(at)), mode="markers", name=name,
                       marker={"color": colors[code], "symbol": "square", "size": 6 if code == 3 else 12}),
            1, 1,
        )  # fmt: skip
    figure.add_trace(
        go.Scatter(x=np.arange(1, len(curve)), y=curve[1:], line={"color": COLORS["ours"]}, name="curve"), 2, 1
    )
    figure.add_trace(
        go.Scatter(x=[low, low, high, high], y=[0, value, value, 0], fill="tozeroy", line={"color": COLORS["float"]},
                   name="EAO"), 2, 1,
    )  # fmt: skip
    figure.update_yaxes(visible=False, row=1)
    figure.update_yaxes(title="expected overlap", range=[0, 1], row=2)
    figure.update_xaxes(title="frames", row=2)
    return figure.update_layout(title=f"EAO = {value:.3f}", height=380, margin={"t": 40, "b": 40})


def eao_picture(failures: Sequence[int] = (60, 150, 300)) -> Figure:
    """The curves of `eao_figure` for several failures: the earlier one fails, the more of the window it costs."""
    figure, axis = subplots(figsize=(5.4, 2.8))
    for failure, shade in zip(failures, np.linspace(0.35, 1, len(failures)), strict=True):
        drawn = eao_figure(failure)
        curve = next(trace for trace in drawn.data if trace.name == "curve")
        label = f"fails at {failure}: {drawn.layout.title.text}"
        axis.plot(curve.x, curve.y, color=COLORS["ours"], alpha=shade, label=label)
    axis.axvspan(100, 356, color=COLORS["float"], alpha=0.15, lw=0)
    axis.set(xlabel="frames", ylabel="expected overlap", ylim=(0, 0.7))
    axis.legend(frameon=False, fontsize=8)
    return figure


def eao_widget() -> widgets.VBox:
    return explore(
        eao_figure,
        failure=widgets.IntSlider(90, min=10, max=380, step=10, description="failure at"),
        overlap=widgets.FloatSlider(0.6, min=0.1, max=1.0, step=0.1, description="overlap"),
        low=widgets.Dropdown(options=[("VOT2018: 100", 100), ("VOT2019: 46", 46)], value=100, description="from"),
        high=widgets.Dropdown(options=[("VOT2018: 356", 356), ("VOT2019: 291", 291)], value=356, description="to"),
    )


def clip_figure(kind: str, seed: int = 0, frames: Sequence[int] = (10, 40, 70)) -> Figure:
    """Frames of a generated clip; the target's box in blue, rivals' centres in orange."""
    from labkit.papers.crt.experiment.clips import KINDS, look_alikes

    clip = look_alikes(KINDS[kind], seed)
    figure, axes = subplots(1, len(frames), figsize=(5, 1.5))
    for axis, t in zip(axes, frames, strict=True):
        axis.imshow(clip.frames[t], interpolation="nearest")
        x, y, w, h = clip.boxes[t]
        axis.add_patch(Rectangle((x, y), w, h, fill=False, ec=COLORS["ours"], lw=2))
        axis.scatter(*np.asarray(clip.meta["rivals"])[t].T, s=8, color=COLORS["baseline"])
        axis.set(xlim=(0, clip.frames[t].shape[1]), ylim=(clip.frames[t].shape[0], 0), title=f"frame {t}")
        axis.set_axis_off()
    return figure
