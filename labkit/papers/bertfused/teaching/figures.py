"""The notebook's pictures. Pure: the same input gives the same arrays; tested without a browser.

Colours: the fused model blue, the plain one grey, rivals orange, what BERT alone says green.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from plotly.subplots import make_subplots

from labkit.errors import InputError
from labkit.papers.bertfused.experiment.config import ARMS
from labkit.papers.bertfused.experiment.grammar import NOUNS, Noun
from labkit.papers.bertfused.teaching import scenes
from labkit.papers.bertfused.teaching.scenes import KINDS, RATIOS, Looked, Node, Switch, Synonym, Trained
from labkit.viz import COLORS, explore, subplots

ARM_COLORS = {
    "plain": COLORS["float"], "fused": COLORS["ours"], "no-drop-net": COLORS["baseline"], "random": COLORS["straw"],
}  # fmt: skip
SLOWER = (38.6, 49.3, 47.8, 43.8)
"""Inference time more than the plain model's, in percent: IWSLT En-De, De-En, WMT En-De, En-Fr [paper]."""


def color_of(arm: str) -> str:
    return ARM_COLORS.get(arm, COLORS["baseline"])


# -- 1 the idea in one picture ----------------------------------------------------------------------------------------


def idea_figure(bleu: Mapping[str, Mapping[str, float]] | None = None) -> Figure:
    """Left: who attends to what. Right: BLEU of both models on names of training and on held-out ones.

    bleu: {arm: {test: BLEU}}; None: means over the recorded seeds.
    """
    bleu = recorded_bleu() if bleu is None else bleu
    figure, (left, right) = subplots(1, 2, figsize=(9, 3.4), width_ratios=(1.6, 1))
    boxes = {
        "source": (0.02, 0.38, "the hound\nsees ...", "hard"),
        "bert": (0.25, 0.72, "BERT, frozen", "ours"),
        "h_b": (0.53, 0.72, r"$H_B$", "ours"),
        "encoder": (0.25, 0.12, "encoder\nattn_S and attn_B", "float"),
        "decoder": (0.62, 0.12, "decoder\nattn_E and attn_B", "float"),
    }
    widths = {"source": 0.15, "bert": 0.2, "h_b": 0.1, "encoder": 0.25, "decoder": 0.27}
    for name, (x, y, text, color) in boxes.items():
        style = FancyBboxPatch(
            (x, y), widths[name], 0.18, boxstyle="round,pad=0.01", fc="white", ec=COLORS[color], lw=2
        )
        left.add_patch(style)
        left.text(x + widths[name] / 2, y + 0.09, text, ha="center", va="center", fontsize=9)
    arrows = (
        ((0.17, 0.5), (0.24, 0.78)), ((0.17, 0.42), (0.24, 0.24)), ((0.46, 0.81), (0.52, 0.81)),
        ((0.56, 0.71), (0.42, 0.31)), ((0.6, 0.71), (0.74, 0.31)), ((0.51, 0.2), (0.61, 0.2)),
    )  # fmt: skip
    for start, end in arrows:
        left.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color=COLORS["hard"], lw=1))
    left.set(xlim=(0, 0.92), ylim=(0, 1), title="every layer listens to BERT as well")
    left.set_axis_off()
    _bars(right, bleu)
    return figure


def recorded_bleu() -> dict[str, dict[str, float]]:
    """BLEU of the plain and the fused model, means over the recorded seeds; empty without a record."""
    record = scenes.recorded("sentences")
    if record is None:
        return {}
    heights: dict[str, dict[str, float]] = {}
    for arm in ("plain", "fused"):
        for test in ("seen", "unseen"):
            value = scenes.mean_over_seeds(record[0], "arms", arm, "tests", test, "bleu")
            if value is not None:
                heights.setdefault(arm, {})[test] = value
    return heights


