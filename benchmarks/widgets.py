"""CPU time of a drag: every handle of every widget of the notebooks, moved over its range.

    python benchmarks/widgets.py                       all notebooks, at scale smoke
    python benchmarks/widgets.py 02_brelu 10_lstr      these
    python benchmarks/widgets.py --scale lesson        with what a lesson trains (minutes a notebook)

The cells of a notebook run in this process up to its verdict. Each widget of `viz.explore` is then moved as a page
would move it: the callback computes the new figure, and the messages to the page are built and signed. What the browser
draws is not in these times. A callback may take 100 ms. Exit status 1: some widget's median is above that.
"""

import argparse
import builtins
import contextlib
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import comm
import ipywidgets
import jupytext
import torch
from comm.base_comm import BaseComm
from IPython.display import display
from jupyter_client.session import Session

LIMIT_MS = 100.0
POSITIONS = 12
NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


class Page(BaseComm):
    """The other end of a widget: builds each message as a kernel does, and counts its bytes."""

    session = Session(key=b"as long as a key is, so that messages are signed")
    sent = 0

    def publish_msg(
        self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **keys: Any
    ) -> None:
        content = {"data": data or {}, "comm_id": self.comm_id, **keys}
        whole = self.session.serialize(self.session.msg(msg_type, content, metadata=metadata))
        Page.sent += sum(map(len, whole)) + sum(memoryview(each).nbytes for each in buffers or ())


@dataclass
class Moved:
    """One widget: milliseconds of CPU time of every move, and bytes of the largest one."""

    name: str
    box: ipywidgets.VBox
    ms: list[float] = field(default_factory=list)
    slowest: str = ""
    most_bytes: int = 0

    def move(self) -> None:
        """Each handle over its range and back; the others stay where they begin."""
        for handle in self.box.children[:-2]:
            begin = handle.value
            for value in [*positions(handle), begin]:
                if value != handle.value:
                    self._to(handle, value)

    def _to(self, handle: Any, value: Any) -> None:
        Page.sent, begun = 0, time.process_time()
        handle.value = value
        spent = 1000 * (time.process_time() - begun)
        if not self.ms or spent > max(self.ms):
            self.slowest = (
                f"{handle.description} = {value:.3g}" if isinstance(value, float) else f"{handle.description} = {value}"
            )
        self.ms.append(spent)
        self.most_bytes = max(self.most_bytes, Page.sent)


def positions(handle: Any) -> list[Any]:
    """Values over the whole range of a handle, at most a dozen."""
    if isinstance(handle, ipywidgets.Checkbox | ipywidgets.ToggleButton):
        return [not handle.value]
    if hasattr(handle, "options"):
        values = [value for _, value in handle._options_full]
        return values[:: -(-len(values) // POSITIONS)]
    if isinstance(handle, ipywidgets.Text):  # each word left out in turn
        words = handle.value.split()
        return [" ".join(words[:k] + words[k + 1 :]) for k in range(len(words))][:POSITIONS]
    low, high = handle.min, handle.max
    ends = [low + (high - low) * k / (POSITIONS - 1) for k in range(POSITIONS)]
    if isinstance(handle, ipywidgets.FloatLogSlider):
        return [handle.base**end for end in ends]
    if isinstance(handle, ipywidgets.IntSlider):
        return sorted({round(end) for end in ends})
    return [min(high, low + round((end - low) / handle.step) * handle.step) for end in ends]


def widgets_of(name: str, scale: str) -> Iterator[Moved]:
    """The widgets of a notebook, once its cells up to the verdict have run."""
    from labkit import viz

    moved: list[Moved] = []
    explore, show = viz.explorer.explore, viz.show

    def remember(figure: Callable[..., Any], **controls: Any) -> ipywidgets.VBox:
        caller = sys._getframe(1).f_code.co_name
        moved.append(Moved(caller, explore(figure, **controls)))
        return moved[-1].box

    def make(thing: Any, alt: str, *, when: object = True, otherwise: str = "") -> None:
        if when and callable(thing) and not isinstance(thing, ipywidgets.Widget):
            thing()

    viz.explore, viz.show = remember, make
    for module in [each for key, each in sys.modules.items() if key.startswith("labkit.papers.")]:
        if getattr(module, "explore", None) is explore:
            module.explore = remember  # type: ignore[attr-defined]
    try:
        run_cells(name, scale)
    finally:
        viz.explore, viz.show = explore, show
    yield from moved


def run_cells(name: str, scale: str) -> None:
    """Code cells in order, up to heading 8, with a run directory of their own."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        for number, cell in enumerate(jupytext.read(NOTEBOOKS / f"{name}.py").cells):
            if cell.cell_type == "markdown" and cell.source.startswith("## 8 "):
                return
            if cell.cell_type == "code":
                exec(compile(cell.source, f"{name}, cell {number}", "exec"), namespace)
            if "parameters" in cell.metadata.get("tags", ()):
                namespace |= {"scale": scale, "run_dir": str(Path(folder) / "run")}


def main(words: list[str] | None = None) -> int:
    every = sorted(path.stem for path in NOTEBOOKS.glob("[0-9]*.py") if not path.stem.startswith("00"))
    parser = argparse.ArgumentParser(description="CPU time of every widget's callback.")
    parser.add_argument("names", nargs="*", help="notebooks; default: all")
    parser.add_argument("--scale", default="smoke")
    given = parser.parse_args(words)
    if unknown := set(given.names) - set(every):
        parser.error(f"there is no notebook {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    os.environ.setdefault("LABKIT_PROGRESS", "0")
    torch.set_num_threads(1)
    comm.create_comm = Page
    builtins.display = display  # type: ignore[attr-defined]
    os.chdir(NOTEBOOKS)
    above = 0
    print(f"{'notebook':<13}{'widget':<20}{'moves':>6}{'median':>8}{'worst':>8} ms {'at':<28}{'kB':>6}")
    for name in given.names or every:
        for moved in widgets_of(name, given.scale):
            moved.move()
            above += median(moved.ms) > LIMIT_MS
            print(
                f"{name:<13}{moved.name.removesuffix('_widget'):<20}{len(moved.ms):>6}{median(moved.ms):>8.1f}"
                f"{max(moved.ms):>8.1f}    {moved.slowest:<28}{moved.most_bytes / 1000:>6.1f}",
                flush=True,
            )
    print(f"{above} widgets have a median above {LIMIT_MS:g} ms.")
    return int(above > 0)


if __name__ == "__main__":
    sys.exit(main())
