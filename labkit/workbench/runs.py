"""A run directory: everything one training run leaves behind, safe against being killed at any moment.

    runs/<slug>/<name>/
        config.json       what was asked for; a directory that belongs to another config is refused
        environment.json  versions and hardware it ran on
        code.json         fingerprints of the room's code that worked on it
        metrics.jsonl     one line per logged step; the same values go to TensorBoard event files
        checkpoint.pt     model, optimiser, sampler and random generators after some step
        result.json       the plain numbers at the end; its presence means the run is finished
        seal.json         a sum over config and result: neither was altered, or comes from elsewhere
        timing.json       wall and CPU time so far, the processes that were killed on the way included
        <part>/           a part of the experiment (one arm of a comparison), itself a run directory

Every file is written beside its final name, synced to disk, then renamed: a reader sees the old file or the new one.
Torch is imported where it is needed: the ledger reads results only, and shall not wait for it.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from pydantic import BaseModel

from labkit import paths
from labkit.errors import InputError, RunError
from labkit.files import given_path, not_through_links, write_atomically
from labkit.workbench.run_files import (
    Code,
    Seal,
    Timing,
    WeightsHeader,
    damaged,
    not_finite,
    read_as,
    read_checkpoint,
    read_json,
    read_metrics,
    read_object,
)


@runtime_checkable
class Stateful(Protocol):
    """Whatever can be saved into a checkpoint and brought back: modules, optimisers, schedulers, samplers."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


State = Mapping[str, Stateful]

_tensorboard_missing = False  # said once per process, not once per run