def _bars(axis: Any, bleu: Mapping[str, Mapping[str, float]]) -> None:
    tests = list(next(iter(bleu.values()), {}))
    for number, (arm, values) in enumerate(bleu.items()):
        x = np.arange(len(tests)) + 0.8 * (number + 0.5) / len(bleu) - 0.4
        heights = [values.get(test, 0.0) for test in tests]
        axis.bar(x, heights, 0.8 / len(bleu) * 0.95, color=color_of(arm), label=arm)
        for at, height in zip(x, heights, strict=True):
            axis.text(at, height + 1, f"{height:.0f}", ha="center", fontsize=8)
    axis.set(ylabel="BLEU", ylim=(0, 119), title="BLEU on both tests")
    axis.set_xticks(
        np.arange(len(tests)),
        [{"seen": "seen:\nnames in training", "unseen": "unseen:\nheld-out names"}.get(t, t) for t in tests],
    )
    if bleu:
        axis.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")


# -- 4 the method -----------------------------------------------------------------------------------------------------


def views_figure(pieces: Sequence[str], words: Sequence[str]) -> Figure:
    """One sentence in two tokenizations, one row each; a box a token."""
    figure, axis = subplots(1, 1, figsize=(9, 1.7))
    for row, (tokens, color) in enumerate(((words, "ours"), (pieces, "float"))):
        widths = np.array([len(token) + 1.5 for token in tokens])
        edges = np.concatenate([[0], widths.cumsum()]) / widths.sum()
        for token, left, right in zip(tokens, edges, edges[1:], strict=False):
            box = FancyBboxPatch(
                (left + 0.003, row + 0.12), right - left - 0.006, 0.6, boxstyle="round,pad=0.001", fc="white",
                ec=COLORS[color], mutation_aspect=0.05,
            )  # fmt: skip
            axis.add_patch(box)
            axis.text((left + right) / 2, row + 0.42, token, ha="center", va="center", fontsize=8)
    axis.set(xlim=(0, 1), ylim=(0, 2), yticks=(0.42, 1.42), xticks=())
    axis.set_yticklabels([f"BERT's WordPieces ({len(words)})", f"the model's BPE ({len(pieces)})"])
    for spine in axis.spines.values():
        spine.set_visible(False)
    return figure


def drop_net_figure(rate: float = 1.0) -> go.Figure:
    """The three cases of drop-net by their probabilities, and the mean weights of both branches."""
    cases = ["native alone (1, 0)", "BERT alone (0, 1)", "both (1/2, 1/2)"]
    chances = [rate / 2, rate / 2, 1 - rate]
    native, bert = chances[0] + chances[2] / 2, chances[1] + chances[2] / 2
    figure = make_subplots(1, 2, column_widths=(0.6, 0.4), subplot_titles=("how often in training", "mean weight"))
    colors = [COLORS["float"], COLORS["ours"], COLORS["hard"]]
    figure.add_trace(go.Bar(x=cases, y=chances, marker_color=colors, showlegend=False), 1, 1)
    figure.add_trace(go.Bar(x=["native", "BERT"], y=[native, bert], marker_color=colors[:2], showlegend=False), 1, 2)
    figure.update_yaxes(range=[0, 1], title="probability", row=1, col=1)
    figure.update_yaxes(range=[0, 1], title="weight", row=1, col=2)
    return figure.update_layout(width=760, height=320, margin=dict(t=50, b=40, l=60, r=20))


def drop_net_widget() -> widgets.VBox:
    return explore(drop_net_figure, rate=widgets.FloatSlider(1.0, min=0, max=1, step=0.05, description="p"))


# -- 6 train and compare ----------------------------------------------------------------------------------------------


def curves_figure(curves: Mapping[str, Sequence[Any]], stage_1: Sequence[Any], start: int) -> Figure:
    """Validation loss: the plain model's first stage, then every arm from there on.

    curves: {arm: [(update of stage 2, nats a token)]}. start: updates of stage 1; an arm from scratch begins at 0.
    """
    figure, axis = subplots(1, 1, figsize=(8, 3.2))
    if stage_1:
        axis.plot(*zip(*stage_1, strict=True), color=COLORS["float"], ls="--", label="stage 1: plain")
    for arm, curve in curves.items():
        first = start if ARMS[arm].warm else 0
        steps, losses = zip(*curve, strict=True)
        axis.plot([first + step for step in steps], losses, color=color_of(arm), label=arm, marker=".", ms=3)
    axis.axvline(start, color=COLORS["hard"], lw=0.5, ls=":")
    axis.set(xlabel="updates, both stages", ylabel="validation loss, nats a token", yscale="log")
    axis.legend(frameon=False, fontsize=8)
    return figure


