"""Quantised activations: a quantiser behind every ReLU, started from what one pass over sample batches shows it.

Max pooling commutes with a staircase that never falls, so a quantiser before the stem's pooling gives what one behind
it gives (there the [official code] has it).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.qnet.method.batches import evaluating, input_batches
from labkit.papers.qnet.method.relus import RELUS, callers_of_shared_relus, relus_of
from labkit.papers.qnet.method.soft_quantizer import EXACT, Backward, Quantizer, forward_mode, quantizers
from labkit.papers.qnet.method.thresholds import MAX_SAMPLES, Init
from labkit.papers.qnet.method.weights import Method, Placement, make_quantizer

OTHERS = (nn.Hardswish, nn.Hardtanh, nn.SiLU, nn.GELU, nn.Mish, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU)
"""Activations with negative values, which no level set from 0 upwards fits: they stay float."""


def quantize_activations(
    model: nn.Module,
    method: Method,
    sample_batches: Iterable[Any] | Tensor,
    *,
    init: Init = "trimmed",
    backward: Backward = EXACT,
    learn_thresholds: bool = False,
    seed: int = 0,
) -> Placement:
    """Puts a quantiser behind every `nn.ReLU` and `nn.ReLU6` of `model`, in place: Sequential(relu, quantizer).

    Every quantiser is fitted to a random subset of the float activations of one pass over `sample_batches`, in eval
    mode and with hard weights. To load a trained network, call this with any batch of the right shape, then load its
    state.

    Args:
        method: levels such as `LEVELS["A2"]`, or a baseline such as `baselines.lsq_activations(2)`. A baseline that
            replaces the ReLU (XNOR's sign) says so by its attribute `replaces_relu`, and is fitted to the ReLU's input.
        init, backward, learn_thresholds: how the paper's quantiser starts and trains; baselines ignore them.
        seed: of the random subset.

    Raises:
        InputError: no ReLU, no batch, a ReLU that is not a module or runs twice in one pass (its two uses need a
            quantiser each; `separate_relus` sees to both) or never, activations quantised already.
    """
    relus, batches = relus_of(model), list(input_batches(model, sample_batches))
    if not batches:
        raise InputError("sample_batches is empty: give at least one batch of inputs, so that scales can be fitted")
    if done := quantizers(model, "activations"):
        raise InputError(f"activations are quantised already ({', '.join(done)}); start from a network with ReLUs only")
    if shared := callers_of_shared_relus(model, batches[0]):
        callers = " and ".join(f"'{name}'" if name else "the model itself" for name in shared)
        raise InputError(
            f"{callers}: its forward pass calls F.relu, or one ReLU several times; each use needs an nn.ReLU() of its "
            "own, since each needs its own scale. quantize(model, ...) gives it one"
        )
    if not relus:
        raise InputError(
            "the model has no ReLU to put a quantiser behind; quantise its weights alone (activations=None), or "
            "replace its activation functions by nn.ReLU() and train it anew"
        )
    before = bool(getattr(method, "replaces_relu", False))
    samples = sample_activations(model, relus, batches, before=before, seed=seed)
    options = {"init": init, "backward": backward, "learn_thresholds": learn_thresholds}
    new = {name: make_quantizer(name, samples[name], method, **options) for name in relus}  # type: ignore[arg-type]
    for name, relu in relus.items():
        quantizer = new[name]
        quantizer.role = "activations"
        quantizer.train(relu.training)
        first = nn.Identity() if before else relu
        model.set_submodule(name, nn.Sequential(first, quantizer))
    return Placement(tuple(relus), float_activations(model))


def float_activations(model: nn.Module) -> tuple[str, ...]:
    """Names of the activation functions of `model` without a quantiser behind them."""
    quantized = {id(module[0]) for module in model.modules() if _is_quantized(module)}  # type: ignore[index]
    return tuple(
        name
        for name, module in model.named_modules()
        if isinstance(module, (*RELUS, *OTHERS)) and id(module) not in quantized
    )


def _is_quantized(module: nn.Module) -> bool:
    """Is it the Sequential(relu, quantizer) that `quantize_activations` leaves?"""
    return isinstance(module, nn.Sequential) and len(module) == 2 and isinstance(module[1], Quantizer)


@torch.no_grad()
def sample_activations(
    model: nn.Module,
    relus: Mapping[str, nn.Module],
    batches: list[Tensor],
    *,
    before: bool,
    seed: int,
) -> dict[str, Float[Tensor, " samples"]]:
    """What each ReLU gives (or, `before`, gets): up to MAX_SAMPLES values per ReLU and batch, at random.

    The passes are in eval mode and with hard weights; the model is left as it was.
    """
    values_of: dict[str, list[Tensor]] = {name: [] for name in relus}
    generator = torch.Generator().manual_seed(seed)

    def keep(name: str) -> object:
        def hook(relu: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            values = (inputs[0] if before else output).detach().flatten()
            if len(values) > MAX_SAMPLES:
                values = values[torch.randint(len(values), (MAX_SAMPLES,), generator=generator).to(values.device)]
            values_of[name].append(values)

        return hook

    hooks = [relu.register_forward_hook(keep(name)) for name, relu in relus.items()]  # type: ignore[arg-type]
    try:
        with evaluating(model), forward_mode(model, "hard"):
            for batch in batches:
                model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    for name, values in values_of.items():
        if len(values) != len(batches):
            raise InputError(
                f"ReLU '{name}' ran {len(values)} times in {len(batches)} passes; each use needs an nn.ReLU() of its "
                "own, since each needs its own scale"
            )
    return {name: torch.cat(values) for name, values in values_of.items()}
