"""The widget pattern: a pure function from state to figure, and a shell that only turns handles."""

import functools
import gzip
import html
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import plotly
import plotly.graph_objects as go
import traitlets

from labkit.errors import InputError


def explore(figure: Callable[..., go.Figure], **controls: widgets.ValueWidget) -> widgets.VBox:
    """A figure with handles: each control sets the argument of `figure` that has its name.

    `figure` must be pure and quick (under 100 ms): it is called at every move of a handle, and nothing is trained in
    it. The traces' kinds and number must not depend on the state. A state it refuses (InputError) leaves the picture as
    it is and shows the message.

    Returns:
        A box of the controls, a line for messages, and the figure; `box.children[-1]` is the FigureWidget.

    Raises:
        ValueError: at a move of a handle, `figure` returned other kinds of traces than before.
    """
    shown = _WholeFigure(figure(**{name: control.value for name, control in controls.items()}))
    message = widgets.HTML()

    def redraw(_: Any) -> None:
        try:
            new = figure(**{name: control.value for name, control in controls.items()})
        except InputError as error:
            message.value = html.escape(str(error))
            return
        if [trace.type for trace in new.data] != [trace.type for trace in shown.data]:
            raise ValueError("the figure of `explore` must have the same traces in every state")
        message.value = ""
        with shown.batch_update():
            for old, trace in zip(shown.data, new.data, strict=True):
                _become(old, trace)
            _become(shown.layout, new.layout)

    for control in controls.values():
        control.observe(redraw, names="value")
    return widgets.VBox([*controls.values(), message, shown])


# What the page runs for a figure. It is up at once; plotly follows, once a page and when half a second has passed
# without a new figure: while the page reads it, no other figure comes up. What the kernel sends until then is kept, and
# drawn later.
SHELL = """
const NAME = "labkit plotly VERSION";

const ASKED = `${NAME}, last asked for`;

const source = async (model) => {
  const holder = await model.widget_manager.get_model(model.get("_library").replace("IPY_MODEL_", ""));
  const packed = new Blob([holder.get("source")]).stream();
  return new Response(packed.pipeThrough(new DecompressionStream("gzip"))).text();
};

const library = (model) => window[NAME] ??= (async () => {
  while (performance.now() - window[ASKED] < 500) await new Promise((resolve) => setTimeout(resolve, 100));
  const address = URL.createObjectURL(new Blob([await source(model)], {type: "text/javascript"}));
  try { return await import(address); } finally { URL.revokeObjectURL(address); }
})();

export default () => {
  const early = [];
  let figure;
  return {
    initialize({model}) {
      const keep = () => { if (model.get("_py2js_update")) early.push(model.get("_py2js_update")); };
      model.on("change:_py2js_update", keep);
      window[ASKED] = performance.now();
      figure = library(model).then(async (plotly) => {
        const widget = plotly.default();
        model.off("change:_py2js_update", keep);
        await widget.initialize({model});
        return widget;
      });
    },
    async render(context) {
      const remove = (await figure).render(context);
      for (const update of early.splice(0)) {
        context.model.set("_py2js_update", update);
        context.model.set("_py2js_update", null);
      }
      return remove;
    },
  };
};
"""


class _Library(widgets.Widget):
    """plotly's script, packed: one for all figures of a kernel, so that a saved notebook holds it once."""

    source = traitlets.Bytes().tag(sync=True)


@functools.cache
def _library() -> _Library:
    return _Library(source=gzip.compress(str(go.FigureWidget._esm).encode(), mtime=0))


class _WholeFigure(go.FigureWidget):
    """A FigureWidget that a busy machine does not leave empty or deaf.

    Its first message to the page holds the whole figure. plotly opens the channel with an empty figure and sends the
    data in a second message; its view draws what it has when it is made and never looks again. A view that was made in
    between stayed empty.

    And the page need not read plotly's five megabytes before it receives messages: anywidget gives a widget two seconds
    to come up, draws one that is late, and passes it no message any more, so that handles moved and pictures did not.
    """

    _esm = SHELL.replace("VERSION", plotly.__version__)
    _library = traitlets.Instance(_Library).tag(sync=True, **widgets.widget_serialization)

    def __init__(self, figure: go.Figure) -> None:
        super().__init__(figure)
        self._library = _library()
        super().open()

    def open(self) -> None:
        """Nothing: ipywidgets calls it before the data are there."""


def _become(old: Any, new: Any) -> None:
    """Make a trace or layout equal to another one: what the new one leaves out goes, a title or a marker colour too."""
    content = new.to_plotly_json()
    left_out = old.to_plotly_json().keys() - content.keys() - {"uid", "type"}
    old.update(dict.fromkeys(left_out) | content, overwrite=True)
