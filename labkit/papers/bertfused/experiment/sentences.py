"""Supervised translation of single sentences: every arm, from the plain model of stage 1 or from scratch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labkit.data.translation import ParallelText
from labkit.papers.bertfused.experiment import data, evaluate
from labkit.papers.bertfused.experiment.config import ARMS, Arm, Config
from labkit.papers.bertfused.experiment.data import Corpus, Examples, Views
from labkit.papers.bertfused.experiment.loop import train_model
from labkit.papers.bertfused.experiment.model import build
from labkit.papers.bertfused.method.bert import Bert, Words
from labkit.papers.bertfused.method.transformer import Transformer
from labkit.papers.bertfused.method.warm_start import warm_start
from labkit.papers.bertfused.method.xlm import Xlm
from labkit.progress import progress
from labkit.text.bpe import Bpe
from labkit.workbench.runs import Run
from labkit.workbench.training import Workers

STAGE_1 = "stage-1"  # the part of the run that holds the plain model


@dataclass(frozen=True)
class Task:
    """A corpus in the model's own tokens, as all arms of an experiment share it."""

    corpus: Corpus
    bpe: Bpe
    train: Examples
    valid: Examples
    tests: dict[str, Examples]

    @classmethod
    def of(cls, corpus: Corpus, bpe: Bpe, longest: int) -> "Task":
        """Training and validation sentences with more than `longest` tokens are left out."""
        train_text, train = _short(corpus.train, bpe, longest)
        valid_text, valid = _short(corpus.valid, bpe, longest)
        tests = {name: data.encode(text, bpe) for name, text in corpus.tests.items()}
        return cls(corpus._replace(train=train_text, valid=valid_text), bpe, train, valid, tests)

    @property
    def texts(self) -> dict[str, ParallelText]:
        return {"train": self.corpus.train, "valid": self.corpus.valid, **self.corpus.tests}


def compare(config: Config, workers: Workers, run: Run) -> dict[str, Any]:
    """All arms of `config`, each in its own part of the run; finished parts are skipped.

    Returns:
        {"data": name, "arms": {arm: see `train_arm`}, "gain": {test: see `evaluate.gain`, fused against plain}}
    """
    if run.result is not None:
        return run.result
    corpus = data.sentences(config)
    task = Task.of(corpus, data.learn_bpe(config, corpus.train, run), longest(config))
    train_plain(task, config, workers, run)
    arms = {name: train_arm(name, task, config, workers, run) for name in progress(config.arms, "arms")}
    result: dict[str, Any] = {"data": corpus.name, "arms": arms}
    if {"plain", "fused"} <= arms.keys():
        ours, theirs = (run.part(name).read_json("translations.json") for name in ("fused", "plain"))
        result["gain"] = {
            name: evaluate.gain(ours[name], theirs[name], text, config) for name, text in corpus.tests.items()
        }
    return run.finish(result)


def train_plain(task: Task, config: Config, workers: Workers, run: Run) -> None:
    """Stage 1: the plain model that warm arms start from."""
    part = run.part(STAGE_1)
    if part.result is None:
        model = build(Arm("plain"), data.architecture(config, task.bpe), 1, config.seed)
        curve = train_model(
            model, (task.train, data.no_view), (task.valid, data.no_view), config.steps, config, workers, part
        )
        part.write_weights(model)
        part.finish({"curve": curve})


def train_arm(name: str, task: Task, config: Config, workers: Workers, run: Run) -> dict[str, Any]:
    """One arm: stage 2 from the plain model, or both stages' updates from scratch; then all tests.

    Returns:
        {"parameters": trained ones, "curve": [(update, validation loss)], "tests": {name: see `evaluate.scores`},
        "branches": {name: see `evaluate.switched`} where both branches are heard}
    """
    part, arm = run.part(name), ARMS[name]
    if part.result is not None:
        return part.result
    task = task_for(arm, task, config)
    bert = bert_of(arm, task, config, workers)
    words, views = words_and_views(bert, task.texts, config)
    model = start_of(arm, bert, task, config, workers, run)
    steps = config.fused_steps if arm.warm else config.steps + config.fused_steps
    learned = Learned(model, bert)
    result = learn(learned, words["train"], views, steps, task, config, workers, part)
    if arm.kind == "fused" and arm.mode == "both":
        result["branches"] = {
            test: evaluate.switched(model, examples, views[test], task.bpe, task.corpus.tests[test], config)
            for test, examples in task.tests.items()
        }
    return part.finish(result)


class Learned:
    """A model and, where it is trained, its BERT, as one thing to keep; `heard` is also a frozen BERT."""

    def __init__(self, model: Transformer, heard: Bert | None = None) -> None:
        self.model, self.heard = model, heard
        self.bert = heard if heard is not None and heard.trainable else None

    def state_dict(self) -> dict[str, Any]:
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        if self.bert is not None:
            tensors |= {f"bert.{name}": value for name, value in self.bert.model.state_dict().items()}
        return tensors

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        parts: dict[str, dict[str, Any]] = {"model": {}, "bert": {}}
        for name, value in state_dict.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = value
        self.model.load_state_dict(parts["model"])
        if self.bert is not None:
            self.bert.model.load_state_dict(parts["bert"])