class Run:
    """One run directory, opened for a config. Use `Run.open`."""

    def __init__(self, directory: Path, identity: dict[str, Any], writes: bool, checkpoint_seconds: float) -> None:
        self.directory, self.identity, self.writes = directory, identity, writes
        self.checkpoint_seconds = checkpoint_seconds
        self.waits = True  # for the other processes, after a result or weights were written
        self._saved_at = time.monotonic()
        clocks = {"wall_seconds": -time.monotonic(), "cpu_seconds": -_cpu_seconds()}
        self._before = {name: getattr(self.spent, name) + minus for name, minus in clocks.items()}
        self._whole: Run | None = None  # the run this one is a part of
        self._events: Any = None  # TensorBoard's writer, made at the first logged value

    @classmethod
    def open(
        cls, directory: str | Path, config: BaseModel, *, writes: bool = True, checkpoint_seconds: float = 20.0
    ) -> "Run":
        """Open `directory` for `config`: create it, or resume the run in it.

        Args:
            writes: False in the helping processes of a distributed run; only one may write.
            checkpoint_seconds: least time between two checkpoints of `save_if_due`.

        Raises:
            InputError: the directory belongs to a run with another config, is a file, or no name of a folder.
            RunError: the directory cannot be written, or one of its files is damaged.
        """
        run = cls(given_path(directory, "--run-dir"), identity_of(config), writes, checkpoint_seconds)
        if run._is_new():
            run.write_json("environment.json", environment())
            run.write_json("config.json", run.identity)
        return run

    def part(self, name: str, **facts: Any) -> "Run":
        """A run directory inside this one, for one arm of the experiment; `facts` tell it from its siblings.

        Raises:
            InputError: the part is there, with other facts.
        """
        identity = {**self.identity, "part": name, **facts}
        part = Run(self.directory / name, identity, self.writes, self.checkpoint_seconds)
        part._whole, part.waits = self, self.waits
        if part._is_new():
            part.write_json("config.json", identity)
        return part

    def private_part(self, name: str, **facts: Any) -> "Run":
        """A part that this process works on by itself, while other processes are busy with other parts.

        It writes whatever rank the process has, and does not wait for other processes. The caller makes sure that no
        two processes take the same part, and that a barrier comes before the results are read.
        """
        whole = Run(self.directory, self.identity, True, self.checkpoint_seconds)
        whole.waits = False
        return whole.part(name, **facts)

    def _is_new(self) -> bool:
        """Is nothing here yet? Refuses a file, and the directory of another config."""
        if self.directory.exists() and not self.directory.is_dir():
            raise InputError(f"{self.directory} is a file; a run needs a folder. Choose another --run-dir.")
        stored, wanted = read_object(self.directory / "config.json"), json.loads(json.dumps(self.identity))
        if stored is not None and stored != wanted:
            raise InputError(_foreign(self.directory, stored, wanted))
        return stored is None

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from training here meanwhile; sweep up after a write that a kill cut short.

        Raises:
            RunError: another process is at work in this directory.
        """
        if not self.writes:
            yield
            return
        with contextlib.ExitStack() as stack:
            with _as_run_error(self.directory, "its lock"):
                lock = stack.enter_context(open(self.directory / ".lock", "w", opener=not_through_links))
                try:
                    fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # goes with the process, however it ends
                except (BlockingIOError, PermissionError):
                    raise RunError(
                        f"another process is at work in {self.directory}. Wait for it, or choose another --run-dir."
                    ) from None
                for leftover in self.directory.rglob(".*.part"):
                    leftover.unlink()
            yield

    # -- results and metrics ------------------------------------------------------------------------------------------

    @property
    def result(self) -> dict[str, Any] | None:
        """The numbers of a finished run; None while it is not finished.

        Raises:
            RunError: they were altered since, or are another run's.
        """
        path = self.directory / "result.json"
        result = read_object(path)
        if result is not None:
            seal = read_as(Seal, self.directory / "seal.json")
            if seal is None:
                raise damaged(path, "seal.json is missing: a copy left it out, or an older version made that run")
            if seal.sha256 != self._sum(result):
                raise damaged(path, "seal.json does not fit: it was altered, or belongs to another run")
        return result

    @property
    def spent(self) -> Timing:
        """Wall and CPU time as `timing.json` has it, the processes that were killed on the way included."""
        return read_as(Timing, self.directory / "timing.json") or Timing(wall_seconds=0.0)

    @property
    def code(self) -> str:
        """Fingerprints of the code that worked on it, with plus signs between; empty where it was not written down."""
        known = read_as(Code, self.directory / "code.json")
        return "+".join(known.fingerprints) if known else ""

    def is_worked_on_by(self, fingerprint: str) -> None:
        """Write down whose work this is, beside those before: a result names the code that made it, not today's."""
        known = read_as(Code, self.directory / "code.json")
        self.write_json("code.json", {"fingerprints": sorted({*(known.fingerprints if known else ()), fingerprint})})

    def finish(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Write the result and close the run. Returns it as it will be read back.

        In a distributed run every process calls this, and returns when the files are there for all.

        Raises:
            RunError: a number is not finite, as after a training that diverged; names where it stands.
        """
        plain = json.loads(json.dumps(result))
        if bad := list(not_finite(plain)):
            raise RunError(
                f"the result of {self.directory} holds numbers that are not finite ({', '.join(bad[:4])}): the "
                "training diverged. Nothing is recorded; try a smaller step size in another --run-dir."
            )
        self._write_timing()
        self.write_json("seal.json", {"sha256": self._sum(plain)})
        self.write_json("result.json", plain)
        if self.waits:
            _wait_for_all()
        self.close()
        return plain

    def log(self, step: int, **metrics: float | list[float]) -> None:
        """Append one line to metrics.jsonl and the same values to TensorBoard (a list of values as a histogram)."""
        if not self.writes:
            return
        with _as_run_error(self.directory, "the metrics"):
            with open(self.directory / "metrics.jsonl", "a", opener=not_through_links) as stream:
                stream.write(json.dumps({"step": step, **metrics}) + "\n")
            self._show(step, metrics)

    def metrics(self) -> list[dict[str, Any]]:
        """The logged lines, oldest first. A last line cut short by a kill is left out.

        Raises:
            RunError: a line before the last is damaged.
        """
        return list(read_metrics(self.directory / "metrics.jsonl"))

    def close(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def save_if_due(self, step: int, state: State) -> None:
        """`save`, unless the last checkpoint is younger than `checkpoint_seconds`."""
        if self.writes and time.monotonic() - self._saved_at >= self.checkpoint_seconds:
            self.save(step, state)

    def save(self, step: int, state: State) -> None:
        """Write `checkpoint.pt`: `step` steps are done, and this is the state after them.

        Raises:
            RunError: no space, no permission...; the previous checkpoint is untouched.
        """
        import torch

        if not self.writes:
            return
        checkpoint = {
            "step": step,
            "state": {name: thing.state_dict() for name, thing in state.items()},
            "generators": _generator_states(),
        }
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        self.write_bytes("checkpoint.pt", buffer.getbuffer())
        self._write_timing()
        self._saved_at = time.monotonic()

    def resume(self, state: State) -> int:
        """Bring `state` and the random generators back from the checkpoint. Returns the step to go on from, 0 if none.

        Raises:
            RunError: the checkpoint is damaged or was written by another version of the code.
        """
        path = self.directory / "checkpoint.pt"
        if not path.exists():
            self._forget_metrics_from(0)
            return 0
        checkpoint = read_checkpoint(path)
        elsewhere = "it was written by another version of the code. Start anew in another --run-dir."
        if checkpoint["state"].keys() != state.keys():
            raise RunError(f"{path} holds {sorted(checkpoint['state'])}, this run needs {sorted(state)}: {elsewhere}")
        for name, thing in state.items():
            try:
                thing.load_state_dict(checkpoint["state"][name])
            except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
                raise RunError(f"'{name}' of {path} does not fit this run: {elsewhere} ({error})") from error
        self._forget_metrics_from(checkpoint["step"])
        try:
            _restore_generators(checkpoint["generators"])  # last: what comes before may draw from them
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            raise RunError(f"the random generators of {path} cannot be restored: {elsewhere} ({error})") from error
        return int(checkpoint["step"])

    # -- weights ------------------------------------------------------------------------------------------------------

    def write_weights(self, model: Stateful) -> None:
        """Keep a trained model: `weights.safetensors`, its state dict with a checksum.

        In a distributed run every process calls this, and returns when the file is there for all.
        """
        from labkit import tensor_files

        self.write_bytes("weights.safetensors", tensor_files.to_bytes(model.state_dict(), WeightsHeader()))
        if self.waits:
            _wait_for_all()

    def read_weights(self, model: Stateful) -> None:
        """Load what `write_weights` kept into `model`.

        Raises:
            RunError: there is none yet, it is damaged, or it belongs to another model.
        """
        from labkit import tensor_files

        path = self.directory / "weights.safetensors"
        if not path.exists():
            raise RunError(f"{self.directory} holds no trained weights yet; finish that run first.")
        try:
            model.load_state_dict(tensor_files.read(path, WeightsHeader)[0])
        except tensor_files.TensorFileError as error:
            raise RunError(f"{error} Remove that run's folder, or restore the file from a copy.") from None
        except RuntimeError as error:
            raise RunError(f"{path} belongs to another model ({str(error).splitlines()[0]}).") from error

    # -- files --------------------------------------------------------------------------------------------------------

    def read_json(self, name: str) -> Any:
        """The content of the JSON file `name` of the run directory, None where there is none."""
        return read_json(self.directory / name)

    def write_json(self, name: str, content: Any) -> None:
        """Write `content` atomically as `name` in the run directory."""
        self.write_bytes(name, (json.dumps(content, indent=1) + "\n").encode())

    def write_bytes(self, name: str, content: bytes | memoryview) -> None:
        """Write `content` atomically as `name` in the run directory. Helping processes write nothing.

        Raises:
            RunError: no space, no permission...; the file's previous content is untouched.
        """
        if self.writes:
            with _as_run_error(self.directory, name):
                write_atomically(self.directory / name, content)

    def _sum(self, result: Mapping[str, Any]) -> str:
        """SHA-256 over what was asked for and what came out."""
        return hashlib.sha256(json.dumps([self.identity, result], sort_keys=True).encode()).hexdigest()

    def _forget_metrics_from(self, step: int) -> None:
        """Drop the lines of steps that will be trained again, so that no step stands twice."""
        path = self.directory / "metrics.jsonl"
        if not self.writes or not path.exists():
            return
        kept = [line for line in read_metrics(path) if line["step"] < step]
        self.write_bytes("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept).encode())
        with _as_run_error(self.directory, "the metrics"):
            self.close()  # else its writer would go on in a file that has no name any more
            for events in self.directory.glob("events.out.tfevents.*"):
                events.unlink()
            for line in kept:
                self._show(line.pop("step"), line)

    def _show(self, step: int, metrics: Mapping[str, float | list[float]]) -> None:
        """The values in TensorBoard; without the package metrics.jsonl alone holds them."""
        global _tensorboard_missing
        if _tensorboard_missing:
            return
        if self._events is None:
            try:
                from torch.utils.tensorboard import SummaryWriter  # slow to import, and only a writer needs it
            except ImportError:
                _tensorboard_missing = True
                print(
                    "labkit: no TensorBoard here (pip install tensorboard); metrics.jsonl has it all", file=sys.stderr
                )
                return
            self._events = SummaryWriter(str(self.directory), flush_secs=10)
        for name, value in metrics.items():
            if isinstance(value, list):
                self._events.add_histogram(name, np.asarray(value), step)
            else:
                self._events.add_scalar(name, value, step)

    def _write_timing(self) -> None:
        """Time spent up to now, here and in the run this is a part of: what a kill leaves for the next start."""
        clocks = {"wall_seconds": time.monotonic(), "cpu_seconds": _cpu_seconds()}
        self.write_json("timing.json", {name: round(self._before[name] + now, 1) for name, now in clocks.items()})
        if self._whole is not None:
            self._whole._write_timing()


def _cpu_seconds() -> float:
    """CPU time of this process, all threads, and of the processes it started and saw end."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def new_directory(slug: str, scale: str) -> Path:
    """`runs/<slug>/<scale>-NNN` with the next free number; the folder is made, so that two callers never share one."""
    for number in range(1, 10_000):
        directory = paths.runs_dir() / slug / f"{scale}-{number:03d}"
        with _as_run_error(directory, "the run directory"), contextlib.suppress(FileExistsError):
            directory.mkdir(parents=True)
            return directory
    raise RunError(f"{paths.runs_dir() / slug} holds 9,999 runs at scale {scale}; remove some")


def latest_unfinished(slug: str, config: BaseModel) -> Path | None:
    """The youngest run directory of `slug` with this config and no result yet."""
    wanted = json.loads(json.dumps(identity_of(config)))
    directories = [path.parent for path in (paths.runs_dir() / slug).glob("*/config.json")]
    open_runs = [d for d in directories if read_json(d / "config.json") == wanted and not (d / "result.json").exists()]
    return max(open_runs, key=lambda d: (d / "config.json").stat().st_mtime, default=None)


def identity_of(config: BaseModel) -> dict[str, Any]:
    """The fields that decide the result: all but those marked `execution` (which device, how many processes)."""
    execution = {
        name
        for name, field in type(config).model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("execution")
    }
    return config.model_dump(mode="json", exclude=execution)


def environment() -> dict[str, Any]:
    """Versions and hardware, for a run or a record. No names of machines or folders."""
    import torch

    return {
        "labkit": _installed("labkit"),
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
    }


# -- helpers ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _as_run_error(directory: Path, what: str) -> Iterator[None]:
    """Turn the system's error into a sentence with the way out."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write {what} in {directory}: {error.strerror or error}. "
            "What was saved before is intact: free space or fix the permission, then go on with --resume, "
            "or choose another folder with --run-dir."
        ) from error


def _generator_states() -> dict[str, Any]:
    import torch

    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    python_version, python_keys, python_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "python": [python_version, list(python_keys), python_gauss],
    }


def _restore_generators(states: dict[str, Any]) -> None:
    import torch

    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count() > 0:  # another set of devices has no use for these
        torch.cuda.set_rng_state_all(states["cuda"])
    kind, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    python_version, python_keys, python_gauss = states["python"]
    random.setstate((python_version, tuple(python_keys), python_gauss))


def _wait_for_all() -> None:
    """In a distributed run, until every process is here: what the first one wrote may be read by all from now on."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def _foreign(directory: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> str:
    names = [n for n in sorted(stored.keys() | wanted.keys()) if stored.get(n) != wanted.get(n)]
    shown = ", ".join(f"{n} = {stored.get(n)!r} there, {wanted.get(n)!r} here" for n in names[:4])
    return f"{directory} belongs to a run with another config ({shown}). Choose another --run-dir."


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the code that runs, marked when the package was changed since."""
    git = shutil.which("git")
    if git is None or not (paths.root() / ".git").exists():
        return None
    call = [git, "-C", str(paths.root())]
    head = subprocess.run([*call, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*call, "status", "--porcelain", "--", "labkit"], capture_output=True, text=True).stdout
    return f"{head} with changes" if head and changed.strip() else head or None


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
