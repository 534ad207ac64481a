"""Semi-supervised translation: a little bitext, and much text in the target language without translations.

A model of the other direction translates that text back; its output, however clumsy, is the source of more training
pairs, whose target sides are flawless. [paper: back-translation, then the BERT-fused model from there]
"""

from typing import Any

from labkit.data.translation import ParallelText, join
from labkit.papers.bertfused.experiment import data, evaluate, sentences
from labkit.papers.bertfused.experiment.config import Arm, Config
from labkit.papers.bertfused.experiment.data import Corpus
from labkit.papers.bertfused.experiment.loop import train_model
from labkit.papers.bertfused.experiment.model import build
from labkit.papers.bertfused.experiment.sentences import Task
from labkit.text.bpe import Bpe
from labkit.workbench.runs import Run
from labkit.workbench.training import Workers


def compare(config: Config, workers: Workers, run: Run) -> dict[str, Any]:
    """A plain model of the bitext alone; one of bitext and back-translations; the fused one that starts from it.

    Returns:
        {"data": name, "bitext": pairs, "monolingual": sentences, "arms": {arm: see `sentences.learn`}}
    """
    if run.result is not None:
        return run.result
    corpus, monolingual = data.halves(config)
    bpe = data.learn_bpe(config, corpus.train, run, monolingual)
    arms = {"supervised": _plain_arm(corpus, bpe, config, workers, run.part("few"))}
    synthetic = back_translate(corpus, monolingual, bpe, config, workers, run)
    more = corpus._replace(train=join([corpus.train, synthetic]))
    arms["back-translation"] = _plain_arm(more, bpe, config, workers, run.part("many"))
    task = Task.of(more, bpe, sentences.longest(config))
    arms["fused"] = sentences.train_arm("fused", task, config, workers, run.part("many"))
    counts = {"bitext": len(corpus.train), "monolingual": len(monolingual)}
    return run.finish({"data": corpus.name, **counts, "arms": arms})


def _plain_arm(corpus: Corpus, bpe: Bpe, config: Config, workers: Workers, run: Run) -> dict[str, Any]:
    """The plain model of a corpus: both stages' updates, as the fused one has."""
    task = Task.of(corpus, bpe, sentences.longest(config))
    sentences.train_plain(task, config, workers, run)
    return sentences.train_arm("plain", task, config, workers, run)


def back_translate(
    corpus: Corpus, monolingual: tuple[str, ...], bpe: Bpe, config: Config, workers: Workers, run: Run
) -> ParallelText:
    """Made-up source sentences with their real translations, by a model of the other direction."""
    part = run.part("reverse")
    if part.result is None:
        backward = corpus._replace(train=corpus.train.reversed(), valid=corpus.valid.reversed(), tests={})
        back = bpe.reversed()
        task = Task.of(backward, back, sentences.longest(config))
        model = build(Arm("plain"), data.architecture(config, back), 1, config.seed).to(workers.device)
        sides = (task.train, data.no_view), (task.valid, data.no_view)
        curve = train_model(model, *sides, config.steps + config.fused_steps, config, workers, part)
        examples = data.encode(ParallelText(monolingual, monolingual), back)
        translations = evaluate.translate(model, examples, data.no_view, back, config)
        part.write_json("sources.json", translations)
        part.write_weights(model)
        part.finish({"curve": curve})
    translations = part.read_json("sources.json")
    filled = [i for i, sentence in enumerate(translations) if sentence.strip()]
    return ParallelText(tuple(translations[i] for i in filled), tuple(monolingual[i] for i in filled))
