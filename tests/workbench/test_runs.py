"""Run directories: what is written can be read back, and nobody's run is used for another's."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from toy_paper import ToyConfig

from labkit.errors import InputError, RunError
from labkit.files import write_atomically
from labkit.workbench import runs
from labkit.workbench.runs import Run, latest_unfinished, new_directory


@pytest.fixture
def run(tmp_path):
    with_run = Run.open(tmp_path / "run", ToyConfig())
    yield with_run
    with_run.close()


def state() -> dict:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {"model": model, "optimizer": optimizer}


def test_opening_twice_comes_back_to_the_same_run(run):
    again = Run.open(run.directory, ToyConfig())
    assert again.identity == run.identity
    assert run.read_json("config.json")["widths"] == [8]
    assert run.read_json("environment.json")["torch"] == torch.__version__
    assert run.result is None


def test_another_config_is_refused_and_both_values_are_shown(run):
    with pytest.raises(InputError, match=r"steps = 40 there, 41 here.*--run-dir"):
        Run.open(run.directory, ToyConfig(steps=41))
    Run.open(run.directory, ToyConfig(device="cpu", devices=2))  # where it runs makes no other experiment


def test_a_file_in_the_place_of_the_run_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        Run.open(tmp_path / "notes.txt", ToyConfig())
    with pytest.raises(RunError, match="cannot write"):
        Run.open(tmp_path / "notes.txt" / "run", ToyConfig())
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["config.json", "result.json", "timing.json"])
@pytest.mark.parametrize(
    "content",
    [b'{"seed": 0', b"\xff\xfe\x00", b"", b"[1, 2]", b"[" * 100_000],
    ids=["cut", "bytes", "empty", "list", "deep"],
)
def test_a_damaged_json_file_is_named(run, name, content):
    (run.directory / name).write_bytes(content)
    with pytest.raises(RunError, match=rf"{name} is damaged"):
        _ = Run.open(run.directory, ToyConfig()).result


@pytest.mark.parametrize("content", [{}, {"accuracy": float("nan")}, {"accuracy": 71.0}, {"accuracy": "70.0"}], ids=str)
def test_a_result_that_was_altered_is_refused(run, content):
    """Catches: an emptied result, or one that somebody improved, shown in the ledger with exit code 0."""
    run.finish({"accuracy": 70.0})
    (run.directory / "result.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"result\.json is damaged .*altered, or belongs to another run"):
        _ = Run.open(run.directory, ToyConfig()).result


def test_another_run_s_result_is_refused(run, tmp_path):
    other = Run.open(tmp_path / "other", ToyConfig(seed=1))
    other.finish({"accuracy": 99.0})
    for name in ("result.json", "seal.json"):
        (run.directory / name).write_bytes((other.directory / name).read_bytes())
    with pytest.raises(RunError, match="belongs to another run"):
        _ = run.result
    (run.directory / "seal.json").unlink()
    with pytest.raises(RunError, match=r"seal\.json is missing: .*an older version made that run.* Remove that run's"):
        _ = run.result


@pytest.mark.parametrize("seconds", ["abc", None, -1.0, float("nan"), float("inf"), [1], True, 10**400], ids=str)
def test_a_time_that_is_none_is_named(run, seconds):
    run.write_json("timing.json", {"wall_seconds": seconds})
    with pytest.raises(RunError, match=r"timing\.json is damaged \(wall_seconds: "):
        Run.open(run.directory, ToyConfig())


@pytest.mark.parametrize(
    "line", ['{"step": "a"}', '{"step": -1}', "[]", "3", '{"loss": 1.0}', '{"step": 0, "loss": {}}', "[" * 100_000]
)
def test_a_metrics_line_of_another_type_is_named(run, line):
    run.log(1, loss=float("nan"), widths=[1.0, 2.0])
    (before,) = run.metrics()
    assert before["widths"] == [1.0, 2.0]
    with open(run.directory / "metrics.jsonl", "a") as stream:
        stream.write(f'{line}\n{{"step": 2}}\n')
    with pytest.raises(RunError, match=r"line 2 of .*metrics\.jsonl is damaged"):
        run.resume(state())


@pytest.mark.parametrize("name", [".lock", "metrics.jsonl"])
def test_what_a_link_in_a_run_directory_leads_to_is_not_written(run, tmp_path, name):
    """Catches: a run that somebody passed on, whose lock empties a file of the one who goes on with it."""
    (tmp_path / "mine").write_text("mine")
    (run.directory / name).symlink_to(tmp_path / "mine")
    with pytest.raises(RunError, match=f"cannot write .* in {run.directory}"), run.alone():
        run.log(0, loss=1.0)
    assert (tmp_path / "mine").read_text() == "mine"


def test_files_that_are_written_whole_take_the_place_of_a_link(run, tmp_path):
    (tmp_path / "mine").write_text("mine")
    for name in ("checkpoint.pt", "result.json", "seal.json", "timing.json", "code.json", "weights.safetensors"):
        (run.directory / name).symlink_to(tmp_path / "mine")
    run.write_weights(nn.Linear(3, 2))
    run.save(1, state())
    for name in ("result.json", "code.json"):
        run.write_json(name, {})
    run.write_json("seal.json", {"sha256": ""})
    assert (tmp_path / "mine").read_text() == "mine"


def test_parts_are_runs_with_facts_of_their_own(run):
    part = run.part("arm", bits=3)
    part.finish({"x": 1.5})
    assert run.part("arm", bits=3).result == {"x": 1.5}
    assert run.result is None
    with pytest.raises(InputError, match="bits = 3 there, 2 here"):
        run.part("arm", bits=2)


def test_a_private_part_writes_whatever_the_rank_and_waits_for_nobody(run, monkeypatch):
    """Processes that deal parts out among them: a barrier in one of them would wait for ever."""
    helper = Run.open(run.directory, ToyConfig(), writes=False)
    helper.part("ours").finish({"x": 1})
    assert run.part("ours").result is None
    waited = []
    monkeypatch.setattr(runs, "_wait_for_all", lambda: waited.append(1))
    mine = helper.private_part("mine", bits=3)
    mine.write_weights(nn.Linear(2, 2))
    assert mine.part("inside").finish({"y": 2}) == {"y": 2}
    assert mine.finish({"x": 1}) == run.part("mine", bits=3).result == {"x": 1}
    assert not waited
    run.part("ours").finish({"x": 2})
    assert waited == [1]


def test_finish_returns_what_will_be_read_back_and_adds_up_the_time(run):
    assert run.finish({"a": (1, 2), "b": 0.1}) == {"a": [1, 2], "b": 0.1} == run.result
    run.write_json(
        "timing.json", {"wall_seconds": 1000.0, "cpu_seconds": 3000.0}
    )  # as a killed process would have left it
    again = Run.open(run.directory, ToyConfig())
    again.part("arm").finish({})
    assert 1000 <= again.read_json("timing.json")["wall_seconds"] < 2000  # counted, and once
    assert 3000 <= again.read_json("timing.json")["cpu_seconds"] < 4000


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_result_that_is_not_finite_is_refused_by_name(run, bad):
    with pytest.raises(RunError, match=r"arm\.losses\.1 = (nan|inf).*diverged"):
        run.finish({"arm": {"losses": [0.1, bad]}})
    assert run.result is None


def test_a_checkpoint_brings_back_weights_momentum_and_the_three_random_generators(run):
    import random

    import numpy as np

    old = state()
    run.save(7, old)
    draws = (torch.rand(3).tolist(), np.random.rand(), random.random())
    new = state()
    assert run.resume(new) == 7
    assert (torch.rand(3).tolist(), np.random.rand(), random.random()) == draws
    torch.testing.assert_close(new["model"].state_dict(), old["model"].state_dict(), rtol=0, atol=0)
    old_momentum, new_momentum = (s["optimizer"].state_dict()["state"][0]["momentum_buffer"] for s in (old, new))
    torch.testing.assert_close(new_momentum, old_momentum, rtol=0, atol=0)


def test_without_a_checkpoint_a_run_begins_at_step_zero(run):
    assert run.resume(state()) == 0


def test_a_checkpoint_of_other_code_is_refused(run):
    run.save(7, state())
    with pytest.raises(RunError, match=r"holds \['model', 'optimizer'\], this run needs \['model'\]"):
        run.resume({"model": nn.Linear(3, 2)})
    other = nn.Linear(4, 2)
    with pytest.raises(RunError, match=r"'model' of .* does not fit.*another version"):
        run.resume({"model": other, "optimizer": torch.optim.SGD(other.parameters(), lr=0.1)})


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("step"),
        lambda c: c.pop("state"),
        lambda c: c.pop("generators"),
        lambda c: c.update(step=-1),
        lambda c: c.update(step="7"),
        lambda c: c.update(state=[]),
        lambda c: c["state"].update(optimizer=3),
        lambda c: c["state"].update(model={"weight": 3, "bias": None}),
        lambda c: c["generators"].pop("numpy"),
        lambda c: c["generators"].update(numpy=["MT19937"]),
        lambda c: c["generators"].update(torch=torch.zeros(3)),
        lambda c: c["generators"].update(python=[3, ["a"], None]),
        lambda c: c["generators"].update(cuda=None),
    ],
)
def test_a_checkpoint_without_its_keys_is_named(run, change):
    """Catches: raw KeyErrors and TypeErrors from whatever stands in place of a step, a state or a generator."""
    run.save(7, state())
    path = run.directory / "checkpoint.pt"
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)
    with pytest.raises(RunError, match=r"checkpoint\.pt"):
        run.resume(state())


def test_a_flipped_byte_anywhere_in_a_checkpoint_is_found(run):
    """CRC sums cover the tensors; what they do not cover (names, offsets) must not lead to other values either."""
    run.save(7, state())
    path, whole = run.directory / "checkpoint.pt", (run.directory / "checkpoint.pt").read_bytes()
    right = state()
    run.resume(right)
    problems = []
    for offset in range(0, len(whole), 97):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 0x40]) + whole[offset + 1 :])
        actual = state()
        try:
            run.resume(actual)
        except RunError as error:
            problems.append(str(error))
        else:
            torch.testing.assert_close(actual["model"].state_dict(), right["model"].state_dict(), rtol=0, atol=0)
    assert len(problems) > len(whole) / 97 / 4
    assert all("checkpoint.pt" in problem for problem in problems)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_checkpoint_is_named_and_not_used(run, share):
    run.save(7, state())
    path = run.directory / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    fresh = state()
    before = {name: value.clone() for name, value in fresh["model"].state_dict().items()}
    with pytest.raises(RunError, match=r"checkpoint\.pt'? is damaged.*Remove it"):
        run.resume(fresh)
    torch.testing.assert_close(dict(fresh["model"].state_dict()), before, rtol=0, atol=0)


def test_a_checkpoint_never_runs_foreign_code(run, tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path}/owned",))

    torch.save({"step": 1, "state": {"model": Evil()}, "generators": {}}, run.directory / "checkpoint.pt")
    with pytest.raises(RunError, match="damaged"):
        run.resume({"model": nn.Linear(3, 2)})
    assert not (tmp_path / "owned").exists()


def test_checkpoints_are_rare_unless_they_are_due(tmp_path):
    rare, often = (
        Run.open(tmp_path / name, ToyConfig(), checkpoint_seconds=s) for name, s in (("a", 60.0), ("b", 0.0))
    )
    for run in (rare, often):
        run.save_if_due(1, state())
    assert not (rare.directory / "checkpoint.pt").exists()
    assert (often.directory / "checkpoint.pt").exists()


def test_weights_come_back_and_foreign_ones_do_not(run):
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    with pytest.raises(RunError, match="no trained weights yet"):
        run.read_weights(other)
    run.write_weights(model)
    run.read_weights(other)
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)
    with pytest.raises(RunError, match="another model"):
        run.read_weights(nn.Linear(4, 2))
    path = run.directory / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1  # another weight, which a plain safetensors file would give
    for damaged in (content, content[:-9], b"rubbish"):
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=r"damaged.*Remove that run's folder"):
            run.read_weights(other)
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_no_step_is_logged_twice_after_resuming(run):
    for step in range(6):
        run.log(step, loss=1.0 / (step + 1))
        if step == 2:
            run.save(step + 1, state())
    run.close()
    again = Run.open(run.directory, ToyConfig())
    assert again.resume(state()) == 3
    for step in range(3, 6):
        again.log(step, loss=9.0)
    again.close()
    assert [line["step"] for line in again.metrics()] == [0, 1, 2, 3, 4, 5]
    assert [line["loss"] for line in again.metrics()] == [1.0, 1 / 2, 1 / 3, 9.0, 9.0, 9.0]


def test_a_last_line_cut_short_is_left_out_and_a_damaged_one_before_it_is_named(run):
    run.log(0, loss=1.0)
    run.log(1, loss=2.0)
    with open(run.directory / "metrics.jsonl", "a") as stream:
        stream.write('{"step": 2, "lo')
    assert [line["step"] for line in run.metrics()] == [0, 1]
    with open(run.directory / "metrics.jsonl", "a") as stream:
        stream.write('\n{"step": 3, "loss": 1.0}\n')
    with pytest.raises(RunError, match=r"line 3 of .*metrics\.jsonl is damaged"):
        run.metrics()


def test_tensorboard_shows_what_the_json_lines_say(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for step in range(5):
        run.log(step, loss=0.1 * step, scales=[1.0, 2.0, float(step)])
    run.save(3, state())
    run.close()
    again = Run.open(run.directory, ToyConfig())
    again.resume(state())  # drops steps 3 and 4, in both places
    again.log(3, loss=7.0)
    again.close()
    events = EventAccumulator(str(run.directory), size_guidance={"histograms": 0})
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("loss")]
    assert shown == [(line["step"], pytest.approx(line["loss"])) for line in again.metrics()]
    assert [event.step for event in events.Histograms("scales")] == [0, 1, 2]
    assert len(list(run.directory.glob("events.*"))) == 1


def test_resuming_with_an_open_writer_loses_no_events(run):
    """Two stages of training may share one opened run; the first stage's writer must not outlive its file."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run.log(0, loss=1.0)
    run.save(1, state())
    run.resume(state())
    run.log(1, loss=2.0)
    run.close()
    events = EventAccumulator(str(run.directory))
    events.Reload()
    assert [event.value for event in events.Scalars("loss")] == [1.0, 2.0]


