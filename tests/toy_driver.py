"""The command line in a process of its own, knowing the toy paper only, with a fault built in when one is asked for.

    python tests/toy_driver.py train toy --scale smoke

Environment:
    TOY_FAULT     "step:N"    SIGKILL before step N (counted over both arms)
                  "half:N"    SIGKILL when half of the N-th checkpoint is on disk
                  "replace:N" SIGKILL between the N-th checkpoint's last byte and its renaming
                  "hang:N"    from step N on nothing happens any more
    TOY_SECONDS   least time between two checkpoints; 0: one after each step
    TOY_TENSORBOARD   write its events too; left out, because importing it takes a second
"""

import os
import signal
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

import torch
import toy_paper

from labkit import cli, papers
from labkit.workbench import gpu, runs, training
from labkit.workbench.runs import Run


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def install(kind: str, number: int) -> None:
    """Build the fault in."""
    count = 0

    def counted() -> bool:
        nonlocal count
        count += 1
        return count == number

    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        if ".checkpoint.pt." in os.readlink(f"/proc/self/fd/{descriptor}") and counted():
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            real_fsync(descriptor)
            die()
        real_fsync(descriptor)

    def replace(source: str, target: str) -> None:
        if Path(target).name == "checkpoint.pt" and counted():
            die()
        real_replace(source, target)

    def on_step(step: int) -> None:
        if counted():
            die() if kind == "step" else time.sleep(3600)

    if kind == "half":
        os.fsync = fsync
    elif kind == "replace":
        os.replace = replace
    elif kind in ("step", "hang"):
        toy_paper.on_step = on_step


def main() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    runs._tensorboard_missing = "TOY_TENSORBOARD" not in os.environ
    papers.load, papers.names = register(papers.load)
    program = [os.path.relpath(__file__)]
    gpu.PROGRAM[:] = training.PROGRAM[:] = program
    kind, _, number = os.environ.get("TOY_FAULT", "").partition(":")
    install(kind, int(number or 0))
    if "TOY_SECONDS" in os.environ:
        Run.open.__func__.__kwdefaults__["checkpoint_seconds"] = float(os.environ["TOY_SECONDS"])
    cli.main()


def register(load):
    """`papers.load` and `papers.names` for a world in which the toy is the only paper."""
    return lambda slug: toy_paper.PAPER if slug == "toy" else load(slug), lambda: ["toy"]


if __name__ == "__main__":
    main()
