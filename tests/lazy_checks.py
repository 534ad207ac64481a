"""Checks of types and shapes that are built when a function is first called, and once for all closures of one code.

`--jaxtyping-packages=labkit,beartype.beartype` decorates every function of labkit. Building a check takes a millisecond
or two: at import for thousands of functions, of which a process calls a part, and for a function inside of another
each time the outer one runs. What is called is checked as before.
"""

import functools
import inspect
import threading
import types
from collections.abc import Callable
from typing import Any

import jaxtyping

build = jaxtyping.jaxtyped
Function = Callable[..., Any]


def install() -> None:
    """To be called before the first import of a checked package: the import hook looks these names up."""
    jaxtyping.jaxtyped = jaxtyping._decorator.jaxtyped = jaxtyped  # type: ignore[assignment]


def jaxtyped(fn: Any = None, *, typechecker: Any = None) -> Any:
    """What `jaxtyping.jaxtyped` gives, later. Classes, properties and others give their functions back to it."""
    if fn is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if not inspect.isfunction(fn):
        return build(fn, typechecker=typechecker)
    return _closure(fn, typechecker) if "<locals>" in fn.__qualname__ else _function(fn, typechecker)


def _function(fn: Function, typechecker: Any) -> Function:
    checked: Function | None = None

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal checked
        if checked is None:
            checked = build(fn, typechecker=typechecker)
        return checked(*args, **kwargs)

    return call


class _Waiting(threading.local):
    """The closures whose arguments are being checked in this thread, the innermost last."""

    def __init__(self) -> None:
        self.closures: list[Function] = []


waiting = _Waiting()
checks: dict[types.CodeType, Function] = {}


def _closure(fn: types.FunctionType, typechecker: Any) -> Function:
    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        if fn.__code__ not in checks:
            checks[fn.__code__] = build(_whichever_waits(fn), typechecker=typechecker)
        before = len(waiting.closures)
        waiting.closures.append(fn)
        try:
            return checks[fn.__code__](*args, **kwargs)
        finally:
            del waiting.closures[before:]  # where the arguments were refused it still waits

    return call


def _whichever_waits(fn: types.FunctionType) -> Function:
    """A function with the signature of `fn` and its module's names, which calls the closure that waits."""
    like = types.FunctionType(_next.__code__, {**fn.__globals__, "waiting": waiting}, fn.__name__)
    return functools.update_wrapper(like, fn)


def _next(*args: Any, **kwargs: Any) -> Any:
    return waiting.closures.pop()(*args, **kwargs)
