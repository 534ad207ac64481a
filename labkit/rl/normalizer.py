"""Running mean and standard deviation of a stream, merged batch by batch (Chan, Golub and LeVeque)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import InputError


class RunningNormalizer(nn.Module):
    """x -> clip((x - mean) / max(std, floor), -clip, clip), with the mean and std of everything seen so far.

    Statistics are kept as (count, mean, M2) with M2 the sum of squared deviations, in float64; before anything was seen
    mean is 0 and std 1. A buffer-only module: `state_dict` carries it through checkpoints.

    Args:
        size: numbers per observation (the last dimension).
        copies: None: one statistic. N: one per copy, and inputs are (N, ..., size).
        floor: least standard deviation; a constant component is not blown up.
        clip: bound of the normalised value. raw_clip: bound of the value before, None for none. Floor .01, clip 5 and
            raw clip 200 are those of [official code].
    """

    count: Tensor
    mean: Tensor
    m2: Tensor

    def __init__(
        self,
        size: int,
        *,
        copies: int | None = None,
        floor: float = 0.01,
        clip: float = 5.0,
        raw_clip: float | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        if size < 1 or (copies is not None and copies < 1):
            raise InputError(f"size and copies must be at least 1; got size {size}, copies {copies}.")
        if not floor > 0 or not clip > 0 or (raw_clip is not None and not raw_clip > 0):
            raise InputError(f"floor, clip and raw_clip must be above 0; got {floor}, {clip}, {raw_clip}.")
        self.size, self.copies, self.floor, self.clip, self.raw_clip = size, copies, floor, clip, raw_clip
        lead = () if copies is None else (copies,)
        self.register_buffer("count", torch.zeros((), dtype=dtype))  # all copies have seen equally much
        self.register_buffer("mean", torch.zeros(*lead, size, dtype=dtype))
        self.register_buffer("m2", torch.zeros(*lead, size, dtype=dtype))

    @property
    def std(self) -> Float[Tensor, "*copies size"]:
        """Population standard deviation, at least `floor`; 1 before anything was seen."""
        spread = (self.m2 / self.count.clamp(min=1)).sqrt().clamp(min=self.floor)
        return torch.where(self.count > 0, spread, torch.ones_like(spread))

    @torch.no_grad()
    def update(self, x: Float[Tensor, "*shape size"]) -> None:
        """Take in a batch: every leading dimension (but that of the copies) counts as one more observation."""
        x = self._prepared(x).to(self.mean.dtype)
        rows = x.reshape(-1, self.size) if self.copies is None else x.reshape(self.copies, -1, self.size)
        number = rows.shape[-2]
        if number == 0:
            return
        mean = rows.mean(-2)
        m2 = ((rows - mean.unsqueeze(-2)) ** 2).sum(-2)
        self._combine(torch.as_tensor(float(number), dtype=self.mean.dtype, device=self.mean.device), mean, m2)

    def merge(self, other: "RunningNormalizer") -> None:
        """Take in everything that `other` has seen."""
        if other.mean.shape != self.mean.shape:
            raise InputError(f"statistics of shape {tuple(other.mean.shape)} do not fit {tuple(self.mean.shape)}.")
        self._combine(other.count.to(self.count), other.mean.to(self.mean), other.m2.to(self.m2))

    def _combine(self, count: Tensor, mean: Tensor, m2: Tensor) -> None:
        total = self.count + count
        weight = count / total.clamp(min=1)
        shift = mean - self.mean
        self.m2 += m2 + shift**2 * self.count * weight
        self.mean += shift * weight
        self.count.copy_(total)

    def normalize(self, x: Float[Tensor, "*shape size"]) -> Float[Tensor, "*shape size"]:
        """Centred and scaled, float32; differentiable in x."""
        mean, std = self._shaped(self.mean, x).float(), self._shaped(self.std, x).float()
        return ((self._prepared(x).float() - mean) / std).clamp(-self.clip, self.clip)

    def denormalize(self, x: Float[Tensor, "*shape size"]) -> Float[Tensor, "*shape size"]:
        """The inverse of `normalize` where nothing was clipped."""
        self._check(x)
        return x.float() * self._shaped(self.std, x).float() + self._shaped(self.mean, x).float()

    def _prepared(self, x: Tensor) -> Tensor:
        self._check(x)
        return x if self.raw_clip is None else x.clamp(-self.raw_clip, self.raw_clip)

    def _check(self, x: Tensor) -> None:
        lead = () if self.copies is None else (self.copies,)
        if x.dim() < 1 + len(lead) or x.shape[-1] != self.size or x.shape[: len(lead)] != lead:
            wanted = ", ".join([*map(str, lead), "...", str(self.size)])
            raise InputError(f"observations must be ({wanted}); got {tuple(x.shape)}.")

    def _shaped(self, statistic: Tensor, x: Tensor) -> Tensor:
        """With dimensions of size 1 where x has more of them."""
        if self.copies is None:
            return statistic
        return statistic.view(self.copies, *[1] * (x.dim() - 2), self.size)