def comparison_figure(arms: Mapping[str, Mapping[str, Any]]) -> Figure:
    """BLEU of each arm on each test."""
    figure, axis = subplots(1, 1, figsize=(8, 3))
    _bars(axis, {arm: {test: s["bleu"] for test, s in result["tests"].items()} for arm, result in arms.items()})
    axis.set_title("BLEU of all arms")
    return figure


# -- 7 explore --------------------------------------------------------------------------------------------------------


def attention_figure(looked: Looked, kind: str, layer: int = 1, head: int = 0) -> go.Figure:
    """Who looks at what in one layer. layer: from 1; head: from 1, 0 the mean of all."""
    module, rows, columns = KINDS[kind]
    name = module.format(layer - 1)
    if name not in looked.weights:
        raise InputError(f"there is no {name} in this model")
    weights = looked.weights[name]
    picture = weights.mean(0) if head == 0 else weights[min(head, len(weights)) - 1]
    x, y = ([str(token) for token in getattr(looked, side)] for side in (columns, rows))
    hover = [
        [f"{row} → {column}: {w:.2f}" for column, w in zip(x, line, strict=True)]
        for row, line in zip(y, picture, strict=True)
    ]
    heat = go.Heatmap(z=picture, zmin=0, zmax=1, colorscale="Blues", hovertext=hover, hoverinfo="text")
    figure = go.Figure(heat.update(colorbar=dict(title="weight")))
    figure.update_xaxes(tickvals=list(range(len(x))), ticktext=x, tickangle=-45)
    figure.update_yaxes(tickvals=list(range(len(y))), ticktext=y, autorange="reversed")
    title = dict(text="the model writes: " + " ".join(looked.target), font_size=12)
    return figure.update_layout(width=760, height=440, margin=dict(t=40, b=90, l=90, r=20), title=title)


def attention_widget(scene: Trained, sentence: str) -> widgets.VBox:
    """Type a sentence; hover over a cell to read its weight."""

    @lru_cache(maxsize=64)
    def looked(text: str) -> Looked:
        return scenes.look(scene, text)

    def figure(text: str, kind: str, layer: int, head: int) -> go.Figure:
        if not text.strip() or len(text) > 200:
            raise InputError("a sentence of 1 to 200 characters, please")
        return attention_figure(looked(text.strip()), kind, layer, head)

    sizes = scene.models["fused"].sizes
    return explore(
        figure,
        text=widgets.Text(sentence, description="sentence", continuous_update=False, layout={"width": "600px"}),
        kind=widgets.Dropdown(options=list(KINDS), value=list(KINDS)[-1], description="attention"),
        layer=widgets.IntSlider(sizes.decoder_layers, min=1, max=sizes.decoder_layers, description="layer"),
        head=widgets.IntSlider(0, min=0, max=sizes.heads, description="head (0: mean)"),
    )


def switch_figure(switch: Switch, ratio: float = 0.5) -> go.Figure:
    """BLEU against BERT's weight for each arm; the marked place is the switch."""
    at = min(range(len(RATIOS)), key=lambda i: abs(RATIOS[i] - ratio))
    tests = list(next(iter(switch.bleu.values())))
    figure = make_subplots(1, len(tests), subplot_titles=tests, shared_yaxes=True)
    for column, test in enumerate(tests, 1):
        for arm, values in switch.bleu.items():
            name = "with drop-net" if arm == "fused" else "without drop-net"
            line = dict(color=color_of(arm))
            figure.add_trace(
                go.Scatter(x=RATIOS, y=values[test], name=name, line=line, showlegend=column == 1), 1, column
            )
            dot = dict(color=color_of(arm), size=13)
            figure.add_trace(
                go.Scatter(x=[RATIOS[at]], y=[values[test][at]], mode="markers", marker=dot, showlegend=False),
                1,
                column,
            )
    figure.update_xaxes(title="weight of BERT's branch")
    figure.update_yaxes(range=[0, 105])
    figure.update_yaxes(title="BLEU", col=1)
    lines = "<br>".join(
        f"{'with' if arm == 'fused' else 'without'} drop-net: {texts[at]}" for arm, texts in switch.translations.items()
    )
    return figure.update_layout(
        width=760,
        height=380,
        margin=dict(t=110, b=50, l=60, r=20),
        title=dict(text=f"{switch.source}<br>{lines}", font_size=12),
    )


