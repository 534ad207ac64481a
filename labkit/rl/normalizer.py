"""Running mean and standard deviation of a stream, merged batch by batch (Chan, Golub and LeVeque)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import InputError


class RunningNormalizer(nn.Module):
    """x -> clip((x - mean) / max(std, floor), -clip, clip), with the mean and std of all updates so far.

    Statistics are kept per copy as (count, mean, M2) with M2 the sum of squared deviations, in float64. Before the
    first update the mean is 0 and the std 1. A buffer-only module: `state_dict` carries it through checkpoints.

    Args:
        size: numbers per observation (the last dimension).
        copies: of the statistics; inputs are (copies, ..., size).
        floor: least standard deviation; a constant component is not blown up.
        clip: bound of the normalized value. raw_clip: bound of the value before, None for none. Floor .01, clip 5 and
            raw clip 200 are those of [official code].
    """

    count: Tensor
    mean: Tensor
    m2: Tensor

    def __init__(
        self, size: int, *, copies: int, floor: float = 0.01, clip: float = 5.0, raw_clip: float | None = None
    ) -> None:
        super().__init__()
        if size < 1 or copies < 1:
            raise InputError(f"size and copies must be at least 1; got size {size}, copies {copies}.")
        if not floor > 0 or not clip > 0 or (raw_clip is not None and not raw_clip > 0):
            raise InputError(f"floor, clip and raw_clip must be above 0; got {floor}, {clip}, {raw_clip}.")
        self.size, self.copies, self.floor, self.clip, self.raw_clip = size, copies, floor, clip, raw_clip
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))  # the same for all copies
        self.register_buffer("mean", torch.zeros(copies, size, dtype=torch.float64))
        self.register_buffer("m2", torch.zeros(copies, size, dtype=torch.float64))

    @property
    def std(self) -> Float[Tensor, "copies size"]:
        """Population standard deviation, at least `floor`; 1 before the first update."""
        spread = (self.m2 / self.count.clamp(min=1)).sqrt().clamp(min=self.floor)
        return torch.where(self.count > 0, spread, torch.ones_like(spread))

    @torch.no_grad()
    def update(self, x: Float[Tensor, "copies *batch size"]) -> None:
        """Add a batch to the statistics."""
        rows = self._prepared(x).to(self.mean.dtype).reshape(self.copies, -1, self.size)
        number = rows.shape[1]
        if number == 0:
            return
        mean = rows.mean(1)
        total = self.count + number
        weight = (total - self.count) / total
        shift = mean - self.mean
        self.m2 += ((rows - mean.unsqueeze(1)) ** 2).sum(1) + shift**2 * self.count * weight
        self.mean += shift * weight
        self.count.copy_(total)

    def normalize(self, x: Float[Tensor, "copies *batch size"]) -> Float[Tensor, "copies *batch size"]:
        """Centred and scaled, float32; differentiable in x."""
        x = self._prepared(x)
        shape = (self.copies, *[1] * (x.dim() - 2), self.size)
        mean, std = self.mean.view(shape).float(), self.std.view(shape).float()
        return ((x.float() - mean) / std).clamp(-self.clip, self.clip)

    def _prepared(self, x: Tensor) -> Tensor:
        if x.dim() < 2 or len(x) != self.copies or x.shape[-1] != self.size:
            raise InputError(f"observations must be ({self.copies}, ..., {self.size}); got {tuple(x.shape)}.")
        return x if self.raw_clip is None else x.clamp(-self.raw_clip, self.raw_clip)
