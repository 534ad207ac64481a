"""Matrix products of 8-bit integers, summed exactly in 32 bits on every machine.

    y[m, n] = sum_k a[m, k] b[k, n]

Torch's int8 product (`torch._int_mm`) is exact and quickest where the processor has VNNI. oneDNN has code paths without
VNNI that add pairs of products in 16 bits, which saturate: 127 * 127 + 127 * 127 becomes 32,767. Therefore torch's
product is tried once per process on worst-case operands. Where it is not exact, and where VNNI is missing and it is
slow, products are summed in float32, in blocks of k that are short enough to be exact.
"""

import functools

import torch
import torch.nn.functional as F
from jaxtyping import Int8, Int32
from torch import Tensor

EXACT_TERMS = 1024  # float32 holds every integer up to 2^24 = 1024 * 128 * 128 (1,040 terms where all are below 128)


def int8_matmul(a: Int8[Tensor, "m k"], b: Int8[Tensor, "k n"]) -> Int32[Tensor, "m n"]:
    """a @ b, the same bits on every device; k below 2^17, so that no sum leaves int32."""
    if a.is_cuda:
        return _on_tensor_cores(a, b)
    return torch._int_mm(a.contiguous(), b) if _int_mm_is_best() else int8_matmul_by_blocks(a, b)


def int8_matmul_by_blocks(a: Int8[Tensor, "m k"], b: Int8[Tensor, "k n"]) -> Int32[Tensor, "m n"]:
    """a @ b as float32 products of at most `EXACT_TERMS` terms, added up in int32."""
    blocks = zip(a.split(EXACT_TERMS, 1), b.split(EXACT_TERMS, 0), strict=True)
    with torch.autocast("cpu", enabled=False):  # bfloat16 would round the sums
        first, *others = ((x.float() @ y.float()).to(torch.int32) for x, y in blocks)
    return functools.reduce(Tensor.add_, others, first)


def _on_tensor_cores(a: Tensor, b: Tensor) -> Tensor:
    """Padded with zeros to what a GPU's int8 product asks for: more than 16 rows, k and n multiples of 8."""
    (m, k), n = a.shape, b.shape[1]
    a = F.pad(a, (0, -k % 8, 0, max(32 - m, 0))).contiguous()
    b = F.pad(b, (0, -n % 8, 0, -k % 8))
    return torch._int_mm(a, b.t().contiguous().t())[:m, :n]


@functools.cache
def _int_mm_is_best() -> bool:
    """Chosen by capability and not by timing, so that a process takes one path whatever else the machine does.

    With VNNI several times as fast as float32 sums; without, torch multiplies in a plain loop.
    """
    return torch.cpu._is_vnni_supported() and int_mm_is_exact()


def int_mm_is_exact() -> bool:
    """Torch's int8 product on a CPU against int64, on operands of the largest magnitude in all four sign pairings."""
    for m, k, n in ((1, 2, 1), (17, 70, 33), (64, 1100, 64)):
        a = torch.where(torch.arange(m) % 2 == 0, 127, -128).to(torch.int8)[:, None].expand(m, k).contiguous()
        b = torch.where(torch.arange(n) % 2 == 0, 127, -128).to(torch.int8).expand(k, n).contiguous()
        for layout in (b, b.t().contiguous().t()):
            if not torch.equal(torch._int_mm(a, layout).long(), a.long() @ b.long()):
                return False
    return True
