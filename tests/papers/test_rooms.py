"""What holds in every room, whatever its paper is about. A new room is tested here as soon as its folder is there."""

import importlib
import json
import math
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from huggingface_hub import ModelCard

from labkit import papers, paths
from labkit.cli.app import join_pairs
from labkit.cli.options import asked
from labkit.data import registry
from labkit.errors import ConfigError, InputError
from labkit.workbench import export
from labkit.workbench.exercises import Exercise, NotAttempted
from labkit.workbench.experiment import SCALES, Config, Paper, plain_fields
from labkit.workbench.records import Record, load_all
from labkit.workbench.runs import Run, identity_of

FLOORS = ("method", "experiment", "teaching")
ROOMS = [pytest.param(papers.load(slug), id=slug) for slug in papers.names()]
RECORDS = [
    pytest.param(papers.load(slug), record, id=record.name) for slug in papers.names() for record in load_all(slug)
]


def exercises() -> Iterator[Any]:
    """(exercise); an ablation trains, so it is slow."""
    for slug in papers.names():
        for exercise in papers.load(slug).exercises:
            marks = [pytest.mark.slow, pytest.mark.shapes_unchecked] if exercise.kind == "ablation" else []
            yield pytest.param(exercise, id=f"{slug}-{exercise.key}", marks=marks)


@pytest.mark.parametrize("paper", ROOMS)
def test_the_face_shows_the_paper_and_every_name_it_promises(paper: Paper):
    face = importlib.import_module(paper.room)
    assert face.PAPER is paper
    assert paper.room == f"labkit.papers.{paper.slug}"
    assert re.fullmatch(r"\d{4}\.\d{5}", paper.arxiv)
    assert paper.title
    assert paper.venue
    assert paper.idea.endswith(".")
    assert face.__all__ == sorted(face.__all__, key=lambda name: (not name.isupper(), name))
    for name in face.__all__:
        assert getattr(face, name) is not None
        assert name in dir(face)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = face.nothing


@pytest.mark.parametrize("paper", ROOMS)
def test_the_floor_plan(paper: Paper):
    """Three floors, tests that mirror them, a notebook, a benchmark, a record."""
    for floor in FLOORS:
        assert importlib.import_module(f"{paper.room}.{floor}").__doc__
        assert (paths.root() / "tests" / "papers" / paper.slug / floor).is_dir()
    inside = {path.name for path in (paths.root() / "labkit" / "papers" / paper.slug).iterdir()} - {"__pycache__"}
    assert inside == {"__init__.py", *FLOORS}
    assert (paths.notebooks_dir() / f"{paper.notebook}.py").exists()
    assert re.fullmatch(rf"\d\d_{paper.slug}", paper.notebook)
    assert "def rows(" in (paths.root() / "benchmarks" / f"{paper.slug}.py").read_text()
    assert load_all(paper.slug)


# -- configs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("paper", ROOMS)
def test_four_scales_differ_in_their_values_only(paper: Paper):
    assert tuple(paper.configs) == SCALES
    (kind,) = {type(config) for config in paper.configs.values()}
    assert issubclass(kind, Config)
    assert len({config.model_dump_json() for config in paper.configs.values()}) == len(SCALES)
    for scale, config in paper.configs.items():
        assert paper.config(scale) == config == kind.model_validate_json(config.model_dump_json())
        assert config.seed == 0


@pytest.mark.parametrize("paper", ROOMS)
def test_what_a_scale_needs_is_said(paper: Paper):
    """A dataset that its config names is in `needs`, which the README shows; smoke and lesson run without any."""
    downloads = {name for name in registry.names() if not registry.get(name).bundled}
    assert paper.needs.keys() <= {"gpu", "full"}
    for scale in ("gpu", "full"):
        for name, value in plain_fields(paper.configs[scale]).items():
            if not name.endswith(("weights", "codec")):  # they have values of the same names: imagenet, hevc
                named = {*value} if isinstance(value, list) else {value}
                assert named & downloads <= {*paper.needs.get(scale, ())}, name


@pytest.mark.parametrize("paper", ROOMS)
def test_every_field_says_what_it_means(paper: Paper):
    fields = type(paper.config()).model_fields
    assert [name for name, field in fields.items() if not field.description] == []


@pytest.mark.parametrize("paper", ROOMS)
@pytest.mark.parametrize("field", ["seed", "device", "devices"])
def test_a_bad_value_is_refused_by_name(paper: Paper, field: str):
    with pytest.raises(ConfigError, match=rf"{field} .*got 'nonsense'"):
        paper.config("smoke", **{field: "nonsense"})
    with pytest.raises(ConfigError, match="there is no field 'nonsense'"):
        paper.config("smoke", nonsense=1)


