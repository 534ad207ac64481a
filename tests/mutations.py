"""Ways to damage a file, drawn from a generator: bytes, JSON, text with numbers, tensors with their sum made anew."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from labkit import tensor_files

Mutate = Callable[[Path, random.Random], bool]
"""Alters a file. Returns whether the reader must notice: with a sum made anew, other contents are as good."""

NUMBERS = ["nan", "inf", "-inf", "0", "-1", "1e9", "1000000000", "1e308", "-1e-320", "1e999", "9" * 400, "0x10", "1_0"]
WORDS = [*NUMBERS, "", " ", ",", "\0", "é", "\ufeff", "null", "true", "[]", "{}", '"', "../..", "%s", "A" * 5000]
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, 5e-324, float("nan"), float("inf"),
    "", "0", "x", "\0", "é" * 300, "../../x", [], {}, [[]], [None], {"": 0}, [0] * 1000, [[[[[[]]]]]],
    {"a": {"b": []}},
]  # fmt: skip


def spoil_bytes(path: Path, rng: random.Random) -> bool:
    """Flipped bits, cuts, doubled or lost pieces, and numbers at the ends of their range."""
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
        at, length = rng.randrange(len(content) + 1), rng.choice((1, 2, 4, 8, 64, 1000))
        if rng.random() < 0.5:
            at = min(at, rng.randrange(200))  # headers stand in front
        piece = content[at : at + length]
        match rng.randrange(7):
            case 0 | 1 if piece:
                content[at] ^= 1 << rng.randrange(8)
            case 2:
                content[at : at + length] = rng.randbytes(len(piece))
            case 3:
                content[at : at + length] = rng.choice((b"", bytes(length), b"\xff" * length, bytes(piece) * 2))
            case 4:
                number = rng.choice((0, 1, 2**15, 2**31 - 1, 2**32 - 1, 2**62)).to_bytes(
                    8, rng.choice(("big", "little"))
                )
                content[at : at + length] = number[:length]
            case 5:
                del content[at:]
            case _:
                content += rng.randbytes(length)
    path.write_bytes(content)
    return True


def other_json(content: Any, rng: random.Random) -> Any:
    """`content` with one value somewhere inside lost, doubled, renamed or replaced."""
    if isinstance(content, dict | list) and content and rng.random() < 0.85:
        at = rng.choice(list(content)) if isinstance(content, dict) else rng.randrange(len(content))
        changed: Any = dict(content) if isinstance(content, dict) else list(content)
        choice = rng.random()
        if choice < 0.1:
            del changed[at]
        elif choice < 0.15 and isinstance(changed, dict):
            changed[rng.choice(("", "x", str(at) * 2))] = changed.pop(at)
        elif choice < 0.2 and isinstance(changed, list):
            changed.insert(at, changed[at])
        else:
            changed[at] = other_json(changed[at], rng)
        return changed
    if isinstance(content, int | float) and abs(content) < 1e15 and rng.random() < 0.4:
        return rng.choice((-content, content + 1, content * 1e6, float(content), str(content), int(content) // 2))
    return rng.choice(VALUES)


def spoil_json(path: Path, rng: random.Random) -> bool:
    """Another value, and sometimes other bytes."""
    if rng.random() < 0.25:
        return spoil_bytes(path, rng)
    content = json.loads(path.read_text())
    for _ in range(rng.choice((1, 1, 2, 4))):
        content = other_json(content, rng)
    path.write_text("[" * 50_000 if rng.random() < 0.01 else json.dumps(content))
    return True


def spoil_lines(path: Path, rng: random.Random) -> bool:
    """JSON lines: one of them another."""
    lines = path.read_text().splitlines()
    if not lines or rng.random() < 0.25:
        return spoil_bytes(path, rng)
    at = rng.randrange(len(lines))
    lines[at] = json.dumps(other_json(json.loads(lines[at]), rng))
    path.write_text("\n".join(lines) + "\n")
    return True


def spoil_text(path: Path, rng: random.Random) -> bool:
    """Rows of numbers: other numbers, other separators, lines that are lost or doubled, and sometimes other bytes."""
    if rng.random() < 0.2:
        return spoil_bytes(path, rng)
    lines = path.read_text().splitlines() or [""]
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(lines))
        words = re.split(r"([,;\s]+)", lines[at])
        match rng.randrange(5):
            case 0:
                lines.insert(at, lines[at])
            case 1 if len(lines) > 1:
                del lines[at]
            case _:
                words[rng.randrange(len(words))] = rng.choice(WORDS)
                lines[at] = "".join(words)
    path.write_text("\n".join(lines) + "\n")
    return True


def other_tensor(value: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Another shape, another type, or numbers at the ends of their range."""
    kind = rng.randrange(6)
    if kind == 0:
        return value.flatten()[: rng.randrange(value.numel() + 1)]
    if kind == 1:
        return value[None] if rng.random() < 0.5 else value.flatten()
    if kind == 2:
        return (
            value.double()
            .nan_to_num()
            .clamp(-100, 100)
            .to(rng.choice((torch.int8, torch.int64, torch.float16, torch.bool)))
        )
    extreme = rng.choice(
        (0, 1, -1, 127, -128)
        if not value.is_floating_point()
        else (0.0, -1.0, min(1e30, torch.finfo(value.dtype).max), 1e-40, float("nan"))
    )
    changed = value.clone()
    if value.dtype != torch.bool and value.numel():
        chosen = changed.flatten() if kind == 3 else changed.flatten()[: max(1, value.numel() // 10)]
        chosen.fill_(extreme)
        changed = torch.cat([chosen, value.flatten()[len(chosen) :]]).view(value.shape)
    return changed


def spoil_tensors(path: Path, rng: random.Random) -> bool:
    """Other bytes, which the sum must tell; or another header or tensor with a sum that fits again."""
    if rng.random() < 0.3:
        return spoil_bytes(path, rng)
    with safe_open(path, framework="pt") as stream:
        about = json.loads((stream.metadata() or {}).get(tensor_files.MARK, "{}"))
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - no mapping
    header = about.get("header")
    if header is not None and rng.random() < 0.6:
        for _ in range(rng.choice((1, 1, 2))):
            header = other_json(header, rng)
    elif tensors:
        name = rng.choice(sorted(tensors))
        value = tensors.pop(name)
        if rng.random() < 0.8:
            tensors[name if rng.random() < 0.9 else f"{name}x"] = other_tensor(value, rng).contiguous()
    about = {"sha256": tensor_files._digest(tensors, header), "header": header}
    path.write_bytes(save(tensors, {tensor_files.MARK: json.dumps(about)}))
    return False


def spoil_checkpoint(path: Path, rng: random.Random) -> bool:
    """Other bytes; or another value in an archive that is whole."""
    if rng.random() < 0.4:
        return spoil_bytes(path, rng)
    torch.save(_other_nested(torch.load(path, weights_only=True), rng), path)
    return False


def _other_nested(content: Any, rng: random.Random) -> Any:
    if isinstance(content, dict) and content and rng.random() < 0.9:
        changed, at = dict(content), rng.choice(list(content))
        if rng.random() < 0.15:
            del changed[at]
        else:
            changed[at] = _other_nested(changed[at], rng)
        return changed
    if isinstance(content, list) and content and rng.random() < 0.7:
        at = rng.randrange(len(content))
        return [*content[:at], _other_nested(content[at], rng), *content[at + 1 :]]
    if isinstance(content, torch.Tensor) and rng.random() < 0.7:
        return other_tensor(content, rng)
    return rng.choice(VALUES)


BY_ENDING: dict[str, Mutate] = {
    ".json": spoil_json,
    ".jsonl": spoil_lines,
    ".txt": spoil_text,
    ".csv": spoil_text,
    ".tag": spoil_text,
    ".safetensors": spoil_tensors,
    ".pt": spoil_checkpoint,
}


def spoil(path: Path, rng: random.Random) -> bool:
    """Damage a file in the way of its kind."""
    return BY_ENDING.get(path.suffix, spoil_bytes)(path, rng)
