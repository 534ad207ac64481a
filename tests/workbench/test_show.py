"""What notebooks put on the page."""

import base64
import io

import nbformat
import pytest
import toy_paper
from PIL import Image
from pydantic import BaseModel, Field

from labkit import paths, viz
from labkit.errors import InputError
from labkit.workbench import show


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are displayed."""
    pieces: list[str] = []
    monkeypatch.setattr(show, "display", lambda thing: pieces.append(thing.data))
    return pieces


def test_the_ledger_is_shown_as_a_table_and_what_was_not_measured_is_folded(page):
    show.ledger(toy_paper.PAPER.verdicts({"plain": {"accuracy": 90.0}, "noisy": {"accuracy": 90.0}}, "smoke"))
    assert "| ✓ | A small network learns a plane" in page[0]
    assert "not measured" not in page[0]
    assert page[1].startswith("<details>\n<summary>1 more claim, not measured here</summary>")
    assert "| – | Noise on the inputs helps." in page[1]


def test_a_ledger_without_a_measurement_is_one_line(page, capsys):
    show.ledger(toy_paper.PAPER.verdicts({}, "full"))
    message = capsys.readouterr().out
    assert message.startswith("This scale measures no claim; they are about ")
    assert message.endswith(" The recorded ones: labkit claims toy\n")
    assert message.count("\n") == 1
    assert page == []


def test_claims_that_lead_are_a_list_and_the_others_are_folded(page):
    first, *others = toy_paper.PAPER.claims
    show.claims(toy_paper.PAPER, main=[first.key])
    assert page[0].startswith(f"1. **{first.sentence}** (")
    assert page[0].endswith(f"measured at `{first.scale}`)")
    assert f"<summary>The other {len(others)} claims" in page[1]
    assert [claim.key for claim in others if f"| `{claim.key}` |" in page[1]] == ["noise-helps"]
    with pytest.raises(InputError, match="toy has no claim 'speed'; did you mean"):
        show.claims(toy_paper.PAPER, main=["speed"])


def test_ledgers_of_several_papers_are_folded_one_a_paper(page, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RECORDS", str(tmp_path))
    show.ledgers([toy_paper.PAPER])
    count = len(toy_paper.PAPER.claims)
    assert page[0].startswith(f"<details>\n<summary>Toys Learn: 0 of 0 measured claims hold, {count} not measured<")


def test_a_config_is_shown_with_every_field_and_the_scales_with_what_differs(page):
    show.config(toy_paper.ToyConfig(widths=(8, 4)))
    assert page[0].count("\n") == 1 + len(toy_paper.ToyConfig.model_fields)
    assert "| widths | 8, 4 | hidden layers, in units |" in page[0]
    show.scales(toy_paper.PAPER.configs)
    assert page[1].splitlines()[2:] == ["| steps | 40 | 80 | 100 | 200 |"]


def test_a_config_shows_the_fields_that_are_asked_for_in_their_order(page):
    show.config(toy_paper.ToyConfig(), fields=["widths", "steps"])
    assert [row.split(" | ")[0] for row in page[0].splitlines()[2:]] == ["| widths", "| steps"]
    with pytest.raises(InputError, match="no field 'width'; did you mean widths"):
        show.config(toy_paper.ToyConfig(), fields=["width"])


def test_a_bar_in_a_field_does_not_end_its_cell(page):
    class Barred(BaseModel):
        pattern: str = Field("a|b", description="one of a|b")

    show.config(Barred())
    assert page[0].splitlines()[2] == r"| pattern | a\|b | one of a\|b |"


def test_the_gallery_shows_the_first_committed_picture_small_with_its_own_sentence(page, tmp_path, monkeypatch):
    image = io.BytesIO()
    Image.new("RGB", (400, 200)).save(image, format="png")
    output = nbformat.v4.new_output("display_data", {"image/png": base64.b64encode(image.getvalue()).decode()})
    cells = [nbformat.v4.new_code_cell("1"), nbformat.v4.new_code_cell("2", outputs=[output])]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{toy_paper.PAPER.notebook}.ipynb")
    monkeypatch.setattr(paths, "notebooks_dir", lambda: tmp_path)
    pictures: list[tuple[tuple[int, int], str]] = []
    monkeypatch.setattr(viz, "show", lambda png, alt: pictures.append((Image.open(io.BytesIO(png)).size, alt)))
    show.gallery([toy_paper.PAPER], width=100)
    assert page == [f"**[{toy_paper.PAPER.notebook}]({toy_paper.PAPER.notebook}.ipynb)** {toy_paper.PAPER.idea}"]
    ((size, alt),) = pictures
    assert size == (200, 100)
    assert toy_paper.PAPER.idea in alt
