"""Where torch computes: which device, with how many threads."""

import contextlib
import os
from collections.abc import Iterator

import torch

from labkit.errors import InputError


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
        number, gpus = name.partition(":")[2] or os.environ.get("LOCAL_RANK", "0"), torch.cuda.device_count()
        if int(number) >= gpus:
            raise InputError(f"GPU {number} was asked for, but torch sees {gpus} here, counted from 0.")
        name = f"cuda:{number}"
        torch.cuda.set_device(name)
    return torch.device(name)


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
