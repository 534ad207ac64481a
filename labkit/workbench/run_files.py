"""How the files of a run directory are read: each is checked, and an error names the file and what to do about it."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from labkit.errors import RunError

SomeContent = TypeVar("SomeContent", bound=BaseModel)


class Timing(BaseModel, frozen=True, extra="forbid", strict=True):
    """`timing.json`."""

    wall_seconds: float = Field(ge=0, allow_inf_nan=False)
    cpu_seconds: float = Field(0.0, ge=0, allow_inf_nan=False)


class Seal(BaseModel, frozen=True, extra="forbid", strict=True):
    """`seal.json`: the sum over a run's config and its result."""

    sha256: str


class Code(BaseModel, frozen=True, extra="forbid", strict=True):
    """`code.json`: fingerprints of the code that worked on a run, two where it was changed before a run went on."""

    fingerprints: list[str]


class MetricsLine(BaseModel, frozen=True, extra="allow", strict=True):
    """A line of `metrics.jsonl`: the step, and numbers or lists of them by name; those that diverged are not finite."""

    __pydantic_extra__: dict[str, float | list[float]]
    step: int = Field(ge=0)


class WeightsHeader(BaseModel, frozen=True, extra="forbid", strict=True):
    """Of `weights.safetensors`."""

    format: Literal["labkit weights"] = "labkit weights"


def damaged(path: Path, problem: str) -> RunError:
    return RunError(f"{path} is damaged ({problem}). Remove that run's folder, or restore the file from a copy.")


def read_json(path: Path) -> Any:
    """The content of a JSON file, None where there is no such file.

    Raises:
        RunError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:  # not JSON, not even text, or ten thousand brackets
        raise damaged(path, str(error)) from error


def read_object(path: Path) -> dict[str, Any] | None:
    """`read_json` of a file that holds names and values."""
    content = read_json(path)
    if content is not None and not isinstance(content, dict):
        raise damaged(path, f"it should hold names and values, and holds a {type(content).__name__}")
    return content


def read_as(kind: type[SomeContent], path: Path) -> SomeContent | None:
    """`read_json` of a file whose content is a `kind`."""
    content = read_json(path)
    try:
        return None if content is None else kind.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise damaged(path, first_problem(error)) from None


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics file, oldest first. A last line cut short by a kill is left out.

    Raises:
        RunError: the file cannot be read, or a line before the last is damaged.
    """
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}.") from error
    for number, line in enumerate(lines, start=1):
        try:
            yield MetricsLine.model_validate(json.loads(line)).model_dump()
        except (ValueError, RecursionError) as error:  # pydantic's is a ValueError
            if number < len(lines):  # a kill cuts the last line short, nothing of ours damages one before it
                raise RunError(
                    f"line {number} of {path} is damaged. Remove the line, or the file, to go on."
                ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint with its step, state and generators: every byte is checked (torch stores CRC-32 sums), then tensors
    and plain values alone are loaded.

    Raises:
        RunError: it is damaged, or no checkpoint of ours.
    """
    from labkit.tensor_files import TensorFileError, read_torch

    again = "Remove it to start this part anew, or restore it from a copy."
    try:
        content = read_torch(path, summed=True)
    except TensorFileError as error:
        raise RunError(f"{error} {again}") from error
    if problem := _not_a_checkpoint(content):
        raise RunError(f"{path} is damaged ({problem}). {again}")
    return content


def _not_a_checkpoint(content: Any) -> str:
    """What a loaded file lacks of a checkpoint; empty when it is one."""
    kinds = {"step": int, "state": dict, "generators": dict}
    if not isinstance(content, dict) or content.keys() != kinds.keys():
        return f"it should hold {', '.join(kinds)}"
    wrong = [name for name, kind in kinds.items() if not isinstance(content[name], kind)]
    if not wrong and content["step"] < 0:
        wrong = ["step"]
    return f"its {' and '.join(wrong)} cannot be used" if wrong else ""


def not_finite(content: Any, where: str = "") -> Iterator[str]:
    """The places in nested lists and dictionaries that hold infinity or not-a-number."""
    waiting = [(where, content)]  # no recursion: a record holds a hundred thousand numbers
    while waiting:
        where, content = waiting.pop()
        if isinstance(content, float) and not math.isfinite(content):
            yield f"{where} = {content}"
        items = (
            content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
        )
        waiting.extend([(f"{where}.{name}" if where else str(name), inner) for name, inner in items][::-1])


def first_problem(error: ValidationError) -> str:
    """Where a file is not what it should be, and why, in pydantic's words."""
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc'])) or 'content'}: {problem['msg']}"
