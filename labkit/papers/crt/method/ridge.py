"""Ridge regression in closed form: the learner of stage 2.  lam is meaningless unless rows have length 1 and weights
sum to 1.

    min_w  |Omega^(1/2) (X w - y)|^2 + lam |w - w_0|^2,      Omega = diag(omega), Z = Omega^(1/2) X

    primal, d x d:    w = w_0 + (Z^T Z + lam I)^-1 Z^T Omega^(1/2) (y - X w_0)         n d^2 + d^3/3 operations
    dual,   n x n:    w = w_0 + Z^T (Z Z^T + lam I)^-1 Omega^(1/2) (y - X w_0)         n^2 d + n^3/3
    running Gram:     A <- (1 - eta) A + eta Z^T Z, b likewise: memory and cost do not grow with the history [peer
    code: DCFST]

Everything is batched: a first axis holds independent problems (targets that are tracked side by side).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError


def solve_spd(a: Float[Tensor, "*batch n n"], b: Float[Tensor, "*batch n k"]) -> Float[Tensor, "*batch n k"]:
    """a^-1 b of a symmetric positive definite a, by Cholesky.

    Where rounding has made a float32 matrix indefinite, once more in float64 with that rounding's size on the diagonal.
    """
    factor, failed = torch.linalg.cholesky_ex(a)
    if not bool(failed.any()):
        return torch.cholesky_solve(b, factor)
    wide = a.double()
    rounding = 1e-7 * wide.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    wide = wide + rounding * torch.eye(a.shape[-1], dtype=wide.dtype, device=a.device)
    factor, failed = torch.linalg.cholesky_ex(wide)
    if bool(failed.any()):
        raise InputError("the system is not positive definite: lam must be positive and features finite")
    return torch.cholesky_solve(b.double(), factor).to(b.dtype)


def _check(x: Tensor, y: Tensor, lam: float, omega: Tensor) -> None:
    if lam <= 0:
        raise InputError(f"lam must be positive; got {lam}")
    if y.shape != x.shape[:-1] or omega.shape != y.shape:
        raise InputError(
            f"X {tuple(x.shape)}, y {tuple(y.shape)} and omega {tuple(omega.shape)} must agree: (batch, n, d), "
            f"(batch, n) twice"
        )
    if bool((omega < 0).any()):
        raise InputError("a weight omega is negative; a weight of 0 leaves a row out")


def fit(
    x: Float[Tensor, "batch n d"],
    y: Float[Tensor, "batch n"],
    lam: float,
    omega: Tensor | None = None,
    anchor: Float[Tensor, "batch d"] | None = None,
    form: str = "auto",
) -> Float[Tensor, "batch d"]:
    """The minimiser of the module's objective.

    Args:
        omega: weights of the rows, (batch, n); None: all 1.
        anchor: w_0, where the solution is pulled to; None: 0.  With the previous solution as anchor only new rows
            need to be in X: a reading of the paper's "adaptive ridge regression" [ours].
        form: primal, dual, or the cheaper one.
    """
    omega = torch.ones_like(y) if omega is None else omega
    _check(x, y, lam, omega)
    if form not in ("auto", "primal", "dual"):
        raise InputError(f"form must be auto, primal or dual; got {form!r}")
    root = omega.sqrt()[..., None]
    z, wanted = root * x, y if anchor is None else y - (x @ anchor[..., None])[..., 0]
    right = root * wanted[..., None]
    n, d = x.shape[-2:]
    w = (dual if form == "dual" or (form == "auto" and n < d) else primal)(z, right, lam)
    return w[..., 0] if anchor is None else w[..., 0] + anchor


def primal(z: Float[Tensor, "batch n d"], t: Float[Tensor, "batch n 1"], lam: float) -> Float[Tensor, "batch d 1"]:
    """w = (Z^T Z + lam I)^-1 Z^T t: a system of d equations."""
    return solve_spd(z.mT @ z + _diagonal(lam, z.shape[-1], z), z.mT @ t)


def dual(z: Float[Tensor, "batch n d"], t: Float[Tensor, "batch n 1"], lam: float) -> Float[Tensor, "batch d 1"]:
    """w = Z^T (Z Z^T + lam I)^-1 t: a system of n equations, the same w."""
    return z.mT @ solve_spd(z @ z.mT + _diagonal(lam, z.shape[-2], z), t)


def _diagonal(lam: float, n: int, like: Tensor) -> Tensor:
    return lam * torch.eye(n, dtype=like.dtype, device=like.device)


def dual_coefficients(
    x: Float[Tensor, "batch n d"],
    y: Float[Tensor, "batch n"],
    lam: float,
    omega: Float[Tensor, "batch n"] | None = None,
) -> Float[Tensor, "batch n"]:
    """alpha = (Z Z^T + lam I)^-1 Omega^(1/2) y.  It is the weighted residual: lam alpha = Omega^(1/2) (y - X w)."""
    omega = torch.ones_like(y) if omega is None else omega
    _check(x, y, lam, omega)
    z = omega.sqrt()[..., None] * x
    return solve_spd(z @ z.mT + _diagonal(lam, x.shape[-2], x), (omega.sqrt() * y)[..., None])[..., 0]


def leave_one_out(
    x: Float[Tensor, "batch n d"],
    y: Float[Tensor, "batch n"],
    lam: float,
    omega: Float[Tensor, "batch n"] | None = None,
) -> Float[Tensor, "batch n"]:
    """y_i - x_i w_(-i) for every i, from one fit: alpha_i / ([K^-1]_ii omega_i^(1/2)), K = Z Z^T + lam I."""
    omega = torch.ones_like(y) if omega is None else omega
    _check(x, y, lam, omega)
    if bool((omega == 0).any()):
        raise InputError("leave_one_out needs positive weights: take rows of weight 0 out")
    z = omega.sqrt()[..., None] * x
    identity = torch.eye(x.shape[-2], dtype=x.dtype, device=x.device).expand(*z.shape[:-2], -1, -1)
    inverse = solve_spd(z @ z.mT + lam * identity, identity)
    alpha = (inverse @ (omega.sqrt() * y)[..., None])[..., 0]
    return alpha / (inverse.diagonal(dim1=-2, dim2=-1) * omega.sqrt())


def hardness_weights(
    omega: Float[Tensor, "batch n"], residual: Float[Tensor, "batch n"], gamma: float, eps: float = 0.05
) -> Float[Tensor, "batch n"]:
    """omega_i (|residual_i| + eps)^gamma, summing to 1: one step of iteratively re-weighted least squares [ours].

    gamma = 0 is plain ridge.  Another reading of "adaptive": what the last solution gets wrong weighs more.
    """
    weighted = omega * (residual.abs() + eps) ** gamma
    return weighted / weighted.sum(-1, keepdim=True)


class RunningGram:
    """A = Z^T Z and b = Z^T Omega^(1/2) y of all frames seen, older ones fading.

    The first frame never below a share.
    """

    def __init__(self, first: tuple[Tensor, Tensor], keep_first: float = 0.25) -> None:
        """first: A (batch, d, d) and b (batch, d) of the first frame, see `gram`."""
        self.first_a, self.first_b = first
        self.a, self.b = self.first_a.clone(), self.first_b.clone()
        self.keep_first = keep_first

    def update(
        self, x: Float[Tensor, "batch n d"], y: Float[Tensor, "batch n"], omega: Float[Tensor, "batch n"],
        eta: Float[Tensor, " batch"],
    ) -> None:  # fmt: skip
        """A <- (1 - eta) A + eta Z^T Z; a target whose eta is 0 learns nothing.

        eta raised for a hard frame is DCFST's way.
        """
        a, b = gram(x, y, omega)
        self.a = torch.lerp(self.a, a, eta[:, None, None])
        self.b = torch.lerp(self.b, b, eta[:, None])

    def solve(self, lam: float, extra: Float[Tensor, "batch d d"] | None = None) -> Float[Tensor, "batch d"]:
        """w of the mixture of now and the first frame; `extra` is added to A (rows whose label is 0)."""
        a = torch.lerp(self.a, self.first_a, self.keep_first)
        b = torch.lerp(self.b, self.first_b, self.keep_first)
        a = a if extra is None else a + extra
        return solve_spd(a + _diagonal(lam, a.shape[-1], a), b[..., None])[..., 0]


def gram(
    x: Float[Tensor, "batch n d"], y: Float[Tensor, "batch n"], omega: Float[Tensor, "batch n"]
) -> tuple[Float[Tensor, "batch d d"], Float[Tensor, "batch d"]]:
    """Z^T Z and Z^T Omega^(1/2) y."""
    weighted = x * omega[..., None]
    return weighted.mT @ x, (weighted * y[..., None]).sum(-2)
