"""Batch norm under the deployed network. Statistics gathered while training belong to the soft network."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from labkit.errors import InputError
from labkit.papers.qnet.method.soft_quantizer import forward_mode


@torch.no_grad()
def reestimate_batch_norm(model: nn.Module, batches: Iterable[Float[Tensor, "batch *shape"]]) -> None:
    """Replaces the running means and variances by averages over `batches` under the hard quantisers.  [ours]

    Inputs need no labels. All else, the model's mode included, is as before. Untrained, this alone repairs most of what
    post-training quantisation breaks: an honest baseline has it.

    Raises:
        InputError: no batch was given.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    training = {module: module.training for module in model.modules()}
    model.eval()  # dropout and the like stay as deployed
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain average over batches, not a moving one
            norm.train()
        count = 0
        with forward_mode(model, "hard"):
            for batch in batches:
                model(batch)
                count += 1
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in training.items():
            module.training = mode
    if count == 0:
        raise InputError("batch norm cannot be re-estimated from nothing; give at least one batch of inputs")
