"""A plotly figure as a still picture, drawn by matplotlib: what a page without a browser's help shows.

Only what the rooms draw: lines, marks and text, bars, heat maps, images, histograms and tables, in subplots, with
linear or logarithmic axes. Colours, ranges, titles and names are the plotly figure's.
"""

import base64
import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

from labkit.errors import InputError

WIDTH, HEIGHT, INCH = 760, 360, 80  # in CSS pixels: a figure that says no size; pixels to an inch
DASHES = {"dash": "--", "dot": ":", "dashdot": "-.", "solid": "-"}
MARKERS = {"circle": "o", "square": "s", "diamond": "D", "x": "X", "cross": "P", "star": "*", "triangle-up": "^"}
CYCLE = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd")  # plotly's own, where a trace says no colour


def picture(figure: go.Figure) -> Figure:
    """The figure as matplotlib draws it, in the size that plotly would give it.

    Raises:
        InputError: a kind of trace that has no picture; names it.
    """
    layout = figure.layout
    width, height = layout.width or WIDTH, layout.height or HEIGHT
    drawn = Figure(figsize=(width / INCH, height / INCH))
    margin = {side: getattr(layout.margin, side) for side in "ltrb"}
    left, right = (margin["l"] or 60) / width, 1 - (margin["r"] or 20) / width
    low, high = max(margin["b"] or 60, 45) / height, 1 - max(margin["t"] or 60, 50) / height
    areas: dict[str, Axes] = {}
    for number, trace in enumerate(figure.data):
        if trace.type not in DRAW:
            raise InputError(f"there is no picture of a plotly {trace.type}; there is one of {', '.join(DRAW)}.")
        name = "table" if trace.type == "table" else (trace.yaxis or "y").removeprefix("y")
        if name not in areas:
            x, y = _domain(figure, trace, name)
            across, up = right - left, high - low
            box = (left + across * x[0], low + up * y[0], across * (x[1] - x[0]), up * (y[1] - y[0]))
            areas[name] = drawn.add_axes(box)
        DRAW[trace.type](areas[name], trace, figure, CYCLE[number % len(CYCLE)])
    for name, axes in areas.items():
        if name != "table":
            _dress(axes, figure, name)
    _write_titles(drawn, figure, areas)
    _write_legend(drawn, figure, areas)
    return drawn


def png(figure: Figure, scale: float = 2) -> bytes:
    """The picture as PNG with `scale` pixels for a CSS pixel, in at most 256 colours: a third of the size."""
    from PIL import Image

    whole, small = io.BytesIO(), io.BytesIO()
    figure.savefig(whole, format="png", dpi=scale * INCH, facecolor="white")
    Image.open(whole).convert("RGB").quantize(256).save(small, format="png", optimize=True)
    return min(small.getvalue(), whole.getvalue(), key=len)


def image_source(pixels: np.ndarray) -> str:
    """A picture, uint8 (height, width, 3), as a data address for `go.Image(source=...)`.

    As `z`, the same pixels are thousands of small lists: a drag takes longer, and every dozen drags Python collects its
    garbage for a quarter of a second.
    """
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="png")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


# -- one kind of trace after the other --------------------------------------------------------------------------------


