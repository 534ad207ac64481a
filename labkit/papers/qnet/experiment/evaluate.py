"""Accuracy as deployed: hard steps for weights and activations. Soft accuracy only to show the gap."""

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from labkit.papers.qnet.method.batch_norm import reestimate_batch_norm
from labkit.papers.qnet.method.soft_quantizer import forward_mode
from labkit.workbench.images import ImageTask, accuracy
from labkit.workbench.training import Workers


def accuracy_in_mode(model: nn.Module, mode: Literal["soft", "hard"], task: ImageTask, workers: Workers) -> float:
    """Percent of the test images, with every quantiser soft (as trained) or hard (as deployed).

    Leaves `model` in eval mode.
    """
    with forward_mode(model.eval(), mode):
        return accuracy(lambda pixels: model(task.to_input(pixels)), task.test_batches(), workers)


def evaluate_hard(model: nn.Module, task: ImageTask, workers: Workers, calibration_examples: int) -> dict[str, float]:
    """Accuracy in percent as deployed ("hard"), and with batch norm re-estimated under the hard network ("hard_bn").

    The second needs no labels: statistics collected under soft weights do not fit hard ones, least of all before any
    training, and a comparison that leaves this out beats a straw man. `model` is left in eval mode.
    """
    refitted, count = copy.deepcopy(model), min(calibration_examples, task.train_examples)
    size = 249 if count % 250 == 1 else 250  # a last batch of one image has no variance
    reestimate_batch_norm(refitted, task.calibration_inputs(count, size))
    return {
        "hard": accuracy_in_mode(model, "hard", task, workers),
        "hard_bn": accuracy_in_mode(refitted, "hard", task, workers),
    }


def gradient_error(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    labels: Int[Tensor, " batch"],
    step: float = 1e-6,
) -> float:
    """How far the backward pass is from the loss: |predicted - measured| / predicted slope along the gradient.

    The slope is that of the loss of one batch in training mode, moving the stored weights behind the quantisers (all
    weights where only activations are quantised) by +-`step` along their gradient, in float64. 0: the gradient is that
    of the function which is trained; 1: the loss does not move at all where the backward pass promises it does.
    """
    model = copy.deepcopy(model).double().train()
    weights = [p for name, p in model.named_parameters() if name.endswith("parametrizations.weight.original")]
    weights = weights or [p for p in model.parameters() if p.dim() > 1]

    def loss() -> Tensor:
        return F.cross_entropy(model(images.double()), labels)

    gradients = torch.autograd.grad(loss(), weights)
    predicted = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
    values = []
    with torch.no_grad():
        for sign in (+1, -2):  # one step forward, then two back
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.add_(gradient / predicted, alpha=sign * step)
            values.append(loss())
    measured = (values[0] - values[1]) / (2 * step)
    return float((predicted - measured).abs() / predicted)
