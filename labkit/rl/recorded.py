"""CUDA graphs: a step of many small kernels, recorded once and replayed with one call."""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

Result = TypeVar("Result")


class Recorded(Generic[Result]):
    """`step()`, replayed from a CUDA graph on a GPU; elsewhere, and with `enabled=False`, an ordinary call.

    The step must read its inputs from, and keep its state in, tensors that stay where they are; shapes must not change
    and nothing may wait for the GPU. What it returns is overwritten by the next call. The first three calls are
    ordinary ones on a side stream: in them libraries and optimizers allocate what the graph then points at.

    Args:
        device: where the step works.
    """

    def __init__(self, step: Callable[[], Result], device: torch.device, enabled: bool = True) -> None:
        self.step = step
        self.enabled = enabled and device.type == "cuda"
        self._ordinary_calls_left = 3
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: list[Result] = []

    def __call__(self) -> Result:
        if not self.enabled:
            return self.step()
        if self._graph is None and self._ordinary_calls_left > 0:
            self._ordinary_calls_left -= 1
            return self._on_a_side_stream()
        if self._graph is None:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):  # records, does not compute
                self._result = [self.step()]
            self._graph = graph
        self._graph.replay()
        return self._result[0]

    def _on_a_side_stream(self) -> Result:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            result = self.step()
        torch.cuda.current_stream().wait_stream(side)
        return result
