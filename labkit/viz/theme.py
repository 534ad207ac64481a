"""Colours by meaning, the same in all notebooks, and settings that keep outputs small and offline."""

import sys
from typing import Any

import matplotlib
import plotly.io
from IPython.core.getipython import get_ipython
from IPython.core.pylabtools import select_figure_formats
from matplotlib.figure import Figure

# Any two of them can be told apart by eyes without one kind of cone, too (tested).
COLORS = {
    "float": "#7f7f7f",  # the reference that nothing was done to
    "ours": "#1f6fb4",  # the paper's method
    "baseline": "#d97706",  # its rivals
    "hard": "#222222",  # what is deployed, the truth
    "straw": "#c9b8a8",  # a baseline that is easy to beat
    "bad": "#c0392b",  # failures, gaps
    "good": "#12a05c",  # successes
}


def use() -> None:
    """Call once at the top of a notebook.

    Plotly figures are stored as JSON that JupyterLab draws offline; matplotlib pictures are PNGs of moderate size.
    """
    shell = get_ipython()
    if shell is not None:
        select_figure_formats(shell, {"png"})  # a Figure at the end of a cell is shown, once
    plotly.io.renderers.default = "plotly_mimetype"
    if colab := sys.modules.get("google.colab"):  # it draws figures in its own way, and widgets of others when asked
        plotly.io.renderers.default = "colab"
        colab.output.enable_custom_widget_manager()
    plotly.io.templates.default = "none"  # the default template adds 6 kB to every figure
    matplotlib.rcParams.update(
        {
            "figure.dpi": 80,
            "savefig.dpi": 80,
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 10,
        }
    )


def subplots(rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure and its axes, like `plt.subplots`, but a plain value: nothing global, shown only where it is returned.

    Args:
        options: `figsize` in inches, `width_ratios` and others of `Figure.subplots`.
    """
    figure = Figure(figsize=options.pop("figsize", None), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)
