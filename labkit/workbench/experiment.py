"""What an experiment is made of: a scale, a frozen config that answers back, the Paper a room hands to the world."""

import dataclasses
import functools
import importlib
import importlib.util
import json
import operator
import os
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from labkit.errors import ConfigError, InputError, RunError, nearest
from labkit.metrics.intervals import prediction
from labkit.workbench import fingerprint
from labkit.workbench.claims import Claim, Verdict, judge
from labkit.workbench.exercises import Exercise
from labkit.workbench.records import Record, load_all
from labkit.workbench.runs import Run, identity_of, new_directory

Scale = Literal["smoke", "lesson", "gpu", "full"]
SCALES: tuple[Scale, ...] = get_args(Scale)

SomeConfig = TypeVar("SomeConfig", bound="Config")  # not Self: beartype takes that in decorated classes only

EXECUTION: dict[str, Any] = {"execution": True}  # marks a field that changes where a run happens, not what comes out


class Config(BaseModel, frozen=True, extra="forbid", strict=True, allow_inf_nan=False):
    """Base of every room's config: frozen, every field described with its unit, nothing read from globals."""

    seed: int = Field(0, ge=0, lt=2**31, description="seed of every random generator")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d{1,4})?)$",
        description="auto, cpu, cuda or cuda:N",
        json_schema_extra=EXECUTION,
    )
    devices: int = Field(
        1, ge=1, description="processes that train together, one per device", json_schema_extra=EXECUTION
    )

    def override(self: SomeConfig, **changes: object) -> SomeConfig:
        """A copy with some fields changed, checked like the original.

        A dot reaches into a nested config, `override(**{"classification.steps": 5})`; so does a mapping, and the fields
        that it leaves out stay as they are.

        Raises:
            ConfigError: a field does not exist or a value is not allowed; names the field, the value, what is allowed.
        """
        merged = self.model_dump(mode="json")
        for name, value in self._flat(changes):
            *groups, last = name.split(".")
            functools.reduce(operator.getitem, groups, merged)[last] = value
        try:
            return type(self).model_validate_json(json.dumps(merged, default=_as_plain))
        except ValidationError as error:
            raise ConfigError(self._in_words(error)) from None
        except (TypeError, ValueError, RecursionError) as error:  # a list within itself, or five thousand digits
            raise ConfigError(f"a config holds plain values (numbers, text, lists): {error}") from None

    def override_text(self: SomeConfig, pairs: Mapping[str, str]) -> SomeConfig:
        """`override` with values as typed on a command line: each text is read as its field's type."""
        return self.override(**{name: _parse(text, self._field(name).annotation) for name, text in pairs.items()})

    def _flat(self, changes: Mapping[str, object]) -> Iterator[tuple[str, object]]:
        for name, value in changes.items():
            if _is_config(self._field(name)) and isinstance(value, Mapping):
                yield from self._flat({f"{name}.{key}": inner for key, inner in value.items()})
            else:
                yield name, value

    def _field(self, name: str) -> FieldInfo:
        fields = fields_of(type(self))
        if name not in fields:
            raise ConfigError(f"there is no field '{name}'; did you mean {nearest(name, fields)}?")
        return fields[name]

    def _in_words(self, error: ValidationError) -> str:
        fields, lines = fields_of(type(self)), []
        for problem in error.errors():
            names = [".".join(map(str, problem["loc"][:depth])) for depth in range(len(problem["loc"]), 0, -1)]
            field = next((fields[name] for name in names if name in fields), None)
            meaning = f" ({field.description})" if field and field.description else ""
            given = f"; got {_shortened(problem['input'])}" if names and not isinstance(problem["input"], dict) else ""
            message = problem["msg"].removeprefix("Value error, ").replace("Input should", "input should", 1)
            lines.append(f"{names[0] if names else 'these fields together'}{meaning}: {message}{given}")
        return "\n".join(lines)


def fields_of(model: type[BaseModel], prefix: str = "") -> dict[str, FieldInfo]:
    """The fields of a config by name, those of a nested one behind it and with a dot: "classification.levels"."""
    fields = {}
    for name, field in model.model_fields.items():
        fields[prefix + name] = field
        if _is_config(field):
            fields |= fields_of(field.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]
    return fields


