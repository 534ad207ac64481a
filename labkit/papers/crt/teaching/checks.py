"""Properties that hold exactly.  One check, three uses: test, exercise, and wrong answers that must not pass."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from labkit.metrics.tracking import max_gm
from labkit.papers.crt.method import ridge
from labkit.papers.crt.method.convolution import Convolution, Regression


def problem(n: int = 12, d: int = 40, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random rows and labels, float64."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return x, torch.randn(n, generator=generator, dtype=torch.float64)


# -- ridge ------------------------------------------------------------------------------------------------------------


def check_ridge(solve: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """The gradient of |Xw - y|^2 + lam |w|^2 vanishes at w; for more features than rows and the other way round."""
    for n, d, lam in ((12, 40, 0.3), (40, 12, 2.0)):
        x, y = problem(n, d)
        w = torch.as_tensor(solve(x, y, lam))
        assert w.shape == (d,), f"w must have one entry per feature, {d}; got shape {tuple(w.shape)}"
        gradient = x.T @ (x @ w - y) + lam * w
        assert gradient.abs().max() < 1e-8, f"the gradient at your w is {float(gradient.abs().max()):.2g}, not 0"


def check_uses_small_system(solve: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """The dual: with 6 rows and 1000 features nothing of size 1000 x 1000 may appear."""
    x, y = problem(6, 1000)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else (result,):
                if isinstance(tensor, Tensor):
                    largest = max(largest, tensor.numel())
            return result

    with Watch():
        w = solve(x, y, 0.1)
    assert largest <= 100_000, f"a tensor with {largest:,} entries appears; the dual solves a 6 x 6 system"
    torch.testing.assert_close(w, ridge.fit(x[None], y[None], 0.1)[0], rtol=1e-8, atol=1e-10)


def check_logistic(fit: Callable[[Tensor, Tensor, float, int], Tensor]) -> None:
    """Labels 0 and 1: the gradient of sum log(1 + exp(-(2y - 1) x w)) + lam/2 |w|^2 vanishes after 25 steps."""
    x, _ = problem(30, 8)
    y = (x[:, 0] + 0.5 * x[:, 1] > 0).double()
    lam = 0.5
    w = torch.as_tensor(fit(x, y, lam, 25))
    gradient = x.T @ (torch.sigmoid(x @ w) - y) + lam * w
    assert gradient.abs().max() < 1e-6, f"the gradient at your w is {float(gradient.abs().max()):.2g}, not 0"


# -- pooling ----------------------------------------------------------------------------------------------------------


def check_phi(phi: Callable[[Tensor], Tensor]) -> None:
    """Phi(u) is the integral of the hat function up to u: compared with a fine sum, on both sides of -1, 0, 1."""
    at = torch.linspace(-2, 2, 4001, dtype=torch.float64)
    hat = (1 - at.abs()).clamp_min(0)
    summed = torch.cumulative_trapezoid(hat, at)
    result = phi(at)[1:]
    worst = (result - summed).abs()
    k = int(worst.argmax())
    assert worst.max() < 1e-5, (
        f"at u = {float(at[k + 1]):.2f} the integral is {float(summed[k]):.4f}, yours {float(result[k]):.4f}"
    )


# -- pixels -----------------------------------------------------------------------------------------------------------


def check_pixel(pixel: Callable[[int, int, int], float]) -> None:
    """A filter that copies one cell: the score's maximum must come back at that cell's middle, for any kernel's
    size.
    """
    for kernel, stride, cell in ((7, 4, 11), (4, 4, 11), (4, 16, 5), (1, 8, 3)):
        cells = 24
        regression = Regression(Convolution(kernel=kernel), 1, torch.ones(1, 2))
        x = torch.zeros(1, 1, cells, cells)
        x[0, 0, cell, cell] = 1
        regression.filter = torch.ones(1, 1, kernel, kernel)
        scores = regression.score(x)[0]
        answer = (scores > 0.5).nonzero().float()
        middle = float(answer[:, 0].mean())  # of all places at which the window covers the cell
        low, high = math.floor(middle), math.ceil(middle)
        result = (pixel(low, kernel, stride) + pixel(high, kernel, stride)) / 2
        wanted = (cell + 0.5) * stride
        assert abs(result - wanted) < 1e-6, (
            f"kernel {kernel}, stride {stride}: the cell's middle is pixel {wanted}, yours {result}"
        )


# -- measures ---------------------------------------------------------------------------------------------------------


def check_max_gm(answer: Callable[[float, float], float]) -> None:
    """max over p of sqrt((1 - p) TPR ((1 - p) TNR + p)), for trackers that never, seldom and often say 'absent'."""
    for tpr, tnr in ((1.0, 0.0), (0.8, 0.2), (0.6, 0.45), (0.7, 0.9), (0.4, 0.5)):
        result, wanted = float(answer(tpr, tnr)), max_gm(tpr, tnr)
        assert abs(result - wanted) < 1e-3, f"TPR {tpr}, TNR {tnr}: the maximum is {wanted:.3f}, yours {result:.3f}"
