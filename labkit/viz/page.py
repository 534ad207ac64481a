"""Put before the reader: a picture, a widget, a film, the library's own source."""

import base64
import html
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import plotly.graph_objects as go
from IPython.display import HTML, Markdown, display
from matplotlib.figure import Figure

from labkit.viz.picture import INCH, picture, png


def show(thing: Any, alt: str, *, when: object = True, otherwise: str = "Not part of this run.") -> None:
    """A picture with its alternative text; what moves has a still picture in its place for pages that cannot move it.

    A matplotlib figure is its PNG. A plotly figure is its PNG and, below, the interactive figure. A widget of `explore`
    and the PNG of its first state are one output: JupyterLab shows the widget while its kernel lives, any other page
    the picture. A film (GIF) is one output too.

    Args:
        thing: a figure of matplotlib or plotly, a widget of `explore`, or the bytes of a GIF; or a function without
            arguments that makes one, called only where `when` holds.
        alt: what can be seen, in a sentence, for readers who cannot see it.
        when: what the picture needs: a result, a part of it, a list. Where it is empty, None or False `otherwise` is
            printed in its place.

    Raises:
        ValueError: `alt` says nothing.
        TypeError: something that has no picture.
    """
    if not alt.strip():
        raise ValueError("a picture needs a sentence for readers who cannot see it; alt is empty.")
    if not when:
        print(otherwise)
        return
    drawn = thing() if callable(thing) and not isinstance(thing, widgets.Widget) else thing
    if isinstance(drawn, bytes):
        source = f"data:image/gif;base64,{base64.b64encode(drawn).decode()}"
        display(HTML(f'<img src="{source}" alt="{html.escape(alt)}">'))
    elif isinstance(drawn, Figure):
        _display_png(drawn, alt)
    elif isinstance(drawn, go.Figure) and not isinstance(drawn, widgets.Widget):
        _display_png(picture(drawn), alt)
        display(drawn)
    elif isinstance(drawn, widgets.Box) and isinstance(drawn.children[-1], go.FigureWidget):
        view = {"version_major": 2, "version_minor": 0, "model_id": drawn.model_id}
        still = picture(go.Figure(drawn.children[-1]))
        _display_png(still, alt, {"application/vnd.jupyter.widget-view+json": view})
    else:
        raise TypeError(f"there is no picture of a {type(drawn).__name__}; show a figure, a film or a widget.")


def _display_png(figure: Figure, alt: str, beside: dict[str, Any] | None = None) -> None:
    """The picture at twice the resolution and half the size, `alt` in its metadata and as its plain text."""
    width, height = (round(side * INCH) for side in figure.get_size_inches())
    image = base64.b64encode(png(figure)).decode()
    display(
        {"image/png": image, "text/plain": alt, **(beside or {})},
        metadata={"image/png": {"width": width, "height": height, "alt": alt}},
        raw=True,
    )


def show_source(*things: Callable[..., Any] | type) -> None:
    """The source of functions, methods or classes of labkit and where it stands. What you read is what runs.

    Raises:
        TypeError: not something that was written in Python.
    """
    for thing in things:
        thing = inspect.unwrap(thing)
        lines, first = inspect.getsourcelines(thing)
        display(Markdown(f"`{thing.__module__}.{thing.__qualname__}`, line {first}"))
        code = textwrap.dedent("".join(lines)).rstrip()
        display(Markdown(f"````python\n{code}\n````"))  # set in a monospaced face by every page, unlike a Code object
