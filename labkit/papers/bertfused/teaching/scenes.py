"""What the pictures look at: trained models of a run, single sentences, the search for a translation."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labkit import devices
from labkit.papers.bertfused.experiment import data, evaluate, sentences
from labkit.papers.bertfused.experiment.config import Config
from labkit.papers.bertfused.experiment.grammar import ARTICLES, NOUNS, Noun
from labkit.papers.bertfused.experiment.loop import Objective
from labkit.papers.bertfused.experiment.sentences import Task
from labkit.papers.bertfused.method.attention import watch
from labkit.papers.bertfused.method.bert import Bert
from labkit.papers.bertfused.method.decoding import translate_ids
from labkit.papers.bertfused.method.transformer import BertView, Transformer, branches
from labkit.papers.bertfused.method.translator import padded
from labkit.text.bpe import EOS, Bpe
from labkit.text.search import BeamStep
from labkit.workbench import training
from labkit.workbench.claims import table_row
from labkit.workbench.records import load_all
from labkit.workbench.runs import Run

RATIOS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Weights of BERT's branch in the branch switch; the native one has the rest."""
SENTENCES = 40  # of each test, translated at every position of the switch


@dataclass(frozen=True)
class Trained:
    """The models of a run of the sentences experiment, in eval mode."""

    task: Task
    config: Config
    models: dict[str, Transformer]
    bert: Bert
    """The frozen BERT that the fused models attend to."""

    @property
    def bpe(self) -> Bpe:
        return self.task.bpe

    @property
    def device(self) -> torch.device:
        return self.bert.device


def sentences_task(config: Config, run: Run) -> Task:
    """Text and BPE of the sentences experiment, before anything is trained."""
    return sentences.task_of(config, run.part("sentences"))


def frozen_bert(config: Config) -> Bert:
    """The BERT of a config, as the fused arms hear it."""
    return data.load_bert(config, data.sentences(config).train.sources[:2000]).eval()


def trained(config: Config, run: Run) -> Trained | None:
    """The plain model, the fused one and, where the run has it, the one without drop-net; None without a fused one."""
    if "sentences" not in config.experiments or "fused" not in config.arms:
        return None
    part, task = run.part("sentences"), sentences_task(config, run)
    names = [name for name in ("plain", "fused", "no-drop-net") if name in config.arms]
    with training.workers("cpu") as workers:
        loaded = {name: sentences.load_arm(name, task, config, workers, part) for name in names}
    bert = loaded["fused"][1]
    assert bert is not None
    return Trained(task, config, {name: model for name, (model, _) in loaded.items()}, bert)


# -- single sentences -------------------------------------------------------------------------------------------------


class Looked(NamedTuple):
    """One sentence, its translation, and who looked at what: weights by name, (heads, from, to)."""

    source: list[str]
    """BPE pieces, the end of the sentence among them."""
    words: list[str]
    """WordPieces."""
    target: list[str]
    weights: dict[str, Float[np.ndarray, "heads from to"]]


KINDS = {
    "encoder: to itself (attn_S)": ("encoder.layers.{}.self_attn", "source", "source"),
    "encoder: to BERT (attn_B)": ("encoder.layers.{}.bert_attn", "source", "words"),
    "decoder: to the encoder (attn_E)": ("decoder.layers.{}.encoder_attn", "target", "source"),
    "decoder: to BERT (attn_B)": ("decoder.layers.{}.bert_attn", "target", "words"),
}
"""Attentions: name of the module with the layer left open, rows and columns as fields of `Looked`."""


def look(scene: Trained, sentence: str, arm: str = "fused") -> Looked:
    """All attention weights while the model writes its own translation."""
    model, bpe = scene.models[arm], scene.bpe
    source, view = tokens_of(scene, sentence)
    (beams,) = translate_ids(model, source, view, beam=1)
    ids = [*beams[0].tokens, EOS]
    start = torch.tensor([[model.sizes.bos, *ids[:-1]]])
    with torch.inference_mode(), watch(model) as watched:
        model(source, start, view)
    weights = {name: calls[0][0].numpy() for name, calls in watched.items() if calls}
    (words,) = scene.bert.tokenize([sentence])
    return Looked(
        [*bpe.pieces(sentence), "⏎"],
        scene.bert.tokenizer.convert_ids_to_tokens(words.ids),
        [*(bpe.decode([i]) or "·" for i in ids[:-1]), "⏎"],
        weights,
    )


