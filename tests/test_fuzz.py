"""A small, bounded part of `make fuzz`, the same cases every time: each kind of file, damaged in this process.

What takes a smoke run to make, or may hang or fill the memory, is left to `make fuzz`, which watches a child.
"""

import json
import random
import re
import subprocess
import sys

import fuzz
import mutations
import pytest
import subjects
from subjects import Subject, Trial

from labkit.errors import InputError

CASES = 10
QUICK = [subject for subject in subjects.subjects() if not subject.slow]
SECONDS = ("coded-video", "bert-folder", "xlm-folder")  # what these subjects take


@pytest.mark.parametrize(
    "subject",
    [pytest.param(s, id=s.name, marks=[pytest.mark.slow] if s.name in SECONDS else []) for s in QUICK],
)
@pytest.mark.filterwarnings("ignore")  # odd numbers may warn
def test_what_is_damaged_comes_out_right_or_as_a_sentence(subject: Subject, tmp_path, monkeypatch):
    for name in ("LABKIT_RECORDS", "LABKIT_DATA"):
        monkeypatch.setenv(name, str(tmp_path / name))
    trial = Trial(subject, tmp_path / "trial")
    ends = [fuzz.attempt(trial, 0, number) for number in range(CASES)]
    findings = {number: end for number, end in enumerate(ends) if end[0] not in ("refused", "read")}
    assert not findings, findings


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")

# -- the tool itself notices what it is there for ---------------------------------------------------------------------


def write(folder):
    (folder / "a.json").write_text(json.dumps({"levels": 3, "name": "x"}))


def careless(folder):
    return json.loads((folder / "a.json").read_text())["levels"]


def trusting(folder):
    try:
        return careless(folder)
    except Exception:
        raise InputError("a.json is damaged.") from None


def mute(folder):
    try:
        return careless(folder)
    except Exception:
        raise InputError("") from None


@pytest.mark.parametrize(
    ("use", "sealed", "end"), [(careless, False, "raw"), (trusting, True, "unnoticed"), (mute, False, "silent")]
)
def test_a_careless_reader_is_found(tmp_path, use, sealed, end):
    trial = Trial(Subject("careless", write, use, sealed), tmp_path / "trial")
    assert end in {fuzz.attempt(trial, 0, number)[0] for number in range(80)}


def test_a_case_is_the_same_again_and_another_seed_is_another_case(tmp_path):
    trial = Trial(Subject("careless", write, lambda folder: (folder / "a.json").read_bytes()), tmp_path / "trial")
    assert [trial.run(0, number) for number in range(20)] == [trial.run(0, number) for number in range(20)]
    assert [trial.run(0, number) for number in range(20)] != [trial.run(1, number) for number in range(20)]


def test_every_kind_of_damage_leaves_a_file(tmp_path):
    """The mutators themselves stand whatever they made before."""
    subjects.finished_run(tmp_path / "run")
    for number in range(15):
        rng = random.Random(number)
        for path in sorted((tmp_path / "run").rglob("*")):
            if path.suffix in mutations.BY_ENDING:
                whole = path.read_bytes()
                mutations.spoil(path, rng)
                assert path.is_file()
                path.write_bytes(whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "finding"),
    [
        ("time.sleep(60)", "hang"),
        pytest.param("bytearray(8 * 2**30)", "memory", marks=LINUX),
        ("os.kill(os.getpid(), 9)", "crash"),
        ("1 / 0", "raw: ZeroDivisionError"),
    ],
)
def test_a_child_that_hangs_fills_the_memory_or_dies_is_reported_and_the_next_goes_on(
    tmp_path, monkeypatch, body, finding
):
    """A copy of the tool with one subject, whose third case is the bad one."""
    tool = fuzz.TESTS / "fuzz.py"
    subject = (
        "import os, time\nimport mutations, subjects\n"
        f"def bad(folder, rng):\n    bad.count += 1\n    if bad.count == 3:\n        {body}\nbad.count = 0\n"
        "subjects.subjects = lambda: [subjects.Subject('bad', subjects.nothing, subjects.nothing, draw=bad)]\n"
    )
    program = tmp_path / "fuzz_copy.py"
    text = tool.read_text().replace("TESTS = Path(__file__).parent", f"TESTS = Path({str(fuzz.TESTS)!r})")
    text = text.replace("LIMIT = 20.0", "LIMIT = 5.0").replace('if __name__ == "__main__":', f"{subject}\nif True:")
    program.write_text(text)
    call = subprocess.run(
        [sys.executable, str(program), "--minutes", "0.05", "--jobs", "1"], capture_output=True, text=True
    )
    assert call.returncode == 1, call.stderr
    assert f"bad, {finding}" in call.stdout
    last = call.stdout.splitlines()[-1]
    assert re.fullmatch(r"0 damaged files and [\d,]+ drawn values in 1 subjects: 1 findings; .* took [\d,]+ MB", last)
    assert int(re.findall(r"[\d,]+(?= MB)", last)[0].replace(",", "")) > 50  # Python with torch
    assert "--case 2" in call.stdout
