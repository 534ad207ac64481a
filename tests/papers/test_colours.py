"""A colour means the same in every room: rooms draw with the names of `viz.COLORS`, and every drawing call says one."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.colors import is_color_like

from labkit import papers, paths, viz

INKS = {"none", "white", "black"}  # where a picture or a heat map lies below
SHADES = {"mlvc": {"#0b3c6b", "#9cc7ea", "#ffffff"}, "bertfused": {"#bbbbbb"}}  # strengths of one of the colours
CODE = re.compile(r"#[0-9a-fA-F]{3,8}|(rgb|hsl)a?\([\d., %]+\)|C\d|tab:\w+")
# Calls that take a colour from a list of their own where they are told none.
MATPLOTLIB = {
    "plot", "semilogx", "semilogy", "loglog", "scatter", "errorbar", "bar", "barh", "hist", "fill_between",
    "axhline", "axvline", "axhspan", "axvspan", "hlines", "vlines", "quiver", "contour",
}  # fmt: skip
PLOTLY = {"Scatter", "Bar", "Histogram", "add_scatter", "add_bar", "add_histogram"}
SAYS_A_COLOUR = {
    "color", "c", "colors", "facecolor", "edgecolor", "edgecolors", "cmap", "line", "marker", "line_color",
    "marker_color", "textfont",
}  # fmt: skip
ROOMS = papers.names()


def drawing(slug: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((paths.root() / "labkit" / "papers" / slug / "teaching").glob("*.py")):
        yield path, ast.parse(path.read_text())


def own_colours(tree: ast.AST, allowed: set[str]) -> Iterator[str]:
    """Colour codes, and names of colours where a colour is asked for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if CODE.fullmatch(node.value) and node.value not in allowed:
                yield f"line {node.lineno}: {node.value}"
        elif isinstance(node, ast.keyword) and node.arg in SAYS_A_COLOUR - {"cmap"} | {"ec", "fc", "ecolor"}:
            yield from _names(node.value)
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "color":
                    yield from _names(value)


def _names(value: ast.expr) -> Iterator[str]:
    for node in [value] + (value.elts if isinstance(value, ast.List | ast.Tuple) else []):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and text not in INKS and is_color_like(text) and not CODE.fullmatch(text):
            yield f"line {node.lineno}: {text}"


def colourless(tree: ast.AST) -> Iterator[str]:
    """Drawing calls that leave the colour to the library: its first is nearly our blue, its second our orange."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        said = {keyword.arg for keyword in node.keywords}
        if node.func.attr in MATPLOTLIB | PLOTLY and None not in said and not said & SAYS_A_COLOUR:
            if "mode" in said and "text" in {k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}:
                continue  # words alone are black
            yield f"line {node.lineno}: {node.func.attr}"


@pytest.mark.parametrize("slug", ROOMS)
def test_a_room_draws_with_the_house_s_colours(slug):
    allowed = SHADES.get(slug, set())
    assert [(path.name, line) for path, tree in drawing(slug) for line in own_colours(tree, allowed)] == []


@pytest.mark.parametrize("slug", ROOMS)
def test_every_drawing_call_says_its_colour(slug):
    assert [(path.name, line) for path, tree in drawing(slug) for line in colourless(tree)] == []


@pytest.mark.parametrize("slug", ROOMS)
def test_no_arm_is_red_or_green(slug):
    """Red and green are failure and success, and no arm is one of them."""
    figures = importlib.import_module(f"labkit.papers.{slug}.teaching.figures")
    judging = {viz.COLORS["good"], viz.COLORS["bad"]}
    tables = [getattr(figures, name) for name in ("ARM_COLORS", "ARM_LOOKS", "CODEC_LOOKS") if hasattr(figures, name)]
    looks = [look if isinstance(look, tuple) else (look,) for table in tables for look in table.values()]
    assert not judging & {part for look in looks for part in look}
    arms = {"anything", *getattr(papers.load(slug).configs["lesson"], "arms", ())}
    of = getattr(figures, "color_of", None) or getattr(figures, "_color", None)
    assert of is None or not judging & {of(str(arm)) for arm in arms if slug != "pombu" or arm != "anything"}


@pytest.mark.parametrize(
    ("code", "own", "silent"),
    [
        ('axis.plot(x, color="#123456")', 1, 0),
        ('axis.plot(x, color="C1")', 1, 0),
        ('axis.bar(x, y, color=["red", "white"])', 1, 0),
        ('go.Scatter(y=y, line={"color": "teal"})', 1, 0),
        ("axis.plot(x, y)", 0, 1),
        ("figure.add_scatter(x=x, y=y)", 0, 1),
        ("axis.plot(x, y, **look)", 0, 0),
        ('go.Scatter(x=x, y=y, mode="text", text=words)', 0, 0),
        ('axis.text(0, 0, "red", color="white")', 0, 0),
        ('NAMES = ("red", "blue")', 0, 0),
        ('axis.scatter(x, y, color=COLORS["ours"])', 0, 0),
    ],
)
def test_what_the_rules_find(code, own, silent):
    tree = ast.parse(code)
    assert (len(list(own_colours(tree, set()))), len(list(colourless(tree)))) == (own, silent)
