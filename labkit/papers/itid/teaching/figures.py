"""The notebook's pictures. Pure: the same input gives the same arrays; tested without a browser."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from plotly.subplots import make_subplots
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.itid.experiment import selection
from labkit.papers.itid.experiment.data import Scene
from labkit.papers.itid.experiment.selection import Candidate
from labkit.papers.itid.method import bounds, measures
from labkit.papers.itid.method.modifiers import Swap
from labkit.papers.itid.method.renderers import PALETTE, Backgrounds
from labkit.papers.itid.method.task import NuisanceLaw, all_hypotheses, toy_task, zero_one
from labkit.viz import COLORS, explore, subplots

NAMES = ("red", "green", "blue", "yellow", "magenta", "cyan", "dark red", "dark green", "dark blue", "grey")


def color_of(arm: str) -> str:
    """Ours, rivals, the reference, the oracle: the same colours in all notebooks."""
    if arm.startswith("IE-"):
        return COLORS["ours"]
    return COLORS["float"] if arm == "ERM" else COLORS["hard"] if arm.startswith("oracle") else COLORS["baseline"]


# -- 1 the idea in one picture ----------------------------------------------------------------------------------------


def recolored_digits(scene: Scene) -> Float[Tensor, "ten channels height width"]:
    """The first test digit of each class, in a colour that another class has in training."""
    first = [int((scene.test_labels == y).nonzero()[0]) for y in range(10)]
    return scene.renderer(scene.test_content[first], (torch.arange(10) + 3) % 10)


def idea_figure(scene: Scene, answers: Mapping[str, Sequence[int]]) -> Figure:
    """Training digits, test digits in other colours, and below each test digit what differently trained networks say.

    Args:
        answers: the ten labels predicted for `recolored_digits`, by how the network was trained.
    """
    figure, axis = subplots(figsize=(9, 1.6 + 0.3 * len(answers)))
    training = scene.train.images[[int((scene.train.labels == y).nonzero()[0]) for y in range(10)]]
    for bottom, title, images in ((1.3, "training", training), (0, "test", recolored_digits(scene))):
        axis.text(-0.2, bottom + 0.5, title, ha="right", va="center")
        for k, image in enumerate(images):
            pixels = image.permute(1, 2, 0).clamp(0, 1).numpy()
            axis.imshow(pixels, extent=(1.1 * k, 1.1 * k + 1, bottom, bottom + 1))
    for row, (title, labels) in enumerate(answers.items()):
        height = -0.4 - 0.5 * row
        axis.text(-0.2, height, title, ha="right", va="center")
        for k, label in enumerate(labels):
            color = COLORS["good" if label == k else "bad"]
            axis.text(1.1 * k + 0.5, height, str(label), ha="center", va="center", color=color, weight="bold")
    axis.set(xlim=(-4.2, 11), ylim=(-0.2 - 0.5 * len(answers), 2.35), aspect="equal")
    axis.set_axis_off()
    return figure


# -- 4 the method -----------------------------------------------------------------------------------------------------


def swap_figure(scene: Scene) -> Figure:
    """One training digit of each class, before and after their colours are swapped."""
    batch = scene.train.take(torch.tensor([int((scene.train.labels == y).nonzero()[0]) for y in range(10)]))
    swapped = Swap()(batch, torch.Generator().manual_seed(0))
    figure, axes = subplots(2, 10, figsize=(7, 1.5))
    for row, images in zip(axes, (batch.images, swapped.images), strict=True):
        for axis, image in zip(row, images, strict=True):
            axis.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy())
            axis.set_axis_off()
    return figure


def sample_size_figure(rho: float = 0.9, n: int = 1200) -> Figure:
    """Effective sample size after reweighting, against rho. Swapping keeps all n data."""
    figure, axis = subplots(figsize=(5, 2.8))
    grid = np.linspace(0, 0.995, 200)
    axis.plot(grid, [n / bounds.second_moment_aligned(float(r), 10) for r in grid], color=COLORS["baseline"],
              label="reweighting")  # fmt: skip
    axis.axhline(n, color=COLORS["ours"], label="swapping")
    here = n / bounds.second_moment_aligned(rho, 10)
    axis.scatter([rho], [here], color=COLORS["hard"], zorder=3)
    axis.annotate(f"{here:.0f}", (rho, here), textcoords="offset points", xytext=(-8, 8), ha="right")
    axis.set(xlabel=r"$\rho$: how often the colour is that of the class", ylabel=f"effective size of {n}", yscale="log")
    axis.legend(frameon=False, fontsize=8)
    return figure


# -- 5 prove it -------------------------------------------------------------------------------------------------------


def coverage_figure(coverage: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Rates at which the two bounds fail, and risks of what the learners select, against the sample size."""
    figure, (left, right) = subplots(1, 2, figsize=(9, 3))
    sizes = [int(n) for n in coverage]
    rates = (("iid_violations", "IID bound", "baseline"), ("itid_violations", "ITID bound", "ours"))
    for key, label, color in rates:
        left.plot(sizes, [100 * coverage[str(n)][key] for n in sizes], marker="o", color=COLORS[color], label=label)
    left.axhline(10, color=COLORS["float"], lw=1, ls="--", label="allowed: 10 %")
    left.set(xlabel="sample size n", ylabel="% of samples in which it fails", ylim=(-5, 105))
    left.legend(frameon=False, fontsize=8)
    for axis in (left, right):
        axis.set_xscale("log")
        axis.set_xticks(sizes, [str(n) for n in sizes])
        axis.minorticks_off()
    curves = (
        ("erm_train", "ERM, training", "float", ":"),
        ("erm_target", "ERM, target", "float", "-"),
        ("invariant_target", "ERM over the 16 invariant, target", "hard", "-"),
        ("rerendered_target", "ERM over all, re-rendered data, target", "ours", "--"),
    )
    for key, label, color, line in curves:
        wide = {"lw": 5, "ms": 9, "alpha": 0.4} if key == "invariant_target" else {}  # another curve lies on it
        risks = [coverage[str(n)][key] for n in sizes]
        right.plot(sizes, risks, line, marker="o", color=COLORS[color], label=label, **wide)
    right.set(xlabel="sample size n", ylabel="risk", ylim=(0, 0.62))
    right.legend(frameon=False, fontsize=8)
    return figure


