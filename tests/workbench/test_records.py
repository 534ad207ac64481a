"""Records: written from runs that ran, judged at their own scale, read back as they were."""

import json

import pytest
from toy_paper import PAPER, ToyConfig

from labkit import cli, paths
from labkit.errors import RunError
from labkit.workbench import records
from labkit.workbench.records import Record, load_all
from labkit.workbench.runs import Run


def finished(directory, accuracy: float, **fields) -> Run:
    run = Run.open(directory, ToyConfig(**fields))
    run.finish({"plain": {"accuracy": accuracy}, "noisy": {"accuracy": accuracy + 9}, "data": "plane"})
    return run


@pytest.fixture
def write(tmp_path, toy):
    def record(*accuracies: float, scale: str = "smoke", device: str = "cpu", label: str = "") -> Record:
        folder = tmp_path / f"{scale}-{device}-{label}"
        runs = [finished(folder / str(seed), value, seed=seed) for seed, value in enumerate(accuracies)]
        return records.record("toy", scale, device, runs, "labkit record toy", label)

    return record


def test_a_record_holds_what_it_takes_to_get_the_results_again(write, tmp_path):
    written = write(90.0, 91.0)
    assert written.path == tmp_path / "records" / "toy" / "smoke-cpu.json"
    (read,) = load_all("toy")
    assert read == written
    assert read.seeds == [0, 1]
    assert [result["plain"]["accuracy"] for result in read.results] == [90.0, 91.0]
    assert read.config == {
        name: value for name, value in Run.open(tmp_path / "x", ToyConfig()).identity.items() if name != "seed"
    }
    assert read.environment["torch"]
    assert len(read.wall_seconds) == len(read.cpu_seconds) == 2
    assert "seed" not in read.config


def test_an_unfinished_run_is_not_recorded(tmp_path, toy):
    run = Run.open(tmp_path / "run", ToyConfig())
    with pytest.raises(RunError, match="is not finished"):
        records.record("toy", "smoke", "cpu", [run], "labkit record toy")
    assert load_all("toy") == []


def test_runs_that_differ_in_more_than_the_seed_are_not_recorded_together(tmp_path, toy):
    pair = [finished(tmp_path / "a", 90.0, seed=0), finished(tmp_path / "b", 90.0, seed=1, steps=3)]
    with pytest.raises(RunError, match="differ in more than the seed"):
        records.record("toy", "smoke", "cpu", pair, "labkit record toy")


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"paper": "toy"}', "\x00", "[" * 100_000, f'{{"seeds": [{"9" * 5000}]}}'], ids=range(6)
)
def test_a_damaged_record_is_named(write, content):
    written = write(90.0)
    written.path.write_text(content)
    with pytest.raises(RunError, match=r"smoke-cpu\.json is not a record"):
        load_all("toy")


def test_the_ledger_judges_a_claim_by_records_of_its_own_scale(write, toy):
    write(90.0, 91.0, 92.0)
    learns, noise = toy.verdicts()
    assert (learns.holds, learns.source, learns.seeds) == (True, "toy/smoke-cpu.json", 3)
    assert (noise.holds, noise.source) == (None, None)
    write(60.0, 60.0, scale="lesson")
    assert [verdict.holds for verdict in toy.verdicts()] == [True, True]
    assert toy.verdicts()[1].measured == pytest.approx(9)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda r: r.update(seeds=[0, 0]), "no seed twice"),
        (lambda r: r["results"].pop(), "must be as many"),
        (lambda r: r.update(wall_seconds=[float("nan"), 1.0]), "wall_seconds.0: "),
        (lambda r: r["results"][1]["plain"].update(accuracy=float("nan")), r"1\.plain\.accuracy = nan"),
        (lambda r: r.update(results={}), "results: "),
        (lambda r: r.update(paper="other"), "another paper's, or renamed"),
        (lambda r: r.update(paper="../toy"), "another paper's, or renamed"),
        (lambda r: r.update(surplus=1), "surplus: "),
    ],
)
def test_a_record_with_an_impossible_value_is_named(write, change, problem):
    path = write(60.0, 61.0).path
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match=rf"smoke-cpu\.json .*{problem}.*Restore it with git"):
        load_all("toy")


