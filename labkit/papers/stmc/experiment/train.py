"""Every arm of a config: stage 1 on the labels of steps, stage 2 end to end by CTC, then its error rate."""

import functools
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from labkit import devices
from labkit.data.sign.sentence import frame_count
from labkit.errors import InputError
from labkit.papers.stmc.experiment import data
from labkit.papers.stmc.experiment.config import ARMS, Arm, Config
from labkit.papers.stmc.experiment.data import Batch, Batches, Task, batch
from labkit.papers.stmc.experiment.evaluate import summarise, transcripts
from labkit.papers.stmc.experiment.recognizer import VOCABULARY
from labkit.papers.stmc.method import losses
from labkit.papers.stmc.method.architecture import Architecture
from labkit.papers.stmc.method.network import STMC, Output, next_stage
from labkit.papers.stmc.method.pseudo_labels import aligned_labels, even_labels
from labkit.papers.stmc.method.temporal import STRIDE, fewest_frames, steps_of
from labkit.papers.stmc.method.vgg import load_vgg11
from labkit.progress import progress, side_by_side
from labkit.seeds import derive
from labkit.text import ctc
from labkit.workbench import training
from labkit.workbench.runs import Run, State
from labkit.workbench.training import Workers, generator_at

WEIGHTS, FIRST, SECOND, CENTERS, AUGMENT = range(5)  # what seeds are derived for
ALIGNER = "aligner"
_initializing = threading.Lock()  # arms are built in threads, and torch has one generator


def train(config: Config, run: Run) -> dict[str, Any]:
    """Trains and judges all arms; finished parts of the run directory are read.

    Returns:
        {"data": name, "arms": {arm: see `evaluate.summarise`}, "sentences": [for training, for judging],
        "too_short": training sentences of which no path fits into the network's steps}
    """
    with training.workers(config.device) as workers, devices.one_thread():
        task = data.load(config)
        arms = usable_arms(config, task)
        run.write_json(VOCABULARY, list(task.glosses))
        labels = Labels(config, task, workers, run)
        if config.labels == "aligned" and any(ARMS[name].frames_first for name in arms):
            labels.align()
        alone = workers.size == 1 and workers.device.type == "cpu" and not _uses_dropout(config.base())
        tasks = [functools.partial(train_arm, name, config, task, labels, workers, run) for name in arms]
        results = side_by_side(tasks, config.at_once if alone else 1, "arms")
    return {
        "data": task.name + ("" if task.points else ", no key points"),
        "arms": dict(zip(arms, results, strict=True)),
        "sentences": [len(task.train), len(task.test)],
        "too_short": too_short(config, task),
    }


def usable_arms(config: Config, task: Task) -> tuple[str, ...]:
    """The arms that the data allows: without key points the pose branch has nothing to learn from.

    Raises:
        InputError: none is left, or the key points are not as many as the architecture's.
    """
    base = config.base()
    if task.points and task.points != base.points:
        raise InputError(
            f"{task.name} has {task.points} key points a frame; the pose branch is made for {base.points}: nose, "
            "shoulders, elbows, wrists."
        )
    arms = tuple(name for name in config.arms if task.points or not ARMS[name].architecture(base).needs_points)
    if not arms:
        raise InputError(
            f"{task.name} has no key points (keypoints.npz), and all the arms need them: -p arms full-frame."
        )
    return arms


def train_arm(name: str, config: Config, task: Task, labels: "Labels", workers: Workers, run: Run) -> dict[str, Any]:
    """One arm in its own part of the run directory."""
    part = run.part(name)
    if part.result is None:
        model = fit(ARMS[name], config, task, labels, workers, part)
        part.write_weights(model)
        part.finish(judge(model, ARMS[name], config, task))
    assert part.result is not None
    return part.result


def judge(model: STMC, arm: Arm, config: Config, task: Task) -> dict[str, Any]:
    """Error rates on the sentences to judge by. Random crops are drawn anew, the same in every run."""

    def centers(index: int, frames: int) -> Tensor:
        return _random_centers(generator_at(config.seed, CENTERS, index), frames, model.architecture.points)

    rows = transcripts(model, task.test, task, config.eval_batch, config.beam, centers if arm.random_crops else None)
    return summarise(rows, task.test, task)


# -- the two stages ---------------------------------------------------------------------------------------------------