def plain_fields(config: Config) -> dict[str, Any]:
    """The fields that decide the result as plain values by name, those of nested configs with a dot."""
    values = identity_of(config)
    return {
        name: functools.reduce(operator.getitem, name.split("."), values)
        for name, field in fields_of(type(config)).items()
        if name.split(".")[0] in values and not _is_config(field)
    }


def _is_config(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text):,} letters)"


def _as_plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{value!r} is a {type(value).__name__}")


def _parse(text: str, annotation: Any) -> object:
    """Text from a command line as a value of type `annotation`; what does not fit stays text and is refused later."""
    if typing.get_origin(annotation) is tuple and not text.startswith("["):
        items, kinds = [item.strip() for item in text.split(",") if item.strip()], get_args(annotation)
        each = kinds[:1] * len(items) if Ellipsis in kinds else kinds + kinds[-1:] * (len(items) - len(kinds))
        return [_parse(item, kind) for item, kind in zip(items, each, strict=False)]
    try:
        return TypeAdapter(annotation).validate_python(text)
    except ValidationError:
        pass
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # no JSON, or five thousand digits, or ten thousand brackets
        return text


class Exports(NamedTuple):
    """How a room hands out what was trained.

    arms: what of a finished run can be exported, the best first.
    export: writes one of them into a folder, as `model.safetensors`.
    load: from such a folder, or the file, what can be used at once.
    """

    arms: Callable[[Any, Run], tuple[str, ...]]
    export: Callable[[Any, Run, str, Path], None]
    load: Callable[[Path], Any]


