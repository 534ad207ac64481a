"""The site: executed notebooks with plots that move, the ledger, the reference. Nothing in it asks another server.

python docs/build.py [SITE [SOURCE]]     default: build/site, build/site-source
"""

import functools
import html
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat

from labkit import papers, paths
from labkit.workbench.claims import ledger_markdown

HERE = Path(__file__).resolve().parent
PLOTLY = "application/vnd.plotly.v1+json"
HEADING = "# labkit\n\nTen published papers you can run, question and scale.\n\n"
GROUND = ("kernels", "metrics", "rl", "tracking", "vision", "text", "workbench")


def main(target: Path, source: Path) -> int:
    shutil.rmtree(source, ignore_errors=True)
    (source / "_static").mkdir(parents=True)
    shutil.copy(_plotly_js(), source / "_static" / "plotly.min.js")
    names = sorted(path.stem for path in paths.notebooks_dir().glob("[0-9]*.ipynb"))
    for name in names:
        nbformat.write(with_plots(nbformat.read(paths.notebooks_dir() / f"{name}.ipynb", 4)), source / f"{name}.ipynb")
    (source / "ledger.md").write_text(ledger())
    (source / "reference.md").write_text(reference())
    for page, text in rooms():
        (source / f"{page}.md").write_text(text)
    (source / "index.md").write_text(index(names))
    shutil.rmtree(target, ignore_errors=True)
    words = ["-b", "html", "-c", str(HERE), "-D", f"html_static_path={source / '_static'}", "-j", "auto", "-q"]
    words += ["-W", "--keep-going"]  # what Sphinx warns of, and docutils' errors, are named and end with code 1
    words += [str(source), str(target)]
    if code := subprocess.run([sys.executable, "-m", "sphinx", *words]).returncode:
        return code
    broken = [*broken_links(target), *outside_requests(target)]
    print("\n".join(broken) or f"{len(list(target.rglob('*.html')))} pages in {target}, every link leads somewhere")
    return int(bool(broken))


def _plotly_js() -> Path:
    import plotly

    return Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


def with_plots(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with its plotly figures as HTML, which move without a kernel; what needs one keeps its picture."""
    count = 0
    for cell in notebook.cells:
        if "solution" in cell.metadata.get("tags", []):
            cell.metadata.tags = [*cell.metadata.tags, "hide-cell"]
        if "setup" in cell.metadata.get("tags", []):
            cell.metadata.tags = [*cell.metadata.tags, "remove-cell"]
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/markdown" in data:
                data["text/markdown"] = re.sub(r"\]\((\d\d_\w+)\.ipynb\)", r"](\1.html)", data["text/markdown"])
            if PLOTLY in data:
                count += 1
                figure = {key: data[PLOTLY].get(key, {}) for key in ("data", "layout", "frames")}
                data.clear()
                data["text/html"] = plot(figure, f"plot-{count}")
    return notebook


def plot(figure: dict, name: str) -> str:
    content = json.dumps(figure).replace("</", "<\\/")
    return (
        f'<div id="{name}" class="plot"></div>\n<script src="_static/plotly.min.js"></script>\n'
        f"<script>{{ const f = {content}; delete f.layout.width; "
        f"Plotly.newPlot('{name}', f.data, f.layout, {{responsive: true}})"
        f".then(() => f.frames.length && Plotly.addFrames('{name}', f.frames)); }}</script>"
    )


def ledger() -> str:
    parts = [f"## {paper.title}\n\n{ledger_markdown(paper.verdicts())}" for paper in _papers()]
    return "# Ledger\n\nEvery statement of every abstract, and what was measured.\n\n" + "\n\n".join(parts) + "\n"


def _papers() -> list:
    return sorted((papers.load(slug) for slug in papers.names()), key=lambda paper: paper.notebook)


def rooms() -> Iterator[tuple[str, str]]:
    """What each room offers for a reader's own work: the names of its face."""
    for paper in _papers():
        yield (
            f"room-{paper.slug}",
            (
                f"# {paper.slug}\n\n{html.escape(paper.idea)} [The notebook]({paper.notebook}.ipynb).\n\n"
                f"```{{eval-rst}}\n.. automodule:: {paper.room}\n   :members:\n   :imported-members:\n```\n"
            ),
        )


def reference() -> str:
    """Modules of the ground."""
    modules = "\n".join(f"   labkit.{name}" for name in GROUND)
    faces = "\n".join(f"room-{paper.slug}" for paper in _papers())
    return (
        "# Reference\n\n## Rooms\n\n```{toctree}\n:maxdepth: 1\n\n" + faces + "\n```\n\n## Ground\n\n"
        f"```{{eval-rst}}\n.. autosummary::\n   :toctree: api\n   :recursive:\n\n{modules}\n```\n"
    )


def index(names: list[str]) -> str:
    rows = "\n".join(
        f"| [{paper.notebook}]({paper.notebook}.ipynb) | {paper.title} | {paper.idea} |" for paper in _papers()
    )
    table = f"| notebook | paper | idea |\n|---|---|---|\n{rows}\n"
    short = {paper.notebook: f"{paper.slug} <{paper.notebook}>" for paper in _papers()}  # titles would fill three rows
    tree = "```{toctree}\n:hidden:\n\n" + "\n".join([*(short.get(name, name) for name in names), "ledger", "reference"])
    tree += "\n```\n"
    return f"{HEADING}{table}\n{tree}"


# -- checks -----------------------------------------------------------------------------------------------------------


class _Links(HTMLParser):
    """Addresses that a page leads to (`a`) or loads by itself, and the anchors that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.leads: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.leads.append(given["href"])
        elif tag in ("script", "img", "iframe", "source") and "src" in given:
            self.loads.append(given["src"])
        elif tag == "link" and "href" in given and given.get("rel") != "canonical":
            self.loads.append(given["href"])


@functools.cache
def _read(site: Path) -> dict[Path, _Links]:
    pages = {}
    for path in site.rglob("*.html"):
        if "_static" in path.relative_to(site).parts:
            continue  # a template of the theme
        pages[path.resolve()] = links = _Links()
        links.feed(path.read_text())
    return pages


def broken_links(site: Path) -> Iterator[str]:
    """Links within the site whose page or anchor is not there."""
    pages = _read(site)
    for path, links in pages.items():
        for address in links.leads + links.loads:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                yield f"{path.relative_to(site.resolve())}: {address} leads nowhere"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{path.relative_to(site.resolve())}: {address} has no such anchor"


def outside_requests(site: Path) -> Iterator[str]:
    """What a page would load from elsewhere."""
    for path, links in _read(site).items():
        for address in links.loads:
            if urlsplit(address).netloc:
                yield f"{path.relative_to(site.resolve())} loads {address}"


if __name__ == "__main__":
    given = [Path(word) for word in sys.argv[1:]]
    sys.exit(main(*given, *[paths.root() / "build" / name for name in ("site", "site-source")][len(given) :]))
