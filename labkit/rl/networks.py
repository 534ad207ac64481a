"""Many networks of one shape as one: every parameter has a leading dimension `copies` (seeds, ensemble members).

Adam and SGD act on each number alone, and a sum of losses has each network's own gradient: training the stack is
training its networks, at the price of few large products instead of many small ones. [ours]
"""

import itertools
import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import InputError

_ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}


class StackedLinear(nn.Module):
    """y[i] = x[i] W[i] + b[i] for every copy i, in one batched product.

    weight: (copies, inputs, outputs), not transposed as in `nn.Linear`; bias: (copies, 1, outputs).
    """

    def __init__(self, copies: int, inputs: int, outputs: int) -> None:
        super().__init__()
        for name, value in (("copies", copies), ("inputs", inputs), ("outputs", outputs)):
            if value < 1:
                raise InputError(f"{name} must be at least 1; got {value}.")
        self.copies, self.inputs, self.outputs = copies, inputs, outputs
        self.weight = nn.Parameter(torch.zeros(copies, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(copies, 1, outputs))

    def forward(self, x: Float[Tensor, "copies batch inputs"]) -> Float[Tensor, "copies batch outputs"]:
        if x.dim() != 3 or x.shape[0] != self.copies or x.shape[2] != self.inputs:
            raise InputError(
                f"input must be (copies, batch, inputs) = ({self.copies}, batch, {self.inputs}); got {tuple(x.shape)}. "
                "For one network write x[None]; to show all copies the same batch, x.expand(copies, -1, -1)."
            )
        return torch.baddbmm(self.bias, x, self.weight)

    def extra_repr(self) -> str:
        return f"copies={self.copies}, inputs={self.inputs}, outputs={self.outputs}"


class StackedMLP(nn.Module):
    """`copies` multi-layer perceptrons with layer widths `sizes`; no activation after the last layer.

    First weights are uniform in +-sqrt(6 / (inputs + outputs)), biases 0.  [official code of SHER]

    Args:
        sizes: widths from the input to the output, at least two.
        final_gain: the last layer's weights are multiplied by it.
        generators: one per copy. Copy i then has exactly the weights of a `StackedMLP(1, ...)` made with generator i.
            None: torch's global generator.

    Raises:
        InputError: fewer than two sizes, an unknown activation, not one generator per copy.
    """

    def __init__(
        self,
        copies: int,
        sizes: Sequence[int],
        activation: str = "relu",
        *,
        final_gain: float = 1.0,
        generators: Sequence[torch.Generator] | None = None,
    ) -> None:
        super().__init__()
        if len(sizes) < 2:
            raise InputError(f"sizes are the widths from input to output, at least two; got {list(sizes)}.")
        if activation not in _ACTIVATIONS:
            raise InputError(f"activation must be one of {', '.join(_ACTIVATIONS)}; got '{activation}'.")
        self.copies, self.sizes, self.activation = copies, tuple(sizes), activation
        self.layers = nn.ModuleList(StackedLinear(copies, a, b) for a, b in itertools.pairwise(sizes))
        self.initialize(final_gain, generators)

    @torch.no_grad()
    def initialize(self, final_gain: float = 1.0, generators: Sequence[torch.Generator] | None = None) -> None:
        """Draw all weights anew."""
        if generators is not None and len(generators) != self.copies:
            raise InputError(f"one generator per copy: {self.copies} copies, {len(generators)} generators.")
        for copy in range(self.copies):
            generator = None if generators is None else generators[copy]
            for layer in self.layers:
                assert isinstance(layer, StackedLinear)
                fill_uniform(layer.weight[copy], math.sqrt(6 / (layer.inputs + layer.outputs)), generator)
                layer.bias[copy].zero_()
        last = self.layers[-1]
        assert isinstance(last, StackedLinear)
        last.weight.mul_(final_gain)

    def forward(self, x: Float[Tensor, "copies batch inputs"]) -> Float[Tensor, "copies batch outputs"]:
        for layer in self.layers[:-1]:
            x = _ACTIVATIONS[self.activation](layer(x))
        return self.layers[-1](x)


def fill_uniform(values: Tensor, bound: float, generator: torch.Generator | None) -> None:
    """Fill `values` in place, uniform in +-bound; drawn on the CPU, so that every device gets the same numbers."""
    drawn = torch.rand(values.shape, generator=generator)
    values.copy_((2 * drawn - 1) * bound)


@torch.no_grad()
def clip_grad_norm_per_copy(parameters: Iterable[nn.Parameter], max_norm: float) -> Float[Tensor, " copies"]:
    """Scale each copy's gradients so that their Euclidean norm is at most `max_norm`. Returns the norms before.

    What `nn.utils.clip_grad_norm_` does to each network alone; over a stack that would mix the copies.
    """
    if not max_norm > 0:
        raise InputError(f"max_norm must be above 0; got {max_norm}.")
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        raise InputError("no parameter has a gradient; call backward first.")
    norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
    scale = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale.view(-1, *[1] * (gradient.dim() - 1)))
    return norms


@torch.no_grad()
def polyak_(target: nn.Module, source: nn.Module, keep: float) -> None:
    """target <- keep * target + (1 - keep) * source, every parameter in place."""
    if not 0 <= keep <= 1:
        raise InputError(f"keep must lie between 0 and 1; got {keep}.")
    old: list[Tensor] = list(target.parameters())
    new: list[Tensor] = list(source.parameters())
    torch._foreach_mul_(old, keep)
    torch._foreach_add_(old, new, alpha=1 - keep)
