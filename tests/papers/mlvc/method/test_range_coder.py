"""Tables and symbols: round trips with escapes, the promised length, and an arithmetic coder in plain Python."""

import math

import numpy as np
import pytest
import torch

from labkit.errors import InputError
from labkit.papers.mlvc.method.range_coder import LARGEST, StreamError, SymbolCoder
from labkit.papers.mlvc.method.tables import (
    LARGEST_SCALE,
    LEVELS,
    SMALLEST_SCALE,
    TOTAL,
    Alphabet,
    Tables,
    counts,
    gaussian_alphabets,
    make_tables,
)

pytest.importorskip("constriction", reason="needs the extra 'video'")


@pytest.fixture(scope="module")
def gaussian() -> SymbolCoder:
    return SymbolCoder(gaussian_alphabets()[0])


def scale(level: int) -> float:
    return SMALLEST_SCALE * (LARGEST_SCALE / SMALLEST_SCALE) ** (level / (LEVELS - 1))


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Symbols of the Gaussians of random levels."""
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, LEVELS, count)
    return np.rint(rng.normal(size=count) * np.vectorize(scale)(levels)).astype(np.int64), levels


def test_what_goes_in_comes_out(gaussian):
    symbols, levels = drawn(3000)
    symbols[::100] = [1000 * (-1) ** k for k in range(30)]  # beyond every table
    symbols[:4] = [LARGEST, -LARGEST, 2, -2]
    levels[:4] = 0
    shape = (2, 3, 20, 25)
    data = gaussian.encode(symbols.reshape(shape), levels.reshape(shape))
    assert np.array_equal(gaussian.decode(data, levels.reshape(shape)), symbols.reshape(shape))


def test_nothing_makes_an_empty_stream(gaussian):
    none = np.zeros((1, 4, 0, 3), dtype=np.int64)
    assert gaussian.encode(none, none) == b""
    assert gaussian.decode(b"", none).shape == none.shape


def test_symbols_beyond_the_largest_are_limited(gaussian):
    data = gaussian.encode(np.array([10**12, -(10**12)]), np.array([5, 6]))
    assert gaussian.decode(data, np.array([5, 6])).tolist() == [LARGEST, -LARGEST]


def test_bytes_are_what_the_probabilities_promise(gaussian):
    """0.5 % and 8 bytes more than -sum log2 p at most; and p from integer tables costs little more than p itself."""
    symbols, levels = drawn(60_000, seed=1)
    promised = gaussian.bits(symbols, levels) / 8
    length = len(gaussian.encode(symbols, levels))
    assert promised - 1 <= length <= 1.005 * promised + 8
    sigma = np.vectorize(scale)(levels)
    erf = np.vectorize(math.erf)
    p = (erf((symbols + 0.5) / sigma / 2**0.5) - erf((symbols - 0.5) / sigma / 2**0.5)) / 2
    assert promised <= 1.01 * -np.log2(p).sum() / 8


def python_range_coder(codes: list[int], tables: list[np.ndarray]) -> int:
    """Length in bytes of an arithmetic coder with exact rational bounds."""
    low, width, total_bits = 0, 1, 0
    for code, table in zip(codes, tables, strict=True):
        below = int(table[:code].sum())
        low, width = low * TOTAL + width * below, width * int(table[code])
        total_bits += 16
    return math.ceil((total_bits - width.bit_length() + 2) / 8)


def test_a_coder_in_plain_python_needs_as_many_bytes(gaussian):
    symbols, levels = drawn(400, seed=2)
    symbols = np.clip(symbols, -2, 2)  # no escapes
    alphabets = [gaussian_alphabets()[0][level] for level in levels]
    exact = python_range_coder(
        [int(s) - a.lowest for s, a in zip(symbols, alphabets, strict=True)], [a.counts for a in alphabets]
    )
    assert abs(len(gaussian.encode(symbols, levels)) - exact) <= 8  # whole words of 4 bytes, and how the end is told


def test_damaged_streams_do_not_pass_unnoticed_or_as_another_error(gaussian):
    """A range decoder itself may return other symbols; what it cannot read is our error, and only that."""
    symbols, levels = drawn(500, seed=3)
    data = gaussian.encode(symbols, levels)
    rng, noticed = np.random.default_rng(0), 0
    for _ in range(60):
        spoiled = bytearray(data)
        spoiled[rng.integers(len(data))] ^= 1 << rng.integers(8)
        try:
            assert gaussian.decode(bytes(spoiled[: rng.integers(len(data))]), levels).shape == levels.shape
        except StreamError:
            noticed += 1
    assert noticed > 30  # odd lengths alone are most of them
    with pytest.raises(StreamError, match="goes on behind"):
        gaussian.decode(data + bytes(40), levels)
    with pytest.raises(StreamError, match="whole words"):
        gaussian.decode(data[:-1], levels)


def test_endless_escapes_are_refused():
    """Ones without end: the length of an escape is bounded before its digits are read."""
    from constriction import stream

    coder, groups = SymbolCoder([Alphabet(0, np.array([1, TOTAL - 1]))]), np.zeros(1, dtype=np.int64)
    assert coder.decode(coder.encode(np.array([5]), groups), groups).tolist() == [5]
    hostile = stream.queue.RangeEncoder()
    hostile.encode(np.ones(1, np.int32), stream.model.Categorical(np.array([1, TOTAL - 1]) / TOTAL, perfect=False))
    hostile.encode(np.ones(100, np.int32), stream.model.Uniform(2))
    with pytest.raises(StreamError, match="longer than any"):
        coder.decode(hostile.get_compressed().tobytes(), groups)


def test_tables_sum_and_hold_every_symbol():
    alphabets, thresholds = gaussian_alphabets()
    assert len(alphabets) == LEVELS
    assert all(a.counts.sum() == TOTAL and (a.counts >= 1).all() for a in alphabets)
    assert (np.diff(thresholds) > 0).all()
    for level in (0, 20, 63):  # symmetric, and as wide as 4 sigma
        a = alphabets[level]
        assert a.lowest == -a.highest
        assert a.highest >= 4 * scale(level)
        np.testing.assert_allclose(a.counts[:-1], a.counts[-2::-1], atol=len(a.counts))


def test_counts():
    assert counts(np.array([0.5, 0.5, 0.0])).sum() == TOTAL
    assert counts(np.zeros(3)).tolist()[:3] == [1, 1, 1]
    with pytest.raises(InputError, match="not finite"):
        counts(np.array([0.5, np.nan]))


def test_levels_are_the_nearest_scales_in_the_logarithm(codec):
    tables = codec.coders[2].tables
    sigma = torch.tensor([0.0, 0.11, 0.1158, 1.0, 63.9, 1e9]).double()
    got = tables.levels(sigma)
    ratio = math.log(LARGEST_SCALE / SMALLEST_SCALE) / (LEVELS - 1)
    wanted = [round(math.log(max(s, SMALLEST_SCALE) / SMALLEST_SCALE) / ratio) for s in sigma.tolist()]
    assert got.tolist() == [min(w, LEVELS - 1) for w in wanted]


def test_a_factorised_prior_as_a_table(codec):
    """A table is its channel's prior at the symbols around the median; nothing is coded by another channel's."""
    network, tables = codec.coders[2].network, codec.coders[2].tables
    prior, channel = network.motion_coding.prior, 1
    a = tables.motion[channel]
    median = tables.motion_median[channel] / 4096
    y = torch.zeros(1, len(tables.motion), 1, len(a.counts) - 1)
    y[0, channel, 0] = torch.arange(a.lowest, a.highest + 1) + median
    p = prior.likelihood(y)[0, channel, 0].detach().numpy()
    np.testing.assert_allclose(a.counts[:-1] / TOTAL, p, atol=2 * len(p) / TOTAL)


def test_tables_survive_a_file_and_bad_ones_are_refused(codec):
    tables = codec.coders[2].tables
    tensors = tables.tensors()
    again = Tables.from_tensors(tensors)
    assert all(torch.equal(tensors[name], value) for name, value in again.tensors().items())
    assert all(
        torch.equal(tensors[name], value) for name, value in make_tables(codec.coders[2].network).tensors().items()
    )
    for name, spoiled, words in (
        ("thresholds", tensors["thresholds"].flip(0), "ascending"),
        ("motion.counts", tensors["motion.counts"] + 1, "do not sum"),
        ("hyper.sizes", tensors["hyper.sizes"] * 2, "sizes that they announce"),
        ("hyper_median", tensors["hyper_median"][:-1], "one median"),
    ):
        with pytest.raises(InputError, match=words):
            Tables.from_tensors(tensors | {name: spoiled})
    with pytest.raises(InputError, match=r"motion\.counts is missing"):
        Tables.from_tensors({name: t for name, t in tensors.items() if name != "motion.counts"})


def test_without_constriction_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "constriction", None)
    with pytest.raises(InputError, match=r"labkit\[video\]"):
        SymbolCoder([])
