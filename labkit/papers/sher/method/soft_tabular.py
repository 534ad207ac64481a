"""Maximum-entropy control solved exactly by dynamic programming, for finitely many states and actions.

    V(s) = alpha log sum_a exp(Q(s,a) / alpha),   Q(s,a) = r(s,a) + gamma V(s'),   pi = softmax(Q / alpha)

Dynamics are deterministic; a task is a table of successors and a table of rewards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from labkit.errors import InputError


@dataclass(frozen=True)
class Task:
    """successor[s, a] and reward[s, a]: next state and reward of action a in state s."""

    successor: Int[Tensor, "states actions"]
    reward: Float[Tensor, "states actions"]

    @property
    def actions(self) -> int:
        return self.successor.shape[1]


@dataclass(frozen=True)
class Solution:
    """Values and their policy."""

    v: Float[Tensor, " states"]
    q: Float[Tensor, "states actions"]
    policy: Float[Tensor, "states actions"]

    @property
    def entropy(self) -> Float[Tensor, " states"]:
        """Of the policy, in nats."""
        return -torch.special.xlogy(self.policy, self.policy).sum(-1)


def bit_flip(bits: int, stay: bool = False) -> Task:
    """State s: which of the bits differ from the goal, as a binary number; the goal is 0. Action a flips bit a.

    stay: one more action that flips nothing; without it the goal cannot be held.

    Raises:
        InputError: fewer than 1 bit, or more than 14 (a table of 2^n rows).
    """
    if not 1 <= bits <= 14:
        raise InputError(f"bits must lie between 1 and 14; got {bits}.")
    states = torch.arange(2**bits)
    flips = torch.tensor([1 << a for a in range(bits)] + [0] * stay)
    successor = states[:, None] ^ flips
    return Task(successor, -(successor != 0).double())


def grid(rows: Sequence[str]) -> tuple[Task, Int[Tensor, "cells 2"]]:
    """A maze in text: '#' wall, 'G' goal, '.' free; actions up, down, left, right, stay. Also (row, column) of cells.

    Raises:
        InputError: not exactly one goal, or rows of unequal length.
    """
    if len({len(row) for row in rows}) != 1 or sum(row.count("G") for row in rows) != 1:
        raise InputError("a grid needs rows of one length and exactly one 'G'.")
    cells = [(r, c) for r, row in enumerate(rows) for c, mark in enumerate(row) if mark != "#"]
    number = {cell: k for k, cell in enumerate(cells)}
    goal = next(number[(r, c)] for r, c in cells if rows[r][c] == "G")
    moves = ((-1, 0), (1, 0), (0, -1), (0, 1), (0, 0))
    successor = torch.tensor([[number.get((r + dr, c + dc), number[(r, c)]) for dr, dc in moves] for r, c in cells])
    return Task(successor, -(successor != goal).double()), torch.tensor(cells)


def _check(alpha: float, gamma: float) -> None:
    if not alpha > 0:
        raise InputError(f"the temperature alpha must be above 0 here; got {alpha}. For alpha = 0 use hard_values.")
    if not 0 <= gamma < 1:
        raise InputError(f"gamma must lie in [0, 1); got {gamma}.")


def soft_values(task: Task, alpha: float, gamma: float, clip: bool = False, tolerance: float = 1e-12) -> Solution:
    """Soft value iteration to its fixed point (a contraction by gamma).

    clip: targets r + gamma V are cut to [-1 / (1 - gamma), 0], as the released code does. [official code]
    """
    _check(alpha, gamma)
    v = torch.zeros(len(task.successor), dtype=torch.float64)
    while True:
        q = task.reward + gamma * v[task.successor]
        if clip:
            q = q.clamp(-1 / (1 - gamma), 0.0)
        new = alpha * torch.logsumexp(q / alpha, -1)
        if float((new - v).abs().max()) <= tolerance:
            return Solution(new, q, torch.softmax(q / alpha, -1))
        v = new


def hard_values(task: Task, gamma: float, tolerance: float = 1e-12) -> Solution:
    """Ordinary value iteration; the policy spreads evenly over the best actions."""
    _check(1.0, gamma)
    v = torch.zeros(len(task.successor), dtype=torch.float64)
    while True:
        q = task.reward + gamma * v[task.successor]
        new = q.amax(-1)
        if float((new - v).abs().max()) <= tolerance:
            best = ((q - new[:, None]).abs() < 1e-9).double()
            return Solution(new, q, best / best.sum(-1, keepdim=True))
        v = new


def evaluate_policy(
    task: Task, policy: Float[Tensor, "states actions"], alpha: float, gamma: float
) -> Float[Tensor, " states"]:
    """Soft value of any policy by one linear solve: (I - gamma P) V = E_pi[r] + alpha H(pi)."""
    states = len(task.successor)
    transition = torch.zeros(states, states, dtype=torch.float64)
    transition.scatter_add_(1, task.successor, policy)
    reward = (policy * task.reward).sum(-1) - alpha * torch.special.xlogy(policy, policy).sum(-1)
    return torch.linalg.solve(torch.eye(states, dtype=torch.float64) - gamma * transition, reward)


def gap_bound(task: Task, alpha: float, gamma: float) -> float:
    """0 <= V_soft - V_hard <= alpha log|A| / (1 - gamma): the largest possible entropy bonus."""
    return alpha * float(torch.tensor(float(task.actions)).log()) / (1 - gamma)


def posterior_policy(task: Task, alpha: float, horizon: int) -> Float[Tensor, "horizon states actions"]:
    """p(a_t | s_t, O_t..O_T = 1) with p(O = 1) = exp(r / alpha), a uniform prior over actions, by messages backwards.

    Exactly softmax(Q_t / alpha) of finite-horizon soft backups without discount: control *is* inference here.
    """
    _check(alpha, 0.0)
    message = torch.zeros(len(task.successor), dtype=torch.float64)  # log p(O_t.. = 1 | s_t), after the end
    policies = []
    for _ in range(horizon):
        joint = task.reward / alpha + message[task.successor]
        policies.append(torch.softmax(joint, -1))
        message = torch.logsumexp(joint, -1) - torch.tensor(float(task.actions), dtype=torch.float64).log()
    return torch.stack(policies[::-1])
