"""The claim's counterpart: fully connected layers trained by stochastic gradient descent, as MDNet-like trackers do.

It learns from the same rows as the ridge head.  The number of steps is fixed, not the time, so that a run can be
repeated.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from labkit.papers.crt.method.ridge_head import Rivals, Rows
from labkit.ranges import within


@dataclass(frozen=True)
class Sgd:
    """Settings.  hidden = 0 is a linear head: the same function class as ridge."""

    hidden: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    decay: float = 5e-4
    batch: int = 64
    first_steps: int = 60
    steps: int = 5
    frames: int = 58  # kept beside the first one

    def __post_init__(self) -> None:
        within(0, 10_000, hidden=self.hidden)
        within(0, 1e6, learning_rate=self.learning_rate, decay=self.decay)
        within(0, 0.999, momentum=self.momentum)
        within(1, 10_000, batch=self.batch, first_steps=self.first_steps, steps=self.steps, frames=self.frames)


class SgdHead:
    """Layers of each target, trained side by side; `first`, then `update` once a frame."""

    def __init__(self, settings: Sgd, seed: int = 0) -> None:
        self.settings, self.generator = settings, torch.Generator().manual_seed(seed)

    def first(self, frames: list[Rows]) -> None:
        s = self.settings
        start = Rows(*(torch.cat(parts, 1) for parts in zip(*frames, strict=True)))
        batch, _, d = start.x.shape
        self.memory = [start]
        if s.hidden:
            first = torch.randn(d, s.hidden, generator=self.generator) / d**0.5
            last = torch.randn(s.hidden, 1, generator=self.generator) / s.hidden**0.5
            layers = [first, torch.zeros(1, s.hidden), last, torch.zeros(1, 1)]
        else:
            layers = [torch.zeros(d, 1)]
        self.layers = [p.to(start.x).expand(batch, *p.shape).clone() for p in layers]
        self.velocity = [torch.zeros_like(p) for p in self.layers]
        self._descend(s.first_steps)

    def score(self, x: Float[Tensor, "batch n d"]) -> Float[Tensor, "batch n"]:
        return self._forward(self.layers, x)

    @staticmethod
    def _forward(layers: list[Tensor], x: Tensor) -> Tensor:
        if len(layers) == 1:
            return (x @ layers[0])[..., 0]
        first, bias, last, offset = layers
        return (F.relu(x @ first + bias) @ last + offset)[..., 0]

    def update(self, rows: Rows, counts: Float[Tensor, " batch"], rivals: Rivals | None) -> None:
        """See `Head`.  Rivals are not mined here."""
        self.memory.append(rows._replace(omega=rows.omega * counts[:, None]))
        self.memory = self.memory[:1] + self.memory[1:][-self.settings.frames :]
        self._descend(self.settings.steps)

    def _descend(self, steps: int) -> None:
        """Steps on batches of rows, drawn with their weights; the first frame's never below a quarter in all."""
        s = self.settings
        x, y = (torch.cat([getattr(rows, name) for rows in self.memory], 1) for name in ("x", "y"))
        late = torch.cat([rows.omega for rows in self.memory[1:]], 1) if len(self.memory) > 1 else None
        first = self.memory[0].omega / self.memory[0].omega.sum(1, keepdim=True)
        share = 0.25 if late is None else max(0.25, 1 / len(self.memory))
        omega = first if late is None else torch.cat([share * first, (1 - share) * _normalized(late)], 1)
        chosen = torch.multinomial(omega.cpu(), s.batch * steps, replacement=True, generator=self.generator)
        for at in chosen.to(x.device).chunk(steps, 1):
            layers = [p.detach().requires_grad_() for p in self.layers]
            with torch.enable_grad():
                picked = x.gather(1, at[..., None].expand(-1, -1, x.shape[2]))
                loss = (self._forward(layers, picked) - y.gather(1, at)).square().mean(1).sum()
                gradients = torch.autograd.grad(loss, layers)
            for k, (p, g) in enumerate(zip(layers, gradients, strict=True)):
                decay = s.decay if s.hidden else 0.0
                self.velocity[k] = s.momentum * self.velocity[k] + g + decay * p.detach()
                self.layers[k] = p.detach() - s.learning_rate * self.velocity[k]


def _normalized(omega: Tensor) -> Tensor:
    return omega / omega.sum(1, keepdim=True).clamp_min(1e-9)
