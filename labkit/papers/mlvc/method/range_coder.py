"""Symbols to bytes and back: range coding by `constriction`, one alphabet after the other.

Symbols that share an alphabet are coded together, in the order in which they stand: 64 calls for a frame and not one
table a symbol. A range decoder does not notice that its bytes were cut or altered (measured: it returns other symbols);
lengths and checksums are the container's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from labkit.errors import InputError
from labkit.papers.mlvc.method.tables import TOTAL, Alphabet

LARGEST = 2**20
"""Symbols are limited to +-LARGEST; an escape can say as much."""
_DIGITS = LARGEST.bit_length() + 1


class StreamError(InputError):
    """Bytes that no encoder wrote."""


class SymbolCoder:
    """Codes symbols whose alphabets are told by their groups. Models are built once."""

    def __init__(self, alphabets: Sequence[Alphabet]) -> None:
        stream = constriction_stream()
        self.alphabets = tuple(alphabets)
        # perfect=False: probabilities are rescaled by a formula, the same everywhere, and not by a search
        self._models = [stream.model.Categorical(a.counts / TOTAL, perfect=False) for a in self.alphabets]
        self._lowest = np.array([a.lowest for a in self.alphabets])
        self._highest = np.array([a.highest for a in self.alphabets])
        self._escape = np.array([len(a.counts) - 1 for a in self.alphabets])

    def bits(self, symbols: np.ndarray, groups: np.ndarray) -> float:
        """-sum log2 p by the tables, escapes included: what coding costs, but for the coder's rounding."""
        codes, beyond = self._codes(symbols.reshape(-1), groups.reshape(-1))
        total = sum(
            -np.log2(self.alphabets[g].counts[codes[groups.reshape(-1) == g]] / TOTAL).sum() for g in np.unique(groups)
        )
        return float(total + sum(len(_escape_digits(int(e))) for e in beyond))

    def encode(self, symbols: np.ndarray, groups: np.ndarray) -> bytes:
        """`symbols` (integers) and their `groups` (indices of alphabets), of any one shape."""
        codes, beyond = self._codes(symbols.reshape(-1), groups.reshape(-1))
        coder = constriction_stream().queue.RangeEncoder()
        for group, members in _by_group(groups.reshape(-1)):
            coder.encode(codes[members], self._models[group])
        if len(beyond):
            digits = np.concatenate([_escape_digits(int(e)) for e in beyond])
            coder.encode(digits.astype(np.int32), constriction_stream().model.Uniform(2))
        return coder.get_compressed().astype("<u4").tobytes()

    def decode(self, data: bytes, groups: np.ndarray) -> np.ndarray:
        """The symbols, in the shape of `groups`.

        Raises:
            StreamError: bytes that cannot come from `encode` with these groups, as far as it shows.
        """
        if len(data) % 4:
            raise StreamError(f"a stream of symbols has whole words of four bytes; got {len(data)} bytes.")
        flat = groups.reshape(-1)
        coder = constriction_stream().queue.RangeDecoder(np.frombuffer(data, dtype="<u4").astype(np.uint32))
        symbols = np.empty(len(flat), dtype=np.int64)
        escaped = []
        try:
            for group, members in _by_group(flat):
                codes = coder.decode(self._models[group], len(members))
                symbols[members] = codes + self._lowest[group]
                escaped.append(members[codes == len(self.alphabets[group].counts) - 1])
            two = constriction_stream().model.Uniform(2)
            for position in np.concatenate(escaped) if escaped else ():
                symbols[position] = self._beyond(int(flat[position]), lambda n: coder.decode(two, n))
        except AssertionError as error:  # constriction's word for bytes that fit no symbol
            raise StreamError(f"a stream of symbols is damaged ({error}).") from None
        if not coder.maybe_exhausted():
            raise StreamError("a stream of symbols goes on behind its last symbol.")
        return symbols.reshape(groups.shape)

    def _codes(self, symbols: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Index of each symbol in its alphabet, and, in the order of coding, how far escaped ones lie beyond it.

        Above the highest by e: e; below the lowest by e: -e.
        """
        symbols = np.clip(symbols, -LARGEST, LARGEST)
        codes = symbols - self._lowest[groups]
        escape = self._escape[groups]
        outside = np.flatnonzero((codes < 0) | (codes >= escape))
        outside = outside[np.argsort(groups[outside], kind="stable")]
        low, high = self._lowest[groups[outside]], self._highest[groups[outside]]
        beyond = np.where(codes[outside] < 0, symbols[outside] - low, symbols[outside] - high)
        codes[outside] = escape[outside]
        return codes.astype(np.int32), beyond

    def _beyond(self, group: int, digits: Callable[[int], np.ndarray]) -> int:
        sign, length = digits(1)[0], 0
        while digits(1)[0]:
            length += 1
            if length > _DIGITS:
                raise StreamError("an escape is longer than any that is written.")
        size = 1
        for digit in digits(length) if length else ():
            size = 2 * size + int(digit)
        return int(self._lowest[group]) - size if sign else int(self._highest[group]) + size


def _by_group(groups: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """(group, positions of its members in ascending order), group by group."""
    if not len(groups):
        return []
    short = groups.astype(np.uint16)  # there are never more alphabets, and 16 bits are sorted by counting
    order = np.argsort(short, kind="stable")
    ends = np.flatnonzero(np.diff(short[order])) + 1
    return [(int(groups[members[0]]), members) for members in np.split(order, ends)]


def _escape_digits(beyond: int) -> np.ndarray:
    """Sign, then Elias gamma of |beyond|: as many ones as there are binary digits after the first, a 0, the digits."""
    tail = bin(abs(beyond))[3:]
    return np.array([int(beyond < 0), *([1] * len(tail)), 0, *map(int, tail)])


def constriction_stream() -> Any:
    """`constriction.stream`, or an InputError that says how to get it."""
    try:
        from constriction import stream
    except ImportError:
        raise InputError(
            "coding needs the package constriction, which is not installed. Get it: pip install 'labkit[video]'"
        ) from None
    return stream
