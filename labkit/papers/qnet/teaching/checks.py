"""Properties that tell a right implementation from a wrong one. One check, three uses: test, exercise, mutants.

Each takes the candidate as its argument and raises AssertionError, in words a student can act on. No constant in them
is 0 or 1 where that could hide a forgotten factor.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from labkit.papers.qnet.method.soft_quantizer import SoftQuantizer, forward_mode
from labkit.papers.qnet.method.weights import quantize_weights
from labkit.workbench.exercises import close


def check_soft_quantizer(soft_quantize: Callable[..., Tensor]) -> None:
    """`soft_quantize(x, levels, thresholds, alpha, beta, temperature)` is the paper's function, in every letter."""
    levels = torch.tensor([-4.0, -1.0, 0.0, 3.0], dtype=torch.float64)  # gaps 3, 1, 3: not all equal
    thresholds = torch.tensor([-2.0, -0.5, 1.5], dtype=torch.float64)
    alpha, beta = torch.tensor(0.7, dtype=torch.float64), torch.tensor(1.6, dtype=torch.float64)

    def y(x: Tensor, temperature: float = 50.0, a: Tensor = alpha) -> Tensor:
        return soft_quantize(x, levels, thresholds, a, beta, temperature)

    far = torch.tensor([-9.0, 9.0], dtype=torch.float64)
    close(y(far), alpha * levels[[0, -1]], "Far out y must be alpha times the lowest and the highest level.", 1e-9)
    plateaus = torch.tensor([-1.25, 0.5], dtype=torch.float64) / beta  # midway between two thresholds
    close(y(plateaus), alpha * levels[1:3], "Between two thresholds y must settle on alpha times a level.", 1e-9)
    middles = alpha * (levels[1:] + levels[:-1]) / 2
    close(y(thresholds / beta), middles, "At x = b_i / beta exactly half of the gap s_i has been climbed.", 1e-9)
    x = torch.linspace(-4, 4, 4001, dtype=torch.float64)
    assert (y(x, 5.0).diff() > 0).all(), "y must rise everywhere: a sum of rising sigmoids."
    h = 1e-6
    slope = (y(thresholds / beta + h, 40.0) - y(thresholds / beta - h, 40.0)) / (2 * h)
    close(
        slope / (alpha * beta * 40.0 * levels.diff() / 4),
        torch.ones(3),
        "On a threshold dy/dx is alpha beta T s_i / 4.",
        1e-3,
    )
    close(y(x, 5.0, 2 * alpha), 2 * y(x, 5.0), "alpha scales the output, and only that.", 1e-12)
    doubled = soft_quantize(x, levels, 2 * thresholds, alpha, 2 * beta, 5.0 / 2)
    close(doubled, y(x, 5.0), "(2 beta, 2 b, T / 2) must leave y as it is: T stands outside of beta x - b.", 1e-12)