def learn(
    learned: Learned,
    words: Sequence[Words],
    views: dict[str, Views],
    steps: int,
    task: Task,
    config: Config,
    workers: Workers,
    part: Run,
) -> dict[str, Any]:
    """One stage: train, translate all tests, keep weights and translations in `part`.

    Args:
        words: BERT's words of the training sentences; none without BERT.
        views: by the names of `task.texts`.

    Returns:
        {"parameters": trained ones, "curve": [(update, validation loss)], "tests": {name: see `evaluate.scores`}}
    """
    model = learned.model
    sides = (task.train, views["train"]), (task.valid, views["valid"])
    lengths = task.train.lengths(words)
    curve = train_model(model, *sides, steps, config, workers, part, learned.heard, lengths)
    translations = {
        test: evaluate.translate(model, examples, views[test], task.bpe, config)
        for test, examples in task.tests.items()
    }
    part.write_json("translations.json", translations)
    part.write_weights(learned)
    parameters = sum(evaluate.trainable(module) for module in (model, learned.bert) if module is not None)
    tests = {name: evaluate.scores(translations[name], text, config) for name, text in task.corpus.tests.items()}
    return {"parameters": parameters, "curve": curve, "tests": tests}


def task_for(arm: Arm, task: Task, config: Config) -> Task:
    """The task as the arm's model reads it: an XLM has its own tokens."""
    return xlm_task(data.load_xlm(config), task.corpus, config) if arm.kind == "xlm" else task


def xlm_task(xlm: Xlm, corpus: Corpus, config: Config) -> Task:
    """A corpus in XLM's tokens; one place in its longest sentence goes to the </s> at the beginning."""
    return Task.of(corpus, xlm.bpe, min(longest(config), xlm.sizes.longest - 1))


def start_of(arm: Arm, bert: Bert | None, task: Task, config: Config, workers: Workers, run: Run) -> Transformer:
    """The model that an arm's training starts from."""
    if arm.kind == "xlm":
        return data.load_xlm(config).start(arm.xlm, config.source, config.target, config.seed).to(workers.device)
    sizes = data.architecture(config, task.bpe, arm.encoder_layers)
    model = build(arm, sizes, bert.width if bert else 1, config.seed, skip=workers.size == 1)
    if arm.warm:
        plain = build(Arm("plain"), sizes, 1, config.seed)
        run.part(STAGE_1).read_weights(plain)
        model.report = warm_start(model, plain.state_dict())
    return model.to(workers.device)


def bert_of(arm: Arm, task: Task, config: Config, workers: Workers) -> Bert | None:
    """What the arm attends to: BERT, its random stand-in, or nothing."""
    if not arm.hears:
        return None
    bert = data.load_bert(config, _sample(task), trainable=arm.fine_tuned)
    bert = data.control(bert, config.seed) if arm.features == "random" else bert
    return bert.to(workers.device).eval()


def words_and_views(
    bert: Bert | None, texts: dict[str, ParallelText], config: Config, contexts: bool = False
) -> tuple[dict[str, Any], dict[str, Views]]:
    """BERT's words and views of several texts; with `contexts` it reads the sentence before, too."""
    if bert is None:
        return dict.fromkeys(texts, ()), dict.fromkeys(texts, data.no_view)
    words = {name: bert.tokenize(text.sources, text.contexts() if contexts else None) for name, text in texts.items()}
    return words, {name: data.views_of(bert, words[name], config) for name in texts}


def load_arm(
    name: str, task: Task, config: Config, workers: Workers, run: Run, part: str = ""
) -> tuple[Transformer, Bert | None]:
    """The trained model of an arm, in eval mode, with its BERT. `part`: where it was kept, if not under its name."""
    arm = ARMS[name]
    bert = bert_of(arm, task, config, workers)
    model = build(arm, data.architecture(config, task.bpe, arm.encoder_layers), bert.width if bert else 1, config.seed)
    run.part(part or name).read_weights(Learned(model, bert))
    return model.to(workers.device).eval(), bert


def task_of(config: Config, run: Run) -> Task:
    """The task of a run of `compare`, with the BPE that it has learned."""
    corpus = data.sentences(config)
    return Task.of(corpus, data.learn_bpe(config, corpus.train, run), longest(config))


def _sample(task: Task) -> list[str]:
    return list(task.corpus.train.sources[:2000])


def longest(config: Config) -> int:
    return min(config.longest, config.batch_tokens)


def _short(text: ParallelText, bpe: Bpe, longest: int) -> tuple[ParallelText, Examples]:
    examples = data.encode(text, bpe)
    short = [i for i, length in enumerate(examples.lengths().max(1)) if length <= longest]
    if len(short) == len(text):
        return text, examples
    return text.select(short), Examples(*([side[i] for i in short] for side in (examples.source, examples.target)))
