"""Quantised activations: a quantiser behind every ReLU, started from what one pass over sample batches shows it.

Max pooling commutes with a staircase that never falls, so a quantiser before the stem's pooling gives what one behind
it gives (there the [official code] has it).
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.qnet.method.soft_quantizer import EXACT, Backward, forward_mode, quantizers
from labkit.papers.qnet.method.thresholds import MAX_SAMPLES, Init
from labkit.papers.qnet.method.weights import Method, Placement, make_quantizer


def quantize_activations(
    model: nn.Module,
    method: Method,
    sample_batches: Iterable[Float[Tensor, "batch *shape"]],
    *,
    init: Init = "trimmed",
    backward: Backward = EXACT,
    learn_thresholds: bool = False,
    seed: int = 0,
) -> Placement:
    """Puts a quantiser behind every `nn.ReLU` of `model`, in place: the ReLU becomes Sequential(relu, quantizer).

    Every quantiser is fitted to a random subset of the float activations of one pass over `sample_batches`, in eval
    mode and with hard weights. To load a trained network, call this with any batch of the right shape, then load its
    state.

    Args:
        method: levels such as `LEVELS["A2"]`, or a baseline such as `baselines.lsq_activations(2)`. A baseline that
            replaces the ReLU (XNOR's sign) says so by its attribute `replaces_relu`, and is fitted to the ReLU's input.
        init, backward, learn_thresholds: how the paper's quantiser starts and trains; baselines ignore them.
        seed: of the random subset.

    Raises:
        InputError: no ReLU, no batch, a ReLU that runs twice in one pass (its two uses need a quantiser each) or
            never, activations quantised already.
    """
    relus = {
        name: module for name, module in model.named_modules(remove_duplicate=False) if isinstance(module, nn.ReLU)
    }
    if not relus:
        raise InputError(
            "the model has no nn.ReLU module to put a quantiser behind; a call of F.relu is invisible here"
        )
    if done := quantizers(model, "activations"):
        raise InputError(f"activations are quantised already ({', '.join(done)}); start from a network with ReLUs only")
    before = bool(getattr(method, "replaces_relu", False))
    samples = sample_activations(model, relus, sample_batches, before=before, seed=seed)
    options = {"init": init, "backward": backward, "learn_thresholds": learn_thresholds}
    new = {name: make_quantizer(name, samples[name], method, **options) for name in relus}  # type: ignore[arg-type]
    for name, relu in relus.items():
        quantizer = new[name]
        quantizer.role = "activations"
        quantizer.train(relu.training)
        first = nn.Identity() if before else relu
        model.set_submodule(name, nn.Sequential(first, quantizer))
    return Placement(tuple(relus), ())


@torch.no_grad()
def sample_activations(
    model: nn.Module,
    relus: dict[str, nn.ReLU],
    batches: Iterable[Float[Tensor, "batch *shape"]],
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

    training = {module: module.training for module in model.modules()}
    hooks = [relu.register_forward_hook(keep(name)) for name, relu in relus.items()]  # type: ignore[arg-type]
    count = 0
    try:
        model.eval()
        with forward_mode(model, "hard"):
            for batch in batches:
                model(batch)
                count += 1
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in training.items():
            module.training = mode
    if count == 0:
        raise InputError("sample_batches is empty: give at least one batch of inputs, so that scales can be fitted")
    for name, values in values_of.items():
        if len(values) != count:
            raise InputError(
                f"ReLU '{name}' ran {len(values)} times in {count} passes; each use needs an nn.ReLU() of its own, "
                "since each needs its own scale"
            )
    return {name: torch.cat(values) for name, values in values_of.items()}