def fit(arm: Arm, config: Config, task: Task, labels: "Labels", workers: Workers, run: Run) -> STMC:
    """Both stages; each resumes from its own checkpoint, and a finished stage 1 from its weights."""
    architecture = arm.architecture(config.base())
    model = build(architecture, task.labels, config)
    if arm.frames_first and config.frame_epochs:
        first = run.part("stage-1")
        if first.result is None:
            loss = functools.partial(stage1_loss, labels)
            optimize(model, loss, arm, config, task, workers, first, stage=1)
            first.write_weights(model)
            first.finish({"steps": stage_steps(config, task, arm, 1)})
        else:
            model.to(workers.device)
            first.read_weights(model)
        model = _in_own_generator(lambda: next_stage(model), config.seed, SECOND)
    else:
        model = build(architecture, task.labels, config, first_stage=False)
    loss = functools.partial(stage2_loss, labels, config.alpha if arm.alpha is None else arm.alpha)
    optimize(model, loss, arm, config, task, workers, run, stage=2)
    return model


def build(architecture: Architecture, labels: int, config: Config, first_stage: bool = True) -> STMC:
    """An untrained network; its weights depend on the seed alone, whatever else draws random numbers meanwhile."""
    model = _in_own_generator(lambda: STMC(architecture, labels, first_stage), config.seed, FIRST)
    if config.vgg_weights:
        load_vgg11(model.backbone.spatial, config.vgg_weights)
    return model


def _in_own_generator(make: Callable[[], STMC], seed: int, stage: int) -> STMC:
    with _initializing, torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, WEIGHTS, stage))
        return make()


Loss = Callable[[Output, Sequence[int], Batch], Tensor]
"""Of a batch: what the network said, the indices of its sentences, and the batch."""


def optimize(
    model: STMC, loss_of: Loss, arm: Arm, config: Config, task: Task, workers: Workers, run: Run, stage: int
) -> None:
    """The loop of one stage, the key points' loss included. Gradients are clipped to norm 5 [ours]."""
    frozen = arm.frozen and stage == 2
    model.backbone.spatial.requires_grad_(not frozen)
    wrapped = workers.wrap(model).train()
    model.backbone.spatial.train(not frozen)  # its batch statistics stay, too
    parameters = [p for p in model.parameters() if p.requires_grad]
    batches = _batches(model, arm, config, task, stage)
    steps = stage_steps(config, task, arm, stage)
    optimizer, schedule = _optimizer(parameters, config, steps, stage)
    state: State = {"model": model, "optimizer": optimizer, "schedule": schedule}
    start = run.resume(state)
    for step in progress(range(start, steps), f"{run.directory.name}, stage {stage}", total=steps, initial=start):
        chosen, one = batches.at(step, workers.share, steps)
        at = _centers_of(step, chosen, one, model, config, stage) if arm.random_crops else None
        one = one.to(workers.device)
        with torch.autocast(workers.device.type, dtype=torch.bfloat16, enabled=config.bf16):
            output = wrapped(one.frames, one.lengths, None if at is None else at.to(workers.device))
        loss = loss_of(output, chosen, one) + pose_part(output.points, one, config)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        schedule.step()
        if step % config.log_every == 0 or step == steps - 1:
            run.log(step, loss=float(workers.mean(loss.detach())))
        run.save_if_due(step + 1, state)
    batches.close()
    model.backbone.spatial.requires_grad_(True)


def _batches(model: STMC, arm: Arm, config: Config, task: Task, stage: int) -> Batches:
    """What each step reads; a sentence's augmentation depends on the step and the sentence alone."""
    a, clip = model.architecture, config.clip_frames if stage == 1 else 0
    size, fewest = config.frame_batch if stage == 1 else config.batch_size, fewest_frames(a.padded)

    def make(step: int, chosen: list[int]) -> Batch:
        drawn = config.augment or clip
        generators = [generator_at(config.seed, AUGMENT, stage, step, k) for k in chosen] if drawn else []
        return batch([task.train[k] for k in chosen], task.points, a.size, generators, clip, fewest)

    return Batches(len(task.train), size, derive(config.seed, WEIGHTS, stage), make, config.data_workers)


