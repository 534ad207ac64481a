"""The ten rooms. `names()` lists those that are built, `load(slug)` opens one."""

import importlib
import pkgutil

from labkit.errors import InputError, nearest
from labkit.workbench.experiment import Paper


def names() -> list[str]:
    """Slugs of the papers that are built, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)


def load(slug: str) -> Paper:
    """The `Paper` of the room `labkit.papers.<slug>`.

    Raises:
        InputError: there is no such room; offers the nearest names.
    """
    if slug not in names():
        near = nearest(slug, names())
        raise InputError(f"there is no paper '{slug}'; did you mean {near}? `labkit list` shows all.")
    paper = importlib.import_module(f"labkit.papers.{slug}").PAPER
    assert isinstance(paper, Paper)
    return paper
