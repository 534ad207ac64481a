"""The notebooks in a real JupyterLab in a real browser: they run, their controls move pictures, exercises answer.

At scale smoke, on copies. A screenshot of each is left in runs/browser/.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest

from labkit import papers, paths
from labkit.papers import load

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.xdist_group("browser"),  # one JupyterLab and one browser for all of them
]
TOKEN = "test"
GUARD = 900_000  # milliseconds, against hanging; a quiet machine needs 20 seconds a notebook
NOTEBOOKS = ["00_start_here", *sorted(load(slug).notebook for slug in papers.names())]


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """Address and folder of a JupyterLab of our own, which reads no settings of the user's."""
    home, folder = tmp_path_factory.mktemp("jupyter"), tmp_path_factory.mktemp("notebooks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    environment = os.environ | {
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "LABKIT_RUNS": str(home / "runs"),
        "LABKIT_DATA": str(home / "data"),
        "LABKIT_PROGRESS": "0",
        "PYTHONPATH": str(paths.root()),
    }
    words = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        f"--port={port}",
        "--ServerApp.port_retries=0",
    ]
    words += [
        f"--IdentityProvider.token={TOKEN}",
        "--LabApp.expose_app_in_browser=True",
        f"--ServerApp.root_dir={folder}",
    ]
    with (
        open(home / "log.txt", "wb") as log,
        subprocess.Popen(words, env=environment, stdout=log, stderr=log) as server,
    ):
        try:
            _wait_for(f"http://127.0.0.1:{port}/api/status?token={TOKEN}", server, home / "log.txt")
            yield f"http://127.0.0.1:{port}", folder
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
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright")
    with playwright.sync_playwright() as started:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
        chromium = started.chromium.launch(executable_path=CHROMIUM, headless=True, args=arguments)
        yield chromium
        chromium.close()


NEXT = "s => { s.selectedIndex = (s.selectedIndex + 1) % s.length; s.dispatchEvent(new Event('change')) }"
CONTROLS = {  # a kind each, and what works it
    ".noUi-handle": lambda slider: slider.press("ArrowRight"),
    ".widget-dropdown select": lambda menu: menu.evaluate(NEXT),
    ".widget-toggle-buttons button:not(.mod-active)": lambda button: button.click(),
    ".widget-checkbox input": lambda box: box.click(),
}


class Page:
    """One notebook, open in JupyterLab."""

    def __init__(self, browser, address: str, notebook: str) -> None:
        self.page = browser.new_page(viewport={"width": 1300, "height": 900})
        self.page.set_default_timeout(GUARD)
        self.errors: list[str] = []
        self.outside: list[str] = []
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._requested)
        self.page.goto(f"{address}/lab/tree/{notebook}.ipynb?token={TOKEN}&reset")
        self.page.wait_for_function(
            "() => { const s = window.jupyterapp?.shell?.currentWidget?.sessionContext;"
            " return s && s.isReady && s.session?.kernel?.status === 'idle' }"
        )

    def _requested(self, request) -> None:
        where = urlsplit(request.url)
        if where.scheme in ("http", "https", "ws", "wss") and where.hostname != "127.0.0.1":
            self.outside.append(request.url)

    def run_all(self) -> None:
        self.page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")

    def scroll_to(self, index: int):
        """Cell number `index`, in sight: JupyterLab draws a cell when it is, and forgets it later."""
        self.page.evaluate(
            "async i => { const c = window.jupyterapp.shell.currentWidget.content;"
            " c.activeCellIndex = i; await c.scrollToItem(i); }",
            index,
        )
        return self.page.evaluate_handle(
            "i => window.jupyterapp.shell.currentWidget.content.widgets[i].node", index
        ).as_element()

    def with_widgets(self) -> list[int]:
        """Numbers of the cells that show a widget."""
        return self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.content.widgets.flatMap((c, i) => c.model.type === 'code' &&"
            " JSON.stringify(c.model.outputs.toJSON()).includes('vnd.jupyter.widget-view') ? [i] : [])"
        )

    def outputs(self) -> list[dict]:
        """Of all code cells, as the notebook's model has them."""
        return self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.content.widgets.filter(c => c.model.type === 'code')"
            ".map(c => ({source: c.model.sharedModel.getSource(), tags: c.model.getMetadata('tags') ?? [],"
            " outputs: c.model.outputs.toJSON()}))"
        )

    def moves(self, cell, control, move) -> bool:
        """Does a plot of the cell change when `move` works the control?"""
        shown = "c => JSON.stringify([...c.querySelectorAll('.js-plotly-plot')].map(p => [p.data, p.layout.title]))"
        before = cell.evaluate(shown)
        for _ in range(3):  # the first step of a slider may lead to the same picture
            move(control)
            for _ in range(100):
                if cell.evaluate(shown) != before:
                    return True
                self.page.wait_for_timeout(100)
        return False

    def attempt(self, index: int, source: str) -> str:
        """Put `source` into code cell number `index` and run it; what it prints."""
        return self.page.evaluate(
            "async ([index, source]) => { const notebook = window.jupyterapp.shell.currentWidget.content;"
            " const cells = notebook.widgets.map((c, i) => [c, i]).filter(([c]) => c.model.type === 'code');"
            " const [cell, position] = cells[index]; cell.model.sharedModel.setSource(source);"
            " notebook.activeCellIndex = position; notebook.deselectAll();"
            " await window.jupyterapp.commands.execute('notebook:run-cell');"
            " return cell.model.outputs.toJSON().map(o => o.text ?? '').flat().join('') }",
            [index, source],
        )


def copy_at_smoke(name: str, folder: Path) -> None:
    notebook = nbformat.read(paths.notebooks_dir() / f"{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = cell.source.replace('scale: str = "lesson"', 'scale: str = "smoke"')
            assert "smoke" in cell.source
    nbformat.write(notebook, folder / f"{name}.ipynb")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_moves_and_answers(name, lab, browser):
    address, folder = lab
    copy_at_smoke(name, folder)
    page = Page(browser, address, name)
    try:
        page.run_all()
        cells = page.outputs()
        failed = [
            output["traceback"] for cell in cells for output in cell["outputs"] if output["output_type"] == "error"
        ]
        assert not failed, failed
        moved: dict[str, bool] = {}
        for index in page.with_widgets():
            cell = page.scroll_to(index)
            cell.wait_for_selector(".js-plotly-plot .main-svg", state="attached")
            for kind, move in CONTROLS.items():
                if kind not in moved and (control := cell.query_selector(kind)):
                    moved[kind] = page.moves(cell, control, move)
        assert all(moved.values()), moved
        if name != "00_start_here":
            assert moved, "no control in this notebook"
            exercise = next(i for i, cell in enumerate(cells) if "exercise" in cell["tags"])
            solution = next(cell["source"] for cell in cells[exercise:] if "solution" in cell["tags"])
            assert "not attempted" in json.dumps(cells[exercise]["outputs"])
            assert "✓" in page.attempt(exercise, solution)
        shots = paths.runs_dir() / "browser"
        shots.mkdir(parents=True, exist_ok=True)
        page.page.screenshot(path=shots / f"{name}.png")
        assert not page.outside
        assert not page.errors, page.errors
    finally:
        page.page.close()
