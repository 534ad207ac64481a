"""Linear models, quadratic reward, a linear-Gaussian policy: V is a quadratic, and u has a closed form. Float64.

    s' = A_k s + B_k a,   r(s, a) = -(s'Q s + a'R a),   a = -F s + sigma * noise

The sampled code of `uncertainty` must give the same numbers where it is fed with this value function.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError


@dataclass(frozen=True, eq=False)
class LinearEnsemble:
    """K linear models of one system, its cost and the policy.

    Args:
        a, b: A_k and B_k. cost_state, cost_action: Q and R, symmetric.
        gain: F of the policy. std: sigma, of every action component.
    """

    a: Float[Tensor, "members state state"]
    b: Float[Tensor, "members state action"]
    cost_state: Float[Tensor, "_ _"]  # state, state
    cost_action: Float[Tensor, "_ _"]  # action, action
    gain: Float[Tensor, "_ _"]  # action, state; whether they fit is said in words
    std: float
    gamma: float

    def __post_init__(self) -> None:
        members, state, action = self.b.shape
        wanted = {
            "a": (members, state, state),
            "cost_state": (state, state),
            "cost_action": (action, action),
            "gain": (action, state),
        }
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise InputError(f"{name} must be {shape} to fit b {tuple(self.b.shape)}; got "
                                 f"{tuple(getattr(self, name).shape)}.")  # fmt: skip

    def next_states(
        self, state: Float[Tensor, "*batch state"], action: Float[Tensor, "*batch action"]
    ) -> Float[Tensor, "*batch members state"]:
        """What each model says comes next."""
        return torch.einsum("kij,...j->...ki", self.a, state) + torch.einsum("kij,...j->...ki", self.b, action)

    def reward(
        self, state: Float[Tensor, "*batch state"], action: Float[Tensor, "*batch action"]
    ) -> Float[Tensor, "*batch"]:
        return -quadratic(self.cost_state, state) - quadratic(self.cost_action, action)


def example(members: int = 5, seed: int = 0) -> LinearEnsemble:
    """A damped double integrator in two dimensions, every model a little wrong."""
    generator = torch.Generator().manual_seed(seed)
    eye, zero = torch.eye(2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    a = torch.cat([torch.cat([eye, 0.1 * eye], 1), torch.cat([zero, 0.95 * eye], 1)])
    b = torch.cat([zero, 0.1 * eye])
    a = a + 0.02 * torch.randn(members, 4, 4, generator=generator, dtype=torch.float64)
    b = b + 0.02 * torch.randn(members, 4, 2, generator=generator, dtype=torch.float64)
    return LinearEnsemble(a, b, torch.eye(4, dtype=torch.float64), 0.1 * eye, torch.cat([eye, eye], 1), 0.2, 0.97)


def quadratic(matrix: Float[Tensor, "n n"], x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """x' M x."""
    return ((x @ matrix) * x).sum(-1)


def value_functions(models: LinearEnsemble, horizon: int) -> tuple[Float[Tensor, "steps n n"], Float[Tensor, " steps"]]:
    """V^h(s) = -(s' P_h s + c_h) of the mean model for h = 0..horizon, backwards from P = 0, c = 0.

    P_h = Q + F'R F + gamma (A - B F)' P_{h+1} (A - B F)
    c_h = sigma^2 tr(R) + gamma (c_{h+1} + sigma^2 tr(B' P_{h+1} B))
    """
    a, b = models.a.mean(0), models.b.mean(0)
    closed = a - b @ models.gain
    stage = models.cost_state + models.gain.T @ models.cost_action @ models.gain
    p, c = [torch.zeros_like(stage)], [torch.zeros((), dtype=stage.dtype)]
    for _ in range(horizon):
        noise = models.std**2 * (models.cost_action + models.gamma * b.T @ p[0] @ b).trace()
        c.insert(0, noise + models.gamma * c[0])
        p.insert(0, stage + models.gamma * closed.T @ p[0] @ closed)
    return torch.stack(p), torch.stack(c)


def value(models: LinearEnsemble, p: Tensor, c: Tensor, state: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """-(s'Ps + c), with one of the pairs of `value_functions`."""
    return -(quadratic(p, state) + c)


def local_uncertainty_matrices(models: LinearEnsemble, p: Float[Tensor, "n n"]) -> Float[Tensor, "members m m"]:
    """G_k with u(s, a) = Var_k[ z' G_k z ], z = (s, a): the quadratic forms of gamma V(A_k s + B_k a)."""
    joint = torch.cat([models.a, models.b], -1)  # (members, state, state + action)
    return -models.gamma * joint.mT @ p @ joint


def closed_form_uncertainty(
    models: LinearEnsemble,
    states: Float[Tensor, "*batch steps state"],
    actions: Float[Tensor, "*batch steps action"],
) -> Float[Tensor, "*batch steps"]:
    """U along trajectories of full length: u_t = Var_k[z' G_k z], then U_t = u_t + gamma^2 U_{t+1}, U_T = 0."""
    horizon = states.shape[-2]
    p, _ = value_functions(models, horizon)
    z = torch.cat([states, actions], -1)
    total = torch.zeros(states.shape[:-2], dtype=states.dtype)
    uncertainties: list[Tensor] = []
    for t in reversed(range(horizon)):
        forms = torch.stack([quadratic(g, z[..., t, :]) for g in local_uncertainty_matrices(models, p[t + 1])], -1)
        total = forms.var(-1, correction=0) + models.gamma**2 * total
        uncertainties.insert(0, total)
    return torch.stack(uncertainties, -1)
