"""Devices, seeds, batches, several processes: what every training loop needs and no paper is about."""

import contextlib
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from labkit.devices import pick_device
from labkit.errors import InputError, LabkitError
from labkit.seeds import derive

TORCHRUN = ["-m", "torch.distributed.run"]
ORDER, CROPS = 0, 1  # what batches draw random numbers for
PROGRAM = ["-m", "labkit"]  # what `launch` starts in each process; tests put a small program of their own here


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators; loops draw from generators of their own besides."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


class ShuffledIndices:
    """Endless batches of indices: each epoch a fresh permutation that depends on (seed, epoch) alone.

    The batches are global: in a distributed run every process sees the same ones and takes its share. The position is
    two numbers, so a resumed run continues with the very next batch, with any number of processes.

    Args:
        count: number of examples. The last, incomplete batch of an epoch is left out.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        if not 0 < batch_size <= count:
            raise InputError(f"batch_size must be between 1 and the number of examples, {count}; got {batch_size}.")
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.epoch = self.position = 0
        self._order = self._permutation()

    @property
    def batches_per_epoch(self) -> int:
        return self.count // self.batch_size

    def __iter__(self) -> Iterator[Int[Tensor, " batch"]]:
        return self

    def __next__(self) -> Int[Tensor, " batch"]:
        if self.position == self.batches_per_epoch:
            self.epoch, self.position = self.epoch + 1, 0
            self._order = self._permutation()
        start = self.position * self.batch_size
        self.position += 1
        return self._order[start : start + self.batch_size]

    def rest_of_epoch(self) -> Int[Tensor, "batches batch"]:
        """The batches that are left of this epoch, for a loader that must look ahead."""
        return self._order[: self.batches_per_epoch * self.batch_size].view(-1, self.batch_size)[self.position :]

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epoch, self.position = state_dict["epoch"], state_dict["position"]
        self._order = self._permutation()

    def _permutation(self) -> Int[Tensor, " count"]:
        return torch.randperm(self.count, generator=generator_at(self.seed, ORDER, self.epoch))


def generator_at(seed: int, *keys: int) -> torch.Generator:
    """A generator for one draw of a run: one epoch's order, one batch's crops. Keys are (purpose, epoch, ...)."""
    return torch.Generator().manual_seed(derive(seed, *keys))


# -- several processes ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Workers:
    """This process among those that train together. One process is the case of size 1."""

    rank: int
    size: int
    device: torch.device

    @property
    def writes(self) -> bool:
        """Only the first process writes files and prints."""
        return self.rank == 0

    def share(self, batch: Int[Tensor, " batch"]) -> Int[Tensor, " share"]:
        """This process's part of a global batch; equal parts, so that the mean of the means is the mean.

        Raises:
            InputError: the batch cannot be dealt out evenly.
        """
        if len(batch) % self.size:
            raise InputError(f"batch_size {len(batch)} must be a multiple of the {self.size} processes that share it.")
        return batch[self.rank :: self.size]

    def wrap(self, model: nn.Module) -> nn.Module:
        """`model` on its device; with several processes, gradients and batch statistics are the whole batch's."""
        model = model.to(self.device)
        if self.size == 1:
            return model
        share_batch_statistics(model)
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of `value` over the processes: of the shares' losses, the loss of the whole batch."""
        if self.size > 1:
            value = value.detach().clone()
            dist.all_reduce(value)
            value /= self.size
        return value

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


@contextlib.contextmanager
def workers(device: str) -> Iterator[Workers]:
    """Join the processes that torchrun started (gloo on CPUs, NCCL on GPUs); alone, this costs nothing.

    Raises:
        InputError: the device is not there, or all the processes would share one GPU.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1 and device.startswith("cuda:"):
        raise InputError(f"device '{device}' is one GPU, and {size} processes need one each. Use --device cuda.")
    chosen = pick_device(device)
    if size == 1 or dist.is_initialized():
        yield Workers(dist.get_rank(), dist.get_world_size(), chosen) if size > 1 else Workers(0, 1, chosen)
        return
    if chosen.type == "cuda":
        dist.init_process_group("nccl", device_id=chosen)
    else:
        dist.init_process_group("gloo")
    try:
        yield Workers(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        dist.destroy_process_group()


def launch(arguments: list[str], processes: int) -> None:
    """Run `labkit <arguments>` in `processes` processes on this machine through torchrun, and wait for them.

    Raises:
        LabkitError: one of them failed; its own message stands above.
    """
    with socket.socket() as probe:  # a free port, so that two launches on one machine do not meet
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torchrun = [*TORCHRUN, f"--nproc-per-node={processes}", f"--master-port={port}"]
    package = Path(__file__).resolve().parent.parent  # found from any folder, also when labkit is not installed
    environment = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes)), **os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
    call = subprocess.run([sys.executable, *torchrun, *PROGRAM, *arguments], env=environment)
    if call.returncode:
        raise LabkitError(f"one of the {processes} processes failed (exit code {call.returncode}); see above.")


class _SumOverAll(torch.autograd.Function):
    """The sum of a tensor over all processes. Each process's loss depends on it, so its gradients add up likewise."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _SumOverAll.forward(ctx, gradient)


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over the batches of all processes; torch's own SyncBatchNorm has no CPU version.

    Mean and variance are those of the global batch, through two differentiable sums, so that N processes with a share
    each compute what one process computes with the whole batch. As in torch, half-precision input is summed in float32.
    """

    def forward(self, input: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch channels *space"]:
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        axes = [0, *range(2, input.dim())]
        own = input.numel() // input.shape[1]
        if own * dist.get_world_size() < 2:
            raise InputError(f"batch normalisation needs more than one value a channel; got {tuple(input.shape)}.")
        count = torch.tensor(own, dtype=torch.float64, device=input.device)
        dist.all_reduce(count)  # shares need not be equal: frames of sentences, of which each process has as many
        wide = input.float() if input.element_size() < 4 else input
        mean = _SumOverAll.apply(wide.sum(axes)) / count
        shape = [1, -1] + [1] * (input.dim() - 2)
        centred = wide - mean.view(shape)
        variance = _SumOverAll.apply((centred**2).sum(axes)) / count
        self._update_running(mean.detach(), variance.detach() * count / (count - 1))
        normal = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(input.dtype)

    def _update_running(self, mean: Float[Tensor, " channels"], variance: Float[Tensor, " channels"]) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        weight = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance, weight)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise InputError(f"batch normalisation needs (batch, channels, ...); got {tuple(input.shape)}.")


def share_batch_statistics(model: nn.Module) -> None:
    """Turn every batch normalisation of `model` into a global one, in place; parameters and names stay."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.__class__ = GlobalBatchNorm
