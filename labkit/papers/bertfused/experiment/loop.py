"""The one training loop of this room, for every arm and experiment."""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from labkit.papers.bertfused.experiment.config import Config
from labkit.papers.bertfused.experiment.data import Batch, Examples, Views, batch_of
from labkit.papers.bertfused.method.bert import Bert
from labkit.papers.bertfused.method.transformer import Transformer
from labkit.progress import progress
from labkit.text.batches import TokenBatches, cut
from labkit.workbench import training
from labkit.workbench.runs import Run, State
from labkit.workbench.training import Workers

FIRST_RATE = 1e-7  # what the warm-up starts from [official code]


def inverse_sqrt(update: int, peak: float, warmup: int) -> float:
    """The step size of an update, counted from 1: a line from 1e-7 to `peak`, then peak sqrt(warmup / update)."""
    if update <= warmup:
        return FIRST_RATE + (peak - FIRST_RATE) * update / warmup
    return float(peak * (warmup / update) ** 0.5)


def smoothed_cross_entropy(
    logits: Float[Tensor, "batch target vocabulary"], batch: Batch, smoothing: float, pad: int
) -> Float[Tensor, ""]:
    """Sum over the batch's tokens of (1 - eps) (-log p(y)) + eps / V sum_v -log p(v); padding adds nothing."""
    flat = logits.float().flatten(0, 1)
    return F.cross_entropy(
        flat, batch.target_out.flatten(), ignore_index=pad, label_smoothing=smoothing, reduction="sum"
    )


class Objective(nn.Module):
    """The loss of some sentences by their numbers. A BERT that is trained, too, is part of it.

    A frozen one is no part, but goes into training and evaluation mode with it: it may have dropout.
    """

    def __init__(
        self, model: Transformer, examples: Examples, views: Views, config: Config, bert: Bert | None = None
    ) -> None:
        super().__init__()
        self.model, self.bert = model, bert if bert is not None and bert.trainable else None
        self.frozen = () if bert is None or bert.trainable else (bert,)  # a tuple hides it from `parameters`
        self.examples, self.views, self.smoothing = examples, views, config.label_smoothing

    def train(self, mode: bool = True) -> "Objective":
        super().train(mode)
        for bert in self.frozen:
            bert.train(mode)
        return self

    def forward(self, rows: Sequence[int]) -> Float[Tensor, ""]:
        device, pad = self.model.embed_tokens.weight.device, self.model.sizes.pad
        batch = batch_of(self.examples, rows, self.views, self.model.sizes, device)
        logits = self.model(batch.source, batch.target_in, batch.bert)
        return smoothed_cross_entropy(logits, batch, self.smoothing, pad)


