"""Notebooks in a real JupyterLab in a real browser: they run, their controls move pictures, exercises answer.

A small notebook with one control of each kind always; `make browser` opens all eleven, at scale smoke. What is run
lies in workspace/ of a checkout of its own, whose `git status` must be clean afterwards. Screenshots stay in
runs/browser/.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nbformat
import pytest

from labkit import paths
from labkit.viz.explorer import SHELL
from labkit.workbench import notebooks, workspace

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]
TOKEN = "test"
GUARD = 900_000  # milliseconds, against hanging; a quiet machine needs 20 seconds a notebook
ASKED = os.environ.get("LABKIT_BROWSER", "")  # `make browser` sets it: all, or some names with commas
NOTEBOOKS = notebooks.names() if ASKED in ("", "all") else ASKED.split(",")

# plotly's script as a slow machine loads it: anywidget gives a widget that is late by two seconds no message any more
SLOWLY = """
window.Blob = class extends Blob {
  constructor(parts, options) {
    const slow = options?.type === "text/javascript" && parts[0].length > 1e6;
    super(slow ? ["await new Promise(done => setTimeout(done, 4000));", ...parts] : parts, options);
  }
};
"""

# the settings of a JupyterLab that keeps every cell in the page, seen or not, and asks nobody for news
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}

WIDGET = """
import ipywidgets as widgets
import plotly.graph_objects as go

from labkit import viz

viz.use()


def line(steps=2, slope=1.0, power=1.0, start=0, shape="linear", color="blue", dots=False):
    mode = "lines+markers" if dots else "lines"
    y = [start + slope * power * n for n in range(steps)]
    return go.Figure(go.Scatter(y=y, mode=mode, line={"shape": shape, "color": color}))


controls = {
    "steps": widgets.IntSlider(2, 2, 9),
    "slope": widgets.FloatSlider(1.0, min=0, max=2),
    "power": widgets.FloatLogSlider(1.0, min=0, max=3),
    "start": widgets.SelectionSlider(options=[0, 1, 2]),
    "shape": widgets.Dropdown(options=["linear", "hv", "vh"]),
    "color": widgets.ToggleButtons(options=["blue", "red"]),
    "dots": widgets.Checkbox(False),
}
viz.show(viz.explore(line, **controls), "A line that rises.")
"""
EXERCISE = """
from labkit.workbench.exercises import Exercise, number

sum_of_two = Exercise(
    "sum", "fill in", "Two and two?", {"sum": number(4, 0, "Count.")}, 4, difficulty=1, minutes=1, hints=("3", "4")
)
display(sum_of_two)
my_answer = None

