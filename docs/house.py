"""Of Sphinx: formulas as MathML, which asks no server for a script, and docstrings as we write them."""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

from labkit.workbench.page import mathml


def inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def block(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def as_rst(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Single backticks are code, and stars and bars are themselves: |H| is a size, and no substitution."""
    for number, line in enumerate(lines):
        parts = re.split(r"(``[^`]*``|`[^`]*`)", line)
        for position in range(0, len(parts), 2):
            parts[position] = re.sub(r"([|*\\]|_(?=\W|$))", r"\\\1", parts[position])
        for position in range(1, len(parts), 2):
            parts[position] = f"``{parts[position].strip('`')}``"
        lines[number] = "".join(parts)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.connect("autodoc-process-docstring", as_rst, priority=100)  # before napoleon, which writes markup of its own
    return {"parallel_read_safe": True, "parallel_write_safe": True}
