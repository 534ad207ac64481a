"""What a method takes from the reader's batches: the inputs, on the device of the network, which looks in eval mode."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from labkit.errors import InputError


def inputs_of(batch: Any) -> Shaped[Tensor, "batch *shape"]:
    """The inputs of a batch that is a tensor, or a pair (inputs, labels) as most loaders give it.

    Raises:
        InputError: it is neither.
    """
    first = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    if not isinstance(first, Tensor) or first.dim() == 0:
        raise InputError(
            "a batch must be a tensor of inputs, or a tuple or list that starts with one, such as (inputs, labels); "
            f"got {'a lone number' if isinstance(first, Tensor) else type(first).__name__}"
        )
    return first


def input_batches(model: nn.Module, batches: Iterable[Any] | Tensor) -> Iterator[Shaped[Tensor, "batch *shape"]]:
    """The inputs of each batch, where `model` is; a lone tensor counts as one batch."""
    device = device_of(model)
    for batch in [batches] if isinstance(batches, Tensor) else batches:
        yield inputs_of(batch).to(device)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within the block `model` is in eval mode; after it, each of its modules is in the mode that it was in."""
    training = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def device_of(model: nn.Module) -> torch.device:
    """Where the first parameter or buffer of `model` is."""
    tensors = [*model.parameters(), *model.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")
