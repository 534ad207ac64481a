"""The small codec's entropy coder: a distribution, tables that pay, and bytes that come back as symbols."""

import math

import pytest
import torch

from labkit.errors import InputError
from labkit.papers.mlvc.experiment.closed_loop import Symbols, code
from labkit.papers.mlvc.experiment.entropy import (
    SCALES,
    Tables,
    block_classes,
    cheapest_scales,
    from_bytes,
    laplace_bits,
    to_bytes,
)
from labkit.papers.mlvc.experiment.scenes import scenes

STEP = torch.full((4, 1, 1, 1), 10.0)


@pytest.fixture(scope="module")
def coded():
    return code(scenes("disc", 4, 5, 0), STEP).symbols


@pytest.mark.parametrize("scale", [0.04, 0.3, 1.0, 7.0, 40.0])
def test_a_distribution_adds_up_to_one_and_is_laplaces(scale):
    k = torch.arange(-2000, 2001).double()
    b = torch.full_like(k, scale)
    p = 2 ** -laplace_bits(k.abs(), b)
    assert float(p.sum()) == pytest.approx(1, abs=1e-9)
    reference = torch.distributions.Laplace(0.0, torch.tensor(scale).double())
    mass = reference.cdf(k[2000:2010] + 0.5) - reference.cdf(k[2000:2010] - 0.5)
    kept = mass > 1e-12
    torch.testing.assert_close(p[2000:2010][kept], mass[kept], rtol=1e-3, atol=0)


def test_the_scale_that_is_found_is_the_one_the_symbols_came_from():
    generator = torch.Generator().manual_seed(0)
    for index in (20, 40, 55):
        u = torch.rand(200_000, generator=generator).double() - 0.5
        symbols = (-float(SCALES[index]) * u.sign() * torch.log1p(-2 * u.abs())).round().short()
        chosen = int(cheapest_scales(symbols, torch.zeros(200_000, dtype=torch.long), 1))
        assert abs(chosen - index) <= 1


def test_classes_look_at_decoded_blocks_only():
    """Catches: a context that the receiver does not have yet."""
    residual = torch.zeros(1, 3, 64, 4, 5, dtype=torch.int16)
    residual[0, :, 0] = 1
    changed = residual.clone()
    changed[0, 1, :, 2, 3] += 40
    different = (block_classes(residual) != block_classes(changed))[0]
    assert not different[0].any()
    assert not different[1, :3].any()  # rows above and the row itself
    assert different[1, 3].any()
    assert different[2, 2, 3]


def test_tables_of_the_same_codec_are_cheaper_than_others(coded):
    other = code(scenes("fence", 4, 5, 0), STEP / 3).symbols
    own = Tables.learned([coded]).bits(coded).total
    assert float(own.sum()) < float(Tables.learned([other]).bits(coded).total.sum())


def test_bytes_come_back_and_are_as_long_as_promised(coded):
    tables = Tables.learned([coded])
    shape = coded.residual.shape[1:]
    for clip in range(2):
        one = coded.part(slice(clip, clip + 1))
        data = to_bytes(one, tables)
        back = from_bytes(data, shape, tables)
        assert torch.equal(back.residual, one.residual)
        assert torch.equal(back.motion, one.motion)
        promised = float(tables.bits(one).total) / 8
        assert promised - 1 <= len(data) <= 1.005 * promised + 8


def test_extreme_symbols_come_back():
    residual = torch.zeros(1, 1, 64, 2, 2, dtype=torch.int16)
    residual[0, 0, 0] = 2047
    residual[0, 0, 63] = -2047
    one = Symbols(residual, torch.full((1, 1, 2, 2, 2), -2047, dtype=torch.int16), None)
    tables = Tables(torch.full((512,), 30), 10, None)
    back = from_bytes(to_bytes(one, tables), (1, 64, 2, 2), tables)
    assert torch.equal(back.residual, one.residual)
    assert torch.equal(back.motion, one.motion)
    one.residual[0, 0, 0, 0, 0] = 2048
    with pytest.raises(InputError, match="beyond 2047"):
        to_bytes(one, tables)


def test_flags_cost_their_entropy():
    flags = torch.zeros(1, 50, 1, 8, 8)
    flags[:, ::2] = 1  # alternates: the frame before tells all
    symbols = Symbols(torch.zeros(1, 50, 64, 8, 8).short(), torch.zeros(1, 50, 2, 8, 8).short(), flags)
    price = float(Tables.learned([symbols]).bits(symbols).flags)
    assert price < 0.05 * flags.numel()
    generator = torch.Generator().manual_seed(0)
    fair = Symbols(symbols.residual, symbols.motion, (torch.rand(flags.shape, generator=generator) < 0.5).float())
    assert float(Tables.learned([fair]).bits(fair).flags) == pytest.approx(flags.numel(), rel=0.02)
    with pytest.raises(InputError, match="without flags"):
        Tables.learned([Symbols(symbols.residual, symbols.motion, None)]).bits(symbols)


def test_a_clip_of_two_frames():
    """One P-frame: there is no frame before it to look at."""
    one = code(scenes("disc", 1, 2, 0), STEP[:1]).symbols
    tables = Tables.learned([one])
    assert torch.equal(from_bytes(to_bytes(one, tables), one.residual.shape[1:], tables).residual, one.residual)


def test_refusals(coded):
    with pytest.raises(InputError, match="one clip"):
        to_bytes(coded, Tables.learned([coded]))
    with pytest.raises(InputError, match="there was nothing"):
        Tables.learned([])
    assert math.isfinite(float(Tables.learned([coded]).bits(coded).total.sum()))
