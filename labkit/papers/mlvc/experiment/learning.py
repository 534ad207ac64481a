"""The training loop of the paper's networks: a stage after another, a frame after another, resumable at any step."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from labkit.kernels.flow_warp import warp
from labkit.papers.mlvc.experiment.config import Config
from labkit.papers.mlvc.experiment.schedule import Stage, stages_for
from labkit.papers.mlvc.method.network import INTRA_QP, LAMBDAS, Network, distortion, rate_distortion
from labkit.papers.mlvc.method.references import References
from labkit.progress import progress
from labkit.seeds import derive
from labkit.workbench.runs import Run, Stateful
from labkit.workbench.training import ShuffledIndices, Workers

NOISE, CROPS = 11, 12  # what seeds are derived for
CLIP_NORM = 1.0
HALVINGS = 5
"""Of the step size over a stage.  [recalled], spread evenly [ours]"""


@runtime_checkable
class Examples(Protocol):
    """Clips to train on."""

    def __len__(self) -> int: ...

    def batch(self, indices: Int[Tensor, " batch"], seed: int) -> Float[Tensor, "time batch 3 height width"]:
        """Clips in [0, 1], sides multiples of 64; crops, where there are any, drawn from `seed`."""


def fit(
    network: Network,
    schedule: Sequence[Stage],
    lam: float,
    examples: Examples,
    config: Config,
    workers: Workers,
    run: Run,
) -> Network:
    """Train `network` through the stages of a schedule at one lambda. Each stage has its own part of the run."""
    for stage in progress(stages_for(network, tuple(schedule)), f"stages, lambda {lam:g}"):
        part = run.part(stage.name.replace(" ", "-"))
        stage.use(network)
        if (part.directory / "weights.safetensors").exists():
            part.read_weights(network)
            continue
        fit_stage(network, stage, lam, examples, config, workers, part)
        part.write_weights(network)
    return network.requires_grad_(True).eval()


def fit_stage(
    network: Network, stage: Stage, lam: float, examples: Examples, config: Config, workers: Workers, run: Run
) -> None:
    """Adam over one stage; the step size is halved five times on the way."""
    network.to(workers.device).train()
    trained = [p for p in network.parameters() if p.requires_grad]
    rate = config.joint_rate if stage.joint else config.learning_rate
    steps = stage.units * config.unit_steps
    priors = [p for name, p in network.named_parameters() if p.requires_grad and ".prior." in name]
    others = [p for name, p in network.named_parameters() if p.requires_grad and ".prior." not in name]
    groups: list[dict[str, Any]] = [{"params": others}, {"params": priors, "lr": rate * config.prior_speed}]
    optimizer = torch.optim.Adam([group for group in groups if group["params"]], lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: 0.5 ** (s * (HALVINGS + 1) // steps))
    batches = ShuffledIndices(len(examples), config.batch_size, derive(config.seed, NOISE))
    state: dict[str, Stateful] = {
        "network": network, "optimizer": optimizer, "schedule": schedule, "batches": batches,
    }  # fmt: skip
    start = run.resume(state)
    for step in progress(range(start, steps), stage.name, total=steps, initial=start):
        clips = examples.batch(workers.share(next(batches)), derive(config.seed, CROPS, step)).to(workers.device)
        noise = torch.Generator(workers.device).manual_seed(derive(config.seed, NOISE, step, workers.rank))
        optimizer.zero_grad(set_to_none=True)
        numbers = accumulate(network, stage, lam, clips, config.back_through, noise)
        _average(trained, workers)
        nn.utils.clip_grad_norm_(trained, CLIP_NORM)
        optimizer.step()
        schedule.step()
        if step % 20 == 0 or step == steps - 1:
            run.log(step, **{name: float(workers.mean(value)) for name, value in numbers.items()})
        run.save_if_due(step + 1, state)


def accumulate(
    network: Network,
    stage: Stage,
    lam: float,
    clips: Float[Tensor, "time batch 3 height width"],
    back_through: int,
    noise: torch.Generator,
) -> dict[str, Tensor]:
    """Gradients of the mean loss over the P-frames of some clips, added to those that are there.

    Frames are coded in order, each from what was decoded before. `back_through` frames share one backward pass; to what
    lies before them no gradient crosses.

    Returns:
        The mean loss, and of what was coded bits a pixel and the error.
    """
    references = References.start(intra(clips[0], lam))
    loss = torch.zeros((), device=clips.device)
    sums: dict[str, Tensor] = {}
    for t in range(1, len(clips)):
        one, numbers, references = LOSSES[stage.loss](network, clips[t], references, lam, noise)
        loss = loss + one / (len(clips) - 1)
        for name, value in (numbers | {"loss": one}).items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach() / (len(clips) - 1)
        if t % back_through == 0 or t == len(clips) - 1:
            if loss.requires_grad:
                loss.backward()
            loss, references = torch.zeros_like(loss), references.detach()
    return sums


Outcome = tuple[Tensor, dict[str, Tensor], References]
FrameLoss = Callable[[Network, Tensor, References, float, torch.Generator], Outcome]


def _warp_loss(network: Network, x: Tensor, references: References, lam: float, noise: torch.Generator) -> Outcome:
    """Mean absolute error in grey levels; the next reference is the original, since nothing is coded yet."""
    flow = network.estimate_motion(x, references)
    loss = 255 * (warp(references.frames[:, 0], flow) - x).abs().mean()
    return loss, {}, references.push(x, flow)


def _prediction_loss(
    network: Network, x: Tensor, references: References, lam: float, noise: torch.Generator
) -> Outcome:
    """Mean squared error of x̄_t; the next reference is x_t as the I-frame codec would leave it. [ours]"""
    flow = network.estimate_motion(x, references).detach()
    loss = distortion(x, network.predict(x, references, flow).prediction).mean()
    return loss, {}, references.push(intra(x, lam), flow)


def _rate_distortion_loss(
    network: Network, x: Tensor, references: References, lam: float, noise: torch.Generator
) -> Outcome:
    coded = network(x, references, generator=noise)
    pixels = x.shape[2] * x.shape[3]
    numbers = {name: getattr(coded.bits, name).mean() / pixels for name in ("motion", "residual", "hyper")}
    numbers["mse"] = distortion(x, coded.reconstruction).mean()
    return rate_distortion(x, coded, lam).mean(), numbers, references.push(coded.reconstruction, coded.flow)


LOSSES: dict[str, FrameLoss] = {
    "warp": _warp_loss, "prediction": _prediction_loss, "rate-distortion": _rate_distortion_loss,
}  # fmt: skip


def intra(frame: Float[Tensor, "batch 3 height width"], lam: float) -> Float[Tensor, "batch 3 height width"]:
    """A decoded I-frame for training: 8 x 8 DCT, quantised as coarsely as HEVC at the QP of this lambda.  [ours]

    The quantiser doubles every 6 QP: step 2^((QP - 4) / 6). Coding uses the real codec; in training it would cost more
    than the networks do.
    """
    from labkit.papers.mlvc.experiment.blocks import dct, inverse_dct

    step = 2 ** ((INTRA_QP[LAMBDAS.index(int(lam))] - 4) / 6) / 255
    planes = frame.flatten(0, 1)[:, None]
    coded = inverse_dct(torch.round(dct(planes) / step) * step)
    return coded.view_as(frame).clamp(0, 1)


def _average(parameters: Sequence[nn.Parameter], workers: Workers) -> None:
    """Gradients become the mean over the processes; a module that a process did not use has a gradient of 0."""
    if workers.size == 1:
        return
    for parameter in parameters:
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        parameter.grad = workers.mean(gradient)