def test_without_tensorboard_one_line_says_so_and_the_metrics_are_there(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setattr(runs, "_tensorboard_missing", False)
    run.log(0, loss=1.0)
    run.log(1, loss=2.0)
    assert capsys.readouterr().err.count("no TensorBoard") == 1
    assert [line["loss"] for line in run.metrics()] == [1.0, 2.0]


def test_a_helping_process_writes_nothing(tmp_path):
    run = Run.open(tmp_path / "run", ToyConfig(), writes=False)
    run.log(0, loss=1.0)
    run.save(1, state())
    run.part("arm").finish({})
    run.write_weights(nn.Linear(1, 1))
    assert run.finish({"x": 1}) == {"x": 1}
    with run.alone():
        pass
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_do_not_train_in_one_directory(run, tmp_path):
    code = (
        "import sys; from toy_paper import ToyConfig; from labkit.workbench.runs import Run\n"
        "with Run.open(sys.argv[1], ToyConfig()).alone(): print('in')"
    )
    call = [sys.executable, "-c", code, str(run.directory)]
    environment = os.environ | {
        "PYTHONPATH": f"{os.path.dirname(__file__)}:{os.path.dirname(os.path.dirname(__file__))}"
    }
    (run.directory / "arm").mkdir()
    (run.directory / "arm" / ".checkpoint.pt.1.part").touch()
    with run.alone():
        second = subprocess.run(call, env=environment, capture_output=True, text=True)
    assert second.returncode != 0
    assert "another process is at work in" in second.stderr
    assert not list(run.directory.rglob("*.part"))  # the one that got in swept up
    with run.alone():  # it was given back
        pass


def test_new_directories_are_never_shared(tmp_path):
    first, second = new_directory("toy", "smoke"), new_directory("toy", "smoke")
    assert [first.name, second.name] == ["smoke-001", "smoke-002"]
    assert first.parent == tmp_path / "runs" / "toy"


def test_the_latest_unfinished_run_is_of_this_config_and_not_finished():
    assert latest_unfinished("toy", ToyConfig()) is None
    older, newer, other, done = (new_directory("toy", "smoke") for _ in range(4))
    for folder, config in (
        (older, ToyConfig()),
        (newer, ToyConfig()),
        (other, ToyConfig(steps=1)),
        (done, ToyConfig()),
    ):
        Run.open(folder, config)
    Run.open(done, ToyConfig()).finish({})
    os.utime(older / "config.json", (1, 1))
    assert latest_unfinished("toy", ToyConfig(device="cpu")) == newer


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.glob(".*")) == []


def test_the_environment_names_no_machine_and_no_folder():
    actual = runs.environment()
    assert os.uname().nodename not in map(str, actual.values())
    assert os.path.expanduser("~") not in json.dumps(actual)
    assert os.getcwd() not in json.dumps(actual)
