"""Timings that a busy machine cannot turn round."""

import time

import pytest
import torch

from labkit.workbench.benchmark import BenchRow, compare, milliseconds

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("ours", "peer", "lower_is_better", "ratio"),
    [(1.0, 2.0, True, 2.0), (2.0, 1.0, True, 0.5), (1.0, 2.0, False, 0.5), (2.0, 1.0, False, 2.0)],
)
def test_a_ratio_above_one_means_that_we_are_ahead(ours, peer, lower_is_better, ratio):
    assert BenchRow("w", "ms", ours, peer, "peer", lower_is_better).ratio == ratio


def test_rivals_take_turns_after_warming_up():
    calls: list[str] = []
    best = compare({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, CPU, rounds=4, warm_up=2)
    assert calls == ["a", "b"] * 2 + ["a", "b", "b", "a"] * 2
    assert list(best) == ["a", "b"]


def test_the_best_time_is_reported_so_that_one_disturbance_does_not_count(monkeypatch):
    clock = iter([0.0, 5.0, 10.0, 10.001, 20.0, 29.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    assert compare({"a": lambda: None}, CPU, rounds=3, warm_up=0) == {"a": pytest.approx(1.0)}


def test_a_call_is_timed_in_milliseconds_by_the_clock_that_is_asked_for():
    ticks = iter([1.0, 1.5, 2.0, 2.25])
    assert milliseconds(lambda: None, CPU, clock=lambda: next(ticks)) == 500.0
    assert compare({"a": lambda: None}, CPU, rounds=1, warm_up=0, clock=lambda: next(ticks)) == {"a": 250.0}


def test_a_gpu_is_idle_before_and_after(monkeypatch):
    order: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: order.append("wait"))
    milliseconds(lambda: order.append("call"), torch.device("cuda"))
    assert order == ["wait", "call", "wait"]
