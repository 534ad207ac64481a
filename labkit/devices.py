"""Where torch computes: which device, with how many threads."""

import contextlib
import os
import re
from collections.abc import Iterator

import torch

from labkit.errors import InputError

DEVICE_NAMES = r"auto|cpu|cuda(:\d{1,4})?"


def pick_device(name: str) -> torch.device:
    """'auto' is the first GPU where there is one, else the CPU; in a distributed run each process gets its own GPU.

    Raises:
        InputError: no device has that name, or a GPU is asked for and torch sees none.
    """
    if not re.fullmatch(DEVICE_NAMES, name):
        raise InputError(f"--device must be auto, cpu, cuda or cuda:N; got '{name}'.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise InputError(f"device '{name}' was asked for, but torch sees no CUDA GPU here. Use --device cpu.")
        number, gpus = name.partition(":")[2] or os.environ.get("LOCAL_RANK", "0"), torch.cuda.device_count()
        if int(number) >= gpus:
            raise InputError(f"GPU {number} was asked for, but torch sees {gpus} here, counted from 0.")
        name = f"cuda:{number}"
        torch.cuda.set_device(name)
    return torch.device(name)


def kind_of(device: torch.device) -> str:
    """What records call it: cpu, or the GPU's name in lower case with hyphens."""
    return torch.cuda.get_device_name(device).lower().replace(" ", "-") if device.type == "cuda" else "cpu"


def check_processes(name: str, count: int) -> None:
    """Refuse more processes than the machine has devices for: GPUs, or cores of its CPU (two may share a single one).

    Raises:
        InputError: says how many there are.
    """
    if count == 1:
        return
    if pick_device(name).type == "cuda":
        if ":" in name:
            raise InputError(f"devices = {count}, and device '{name}' is a single GPU. Use --device cuda.")
        there, what = torch.cuda.device_count(), "GPUs that torch sees"
    else:
        there, what = max(os.cpu_count() or 1, 2), "processes that this machine's cores can run"
    if count > there:
        raise InputError(f"devices = {count:,} is more than the {there} {what}. Ask for -p devices {there} at most.")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch inside of the block, and as many as before after it.

    Small networks gain nothing from a second thread and lose much where cores are shared; and the sums on a CPU are
    then added in the same order on every machine.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
