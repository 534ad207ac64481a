"""Has a room's code changed since a record was made? What comments, docstrings and white space say does not count."""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

FLOORS = ("method", "experiment")  # what measures; teaching draws


def of_room(room: Path) -> str:
    """Of what a room computes with: the code of `method/` and `experiment/`, without `claims.py`, which only judges.

    Args:
        room: the folder of a paper, `labkit/papers/<slug>`.
    """
    digest = hashlib.sha256()
    for path in sorted(path for floor in FLOORS for path in (room / floor).rglob("*.py") if path.name != "claims.py"):
        digest.update(f"{path.relative_to(room).as_posix()}\n{of_source(path.read_text())}\n".encode())
    return digest.hexdigest()[:16]


def of_source(source: str) -> str:
    """The source without docstrings, comments, empty lines and space at the ends of lines."""
    lines = source.splitlines()
    for first, last in _docstrings(ast.parse(source)):
        lines[first - 1 : last] = [""] * (last - first + 1)
    kept = (line.rstrip() for line in lines)
    return "\n".join(line for line in kept if line and not line.lstrip().startswith("#"))


def _docstrings(tree: ast.AST) -> Iterator[tuple[int, int]]:
    """First and last line of every statement that is nothing but a string."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant) and isinstance(child.value.value, str):
            yield child.lineno, child.end_lineno or child.lineno
        elif isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield from _docstrings(child)
