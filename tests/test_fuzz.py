"""A small, bounded part of `make fuzz`, the same cases every time: each kind of file, damaged in this process.

What takes a smoke run to make, or may hang or fill the memory, is left to `make fuzz`, which watches a child.
"""

import json
import random
import re
import subprocess
import sys
from pathlib import Path

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
def test_a_child_that_hangs_fills_the_memory_or_dies_is_reported_and_the_next_goes_on(tmp_path):
    """A copy of the tool with one subject, whose n-th case does the n-th of these things."""
    bodies = [
        "0",
        "0",
        "1 / 0",
        "bytearray(8 * 2**30)",
        "os.kill(os.getpid(), 9)",
        "time.sleep(600)",
        "0",
        "os._exit(0)",
    ]
    wanted = {2: "raw: ZeroDivisionError", 3: "memory", 4: "crash", 5: "hang"}
    if sys.platform != "linux":  # memory is limited there only
        bodies[3] = "0"
        del wanted[3]
    subject = (
        "import os, time\nimport mutations, subjects\n"
        f"def bad(folder, rng):\n    number = count.stat().st_size\n    count.open('a').write('.')\n"
        f"    eval({bodies!r}[number])\n"
        f"count = Path({str(tmp_path / 'count')!r})\ncount.touch()\n"
        "subjects.subjects = lambda: [subjects.Subject('bad', subjects.nothing, subjects.nothing, draw=bad)]\n"
    )
    program = tmp_path / "fuzz_copy.py"
    text = (
        Path(fuzz.__file__).read_text().replace("TESTS = Path(__file__).parent", f"TESTS = Path({str(fuzz.TESTS)!r})")
    )
    text = text.replace("LIMIT = 20.0", "LIMIT = 5.0").replace('if __name__ == "__main__":', f"{subject}\nif True:")
    program.write_text(text)
    words = [sys.executable, str(program), "--minutes", "30", "--jobs", "1"]  # the last case ends it
    call = subprocess.run(words, capture_output=True, text=True)
    assert call.returncode == 1, call.stderr
    findings = re.findall(r"^bad, (.*)\n    again: .* --case (\d+)$", call.stdout, re.MULTILINE)
    assert len(findings) == len(wanted)
    for what, case in findings:
        assert what.startswith(wanted[int(case)]), call.stdout
    last = call.stdout.splitlines()[-1]
    counts = f"0 damaged files and 7 drawn values in 1 subjects: {len(wanted)} findings"
    assert re.fullmatch(counts + r"; .* took [\d,]+ MB", last)
    assert int(re.findall(r"[\d,]+(?= MB)", last)[0].replace(",", "")) > 50  # Python with torch
