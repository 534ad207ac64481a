"""Processes that train together, without torchrun: forked from one that has loaded torch, they start in no time.

torchrun itself is what tests/test_distributed.py takes.
"""

import multiprocessing
import os
import socket
from collections.abc import Mapping, Sequence
from multiprocessing import connection

from labkit.errors import LabkitError

HANGS = 900  # seconds; ten times what the slowest needs on a quiet machine
FORKS = multiprocessing.get_context("forkserver")  # one that has not computed yet: after that, torch must not be forked
FORKS.set_forkserver_preload(["labkit.workbench.training", "labkit.cli.app", "torch._dynamo"])  # what optimizers import


def launch(arguments: Sequence[str], processes: int) -> None:
    """`labkit <arguments>` in so many processes, in place of `labkit.workbench.training.launch`.

    Raises:
        LabkitError: one of them failed.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "none"}  # fmt: skip
    started = [
        FORKS.Process(target=_one, args=(arguments, {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}))
        for rank in range(processes)
    ]
    for process in started:
        process.start()
    waiting = {process.sentinel for process in started}
    while waiting and (ended := connection.wait(waiting, HANGS)):
        waiting.difference_update(ended)
        if any(process.exitcode for process in started):  # the others would wait for it for ever
            break
    for process in started:
        process.kill()
        process.join()
    if any(process.exitcode for process in started):
        raise LabkitError(f"processes ended with the codes {[process.exitcode for process in started]}; see above.")


def _one(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """What torchrun would start, with the environment of the test and not of the process that is forked."""
    import torch

    from labkit.cli import main

    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    main(arguments)
