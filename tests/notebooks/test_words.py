"""Prose has one spelling, the British one; identifiers, names of libraries and titles of papers keep theirs."""

import ast
import re
from collections.abc import Iterator

import jupytext
import pytest
import typer

from labkit import papers, paths
from labkit.cli.app import app
from labkit.workbench import notebooks

STEMS = "color|neighbor|behavior|favor|flavor|honor|labor|center|fiber|gray"
IZE = (
    "categor|central|character|custom|discret|equal|factor|final|general|initial|local|maxim|minim|neutral|normal|optim|"
    "organ|penal|quant|random|real|recogn|regular|serial|special|stabil|standard|summar|synchron|util|vector|visual"
)
AMERICAN = re.compile(
    rf"(?i)\b(?:\w*(?:{STEMS})\w*|\w*(?:{IZE})iz(?:e[sdr]?|ers?|ing|ations?)"
    r"|(?:un)?label(?:ed|ing)|model(?:ed|ing)|travel(?:ed|ing)|cancel(?:ed|ing)|signal(?:ed|ing)"
    r"|analyz\w+|catalogs?|defense|learnt|toward|data[ -]sets?)\b"
)
CODE = re.compile(r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|\]\([^)]*\)|https?://\S+|<[^>]+>", re.DOTALL)
TITLES = "|".join(re.escape(papers.load(slug).title) for slug in papers.names())
NAMES = re.compile(rf"{TITLES}|Step Size Quantization|[Pp]olicy [Oo]ptimization|MiniLM, which is no data set")


def american(text: str) -> list[str]:
    return AMERICAN.findall(NAMES.sub("", CODE.sub("", text)))


def strings(code: str) -> Iterator[str]:
    """Sentences in code: what it prints, and says for who cannot see a picture."""
    for node in ast.walk(ast.parse(re.sub(r"^[%!].*", "", code, flags=re.MULTILINE))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield node.value


@pytest.mark.parametrize("name", notebooks.names())
def test_a_notebook_has_one_spelling(name):
    cells = jupytext.read(paths.notebooks_dir() / f"{name}.py").cells
    texts = [
        text for cell in cells for text in ([cell.source] if cell.cell_type == "markdown" else strings(cell.source))
    ]
    assert [word for text in texts for word in american(text)] == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_a_page_has_one_spelling(name):
    assert american((paths.root() / name).read_text()) == []


@pytest.mark.parametrize("slug", papers.names())
def test_claims_and_exercises_have_one_spelling(slug):
    paper = papers.load(slug)
    texts = [text for claim in paper.claims for text in (claim.sentence, claim.note)]
    texts += [text for each in paper.exercises for text in (each.task, *each.hints)]
    assert [word for text in texts for word in american(text)] == []


def test_help_has_one_spelling():
    def helps(command: typer.core.TyperCommand) -> Iterator[str]:
        yield command.help or ""
        for parameter in command.params:
            if parameter.name not in ("install_completion", "show_completion"):  # typer's own
                yield getattr(parameter, "help", None) or ""
        for inner in getattr(command, "commands", {}).values():
            yield from helps(inner)

    assert [word for text in helps(typer.main.get_command(app)) for word in american(text)] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a colored square, Colors, gray and greyscale", ["colored", "Colors", "gray"]),
        ("`color` and $color$ are code; colour is prose", []),
        ("normalized, normalisation, quantizers, the data set", ["normalized", "quantizers", "data set"]),
        ("size, resized, prize, seize, horizon, horizons", []),
        ("gradients of a perimeter, at the centre, centred", []),
        ("Quantization Networks quantise", []),
        ("labeled labels, labelled ones, learnt, learned", ["labeled", "learnt"]),
    ],
)
def test_what_counts_as_another_spelling(text, words):
    assert american(text) == words
