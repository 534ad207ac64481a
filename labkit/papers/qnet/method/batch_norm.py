"""Batch norm under the deployed network. Statistics gathered while training belong to the soft network."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from labkit.errors import InputError
from labkit.papers.qnet.method.batches import evaluating, input_batches
from labkit.papers.qnet.method.soft_quantizer import forward_mode


@torch.no_grad()
def reestimate_batch_norm(model: nn.Module, batches: Iterable[Any] | Tensor) -> None:
    """Replaces the running means and variances by averages over `batches` under the hard quantisers.  [ours]

    All else, the model's mode included, is as before; after an error the statistics are too. Untrained, this alone
    repairs most of what post-training quantisation breaks: an honest baseline has it.

    Args:
        batches: tensors of inputs, or pairs (inputs, labels), of which the labels are not looked at.

    Raises:
        InputError: no batch was given.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    before = [{name: value.clone() for name, value in norm.named_buffers()} for norm in norms]
    count = 0
    try:
        with evaluating(model), forward_mode(model, "hard"):  # dropout and the like stay as deployed
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the plain average over batches, not a moving one
                norm.train()
            for inputs in input_batches(model, batches):
                model(inputs)
                count += 1
        if count == 0:
            raise InputError("batch norm cannot be re-estimated from nothing; give at least one batch of inputs")
    except BaseException:
        for norm, buffers in zip(norms, before, strict=True):
            for name, value in norm.named_buffers():
                value.copy_(buffers[name])
        raise
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
