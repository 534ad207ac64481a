"""What the notebook shows besides the comparison of arms: gradients against temperature, and file sizes."""

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.papers.qnet.experiment import data
from labkit.papers.qnet.experiment.config import Arm, Config
from labkit.papers.qnet.experiment.diagnostics import GradientAgreement, gradient_agreement
from labkit.papers.qnet.experiment.train import load_arm, start_of
from labkit.papers.qnet.method.packed_file import load, save
from labkit.papers.qnet.method.packing import pack
from labkit.papers.qnet.method.soft_quantizer import set_temperature
from labkit.workbench import training
from labkit.workbench.runs import Run

BATCHES = 6  # for the agreement of gradients: 15 pairs


def activation_gradients(
    config: Config, run: Run, bits: int = 1, temperatures: tuple[float, ...] = (2.0, 5.0, 15.0, 75.0, 300.0, 1000.0)
) -> dict[float, GradientAgreement]:
    """Norm of the lower layers' gradient, and its agreement between batches, with activations at each temperature.

    The network is the trained float one with freshly calibrated activation quantisers: the moment training begins.
    """
    with training.workers(config.device) as workers:
        task = data.load(config, workers)
        model = start_of(Arm(activations=f"A{bits}"), config, task, workers, run).train()
        batches = list(itertools.islice(data.training_batches(task, config), BATCHES))
        lower = [p for p in model.parameters() if p.dim() == 4][:2]  # kernels of the first two convolutions

        def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
            return F.cross_entropy(model(batch[0]), batch[1])

        agreements = {}
        for temperature in temperatures:
            set_temperature(model, temperature, which="activations")
            agreements[temperature] = gradient_agreement(loss, batches, lower)
    return agreements


@dataclass(frozen=True)
class Stored:
    """One network on disk. `same`: loaded from its file, it computes what the deployed network computes."""

    bytes: int
    same: bool


def stored_networks(config: Config, run: Run, arms: tuple[str, ...]) -> dict[str, Stored]:
    """Each trained arm packed into its true number of bits, written, loaded again and compared on test images."""
    float_file = run.directory / "float" / "weights.safetensors"
    stored = {"float": Stored(float_file.stat().st_size, True)}
    with training.workers(config.device) as workers:
        task = data.load(config, workers)
        images = task.to_input(next(task.test_batches())[0])
        for arm in arms:
            model = load_arm(arm, config, task, workers, run).eval()
            path = run.directory / arm / "packed.safetensors"
            size = save(pack(model), path)
            loaded = load(path, start_of(Arm(), config, task, workers, run).eval())
            with torch.no_grad():
                wanted, got = model(images), loaded(images)
            same = torch.allclose(wanted, got, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
            stored[arm] = Stored(size, same)
    return stored
