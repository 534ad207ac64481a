"""Faults, really done: killed processes, full disks, folders that cannot be written. Nothing saved is ever lost."""

import contextlib
import json
import os
import re
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_paper import PAPER, ToyConfig

from labkit.errors import RunError
from labkit.workbench import runs
from labkit.workbench.runs import Run

ARMS = ("plain", "noisy")


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return {
        f"{arm}.{name}": value
        for arm in ARMS
        for name, value in load_file(directory / arm / "weights.safetensors").items()
    }


def assert_same_run(directory: Path, undisturbed: Path) -> None:
    """The bits of result, weights and metrics; no leftovers, no step twice."""
    assert (directory / "result.json").read_bytes() == (undisturbed / "result.json").read_bytes()
    torch.testing.assert_close(weights(directory), weights(undisturbed), rtol=0, atol=0)
    for arm in ARMS:
        assert (directory / arm / "metrics.jsonl").read_text() == (undisturbed / arm / "metrics.jsonl").read_text()
    assert not list(directory.rglob("*.part"))


def complete(directory: Path, config: ToyConfig | None = None) -> None:
    """Go on with the run in this process, which has the same arithmetic as the one that was stopped."""
    config = config or ToyConfig()
    PAPER.run(config, Run.open(directory, config))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("undisturbed") / "run"
    complete(directory)
    return directory


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], capture_output=True)
    if mount.returncode:
        pytest.skip("a small disk can be mounted by root only; the same fault is tested with a file size limit")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    # in the first arm, in the second; when a checkpoint is half written; when the very first has no name yet
    ["step:18", "step:58", "half:9", "replace:1"],
)
def test_a_killed_run_ends_like_an_undisturbed_one(labkit, tmp_path, undisturbed, fault):
    """Catches: a generator that is not restored, a sampler that starts over, a batch lost or taken twice."""
    killed = labkit("train", "toy", "--scale", "smoke", "--run-dir", str(tmp_path / "run"), fault=fault, seconds=0)
    assert killed.returncode == -9
    assert not (tmp_path / "run" / "result.json").exists()
    complete(tmp_path / "run")
    assert_same_run(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_a_run_killed_again_and_again_still_ends_like_an_undisturbed_one(labkit, tmp_path, undisturbed):
    words = ("train", "toy", "--scale", "smoke", "--run-dir", str(tmp_path / "run"))
    assert labkit(*words, fault="step:31", seconds=0).returncode == -9
    assert labkit(*words, "--resume", fault="half:20", seconds=0).returncode == -9
    complete(tmp_path / "run")
    assert_same_run(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_the_comparison_would_notice(tmp_path, undisturbed, stop_at, monkeypatch):
    """It is sharp: a resumed run whose generators are not restored ends elsewhere."""
    stop_at(tmp_path / "run", 70)
    monkeypatch.setattr(runs, "_restore_generators", lambda states: None)
    complete(tmp_path / "run")
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "run", undisturbed)


def assert_stopped_in_words(call: subprocess.CompletedProcess[str], directory: Path, why: str) -> None:
    """A sentence, the reason, and a line that goes on; no trace, exit code 1."""
    assert call.returncode == 1, call.stderr
    assert "Traceback" not in call.stderr
    assert why in call.stderr
    assert re.search(rf"labkit train toy --scale smoke --run-dir {directory} --resume", call.stderr), call.stderr


def fill(path: Path) -> None:
    """Write until nothing more goes in."""
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))


def test_a_full_disk_keeps_the_previous_checkpoint(disk, undisturbed, stop_at):
    directory = disk / "run"
    before = stop_at(directory, 18)
    fill(disk / "filler")
    with pytest.raises(RunError, match=r"No space left on device.*free space.*--resume.*--run-dir"):
        complete(directory)
    assert (directory / "plain" / "checkpoint.pt").read_bytes() == before
    (disk / "filler").unlink()
    complete(directory)
    assert_same_run(directory, undisturbed)


@pytest.mark.slow
def test_a_disk_that_fills_while_training_keeps_the_previous_checkpoint(labkit, disk, undisturbed, stop_at):
    """As above, but with room for some steps: it fills in the middle of whatever grows, TensorBoard's file too."""
    directory = disk / "run"
    stop_at(directory, 18)
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "filler").write_bytes(bytes(free - 24 * 1024))
    words = ("train", "toy", "--scale", "smoke", "--run-dir", str(directory), "--resume")
    call = labkit(*words, seconds=0, tensorboard=1)
    assert_stopped_in_words(call, directory, "No space left on device")
    (disk / "filler").unlink()
    complete(directory)
    assert_same_run(directory, undisturbed)


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes; what root and everybody else can have of a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_may_not_grow_keeps_the_previous_checkpoint(tmp_path, undisturbed, stop_at):
    directory = tmp_path / "run"
    before = stop_at(directory, 18)
    with file_size_limit(len(before) // 2), pytest.raises(RunError, match=r"checkpoint\.pt .*File too large"):
        stop_at(directory, 9)  # saves after each step
    assert (directory / "plain" / "checkpoint.pt").read_bytes() == before
    complete(directory)
    assert_same_run(directory, undisturbed)


def test_a_read_only_folder_is_an_error_in_words_and_a_finished_run_in_it_is_read(disk, stop_at):
    directory = disk / "run"
    before = stop_at(directory, 18)
    complete(disk / "finished")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for folder in (directory, disk / "new"):
        with pytest.raises(RunError, match=r"cannot write .*Read-only file system.*--run-dir"):
            complete(folder)
    assert (directory / "plain" / "checkpoint.pt").read_bytes() == before
    complete(disk / "finished")


def test_a_place_that_cannot_be_made_is_an_error_in_words(tmp_path):
    folder = Path("/proc/labkit") if os.geteuid() == 0 else tmp_path / "closed" / "run"
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(RunError, match=f"cannot write .* in {folder}: .*--run-dir"):
        Run.open(folder, ToyConfig())


def test_a_damaged_checkpoint_stops_the_run_and_is_not_used(tmp_path, undisturbed, stop_at):
    directory = tmp_path / "run"
    whole = stop_at(directory, 18)
    path = directory / "plain" / "checkpoint.pt"
    weights_there = torch.load(path, weights_only=True)["state"]["model"]["0.weight"].numpy().tobytes()
    offset = whole.index(weights_there) + 1
    path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
    with pytest.raises(RunError, match=rf"'{path}' is damaged .*Remove it"):
        complete(directory)
    path.unlink()  # as the message advises
    complete(directory)
    assert_same_run(directory, undisturbed)


def test_a_training_that_diverged_is_not_recorded_as_a_result(tmp_path, monkeypatch):
    monkeypatch.setattr(type(PAPER), "train", lambda *_: {"arm": {"worst": float("nan")}})
    with pytest.raises(RunError, match=r"arm\.worst = nan"):
        PAPER.run(ToyConfig(), Run.open(tmp_path / "run", ToyConfig()))
    assert not (tmp_path / "run" / "result.json").exists()


def test_the_recorded_time_counts_the_killed_process_too(tmp_path, stop_at):
    directory = tmp_path / "run"
    stop_at(directory, 18)
    before = json.loads((directory / "timing.json").read_text())
    assert before["wall_seconds"] >= 0
    (directory / "timing.json").write_text('{"wall_seconds": 500.0}')
    complete(directory)
    assert 500 <= json.loads((directory / "timing.json").read_text())["wall_seconds"] < 1000  # counted, and once
