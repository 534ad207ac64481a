"""The Triton kernel on a real GPU against the PyTorch body on the CPU."""

import math

import pytest
import torch

from labkit.kernels import soft_quantize

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

OPTIONS = {
    "exact": (3.0, {}),
    "wide bell": (30.0, {"bell_temperature": 2.0}),
    "hard forward": (math.inf, {"bell_temperature": 2.0}),
    "official binary": (40.0, {"bell_temperature": 1.0, "bell_height": 40.0, "clamp": 10.0}),
}


def both_passes(x, steps, temperature, **options):
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    levels = torch.linspace(-1, 2, steps + 1, dtype=dtype).to(x.device)
    thresholds = torch.linspace(-0.9, 0.8, steps, dtype=dtype).to(x.device).requires_grad_()
    alpha = torch.tensor(0.7, dtype=dtype, device=x.device, requires_grad=True)
    beta = torch.tensor(1.3, dtype=dtype, device=x.device, requires_grad=True)
    x = x.detach().requires_grad_()
    y = soft_quantize(x, levels, thresholds, alpha, beta, temperature, **options)
    dy = torch.linspace(-1, 2, y.numel(), dtype=torch.float64).to(y).view(y.shape)
    return [y.detach(), *torch.autograd.grad(y, [x, alpha, beta, thresholds], dy)]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("steps", [1, 3, 15])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-11), (torch.float32, 2e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)],
)
def test_equals_the_cpu(option, steps, dtype, tolerance):
    temperature, options = OPTIONS[option]
    x = torch.randn(5, 123, 123, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    if math.isinf(temperature):  # a value within rounding of a threshold may fall on either side
        edges = torch.linspace(-0.9, 0.8, steps, dtype=torch.float64) / 1.3
        x = x[((x.double()[..., None] - edges).abs() > 1e-4).all(-1)]
    for name, a, b in zip(
        ("y", "dx", "dalpha", "dbeta", "db"),
        both_passes(x.cuda(), steps, temperature, **options),
        both_passes(x, steps, temperature, **options),
        strict=True,
    ):
        size = max(1.0, b.abs().max().item())
        torch.testing.assert_close(a.cpu(), b, rtol=0, atol=tolerance * size, msg=lambda m, name=name: f"{name}: {m}")


def test_layouts_keep_their_strides():
    x = torch.randn(4, 6, 5, 7, device="cuda")
    for view in (x.contiguous(memory_format=torch.channels_last), x.transpose(0, 2), x[::2, :, ::3], x[:0]):
        y, dx, *_ = both_passes(view, 3, 5.0)
        wanted, wanted_dx, *_ = both_passes(view.cpu(), 3, 5.0)
        assert y.stride() == wanted.stride()
        torch.testing.assert_close(y.cpu(), wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(dx.cpu(), wanted_dx, rtol=1e-4, atol=1e-5)


def test_sums_repeat_to_the_bit():
    x = torch.randn(3_000_001, device="cuda")
    first = both_passes(x, 3, 50.0)
    for again in (both_passes(x, 3, 50.0) for _ in range(5)):
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.skipif(hasattr(soft_quantize, "__wrapped__"), reason="torch.compile cannot look through the import hook")
def test_compiles_into_one_graph():
    levels, thresholds = torch.arange(4.0, device="cuda"), torch.arange(3, device="cuda") + 0.5
    alpha, beta, temperature = torch.tensor([0.5, 2.0, 5.0], device="cuda").unbind()

    def network(x):
        return soft_quantize(x.relu() * 2, levels, thresholds, alpha, beta, temperature).square().sum()

    x = torch.randn(1000, device="cuda", requires_grad=True)
    wanted = torch.autograd.grad(network(x), x)[0]
    got = torch.autograd.grad(torch.compile(network, fullgraph=True)(x), x)[0]
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_never_waits_for_the_gpu():
    levels, thresholds = torch.arange(4.0, device="cuda"), torch.arange(3, device="cuda") + 0.5
    alpha, beta, temperature = torch.tensor([0.5, 2.0, 5.0], device="cuda").unbind()
    x = torch.randn(1000, device="cuda", requires_grad=True)
    soft_quantize(x, levels, thresholds, alpha, beta, temperature).sum().backward()  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        soft_quantize(x, levels, thresholds, alpha, beta, temperature).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
