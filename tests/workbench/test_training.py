"""Devices, seeds, batches: what every loop stands on."""

import itertools
import random
import sys
import threading
import time
from functools import partial
from itertools import chain

import numpy as np
import pytest
import torch

from labkit import devices
from labkit.devices import pick_device
from labkit.errors import InputError, LabkitError
from labkit.progress import progress, side_by_side
from labkit.workbench import training
from labkit.workbench.training import ShuffledIndices, Workers, seed_everything


def take(batches: ShuffledIndices, count: int) -> list[list[int]]:
    return [next(batches).tolist() for _ in range(count)]


@pytest.mark.parametrize(("count", "batch_size"), [(10, 5), (11, 5), (7, 7), (5, 1)])
def test_an_epoch_takes_each_example_at_most_once_and_leaves_less_than_a_batch(count, batch_size):
    batches = ShuffledIndices(count, batch_size, seed=3)
    for _ in range(3):
        epoch = [*chain.from_iterable(take(batches, batches.batches_per_epoch))]
        assert len(set(epoch)) == len(epoch) == count - count % batch_size
        assert set(epoch) <= set(range(count))


def test_epochs_differ_and_seeds_differ_and_nothing_else_matters():
    first, second = (take(ShuffledIndices(20, 20, seed=0), 2) for _ in range(2))
    torch.manual_seed(99)
    assert first == second
    assert first[0] != first[1]
    assert take(ShuffledIndices(20, 20, seed=1), 2) != first


@pytest.mark.parametrize("taken", [0, 1, 3, 4, 9])
def test_a_resumed_sampler_goes_on_with_the_very_next_batch(taken):
    whole, again = ShuffledIndices(13, 4, seed=5), ShuffledIndices(13, 4, seed=5)
    take(whole, taken)
    again.load_state_dict(whole.state_dict())
    assert take(again, 8) == take(whole, 8)


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_the_rest_of_the_epoch_is_what_comes_next(taken):
    batches = ShuffledIndices(13, 4, seed=5)
    take(batches, taken)
    rest = batches.rest_of_epoch().tolist()
    assert len(rest) == 3 - taken
    assert rest == take(batches, 3 - taken)


@pytest.mark.parametrize("batch_size", [0, -1, 11])
def test_a_batch_size_that_cannot_be_is_refused(batch_size):
    with pytest.raises(InputError, match=f"batch_size must be between 1 and .*10; got {batch_size}"):
        ShuffledIndices(10, batch_size, seed=0)


def test_seeding_covers_the_three_generators():
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), torch.rand(()).item()

    seed_everything(2**31 - 1)
    first = draw()
    seed_everything(2**31 - 1)
    assert draw() == first
    seed_everything(0)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_devices_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match=r"'cuda:0' was asked for, but torch sees no CUDA GPU.*--device cpu"):
        pick_device("cuda:0")


def test_devices_with_two_gpus(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert pick_device("auto") == torch.device("cuda:0")
    assert pick_device("cuda:1") == torch.device("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick_device("cuda") == torch.device("cuda:1")
    assert chosen == ["cuda:0", "cuda:1", "cuda:1"]
    with pytest.raises(InputError, match="GPU 2 was asked for, but torch sees 2 here, counted from 0"):
        pick_device("cuda:2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(InputError, match="'cuda:0' is one GPU, and 2 processes need one each"),
        training.workers("cuda:0"),
    ):
        pass


def test_alone_everything_is_as_if_there_were_no_workers():
    with training.workers("cpu") as alone:
        assert (alone.rank, alone.size, alone.writes) == (0, 1, True)
        batch = torch.arange(5)
        assert alone.share(batch).tolist() == [0, 1, 2, 3, 4]
        assert alone.mean(torch.tensor(3.0)) == 3
        model = torch.nn.BatchNorm1d(2)
        assert alone.wrap(model) is model
        assert type(model) is torch.nn.BatchNorm1d
        alone.barrier()


@pytest.mark.parametrize("size", [2, 3])
def test_the_shares_of_a_batch_are_equal_and_make_up_the_whole(size):
    batch = torch.arange(100, 112)
    shares = [Workers(rank, size, torch.device("cpu")).share(batch).tolist() for rank in range(size)]
    assert {len(share) for share in shares} == {12 // size}
    assert sorted(chain.from_iterable(shares)) == batch.tolist()


def test_a_batch_that_cannot_be_dealt_out_is_refused():
    with pytest.raises(InputError, match="batch_size 5 must be a multiple of the 2 processes"):
        Workers(0, 2, torch.device("cpu")).share(torch.arange(5))


def test_a_process_that_fails_is_an_error_with_its_exit_code(monkeypatch, capfd):
    monkeypatch.setattr(training, "TORCHRUN", ["-c", "import sys; sys.exit('a child says why')"])
    with pytest.raises(LabkitError, match=r"one of the 2 processes failed \(exit code 1\); see above"):
        training.launch(["worker"], 2)
    assert "a child says why" in capfd.readouterr().err


def test_progress_is_silent_without_a_terminal_and_shown_to_a_person(monkeypatch, capsys):
    monkeypatch.delenv("LABKIT_PROGRESS")
    assert list(progress(range(3), "steps")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress(range(3), "steps")) == [0, 1, 2]
    assert "steps" in capsys.readouterr().err
    for name, value in (("LABKIT_PROGRESS", "0"), ("RANK", "1")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert list(progress(range(3), "steps")) == [0, 1, 2]
            assert capsys.readouterr().err == ""


def test_one_thread_holds_inside_and_gives_the_others_back_even_after_an_error():
    def fails_on(threads: int) -> None:
        with devices.one_thread():
            raise ValueError(f"{torch.get_num_threads() - threads} threads too many")

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ValueError, match="0 threads too many"):
            fails_on(1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# -- side by side -----------------------------------------------------------------------------------------------------


def test_tasks_side_by_side_work_at_the_same_time_and_answer_in_order():
    meeting = threading.Barrier(2, timeout=600)

    def meet(name: str) -> tuple[str, int]:
        meeting.wait()  # with fewer than two at work nobody gets past here
        return name, torch.get_num_threads()

    with devices.one_thread():
        assert side_by_side([partial(meet, name) for name in "abcd"], at_once=2) == [(n, 1) for n in "abcd"]
        assert side_by_side([partial(meet, name) for name in "ab"], 2, "with a bar") == [(n, 1) for n in "ab"]


@pytest.mark.parametrize(("tasks", "at_once"), [(3, 1), (1, 4), (0, 4)])
def test_what_is_not_side_by_side_stays_in_the_callers_thread(tasks, at_once):
    actual = side_by_side([threading.get_ident] * tasks, at_once)
    assert actual == [threading.get_ident()] * tasks


def test_one_error_ends_the_others_at_their_next_step_and_those_that_wait_never_start():
    begun, ended, started = threading.Event(), [], []

    def endless() -> None:
        try:
            for _ in progress(itertools.count(), "endless"):
                begun.set()
                time.sleep(0.001)
        except KeyboardInterrupt:
            ended.append(True)
            raise

    def fails() -> None:
        begun.wait()
        raise ValueError("not this one")

    with pytest.raises(ValueError, match="not this one"):
        side_by_side([endless, fails, endless, partial(started.append, 1)], at_once=2)
    assert ended[0]
    assert not started
    assert list(progress(range(3), "afterwards")) == [0, 1, 2]


def test_no_task_at_a_time_is_refused():
    with pytest.raises(InputError, match=r"at_once, .* at least 1; got 0"):
        side_by_side([], 0)