# -- 6 train and compare ----------------------------------------------------------------------------------------------


def comparison_figure(result: Mapping[str, Any], experiments: Mapping[str, str]) -> Figure:
    """Per experiment and arm: accuracy under the training's nuisance law (hollow) and where the bias is broken."""
    count = max(len(result[name]["arms"]) for name in experiments)
    figure, axes = subplots(1, len(experiments), figsize=(4.6 * len(experiments), 0.3 * count + 1.1))
    for axis, (name, title) in zip(np.atleast_1d(axes), experiments.items(), strict=True):
        arms = result[name]["arms"]
        rows = np.arange(len(arms))[::-1]
        for row, (arm, summary) in zip(rows, arms.items(), strict=True):
            axis.plot([summary["aligned"], summary["target"]], [row, row], color=COLORS["straw"], lw=1.5, zorder=1)
            axis.scatter(summary["aligned"], row, facecolor="white", edgecolor=color_of(arm), zorder=2)
            spread = summary["sd"]["target"]
            axis.errorbar(summary["target"], row, xerr=spread, marker="s", color=color_of(arm), zorder=3)
        axis.set_yticks(rows, list(arms), fontsize=8)
        axis.set(title=title, xlabel="accuracy", xlim=(0, 1.03))
        axis.grid(axis="x", alpha=0.3)
    first = np.atleast_1d(axes)[0]
    first.plot([], [], "o", color="white", markeredgecolor=COLORS["hard"], label="colours as in training")
    first.plot([], [], "s", color=COLORS["hard"], label="bias broken")
    for label, color in (("data modified (IE)", "ours"), ("rivals", "baseline"), ("ERM", "float"), ("oracle", "hard")):
        first.plot([], [], color=COLORS[color], lw=4, label=label)
    figure.legend(loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    return figure


def theorem_figure(result: Mapping[str, Any], experiments: Sequence[str]) -> Figure:
    """Left: gap against iota for every network, nothing above the diagonal. Right: Omega against target accuracy."""
    figure, (left, right) = subplots(1, 2, figsize=(9, 3.3))
    for name in experiments:
        for arm, summary in result[name]["arms"].items():
            each = summary["each"]
            gap = np.abs(np.array(each["aligned"]) - np.array(each["target"]))
            left.scatter(each["iota"], gap, s=12, color=color_of(arm))
            right.scatter(each["omega"], each["target"], s=12, color=color_of(arm))
    left.plot([0, 1], [0, 1], color=COLORS["hard"], lw=1, ls="--")
    left.set(xlabel=r"$\iota$, measured on test data", ylabel="|gap| between the two laws", title="Theorem 1")
    right.set(xlabel=r"$\Omega$: the worst case over nuisances", ylabel="accuracy, bias broken")
    for label, color in (("IE: data modified", "ours"), ("rivals", "baseline"), ("ERM", "float")):
        right.scatter([], [], color=COLORS[color], label=label)
    right.legend(frameon=False, fontsize=8)
    return figure


def shrinking_figure(result: Mapping[str, Any]) -> Figure:
    """Accuracy against the number of training images, shifts fixed or drawn anew; one law in training and test."""
    figure, axis = subplots(figsize=(4.6, 3))
    sizes = [n for n in (50, 200, 800) if f"shifts-{n}" in result]
    for arm, label in (("ERM", "each image has its shift"), ("IE-uniform", "shift drawn anew in every step")):
        summaries = [result[f"shifts-{n}"]["arms"][arm] for n in sizes]
        axis.errorbar(sizes, [s["target"] for s in summaries], [s["sd"]["target"] for s in summaries], marker="o",
                      color=color_of(arm), label=label)  # fmt: skip
    axis.set(xscale="log", xlabel="training images", ylabel="test accuracy", ylim=(0, 1))
    axis.set_xticks(sizes, [str(n) for n in sizes])
    axis.minorticks_off()
    axis.legend(frameon=False, fontsize=8)
    return figure


def learning_figure(metrics: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> Figure:
    """delta against the training step: does a network become invariant, or the opposite?"""
    figure, axis = subplots(figsize=(5.4, 3))
    styles = {"IE-edit": "--", "consistency": "--", "IE-weight": ":"}
    for arm in arms:
        lines = [line for line in metrics if f"delta/{arm}" in line]
        axis.plot([m["step"] for m in lines], [m[f"delta/{arm}"] for m in lines], marker=".", label=arm,
                  color=color_of(arm), ls=styles.get(arm, "-"))  # fmt: skip
    axis.set(xlabel="step", ylabel=r"$\delta$ on test data", ylim=(-0.02, 1))
    axis.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


@dataclass(frozen=True)
class Predictions:
    """Predictions of some networks for test digits in every colour, and the digits themselves."""

    content: Float[Tensor, "digits 1 height width"]
    labels: Int[Tensor, " digits"]
    tables: Mapping[str, Int[Tensor, "digits colours"]]


def heat_figure(predictions: Predictions) -> Figure:
    """Accuracy for each class in each colour; the worst cell is marked."""
    figure, axes = subplots(1, len(predictions.tables), figsize=(4.4 * len(predictions.tables), 3.6))
    for axis, (arm, table) in zip(np.atleast_1d(axes), predictions.tables.items(), strict=True):
        correct = (table == predictions.labels[:, None]).double()
        cells = torch.stack([correct[predictions.labels == y].mean(0) for y in range(10)])
        image = axis.imshow(cells.numpy(), vmin=0, vmax=1, cmap="viridis")
        y, z = divmod(int(cells.argmin()), cells.shape[1])
        axis.scatter([z], [y], marker="x", color=COLORS["bad"], s=60)
        axis.set_xticks(range(10), NAMES, rotation=60, fontsize=7)
        axis.set_yticks(range(10))
        axis.set(title=f"{arm}: worst cell {float(cells.min()):.2f}", ylabel="class")
        figure.colorbar(image, ax=axis, shrink=0.8)
    return figure


def ladder_figure(result: Mapping[str, Any], experiment: str, arms: Sequence[str]) -> Figure:
    """The certificate: hold-out risk, plus delta, plus confidence, is a ceiling; the dot is the truth."""
    figure, axis = subplots(figsize=(6.4, 0.42 * len(arms) + 1))
    rows = np.arange(len(arms))[::-1]
    for row, arm in zip(rows, arms, strict=True):
        summary = result[experiment]["arms"][arm]
        risk = 1 - summary["aligned"]
        steps = (risk, summary["delta"], summary["ceiling"] - risk - summary["delta"])
        left = 0.0
        for width, color in zip(steps, ("float", "bad", "straw"), strict=True):
            axis.barh(row, width, left=left, color=COLORS[color], height=0.6)
            left += width
        axis.scatter(1 - summary["target"], row, color=COLORS["hard"], zorder=3)
    for label, color in (("risk on held-out data", "float"), (r"$\hat\delta$", "bad"), ("confidence", "straw")):
        axis.scatter([], [], marker="s", s=60, color=COLORS[color], label=label)
    axis.scatter([], [], color=COLORS["hard"], label="true risk")
    axis.set_yticks(rows, list(arms))
    axis.set(xlabel="risk under the target law", xlim=(0, 1.05))
    axis.axvline(1, color=COLORS["hard"], lw=1, ls="--", label="a ceiling of 1 says nothing")
    axis.legend(frameon=False, fontsize=8, ncols=5, loc="lower left", bbox_to_anchor=(-0.15, 1), columnspacing=0.8)
    return figure


# -- 7 explore --------------------------------------------------------------------------------------------------------

_GRID = np.linspace(0.5, 0.99, 99) + 1e-9  # off the tie at rho = 1 - noise


def transition_figure(rho: float = 0.85, noise: float = 0.25, test_rho: float = 0.1) -> go.Figure:
    """Bayes accuracy against rho: the jump at 1 - noise; beside it the two terms of the log-odds (Theorem 5)."""
    if not 0 < noise < 0.5 or not 0.5 <= rho < 1:
        raise InputError(f"choose 0 < label noise < .5 and .5 <= rho < 1; got {noise} and {rho}.")
    figure = make_subplots(1, 2, column_widths=[0.65, 0.35], subplot_titles=("Bayes classifier", "its log-odds"))
    train, test = np.array([bounds.two_colour_accuracies(float(r), noise, test_rho) for r in _GRID]).T
    here = bounds.two_colour_accuracies(rho, noise, test_rho)
    figure.add_scatter(x=_GRID, y=train, line={"color": COLORS["float"], "dash": "dot"}, name="training")
    figure.add_scatter(x=_GRID, y=test, line={"color": COLORS["float"], "shape": "hv"}, name="test")
    figure.add_scatter(
        x=[rho, rho], y=list(here), mode="markers", marker={"color": COLORS["hard"], "size": 11}, name="chosen ρ"
    )
    terms = [np.log((1 - noise) / noise), np.log(rho / (1 - rho))]
    figure.add_bar(x=["content", "colour"], y=terms, marker_color=[COLORS["good"], COLORS["bad"]],
                   showlegend=False, row=1, col=2)  # fmt: skip
    word = "colour" if rho > 1 - noise else "content"
    figure.update_xaxes(title_text="ρ: how often the colour agrees with the label in training", row=1, col=1)
    figure.update_yaxes(range=[0, 1.02], title_text="accuracy", row=1, col=1)
    figure.update_yaxes(range=[0, 4.7], row=1, col=2)
    return figure.update_layout(
        template="none", height=340, margin={"t": 70, "b": 50, "l": 55, "r": 10},
        title={"text": f"ρ = {rho:.2f}: it follows the {word}; test accuracy {here[1]:.2f}", "font": {"size": 14}},
    )  # fmt: skip


def transition_widget() -> widgets.VBox:
    """`transition_figure` with sliders."""
    return explore(
        transition_figure,
        rho=widgets.FloatSlider(0.85, min=0.5, max=0.99, step=0.01, description="ρ"),
        noise=widgets.FloatSlider(0.25, min=0.05, max=0.45, step=0.01, description="label noise"),
        test_rho=widgets.FloatSlider(0.1, min=0, max=1, step=0.05, description="test ρ"),
    )


_TASK, _HYPOTHESES = toy_task(), all_hypotheses(4, 2)
_LOSSES = zero_one(_HYPOTHESES, 2)


def map_figure(rho: float = 0.9, target: float = 0.1) -> go.Figure:
    """All 256 hypotheses: iota against the gap of the risks; the 16 invariant ones sit at 0."""
    q, q2 = NuisanceLaw.aligned(rho, 4), NuisanceLaw.aligned(target, 4)
    iota = measures.iota(_TASK, _LOSSES, q, q2).numpy()
    train, test = _TASK.risk(_LOSSES, q).numpy(), _TASK.risk(_LOSSES, q2).numpy()
    invariant = (measures.oscillation(_TASK, _LOSSES) == 0).numpy()
    best = int(train.argmin())
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": COLORS["hard"], "dash": "dash"}, name="Theorem 1"
    )
    kinds = (("others", ~invariant, "baseline"), ("invariant", invariant, "ours"))
    for name, mask, color in kinds:
        figure.add_scatter(x=iota[mask], y=np.abs(train - test)[mask], mode="markers", name=name,
                           marker={"color": COLORS[color], "size": 7})  # fmt: skip
    figure.add_scatter(x=iota[[best]], y=np.abs(train - test)[[best]], mode="markers", name="least training risk",
                       marker={"color": COLORS["bad"], "size": 13, "symbol": "x"})  # fmt: skip
    return figure.update_layout(
        template="none", height=380, margin={"t": 50, "b": 50, "l": 60, "r": 10},
        xaxis={"title": {"text": "ι between the two laws"}, "range": [-0.03, 1]},
        yaxis={"title": {"text": "|gap| of the risks"}, "range": [-0.03, 1]},
        title={"text": f"least training risk: {train[best]:.2f} in training, {test[best]:.2f} under the target law",
               "font": {"size": 14}},
    )  # fmt: skip


def map_widget() -> widgets.VBox:
    """`map_figure` with the two laws as sliders."""
    return explore(
        map_figure,
        rho=widgets.FloatSlider(0.9, min=0, max=1, step=0.02, description="training"),
        target=widgets.FloatSlider(0.1, min=0, max=1, step=0.02, description="target"),
    )


def recolour_figure(predictions: Predictions, digit: int = 0) -> go.Figure:
    """One test digit in all colours, and the prediction of each network; red where it is wrong."""
    if not 0 <= digit < len(predictions.labels):
        raise InputError(f"there are digits 0 to {len(predictions.labels) - 1}; got {digit}.")
    content, label = predictions.content[digit : digit + 1], int(predictions.labels[digit])
    strip = torch.cat([Backgrounds()(content, torch.tensor([z]))[0] for z in range(len(PALETTE))], 2)
    picture = (strip.permute(1, 2, 0).clamp(0, 1) * 255).to(torch.uint8).numpy()
    figure = make_subplots(2, 1, row_heights=[0.45, 0.55], vertical_spacing=0.08)
    figure.add_image(z=picture, row=1, col=1)
    for k, (arm, table) in enumerate(predictions.tables.items()):
        labels = table[digit].tolist()
        colors = [COLORS["good"] if each == label else COLORS["bad"] for each in labels]
        figure.add_scatter(
            x=list(range(len(labels))), y=[k] * len(labels), mode="text", text=[str(each) for each in labels],
            textfont={"color": colors, "size": 18}, showlegend=False, name=arm, row=2, col=1,
        )  # fmt: skip
    flips = {arm: float((t != t[torch.arange(len(t)), predictions.labels][:, None]).double().mean())
             for arm, t in predictions.tables.items()}  # fmt: skip
    figure.update_xaxes(visible=False)
    figure.update_xaxes(range=[-0.5, len(PALETTE) - 0.5], row=2, col=1)
    figure.update_yaxes(visible=False, row=1, col=1)
    figure.update_yaxes(
        tickvals=list(range(len(predictions.tables))),
        ticktext=list(predictions.tables),
        range=[-0.6, 1.6],
        row=2,
        col=1,
    )
    counts = ", ".join(f"{arm} {value:.2f}" for arm, value in flips.items())
    return figure.update_layout(
        template="none", height=300, margin={"t": 50, "b": 20, "l": 90, "r": 10},
        title={"text": f"a {label} in ten colours; share of predictions that a colour changes: {counts}",
               "font": {"size": 14}},
    )  # fmt: skip


def recolour_widget(predictions: Predictions) -> widgets.VBox:
    """`recolour_figure` with a slider over the digits."""

    def figure(digit: int) -> go.Figure:
        return recolour_figure(predictions, digit)

    return explore(figure, digit=widgets.IntSlider(0, min=0, max=len(predictions.labels) - 1, description="digit"))


def example_sweep(seed: int = 0, draws: int = 20) -> list[Candidate]:
    """An artificial sweep like DomainBed's on coloured digits: draws that rely on the colour are best in training.

    Not measured: s is how much a draw relies on the colour; training accuracy rises with s, test accuracy falls.
    """
    generator = np.random.default_rng(seed)
    candidates = []
    for draw in range(draws):
        s, noise = generator.random(), generator.normal(0, 0.02, 6)
        held = {e: [0.70 + 0.15 * s + 0.05 * (1 - e) * s + noise[e]] for e in (0, 1)}
        test = 0.73 - 0.6 * s**0.5 + noise[2]
        left = {e: [0.68 + 0.12 * s + noise[3 + e]] for e in (0, 1)}
        candidates.append(Candidate("draws", draw, 0, held, [float(test)], [float(test)], left))
    return candidates


@cache
def example_regrets(criterion: str) -> tuple[float, ...]:
    """Regret of the criterion in each of 100 artificial sweeps."""
    return tuple(selection.select(example_sweep(1000 + k), criterion).regret for k in range(100))


def casino_figure(criterion: str = "training-domain", seed: int = 0) -> go.Figure:
    """The model-selection casino: choose a criterion, see which draw it selects and its regret."""
    candidates = example_sweep(seed)
    selected = selection.select(candidates, criterion)
    scores = [selection.CRITERIA[criterion](c)[0] for c in candidates]
    figure = make_subplots(1, 2, column_widths=[0.6, 0.4], subplot_titles=("20 draws", "regret over 100 sweeps"))
    figure.add_scatter(x=scores, y=[c.test[-1] for c in candidates], mode="markers", showlegend=False,
                       marker={"color": COLORS["baseline"], "size": 8})  # fmt: skip
    figure.add_scatter(x=[scores[selected.candidate.draw]], y=[selected.accuracy], mode="markers", showlegend=False,
                       marker={"color": COLORS["hard"], "size": 14, "symbol": "circle-open"})  # fmt: skip
    regrets = example_regrets(criterion)
    figure.add_histogram(x=np.array(regrets), xbins={"start": 0, "end": 0.8, "size": 0.05}, marker_color=COLORS["bad"],
                         showlegend=False, row=1, col=2)  # fmt: skip
    figure.update_xaxes(title_text="score under the criterion", row=1, col=1)
    figure.update_yaxes(title_text="test accuracy", range=[0, 0.85], row=1, col=1)
    figure.update_xaxes(title_text="regret", range=[0, 0.8], row=1, col=2)
    return figure.update_layout(
        template="none", height=340, margin={"t": 70, "b": 50, "l": 55, "r": 10},
        title={"text": f"{criterion} selects {selected.accuracy:.2f}, best {selected.accuracy + selected.regret:.2f}",
               "font": {"size": 14}},
    )  # fmt: skip


def casino_widget() -> widgets.VBox:
    """`casino_figure` with the criterion and the sweep to choose."""
    return explore(
        casino_figure,
        criterion=widgets.Dropdown(options=list(selection.CRITERIA), value="training-domain", description="criterion"),
        seed=widgets.IntSlider(0, min=0, max=30, description="sweep"),
    )