def switch_widget(switch: Switch) -> widgets.VBox:
    slider = widgets.SelectionSlider(options=list(RATIOS), value=0.5, description="BERT's weight")
    return explore(lambda ratio: switch_figure(switch, ratio), ratio=slider)


def synonym_figure(synonym: Synonym, names: Sequence[str], held_out: Sequence[bool], places: Any) -> go.Figure:
    """Left: what each model would write where the noun stands. Right: all nouns as BERT places them."""
    figure = make_subplots(
        1, 2, column_widths=(0.45, 0.55), subplot_titles=("next piece after the article", "nouns in BERT's space")
    )
    guesses = [
        (arm, *pair) for arm, g in synonym.guesses.items() for pair in zip(g.pieces, g.probabilities, strict=True)
    ]
    figure.add_trace(
        go.Bar(
            y=list(range(len(guesses))), x=[chance for _, _, chance in guesses], orientation="h", showlegend=False,
            marker_color=[color_of(arm) for arm, _, _ in guesses],
        ), 1, 1,
    )  # fmt: skip
    labels = [f"{piece} ({arm})" for arm, piece, _ in guesses]
    figure.update_yaxes(tickvals=list(range(len(guesses))), ticktext=labels, autorange="reversed", row=1, col=1)
    for held, symbol, name in ((False, "circle", "names in training"), (True, "diamond-open", "held-out names")):
        chosen = [i for i, flag in enumerate(held_out) if flag == held]
        figure.add_trace(
            go.Scatter(
                x=places[chosen, 0], y=places[chosen, 1], mode="markers", text=[names[i] for i in chosen],
                marker=dict(color=COLORS["float"], size=6, symbol=symbol), hoverinfo="text", name=name,
            ), 1, 2,
        )  # fmt: skip
    relatives = [i for i, name in enumerate(names) if name in synonym.noun.english]
    own = [names[i] for i in relatives]
    figure.add_trace(
        go.Scatter(
            x=places[relatives, 0], y=places[relatives, 1], mode="markers+text", text=own, name=synonym.noun.german,
            textposition="top center", marker=dict(color=COLORS["hard"], size=10),
        ), 1, 2,
    )  # fmt: skip
    figure.update_xaxes(range=[0, 1], title="probability", row=1, col=1)
    lines = "<br>".join(f"{arm}: {guess.translation}" for arm, guess in synonym.guesses.items())
    title = dict(text=f"the {synonym.english} sees the house .<br>{lines}", font_size=12)
    return figure.update_layout(width=820, height=460, margin=dict(t=120, b=50, l=110, r=20), title=title)


def synonym_widget(scene: Trained, chosen: str = "hound", nouns: Sequence[Noun] = NOUNS) -> widgets.VBox:
    by_name = {synonym.english: synonym for synonym in scenes.synonyms(scene, nouns)}
    names, held_out, places = scenes.noun_map(scene.bert)
    choice = widgets.Dropdown(options=list(by_name), value=chosen, description="noun")
    return explore(lambda noun: synonym_figure(by_name[noun], names, held_out, places), noun=choice)


