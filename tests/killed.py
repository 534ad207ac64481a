"""A run that is killed while it trains, for tests of what the next process makes of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from labkit.workbench.runs import Run


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


@contextmanager
def killed(stop: int) -> Iterator[None]:
    """What runs inside saves a checkpoint at every chance, and is killed after that number `stop`, counted from 0.

    A run that ends before is a failure of the test.
    """
    left = iter(range(stop))

    def dying(run: Run, step: int, state: dict[str, Any]) -> None:
        run.save(step, state)
        if next(left, None) is None:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "save_if_due", dying)
        with pytest.raises(Killed):
            yield
