"""All networks of M-LVC put together: one P-frame from x_t and what both ends remember.

`Decoder` holds what the receiver needs, `Network` adds what only the sender runs. The codec and the training call the
same five steps of `Decoder`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, Field
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.mlvc.method.autoencoders import (
    FEATURE_CHANNELS,
    RESIDUAL_GAIN,
    STRIDE,
    Hyperprior,
    MotionAutoencoder,
    ResidualAutoencoder,
)
from labkit.papers.mlvc.method.compensation import Compensation, MotionCompensator
from labkit.papers.mlvc.method.layers import FLOW_UNIT, conv, first_three, scaled
from labkit.papers.mlvc.method.motion_estimation import motion_estimator
from labkit.papers.mlvc.method.motion_prediction import MotionPredictor
from labkit.papers.mlvc.method.motion_refine import MotionRefiner
from labkit.papers.mlvc.method.priors import bits, gaussian_likelihood, noisy
from labkit.papers.mlvc.method.references import References
from labkit.papers.mlvc.method.residual_refine import ResidualRefiner

Frames = Float[Tensor, "batch 3 height width"]
Flow = Float[Tensor, "batch 2 height width"]
Quantization = Literal["noise", "round"]


class Settings(BaseModel, frozen=True, extra="forbid"):
    """What a network is made of, and which of its parts are in use.

    The three switches say how far step-by-step training has come: with all of them off the codec is DVC's with four
    references; with n_refs=1, too, it is DVC's with these networks.
    """

    width: float = Field(1.0, gt=0, le=4, description="multiplies the channels of all networks; 1 is the paper's")
    n_refs: int = Field(4, ge=1, le=4, description="reference frames in use, and one flow fewer; 4 in the paper")
    motion: Literal["network", "dis"] = Field(
        "network", description="motion search: a trained pyramid, or OpenCV's DIS"
    )
    predict_motion: bool = Field(True, description="MAMVP-Net; off: the flow itself is coded")
    refine_motion: bool = Field(True, description="MV Refine-Net; off: v̂ = v̂'")
    refine_residual: bool = Field(True, description="Residual Refine-Net; off: the residual's decoder ends in RGB")


@dataclass(frozen=True)
class Bits:
    """Bits of each frame of a batch: of the motion difference m̂, of the residual ŷ, of the scales ẑ."""

    motion: Float[Tensor, " batch"]
    residual: Float[Tensor, " batch"]
    hyper: Float[Tensor, " batch"]

    @property
    def total(self) -> Float[Tensor, " batch"]:
        return self.motion + self.residual + self.hyper


@dataclass(frozen=True)
class PFrame:
    """Everything that coding x_t brought about. Flows are in pixels, frames in [0, 1]."""

    reconstruction: Frames
    """x̂_t = x̄_t + r̂_t, neither clipped nor rounded: `References.push` does both."""
    bits: Bits
    prediction: Frames
    """x̄_t, before the residual."""
    warped: Frames
    """W(x̂_{t-1}, v̂_t): the prediction from one reference, without a network."""
    measured_flow: Flow
    """v_t, which the motion search found."""
    predicted_flow: Flow
    """v̄_t of MAMVP-Net; 0 where it is not in use."""
    decoded_flow: Flow
    """v̂'_t = v̄_t + d̂_t."""
    flow: Flow
    """v̂_t, refined; what goes into the buffer."""
    chain: Float[Tensor, "batch 4 2 height width"]
    """f_1..f_4: where each reference was read."""
    latents: dict[str, Tensor]
    """m̂ `motion`, ŷ `residual`, ẑ `hyper`, and `sigma` of ŷ."""