def tokens_of(scene: Trained, sentence: str) -> tuple[Tensor, BertView]:
    """A sentence in both views, a batch of one."""
    with torch.inference_mode():
        return torch.tensor([[*scene.bpe.encode(sentence), EOS]]), scene.bert([sentence])


def say(scene: Trained, arm: str, sentence: str) -> str:
    """An arm's translation, by greedy search."""
    (translation,) = say_all(scene, arm, [sentence])
    return translation


def say_all(scene: Trained, arm: str, sentences_of: Sequence[str]) -> list[str]:
    """An arm's translations, by greedy search; all in one batch."""
    model, ids = scene.models[arm], [[*ids, EOS] for ids in scene.bpe.encode_all(sentences_of)]
    with torch.inference_mode():
        beams = translate_ids(model, padded(ids, model.sizes, scene.device), scene.bert(sentences_of), beam=1)
    return [scene.bpe.decode(hypotheses[0].tokens) for hypotheses in beams]


class Guess(NamedTuple):
    """What a model would write where the German noun stands, the most probable pieces first."""

    pieces: list[str]
    probabilities: list[float]
    translation: str


class Synonym(NamedTuple):
    english: str
    noun: Noun
    guesses: dict[str, Guess]


def synonyms(scene: Trained, nouns: Sequence[Noun] = NOUNS) -> list[Synonym]:
    """The held-out name of each noun in "the ... sees the house ."; the article before it is given, the noun is not."""
    text = [f"the {noun.english[-1]} sees the house ." for noun in nouns]
    translations: dict[str, list[str]] = {
        arm: say_all(scene, arm, text) for arm in ("plain", "fused") if arm in scene.models
    }
    entries = []
    for number, noun in enumerate(nouns):
        article = scene.bpe.target.encode(ARTICLES["nominative"][noun.gender])
        views = tokens_of(scene, text[number])
        guesses = {
            arm: Guess(*_next_pieces(scene, arm, *views, article), lines[number]) for arm, lines in translations.items()
        }
        entries.append(Synonym(noun.english[-1], noun, guesses))
    return entries


def _next_pieces(
    scene: Trained, arm: str, source: Tensor, view: BertView, prefix: list[int]
) -> tuple[list[str], list[float]]:
    model = scene.models[arm]
    with torch.inference_mode():
        logits = model(source, torch.tensor([[model.sizes.bos, *prefix]]), view)[0, -1]
    best = logits.softmax(-1).topk(5)
    return [scene.bpe.decode([i]) or "·" for i in best.indices.tolist()], best.values.tolist()


def noun_map(bert: Bert) -> tuple[list[str], list[bool], Float[np.ndarray, "nouns 2"]]:
    """English nouns, whether each is held out, and BERT's states of them in two dimensions.

    The mean of a noun's WordPieces in "the ... ."; the two directions of largest variance.
    """
    names = [(name, name == noun.english[-1]) for noun in NOUNS for name in noun.english]
    with torch.inference_mode():
        view = bert([f"the {name} ." for name, _ in names])
    lengths = view.real.sum(1).tolist()
    x = torch.stack([states[2 : n - 2].mean(0) for states, n in zip(view.states, lengths, strict=True)]).double()
    x = x - x.mean(0)
    directions = torch.linalg.svd(x, full_matrices=False).Vh[:2]
    directions = directions * directions.sum(1).sign()[:, None]  # a singular vector has no sign of its own
    return [name for name, _ in names], [held for _, held in names], (x @ directions.T).numpy()


# -- the branch switch ------------------------------------------------------------------------------------------------


class Switch(NamedTuple):
    """BLEU by arm and test at each of `RATIOS`, and the translation of one sentence."""

    bleu: dict[str, dict[str, list[float]]]
    translations: dict[str, list[str]]
    source: str


