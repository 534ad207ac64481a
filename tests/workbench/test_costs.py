"""The table of what each scale takes: times of records alone, and what has to be brought."""

import dataclasses

import toy_paper

from labkit import paths
from labkit.workbench.costs import costs_markdown
from labkit.workbench.records import Record


def record(
    scale: str, device: str = "cpu", label: str = "", wall: float = 100.0, cpu: tuple[float, ...] = ()
) -> Record:
    slug = toy_paper.PAPER.slug
    return Record(
        paper=slug, scale=scale, device=device, label=label, seeds=list(range(len(cpu) or 1)),
        results=[{}] * (len(cpu) or 1), config={}, environment={}, wall_seconds=[wall] * (len(cpu) or 1),
        cpu_seconds=list(cpu), command="", recorded="2026-01-01",
    )  # fmt: skip


def row(monkeypatch, folder, *records: Record, **needs: tuple[str, ...]) -> list[str]:
    monkeypatch.setattr(paths, "records_dir", lambda: folder)
    for each in records:
        each.write()
    text = costs_markdown([dataclasses.replace(toy_paper.PAPER, needs=needs)], "notebooks/")
    return [cell.strip() for cell in text.splitlines()[2].strip("|").split("|")]


def test_without_a_record_nothing_is_claimed(monkeypatch, tmp_path):
    notebook, *cells = row(monkeypatch, tmp_path)
    assert notebook == f"[{toy_paper.PAPER.notebook}](notebooks/{toy_paper.PAPER.notebook}.ipynb)"
    assert cells == ["–", "not measured", "not measured", "nothing", "not measured", "nothing"]


def test_times_are_those_of_the_records_without_a_label(monkeypatch, tmp_path):
    records = (
        record("lesson", cpu=(61.2, 58.6, 70.4)),
        record("lesson", label="longer", cpu=(900.0,)),
        record("gpu", device="nvidia h100", wall=420.0),
    )
    assert row(monkeypatch, tmp_path, *records)[2:] == [
        "59 to 70",
        "7 on nvidia h100",
        "nothing",
        "not measured",
        "nothing",
    ]


def test_a_record_without_processor_time_is_no_measurement_of_it(monkeypatch, tmp_path):
    assert row(monkeypatch, tmp_path, record("lesson"))[2] == "not measured"


def test_a_notebook_s_size_is_that_of_its_file(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "notebooks_dir", lambda: tmp_path)
    (tmp_path / f"{toy_paper.PAPER.notebook}.ipynb").write_bytes(bytes(849_000))
    assert row(monkeypatch, tmp_path)[1] == "0.8"


def test_datasets_have_a_size_and_a_star_where_one_has_to_ask(monkeypatch, tmp_path):
    cells = row(monkeypatch, tmp_path, gpu=("mnist", "tc128"), full=("imagenet", "own weights"))
    assert cells[4] == "mnist (12 MB), tc128*"
    assert cells[6] == "imagenet* (150 GB), own weights"
