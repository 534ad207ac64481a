"""An executed notebook as one HTML file that asks nothing from outside: text, formulas, code, pictures."""

import html
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.filters import Highlight2HTML, ansi2html
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from labkit.files import write_atomically

STYLE = """
body { max-width: 58rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.55 system-ui, sans-serif; color: #1b1b1b }
h1, h2, h3 { line-height: 1.25; margin-top: 2.2rem }
pre, code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 85% }
pre { padding: .7rem 1rem; overflow-x: auto; line-height: 1.4; margin: .4rem 0 }
.source pre, .highlight pre { background: #f6f6f4; border-left: 3px solid #1f6fb4 }
pre.stderr { background: #fdf3f2 }
table { border-collapse: collapse; margin: 1rem 0; font-size: 90%; display: block; overflow-x: auto }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left; vertical-align: top }
.anchor-link { display: none }
img { max-width: 100%; height: auto }
details { margin: .6rem 0 } summary { cursor: pointer; color: #1f6fb4 }
math[display="block"] { margin: 1rem 0; overflow-x: auto }
"""
PICTURES = ("image/png", "image/jpeg", "image/gif")


def write(notebook: Path) -> Path:
    """The page beside the notebook, with `.html` for its ending.

    Solutions are folded. Of an output with several forms the still picture is shown, else HTML, Markdown or text;
    interactive figures need a kernel or a script of several megabytes, so that their pictures take their place.
    """
    page = notebook.with_suffix(".html")
    write_atomically(page, as_html(nbformat.read(notebook, as_version=4), notebook.stem).encode())
    return page


def as_html(notebook: nbformat.NotebookNode, title: str) -> str:
    heading = next((re.match("# (.+)", c.source) for c in notebook.cells if c.source.startswith("# ")), None)
    name = html.escape(heading.group(1) if heading else title)
    highlight = Highlight2HTML()
    colors = _formatter_style()
    body = "\n".join(piece for cell in notebook.cells for piece in _cell(cell, highlight))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{name}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}{colors}</style>\n'
        f"</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _cell(cell: nbformat.NotebookNode, highlight: Highlight2HTML) -> Iterator[str]:
    if cell.cell_type == "markdown":
        yield _markdown(cell.source)
        return
    tags = cell.metadata.get("tags", [])
    if "setup" in tags:  # for machines without labkit, and a page runs nothing
        return
    folded = "solution" in tags
    if folded:
        yield "<details><summary>Solution</summary>"
    yield f'<div class="source">{highlight(cell.source, language="python")}</div>'
    for output in cell.get("outputs", []):
        yield _output(output)
    if folded:
        yield "</details>"


def _output(output: nbformat.NotebookNode) -> str:
    if output.output_type == "stream":
        return f'<pre class="{output.name}">{ansi2html(output.text)}</pre>'
    if output.output_type == "error":
        return f'<pre class="stderr">{ansi2html(chr(10).join(output.traceback))}</pre>'
    data = output.data
    for kind in PICTURES:
        if kind in data:
            return _picture(kind, data[kind], output.metadata.get(kind, output.metadata))
    if "text/html" in data:
        return str(data["text/html"])
    if "text/markdown" in data:
        return _markdown(data["text/markdown"])
    # a plotly figure or a widget without a picture beside it: the one before shows it
    return f"<pre>{html.escape(data['text/plain'])}</pre>" if set(data) == {"text/plain"} else ""


def _picture(kind: str, base64: str, metadata: Mapping[str, Any]) -> str:
    sizes = "".join(f' {side}="{metadata[side]}"' for side in ("width", "height") if side in metadata)
    source = f"data:{kind};base64,{base64.replace(chr(10), '')}"
    return f'<p><img src="{source}" alt="{html.escape(str(metadata.get("alt", "")))}"{sizes}></p>'


# -- Markdown with formulas -------------------------------------------------------------------------------------------


class _Renderer(IPythonRenderer):
    """Formulas become MathML, which browsers draw without a script."""

    def block_math(self, body: str) -> str:
        return mathml(body, "block")

    def inline_math(self, body: str) -> str:
        return mathml(body, "inline")


def _markdown(source: str) -> str:
    return MarkdownWithMath(renderer=_Renderer(escape=False)).render(source)


def mathml(latex: str, display: str) -> str:
    """A LaTeX formula as MathML; a tag is the number at its end, letters like R with two strokes are Unicode's own."""
    from latex2mathml.converter import convert

    numbered = re.sub(r"\\tag\{(.+?)\}", r"\\qquad\\text{(\1)}", latex)
    drawn = re.sub(
        r'<(m[in]) mathvariant="(double-struck|script)">(.)</\1>', _letter, convert(numbered, display=display)
    )
    return drawn.replace("<mo>&#x0007C;</mo>", '<mo lspace="0" rspace="0">|</mo>')  # of an absolute value, no relation


def _letter(match: re.Match[str]) -> str:
    """Browsers ignore `mathvariant`, so that the letter itself must be the other one."""
    element, style, letter = match.groups()
    plain = unicodedata.name(letter).replace("LATIN ", "").replace("LETTER ", "")
    for prefix in ("MATHEMATICAL ", ""):  # the commonest, such as R and L, were in Unicode before the others
        try:
            return f"<{element}>{unicodedata.lookup(f'{prefix}{style.upper()} {plain}')}</{element}>"
        except KeyError:
            continue
    return match.group(0)


def _formatter_style() -> str:
    from pygments.formatters import HtmlFormatter

    return str(HtmlFormatter().get_style_defs(".highlight"))
