"""The widget pattern: a pure function from state to figure, and a shell that only turns handles."""

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import plotly.graph_objects as go

from labkit.errors import InputError


def explore(figure: Callable[..., go.Figure], **controls: widgets.ValueWidget) -> widgets.VBox:
    """A figure with handles: each control sets the argument of `figure` that has its name.

    `figure` must be pure and quick (under 100 ms): it is called at every move of a handle, and nothing is trained in
    it. The number of traces must not depend on the state. A state it refuses (InputError) leaves the picture as it is
    and shows the message.

    Returns:
        A box of the controls, a line for messages, and the figure; `box.children[-1]` is the FigureWidget.
    """
    shown = go.FigureWidget(figure(**{name: control.value for name, control in controls.items()}))
    message = widgets.HTML()

    def redraw(_: Any) -> None:
        try:
            new = figure(**{name: control.value for name, control in controls.items()})
        except InputError as error:
            message.value = str(error)
            return
        message.value = ""
        with shown.batch_update():
            for old, trace in zip(shown.data, new.data, strict=True):
                old.update(trace.to_plotly_json(), overwrite=True)
            shown.layout.update(new.layout.to_plotly_json())

    for control in controls.values():
        control.observe(redraw, names="value")
    return widgets.VBox([*controls.values(), message, shown])