def check_binary_is_tanh(soft_quantize: Callable[..., Tensor]) -> None:
    """Levels -1, 1 and threshold 0 give y = alpha tanh(T beta x / 2): binary weights are an annealed tanh."""
    x = torch.linspace(-3, 3, 101, dtype=torch.float64)
    alpha, beta, temperature = torch.tensor(0.3, dtype=torch.float64), torch.tensor(0.25, dtype=torch.float64), 7.0
    two, one = torch.tensor([-1.0, 1.0], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    wanted = alpha * torch.tanh(temperature * beta * x / 2)
    got = soft_quantize(x, two, one, alpha, beta, temperature)
    close(got, wanted, "For levels (-1, 1) y must be alpha tanh(T beta x / 2).", 1e-12)
    three = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    got = soft_quantize(x, three, torch.zeros(2, dtype=torch.float64), alpha, beta, temperature)
    close(got, wanted, "Two half steps at the same threshold must add up to the whole one.", 1e-12)


def check_thresholds_are_midpoints(kmeans_thresholds: Callable[[Tensor, int], Tensor]) -> None:
    """`kmeans_thresholds(samples, count)`: midpoints between the centroids that k-means finds, ascending."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 1000, generator=generator, dtype=torch.float64) * 0.1
    groups = torch.tensor([[-2.0], [0.5], [5.0]], dtype=torch.float64) + noise
    means = groups.mean(1)
    shuffled = groups.flatten()[torch.randperm(3000, generator=generator)]
    got = torch.as_tensor(kmeans_thresholds(shuffled, 3), dtype=torch.float64)
    close(got, (means[1:] + means[:-1]) / 2, "Three clear groups: thresholds lie midway between their means.", 1e-6)
    gauss = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000)
    got = torch.as_tensor(kmeans_thresholds(2 * gauss, 3), dtype=torch.float64)
    close(got, 2 * torch.tensor([-0.6120, 0.6120]), "Lloyd-Max with 3 levels on N(0, 2^2): +-0.612 sigma.", 4e-3)
    got = torch.as_tensor(kmeans_thresholds(gauss, 4), dtype=torch.float64)
    close(got, [-0.9816, 0.0, 0.9816], "Lloyd-Max with 4 levels on N(0, 1): 0 and +-0.982.", 2e-3)
    relu = torch.cat([torch.zeros(900, dtype=torch.float64), torch.linspace(1, 2, 100, dtype=torch.float64)])
    got = torch.as_tensor(kmeans_thresholds(relu, 2), dtype=torch.float64)
    close(got, [0.75], "900 zeros and 100 values around 1.5: the threshold lies at 0.75.", 1e-6)


def check_batch_norm_reestimation(reestimate: Callable[[nn.Module, list[Tensor]], None]) -> None:
    """`reestimate(model, batches)`: running statistics of the hard network, averaged over all batches; nothing else."""
    generator = torch.Generator().manual_seed(0)
    model = _tiny_network(generator)
    batches = [torch.randn(16, 3, 6, 6, generator=generator) * (1 + k) + k for k in range(3)]
    before = copy.deepcopy(model.state_dict())
    norm = model[2]
    reestimate(model, batches)
    assert not any(module.training for module in model.modules()), "The model was in eval mode and must be left there."
    assert norm.momentum == 0.1, f"The momentum of batch norm was 0.1; it was left at {norm.momentum}."
    for name, value in model.state_dict().items():
        if "running" not in name and "num_batches" not in name:
            assert torch.equal(value, before[name]), f"Only the running statistics may change; '{name}' did."
    with torch.no_grad(), forward_mode(model, "hard"):
        outputs = [model[1](model[0](batch)).transpose(0, 1).flatten(1) for batch in batches]
    mean = torch.stack([output.mean(1) for output in outputs]).mean(0)
    variance = torch.stack([output.var(1) for output in outputs]).mean(0)
    close(
        norm.running_mean,
        mean,
        "The running mean must be the average over all batches, of the network that will be deployed.",
        1e-4 * float(mean.abs().max()),
    )
    close(
        norm.running_var,
        variance,
        "The running variance must be the average over all batches, of the network that will be deployed.",
        1e-4 * float(variance.max()),
    )
    assert all(q.forced_mode is None for q in model.modules() if isinstance(q, SoftQuantizer)), (
        "The quantisers were left in a forced mode."
    )


def _tiny_network(generator: torch.Generator) -> nn.Sequential:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(20, 2)
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    quantize_weights(model, (-1.0, 0.0, 1.0))
    return model.eval()


def check_packing(pack: Callable[[Tensor, int], Tensor], unpack: Callable[[Tensor, Any], Tensor]) -> None:
    """`unpack(pack(codes, bits), shape)` gives the codes back, and `bits` bits a code are all that is stored."""
    generator = torch.Generator().manual_seed(0)
    for bits in (1, 2, 3):
        for shape in ((64,), (5, 3), (2, 3, 3, 3), (1,)):
            codes = torch.randint(2**bits, shape, generator=generator).to(torch.uint8)
            packed = pack(codes, bits)
            size = packed.numel() * packed.element_size()
            wanted = bits * math.ceil(codes.numel() / 8)
            assert size <= wanted, f"{codes.numel()} codes of {bits} bits fit into {wanted} bytes; {size} were used."
            back = unpack(packed, shape)
            assert back.shape == codes.shape, f"Codes of shape {shape} came back as {tuple(back.shape)}."
            assert torch.equal(back.to(torch.uint8), codes), f"Codes of {bits} bits, shape {shape}, came back changed."
