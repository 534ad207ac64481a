"""K models of the world as one: each member of each copy is one slice of every tensor, trained by its own rules.

    f_k(s, a) = s + std_out net_k((s, a) normalised) + mean_out        k = 1 .. K, the net predicts the change of state

A member may predict further numbers, a reward or an end: outputs behind those of the state, to which no s is added.

Copies are independent problems (seeds, values of alpha) with data of their own; copy number copy K + k is member k.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.progress import progress
from labkit.rl.networks import StackedLinear, StackedMLP, clip_grad_norm_per_copy
from labkit.rl.recorded import Recorded
from labkit.seeds import derive

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "tanh": torch.tanh}


# -- networks ---------------------------------------------------------------------------------------------------------


class StackedWeightNormLinear(nn.Module):
    """y = x W + b with W = g V / |V|, the norm taken over the inputs of each output.

    V ~ N(0, 0.05^2), g = 1, b = 0.  [official code]
    direction: V, (copies, inputs, outputs); gain: g, (copies, 1, outputs).
    """

    def __init__(
        self, copies: int, inputs: int, outputs: int, generators: Sequence[torch.Generator] | None = None
    ) -> None:
        super().__init__()
        self.copies, self.inputs, self.outputs = copies, inputs, outputs
        self.direction = nn.Parameter(torch.empty(copies, inputs, outputs))
        self.gain = nn.Parameter(torch.ones(copies, 1, outputs))
        self.bias = nn.Parameter(torch.zeros(copies, 1, outputs))
        self.initialize(generators)

    @torch.no_grad()
    def initialize(self, generators: Sequence[torch.Generator] | None) -> None:
        for copy in range(self.copies):  # drawn on the CPU: every device gets the same numbers
            generator = None if generators is None else generators[copy]
            self.direction[copy] = 0.05 * torch.randn(self.inputs, self.outputs, generator=generator).to(self.direction)
        self.gain.fill_(1.0)
        self.bias.zero_()

    def weight(self) -> Float[Tensor, "copies inputs outputs"]:
        return self.direction * (self.gain / self.direction.norm(dim=1, keepdim=True))

    def forward(self, x: Float[Tensor, "copies batch inputs"]) -> Float[Tensor, "copies batch outputs"]:
        return torch.baddbmm(self.bias, x, self.weight())


class StackedWeightNormMLP(nn.Module):
    """`StackedMLP` with weight normalisation on every layer."""

    def __init__(
        self,
        copies: int,
        sizes: Sequence[int],
        activation: str = "relu",
        generators: Sequence[torch.Generator] | None = None,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise InputError(f"activation must be one of {', '.join(ACTIVATIONS)}; got '{activation}'.")
        self.copies, self.sizes, self.activation = copies, tuple(sizes), activation
        pairs = itertools.pairwise(sizes)
        self.layers = nn.ModuleList(StackedWeightNormLinear(copies, a, b, generators) for a, b in pairs)

    def initialize(self, generators: Sequence[torch.Generator] | None) -> None:
        for layer in self.layers:
            assert isinstance(layer, StackedWeightNormLinear)
            layer.initialize(generators)

    def forward(self, x: Float[Tensor, "copies batch inputs"]) -> Float[Tensor, "copies batch outputs"]:
        for layer in self.layers[:-1]:
            x = ACTIVATIONS[self.activation](layer(x))
        return self.layers[-1](x)

    @torch.no_grad()
    def plain(self) -> StackedMLP:
        """The same function with W = g V / |V| multiplied out: a rollout calls it hundreds of times."""
        device = next(self.parameters()).device
        plain = StackedMLP(self.copies, self.sizes, self.activation, generators=_fresh(self.copies)).to(device)
        self.write_plain(plain)
        return plain.requires_grad_(False)

    @torch.no_grad()
    def write_plain(self, plain: StackedMLP) -> None:
        for layer, target in zip(self.layers, plain.layers, strict=True):
            assert isinstance(layer, StackedWeightNormLinear)
            assert isinstance(target, StackedLinear)
            assert target.bias is not None
            target.weight.copy_(layer.weight())
            target.bias.copy_(layer.bias)


class DynamicsEnsemble(nn.Module):
    """f_k for every member of every copy, with the normalisation of its copy's data inside.

    Args:
        copies, members: copies of K >= 2 members each.
        observation, action: sizes of s and a.
        hidden: widths of the hidden layers; 512, 512 with relu and weight norm are those of the [official code].
        weight_norm: else plain layers whose last one starts `final_gain` times as large.
        seeds: one per copy: member k of a copy has the same weights whatever other copies there are.
        extra_outputs: numbers that members predict beside the next state.

    Raises:
        InputError: fewer than two members, sizes below 1, not one seed a copy.
    """

    input_mean: Tensor
    input_std: Tensor
    output_mean: Tensor
    output_std: Tensor

    def __init__(
        self,
        copies: int,
        members: int,
        observation: int,
        action: int,
        hidden: Sequence[int] = (512, 512),
        activation: str = "relu",
        *,
        weight_norm: bool = True,
        final_gain: float = 1.0,
        seeds: Sequence[int] | None = None,
        extra_outputs: int = 0,
    ) -> None:
        super().__init__()
        if members < 2:
            raise InputError(f"an ensemble that disagrees needs two members or more; got {members}.")
        if min(copies, observation, action, *hidden) < 1:
            raise InputError("copies, observation, action and hidden widths must be at least 1.")
        self.copies, self.members, self.observation, self.action = copies, members, observation, action
        self.final_gain = final_gain
        self.extra_outputs, outputs = extra_outputs, observation + extra_outputs
        sizes = (observation + action, *hidden, outputs)
        self.net = self.build(sizes, activation, weight_norm)
        self.initialize(list(range(copies)) if seeds is None else seeds)
        for name, size in (("input", observation + action), ("output", outputs)):
            self.register_buffer(f"{name}_mean", torch.zeros(copies, 1, size))
            self.register_buffer(f"{name}_std", torch.ones(copies, 1, size))
        self._plain: list[StackedMLP] = []  # a list: not a submodule, not in the state dict
        self._frozen = False

    def build(self, sizes: Sequence[int], activation: str, weight_norm: bool) -> nn.Module:
        """The stacked networks; another kind of member has others, and with them its own weights and losses."""
        kind = StackedWeightNormMLP if weight_norm else StackedMLP
        return kind(self.networks, sizes, activation, generators=_fresh(self.networks))

    def draw_weights(self, generators: Sequence[torch.Generator]) -> None:
        if isinstance(self.net, StackedMLP):
            self.net.initialize(self.final_gain, generators)
        else:
            self.net.initialize(generators)  # type: ignore[operator]

    def losses(
        self, inputs: Float[Tensor, "networks batch inputs"], targets: Float[Tensor, "networks batch outputs"]
    ) -> Float[Tensor, " networks"]:
        """What each network minimises: the mean squared error of normalised targets."""
        return (self.net(inputs) - targets).square().mean((1, 2))

    @property
    def networks(self) -> int:
        """Networks in the stack: K of every copy."""
        return self.copies * self.members

    def initialize(self, seeds: Sequence[int]) -> None:
        """All members' weights anew, in place; member k of a copy depends on the copy's seed and on k."""
        if len(seeds) != self.copies:
            raise InputError(f"one seed a copy: {self.copies} copies, {len(seeds)} seeds.")
        generators = [
            torch.Generator().manual_seed(derive(seed, member)) for seed in seeds for member in range(self.members)
        ]
        self.draw_weights(generators)
        self._frozen = False

    @torch.no_grad()
    def normalize_by(
        self,
        input_mean: Float[Tensor, "copies inputs"],
        input_std: Float[Tensor, "copies inputs"],
        output_mean: Float[Tensor, "copies outputs"],
        output_std: Float[Tensor, "copies outputs"],
    ) -> None:
        """Take these statistics of (s, a) and of the change of state (and what else is predicted), one row a copy."""
        if not (bool((input_std > 0).all()) and bool((output_std > 0).all())):
            raise InputError("standard deviations must be positive; give constant components a floor.")
        for buffer, values in (
            (self.input_mean, input_mean), (self.input_std, input_std),
            (self.output_mean, output_mean), (self.output_std, output_std),
        ):  # fmt: skip
            buffer.copy_(values[:, None])

    def normalized(
        self,
        state: Float[Tensor, "copies rows observation"],
        action: Float[Tensor, "copies rows action"],
        outcome: Float[Tensor, "copies rows outputs"],
    ) -> tuple[Float[Tensor, "copies rows inputs"], Float[Tensor, "copies rows outputs"]]:
        """Inputs and targets as the networks see them; outcome: the next state and what else is predicted."""
        inputs = (torch.cat([state, action], -1) - self.input_mean) / self.input_std
        return inputs, (outcome - self._base(state) - self.output_mean) / self.output_std

    def _base(self, state: Float[Tensor, "*batch observation"]) -> Float[Tensor, "*batch outputs"]:
        """What predictions are added to: the state, and 0 for all that is no state."""
        return torch.nn.functional.pad(state, (0, self.extra_outputs))

    @torch.no_grad()
    def freeze(self) -> None:
        """Multiply the weight norm out; until the next `fit` or `initialize` rollouts use the result.

        Later calls write to the same memory: a recorded CUDA graph sees the new weights.
        """
        if not isinstance(self.net, StackedWeightNormMLP):
            return
        if self._plain:
            self.net.write_plain(self._plain[0])
        else:
            self._plain.append(self.net.plain())
        self._frozen = True

    def thaw(self) -> None:
        self._frozen = False

    def forward(
        self, state: Float[Tensor, "copies batch observation"], action: Float[Tensor, "copies batch action"]
    ) -> Float[Tensor, "copies members batch outputs"]:
        """The next states that all members of the copy expect, and what else they predict."""
        return self.outcomes(state, self._net(self.network_inputs(state, action)))

    def network_inputs(self, state: Tensor, action: Tensor) -> Tensor:
        """Normalized inputs, the same for all members of a copy: (networks, batch, inputs)."""
        inputs = (torch.cat([state, action], -1) - self.input_mean) / self.input_std
        copies, batch, size = inputs.shape
        return inputs[:, None].expand(copies, self.members, batch, size).reshape(self.networks, batch, size)

    def outcomes(self, state: Tensor, change: Tensor) -> Tensor:
        """(copies, members, batch, outputs) from the networks' outputs."""
        change = change.view(self.copies, self.members, *change.shape[1:])
        return self._base(state)[:, None] + change * self.output_std[:, None] + self.output_mean[:, None]

    def by_member(
        self,
        state: Float[Tensor, "copies members batch observation"],
        action: Float[Tensor, "copies members batch action"],
    ) -> Float[Tensor, "copies members batch outputs"]:
        """Each member's next state from a state of its own: for rollouts that follow one member to the end."""
        copies, members, batch, _ = state.shape
        inputs = (torch.cat([state, action], -1) - self.input_mean[:, None]) / self.input_std[:, None]
        change = self._net(inputs.reshape(self.networks, batch, -1)).view(copies, members, batch, -1)
        return self._base(state) + change * self.output_std[:, None] + self.output_mean[:, None]

    def _net(self, x: Tensor) -> Tensor:
        net = self._plain[0] if self._frozen else self.net
        return net(x)


