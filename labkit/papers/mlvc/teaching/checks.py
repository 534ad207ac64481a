"""Properties that hold exactly.  One check, three uses: test, exercise, and wrong answers that must not pass."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from labkit.kernels.flow_warp import warp
from labkit.papers.mlvc.method.priors import gaussian_likelihood

Conceal = Callable[[Sequence[str]], Sequence[Any]]


# -- references -------------------------------------------------------------------------------------------------------


def check_gain(gain: Callable[[int], float]) -> None:
    """10 log10(2 / (1 + 1/k)): the noise of a mean of k, and that of the target, which nobody predicts."""
    for k in (1, 2, 3, 4, 1000):
        wanted, got = 10 * math.log10(2 / (1 + 1 / k)), float(gain(k))
        assert abs(got - wanted) < 1e-6, f"for k = {k} the gain is {wanted:.3f} dB; yours is {got:.3f}"


def check_chain(chain: Callable[[Tensor], Tensor]) -> None:
    """On a turning scene, whose flow differs from place to place, f_k must lead to where the pixel really was."""
    for degrees in (3.0, -7.0):
        flows, truth = turning(degrees)
        got = torch.as_tensor(chain(flows))
        assert got.shape == flows.shape, (
            f"f_1..f_4 have the shape of the flows, {tuple(flows.shape)}; got {tuple(got.shape)}"
        )
        inner = (..., slice(20, 29), slice(20, 29))
        error = (got - truth)[inner].abs().amax((0, 2, 3, 4))
        for k, value in enumerate(error.tolist(), 1):
            assert value < 1e-3, (
                f"f_{k} misses the right place by {value:.2f} pixels in a scene that turns by {degrees:g} degrees a "
                f"frame"
            )


def turning(degrees: float, size: int = 49) -> tuple[Tensor, Tensor]:
    """Four equal flows of a turning scene, (1, 4, 2, size, size), and the true f_1..f_4 = (R^k - I)(p - c)."""
    turn = math.radians(degrees)
    rotation = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    centred = torch.stack([x, y], -1).float() - size // 2
    steps = [torch.linalg.matrix_power(rotation, k) - torch.eye(2) for k in range(1, 5)]
    places = torch.stack([(centred @ step.T).permute(2, 0, 1) for step in steps])[None]
    return places[:, :1].expand(-1, 4, -1, -1, -1).contiguous(), places


def check_enlarged(enlarge: Callable[[Tensor], Tensor]) -> None:
    """An image that is warped at twice the size must agree with the warped image at twice the size."""
    generator = torch.Generator().manual_seed(0)
    for u in ((1.0, 0.0), (-0.5, 1.5)):
        flow = torch.tensor(u).view(1, 2, 1, 1).expand(1, 2, 8, 8).clone()
        got = torch.as_tensor(enlarge(flow))
        assert got.shape == (1, 2, 16, 16), f"twice the size of (1, 2, 8, 8) is (1, 2, 16, 16); got {tuple(got.shape)}"
        large = torch.nn.functional.avg_pool2d(torch.rand(1, 1, 20, 20, generator=generator), 5, 1)
        wanted = warp(large, 2 * torch.tensor(u).view(1, 2, 1, 1).expand(1, 2, 16, 16))
        error = float((warp(large, got) - wanted)[..., 4:-4, 4:-4].abs().max())
        assert error < 1e-4, (
            f"an object that moves by {u} pixels of the small image lands elsewhere in the large one (error "
            f"{error:.2f})"
        )


# -- entropy ----------------------------------------------------------------------------------------------------------


def check_mismatch(extra: Callable[[float, float], float]) -> None:
    """Bits a symbol that a coder wastes which believes in another scale: sums over the symbols, not an integral."""
    for sigma, believed in ((6.0, 6.0), (6.0, 12.0), (12.0, 6.0), (20.0, 8.0)):
        wanted, got = wasted_bits(sigma, believed), float(extra(sigma, believed))
        assert abs(got - wanted) < 0.02, (
            f"symbols of scale {sigma:g} coded as if it were {believed:g} waste {wanted:.3f} bits each; yours says "
            f"{got:.3f}"
        )


def wasted_bits(sigma: float, believed: float) -> float:
    """sum_k P(k) log2(P(k) / Q(k)) for rounded Gaussians."""
    k = torch.arange(-400, 401).double()
    p, q = (gaussian_likelihood(k, torch.full_like(k, s)).clamp_min(1e-300) for s in (sigma, believed))
    return float((p * (p / q).log2()).sum())


# -- a packet is lost -------------------------------------------------------------------------------------------------


def check_concealment(conceal: Conceal) -> None:
    """Whole packets show their frame; a P-frame without its references does not; the last good picture stays."""
    for packets, wanted in CASES:
        got = list(conceal(list(packets)))
        assert len(got) == len(packets), (
            f"{'-'.join(packets)}: one picture for each of {len(packets)} packets; got {len(got)}"
        )
        assert got == wanted, f"{' '.join(packets)} shows {wanted}; yours shows {got}"


CASES: tuple[tuple[tuple[str, ...], list[int | None]], ...] = (
    (("I", "P", "P", "P"), [0, 1, 2, 3]),
    (("I", "P", "lost", "P", "I", "P"), [0, 1, 1, 1, 4, 5]),
    (("lost", "P", "P", "I", "P"), [None, None, None, 3, 4]),
    (("I", "lost", "lost", "P", "P", "I", "lost"), [0, 0, 0, 0, 0, 5, 5]),
    (("I", "P", "lost", "I", "P", "lost", "P", "I"), [0, 1, 1, 3, 4, 4, 4, 7]),
)
"""Packets in order, and the number of the frame that stands on the screen at each; None: nothing yet."""
