"""Names that a package imports when they are first used, so that a list of papers needs no torch."""

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def lazily(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A module's `__getattr__` and `__dir__` (PEP 562) for what its file imports under `if TYPE_CHECKING:`.

        if TYPE_CHECKING:
            from labkit.papers.qnet.method.soft_quantizer import SoftQuantizer

        __getattr__, __dir__ = lazily(__name__)

    The imports are in the file as usual, for editors, type checkers and import-linter; at run time a module is
    imported when one of its names is asked for.
    """
    module = sys.modules[package]
    tree = ast.parse(Path(str(module.__file__)).read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: str(node.module) for node in imports for alias in node.names}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module '{package}' has no attribute '{name}'", name=name, obj=module)
        value = getattr(importlib.import_module(homes[name]), name)
        setattr(module, name, value)  # the next time it is simply there
        return value

    return get, lambda: sorted(module.__dict__.keys() | homes.keys())
