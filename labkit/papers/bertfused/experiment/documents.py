"""Document-level translation: BERT reads the sentence before, too, [CLS] context [SEP] sentence [SEP].

The translation model itself still gets one sentence [official code: ctx-bert-nmt].
"""

from collections.abc import Callable
from typing import Any

from labkit.papers.bertfused.experiment import data, evaluate, sentences
from labkit.papers.bertfused.experiment.baselines import Context
from labkit.papers.bertfused.experiment.config import ARMS, SETTINGS, Arm, Config
from labkit.papers.bertfused.experiment.data import Views
from labkit.papers.bertfused.experiment.model import build
from labkit.papers.bertfused.experiment.sentences import STAGE_1, Learned, Task
from labkit.papers.bertfused.method.transformer import Transformer
from labkit.papers.bertfused.method.warm_start import warm_start
from labkit.progress import progress
from labkit.text.bpe import EOS
from labkit.workbench.runs import Run
from labkit.workbench.training import Workers


def compare(config: Config, workers: Workers, run: Run) -> dict[str, Any]:
    """The plain model; the document baseline without BERT; BERT on the sentence alone, and on both sentences.

    Returns:
        {"data": name, "arms": {arm: see `sentences.learn`; its tests have "pronouns", see `evaluate`, for the grammar}}
    """
    if run.result is not None:
        return run.result
    task = task_of(config, run)
    corpus = task.corpus
    sentences.train_plain(task, config, workers, run)
    trainings: dict[str, Callable[[], dict[str, Any]]] = {
        "plain": lambda: sentences.train_arm("plain", task, config, workers, run),
        "context": lambda: train_context(task, config, workers, run),
        "fused": lambda: sentences.train_arm("fused", task, config, workers, run),
        "document": lambda: train_document(task, config, workers, run),
    }
    arms = {name: trainings[name]() for name in progress(SETTINGS["documents"], "document-level arms")}
    if config.data == "grammar":
        for name, result in arms.items():
            translations = run.part(name).read_json("translations.json")
            for test, text in corpus.tests.items():
                result["tests"][test]["pronouns"] = evaluate.pronoun_accuracy(translations[test], text)
    return run.finish({"data": corpus.name, "arms": arms})


def task_of(config: Config, run: Run) -> Task:
    """The task of a run of `compare`, with the BPE that it has learned."""
    corpus = data.documents(config)
    return Task.of(corpus, data.learn_bpe(config, corpus.train, run), sentences.longest(config))


def train_document(task: Task, config: Config, workers: Workers, run: Run) -> dict[str, Any]:
    """BERT-fused, and BERT reads both sentences."""
    part, arm = run.part("document"), ARMS["fused"]
    if part.result is not None:
        return part.result
    bert = sentences.bert_of(arm, task, config, workers)
    words, views = sentences.words_and_views(bert, task.texts, config, contexts=True)
    learned = Learned(sentences.start_of(arm, bert, task, config, workers, run), bert)
    steps = config.fused_steps
    return part.finish(sentences.learn(learned, words["train"], views, steps, task, config, workers, part))


def train_context(task: Task, config: Config, workers: Workers, run: Run) -> dict[str, Any]:
    """The baseline: the embeddings of the sentence before in place of BERT."""
    part = run.part("context")
    if part.result is not None:
        return part.result
    views = {name: _context_views(task, name, workers) for name in task.texts}
    model = _context_model(task, config, workers, run)
    return part.finish(sentences.learn(Learned(model), (), views, config.fused_steps, task, config, workers, part))


def _context_views(task: Task, name: str, workers: Workers) -> Views:
    contexts = [[*ids, EOS] for ids in task.bpe.encode_all(task.texts[name].contexts())]
    return data.context_views(contexts, workers.device)


def _context_model(task: Task, config: Config, workers: Workers, run: Run) -> Transformer:
    sizes = data.architecture(config, task.bpe)
    plain, model = build(Arm("plain"), sizes, 1, config.seed), Context(sizes, ARMS["fused"].drop_net, config.seed)
    run.part(STAGE_1).read_weights(plain)
    model.report = warm_start(model, plain.state_dict())
    return model.to(workers.device)
