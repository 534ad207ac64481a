"""Run by torchrun in two processes: is a batch normalisation over both the plain one over the whole batch?

Prints one line a case; fails with the first that differs.
"""

import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from labkit.errors import InputError
from labkit.workbench import training

CASES = [
    (nn.BatchNorm1d, (8, 3)),
    (nn.BatchNorm1d, (8, 3, 5)),
    (nn.BatchNorm2d, (4, 3, 5, 2)),
]
OPTIONS = [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}]


def results(norm: nn.Module, inputs: list[Tensor], weight: Tensor, rows: Tensor) -> dict[str, Tensor]:
    """Outputs, gradients and running statistics after two steps on the `rows` of this process."""
    tensors: dict[str, Tensor] = {}
    for step, whole in enumerate(inputs):
        share = whole[rows].clone().requires_grad_()
        output = norm(share)
        (output**3 * weight[rows]).sum().backward()
        tensors |= {f"output {step}": output.detach(), f"input gradient {step}": share.grad}
    tensors |= {f"gradient of {name}": value.grad for name, value in norm.named_parameters()}
    norm.eval()
    return (
        tensors
        | {f"buffer {name}": value.clone() for name, value in norm.named_buffers()}
        | {"eval": norm(inputs[0][rows]).detach()}
        if norm.running_mean is not None
        else tensors
    )


def check(kind: type[nn.Module], shape: tuple[int, ...], options: dict, workers: training.Workers) -> None:
    generator = torch.Generator().manual_seed(1)
    inputs = [3 + 2 * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)]
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    each = torch.arange(shape[0])
    rows = each[:-1] if workers.rank == 0 else each[-1:]  # shares need not be equal
    plain, shared = (kind(shape[1], **options).double() for _ in range(2))
    for norm in (plain, shared):
        for parameter in norm.parameters():
            nn.init.uniform_(parameter.data, 0.5, 2.0, generator=torch.Generator().manual_seed(2))
    training.share_batch_statistics(shared)
    wanted = results(plain, inputs, weight, torch.arange(shape[0]))
    actual = results(shared, inputs, weight, rows)
    for name in wanted:
        value = actual[name]
        if name.startswith("gradient"):
            dist.all_reduce(value)  # of a parameter: each process has its share
        whole = name.startswith(("gradient", "buffer"))
        torch.testing.assert_close(value, wanted[name] if whole else wanted[name][rows], rtol=1e-9, atol=1e-9, msg=name)
    if workers.writes:
        print(f"same: {kind.__name__} {shape} {options}", flush=True)


def check_half_precision(workers: training.Workers) -> None:
    """In bfloat16 sums must be taken in float32, as torch does: 1000 values near 100 would lose them."""
    inputs = (100 + torch.randn(1000, 2, generator=torch.Generator().manual_seed(3))).bfloat16()
    plain, shared = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    training.share_batch_statistics(shared)
    rows = workers.share(torch.arange(1000))
    wanted, actual = plain(inputs), shared(inputs[rows])
    assert actual.dtype == wanted.dtype == torch.bfloat16
    torch.testing.assert_close(actual, wanted[rows], rtol=0.02, atol=0.02)
    torch.testing.assert_close(shared.running_var, plain.running_var, rtol=1e-3, atol=1e-3)
    if workers.writes:
        print("same: bfloat16", flush=True)


def check_refused(call: Callable[[], object], workers: training.Workers) -> None:
    try:
        call()
    except InputError as error:
        if workers.writes:
            print(f"refused: {error}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with training.workers("cpu") as workers:
        assert workers.mean(torch.tensor(float(workers.rank))) == 0.5
        for (kind, shape), options in itertools.product(CASES, OPTIONS):
            check(kind, shape, options, workers)
        check_half_precision(workers)
        few = nn.BatchNorm1d(2)
        training.share_batch_statistics(few)
        check_refused(lambda: few(torch.ones(0, 2)), workers)
        check_refused(lambda: workers.share(torch.arange(15)), workers)