class Network(nn.Module):
    """All networks at one trade-off between rate and distortion.

    The six methods from `predict_motion` to `reconstruct` are the receiver's, in the order in which a packet is
    decoded; `forward` is training's and puts the sender's half between them. Frames are RGB in [0, 1], flows in pixels,
    sides multiples of 64.

    Args:
        settings: width, number of references, motion search, which parts are in use. `use` changes the last ones.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__()
        self.settings = settings or Settings()
        width = self.settings.width
        self.motion_estimation = motion_estimator(self.settings.motion, width)
        self.motion_prediction = MotionPredictor(width)
        self.motion_coding = MotionAutoencoder(width)
        self.motion_refinement = MotionRefiner(width)
        self.compensation = MotionCompensator(width)
        self.residual_coding = ResidualAutoencoder(width)
        self.hyperprior = Hyperprior(width)
        self.residual_rgb = first_three(conv(scaled(FEATURE_CHANNELS, width), 3))
        self.residual_refinement = ResidualRefiner(width)

    def use(
        self,
        *,
        n_refs: int | None = None,
        predict_motion: bool | None = None,
        refine_motion: bool | None = None,
        refine_residual: bool | None = None,
    ) -> "Network":
        """Switch parts on or off and change the number of references; weights stay. Returns self."""
        given = {"n_refs": n_refs, "predict_motion": predict_motion, "refine_motion": refine_motion,
                 "refine_residual": refine_residual}  # fmt: skip
        changes = {name: value for name, value in given.items() if value is not None}
        self.settings = Settings.model_validate(self.settings.model_dump() | changes)
        return self

    # -- the receiver ---------------------------------------------------------------------------------------------

    def predict_motion(self, references: References) -> Flow:
        """v̄_t from v̂_{t-1..t-3}; 0 where MAMVP-Net is not in use."""
        if not self.settings.predict_motion:
            return torch.zeros_like(references.flows[:, 0])
        return self.motion_prediction(references.flows * (1 / FLOW_UNIT)) * FLOW_UNIT

    def decode_motion(self, latent: Float[Tensor, "batch _ _ _"], predicted: Flow) -> Flow:
        """v̂'_t = v̄_t + d̂_t, d̂_t decoded from m̂_t."""
        return predicted + self.motion_coding.decode(latent) * FLOW_UNIT

    def refine_motion(self, decoded: Flow, references: References) -> Flow:
        """v̂_t; v̂'_t itself where MV Refine-Net is not in use."""
        if not self.settings.refine_motion:
            return decoded
        units, frame = references.flows * (1 / FLOW_UNIT), references.frames[:, 0]
        return self.motion_refinement(decoded * (1 / FLOW_UNIT), units, frame) * FLOW_UNIT

    def compensate(self, flow: Flow, references: References) -> Compensation:
        """x̄_t, and what Residual Refine-Net reads."""
        return self.compensation(references.frames, torch.cat([flow[:, None], references.flows], dim=1))

    def scales(self, hyper_latent: Float[Tensor, "batch _ _ _"]) -> Float[Tensor, "batch _ _ _"]:
        """sigma of each ŷ, from ẑ."""
        return self.hyperprior.decode(hyper_latent)

    def reconstruct(self, latent: Float[Tensor, "batch _ _ _"], compensation: Compensation) -> Frames:
        """x̂_t = x̄_t + r̂_t, r̂_t decoded from ŷ_t.

        [official code] takes r̂_t from Residual Refine-Net alone; here it corrects the RGB residual of the stages
        before, so that it starts as they ended [ours].
        """
        features = self.residual_coding.decode(latent)
        residual = self.residual_rgb(features) * (1 / RESIDUAL_GAIN)
        if self.settings.refine_residual:
            residual = residual + self.residual_refinement(features, compensation.prediction, compensation.features)
        return compensation.prediction + residual

    # -- the sender, and training ---------------------------------------------------------------------------------

    def estimate_motion(self, frame: Frames, references: References) -> Flow:
        """v_t from x_t and x̂_{t-1}, the decoded frame."""
        return self.motion_estimation(frame, references.frames[:, 0])

    def predict(self, frame: Frames, references: References, flow: Flow | None = None) -> Compensation:
        """The prediction from the uncompressed flow: what the first stage trains.

        Args:
            flow: v_t in pixels; None: the motion search finds it.
        """
        references = references.limited(self.settings.n_refs)
        return self.compensate(self.estimate_motion(frame, references) if flow is None else flow, references)

    def forward(
        self,
        frame: Frames,
        references: References,
        flow: Flow | None = None,
        quantization: Quantization | None = None,
        generator: torch.Generator | None = None,
    ) -> PFrame:
        """Code x_t, with estimated bits.

        Args:
            flow: v_t in pixels; None: the motion search finds it.
            quantization: `noise` (additive, for gradients) or `round`; None: noise in training mode, round else. The
                prior's medians are those of the last switch to evaluation mode.
            generator: of the noise.

        Raises:
            InputError: a frame that is not (batch, 3, height, width) with sides that are multiples of 64, or is not of
                the references' size.
        """
        _check(frame, references)
        kind = quantization or ("noise" if self.training else "round")
        references = references.limited(self.settings.n_refs)
        measured = self.estimate_motion(frame, references) if flow is None else flow

        predicted = self.predict_motion(references)
        m = self.motion_coding.encode((measured - predicted) / FLOW_UNIT)
        prior = self.motion_coding.prior
        m_hat = noisy(m, generator) if kind == "noise" else prior.quantize(m)
        decoded = self.decode_motion(m_hat, predicted)
        refined = self.refine_motion(decoded, references)
        compensation = self.compensate(refined, references)

        y = self.residual_coding.encode(frame - compensation.prediction)
        z = self.hyperprior.encode(y)
        z_hat = noisy(z, generator) if kind == "noise" else self.hyperprior.prior.quantize(z)
        sigma = self.scales(z_hat)
        y_hat = noisy(y, generator) if kind == "noise" else torch.round(y)
        return PFrame(
            reconstruction=self.reconstruct(y_hat, compensation),
            bits=Bits(
                motion=bits(prior.likelihood(m_hat)),
                residual=bits(gaussian_likelihood(y_hat, sigma)),
                hyper=bits(self.hyperprior.prior.likelihood(z_hat)),
            ),
            prediction=compensation.prediction,
            warped=compensation.warped,
            measured_flow=measured,
            predicted_flow=predicted,
            decoded_flow=decoded,
            flow=refined,
            chain=compensation.chain,
            latents={"motion": m_hat, "residual": y_hat, "hyper": z_hat, "sigma": sigma},
        )


