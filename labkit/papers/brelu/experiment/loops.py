"""The two training loops that every network of the room goes through: pictures, and classes."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from labkit.papers.brelu.experiment import data
from labkit.papers.brelu.experiment.config import Config
from labkit.progress import progress
from labkit.workbench import training
from labkit.workbench.images import ImageTask
from labkit.workbench.runs import Run, State

WARM_UP = 50  # steps


def fit_pictures(
    network: nn.Module, pictures: data.Pictures, config: Config, run: Run, steps: int, learning_rate: float
) -> None:
    """Adam on the mean squared error of the residual, in (1/255)^2 times 1000; warm-up, then a cosine down to 0.

    The network as it is passed is what is trained: with steps set its weights are on their grid (straight through),
    with bounds set its activations are clipped, and not rounded.  [official code]

    A finished `run` holds the weights: they are read then.
    """
    if run.result is not None:
        run.read_weights(network.eval())
        return
    workers = pictures.workers
    training.seed_everything(config.seed)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    wrapped = workers.wrap(network.train())  # last: it notes how the parameters lie in memory
    batches = data.PatchBatches(pictures, config.batch_size, config.seed)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, betas=(0.9, 0.99), weight_decay=config.weight_decay)
    warm_up = min(WARM_UP, steps // 4)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda k: min(1, (k + 1) / (warm_up + 1)) * (1 + math.cos(math.pi * min(k / steps, 1))) / 2
    )
    state: State = {"model": network, "optimizer": optimizer, "schedule": schedule, "batches": batches}
    first = run.resume(state)
    for step in progress(range(first, steps), run.directory.name, total=steps, initial=first):
        inputs, targets = next(batches)
        loss = 1000 * F.mse_loss(wrapped((inputs - 128) / 255), (targets - inputs) / 255)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        optimizer.step()
        schedule.step()
        if step % config.log_every == 0 or step == steps - 1:
            run.log(step, loss=workers.mean(loss).item())
        run.save_if_due(step + 1, state)
    run.write_weights(network.eval())
    run.finish({"steps": steps})


def fit_classes(
    network: nn.Module, task: ImageTask, config: Config, run: Run, steps: int, learning_rate: float
) -> None:
    """SGD with Nesterov momentum 0.9 on the cross-entropy; warm-up, then linearly down to 0.

    A finished `run` holds the weights: they are read then.
    """
    if run.result is not None:
        run.read_weights(network.eval())
        return
    workers, options = task.workers, config.classification
    training.seed_everything(config.seed)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    wrapped = workers.wrap(network.train())  # last: it notes how the parameters lie in memory
    batches = data.training_batches(task, config)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        parameters, lr=learning_rate, momentum=0.9, nesterov=True, weight_decay=options.weight_decay
    )
    warm_up = min(WARM_UP, steps // 4)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda k: min(1, (k + 1) / (warm_up + 1)) * (1 - min(k / steps, 1))
    )
    state: State = {"model": network, "optimizer": optimizer, "schedule": schedule, "batches": batches}
    first = run.resume(state)
    for step in progress(range(first, steps), run.directory.name, total=steps, initial=first):
        images, labels = next(batches)
        with torch.autocast(workers.device.type, dtype=torch.bfloat16, enabled=options.bf16):
            loss = F.cross_entropy(wrapped(images).flatten(1), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % config.log_every == 0 or step == steps - 1:
            run.log(step, loss=workers.mean(loss).item())
        run.save_if_due(step + 1, state)
    run.write_weights(network.eval())
    run.finish({"steps": steps})