sum_of_two.check(my_answer)
"""
SOLUTION = """
# solution
sum_of_two.check(4)
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A repository with the project's notebooks and settings, and copies of the notebooks in its workspace."""
    root = tmp_path_factory.mktemp("checkout")
    for name in (".gitignore", "pyproject.toml"):
        shutil.copy(paths.root() / name, root)
    shutil.copytree(paths.notebooks_dir(), root / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_WORKSPACE", str(root / "workspace"))
        workspace.prepare()
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for words in (["init", "--quiet"], ["add", "."], [*who, "commit", "--quiet", "--message", "as it was"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    return root


@pytest.fixture(scope="module")
def lab(checkout, tmp_path_factory) -> Iterator[str]:
    """Address of a JupyterLab of our own, which reads no settings of the user's."""
    home = tmp_path_factory.mktemp("jupyter")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, setting in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(setting))
    environment = os.environ | {
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "LABKIT_RUNS": str(checkout / "runs"),
        "LABKIT_DATA": str(home / "data"),
        "LABKIT_PROGRESS": "0",
        "PYTHONPATH": os.pathsep.join((str(paths.root()), str(paths.root() / "tests"))),
    }
    options = ["--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0"]
    options += [f"--IdentityProvider.token={TOKEN}", "--LabApp.expose_app_in_browser=True"]
    options += [f"--ServerApp.root_dir={checkout}"]
    log = home / "log.txt"
    with open(log, "wb") as out:
        words = [sys.executable, "-m", "jupyterlab", *options]
        with subprocess.Popen(words, cwd=checkout, env=environment, stdout=out, stderr=out) as server:
            try:
                _wait_for(f"http://127.0.0.1:{port}/api/status?token={TOKEN}", server, log)
                yield f"http://127.0.0.1:{port}"
            finally:
                server.terminate()


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        assert server.poll() is None, f"JupyterLab ended: {log.read_text()}"
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"JupyterLab did not answer: {log.read_text()}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright")
    with playwright.sync_playwright() as started:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
        chromium = started.chromium.launch(executable_path=CHROMIUM, headless=True, args=arguments)
        yield chromium
        chromium.close()


AT_ITS_END = "s => Number(s.getAttribute('aria-valuenow')) >= Number(s.getAttribute('aria-valuemax'))"
ONE_CHOICE = "c => c.options?.length === 1"  # a menu of the only scenes that this run has
NEXT = "select => (select.selectedIndex + 1) % select.length"
CONTROLS: dict[str, Callable[[Any], None]] = {  # a kind each, and what works it
    ".noUi-handle": lambda slider: slider.press("ArrowLeft" if slider.evaluate(AT_ITS_END) else "ArrowRight"),
    ".widget-dropdown select": lambda menu: menu.select_option(index=menu.evaluate(NEXT)),
    ".widget-toggle-buttons button:not(.mod-active)": lambda button: button.click(),
    ".widget-checkbox input": lambda box: box.click(),
}


class Page:
    """One notebook, open in JupyterLab, in a page that runs the script `before` first."""

    def __init__(self, browser: Any, address: str, notebook: str, before: str = "") -> None:
        self.page = browser.new_page(viewport={"width": 1300, "height": 900})
        self.page.add_init_script(before)
        self.page.set_default_timeout(GUARD)
        self.errors: list[str] = []
        self.outside: list[str] = []
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._requested)
        self.page.goto(f"{address}/lab/tree/workspace/{notebook}.ipynb?token={TOKEN}&reset")
        self.page.wait_for_function(
            "() => { const s = window.jupyterapp?.shell?.currentWidget?.sessionContext;"
            " return s && s.isReady && s.session?.kernel?.status === 'idle' }"
        )

    def _requested(self, request: Any) -> None:
        where = urlsplit(request.url)
        if where.scheme in ("http", "https", "ws", "wss") and where.hostname != "127.0.0.1":
            self.outside.append(request.url)

    def command(self, name: str) -> None:
        self.page.evaluate("name => window.jupyterapp.commands.execute(name)", name)

    def cells(self) -> list[dict[str, Any]]:
        """All cells, as the notebook's model has them; `node` is where its element stands in the page."""
        return self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.content.widgets.map((c, i) => ({node: i,"
            " source: c.model.sharedModel.getSource(), tags: c.model.getMetadata('tags') ?? [],"
            " outputs: c.model.type === 'code' ? c.model.outputs.toJSON() : []}))"
        )

    def element(self, node: int) -> Any:
        """A cell in sight."""
        cell = self.page.evaluate_handle(
            "i => window.jupyterapp.shell.currentWidget.content.widgets[i].node", node
        ).as_element()
        cell.scroll_into_view_if_needed()
        return cell

    def moves(self, cell: Any, control: Any, move: Callable[[Any], None]) -> bool:
        """Does a plot of the cell change when `move` works the control?"""
        shown = "c => JSON.stringify([...c.querySelectorAll('.js-plotly-plot')].map(p => [p.data, p.layout]))"
        before = cell.evaluate(shown)
        for _ in range(3):  # the first step of a slider may lead to the same picture
            move(control)
            for _ in range(100):
                if cell.evaluate(shown) != before:
                    return True
                self.page.wait_for_timeout(100)
        return False

    def plotted(self, node: int) -> Any:
        """The cell, once its plot is drawn."""
        cell = self.element(node)
        for _ in range(3000):
            if cell.query_selector(".js-plotly-plot .main-svg"):
                return cell
            self.page.wait_for_timeout(100)
        raise AssertionError("a widget's plot was never drawn", self.errors)

    def run(self, node: int) -> None:
        self.page.evaluate(
            "async node => { const notebook = window.jupyterapp.shell.currentWidget.content;"
            " notebook.deselectAll(); notebook.activeCellIndex = node;"
            " await window.jupyterapp.commands.execute('notebook:run-cell') }",
            node,
        )

    def attempt(self, node: int, source: str) -> str:
        """Put `source` into a cell and run it; what it prints."""
        self.page.evaluate(
            "([node, source]) => window.jupyterapp.shell.currentWidget.content.widgets[node].model.sharedModel"
            ".setSource(source)",
            [node, source],
        )
        self.run(node)
        return json.dumps(self.cells()[node]["outputs"], ensure_ascii=False)

    def close(self) -> None:
        """The kernel ends, too."""
        self.page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        self.page.close()


def work(page: Page, every: bool) -> None:
    """Run all cells, work the controls (of each kind one, or `every` one), attempt the first exercise, save.

    Raises:
        AssertionError: an error of a cell, a control that moves nothing, an exercise that does not answer.
    """
    page.command("notebook:run-all-cells")
    cells = page.cells()
    failed = [out["traceback"] for cell in cells for out in cell["outputs"] if out["output_type"] == "error"]
    assert not failed, failed
    moved: set[str] = set()
    for node in [cell["node"] for cell in cells if "vnd.jupyter.widget-view" in json.dumps(cell["outputs"])]:
        cell = page.plotted(node)
        for kind, move in CONTROLS.items():
            for number, control in enumerate(cell.query_selector_all(kind)):
                if control.evaluate(ONE_CHOICE):
                    continue
                key = f"{kind} {number}" if every else kind
                if key not in moved:
                    assert page.moves(cell, control, move), (cells[node]["source"], key, page.errors)
                    moved.add(key)
    exercise = next((cell for cell in cells if "exercise" in cell["tags"]), None)
    if exercise:
        assert moved, "no control in this notebook"
        solution = next(cell["source"] for cell in cells[exercise["node"] :] if "solution" in cell["tags"])
        assert "not attempted" in json.dumps(exercise["outputs"])
        assert "\N{CHECK MARK}" in page.attempt(exercise["node"], solution)
    page.command("docmanager:save")


def small_notebook() -> nbformat.NotebookNode:
    """Of the house's own widget, with one control of each kind, and its own exercise."""
    cells = [
        nbformat.v4.new_code_cell(source.strip(), metadata={"tags": [tag]})
        for source, tag in (
            (notebooks.SETUP, "setup"),
            (WIDGET, "widget"),
            (EXERCISE, "exercise"),
            (SOLUTION, "solution"),
        )
    ]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def at_smoke(copy: Path) -> None:
    """Set the parameters of a notebook to the smallest scale."""
    notebook = nbformat.read(copy, as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            assert 'scale: str = "lesson"' in cell.source
            cell.source = cell.source.replace('scale: str = "lesson"', 'scale: str = "smoke"')
    nbformat.write(notebook, copy)


def open_and_work(browser: Any, lab: str, checkout: Path, name: str, every: bool, before: str = "") -> None:
    page = Page(browser, lab, name, before)
    try:
        work(page, every)
        assert not page.outside
        assert not page.errors
    finally:
        shots = paths.root() / "runs" / "browser"
        shots.mkdir(parents=True, exist_ok=True)
        page.page.screenshot(path=shots / f"{name}.png")
        page.close()
    saved = nbformat.read(checkout / "workspace" / f"{name}.ipynb", as_version=4)
    assert all(cell.execution_count for cell in saved.cells if cell.cell_type == "code"), "not saved as it was run"
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=checkout, capture_output=True, text=True, check=True)
    assert changed.stdout == "", "running a notebook by hand left something behind"


def test_every_kind_of_control_moves_the_picture_and_an_exercise_answers(browser, lab, checkout):
    nbformat.write(small_notebook(), checkout / "workspace" / "small.ipynb")
    open_and_work(browser, lab, checkout, "small", every=True, before=SLOWLY)


def test_the_notebook_of_a_run_shows_its_widgets_when_it_is_opened(browser, lab, checkout, monkeypatch):
    """Trusted, and no cell is run: widgets come from the state that papermill saved, plotly once for all of them."""
    notebook = small_notebook()
    notebook.cells[1:] = [nbformat.v4.new_code_cell(WIDGET.strip()) for _ in range(2)]
    nbformat.write(notebook, checkout / "workspace" / "source.ipynb")
    monkeypatch.setattr(paths, "notebooks_dir", lambda: checkout / "workspace")
    executed = notebooks.execute("source", {}, checkout / "workspace" / "run.ipynb")
    assert executed.stat().st_size < 3_000_000
    page = Page(browser, lab, "run")
    try:
        page.page.evaluate("window.jupyterapp.shell.currentWidget.content.widgets.forEach(c => c.model.trusted = true)")
        for node in (1, 2):
            page.plotted(node)
    finally:
        page.close()
    assert not page.errors


PRETENDED = """
export default () => ({
  async initialize() {},
  render({model}) {
    model.on("change:_py2js_update", () => model.get("_py2js_update") && window.drawn.push(model.get("_py2js_update")));
    return () => window.drawn.push("removed");
  },
});
"""
EARLY_AND_LATE = """
async ([shell, library]) => {
  window.drawn = [];
  const packed = new Blob([library]).stream().pipeThrough(new CompressionStream("gzip"));
  const holder = new Map([["source", new DataView(await new Response(packed).arrayBuffer())]]);
  const heard = [], values = {_library: "IPY_MODEL_7"};
  const model = {
    widget_manager: {get_model: async id => ({7: holder})[id]},
    get: name => values[name],
    set: (name, value) => {
      values[name] = value;
      heard.filter(each => each[0] === `change:${name}`).forEach(each => each[1]());
    },
    on: (name, f) => heard.push([name, f]),
    off: (name, f) => heard.splice(heard.findIndex(each => each[1] === f), 1),
  };
  const address = URL.createObjectURL(new Blob([shell], {type: "text/javascript"}));
  const widget = (await import(address)).default();
  widget.initialize({model});
  for (const update of ["first", "second", null]) model.set("_py2js_update", update);
  const remove = await widget.render({model});
  model.set("_py2js_update", "third");
  remove();
  return window.drawn;
}
"""


def test_what_the_kernel_sends_before_plotly_is_there_is_drawn_later(browser):
    page = browser.new_page()
    assert page.evaluate(EARLY_AND_LATE, [SHELL, PRETENDED]) == ["first", "second", "third", "removed"]
    page.close()


@pytest.mark.skipif(not ASKED, reason="`make browser` opens all notebooks: some minutes")
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_moves_and_answers(name, browser, lab, checkout):
    at_smoke(checkout / "workspace" / f"{name}.ipynb")
    open_and_work(browser, lab, checkout, name, every=False)
