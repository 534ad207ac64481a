"""What notebooks put on the page."""

import pytest
import toy_paper

from labkit.workbench import show


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are displayed."""
    pieces: list[str] = []
    monkeypatch.setattr(show, "display", lambda thing: pieces.append(thing.data))
    return pieces


def test_the_ledger_is_shown_as_a_table(page):
    show.ledger(toy_paper.PAPER.verdicts({"plain": {"accuracy": 90.0}, "noisy": {"accuracy": 90.0}}, "smoke"))
    assert "| ✓ | A small network learns a plane" in page[0]


def test_a_config_is_shown_with_every_field_and_the_scales_with_what_differs(page):
    show.config(toy_paper.ToyConfig(widths=(8, 4)))
    assert page[0].count("\n") == 1 + len(toy_paper.ToyConfig.model_fields)
    assert "| widths | 8, 4 | hidden layers, in units |" in page[0]
    show.scales(toy_paper.PAPER.configs)
    assert page[1].splitlines()[2:] == ["| steps | 40 | 80 | 100 | 200 |"]
