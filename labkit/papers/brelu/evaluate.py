"""Numbers as the papers give them: PSNR of whole pictures for the float, simulated and integer network; accuracy."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit.data.superresolution import psnr
from labkit.papers.brelu.data import Labelled, Pair
from labkit.papers.brelu.integer import IntegerNetwork, to_codes
from labkit.training import Workers

Residual = Callable[[Float[Tensor, "h w"]], Float[Tensor, "h w"]]


def float_residual(network: nn.Module, device: torch.device) -> Residual:
    """Residual in grey levels of a network that computes in floating point, simulated quantisation included."""

    def residual(picture: Tensor) -> Tensor:
        x = ((picture - 128) / 255)[None, None].to(device).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            return 255 * network(x)[0, 0].cpu()

    return residual


def integer_residual(network: IntegerNetwork, device: torch.device) -> Residual:
    """The same from integers alone; whole grey levels."""

    def residual(picture: Tensor) -> Tensor:
        return network(to_codes(picture)[None, None].to(device))[0, 0].cpu().float()

    return residual


def restored(picture: Float[Tensor, "h w"], residual: Residual) -> Float[Tensor, "h w"]:
    """clip(round(picture + residual), 0, 255)."""
    return (picture + residual(picture)).round().clamp(0, 255)


def mean_psnr(pairs: Sequence[Pair], shave: int, residual: Residual | None = None) -> float:
    """Mean over images of the PSNR in dB; without `residual` that of the input itself."""
    values = []
    for picture, original in pairs:
        output = picture if residual is None else restored(picture, residual)
        values.append(psnr(output, original, shave))
    return sum(values) / len(values)


@torch.no_grad()
def accuracy(scores: Callable[[Tensor], Tensor], task: Labelled, workers: Workers) -> float:
    """Share of test images put into the right class, in percent. scores: from pixels to (n, classes, ...)."""
    counts = torch.zeros(2, dtype=torch.float64, device=workers.device)
    for pixels, labels in task.test_batches():
        correct = (scores(pixels).flatten(1).argmax(1) == labels).sum()
        counts += torch.stack([correct, correct.new_tensor(len(labels))])
    right, seen = workers.mean(counts).tolist()
    return 100 * right / seen


@torch.no_grad()
def agreement(
    first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor], task: Labelled, workers: Workers
) -> float:
    """Share of test images for which two networks choose the same class, in percent."""
    counts = torch.zeros(2, dtype=torch.float64, device=workers.device)
    for pixels, labels in task.test_batches():
        same = (first(pixels).flatten(1).argmax(1) == second(pixels).flatten(1).argmax(1)).sum()
        counts += torch.stack([same, same.new_tensor(len(labels))])
    right, seen = workers.mean(counts).tolist()
    return 100 * right / seen