@dataclass(frozen=True)
class Paper:
    """One room, as the command line, the notebooks and the ledger see it.

    Modules that take time to import are located by the floor plan and imported at first use: a list of papers needs no
    torch.

    Args:
        room: the package, `labkit.papers.<slug>`; a room says `__name__`.
        title, arxiv, venue: of the paper.
        idea: the method in one sentence, for lists.
        notebook: file name in `notebooks/` without ending.
        needs: by scale, what the reader has to bring: names of datasets or weights. A scale left out needs nothing.
    """

    room: str
    title: str
    arxiv: str
    venue: str
    idea: str
    notebook: str
    needs: Mapping[Scale, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    @property
    def slug(self) -> str:
        """Short name on the command line and of folders: the last part of `room`."""
        return self.room.rpartition(".")[2]

    @property
    def configs(self) -> Mapping[Scale, Any]:
        """`experiment/config.py`: CONFIGS, one config per scale, same code path."""
        return self._import("experiment.config", "CONFIGS")

    @property
    def train(self) -> Callable[[Any, Run], dict[str, Any]]:
        """`experiment/train.py`: train, which does everything a config asks for in a run directory.

        It returns the result, plain numbers. It is called in every process of a distributed run, and skips what the
        run directory already holds.
        """
        return self._import("experiment.train", "train")

    @property
    def claims(self) -> tuple[Claim, ...]:
        """`experiment/claims.py`: CLAIMS, the abstract, sentence by sentence. The file imports no torch."""
        return self._import("experiment.claims", "CLAIMS")

    @property
    def exports(self) -> Exports:
        """`experiment/export.py`: arms and export; and the face's `load`.

        Raises:
            InputError: the room has none.
        """
        module = f"{self.room}.experiment.export"
        try:
            room = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not error.name or not module.startswith(error.name):
                raise  # it is there, and lacks something else
            raise InputError(f"{self.slug} has nothing to export: its room lacks experiment/export.py.") from None
        return Exports(room.arms, room.export, importlib.import_module(self.room).load)

    @property
    def exercises(self) -> tuple[Exercise, ...]:
        """`teaching/exercises.py`: EXERCISES, the notebook's "your turn" cells."""
        return self._import("teaching.exercises", "EXERCISES")

    def _import(self, module: str, name: str) -> Any:
        return getattr(importlib.import_module(f"{self.room}.{module}"), name)

    def config(self, scale: str = "lesson", **changes: object) -> Any:
        """The room's config at `scale`, with some fields changed.

        Raises:
            ConfigError: no such scale, no such field, or a value that is not allowed.
        """
        if not isinstance(scale, str) or scale not in self.configs:
            raise ConfigError(f"scale must be one of {', '.join(self.configs)}; got {scale!r}.")
        return self.configs[scale].override(**changes)  # type: ignore[index]

    def config_of(self, identity: Mapping[str, Any]) -> Any:
        """The config with that identity, as a run directory holds it; None where it belongs to another paper."""
        try:
            config = type(self.config()).model_validate_json(json.dumps(identity))
        except ValidationError:
            return None
        return config if json.loads(json.dumps(identity_of(config))) == identity else None

    def open_run(self, scale: str, config: Config, run_dir: str | Path = "") -> Run:
        """The run directory `run_dir` for `config`, or a new one under `runs/` when it is empty."""
        from labkit import devices

        devices.pick_device(config.device)  # an impossible device is an error before anything starts
        devices.check_processes(config.device, config.devices)
        return Run.open(run_dir or new_directory(self.slug, scale), config)

    def run(self, config: Config, run: Run) -> dict[str, Any]:
        """Train and evaluate what `config` asks for, or read it where it is done; returns the result.

        With `config.devices` > 1 the work happens in that many processes, started through torchrun; all of them and
        this call share the run directory.
        """
        if run.result is not None:
            return run.result
        from labkit.devices import check_processes
        from labkit.workbench import training

        if config.devices > 1 and "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun sets it
            check_processes(config.device, config.devices)
            run.write_json("launch.json", config.model_dump(mode="json"))
            training.launch(["worker", self.slug, str(run.directory.resolve())], config.devices)
            if run.result is None:
                raise RunError(f"the processes ended, but left no result in {run.directory}. Go on with --resume.")
            return run.result
        with training.workers(config.device) as workers:
            run.writes = workers.writes
            with run.alone():
                run.is_worked_on_by(self.code)
                return run.finish(self.train(config, run))

    def verdicts(self, result: Mapping[str, Any] | None = None, scale: str | None = None) -> list[Verdict]:
        """The ledger: from `result` of one run at `scale`, or from the committed records.

        A claim is judged only by results of its own scale: by the first record that measured it, and a record without
        a label comes before those with one.
        """
        if result is not None:
            return self.judged([result], scale, "this run")
        records = load_all(self.slug)
        verdicts = []
        for claim in self.claims:
            verdict = judge(self.slug, claim, [], None)
            for record in (record for record in records if record.scale == claim.scale):
                judged = judge(self.slug, claim, record.results, record.name)
                if judged.seeds:
                    verdict = replace(judged, stale=bool(record.code) and record.code != self.code)
                    break
            verdicts.append(verdict)
        return verdicts

    def judged(self, results: Sequence[Mapping[str, Any]], scale: str | None, source: str) -> list[Verdict]:
        """The ledger from the results of runs at `scale`, one a seed."""
        return [judge(self.slug, claim, results if claim.scale == scale else [], source) for claim in self.claims]

    @cached_property
    def code(self) -> str:
        """Fingerprint of what the room computes with, its configs included."""
        spec = importlib.util.find_spec(self.room)
        assert spec is not None, f"{self.room} is where PAPER was loaded from"
        assert spec.origin is not None, f"{self.room} is a package"
        return fingerprint.of_room(Path(spec.origin).parent)

    def agreement(self, result: Mapping[str, Any], scale: str) -> list[str]:
        """One line a claim: does this run say what the record of the same scale and data says?

        A single seed is noisy. It agrees when its verdict is the record's, or its value lies where one more seed of the
        record would lie (99 % prediction interval). The lines of a run that agrees are the same on every machine.
        """
        same = [r for r in load_all(self.slug) if r.scale == scale and r.results[0].get("data") == result.get("data")]
        return [_agreement(claim, claim.measure(result), same) for claim in self.claims if claim.scale == scale]

    def exercise(self, key: str) -> Exercise:
        for exercise in self.exercises:
            if exercise.key == key:
                return exercise
        raise InputError(f"no exercise '{key}'; there are {', '.join(e.key for e in self.exercises)}.")


def _agreement(claim: Claim, value: float | None, records: list[Record]) -> str:
    """The line of one claim; `records` are those that may be compared with, best first."""
    if value is None:
        return f"claim {claim.key}: not measured"
    for record in records:
        recorded = judge(record.paper, claim, record.results, record.name)
        if recorded.holds is None:
            continue
        low, high = prediction([v for v in map(claim.measure, record.results) if v is not None])
        if (value >= claim.margin) == recorded.holds or low <= value <= high:
            return f"claim {claim.key}: as recorded"
        return f"claim {claim.key}: {value:+.2f}, where one more seed of the record has {low:+.2f} to {high:+.2f}"
    return f"claim {claim.key}: no record to compare with"
