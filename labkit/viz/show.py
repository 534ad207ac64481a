"""The library's own source, put before the reader."""

import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from IPython.display import Code, Markdown, display


def show_source(*things: Callable[..., Any] | type) -> None:
    """The source of functions, methods or classes of labkit and where it stands. What you read is what runs.

    Raises:
        TypeError: not something that was written in Python.
    """
    for thing in things:
        thing = inspect.unwrap(thing)
        lines, first = inspect.getsourcelines(thing)
        display(Markdown(f"`{thing.__module__}.{thing.__qualname__}`, line {first}"))
        display(Code(textwrap.dedent("".join(lines)), language="python"))
