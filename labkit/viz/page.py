"""Put before the reader: a picture, a widget, a film, the library's own source."""

import base64
import html
import inspect
import io
import textwrap
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import plotly.graph_objects as go
from IPython.display import HTML, Markdown, display
from matplotlib.figure import Figure
from PIL import Image

from labkit.viz.picture import INCH, picture, png

PNG = b"\x89PNG"


def show(thing: Any, alt: str, *, when: object = True, otherwise: str = "Not part of this run.") -> None:
    """A picture with its alternative text; what moves has a still picture in its place for pages that cannot move it.

    A matplotlib figure is its PNG. A plotly figure is its PNG and, below, the interactive figure. A widget of `explore`
    and the PNG of its first state are one output: JupyterLab shows the widget while its kernel lives, any other page
    the picture. A film (GIF) is one output too, and a finished PNG is taken to have two pixels for one.

    Args:
        thing: a figure of matplotlib or plotly, a widget of `explore`, or the bytes of a GIF or PNG; or a function
            without arguments that makes one, called only where `when` holds.
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
    if isinstance(drawn, bytes) and drawn.startswith(PNG):
        pixels = Image.open(io.BytesIO(drawn)).size
        _display_png(drawn, (pixels[0] // 2, pixels[1] // 2), alt)
    elif isinstance(drawn, bytes):
        source = f"data:image/gif;base64,{base64.b64encode(drawn).decode()}"
        display(HTML(f'<img src="{source}" alt="{html.escape(alt)}">'))
    elif isinstance(drawn, Figure):
        _display_png(png(drawn), _size(drawn), alt)
    elif isinstance(drawn, go.Figure) and not isinstance(drawn, widgets.Widget):
        still = picture(drawn)
        _display_png(png(still), _size(still), alt)
        display(drawn)
    elif isinstance(drawn, widgets.Box) and isinstance(drawn.children[-1], go.FigureWidget):
        view = {"version_major": 2, "version_minor": 0, "model_id": drawn.model_id}
        still = picture(go.Figure(drawn.children[-1]))
        _display_png(png(still), _size(still), alt, {"application/vnd.jupyter.widget-view+json": view})
    else:
        raise TypeError(f"there is no picture of a {type(drawn).__name__}; show a figure, a film or a widget.")


def _size(figure: Figure) -> tuple[int, int]:
    """Width and height in CSS pixels."""
    width, height = figure.get_size_inches() * INCH
    return round(width), round(height)


def _display_png(image: bytes, size: tuple[int, int], alt: str, beside: dict[str, Any] | None = None) -> None:
    """At `size`, half of its own, so that it is sharp; `alt` in its metadata and as its plain text."""
    display(
        {"image/png": base64.b64encode(image).decode(), "text/plain": alt, **(beside or {})},
        metadata={"image/png": {"width": size[0], "height": size[1], "alt": alt}},
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