def _check(frame: Tensor, references: References) -> None:
    if frame.dim() != 4 or frame.shape[1] != 3 or not frame.is_floating_point():
        raise InputError(
            f"frames must be RGB, (batch, 3, height, width) in [0, 1]; got {tuple(frame.shape)} {frame.dtype}."
        )
    height, width = frame.shape[2:]
    if height % STRIDE or width % STRIDE:
        raise InputError(
            f"sides must be multiples of {STRIDE}, four latents of 16 pixels each; got {height} x {width}. The codec "
            "pads frames of any size; for training cut crops that fit."
        )
    if references.frames.shape[0] != len(frame) or references.frames.shape[2:] != frame.shape[1:]:
        raise InputError(
            f"references of size {tuple(references.frames.shape)} do not belong to frames of size {tuple(frame.shape)}."
        )


def rate_distortion(frame: Frames, coded: PFrame, lam: float | int) -> Float[Tensor, " batch"]:
    """J = D + lambda R of each frame: D the mean squared error on 0..255, R bits per pixel.  [paper]

    A larger lambda means a lower rate, the other way round than in DVC. With an error on 0..1 these lambdas drive the
    motion's rate to zero.
    """
    pixels = frame.shape[2] * frame.shape[3]
    return distortion(frame, coded.reconstruction) + lam * coded.bits.total / pixels


def distortion(frame: Frames, other: Frames) -> Float[Tensor, " batch"]:
    """Mean squared error of each frame on the scale 0..255."""
    return ((frame - other) * 255).square().flatten(1).mean(1)


LAMBDAS = (64, 40, 24, 16)
"""Of qualities 1 to 4, from the lowest rate to the highest.  [paper]"""
INTRA_QP = (27, 25, 23, 21)
"""Quantiser of the I-frame at the same qualities.  [official code]"""
