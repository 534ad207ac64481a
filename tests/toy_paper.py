"""A whole paper in one page: a small network on generated data, with everything the ground promises to a room.

Its loop draws from torch's and NumPy's global generators, so that a resumed run which forgets one of them ends
elsewhere. (Not from Python's: beartype draws from that to pick the list items it checks.) It has a batch normalisation,
so that processes which do not share statistics end elsewhere too.
"""

import itertools
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from labkit.progress import progress
from labkit.workbench import training
from labkit.workbench.claims import Claim
from labkit.workbench.exercises import Exercise
from labkit.workbench.experiment import Config, Paper
from labkit.workbench.runs import Run


def on_step(step: int) -> None:
    """Where a driver puts a fault."""


class ToyConfig(Config):
    steps: int = Field(40, ge=0, le=10_000, description="optimiser steps")
    batch_size: int = Field(16, ge=1, description="examples a step, of all processes together")
    learning_rate: float = Field(0.1, gt=0, description="SGD step size")
    noise: float = Field(0.1, ge=0, description="standard deviation of the noise on the inputs")
    shuffle_labels: bool = Field(False, description="train on labels that mean nothing")
    loss: Literal["logistic", "ridge"] = Field("logistic", description="what is minimised")
    widths: tuple[int, ...] = Field((8,), description="hidden layers, in units")
    precision: Literal["float32", "float64"] = Field("float32", description="of weights and data")
    note: str = Field("", description="free text")


def build_model(config: ToyConfig) -> nn.Module:
    layers: list[nn.Module] = []
    sizes = [5, *config.widths]
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.BatchNorm1d(fan_out), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 1)).to(getattr(torch, config.precision))


def train(config: ToyConfig, run: Run) -> dict[str, Any]:
    with training.workers(config.device) as workers:
        return {name: fit(config, run.part(name), name, workers) for name in ("plain", "noisy")}


def fit(config: ToyConfig, run: Run, name: str, workers: training.Workers) -> dict[str, float]:
    if run.result is not None:
        return run.result
    training.seed_everything(config.seed)
    generator = torch.Generator().manual_seed(7)
    features = torch.randn(64, 5, generator=generator, dtype=getattr(torch, config.precision))
    labels = (features.sum(1) > 0).to(features)
    if config.shuffle_labels:
        labels = labels[torch.randperm(len(labels), generator=generator)]

    model = build_model(config)
    network = workers.wrap(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=config.learning_rate, momentum=0.9)
    batches = training.ShuffledIndices(len(features), config.batch_size, config.seed)
    state = {"model": model, "optimizer": optimizer, "batches": batches}
    for step in progress(range(run.resume(state), config.steps), name):
        on_step(step)
        batch = next(batches)
        noise = config.noise * (name == "noisy") * (1 + np.random.rand())
        inputs = features[batch] + noise * torch.randn(len(batch), 5, dtype=features.dtype)
        places = workers.share(torch.arange(len(batch)))
        output = network(inputs[places].to(workers.device)).squeeze(1)
        targets = labels[batch][places].to(workers.device)
        loss = F.binary_cross_entropy_with_logits(output, targets)
        if config.loss == "ridge":
            loss = F.mse_loss(output, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 2 == 0:
            run.log(step, loss=workers.mean(loss.detach()).item(), widths=[float(w) for w in config.widths])
        run.save_if_due(step + 1, state)

    run.write_weights(model)
    with torch.no_grad():
        right = (model.eval()(features.to(workers.device)).squeeze(1).cpu() > 0) == (labels > 0.5)
    return run.finish({"accuracy": 100 * right.double().mean().item(), "first": model[0].weight.flatten()[0].item()})


def is_above_three(answer: Callable[[], float]) -> None:
    assert answer() > 3, f"{answer()} is not above 3"


class Toy(Paper):
    """A paper without a room: all in this file, where `Paper` would look for the files of the floor plan."""

    configs: ClassVar = {
        "smoke": ToyConfig(),
        "lesson": ToyConfig(steps=80),
        "gpu": ToyConfig(steps=100),
        "full": ToyConfig(steps=200),
    }
    train = staticmethod(train)
    code = "of the toy"
    claims = (
        Claim(
            key="learns",
            sentence="A small network learns a plane [in our own words].",
            published="100 %",
            measure=lambda result: result["plain"]["accuracy"] - 50,
            margin=20.0,
            scale="smoke",
            unit="points",
        ),
        Claim(
            key="noise-helps",
            sentence="Noise on the inputs helps.",
            published=None,
            measure=lambda result: result["noisy"]["accuracy"] - result["plain"]["accuracy"],
            margin=5.0,
            scale="lesson",
            unit="points",
        ),
    )
    exercises = (
        Exercise(
            "three",
            "fill in",
            "A function that returns more than three.",
            {"above": is_above_three},
            lambda: 4,
            difficulty=1,
            minutes=1,
            hints=("Which numbers are larger than three?", "`lambda: 4`"),
        ),
    )


PAPER = Toy(
    room="toy",
    title="Toys Learn",
    arxiv="0000.00000",
    venue="nowhere",
    idea="a small network learns a plane",
    notebook="99_toy",
)