def _fresh(count: int) -> list[torch.Generator]:
    """Generators for weights that are overwritten at once: torch's global one is left alone."""
    return [torch.Generator() for _ in range(count)]


# -- who learns from what ---------------------------------------------------------------------------------------------


class TrajectorySplits:
    """Which rows each member trains on and which it is validated on: a random 80/20 cut inside every trajectory.

    Besides the initialisation this is all that makes members differ  [official code], so a row's side is drawn when its
    trajectory arrives, and kept for as long as the members keep their weights: drawing anew on every training would
    show all members all rows. Members that start from fresh weights get fresh cuts, see `redraw`.

    train, valid: (networks, rows of the copy's data), in the order of arrival.
    """

    def __init__(self, copies: int, members: int, valid_fraction: float = 0.2) -> None:
        if not 0 < valid_fraction < 1:
            raise InputError(f"valid_fraction must lie between 0 and 1; got {valid_fraction}.")
        self.copies, self.members, self.valid_fraction = copies, members, valid_fraction
        self._forget()

    def _forget(self) -> None:
        self.trajectories: list[tuple[int, int]] = []  # (how many, how long), in the order of arrival
        self.rows = 0
        self.train = torch.zeros(self.copies * self.members, 0, dtype=torch.long)
        self.valid = torch.zeros(self.copies * self.members, 0, dtype=torch.long)

    def add(self, trajectories: int, length: int, generator: torch.Generator) -> None:
        """Every copy has got `trajectories` more of `length` steps; draw their cuts. A single step is trained on.

        Raises:
            InputError: no trajectory, or of no step.
        """
        if min(trajectories, length) < 1:
            raise InputError(f"cannot cut {trajectories} trajectories of {length} steps in two parts each.")
        held_out = min(max(1, round(self.valid_fraction * length)), length - 1)
        networks = self.copies * self.members
        order = (
            torch.rand(networks, trajectories, length, generator=generator, device=generator.device).argsort(-1).cpu()
        )
        order += self.rows + length * torch.arange(trajectories)[:, None]
        self.valid = torch.cat([self.valid, order[..., :held_out].flatten(1)], 1)
        self.train = torch.cat([self.train, order[..., held_out:].flatten(1)], 1)
        self.rows += trajectories * length
        self.trajectories.append((trajectories, length))

    def redraw(self, generator: torch.Generator) -> None:
        """Cut all trajectories anew, for members that start anew.  [official code]"""
        trajectories = self.trajectories
        self._forget()
        for number, length in trajectories:
            self.add(number, length, generator)

    def resampled(self, generator: torch.Generator) -> "TrajectorySplits":
        """Each member's training rows drawn from them with replacement, once: the bootstrap proper.  [ours: Zone]"""
        splits = TrajectorySplits(self.copies, self.members, self.valid_fraction)
        splits.trajectories, splits.rows, splits.valid = list(self.trajectories), self.rows, self.valid
        drawn = torch.randint(self.train.shape[1], self.train.shape, generator=generator, device=generator.device)
        splits.train = self.train.gather(1, drawn.cpu())
        return splits

    def state_dict(self) -> dict[str, Any]:
        shapes = torch.tensor(self.trajectories, dtype=torch.long).view(-1, 2)
        return {"trajectories": shapes, "train": self.train, "valid": self.valid}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises ValueError: rows that the trajectories do not have."""
        trajectories = [(int(number), int(length)) for number, length in state_dict["trajectories"]]
        train, valid = state_dict["train"], state_dict["valid"]
        rows, both = sum(number * length for number, length in trajectories), torch.cat([train, valid], 1)
        shape = (self.copies * self.members, rows)
        if both.shape != shape or both.dtype != torch.long or bool(((both < 0) | (both >= rows)).any()):
            raise ValueError(f"the cuts are of {tuple(both.shape)} rows, the trajectories have {shape}")
        self.trajectories, self.rows, self.train, self.valid = trajectories, rows, train, valid


# -- training ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FitSettings:
    """How members learn. The defaults are those of the [official code].

    Args:
        learning_rate: Adam's, falling linearly to `final_learning_rate` over `rounds` where that is given.
        batch: rows of a minibatch.
        by_epoch: a round is one pass over the member's rows in an order of its own; else one minibatch, drawn with
            replacement.
        rounds: most rounds. validate_every, patience: in rounds; a member stops when its validation error has had no
            new best for more than `patience` rounds. All held-out rows are asked, after rounds 5, 10, ... and the last
            [ours]; the official code asks 20,000 of them at most, after rounds 1, 6, ...
        max_norm: bound of a member's gradient norm; math.inf for none.
    """

    learning_rate: float = 2e-4
    final_learning_rate: float | None = None
    batch: int = 1000
    by_epoch: bool = True
    rounds: int = 10_000
    validate_every: int = 5
    patience: int = 25
    max_norm: float = 0.5

    def __post_init__(self) -> None:
        if min(self.batch, self.rounds, self.validate_every, self.patience) < 1:
            raise InputError("batch, rounds, validate_every and patience must be at least 1.")
        if not self.learning_rate > 0 or not self.max_norm > 0:
            raise InputError("learning_rate and max_norm must be positive.")


@dataclass(frozen=True)
class FitReport:
    """How a training went: the best validation error of each copy (in units of the targets' variance) and its curve.

    history: (validations, networks); rounds: rounds until the last member stopped.
    """

    best: Float[Tensor, " networks"]
    history: Float[Tensor, "validations networks"]
    rounds: int


def fit(
    ensemble: DynamicsEnsemble,
    state: Float[Tensor, "copies rows observation"],
    action: Float[Tensor, "copies rows action"],
    outcome: Float[Tensor, "copies rows outputs"],
    splits: TrajectorySplits,
    generator: torch.Generator,
    settings: FitSettings = FitSettings(),
    *,
    graphs: bool = False,
    description: str = "",
) -> FitReport:
    """Train all members at once, each on its own rows and with its own stop; afterwards each has its best weights.

    A member that has stopped goes on being computed, but its best weights are kept: the result is that of K trainings.

    Args:
        outcome: the next state, and what else members predict.
        generator: of the minibatches, on the ensemble's device.
        graphs: on a GPU, replay the steps from a CUDA graph.
        description: name of a bar over the rounds; empty: none.

    Raises:
        InputError: rows that do not fit the splits, or the ensemble; none to validate on.
    """
    if state.shape[:2] != (ensemble.copies, splits.rows) or splits.train.shape[0] != ensemble.networks:
        raise InputError(
            f"the splits are of {splits.copies} copies x {splits.rows} rows, the ensemble has {ensemble.copies} copies "
            f"of {ensemble.members} members; got states of shape {tuple(state.shape)}."
        )
    if splits.valid.shape[1] == 0:
        raise InputError("every episode ended with its first step: there is no trajectory to learn dynamics from.")
    ensemble.thaw()
    inputs, targets = (t.flatten(0, 1) for t in ensemble.normalized(state, action, outcome))
    optimizer = make_adam(ensemble.net.parameters(), settings.learning_rate)
    train_rows, valid_rows = (_rows_in_flat(part, splits, inputs.device) for part in (splits.train, splits.valid))
    best_error = torch.full((ensemble.networks,), math.inf, device=inputs.device)
    best_weights = [p.detach().clone() for p in ensemble.net.parameters()]
    stale = torch.zeros(ensemble.networks, dtype=torch.long, device=inputs.device)
    history, number = [], 0
    step = _step_on_rows(ensemble, optimizer, inputs, targets, settings, graphs)
    rounds: Iterable[int] = range(1, settings.rounds + 1)
    for number in progress(rounds, description) if description else rounds:
        set_learning_rate(optimizer, _learning_rate(settings, number - 1))
        for rows in _minibatches(train_rows, settings, generator):
            step(rows)
        if number % settings.validate_every and number != settings.rounds:
            continue
        error = validation_error(ensemble.net, inputs, targets, valid_rows)
        history.append(error)
        better = (error < best_error) & (stale <= settings.patience)
        best_error = torch.where(better, error, best_error)
        _keep_where(better, best_weights, ensemble.net)
        stale = torch.where(better, 0, stale + settings.validate_every)
        if bool((stale > settings.patience).all()):
            break
    with torch.no_grad():
        for parameter, value in zip(ensemble.net.parameters(), best_weights, strict=True):
            parameter.copy_(value)
    return FitReport(best_error, torch.stack(history), number)


def train_step(
    ensemble: DynamicsEnsemble,
    optimizer: torch.optim.Adam,
    inputs: Float[Tensor, "networks batch inputs"],
    targets: Float[Tensor, "networks batch outputs"],
    max_norm: float,
) -> None:
    """One Adam step of every network on a minibatch of its own; the sum of the losses has each one's own gradient."""
    optimizer.zero_grad(set_to_none=True)
    ensemble.losses(inputs, targets).sum().backward()
    if math.isfinite(max_norm):
        clip_grad_norm_per_copy(ensemble.net.parameters(), max_norm)
    optimizer.step()


def _step_on_rows(
    ensemble: DynamicsEnsemble,
    optimizer: torch.optim.Adam,
    inputs: Tensor,
    targets: Tensor,
    settings: FitSettings,
    graphs: bool,
) -> Callable[[Tensor], None]:
    """rows -> one step. A graph holds one shape; the smaller last minibatch of an epoch is an ordinary step."""

    def ordinary(rows: Tensor) -> None:
        train_step(ensemble, optimizer, inputs[rows], targets[rows], settings.max_norm)

    if not (graphs and inputs.is_cuda):
        return ordinary
    buffer: list[Tensor] = []
    recorded = Recorded(lambda: ordinary(buffer[0]), inputs.device)

    def replayed(rows: Tensor) -> None:
        if not buffer:
            buffer.append(rows.clone())
        if rows.shape != buffer[0].shape:
            return ordinary(rows)
        buffer[0].copy_(rows)
        return recorded()

    return replayed


@torch.no_grad()
def validation_error(
    net: nn.Module,
    inputs: Float[Tensor, "rows inputs"],
    targets: Float[Tensor, "rows outputs"],
    valid_rows: Int[Tensor, "networks valid"],
    chunk: int = 8192,
) -> Float[Tensor, " networks"]:
    """Mean squared error of each copy on its own held-out rows."""
    total = sum((net(inputs[rows]) - targets[rows]).square().sum((1, 2)) for rows in valid_rows.split(chunk, 1))
    assert isinstance(total, Tensor)
    return total / (valid_rows.shape[1] * targets.shape[1])


def make_adam(parameters: Any, learning_rate: float, eps: float = 1e-8) -> torch.optim.Adam:
    """Adam in one kernel, which small networks feel on a CPU as well. On a GPU the step size lies in a tensor, so that
    a CUDA graph can hold it."""
    trained = list(parameters)
    if trained[0].is_cuda:
        rate = torch.tensor(learning_rate, device=trained[0].device)
        return torch.optim.Adam(trained, lr=rate, eps=eps, fused=True, capturable=True)
    return torch.optim.Adam(trained, lr=learning_rate, eps=eps, fused=True)


def set_learning_rate(optimizer: torch.optim.Adam, value: float) -> None:
    """In place on a GPU: a recorded CUDA graph reads it there. After a checkpoint the tensor may lie elsewhere."""
    for group in optimizer.param_groups:
        device, rate = group["params"][0].device, group["lr"]
        if isinstance(rate, Tensor) and rate.device == device:
            rate.fill_(value)
        else:
            group["lr"] = torch.tensor(value, device=device) if device.type == "cuda" else value


def _learning_rate(settings: FitSettings, done: int) -> float:
    last = settings.learning_rate if settings.final_learning_rate is None else settings.final_learning_rate
    return settings.learning_rate + (last - settings.learning_rate) * done / settings.rounds


def _rows_in_flat(rows: Tensor, splits: TrajectorySplits, device: torch.device) -> Tensor:
    """Rows of a copy's data as rows of all copies' data, one after the other."""
    copy = torch.arange(splits.copies).repeat_interleave(splits.members)
    return (rows + copy[:, None] * splits.rows).to(device)


def _minibatches(rows: Tensor, settings: FitSettings, generator: torch.Generator) -> Any:
    networks, count = rows.shape
    if not settings.by_epoch:
        shape = (networks, min(settings.batch, count))
        return [rows.gather(1, torch.randint(count, shape, generator=generator, device=generator.device).to(rows))]
    order = torch.rand(networks, count, generator=generator, device=generator.device).argsort(1).to(rows)
    return rows.gather(1, order).split(settings.batch, 1)


@torch.no_grad()
def _keep_where(better: Tensor, best: list[Tensor], net: nn.Module) -> None:
    for value, parameter in zip(best, net.parameters(), strict=True):
        value.copy_(torch.where(better.view(-1, *[1] * (value.dim() - 1)), parameter, value))
