"""The fused soft quantiser against plain autograd, in every layout and precision, through both of its bodies."""

import math
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from labkit.errors import InputError
from labkit.kernels import soft_quantize, soft_quantize_reference
from labkit.kernels.soft_quantize import reference

FACE = sys.modules["labkit.kernels.soft_quantize"]  # the package's attribute of this name is the function
GRADIENTS = ("y", "dx", "dalpha", "dbeta", "db")


def layouts(dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, 5, 7, generator=generator, dtype=torch.float64).to(dtype)
    return {
        "contiguous": x,
        "channels last": x.contiguous(memory_format=torch.channels_last),
        "transposed": x.transpose(1, 3),
        "every second": x[::2, :, 1:, ::3],
        "expanded": x[:1].expand(3, 4, 5, 7),
        "one row": x.flatten(),
        "a number": x[0, 0, 0, 0],
        "empty": x[:0],
    }


def both_passes(
    function: Callable[..., Tensor], x: Tensor, temperature: float = 3.0, **options: object
) -> list[Tensor]:
    """y and all gradients for unequal gaps; parameters in float64 for a float64 input, else in float32."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    levels = torch.tensor([-1.0, 0.0, 1.75, 4.0], dtype=dtype, device=x.device)
    thresholds = torch.tensor([-0.7, 0.1, 0.9], dtype=dtype, device=x.device, requires_grad=True)
    alpha = torch.tensor(0.7, dtype=dtype, device=x.device, requires_grad=True)
    beta = torch.tensor(1.3, dtype=dtype, device=x.device, requires_grad=True)
    x = x.detach().requires_grad_()
    y = function(x, levels, thresholds, alpha, beta, temperature, **options)
    dy = torch.linspace(-1, 2, y.numel(), dtype=torch.float64).to(y).view(y.shape)
    gradients = torch.autograd.grad(y, [x, alpha, beta, thresholds], dy)
    return [y.detach(), *gradients]


def assert_all_close(got: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    for name, a, b in zip(GRADIENTS, got, wanted, strict=True):
        size = b.abs().max().double().item() if b.numel() else 0.0
        torch.testing.assert_close(
            a.double(), b.double(), rtol=0, atol=tolerance * max(size, 1.0), msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.parametrize("layout", layouts(torch.float64))
def test_equals_plain_autograd_in_every_layout(layout):
    x = layouts(torch.float64)[layout]
    got, wanted = both_passes(soft_quantize, x), both_passes(soft_quantize_reference, x)
    assert_all_close(got, wanted, 1e-13)
    assert got[0].stride() == wanted[0].stride()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 8e-3), (torch.float16, 1e-3)])
def test_low_precision_is_the_float64_result_rounded(dtype, tolerance):
    """Twice or more the worst of 20 seeds, which is one rounding of y and dx: nothing is computed in 16 bits."""
    x = layouts(dtype)["contiguous"]
    got, exact = both_passes(soft_quantize, x), both_passes(soft_quantize_reference, x.double())
    assert got[0].dtype == got[1].dtype == dtype
    assert got[2].dtype == got[3].dtype == got[4].dtype == torch.float32
    dy = torch.linspace(-1, 2, x.numel(), dtype=torch.float64).to(dtype).view(x.shape).double()  # dy is rounded too
    exact_dx = exact[1] / torch.linspace(-1, 2, x.numel(), dtype=torch.float64).view(x.shape) * dy
    torch.testing.assert_close(got[0].double(), exact[0], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(got[1].double(), exact_dx, rtol=tolerance, atol=tolerance)


def test_gradcheck():
    """Sheet check 5: x, alpha, beta and b, against finite differences."""
    x = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    levels = torch.tensor([-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0], dtype=torch.float64)
    thresholds = torch.linspace(-2, 2.2, 6, dtype=torch.float64).requires_grad_()
    alpha = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    beta = torch.tensor(1.4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *a: soft_quantize(a[0], levels, *a[1:], 3.0), (x, thresholds, alpha, beta))


def test_chunks_join_without_a_seam(monkeypatch):
    x = torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = both_passes(soft_quantize, x)
    monkeypatch.setattr(reference, "CHUNK", 64)
    assert_all_close(both_passes(soft_quantize, x), whole, 1e-13)


def test_sums_repeat_to_the_bit():
    x = torch.randn(300_000, generator=torch.Generator().manual_seed(0))
    first = both_passes(soft_quantize, x)
    for again in (both_passes(soft_quantize, x) for _ in range(3)):
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("steps", [1, 3, 15])
def test_only_x_is_kept_for_the_backward_pass(steps):
    x = torch.randn(10_000, requires_grad=True)
    levels, thresholds = torch.arange(steps + 1.0), torch.arange(steps) + 0.5

    def kept(function: Callable[..., Tensor]) -> int:
        sizes: dict[int, int] = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.update({t.data_ptr(): t.nbytes}) or t,
            lambda t: t,  # type: ignore[func-returns-value]
        ):
            alpha = torch.tensor(0.5, requires_grad=True)
            function(x, levels, thresholds, alpha, torch.tensor(2.0, requires_grad=True), torch.tensor(5.0))
        return sum(sizes.values())

    assert kept(soft_quantize) < x.nbytes + 400
    assert kept(soft_quantize_reference) > (steps + 1) * x.nbytes


def on_a_threshold() -> Tensor:
    levels, thresholds = torch.tensor([-1.0, 1.0]), torch.zeros(1)
    return soft_quantize(torch.zeros(3), levels, thresholds, 1.0, 1.0, math.inf, bell_temperature=5.0)


class TestBackwardOptions:
    x = torch.linspace(-2.5, 2.5, 41, dtype=torch.float64)

    def test_wide_bell_takes_y_from_t_and_slopes_from_the_bell_temperature(self):
        got = both_passes(soft_quantize, self.x, 30.0, bell_temperature=2.0)
        steep, wide = (
            both_passes(soft_quantize_reference, self.x, 30.0),
            both_passes(soft_quantize_reference, self.x, 2.0),
        )
        assert_all_close(got, [steep[0], wide[1], steep[2], wide[3], wide[4]], 1e-13)

    def test_hard_forward(self):
        got = both_passes(soft_quantize, self.x, math.inf, bell_temperature=2.0)
        wide = both_passes(soft_quantize_reference, self.x, 2.0)
        levels, thresholds = torch.tensor([-1.0, 0.0, 1.75, 4.0]), torch.tensor([-0.7, 0.1, 0.9])
        y = 0.7 * levels.double()[torch.bucketize(1.3 * self.x, thresholds.double())]
        dy = torch.linspace(-1, 2, 41, dtype=torch.float64)
        assert_all_close(got, [y, wide[1], (dy * y).sum() / 0.7, wide[3], wide[4]], 1e-7)

    def test_hard_forward_is_zero_on_the_threshold(self):
        """The step is A(z) = 1[z > 0]; on a threshold infinity times 0 must not become nan."""
        assert on_a_threshold().tolist() == [-1.0, -1.0, -1.0]

    def test_official_binary_bell_has_width_1_and_height_t(self):
        """Quirk a: dy/dx = alpha beta T sum s g (1 - g) with g at T = 1."""
        got = both_passes(soft_quantize, self.x, 40.0, bell_temperature=1.0, bell_height=40.0)
        steep, wide = (
            both_passes(soft_quantize_reference, self.x, 40.0),
            both_passes(soft_quantize_reference, self.x, 1.0),
        )
        assert_all_close(got, [steep[0], 40 * wide[1], steep[2], 40 * wide[3], 40 * wide[4]], 1e-12)

    def test_clamp_leaks_where_autograd_vanishes(self):
        """Quirk b: at z = 50 the hand-written gradient is T alpha beta s sigmoid'(10); 0.09 alpha beta at T = 2000."""
        temperature, alpha, beta, gap = 2000.0, 0.3, 1.7, 1.5
        x = torch.tensor([50 / temperature / beta], dtype=torch.float64, requires_grad=True)
        levels, thresholds = torch.tensor([0.0, gap], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        (leak,) = torch.autograd.grad(soft_quantize(x, levels, thresholds, alpha, beta, temperature, clamp=10.0), x)
        assert leak.item() == pytest.approx(temperature * alpha * beta * gap * 4.5398e-5, rel=1e-4)
        through_clamp = alpha * gap * torch.sigmoid((temperature * beta * x).clamp(-10, 10))
        assert torch.autograd.grad(through_clamp, x)[0].item() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thresholds": torch.zeros(2)}, r"n thresholds separate n \+ 1 levels"),
        ({"levels": torch.tensor([0.0, 1.0], requires_grad=True)}, "levels are fixed"),
        ({"temperature": 0.0}, "temperature must be positive; got 0.0"),
        ({"temperature": torch.tensor(-1.0)}, "temperature must be positive; got -1.0"),
        ({"temperature": math.inf}, "infinite temperature has no slope: give a finite bell_temperature"),
        ({"bell_temperature": math.inf}, "finite bell_temperature"),
        ({"clamp": -1.0}, "clamp must be positive"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = {
        "x": torch.zeros(3), "levels": torch.tensor([0.0, 1.0]), "thresholds": torch.zeros(1),
        "alpha": 1.0, "beta": 1.0, "temperature": 1.0,
    }  # fmt: skip
    with pytest.raises(InputError, match=message):
        soft_quantize(**(arguments | change))


def test_integers_are_refused():
    with pytest.raises(InputError, match=r"floating-point tensors; got torch.int64. Convert it first: x.float\(\)"):
        FACE._check(torch.arange(3), torch.zeros(2), torch.zeros(1), 1.0, None, 1.0)  # the hook would come before it


# --- the Triton body, through its interpreter ---------------------------------------------------------------------

OPTIONS = {
    "exact": (3.0, {}),
    "wide bell": (30.0, {"bell_temperature": 2.0}),
    "hard forward": (math.inf, {"bell_temperature": 2.0}),
    "official binary": (40.0, {"bell_temperature": 1.0, "bell_height": 40.0, "clamp": 10.0}),
}


def compare_triton_with_torch() -> None:
    """Runs in a process of its own, where Triton is its interpreter: every layout, option and precision."""
    triton_body = __import__("labkit.kernels.soft_quantize.triton", fromlist=["TRITON_BODY"])
    triton_body.BLOCK = 512  # several programs per tensor, the last one partly empty

    def with_body(body: object) -> Callable[..., list[Tensor]]:
        def run(*args: Tensor, **kwargs: object) -> list[Tensor]:
            FACE._body = lambda x: body
            return both_passes(soft_quantize, *args, **kwargs)

        return run

    triton, plain = with_body(triton_body.TRITON_BODY), with_body(reference.TORCH_BODY)
    for x in layouts(torch.float64).values():
        assert_all_close(triton(x), plain(x), 1e-13)
    for temperature, options in OPTIONS.values():
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 8e-3)):
            x = layouts(dtype)["contiguous"]
            assert_all_close(triton(x, temperature, **options), plain(x, temperature, **options), tolerance)
    FACE._body = lambda x: triton_body.TRITON_BODY
    assert on_a_threshold().tolist() == [-1.0, -1.0, -1.0]


def compile_without_a_break() -> None:
    """Runs in a process of its own: torch.compile cannot look through the wrappers of the import hook."""
    compiled = torch.compile(soft_quantize, fullgraph=True, backend="aot_eager")
    x = torch.randn(64, generator=torch.Generator().manual_seed(0))
    assert_all_close(both_passes(compiled, x), both_passes(soft_quantize_reference, x), 1e-5)
    narrow = x.bfloat16()
    assert_all_close(both_passes(compiled, narrow), both_passes(soft_quantize, narrow), 1e-2)
