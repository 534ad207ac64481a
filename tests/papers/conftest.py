"""What the tests of all rooms share."""

import pytest


@pytest.fixture(autouse=True)
def _forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with `devices=2` starts its processes as quickly as can be."""
    import together

    from labkit.workbench import training

    monkeypatch.setattr(training, "launch", together.launch)