def _scatter(axes: Axes, trace: Any, figure: go.Figure, color: str) -> None:
    y = _numbers(trace.y)
    x = np.arange(len(y), dtype=float) if trace.x is None else _numbers(trace.x)
    if not len(x):
        return
    mode = trace.mode or ("lines" if len(y) > 20 else "lines+markers")
    line, mark = _color(trace.line.color) or color, trace.marker
    if "lines" in mode:
        steps = {"hv": "steps-post", "vh": "steps-pre", "hvh": "steps-mid"}.get(trace.line.shape, "default")
        dash, width = DASHES.get(trace.line.dash or "solid", "--"), (trace.line.width or 2) * 0.8
        axes.plot(x, y, color=line, ls=dash, lw=width, drawstyle=steps, label=_label(trace, figure))
    if trace.fill == "tozeroy":
        axes.fill_between(x, y, color=line, alpha=0.3, lw=0)
    if trace.error_y.array is not None:
        below = trace.error_y.array if trace.error_y.arrayminus is None else trace.error_y.arrayminus
        error_color = _color(trace.error_y.color) or line
        axes.errorbar(x, y, yerr=[_numbers(below), _numbers(trace.error_y.array)], fmt="none", ecolor=error_color)
    if "markers" in mode:
        shape, colors = mark.symbol or "circle", _colors(mark.color) or line
        filled = not str(shape).endswith("-open")
        sizes = _numbers(6 if mark.size is None else mark.size)  # one, or one a point
        axes.scatter(
            x, y, s=(0.8 * sizes) ** 2, marker=MARKERS.get(str(shape).removesuffix("-open"), "o"),
            facecolors=colors if filled else "none", edgecolors="none" if filled else colors, alpha=trace.opacity,
            linewidths=0 if filled else 2, zorder=3, label=None if "lines" in mode else _label(trace, figure),
        )  # fmt: skip
    if "text" in mode:
        inks = np.broadcast_to(np.array(_colors(trace.textfont.color) or "#222222", dtype=object), len(y))
        raised = "markers" in mode and "top" in (trace.textposition or "")
        for at_x, at_y, word, ink in zip(x, y, trace.text, inks, strict=False):
            axes.annotate(
                _plain(word), (at_x, at_y), (0, 6 if raised else 0), textcoords="offset points", color=ink,
                ha="center", va="bottom" if raised else "center", size=0.75 * (trace.textfont.size or 11),
            )  # fmt: skip


def _bar(axes: Axes, trace: Any, figure: go.Figure, color: str) -> None:
    """Bars beside each other or on top of each other: each knows its rank among the bars of its axes."""
    lying = trace.orientation == "h"
    places, lengths = (trace.y, trace.x) if lying else (trace.x, trace.y)
    lengths = _numbers(lengths)
    words = [] if places is None or not _is_text(places) else [str(each) for each in places]
    at = np.arange(len(lengths), dtype=float) if words or places is None else _numbers(places)
    same = [other for other in figure.data if other.type == "bar" and (other.yaxis or "y") == (trace.yaxis or "y")]
    rank = next(i for i, other in enumerate(same) if other is trace)
    gap = float(np.diff(np.unique(at)).min()) if len(np.unique(at)) > 1 else 1.0
    width, base = (trace.width if isinstance(trace.width, int | float) else 0.8 * gap), np.zeros(len(lengths))
    if figure.layout.barmode == "stack":
        base = base + sum((_numbers(other.x if lying else other.y) for other in same[:rank]), np.zeros(len(lengths)))
    elif len(same) > 1:
        width /= len(same)
        at = at + width * (rank - (len(same) - 1) / 2)
    options: dict[str, Any] = {"color": _colors(trace.marker.color) or color, "label": _label(trace, figure)}
    if lying:
        axes.barh(at, lengths, width, left=base, **options)
    else:
        axes.bar(at, lengths, width, bottom=base, **options)
    if words:
        (axes.set_yticks if lying else axes.set_xticks)(np.arange(len(words)), [_plain(word) for word in words])
        turned = {"rotation": 20, "ha": "right"} if not lying and sum(map(len, words)) > 60 else {}
        axes.tick_params(axis="y" if lying else "x", labelsize=8)
        for word in axes.get_xticklabels() if turned else ():
            word.set(**turned)
    for x, length, word in zip(at, lengths, trace.text if trace.text is not None else (), strict=False):
        axes.annotate(_plain(word), (x, length), ha="center", va="bottom", size=7)