# -- runs and what they leave ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("paper", ROOMS)
def test_a_run_directory_tells_its_paper_and_the_command_that_made_it(paper: Paper):
    """Catches: two rooms with configs of one form, and values that the command line would read as others."""
    for scale in SCALES:
        config = paper.config(scale, seed=3)
        identity = json.loads(json.dumps(identity_of(config)))
        assert [slug for slug in papers.names() if papers.load(slug).config_of(identity)] == [paper.slug]
        _, _, slug, _, near, *words = shlex.split(export.command(paper, config))
        pairs = [word for word in join_pairs(words) if word != "-p"]
        assert slug == paper.slug
        assert identity_of(asked(slug, near, pairs, None, None)[1]) == identity_of(config)


@pytest.mark.shapes_unchecked
@pytest.mark.slow
@pytest.mark.parametrize("paper", ROOMS)
def test_what_was_trained_can_be_exported_or_is_refused_by_name(paper: Paper, smoke_run, tmp_path):
    """A smoke run becomes a folder whose card loads it; the hub's own reader understands the card."""
    config = paper.config("smoke", device="cpu")
    run = Run.open(tmp_path / "run", config)
    with pytest.raises(InputError, match=rf"{paper.slug} has nothing to export|is not finished"):
        export.export(paper, config, run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    if not (paths.root() / "labkit" / "papers" / paper.slug / "experiment" / "export.py").exists():
        return
    run = smoke_run(paper)
    for arm in paper.exports.arms(config, run):
        folder = tmp_path / arm
        assert export.export(paper, config, run, folder, arm) == arm
        assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
        assert ModelCard((folder / "README.md").read_text()).data.library_name == "labkit"
        assert paper.exports.load(folder) is not None
        assert paper.exports.load(folder / "model.safetensors") is not None
    assert "load" in importlib.import_module(paper.room).__all__


# -- claims and records -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("paper", ROOMS)
def test_claims_are_sentences_with_a_direction_and_a_margin(paper: Paper):
    assert len({claim.key for claim in paper.claims}) == len(paper.claims)
    for claim in paper.claims:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", claim.key)
        assert claim.sentence.rstrip("]").endswith("."), claim.key
        assert claim.scale in (*SCALES, "bench"), claim.key
        assert math.isfinite(claim.margin), claim.key
        assert claim.published is None or claim.published.strip(), claim.key
    assert any(claim.scale == "lesson" for claim in paper.claims)


@pytest.mark.parametrize("paper", ROOMS)
def test_what_was_not_run_is_not_measured(paper: Paper):
    for claim in paper.claims:
        assert claim.measure({}) is None, claim.key
        assert claim.measure({"data": "digits"}) is None, claim.key
        if claim.pooled:
            assert claim.pooled([]) is None, claim.key
            assert claim.pooled([{}]) is None, claim.key
    assert {verdict.holds for verdict in paper.verdicts({}, "lesson")} == {None}


@pytest.mark.slow
@pytest.mark.parametrize(("paper", "record"), RECORDS)
def test_a_record_is_one_of_the_config_as_it_is_now(paper: Paper, record: Record):
    """Catches: a field that was renamed or added after the recording, so that its command gives another result."""
    assert record.paper == paper.slug
    if record.scale == "bench":  # its rows have settings of their own, and no config
        assert record.command.startswith(f"labkit bench {paper.slug} ")
    else:
        assert record.command.startswith(f"labkit record {paper.slug} --scale {record.scale} --seeds ")
        config = type(paper.config()).model_validate_json(json.dumps(record.config))
        assert json.loads(json.dumps(identity_of(config))) == {**record.config, "seed": 0}
    for result in record.results:
        for claim in paper.claims:
            value = claim.measure(result)
            assert value is None or math.isfinite(value), claim.key


@pytest.mark.parametrize("paper", ROOMS)
def test_the_claims_of_the_lesson_are_recorded_or_say_why_not(paper: Paper):
    for verdict in paper.verdicts():
        assert verdict.scale != "lesson" or verdict.holds is not None or verdict.note, verdict.key


# -- exercises --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("paper", ROOMS)
def test_there_are_four_to_seven_exercises_of_several_kinds(paper: Paper):
    assert 4 <= len(paper.exercises) <= 7
    assert len({exercise.key for exercise in paper.exercises}) == len(paper.exercises)
    assert len({exercise.kind for exercise in paper.exercises}) >= 3
    assert all(exercise.task and exercise.properties for exercise in paper.exercises)


def stub(*_: object) -> None:
    raise NotAttempted


@pytest.mark.slow
@pytest.mark.parametrize("exercise", [*exercises()])
def test_a_stub_is_not_attempted_the_solution_passes_and_wrong_answers_are_told_why(exercise: Exercise):
    for untouched in (None, ..., *([stub] if callable(exercise.solution) else [])):
        assert not exercise.check(untouched).attempted
    outcome = exercise.check(exercise.solution)
    assert outcome.passed, outcome.message
    for name, answer in exercise.wrong.items():
        outcome = exercise.check(answer)
        assert outcome.attempted, name
        assert not outcome.passed, name
        assert "your answer raised" not in outcome.message, name
        assert len(outcome.message) > len(exercise.key) + 5, name