def stage_steps(config: Config, task: Task, arm: Arm, stage: int) -> int:
    size, epochs = (config.frame_batch, config.frame_epochs) if stage == 1 else (config.batch_size, config.epochs)
    return max(1, round(epochs * arm.longer * (len(task.train) // min(size, len(task.train)))))


def _optimizer(parameters: list[nn.Parameter], config: Config, steps: int, stage: int) -> tuple[Any, Any]:
    rate = config.frame_learning_rate if stage == 1 else config.learning_rate
    if stage == 1 and config.frame_optimizer == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(parameters, rate, momentum=0.9, weight_decay=5e-4)
    else:
        optimizer = torch.optim.AdamW(parameters, rate, weight_decay=1e-3)
    shape = one_cycle if config.schedule == "one-cycle" else (lambda step, steps: 1.0)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: shape(step, steps))


def one_cycle(step: int, steps: int) -> float:
    """Share of the largest step size: up along a line for 30 % of the steps, down along a cosine to 0."""
    rise = max(1.0, 0.3 * steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (step - rise) / max(steps - rise, 1)))


def stage1_loss(labels: "Labels", output: Output, chosen: Sequence[int], one: Batch) -> Tensor:
    """Cross-entropy of every head on the labels of steps."""
    steps = output.lengths.tolist()
    return losses.frame_loss(
        output, [labels.of(k, n, begun) for k, n, begun in zip(chosen, steps, one.starts, strict=True)]
    )


def stage2_loss(labels: "Labels", alpha: float, output: Output, chosen: Sequence[int], one: Batch) -> Tensor:
    """CTC of the joint head and of every cue's."""
    return losses.joint_loss(output, [labels.encoded[k] for k in chosen], alpha)


def pose_part(points: Tensor | None, one: Batch, config: Config) -> Tensor:
    """L_R of each sentence, mean over sentences: T is a sentence's number of frames."""
    if points is None or one.points is None:
        return one.frames.new_zeros(())
    each = one.lengths.tolist()
    parts = [
        losses.pose_loss(p, t, config.beta, config.pose_loss)
        for p, t in zip(points.split(each), one.points.split(each), strict=True)
    ]
    return torch.stack(parts).mean()


def _centers_of(step: int, chosen: Sequence[int], one: Batch, model: STMC, config: Config, stage: int) -> Tensor:
    """Random places for the crops of a control, the same whichever process draws them."""
    generators = [generator_at(config.seed, CENTERS, stage, step, k) for k in chosen]
    lengths, points = one.lengths.tolist(), model.architecture.points
    return torch.cat([_random_centers(g, n, points) for g, n in zip(generators, lengths, strict=True)])


def _random_centers(generator: torch.Generator, frames: int, points: int) -> Tensor:
    return torch.rand(frames, points, 2, generator=generator)


def too_short(config: Config, task: Task) -> int:
    """Training sentences whose glosses fit into no path: CTC counts them as 0, and they teach nothing."""
    padded = config.base().padded
    return sum(
        int(steps_of(frame_count(s), padded)) < ctc.shortest(task.encode(s.glosses).tolist()) for s in task.train
    )


# -- labels of steps --------------------------------------------------------------------------------------------------


class Labels:
    """A label for every step of every training sentence: even parts, or those of a full-frame network's alignment."""

    def __init__(self, config: Config, task: Task, workers: Workers, run: Run) -> None:
        self.config, self.task, self.workers, self.run = config, task, workers, run
        self.encoded = [task.encode(sentence.glosses) for sentence in task.train]
        self.aligned: list[Tensor | None] = [None] * len(task.train)

    def of(self, index: int, steps: int, start: int) -> Tensor:
        """Labels of `steps` steps of sentence `index`, of which the clip begins with frame `start`."""
        known = self.aligned[index]
        if self.config.clip_frames:
            whole = known if known is not None else even_labels(self.encoded[index].tolist(), self._steps(index))
            first = min(round(start / STRIDE), max(len(whole) - steps, 0))
            part = whole[first : first + steps]
            return torch.cat([part, part[-1:].expand(steps - len(part))])
        if known is None:
            return even_labels(self.encoded[index].tolist(), steps)
        if len(known) == steps:
            return known
        return known[torch.arange(steps) * len(known) // steps]  # augmentation left frames out

    def _steps(self, index: int) -> int:
        return max(1, int(steps_of(frame_count(self.task.train[index]), self.config.base().padded)))

    def align(self) -> None:
        """Stage 0: train a full-frame network, and keep what its alignments say.  [recalled]"""
        config, part = self.config.override(labels="even"), self.run.part(ALIGNER)
        arm = ARMS["full-frame"]
        if part.result is None:
            model = fit(arm, config, self.task, Labels(config, self.task, self.workers, part), self.workers, part)
            part.write_weights(model)
            part.finish({"steps": stage_steps(config, self.task, arm, 2)})
        model = build(arm.architecture(config.base()), self.task.labels, config, first_stage=False)
        part.read_weights(model)
        self.aligned = self._align_all(model.to(self.workers.device))

    @torch.no_grad()
    def _align_all(self, model: STMC) -> list[Tensor | None]:
        model.eval()
        a, labels = model.architecture, []
        for sentence, encoded in zip(self.task.train, self.encoded, strict=True):
            one = batch([sentence], 0, a.size, fewest=fewest_frames(a.padded)).to(self.workers.device)
            labels.append(aligned_labels(model(one.frames, one.lengths).joint[0].cpu(), encoded.tolist()))
        return labels


def _uses_dropout(architecture: Architecture) -> bool:
    """Dropout draws from the one generator of the process: arms must not train side by side then."""
    return architecture.dropout > 0 or (architecture.layers > 1 and architecture.recurrent_dropout > 0)