def branch_switch(scene: Trained, count: int = SENTENCES) -> Switch:
    """Both branches weighed anew at inference, on trained models."""
    arms = [name for name in ("fused", "no-drop-net") if name in scene.models]
    bleu: dict[str, dict[str, list[float]]] = {arm: {} for arm in arms}
    translations: dict[str, list[str]] = {arm: [] for arm in arms}
    example = scene.task.corpus.tests[list(scene.task.tests)[-1]].sources[0]
    for test, text in scene.task.corpus.tests.items():
        few = text.select(range(min(count, len(text))))
        examples, views = data.encode(few, scene.bpe), data.live(scene.bert, scene.bert.tokenize(few.sources))
        stored = _remembered(views, len(few))
        for arm in arms:
            for ratio in RATIOS:
                with branches(scene.models[arm], 1 - ratio, ratio):
                    hypotheses = evaluate.translate(
                        scene.models[arm], examples, stored, scene.bpe, scene.config, beam=1
                    )
                    bleu[arm].setdefault(test, []).append(evaluate.scores(hypotheses, few, scene.config)["bleu"])
    for arm in arms:
        for ratio in RATIOS:
            with branches(scene.models[arm], 1 - ratio, ratio):
                translations[arm].append(say(scene, arm, example))
    return Switch(bleu, translations, example)


def _remembered(views: data.Views, count: int) -> data.Views:
    """Views that are computed once."""
    with torch.no_grad():  # not inference mode: training goes through them, too
        whole = views(range(count))
    assert whole is not None
    return lambda rows: BertView(whole.states[list(rows)], whole.real[list(rows)])


# -- beam search ------------------------------------------------------------------------------------------------------


class Node(NamedTuple):
    """A candidate of the search: where it stands in the tree, and log p of the whole hypothesis."""

    step: int
    rank: int
    parent: int
    """Rank among the hypotheses that went on from the step before."""
    piece: str
    log_prob: float
    ends: bool
    survivor: int
    """Which hypothesis it becomes; -1: given up, or ended."""


def beam_tree(scene: Trained, sentence: str, arm: str = "plain", beam: int = 3) -> list[Node]:
    """All candidates that a beam search looks at, step by step."""
    steps: list[BeamStep] = []
    source, view = tokens_of(scene, sentence)
    translate_ids(scene.models[arm], source, view, beam=beam, on_step=steps.append)
    nodes = []
    for number, step in enumerate(steps):
        survivors = step.survivors[0].tolist()
        columns = zip(
            step.parents[0].tolist(), step.tokens[0].tolist(), step.log_probs[0].tolist(), step.finished[0].tolist(),
            strict=True,
        )  # fmt: skip
        for rank, (parent, token, log_prob, ends) in enumerate(columns):
            if log_prob > -1e4:
                piece = "⏎" if ends else scene.bpe.decode([token]) or "·"
                goes_on = survivors.index(rank) if rank in survivors and not ends else -1
                nodes.append(Node(number, rank, parent, piece, log_prob, ends, goes_on))
    return nodes


# -- cost -------------------------------------------------------------------------------------------------------------


def costs(scene: Trained, count: int = 32, rounds: int = 3) -> dict[str, dict[str, float]]:
    """Target tokens a second, in training and in greedy decoding: plain, with kept states of BERT, with BERT itself.

    All take turns, so that a busy machine slows all alike; the least disturbed of `rounds` turns counts.
    """
    text = scene.task.corpus.train
    few = text.select(range(min(count, len(text))))
    examples = data.encode(few, scene.bpe)
    views = data.live(scene.bert, scene.bert.tokenize(few.sources))
    ways: dict[str, tuple[str, data.Views]] = {
        "plain": ("plain", data.no_view),
        "fused, kept states": ("fused", _remembered(views, len(few))),
        "fused, BERT on the fly": ("fused", views),
    }

    def train(arm: str, view: data.Views) -> None:
        Objective(scene.models[arm], examples, view, scene.config)(range(len(few))).backward()

    def decode(arm: str, view: data.Views) -> None:
        evaluate.translate(scene.models[arm], examples, view, scene.bpe, scene.config, beam=1)

    best: dict[str, dict[str, float]] = {"training": {}, "decoding": {}}
    with devices.one_thread():
        for _, (what, call), (name, way) in product(
            range(rounds), (("training", train), ("decoding", decode)), ways.items()
        ):
            start = time.perf_counter()
            call(*way)
            best[what][name] = min(best[what].get(name, float("inf")), time.perf_counter() - start)
    for model in scene.models.values():
        model.zero_grad()
        model.eval()
    tokens = sum(map(len, examples.target))
    return {what: {name: tokens / seconds for name, seconds in of.items()} for what, of in best.items()}