class Validation:
    """Loss on the validation set during a training, and the weights that were best there: what is kept in the end."""

    def __init__(self, model: nn.Module, examples: Examples, views: Views, tokens: int) -> None:
        self.model, self.examples, self.views = model, examples, views
        self.batches = cut(examples.lengths().max(1), _by_length(examples), tokens)
        self.curve: list[tuple[int, float]] = []
        self.best: dict[str, Tensor] = {}

    def look(self, transformer: Transformer, step: int) -> float:
        nll = self.nll(transformer)
        if not self.best or nll < min(value for _, value in self.curve):
            self.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.curve.append((step, nll))
        return nll

    def nll(self, model: Transformer) -> float:
        """-log p of a token in nats, without smoothing."""
        total, tokens, device, before = 0.0, 0, model.embed_tokens.weight.device, self.model.training
        self.model.eval()
        with torch.inference_mode():
            for rows in self.batches:
                batch = batch_of(self.examples, rows.tolist(), self.views, model.sizes, device)
                logits = model(batch.source, batch.target_in, batch.bert)
                total += float(smoothed_cross_entropy(logits, batch, 0.0, model.sizes.pad))
                tokens += int((batch.target_out != model.sizes.pad).sum())
        self.model.train(before)
        return total / tokens

    def state_dict(self) -> dict[str, Any]:
        return {"curve": self.curve, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.curve = [(int(step), float(nll)) for step, nll in state_dict["curve"]]
        self.best = state_dict["best"]


def fit(
    objective: Objective,
    batches: TokenBatches,
    valid: tuple[Examples, Views],
    steps: int,
    config: Config,
    workers: Workers,
    run: Run,
) -> list[tuple[int, float]]:
    """Train `objective.model` in place, and bring back the weights that were best on the validation set.

    In the end all of it is in evaluation mode, BERT, too.

    Returns:
        The validation loss after some updates, before the first one, too: (update, nats a token).
    """
    model, examples = objective.model, objective.examples
    network = workers.wrap(objective.train())
    parameters = [value for value in objective.parameters() if value.requires_grad]
    optimizer = optimizer_of(objective, config)
    validation = Validation(objective, *valid, config.batch_tokens)
    state: State = {
        "model": objective, "optimizer": optimizer, "batches": batches, "drop-net": model.drop_net,
        "validation": validation,
    }  # fmt: skip
    first = run.resume(state)
    if not validation.curve:
        validation.look(model, 0)
    for value in parameters:  # a branch that drop-net leaves out has gradient 0, as where it is computed and weighed 0
        value.grad = torch.zeros_like(value)
    for step in progress(range(first, steps), run.directory.name, steps, first):
        for group in optimizer.param_groups:
            group["lr"] = group["share"] * inverse_sqrt(step + 1, config.learning_rate, config.warmup)
        loss = accumulate(
            network, [next(batches).tolist() for _ in range(config.accumulate)], examples, config, workers
        )
        nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        if (step + 1) % config.validate_every == 0 or step + 1 == steps:
            nll = validation.look(model, step + 1)
            run.log(step, loss=workers.mean(loss).item(), validation=nll, lr=optimizer.param_groups[0]["lr"])
        run.save_if_due(step + 1, state)
    objective.load_state_dict(validation.best)
    objective.eval()
    return validation.curve


def optimizer_of(objective: Objective, config: Config) -> torch.optim.AdamW:
    """AdamW; `share` of a group is what its weights take of the step size: less than all for a BERT that is trained."""
    modules = [(objective.model, 1.0)] + ([] if objective.bert is None else [(objective.bert, config.bert_rate)])
    groups = [
        {"params": [value for value in module.parameters() if value.requires_grad], "share": share}
        for module, share in modules
    ]
    return torch.optim.AdamW(groups, config.learning_rate, (0.9, 0.98), weight_decay=config.weight_decay, fused=True)


def accumulate(
    network: nn.Module, batches: Sequence[list[int]], examples: Examples, config: Config, workers: Workers
) -> Float[Tensor, ""]:
    """Gradients of the loss a token of several batches; each process takes its share of every one.

    Returns:
        This process's part of the loss: their mean over the processes is the loss.
    """
    tokens = sum(len(examples.target[i]) for rows in batches for i in rows)
    total = torch.zeros((), device=workers.device)
    for number, rows in enumerate(batches):
        share, weight = rows[workers.rank :: workers.size], workers.size / tokens
        if not share:  # fewer sentences than processes; all must take part
            share, weight = rows[:1], 0.0
        waits = isinstance(network, nn.parallel.DistributedDataParallel) and number < len(batches) - 1
        with network.no_sync() if waits else contextlib.nullcontext():  # type: ignore[operator]
            with torch.autocast(workers.device.type, dtype=torch.bfloat16, enabled=config.bf16):
                loss = network(share) * weight
            loss.backward()
        total += loss.detach()
    return total


def train_model(
    model: Transformer,
    train: tuple[Examples, Views],
    valid: tuple[Examples, Views],
    steps: int,
    config: Config,
    workers: Workers,
    run: Run,
    bert: Bert | None = None,
    lengths: Any = None,
) -> list[tuple[int, float]]:
    """`fit` with AdamW from the start: what a stage is.

    Args:
        bert: what `train` and `valid` view; trained jointly where it is trainable.
        lengths: (sentences, ways) where BERT's words count, too.
    """
    training.seed_everything(config.seed)
    examples, views = train
    batches = TokenBatches(examples.lengths() if lengths is None else lengths, config.batch_tokens, config.seed)
    return fit(Objective(model, examples, views, config, bert), batches, valid, steps, config, workers, run)


def _by_length(examples: Examples) -> Any:
    return (-examples.lengths().max(1)).argsort(kind="stable")
