"""Numbers as the papers give them: PSNR of whole pictures for the float, simulated and integer network."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit.data.superresolution import psnr
from labkit.papers.brelu.experiment.data import Pair
from labkit.papers.brelu.method.integer import IntegerNetwork

STRIP = 96  # rows of a picture at a time on a CPU
Residual = Callable[[Float[Tensor, "h w"]], Float[Tensor, "h w"]]


def residual_of(network: nn.Module, device: torch.device) -> Residual:
    """Residual in grey levels of any network: floating point, simulated quantisation, or integers.

    Of integers too the fraction of a grey level is kept [official code]: the picture is rounded once, at the end.
    """

    def residual(picture: Tensor) -> Tensor:
        x = ((picture - 128) / 255)[None, None].to(device).contiguous(memory_format=torch.channels_last)
        whole = device.type != "cpu" or isinstance(network, IntegerNetwork)
        return 255 * in_strips(network, x, x.shape[2] if whole else STRIP)[0, 0].cpu()

    return residual


@torch.no_grad()
def in_strips(network: nn.Module, x: Float[Tensor, "n c h w"], rows: int) -> Float[Tensor, "n o h w"]:
    """`network(x)` so many rows at a time, each strip with all rows that its convolutions can see: the same numbers.

    On a CPU a whole picture's feature maps leave the cache and ask for fresh memory at every layer: strips halve the
    time. For networks without strides.
    """
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    halo = sum(convolution.kernel_size[0] // 2 for convolution in convolutions)
    height = x.shape[2]
    strips = []
    for top in range(0, height, rows):
        first, last = max(0, top - halo), min(height, top + rows + halo)
        strip = network(x[:, :, first:last])
        strips.append(strip[:, :, top - first : min(top + rows, height) - first])
    return torch.cat(strips, 2)


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
