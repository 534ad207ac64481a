"""Long work that a person watches: a bar over items, and several tasks at once that end together."""

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import TypeVar

from labkit.errors import InputError

Item = TypeVar("Item")

_here = threading.local()  # of a thread of `side_by_side`: `.stop`, set when its loops shall end


def side_by_side(tasks: Sequence[Callable[[], Item]], at_once: int, description: str = "") -> list[Item]:
    """The results of `tasks` in their order, `at_once` of them at work at a time, each in a thread of its own.

    Torch lets go of Python's lock while it computes, so two trainings of small networks keep two cores busy, where two
    threads inside of one product would wait for each other. Tasks must draw from generators of their own and write to
    directories of their own; then the results are those of one task after the other. How many threads torch itself
    uses is for the caller to say, around all of them: `one_thread`.

    The first error, or Ctrl-C, ends all others at the next item of their `progress`: like a kill, and like after a kill
    a run goes on from its checkpoints.

    Args:
        description: name of a bar that counts the tasks that are done; empty: none. The tasks' own bars stand below it.

    Raises:
        InputError: `at_once` is below 1.
    """
    if at_once < 1:
        raise InputError(f"at_once, the number of tasks at work at a time, must be at least 1; got {at_once}.")
    if min(at_once, len(tasks)) <= 1:
        return [task() for task in (progress(tasks, description) if description else tasks)]
    stop = threading.Event()

    def stoppable(task: Callable[[], Item]) -> Item:
        _here.stop = stop
        return task()

    with ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(stoppable, task) for task in tasks]
        try:
            done: Iterable[Future[Item]] = as_completed(futures)
            for future in progress(done, description, total=len(futures)) if description else done:
                future.result()  # the first error ends the loop
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # first, or who stops would take up the next task
            stop.set()
            raise
        return [future.result() for future in futures]


def progress(items: Iterable[Item], description: str, total: int | None = None, initial: int = 0) -> Iterable[Item]:
    """A bar with the time that is left, for a person at a terminal or in JupyterLab; bars of inner loops stand below.

    Silent, with nothing in the cell's output, in batch runs, tests, helping processes and under LABKIT_PROGRESS=0.
    In a thread of `side_by_side` the items end with a KeyboardInterrupt once the others were stopped.
    """
    stop: threading.Event | None = getattr(_here, "stop", None)
    if stop is not None:
        items = _until(stop, items)
    if int(os.environ.get("RANK", "0")) or os.environ.get("LABKIT_PROGRESS") == "0":
        return items
    ipython = sys.modules.get("IPython")
    in_notebook = ipython is not None and "ZMQ" in type(ipython.get_ipython()).__name__
    if not in_notebook and not sys.stderr.isatty():
        return items
    from tqdm.auto import tqdm

    return tqdm(items, desc=description, total=total, initial=initial, leave=False)


def _until(stop: threading.Event, items: Iterable[Item]) -> Iterator[Item]:
    for item in items:
        if stop.is_set():
            raise KeyboardInterrupt
        yield item
