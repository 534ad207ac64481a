"""What both ends of the wire remember: the last four decoded frames and the flows between them."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError

FRAMES, FLOWS = 4, 3
"""References and flows in the buffers.  [paper]"""
FLOW_STEPS = 64
"""Steps in a pixel that a stored flow is rounded to.  [ours]: with it both ends hold equal numbers."""


class _Round(torch.autograd.Function):
    """round(x), whose gradient is that of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Tensor:
        return outer[0]


def rounded(x: Float[Tensor, "*shape"], steps: int) -> Float[Tensor, "*shape"]:
    """x to the nearest multiple of 1 / steps; the gradient passes as if nothing were rounded."""
    steps_of_x: Tensor = _Round.apply(x * steps)
    return steps_of_x * (1 / steps)


@dataclass(frozen=True)
class References:
    """Newest first: frames[:, k] is x̂_{t-1-k} in [0, 1], flows[:, k] is v̂_{t-1-k} in pixels."""

    frames: Float[Tensor, "batch 4 3 height width"]
    flows: Float[Tensor, "batch 3 2 height width"]

    @classmethod
    def start(cls, frame: Float[Tensor, "batch 3 height width"]) -> "References":
        """After an I-frame: references that are missing are copies of the oldest there is, flows 0.  [official code]"""
        if frame.dim() != 4 or frame.shape[1] != 3:
            raise InputError(f"frames must be RGB, (batch, 3, height, width) in [0, 1]; got {tuple(frame.shape)}.")
        batch, _, height, width = frame.shape
        frames = frame.clamp(0, 1)[:, None].expand(batch, FRAMES, 3, height, width)
        return cls(rounded(frames, 255), frame.new_zeros(batch, FLOWS, 2, height, width))

    def push(
        self, frame: Float[Tensor, "batch 3 height width"], flow: Float[Tensor, "batch 2 height width"]
    ) -> "References":
        """After a P-frame: x̂_t, clipped and rounded to 8 bits [official code], and v̂_t, rounded to 1/64 pixel [ours].

        Both roundings let gradients pass.
        """
        frame, flow = rounded(frame.clamp(0, 1), 255), rounded(flow, FLOW_STEPS)
        frames = torch.cat([frame[:, None], self.frames[:, : FRAMES - 1]], dim=1)
        return References(frames, torch.cat([flow[:, None], self.flows[:, : FLOWS - 1]], dim=1))

    def limited(self, n_refs: int) -> "References":
        """The same with only `n_refs` different frames, and the flows between these: the rest as if it were missing.

        With 1 every module of the paper is still there and sees one reference: the comparison is one of information,
        not of capacity.
        """
        if not 1 <= n_refs <= FRAMES:
            raise InputError(f"n_refs, the number of reference frames, lies between 1 and {FRAMES}; got {n_refs}.")
        if n_refs == FRAMES:
            return self
        index = torch.arange(FRAMES, device=self.frames.device).clamp(max=n_refs - 1)
        kept = torch.arange(FLOWS, device=self.flows.device) < n_refs - 1
        return References(self.frames[:, index], self.flows * kept[:, None, None, None].to(self.flows.dtype))

    def detach(self) -> "References":
        """The same numbers; no gradient crosses to earlier frames."""
        return References(self.frames.detach(), self.flows.detach())