@pytest.mark.parametrize(
    "arm", [{}, None, 3, "text", {"accuracy": "many"}, {"accuracy": [1.0]}, {"accuracy": 10**400}], ids=range(7)
)
def test_a_record_that_lacks_an_arm_s_numbers_is_named_by_the_ledger(write, toy, arm):
    """Catches: a raw KeyError out of `labkit claims`."""
    path = write(60.0, 61.0).path
    content = json.loads(path.read_text())
    content["results"][1]["plain"] = arm
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"toy/smoke-cpu\.json lacks what the claim 'learns' reads .*git"):
        toy.verdicts()


def test_words_of_a_record_reach_neither_page_nor_terminal(write, capsys):
    """Catches: a script in a page, markup or an escape sequence on the screen, out of a file that somebody sent."""
    path = write(60.0, 61.0).path
    content, word = json.loads(path.read_text()), "<script>owned</script>[red]owned[/]\x1b]0;owned\x07"
    for name in ("command", "recorded", "code"):
        content[name] = word
    content |= {"config": {word: word}, "environment": {word: word}}
    for result in content["results"]:
        result |= {word: word, "data": word}
    path.write_text(json.dumps(content))
    for form in ("", "--long", "--json", "--markdown", "--html"):
        with pytest.raises(SystemExit) as end:
            cli.main(["claims", "toy", *form.split()])
        assert end.value.code == 0
        shown = capsys.readouterr()
        assert "learns" in shown.out or "toy" in shown.out.lower()
        assert "owned" not in shown.out + shown.err


def test_a_record_without_a_label_comes_first(write, toy):
    write(60.0, label="a-variant")
    write(90.0)
    assert toy.verdicts()[0].source == "toy/smoke-cpu.json"
    assert [record.label for record in load_all("toy")] == ["", "a-variant"]


def test_one_result_is_judged_at_its_scale_only(toy):
    result = {"plain": {"accuracy": 40.0}, "noisy": {"accuracy": 90.0}}
    assert [verdict.holds for verdict in toy.verdicts(result, "smoke")] == [False, None]
    assert [verdict.holds for verdict in toy.verdicts(result, "lesson")] == [None, True]
    assert toy.verdicts(result, "smoke")[0].source == "this run"


@pytest.mark.parametrize(
    ("accuracy", "line"),
    [
        (95.0, "claim learns: as recorded"),  # the same verdict
        # another one, far from the record's values
        (69.0, "claim learns: +19.00, where one more seed of the record has +29.54 to +52.46"),
    ],
)
def test_a_run_is_compared_with_the_record(write, toy, accuracy, line):
    write(90.0, 91.0, 92.0)
    result = {"plain": {"accuracy": accuracy}, "noisy": {"accuracy": 90.0}, "data": "plane"}
    (message,) = toy.agreement(result, "smoke")
    assert message.startswith(line)
    assert toy.agreement(result | {"data": "another"}, "smoke") == ["claim learns: no record to compare with"]
    assert toy.agreement(result, "lesson") == ["claim noise-helps: no record to compare with"]


def test_a_run_that_differs_no_more_than_the_seeds_do_agrees(write, toy):
    write(60.0, 70.0, 80.0)  # holds or not is a matter of luck here
    result = {"plain": {"accuracy": 71.0}, "noisy": {"accuracy": 90.0}, "data": "plane"}
    assert toy.agreement(result, "smoke") == ["claim learns: as recorded"]


def test_the_committed_records_are_whole():
    for folder in paths.records_dir().iterdir() if paths.records_dir().exists() else []:
        for record in load_all(folder.name):
            assert record.path.exists(), f"{record.name} is not where its own fields say"
            assert len(record.seeds) == len(record.results) == len(record.wall_seconds)
            text = json.dumps(record.model_dump())
            assert str(paths.root()) not in text


def test_the_toy_has_a_claim_at_two_scales():
    assert {claim.scale for claim in PAPER.claims} == {"smoke", "lesson"}
