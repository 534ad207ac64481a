"""The ITID assumption on finite spaces, exactly: a task, nuisance laws, and every hypothesis there is.

Content c and label y are drawn from the *task*, P_T(c, y), the same for all data, in training and test. The nuisance z
(colour, background, pose) is drawn from a law Q(z | c, y) that may differ from datum to datum; the renderer makes the
image x = g(c, z). IID is the special case in which all Q are equal.  [ours: the paper's body is not known to us]
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from labkit.errors import InputError

TOLERANCE = 1e-9  # of probabilities that must add up to one


def _require_law(table: Tensor, what: str, total_over_all: bool) -> None:
    if not torch.is_floating_point(table) or not bool(torch.isfinite(table).all()) or bool((table < 0).any()):
        raise InputError(f"{what} must hold probabilities: finite, not negative, floating point.")
    total = table.sum() if total_over_all else table.sum(-1)
    if bool((total - 1).abs().gt(TOLERANCE).any()):
        raise InputError(f"{what} must add up to 1{'' if total_over_all else ' over z'}; got {total.flatten()[:3]}.")


@dataclass(frozen=True, eq=False)
class NuisanceLaw:
    """Q(z | c, y) as a table."""

    table: Float[Tensor, "contents labels nuisances"]

    def __post_init__(self) -> None:
        _require_law(self.table, "a nuisance law", total_over_all=False)

    @classmethod
    def by_label(cls, table: Float[Tensor, "labels nuisances"], contents: int) -> "NuisanceLaw":
        """Q(z | y), the same for every content: what a spurious correlation is."""
        return cls(table.expand(contents, *table.shape).contiguous())

    @classmethod
    def aligned(cls, rho: float, contents: int) -> "NuisanceLaw":
        """Two labels, two nuisances: z = y with probability rho."""
        if not 0 <= rho <= 1:
            raise InputError(f"rho is a probability, between 0 and 1; got {rho}.")
        return cls.by_label(torch.tensor([[rho, 1 - rho], [1 - rho, rho]], dtype=torch.float64), contents)

    @classmethod
    def points(cls, nuisance: Int[Tensor, "contents labels"], count: int) -> "NuisanceLaw":
        """All mass on one nuisance for each (c, y)."""
        return cls(torch.nn.functional.one_hot(nuisance, count).to(torch.float64))


@dataclass(frozen=True, eq=False)
class Task:
    """P_T(c, y) as a table."""

    law: Float[Tensor, "contents labels"]

    def __post_init__(self) -> None:
        _require_law(self.law, "a task", total_over_all=True)

    def joint(self, nuisance: NuisanceLaw) -> Float[Tensor, "contents labels nuisances"]:
        """P(c, y, z) = P_T(c, y) Q(z | c, y).

        Raises:
            InputError: the law belongs to another task.
        """
        if nuisance.table.shape[:2] != self.law.shape:
            raise InputError(
                f"the nuisance law is for {tuple(nuisance.table.shape[:2])} contents and labels, the task has "
                f"{tuple(self.law.shape)}."
            )
        return self.law[..., None] * nuisance.table

    def risk(
        self, losses: Float[Tensor, "hypotheses contents labels nuisances"], nuisance: NuisanceLaw
    ) -> Float[Tensor, " hypotheses"]:
        """R_Q(h) = E_(c,y) E_(z ~ Q) f_h(c, y, z), exactly."""
        return torch.einsum("cyz,hcyz->h", self.joint(nuisance), losses)

    def sample_counts(
        self, laws: list[NuisanceLaw], size: int, generator: np.random.Generator
    ) -> Float[Tensor, "contents labels nuisances"]:
        """How often each cell occurs in a sample in which datum i has the nuisance law laws[i % len(laws)]."""
        counts = np.zeros(laws[0].table.shape)
        for k, law in enumerate(laws):
            share = len(range(k, size, len(laws)))
            joint = self.joint(law).numpy()
            counts += generator.multinomial(share, joint.ravel() / joint.sum()).reshape(joint.shape)
        return torch.from_numpy(counts)


def all_hypotheses(contents: int, nuisances: int, labels: int = 2) -> Int[Tensor, "hypotheses contents nuisances"]:
    """Every map from images to labels, where each (c, z) gives another image: |Y|^(|C| |Z|) of them.

    Raises:
        InputError: there would be more than a million.
    """
    cells = contents * nuisances
    if labels**cells > 1_000_000:
        raise InputError(f"{labels}^{cells} hypotheses are too many to enumerate; a million is the limit.")
    numbers = torch.arange(labels**cells)[:, None] // labels ** torch.arange(cells - 1, -1, -1)
    return (numbers % labels).view(-1, contents, nuisances)


def zero_one(
    hypotheses: Int[Tensor, "hypotheses contents nuisances"], labels: int
) -> Float[Tensor, "hypotheses contents labels nuisances"]:
    """f_h(c, y, z) = 1[h(g(c, z)) != y]."""
    return (hypotheses[:, :, None, :] != torch.arange(labels)[:, None]).to(torch.float64)


def toy_task() -> Task:
    """Four contents, two labels, P(y = 1 | c) = .05, .2, .85, .95: the enumeration toy of the tests and figures."""
    content = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(4) * 3))
    eta = torch.tensor([0.05, 0.2, 0.85, 0.95], dtype=torch.float64)
    return Task(torch.stack([content * (1 - eta), content * eta], 1))


def random_law(task: Task, nuisances: int, concentration: float, generator: np.random.Generator) -> NuisanceLaw:
    """A nuisance law drawn from a symmetric Dirichlet distribution for each (c, y)."""
    drawn = generator.dirichlet(np.full(nuisances, concentration), size=tuple(task.law.shape))
    return NuisanceLaw(torch.from_numpy(drawn / drawn.sum(-1, keepdims=True)))
