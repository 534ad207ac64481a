"""Checks of types and shapes that are built when a function is first called, not when its module is imported.

`--jaxtyping-packages=labkit,beartype.beartype` decorates every function of labkit, and writing a check takes a
millisecond or two: for thousands of functions, of which a process calls a part. What is called is checked as before.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jaxtyping

build = jaxtyping.jaxtyped


def jaxtyped(fn: Any = None, *, typechecker: Any = None) -> Any:
    """What `jaxtyping.jaxtyped` gives, later. Classes, properties and others give their functions back to it."""
    if fn is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if not inspect.isfunction(fn):
        return build(fn, typechecker=typechecker)
    checked: Callable[..., Any] | None = None

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal checked
        if checked is None:
            checked = build(fn, typechecker=typechecker)
        return checked(*args, **kwargs)

    return call


def install() -> None:
    """To be called before the first import of a checked package: the import hook looks these names up."""
    jaxtyping.jaxtyped = jaxtyping._decorator.jaxtyped = jaxtyped  # type: ignore[assignment]