def beam_figure(nodes: Sequence[Node], steps: int, length_penalty: float = 1.0) -> go.Figure:
    """The tree of a beam search up to a step: blue goes on, black has ended, sand is given up.

    The title ranks what has ended by log p / tokens^alpha.
    """
    drawn = [node for node in nodes if node.step < steps]
    parents = {(node.step, node.survivor): node for node in drawn if node.survivor >= 0}
    lines_x: list[float | None] = []
    lines_y: list[float | None] = []
    for node in drawn:
        before = parents.get((node.step - 1, node.parent))
        if before is not None:
            lines_x += [before.step + 1, node.step + 1, None]
            lines_y += [-before.rank, -node.rank, None]
    figure = go.Figure(
        go.Scatter(x=lines_x, y=lines_y, mode="lines", line=dict(color="#bbbbbb", width=1), showlegend=False)
    )
    groups: dict[str, tuple[str, Callable[[Node], bool]]] = {
        "goes on": (COLORS["ours"], lambda node: node.survivor >= 0),
        "has ended": (COLORS["hard"], lambda node: node.ends),
        "given up": (COLORS["straw"], lambda node: node.survivor < 0 and not node.ends),
    }
    for name, (color, member) in groups.items():
        of = [node for node in drawn if member(node)]
        figure.add_trace(
            go.Scatter(
                x=[node.step + 1 for node in of], y=[-node.rank for node in of], mode="markers+text", name=name,
                text=[f"{node.piece} {node.log_prob:.1f}" for node in of], textposition="top center",
                textfont=dict(size=9), marker=dict(color=color, size=9),
            )
        )  # fmt: skip
    ended = sorted(
        (node for node in drawn if node.ends), key=lambda node: -node.log_prob / (node.step + 1) ** length_penalty
    )
    ranks = ", ".join(
        f"{node.step + 1} tokens {node.log_prob / (node.step + 1) ** length_penalty:.2f}" for node in ended[:3]
    )
    title = f"ended, best score first: {ranks or 'none yet'}"
    figure.update_xaxes(title="token", dtick=1, range=[0.5, max(node.step for node in nodes) + 1.5])
    ranks_of = range(max(node.rank for node in nodes) + 1)
    figure.update_yaxes(title="rank among the candidates", tickvals=[-i for i in ranks_of])
    figure.update_yaxes(ticktext=[str(i + 1) for i in ranks_of])
    return figure.update_layout(
        width=820, height=420, margin=dict(t=50, b=50, l=50, r=20), title=dict(text=title, font_size=12)
    )


def beam_widget(nodes: Sequence[Node]) -> widgets.VBox:
    last = max(node.step for node in nodes) + 1
    return explore(
        lambda steps, length_penalty: beam_figure(nodes, steps, length_penalty),
        steps=widgets.IntSlider(last, min=1, max=last, description="steps"),
        length_penalty=widgets.FloatSlider(1.0, min=0, max=2, step=0.1, description="length penalty"),
    )


def cost_figure(costs: Mapping[str, Mapping[str, float]]) -> Figure:
    """Speed of the fused model as a share of the plain one's, and the extra inference time of the paper."""
    figure, (left, right) = subplots(1, 2, figsize=(8, 2.8), width_ratios=(1.7, 1))
    names = list(next(iter(costs.values())))
    for number, (what, rates) in enumerate(costs.items()):
        heights = [100 * rates[name] / rates[names[0]] for name in names]
        x = np.arange(len(names)) + 0.4 * number - 0.2
        colors = [COLORS["float" if name == "plain" else "ours"] for name in names]
        left.bar(x, heights, 0.38, color=colors, alpha=(1, 0.5)[number])
        for at, height in zip(x, heights, strict=True):
            left.text(at, height + 1, what, ha="center", fontsize=7)
    left.set(ylabel="tokens/s, % of the plain model", title="here")
    left.set_xticks(np.arange(len(names)), [name.replace(", ", ",\n") for name in names])
    right.bar(["IWSLT\nEn-De", "IWSLT\nDe-En", "WMT\nEn-De", "WMT\nEn-Fr"], SLOWER, color=COLORS["ours"])
    right.set(ylabel="extra inference time, %", title="the paper's, on a GPU")
    right.tick_params(labelsize=8)
    return figure
