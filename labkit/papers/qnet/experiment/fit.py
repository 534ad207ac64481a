"""Training a quantised network on the reader's own batches, by the loop and the schedules of the lesson."""

from collections.abc import Callable, Iterator, Sized
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from labkit.errors import InputError, LabkitError
from labkit.papers.qnet.experiment.config import Config
from labkit.papers.qnet.experiment.train import annealing, optimize
from labkit.papers.qnet.method import temperature
from labkit.papers.qnet.method.batches import device_of, inputs_of
from labkit.papers.qnet.method.soft_quantizer import quantizers
from labkit.workbench.training import Workers


def fit(
    model: nn.Module,
    batches: Any,
    epochs: int = 1,
    *,
    loss: Callable[[Any, Any], Tensor] = F.cross_entropy,
    learning_rate: float = 0.02,
    scale_learning_rate: float = 0.1,
    weight_decay: float = 1e-4,
    clip_norm: float = 5.0,
    weight_temperature: float = 300.0,
    activation_temperature: float = 300.0,
    bf16: bool = False,
    compile: bool = False,
) -> nn.Module:
    """Train a network from `quantize`, in place and where it is; returns it in eval mode, as it is deployed.

    SGD with momentum 0.9, a learning rate that falls by a cosine to 0, temperatures that rise linearly.

    Args:
        batches: pairs (inputs, targets), such as a `DataLoader` or a list; gone through `epochs` times.
        loss: from the network's outputs and the targets to a scalar.
        learning_rate: at the first step; a tenth of that of the float network's training is a good start.
        scale_learning_rate: that of the scales alpha and beta, as a share of `learning_rate`.
        weight_decay: of all but the scales.
        clip_norm: largest norm of the gradient  [official code].
        weight_temperature, activation_temperature: at the last step. Too low leaves a gap between the soft network and
            the deployed one, too high freezes the weights too early.
        bf16, compile: bfloat16 autocast, `torch.compile`.

    Raises:
        InputError: a model without quantisers, batches without a length or not in pairs, a value that is not allowed.
        LabkitError: the training diverged.
    """
    config = Config().override(
        learning_rate=learning_rate, scale_learning_rate=scale_learning_rate, weight_decay=weight_decay,
        clip_norm=clip_norm, weight_temperature=weight_temperature, activation_temperature=activation_temperature,
        bf16=bf16, compile=compile, steps=epochs,
    )  # fmt: skip
    if not quantizers(model):
        raise InputError("the model has no quantisers to train; call quantize first")
    count = _length_of(model, batches)
    workers = Workers(0, 1, device_of(model))
    rising = annealing(model, temperature.linear(weight_temperature), temperature.linear(activation_temperature))
    optimize(
        model, _endless(batches, workers.device), workers, config, epochs * count, learning_rate, rising, loss_of=loss
    )
    broken = [name for name, value in model.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise LabkitError(f"the training diverged ({broken[0]} is not finite): take a smaller learning_rate")
    return model.eval()


def _length_of(model: nn.Module, batches: Any) -> int:
    """How many batches an epoch has."""
    if not isinstance(batches, Sized) or isinstance(batches, (Tensor, str)):
        raise InputError(
            "batches must have a length and be gone through again each epoch, as a DataLoader or a list of (inputs, "
            f"targets) can; got {type(batches).__name__}. For a generator: list(batches)"
        )
    if len(batches) == 0:
        raise InputError("batches is empty: there is nothing to train on")
    normalizes = any(isinstance(module, _BatchNorm) for module in model.modules())
    if normalizes and isinstance(batches, DataLoader) and _ends_with_one(batches):
        raise InputError(
            "the loader's last batch holds one example, of which batch norm cannot take a variance; give the "
            "DataLoader drop_last=True, or another batch_size"
        )
    return len(batches)


def _ends_with_one(loader: "DataLoader[Any]") -> bool:
    if loader.batch_size is None or loader.drop_last or not isinstance(loader.dataset, Sized):
        return False
    return len(loader.dataset) % loader.batch_size == 1


def _endless(batches: Any, device: torch.device) -> Iterator[tuple[Tensor, Any]]:
    """Epoch after epoch of `batches`, on the device."""
    while True:
        for batch in batches:
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise InputError(
                    f"a batch must be a pair (inputs, targets); got {type(batch).__name__}"
                    + (f" of {len(batch)}" if isinstance(batch, (tuple, list)) else "")
                )
            targets = batch[1].to(device) if isinstance(batch[1], Tensor) else batch[1]
            yield inputs_of(batch).to(device), targets
