"""ME-Net: the flow from a frame to its reference. Only the sender runs it, so anything may stand here.

A trainable pyramid of small networks (after SpyNet, Ranjan and Black 2017), or OpenCV's dense inverse search, which
needs no training. FlowNet 2.0, which the paper uses, has weights that cannot be shipped. [ours]
"""

import itertools
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.kernels.flow_warp import warp
from labkit.papers.mlvc.method.layers import Up2, scaled, zero

Frames = Float[Tensor, "batch 3 height width"]
Flow = Float[Tensor, "batch 2 height width"]


@runtime_checkable
class MotionEstimator(Protocol):
    """Frame and reference in [0, 1] -> flow v in pixels: frame(p) is about reference(p + v(p)), v_0 along x."""

    def __call__(self, frame: Frames, reference: Frames) -> Flow: ...


class PyramidMotion(nn.Module):
    """Coarse to fine, each level a network of its own that corrects the enlarged flow of the level below.

        v^l = 2 up(v^{l+1}) + E_l(frame^l, W(reference^l, 2 up(v^{l+1})), 2 up(v^{l+1}))

    E_l: five 7 x 7 convolutions, 32-64-32-16-2 channels [peer code: SpyNet], the last one starting at 0. Frame sides
    are multiples of 2^(levels - 1).
    """

    def __init__(self, width: float = 1.0, levels: int = 5) -> None:
        super().__init__()
        self.levels = levels
        self.estimators = nn.ModuleList(_estimator(width) for _ in range(levels))
        self.up = Up2()

    def forward(self, frame: Frames, reference: Frames) -> Flow:
        pyramid = [(frame - 0.5, reference - 0.5)]
        for _ in range(self.levels - 1):
            pyramid.append((F.avg_pool2d(pyramid[-1][0], 2), F.avg_pool2d(pyramid[-1][1], 2)))
        flow = torch.zeros_like(pyramid[-1][0][:, :2])
        for level, (here, there) in reversed(list(enumerate(pyramid))):
            if level < self.levels - 1:
                flow = 2 * self.up(flow)
            flow = flow + self.estimators[level](torch.cat([here, warp(there, flow), flow], dim=1))
        return flow


def _estimator(width: float) -> nn.Sequential:
    sizes = [8, *(scaled(channels, width) for channels in (32, 64, 32, 16))]
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Conv2d(inputs, outputs, 7, padding=3), nn.ReLU()]
    return nn.Sequential(*layers, zero(nn.Conv2d(sizes[-1], 2, 7, padding=3)))


class DisMotion(nn.Module):
    """OpenCV's dense inverse search on luma, at full resolution and with variational refinement; no gradient.

    Its default stops at a quarter of the size, which costs 5 dB of prediction on camera motion (measured).
    """

    SMALLEST = 32
    """Sides below it are extended at the border: the search's patches and pyramid need them."""

    def __init__(self) -> None:
        super().__init__()
        self._search: Any = None

    @property
    def _dis(self) -> Any:
        """OpenCV's object, made when it is first used: who only decodes needs no OpenCV."""
        if self._search is None:
            try:
                import cv2
            except ImportError:
                raise InputError(
                    "motion search by DIS needs OpenCV, which is not installed. Get it: pip install 'labkit[peers]'; "
                    'or take the network: motion="network"'
                ) from None
            self._search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
            self._search.setFinestScale(0)
            self._search.setPatchStride(3)
            self._search.setGradientDescentIterations(25)
            self._search.setVariationalRefinementIterations(5)
        return self._search

    @torch.no_grad()
    def forward(self, frame: Frames, reference: Frames) -> Flow:
        flows = [self._one(here, there) for here, there in zip(luma(frame), luma(reference), strict=True)]
        return torch.from_numpy(np.stack(flows)).to(frame)

    def _one(self, frame: np.ndarray, reference: np.ndarray) -> np.ndarray:
        height, width = frame.shape
        more = ((0, max(0, self.SMALLEST - height)), (0, max(0, self.SMALLEST - width)))
        flow = self._dis.calc(np.pad(frame, more, mode="edge"), np.pad(reference, more, mode="edge"), None)
        return np.ascontiguousarray(flow[:height, :width].transpose(2, 0, 1))

    def __deepcopy__(self, memo: dict[int, Any]) -> "DisMotion":
        return DisMotion()  # an object of OpenCV cannot be copied, and holds nothing worth it

    def __reduce__(self) -> tuple[Any, ...]:
        return DisMotion, ()


def luma(frames: Frames) -> np.ndarray:
    """BT.601 luma, uint8 (batch, height, width)."""
    weights = frames.new_tensor([0.299, 0.587, 0.114])[:, None, None]
    y: np.ndarray = ((frames * weights).sum(1) * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return y


def motion_estimator(kind: str, width: float = 1.0) -> nn.Module:
    """`network` or `dis`.

    Raises InputError for another name.
    """
    if kind == "network":
        return PyramidMotion(width)
    if kind == "dis":
        return DisMotion()
    raise InputError(f"motion must be 'network' or 'dis'; got {kind!r}.")
