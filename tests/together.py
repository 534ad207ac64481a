"""Processes of their own without a new interpreter: forked from one that has loaded torch, they start in no time.

They can be killed, alone or while they train together. torchrun itself is what tests/test_distributed.py takes.
"""

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection
from pathlib import Path

from labkit.errors import LabkitError

Completed = subprocess.CompletedProcess[str]
HANGS = 900  # seconds; ten times what the slowest needs on a quiet machine
FORKS = multiprocessing.get_context("forkserver")  # one that has not computed yet: after that, torch must not be forked
FORKS.set_forkserver_preload(["labkit.workbench.training", "labkit.cli.app", "torch._dynamo"])  # what optimizers import


def launch(arguments: Sequence[str], processes: int) -> None:
    """`labkit <arguments>` in so many processes, in place of `labkit.workbench.training.launch`.

    Raises:
        LabkitError: one of them failed.
    """
    codes = start(_labkit, arguments, [{**os.environ, **rank} for rank in ranks(processes)])
    if any(codes):
        raise LabkitError(f"processes ended with the codes {codes}; see above.")


def run(script: Path, arguments: Sequence[str], environment: Mapping[str, str], processes: int = 1) -> Completed:
    """`main()` of a script in so many processes, as `subprocess.run` would have it; the code is that of the first."""
    environments = [{**environment, **rank} for rank in ranks(processes)] if processes > 1 else [dict(environment)]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("stdout", "stderr")]
        for file in files:
            file.touch()
        codes = start(_script, (str(script), *arguments), environments, files)
        printed, complained = (file.read_text() for file in files)
    return subprocess.CompletedProcess([str(script), *arguments], codes[0], printed, complained)


def ranks(processes: int) -> list[dict[str, str]]:
    """What torchrun tells each process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "TORCHELASTIC_RUN_ID": "none"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def start(
    target: Callable[[Sequence[str]], None],
    arguments: Sequence[str],
    environments: Sequence[Mapping[str, str]],
    files: Sequence[Path] = (),
) -> list[int]:
    """One process an environment; codes in their order. When one fails, the others are killed.

    Args:
        files: take what the processes print and what they complain of.
    """
    started = [FORKS.Process(target=_one, args=(target, arguments, each, files)) for each in environments]
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
    return [process.exitcode or 0 for process in started]


def _one(
    target: Callable[[Sequence[str]], None],
    arguments: Sequence[str],
    environment: Mapping[str, str],
    files: Sequence[Path],
) -> None:
    """What torchrun would start, with the environment of the test and not of the process that is forked."""
    import torch

    for descriptor, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    target(arguments)


def _labkit(arguments: Sequence[str]) -> None:
    from labkit.cli import main

    main(arguments)


def _script(arguments: Sequence[str]) -> None:
    sys.argv[:] = arguments
    runpy.run_path(arguments[0], run_name="__main__")
