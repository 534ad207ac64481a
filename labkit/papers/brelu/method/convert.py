"""Your network in, its integers out."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.brelu.method.bounds import check_rule
from labkit.papers.brelu.method.integer import IntegerNetwork, to_integer
from labkit.papers.brelu.method.network import Network, calibrate, set_bounds
from labkit.papers.brelu.method.snap import input_scale, snap
from labkit.papers.brelu.method.trace import check_same, trace
from labkit.papers.brelu.method.weights import quantize_layers


def convert(
    model: nn.Module,
    calibration_batches: Iterable[Any],
    levels: int = 127,
    rule: str = "3.5sigma",
    finetune: Callable[[Network], object] | None = None,
) -> IntegerNetwork:
    """`model` as a network of integers, which is called like the model. The model itself stays as it is.

    Args:
        model: a trained CNN that torch.fx can trace; see `trace` for what it may be made of.
        calibration_batches: some hundred training images, (n, c, h, w), as the model takes them; labels behind them,
            as a loader yields them, are ignored. They set the bounds and the scale of the input.
        levels: codes above zero of an activation; 127 is what int8 leaves.
        rule: where bounds lie; see `bounds`.
        finetune: your own training loop. It gets the network in floating point, weights on their 8-bit grid and bounds
            in place, and trains it as it would train the model; the paper needs it for the last tenths.

    Raises:
        InputError: a part of the model has no integer form, or the calibration images do not serve; names it.
    """
    check_rule(rule)
    if not 1 <= levels <= 127:
        raise InputError(f"levels must lie between 1 and 127, the codes of int8; got {levels}.")
    batches = [_images(batch) for batch in calibration_batches]
    if not batches:
        raise InputError("calibration needs at least one batch of images.")
    if not all(parameter.dtype == torch.float32 for parameter in model.parameters()):
        raise InputError("the model must be in float32: call model.float() first.")
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    batches = [batch.to(device) for batch in batches]
    network = trace(model)
    check_same(model, network, batches[0])
    quantize_layers(network)
    set_bounds(network, calibrate(network, batches), rule, levels)
    scales = snap(network, input_scale(batches), levels)
    if finetune is not None:
        finetune(network.train())
        network.eval()
    return to_integer(network, scales).eval()


def _images(batch: Any) -> Tensor:
    images = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    if not isinstance(images, Tensor) or images.dim() != 4 or not images.is_floating_point() or not len(images):
        what = f"{images.dtype}, {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise InputError(f"a calibration batch must hold float images (n, c, h, w); got {what}.")
    return images
