"""Gauss-Newton with conjugate gradient for any residual function: Jacobians act by double backpropagation, never
formed.

    minimise 1/2 |r(w)|^2;   (J^T J) dw = -J^T r,   w <- w + dw                                     [peer code: ATOM]

Several independent problems are solved side by side: every tensor has a first axis for them, and every inner product
leaves that axis alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from labkit.errors import InputError

Tensors = list[Tensor]
Residuals = Callable[[Tensors], Tensors]


@dataclass
class Trace:
    """How the solver went: 1/2 |r|^2 before each Gauss-Newton step, and |gradient of the model|^2 before each CG
    step.
    """

    losses: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)


def inner(a: Tensors, b: Tensors) -> Tensor:
    """<a, b> of each problem: (problems,)."""
    return torch.stack([(x * y).flatten(1).sum(1) for x, y in zip(a, b, strict=True)]).sum(0)


def gauss_newton(
    residuals: Residuals,
    parameters: Tensors,
    steps: Sequence[int],
    beta: str = "PR",
    precondition: Sequence[float] | None = None,
    trace: Trace | None = None,
) -> Tensors:
    """Improve `parameters` by one Gauss-Newton step per entry of `steps`, of so many CG steps each.

    Args:
        residuals: from parameters to residual tensors; differentiable, each with the problems' axis first.
        beta: Polak-Ribiere max(0, <z, g - g'> / rho') or Fletcher-Reeves rho / rho'; equal where r is linear.
        precondition: what each parameter's gradient is divided by, ATOM's diag(lam); None: nothing.

    Returns:
        new tensors; what was given is unchanged.
    """
    if beta not in ("PR", "FR"):
        raise InputError(f"beta must be PR or FR; got {beta!r}")
    if precondition is not None and (len(precondition) != len(parameters) or min(precondition) <= 0):
        raise InputError(
            f"precondition needs one positive number per parameter ({len(parameters)}); got {precondition}"
        )
    scales = list(precondition or [1.0] * len(parameters))
    with torch.enable_grad():
        for count in steps:
            parameters = [p.detach().requires_grad_() for p in parameters]
            delta = _conjugate_gradient(residuals(parameters), parameters, count, beta, scales, trace)
            parameters = [(p + d).detach() for p, d in zip(parameters, delta, strict=True)]
    return [p.detach() for p in parameters]


def normal_product(r: Tensors, parameters: Tensors) -> Callable[[Tensors], Tensors]:
    """The function p -> J^T J p, where J is the Jacobian of the residuals r.  J itself is never formed."""
    probes = [torch.zeros_like(x, requires_grad=True) for x in r]
    transposed = torch.autograd.grad(r, parameters, probes, create_graph=True)  # J^T v, linear in v

    def apply(p: Tensors) -> Tensors:
        forward = torch.autograd.grad(transposed, probes, p, retain_graph=True)  # J p
        return list(torch.autograd.grad(r, parameters, forward, retain_graph=True))  # J^T (J p)

    return apply


def _conjugate_gradient(
    r: Tensors, parameters: Tensors, count: int, beta: str, scales: list[float], trace: Trace | None
) -> Tensors:
    """Approximate solution of (J^T J) d = -J^T r after `count` steps, from d = 0."""
    at = [x.detach() for x in r]
    apply = normal_product(r, parameters)
    g = [-x for x in torch.autograd.grad(r, parameters, at, retain_graph=True)]
    if trace is not None:
        trace.losses.append(inner(at, at) / 2)
    d, p, before = [torch.zeros_like(x) for x in g], None, g
    rho = torch.ones_like(inner(g, g))
    for _ in range(count):
        if trace is not None:
            trace.gradients.append(inner(g, g))
        z = [x / s for x, s in zip(g, scales, strict=True)]
        rho_before, rho = rho, inner(g, z)
        if p is None:
            p = z
        else:
            change = rho - inner(z, before) if beta == "PR" else rho
            p = _add(z, p, (change / rho_before.clamp_min(1e-30)).clamp_min(0))
        q = apply(p)
        alpha = rho / inner(p, q).clamp_min(1e-30)
        before = g
        d, g = _add(d, p, alpha), _add(g, q, -alpha)
    return d


def _add(a: Tensors, b: Tensors, factor: Tensor) -> Tensors:
    """a + factor b, the factor of each problem its own."""
    return [x + factor.reshape(-1, *[1] * (y.dim() - 1)) * y for x, y in zip(a, b, strict=True)]
