"""Devices, seeds, batches, several processes: what every training loop needs and no paper is about."""

import contextlib
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_functional
from jaxtyping import Float, Int
from torch import Tensor, nn

from labkit.errors import InputError, LabkitError

Item = TypeVar("Item")


def pick_device(name: str) -> torch.device:
    """'auto' is the first GPU where there is one, else the CPU; in a distributed run each process gets its own GPU.

    Raises:
        InputError: a GPU is asked for and torch sees none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise InputError(f"device '{name}' was asked for, but torch sees no CUDA GPU here. Use --device cpu.")
        if name == "cuda":
            name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(name)
    return torch.device(name)


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators; loops draw from generators of their own besides."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


class ShuffledIndices:
    """Endless batches of indices: each epoch a fresh permutation that depends on (seed, epoch) alone.

    The batches are global: in a distributed run every process sees the same ones and takes its share. The position is
    two numbers, so a resumed run goes on with the very next batch, with any number of processes.

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

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epoch, self.position = state_dict["epoch"], state_dict["position"]
        self._order = self._permutation()

    def _permutation(self) -> Int[Tensor, " count"]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return torch.randperm(self.count, generator=generator)


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
        _share_batch_statistics(model)
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
    """Join the processes that torchrun started (gloo on CPUs, NCCL on GPUs); alone, this costs nothing."""
    place = pick_device(device)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or dist.is_initialized():
        yield Workers(dist.get_rank(), dist.get_world_size(), place) if size > 1 else Workers(0, 1, place)
        return
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Workers(dist.get_rank(), dist.get_world_size(), place)
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
    torchrun = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={port}"]
    call = subprocess.run([sys.executable, *torchrun, "-m", "labkit", *arguments])
    if call.returncode:
        raise LabkitError(f"one of the {processes} processes failed (exit code {call.returncode}); see above.")


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over the batches of all processes; torch's own SyncBatchNorm has no CPU version.

    Mean and variance are those of the global batch, through two differentiable sums, so that N processes with a share
    each compute what one process computes with the whole batch.
    """

    def forward(self, input: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch channels *space"]:
        if not self.training:
            return super().forward(input)
        axes = [0, *range(2, input.dim())]
        count = input.numel() // input.shape[1] * dist.get_world_size()
        mean = dist_functional.all_reduce(input.sum(axes)) / count
        shape = [1, -1] + [1] * (input.dim() - 2)
        centred = input - mean.view(shape)
        variance = dist_functional.all_reduce((centred**2).sum(axes)) / count
        self._update_running(mean.detach(), variance.detach() * count / (count - 1))
        normal = centred * torch.rsqrt(variance + self.eps).view(shape)
        return normal * self.weight.view(shape) + self.bias.view(shape) if self.affine else normal

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


def _share_batch_statistics(model: nn.Module) -> None:
    """Turn every batch normalisation of `model` into a global one, in place; parameters and names stay."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.__class__ = GlobalBatchNorm


# -- progress ---------------------------------------------------------------------------------------------------------


def progress(items: Iterable[Item], description: str, total: int | None = None, initial: int = 0) -> Iterable[Item]:
    """A progress bar for a person at a terminal or in JupyterLab; silent in batch runs, tests and helping processes."""
    if int(os.environ.get("RANK", "0")) or os.environ.get("LABKIT_PROGRESS") == "0":
        return items
    in_notebook = "ipykernel" in sys.modules
    if not in_notebook and not sys.stderr.isatty():
        return items
    from tqdm.auto import tqdm

    return tqdm(items, desc=description, total=total, initial=initial, leave=False)
