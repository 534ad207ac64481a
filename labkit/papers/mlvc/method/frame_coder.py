"""One frame to streams and back. Both ends hold a `FrameCoder`; the sender's gets the float networks as well.

The sender builds what it will refer to by the receiver's own functions, from the symbols it wrote: whatever the
receiver sees, the sender has seen.
"""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labkit.papers.mlvc.method.autoencoders import STRIDE
from labkit.papers.mlvc.method.compensation import Compensation
from labkit.papers.mlvc.method.fixed_point import STEPS, receiver
from labkit.papers.mlvc.method.layers import FLOW_UNIT
from labkit.papers.mlvc.method.network import Network
from labkit.papers.mlvc.method.range_coder import SymbolCoder
from labkit.papers.mlvc.method.references import References
from labkit.papers.mlvc.method.tables import Tables, make_tables

Streams = tuple[bytes, bytes, bytes]


@dataclass(frozen=True)
class Sent:
    """What the sender knows of a P-frame: the streams m̂, ẑ, ŷ, the references after it, and the tables' own bits."""

    streams: Streams
    references: References
    bits: tuple[float, float, float]


class FrameCoder:
    """Codes P-frames with one trained network.

    Args:
        network: trained; in evaluation mode its priors know their medians.
        tables: of a model file; None: they are made from the network.
        device: where the networks run; None: where `network` is. Streams and frames are the same everywhere.
    """

    def __init__(self, network: Network, tables: Tables | None = None) -> None:
        self.network = network
        self.tables = tables or make_tables(network)
        self.receiver = receiver(network)
        self.n_refs = network.settings.n_refs
        self._motion, self._hyper = SymbolCoder(self.tables.motion), SymbolCoder(self.tables.hyper)
        self._residual = SymbolCoder(self.tables.residual)
        self.device = next(self.receiver.buffers()).device
        self._medians = {
            name: torch.from_numpy(values / STEPS).to(self.device)[None, :, None, None]
            for name, values in (("motion", self.tables.motion_median), ("hyper", self.tables.hyper_median))
        }

    @property
    def model(self) -> bytes:
        """16 bytes that tell this receiver from others: SHA-256 of its integers, tables and settings."""
        settings = self.network.settings.model_dump(exclude={"motion"})  # the search is the sender's affair
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        tensors = {**dict(self.receiver.named_buffers()), **self.tables.tensors()}
        for name in sorted(tensors):
            values = tensors[name].detach().cpu().numpy().astype("<i8")
            digest.update(f"{name} {values.shape} ".encode() + values.tobytes())
        return digest.digest()[:16]

    def start(self, frame: np.ndarray) -> References:
        """After an I-frame, as it was decoded: uint8 RGB, sides multiples of 64."""
        return References.start(self._tensor(frame))

    @torch.no_grad()
    def send(self, frame: np.ndarray, references: References) -> Sent:
        """Code a frame, uint8 RGB (height, width, 3), sides multiples of 64."""
        x, limited = self._tensor(frame), references.limited(self.n_refs)
        predicted = self.receiver.predict_motion(limited)
        flow = self.network.estimate_motion(x.float(), References(limited.frames.float(), limited.flows.float()))
        m = self.network.motion_coding.encode((flow - predicted.float()) * (1 / FLOW_UNIT))
        symbols_m = self._symbols(m, "motion")
        motion = self._motion.encode(symbols_m, _channels(symbols_m))
        refined, compensation = self._compensate(symbols_m, predicted, limited)

        y = self.network.residual_coding.encode((x - compensation.prediction).float())
        symbols_z = self._symbols(self.network.hyperprior.encode(y), "hyper")
        hyper = self._hyper.encode(symbols_z, _channels(symbols_z))
        levels = self._levels(symbols_z)
        symbols_y = y.round().long().cpu().numpy()
        residual = self._residual.encode(symbols_y, levels)
        spent = (
            self._motion.bits(symbols_m, _channels(symbols_m)),
            self._hyper.bits(symbols_z, _channels(symbols_z)),
            self._residual.bits(symbols_y, levels),
        )
        shown = self.receiver.reconstruct(self._latent(symbols_y), compensation)
        return Sent((motion, hyper, residual), references.push(shown, refined), spent)

    @torch.no_grad()
    def receive(self, streams: Streams, references: References) -> References:
        """Decode a frame: the references after it, whose first frame it is.

        Raises:
            StreamError: streams that no sender wrote.
        """
        motion, hyper, residual = streams
        limited = references.limited(self.n_refs)
        height, width = limited.frames.shape[3:]
        predicted = self.receiver.predict_motion(limited)
        groups = _channels(np.empty((1, len(self.tables.motion), height // 16, width // 16)))
        refined, compensation = self._compensate(self._motion.decode(motion, groups), predicted, limited)
        groups = _channels(np.empty((1, len(self.tables.hyper), height // STRIDE, width // STRIDE)))
        symbols_y = self._residual.decode(residual, self._levels(self._hyper.decode(hyper, groups)))
        return references.push(self.receiver.reconstruct(self._latent(symbols_y), compensation), refined)

    def picture(self, references: References) -> np.ndarray:
        """The newest frame, uint8 RGB (height, width, 3)."""
        frame = (references.frames[0, 0] * 255).round().to(torch.uint8)
        pixels: np.ndarray = frame.permute(1, 2, 0).contiguous().cpu().numpy()
        return pixels

    def _compensate(
        self, symbols: np.ndarray, predicted: Tensor, limited: References
    ) -> tuple[Float[Tensor, "1 2 height width"], Compensation]:
        latent = self._latent(symbols) + self._medians["motion"]
        refined = self.receiver.refine_motion(self.receiver.decode_motion(latent, predicted), limited)
        return refined, self.receiver.compensate(refined, limited)

    def _levels(self, symbols: np.ndarray) -> np.ndarray:
        return self.tables.levels(self.receiver.scales(self._latent(symbols) + self._medians["hyper"]))

    def _symbols(self, latent: Tensor, name: str) -> np.ndarray:
        symbols: np.ndarray = (latent.double() - self._medians[name]).round().long().cpu().numpy()
        return symbols

    def _latent(self, symbols: np.ndarray) -> Float[Tensor, "1 channels height width"]:
        return torch.from_numpy(symbols.astype(np.float64)).to(self.device)

    def _tensor(self, frame: np.ndarray) -> Float[Tensor, "1 3 height width"]:
        pixels = torch.from_numpy(np.ascontiguousarray(frame)).to(self.device)
        return pixels.permute(2, 0, 1)[None].double() * (1 / 255)


def _channels(symbols: np.ndarray) -> np.ndarray:
    """Each entry's channel: the groups of a factorised prior."""
    return np.broadcast_to(np.arange(symbols.shape[1])[:, None, None], symbols.shape)