def _heatmap(axes: Axes, trace: Any, figure: go.Figure, color: str) -> None:
    z = _numbers(trace.z)
    edges = [_edges(values, n) for values, n in ((trace.x, z.shape[1]), (trace.y, z.shape[0]))]
    cells = axes.pcolormesh(*edges, z, cmap=_colormap(trace.colorscale), vmin=trace.zmin, vmax=trace.zmax)
    if trace.texttemplate:
        digits = re.search(r"%\{z:(.+?)\}", trace.texttemplate)
        for (row, column), value in np.ndenumerate(z):
            if np.isfinite(value):
                middle = (edges[0][column : column + 2].mean(), edges[1][row : row + 2].mean())
                dark = sum(cells.cmap(cells.norm(value))[:3]) < 1.5
                axes.annotate(format(value, digits.group(1) if digits else ".2f"), middle, ha="center", va="center",
                              size=7, color="white" if dark else "black")  # fmt: skip


def _image(axes: Axes, trace: Any, figure: go.Figure, color: str) -> None:
    from PIL import Image

    if trace.source is not None:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(trace.source.partition(",")[2]))).convert("RGB"))
    else:
        pixels = np.asarray(trace.z, dtype=np.uint8)
    axes.imshow(pixels, interpolation="nearest", aspect="equal")


def _histogram(axes: Axes, trace: Any, figure: go.Figure, color: str) -> None:
    bins: Any = 20
    if trace.xbins.size:
        bins = np.arange(trace.xbins.start, trace.xbins.end + trace.xbins.size / 2, trace.xbins.size)
    axes.hist(_numbers(trace.x), bins, color=_color(trace.marker.color) or color, label=_label(trace, figure))


def _table(axes: Axes, trace: Any, figure: go.Figure, color: str) -> None:
    axes.axis("off")
    rows = [[_plain(word) for word in row] for row in zip(*trace.cells.values, strict=True)]
    widths = np.array(trace.columnwidth if trace.columnwidth is not None else [1.0] * len(rows[0]), dtype=float)
    head = [_plain(word) for word in trace.header.values]
    table = axes.table(rows, colLabels=head, colWidths=list(widths / widths.sum()), cellLoc="left", loc="upper left")
    table.auto_set_font_size(False)
    table.set_fontsize(7)
    for cell in table.get_celld().values():
        cell.set(linewidth=0.3, edgecolor="#bbbbbb")


DRAW: dict[str, Callable[[Axes, Any, go.Figure, str], None]] = {
    "scatter": _scatter,
    "bar": _bar,
    "heatmap": _heatmap,
    "image": _image,
    "histogram": _histogram,
    "table": _table,
}

# -- axes, titles, legend ---------------------------------------------------------------------------------------------


def _domain(figure: go.Figure, trace: Any, name: str) -> tuple[tuple[float, float], tuple[float, float]]:
    if name == "table":
        return trace.domain.x or (0.0, 1.0), trace.domain.y or (0.0, 1.0)
    x, y = figure.layout[f"xaxis{(trace.xaxis or 'x').removeprefix('x')}"], figure.layout[f"yaxis{name}"]
    return x.domain or (0.0, 1.0), y.domain or (0.0, 1.0)


def _dress(axes: Axes, figure: go.Figure, name: str) -> None:
    x, y = figure.layout[f"xaxis{name}"], figure.layout[f"yaxis{name}"]
    for axis, side in ((x, "x"), (y, "y")):
        logarithmic = axis.type == "log"
        if logarithmic:
            axes.set(**{f"{side}scale": "log"})
        if axis.range is not None:
            axes.set(**{f"{side}lim": [10.0**end for end in axis.range] if logarithmic else list(axis.range)})
        if axis.tickvals is not None:
            axes.set(**{f"{side}ticks": list(axis.tickvals)})
            if axis.ticktext is not None:
                axes.set(**{f"{side}ticklabels": [_plain(word) for word in axis.ticktext]})
        if axis.title.text:
            axes.set(**{f"{side}label": _plain(axis.title.text)})
        if axis.visible is False:
            getattr(axes, f"{side}axis").set_visible(False)
            axes.spines[["left", "right"] if side == "y" else ["top", "bottom"]].set_visible(False)
    if y.autorange == "reversed" and not axes.yaxis_inverted():
        axes.invert_yaxis()
    if y.scaleanchor:
        axes.set_aspect("equal", adjustable="box", anchor="N")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _write_titles(drawn: Figure, figure: go.Figure, areas: dict[str, Axes]) -> None:
    """The figure's title above all, and the titles of subplots: annotations above their places."""
    height = drawn.get_size_inches()[1] * INCH
    if figure.layout.title.text:
        drawn.text(0.5, 1 - 8 / height, _plain(figure.layout.title.text), ha="center", va="top", size=10)
    for note in figure.layout.annotations:
        if note.xref == "paper" and areas:
            near = min(areas.values(), key=lambda axes: abs(axes.get_position().x0 + axes.get_position().width / 2
                                                            - _across(drawn, figure, note.x)))  # fmt: skip
            near.set_title(_plain(note.text), fontsize=9)


