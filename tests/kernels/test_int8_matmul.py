"""The int8 product: exact on both of its paths, and a torch that saturates is noticed."""

import pytest
import torch
from torch import Tensor

from labkit.kernels import int8_matmul as file
from labkit.kernels.int8_matmul import int8_matmul, int8_matmul_by_blocks, int_mm_is_exact

SHAPES = [(1, 1, 1), (5, 7, 3), (33, 9, 10), (40, 64, 16), (3, 1024, 2), (4, 1041, 5), (2, 4608, 7), (0, 4, 3)]


def saturating(a: Tensor, b: Tensor) -> Tensor:
    """Instructions without VNNI: pairs of products are added in 16 bits."""
    k = a.shape[1] // 2 * 2
    pairs = (a[:, :k, None].int() * b[None, :k].int()).unflatten(1, (-1, 2)).sum(2).clamp(-(1 << 15), (1 << 15) - 1)
    return (pairs.sum(1) + a[:, k:].int() @ b[k:].int()).int()


def operands(m: int, k: int, n: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(k)
    a, b = (torch.randint(-128, 128, shape, generator=generator).to(torch.int8) for shape in ((m, k), (k, n)))
    extremes = [(torch.full_like(a, x), torch.full_like(b, y)) for x in (127, -128) for y in (127, -128)]
    return [(a, b), (a, b.t().contiguous().t()), (a.t().contiguous().t(), b), *extremes]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("product", [int8_matmul, int8_matmul_by_blocks])
def test_both_paths_are_int64_to_the_bit(product, shape):
    """Random and worst-case operands, also with more terms than float32 can hold the sum of."""
    for a, b in operands(*shape):
        y = product(a, b)
        assert y.dtype == torch.int32
        assert torch.equal(y.long(), a.long() @ b.long())


def test_autocast_does_not_round_the_sums():
    a, b = operands(5, 1100, 7)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(int8_matmul_by_blocks(a, b).long(), a.long() @ b.long())


def test_longer_blocks_of_float32_are_not_exact():
    """Why the sums are cut: 4,608 terms of 127 * 127, one product less by 127, lie beyond 2^24."""
    a, b = torch.full((1, 4608), 127, dtype=torch.int8), torch.full((4608, 1), 127, dtype=torch.int8)
    b[0] = 126
    exact = int8_matmul_by_blocks(a, b).item()
    assert exact == 4608 * 127 * 127 - 127 > 2**24 == file.EXACT_TERMS * 128 * 128
    assert int(torch.tensor(float(exact), dtype=torch.float32)) != exact


def test_a_saturating_product_is_detected_and_avoided(monkeypatch):
    monkeypatch.setattr(torch, "_int_mm", saturating)
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    file._int_mm_is_best.cache_clear()
    try:
        assert not int_mm_is_exact()
        for a, b in operands(3, 1100, 4):
            assert torch.equal(int8_matmul(a, b).long(), a.long() @ b.long())
    finally:
        file._int_mm_is_best.cache_clear()


def test_the_probe_passes_an_exact_product_and_runs_once(monkeypatch):
    calls = []
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: calls.append(a.shape) or (a.int() @ b.int()))
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    file._int_mm_is_best.cache_clear()
    try:
        a, b = operands(3, 8, 4)[0]
        int8_matmul(a, b)
        probed = len(calls)
        int8_matmul(a, b)
        assert len(calls) == probed + 1
        assert calls[-1] == (3, 8)
    finally:
        file._int_mm_is_best.cache_clear()


def compare_with_int64() -> None:
    """Runs in a process of its own, where oneDNN has no VNNI."""
    for shape in SHAPES:
        for a, b in operands(*shape):
            assert torch.equal(int8_matmul(a, b).long(), a.long() @ b.long()), shape
