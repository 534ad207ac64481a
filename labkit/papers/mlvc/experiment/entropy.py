"""Bits of the small codec's symbols, and the bytes: discretised Laplace distributions, looked up by context.

Each symbol gets one of 64 scales, an integer index that both ends share. Of a residual coefficient it is looked up by
its frequency and by a *class* of its block: how much its neighbours in the row above and in the frame before had to
correct. Both are decoded before it, row by row, so the receiver can do the same. Tables are learned on training scenes
coded by the same codec.  [ours]
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.mlvc.experiment.closed_loop import Symbols
from labkit.papers.mlvc.method.range_coder import constriction_stream

SCALES: Float[Tensor, " scales"] = torch.exp(torch.linspace(math.log(0.04), math.log(40.0), 64))
CLASSES, FREQUENCIES = 8, 64
LARGEST = 2047
"""Largest symbol that the range coder takes: 2047 quarter-pixels, 2047 quantiser steps."""


def laplace_bits(magnitude: Float[Tensor, "*shape"], scale: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """-log2 of the mass of a Laplace distribution within 1/2 of a symbol k = magnitude, b = scale.

    P(0) = 1 - exp(-1 / 2b)          P(k) = exp(-|k| / b) sinh(1 / 2b)
    """
    half = 0.5 / scale
    zero = -torch.log2(-torch.expm1(-half))
    log_sinh = half + torch.log(-torch.expm1(-2 * half)) - math.log(2)
    return torch.where(magnitude == 0, zero, (magnitude / scale - log_sinh) / math.log(2))


# -- contexts ---------------------------------------------------------------------------------------------------------


def activity(residual: Tensor) -> Float[Tensor, "clips frames rows columns"]:
    """log2(1 + sum |symbols|) of each block."""
    return torch.log2(1 + residual.float().abs().sum(2))


def from_above(above: Float[Tensor, "*rest columns"]) -> Float[Tensor, "*rest columns"]:
    """(1, 2, 1) / 4 over the three blocks of the row above; beyond the border there is 0."""
    padded = F.pad(above, (1, 1))
    return (padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]) / 4


def from_before(before: Float[Tensor, "clips frames rows columns"]) -> Float[Tensor, "clips frames rows columns"]:
    """Of the frame before: the same block, or half the largest of its neighbourhood where that is more."""
    return torch.maximum(before, F.max_pool2d(before, 3, 1, 1) / 2)


def block_classes(residual: Tensor) -> Int[Tensor, "clips frames rows columns"]:
    """round(0.9 (above + before)), at most 7. In the first P-frame `before` is not there, and `above` counts twice."""
    e = activity(residual)
    above = from_above(F.pad(e, (0, 0, 1, 0))[:, :, :-1])
    before = torch.cat([above[:, :1], from_before(e)[:, :-1]], 1)
    return _class(above, before)


def _class(above: Tensor, before: Tensor) -> Tensor:
    return ((above + before) * 0.9).round().clamp(0, CLASSES - 1).long()


def _coefficient_contexts(residual: Tensor) -> Int[Tensor, "clips frames 64 rows columns"]:
    return block_classes(residual)[:, :, None] * FREQUENCIES + torch.arange(FREQUENCIES)[:, None, None]


def _flag_contexts(flags: Tensor) -> Int[Tensor, "clips frames 1 rows columns"]:
    """Twice the flag of the frame before, plus that of the block above."""
    before = torch.cat([torch.zeros_like(flags[:, :1]), flags[:, :-1]], 1)
    above = F.pad(flags, (0, 0, 1, 0))[..., :-1, :]
    return (2 * before + above).long()


# -- tables -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Bits:
    """Of each clip."""

    residual: Float[Tensor, " clips"]
    motion: Float[Tensor, " clips"]
    flags: Float[Tensor, " clips"]

    @property
    def total(self) -> Float[Tensor, " clips"]:
        return self.residual + self.motion + self.flags


@dataclass(frozen=True, eq=False)
class Tables:
    """Scale index of each context of the residual, one of the motion, probability of a flag in each of its contexts."""

    residual: Int[Tensor, " contexts"]
    motion: int
    flags: Float[Tensor, " four"] | None

    @classmethod
    def learned(cls, coded: Sequence[Symbols]) -> "Tables":
        """The tables under which what training scenes sent costs least."""
        if not coded:
            raise InputError("tables are learned from what training scenes sent; there was nothing.")
        contexts = torch.cat([_coefficient_contexts(s.residual).flatten() for s in coded])
        symbols = torch.cat([s.residual.flatten() for s in coded])
        motion = torch.cat([s.motion.flatten() for s in coded])
        flags = None
        if coded[0].flags is not None:
            sent = torch.cat([s.flags.flatten() for s in coded if s.flags is not None])
            of = torch.cat([_flag_contexts(s.flags).flatten() for s in coded if s.flags is not None])
            flags = torch.stack([(sent[of == c].sum() + 0.5) / ((of == c).sum() + 1) for c in range(4)])
        return cls(
            cheapest_scales(symbols, contexts, CLASSES * FREQUENCIES),
            int(cheapest_scales(motion, torch.zeros_like(motion, dtype=torch.long), 1)),
            flags,
        )

    def bits(self, symbols: Symbols) -> Bits:
        """What symbols cost under these tables: -sum log2 P."""
        scales = SCALES[self.residual[_coefficient_contexts(symbols.residual)]]
        motion = symbols.motion.float().abs()
        price = self._flag_bits(symbols.flags) if symbols.flags is not None else torch.zeros(len(symbols))
        return Bits(
            laplace_bits(symbols.residual.float().abs(), scales).flatten(1).sum(1),
            laplace_bits(motion, SCALES[self.motion].expand_as(motion)).flatten(1).sum(1),
            price,
        )

    def _flag_bits(self, flags: Tensor) -> Float[Tensor, " clips"]:
        if self.flags is None:
            raise InputError("these tables were learned without flags.")
        p = self.flags[_flag_contexts(flags)]
        return -torch.log2(torch.where(flags > 0, p, 1 - p)).flatten(1).sum(1)


def cheapest_scales(symbols: Tensor, contexts: Tensor, count: int) -> Int[Tensor, " contexts"]:
    """The scale index of each context under which its symbols cost least; a context never seen expects zeros."""
    largest = int(symbols.abs().max()) + 1
    counts = torch.zeros(count, largest + 1)
    counts.view(-1).index_add_(0, contexts * (largest + 1) + symbols.abs().long(), torch.ones(len(symbols)))
    counts[:, 0] += 0.3
    counts[:, 1] += 0.01
    magnitude = torch.arange(largest + 1).float()
    prices = torch.stack([laplace_bits(magnitude, scale.expand_as(magnitude)) for scale in SCALES])
    return (counts @ prices.T).argmin(1)


# -- bytes ------------------------------------------------------------------------------------------------------------


def to_bytes(symbols: Symbols, tables: Tables) -> bytes:
    """One clip as a stream of the range coder: frame by frame its motion, then its blocks row by row.

    Raises:
        InputError: more than one clip, flags, or a symbol beyond 2047.
    """
    if len(symbols) != 1 or symbols.flags is not None:
        raise InputError("a stream holds one clip, coded without flags.")
    if max(int(symbols.residual.abs().max()), int(symbols.motion.abs().max())) > LARGEST:
        raise InputError(f"symbols beyond {LARGEST} have no code in this small codec: take a larger quantiser step.")
    stream = constriction_stream()
    encoder, model = stream.queue.RangeEncoder(), _model(stream)

    def put(values: Tensor, scales: Tensor) -> Tensor:
        numbers = scales.double().flatten().numpy()
        encoder.encode(values.flatten().numpy().astype(np.int32), model, np.zeros_like(numbers), numbers)
        return values

    _walk(symbols.residual.shape[1:], tables, lambda t, scales: put(symbols.motion[0, t], scales),
          lambda t, row, scales: put(symbols.residual[0, t, :, row].T, scales))  # fmt: skip
    return encoder.get_compressed().astype("<u4").tobytes()


def from_bytes(data: bytes, shape: Sequence[int], tables: Tables) -> Symbols:
    """What `to_bytes` wrote. shape: (frames, 64, rows, columns) of the residual.

    The coder itself notices neither missing nor altered bytes: a real file needs lengths and checksums, as the codec of
    `method` has them.
    """
    stream = constriction_stream()
    decoder, model = stream.queue.RangeDecoder(np.frombuffer(data, "<u4").astype(np.uint32)), _model(stream)
    motion = torch.zeros(shape[0], 2, *shape[2:], dtype=torch.int16)
    residual = torch.zeros(*shape, dtype=torch.int16)

    def take(scales: Tensor) -> Tensor:
        numbers = scales.double().flatten().numpy()
        return torch.from_numpy(decoder.decode(model, np.zeros_like(numbers), numbers)).view(scales.shape).short()

    def motion_of(t: int, scales: Tensor) -> Tensor:
        motion[t] = take(scales)
        return motion[t]

    def row_of(t: int, row: int, scales: Tensor) -> Tensor:
        residual[t, :, row] = take(scales).T
        return residual[t, :, row].T

    _walk(shape, tables, motion_of, row_of)
    return Symbols(residual[None], motion[None], None)


def _walk(
    shape: Sequence[int],
    tables: Tables,
    motion: Callable[[int, Tensor], Tensor],
    block_row: Callable[[int, int, Tensor], Tensor],
) -> None:
    """The order of a stream and the scales along it, from nothing but what was there before. Both ends walk it.

    `motion(t, scales)` and `block_row(t, row, scales)` code symbols of the shape of `scales`, and return them;
    a row is (columns, 64).
    """
    frames, _, rows, columns = shape
    before: Tensor | None = None
    for t in range(frames):
        motion(t, SCALES[tables.motion].expand(2, rows, columns))
        now = torch.zeros(rows, columns)
        for row in range(rows):
            above = from_above(now[row - 1]) if row else torch.zeros(columns)
            classes = _class(above, above if before is None else before[row])
            contexts = classes[:, None] * FREQUENCIES + torch.arange(FREQUENCIES)
            symbols = block_row(t, row, SCALES[tables.residual[contexts]])
            now[row] = torch.log2(1 + symbols.float().abs().sum(1))
        before = from_before(now[None, None])[0, 0]


def _model(stream: Any) -> Any:
    return stream.model.QuantizedLaplace(-LARGEST, LARGEST)