# -- recorded runs ----------------------------------------------------------------------------------------------------


def recorded(experiment: str) -> tuple[list[dict], str] | None:
    """The results of an experiment over the recorded seeds at the lesson's scale, and the record's name."""
    for record in load_all("bertfused"):
        results = [result[experiment] for result in record.results if experiment in result]
        if record.scale == "lesson" and results:
            return results, record.name
    return None


def mean_over_seeds(results: list[dict], *path: str) -> float | None:
    """The mean of one number; None where a seed lacks it."""
    values = []
    for result in results:
        value: object = result
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is None:
            return None
        values.append(float(value))  # type: ignore[arg-type]
    return sum(values) / len(values)


def recorded_table(experiment: str, number: str = "bleu", label: str = "") -> str:
    """A Markdown table from the first record that has an experiment, a row an arm and a column a test: the mean over
    the seeds, and in brackets the lowest and the highest one.

    label: of the record; empty: any.
    """
    for record in load_all("bertfused"):
        results = [result[experiment] for result in record.results if experiment in result]
        if record.scale == "lesson" and results and label in ("", record.label):
            return _table_of(results, number)
    return "Not recorded."


def _table_of(results: list[dict], number: str) -> str:
    tests = list(next(iter(results[0]["arms"].values()))["tests"])
    head = [table_row([f"{len(results)} seeds", *(f"`{test}`" for test in tests)]), "|---|" + len(tests) * "---|"]
    return "\n".join([*head, *(_row(arm, results, tests, number) for arm in results[0]["arms"])])


def _row(arm: str, results: list[dict], tests: Sequence[str], number: str) -> str:
    style, cells = ".1f" if number == "bleu" else ".0%", []
    for test in tests:
        mean = mean_over_seeds(results, "arms", arm, "tests", test, number)
        values = [result["arms"][arm]["tests"][test].get(number) for result in results]
        cells.append("–" if mean is None else f"{mean:{style}} ({min(values):{style}} to {max(values):{style}})")
    return table_row([f"`{arm}`", *cells])


def table(arms: dict) -> list[str]:
    """Markdown rows of a run: arm, test, BLEU, share of sentences and of nouns that are right, trained parameters."""
    rows = []
    for name, arm in arms.items():
        for test, scores in arm["tests"].items():
            nouns = f"{scores['nouns']:.0%}" if "nouns" in scores else "–"
            cells = [
                f"`{name}`",
                test,
                f"{scores['bleu']:.1f}",
                f"{scores['exact']:.0%}",
                nouns,
                f"{arm['parameters']:,}",
            ]
            rows.append(table_row(cells))
    return rows


def gains(result: dict) -> list[str]:
    """Lines of a run: BLEU of fused minus plain with its interval over sentences, and the signature."""
    sentences_of_run = result.get("sentences", {})
    lines = [
        f"{test}: {gain['bleu']:+.1f} BLEU" + (f" [{gain['low']:+.1f}, {gain['high']:+.1f}]" if "low" in gain else "")
        for test, gain in sentences_of_run.get("gain", {}).items()
    ]
    for arm in list(sentences_of_run.get("arms", {}).values())[:1]:
        lines += list(dict.fromkeys(scores["signature"] for scores in arm["tests"].values()))
    return lines


def stage_1(run: Run) -> list[Any]:
    """Validation loss of the plain model's first stage; empty where the run has none."""
    trained_here = (run.directory / "sentences" / sentences.STAGE_1 / "result.json").exists()
    return run.part("sentences").part(sentences.STAGE_1).result["curve"] if trained_here else []  # type: ignore[index]