def _across(drawn: Figure, figure: go.Figure, share: float) -> float:
    """A place of plotly's paper, 0 to 1 between the margins, as a share of the figure's width."""
    width, margin = drawn.get_size_inches()[0] * INCH, figure.layout.margin
    left, right = (margin.l or 60) / width, (margin.r or 20) / width
    return left + share * (1 - left - right)


def _write_legend(drawn: Figure, figure: go.Figure, areas: dict[str, Axes]) -> None:
    """Below the axes, in one line if it fits; a figure with `showlegend=False` or a single name has none."""
    entries = [axes.get_legend_handles_labels() for axes in areas.values()]
    named = {label: handle for handles, labels in entries for handle, label in zip(handles, labels, strict=True)}
    if figure.layout.showlegend is False or len(named) < 2:
        return
    size = drawn.get_size_inches()
    drawn.set_size_inches(size[0], size[1] + 0.35)
    shrink = size[1] / (size[1] + 0.35)
    for axes in areas.values():
        box = axes.get_position()
        axes.set_position((box.x0, 1 - (1 - box.y0) * shrink, box.width, box.height * shrink))
    for text in drawn.texts:
        text.set_y(1 - (1 - text.get_position()[1]) * shrink)
    drawn.legend(named.values(), named.keys(), loc="lower center", ncols=len(named), frameon=False, fontsize=8)


# -- plotly's values in matplotlib's words ----------------------------------------------------------------------------


def _label(trace: Any, figure: go.Figure) -> str | None:
    return _plain(trace.name) if trace.name and trace.showlegend is not False else None


def _numbers(values: Any) -> np.ndarray:
    """As floats; None is NaN."""
    return np.array([] if values is None else values, dtype=float)


def _is_text(values: Any) -> bool:
    return any(isinstance(value, str) for value in values)


def _edges(values: Any, count: int) -> np.ndarray:
    """Borders of cells whose centres are given, evenly spaced; 0, 1, 2, ... where they are not."""
    centres = np.arange(count, dtype=float) if values is None else _numbers(values)
    half = (centres[1] - centres[0]) / 2 if count > 1 else 0.5
    return np.append(centres - half, centres[-1] + half)


def _plain(text: Any) -> str:
    """Without plotly's markup, and without matplotlib's."""
    return (
        re.sub(r"<[^>]+>", "", str(text).replace("<br>", "\n")).replace("$", r"\$").replace("\N{NO-BREAK SPACE}", " ")
    )


def _color(text: Any) -> str | None:
    """A colour as matplotlib writes it: `rgb(1, 2, 3)` is #010203."""
    if not isinstance(text, str):
        return None
    if text.startswith("rgb"):
        parts = [float(part) for part in re.findall(r"[\d.]+", text)]
        return "#" + "".join(f"{round(part):02x}" for part in parts[:3])
    return text


def _colors(given: Any) -> Any:
    """One colour or one a point."""
    if given is None or isinstance(given, str):
        return _color(given)
    return [_color(each) for each in given]


def _colormap(scale: Any) -> Colormap:
    if scale is None:
        return matplotlib.colormaps["RdBu_r"]
    return LinearSegmentedColormap.from_list("plotly", [(at, _color(color) or color) for at, color in scale])
