"""Unsupervised translation at a small scale: two languages, no pair of sentences.

One model translates both ways. Each update adds up, for both languages, denoising (a sentence from a broken copy of
itself) and back-translation (a sentence from what the model itself makes of it in the other language). At first the
translations come from a dictionary, word by word. The official code for this was never released; what the paper has
from XLM is here our reading [inferred]. There XLM's weights are the start of the models, in place of a dictionary:
so it is here, too, where a config names a folder of XLM.
"""

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from labkit.data.translation import ParallelText
from labkit.errors import InputError
from labkit.papers.bertfused.experiment import data, evaluate, sentences
from labkit.papers.bertfused.experiment.baselines import Bilingual
from labkit.papers.bertfused.experiment.config import ARMS, Config
from labkit.papers.bertfused.experiment.data import Corpus, Examples, batch_of
from labkit.papers.bertfused.experiment.loop import inverse_sqrt, smoothed_cross_entropy
from labkit.papers.bertfused.method.bert import Bert, BertView
from labkit.papers.bertfused.method.decoding import translate_ids
from labkit.papers.bertfused.method.transformer import PLAIN, Fusion
from labkit.papers.bertfused.method.translator import padded
from labkit.papers.bertfused.method.warm_start import warm_start
from labkit.papers.bertfused.method.xlm import Xlm, XlmTransformer
from labkit.progress import progress
from labkit.text.batches import TokenBatches
from labkit.text.bpe import BLANK, EOS, Bpe
from labkit.workbench import training
from labkit.workbench.runs import Run, State
from labkit.workbench.training import Workers

DIRECTIONS = ((0, 1), (1, 0))
TwoWay = Bilingual | XlmTransformer
Dictionaries = tuple[dict[str, str], dict[str, str]]


def compare(config: Config, workers: Workers, run: Run) -> dict[str, Any]:
    """Word by word; the plain model; the fused one that starts from it. Judged from source to target.

    Returns:
        {"data": name, "arms": {arm: {"tests": see `evaluate.scores`}}}; nothing word by word without a dictionary

    Raises:
        InputError: several processes: a translation model that trains on its own output is not shared out here.
    """
    if run.result is not None:
        return run.result
    if workers.size > 1:
        raise InputError("the unsupervised experiment runs in one process; leave it out, or ask for -p devices 1.")
    corpus, *texts, words = data.monolingual(config)
    dictionaries = (words, {german: english for english, german in words.items()}) if words else None
    xlm = data.load_xlm(config) if config.xlm else None
    bpe = xlm.bpe if xlm else data.learn_bpe(config, _same_lengths(*texts), run)
    arms: dict[str, Any] = {"word-by-word": {"tests": _literally(words, corpus, config)}} if words else {}
    plain = _plain(xlm, bpe, config).to(workers.device)
    arms["plain"] = _train(plain, None, texts, dictionaries, corpus, bpe, config, workers, run.part("plain"))
    run.part("plain").read_weights(plain)
    bert = data.load_bert(config, texts[0][:2000]).to(workers.device)
    fused = _model(xlm, bpe, ARMS["fused"].fusion(bert.width), config)
    fused.report = warm_start(fused, plain.state_dict())
    fused.to(workers.device)
    arms["fused"] = _train(fused, bert, texts, None, corpus, bpe, config, workers, run.part("fused"))
    return run.finish({"data": corpus.name, "arms": arms})


def _plain(xlm: Xlm | None, bpe: Bpe, config: Config) -> TwoWay:
    """What the plain arm begins with: XLM's weights on both sides, where there is one."""
    if xlm is None:
        return _model(xlm, bpe, PLAIN, config)
    return xlm.start("both", config.source, config.target, config.seed)


def _model(xlm: Xlm | None, bpe: Bpe, fusion: Fusion, config: Config) -> TwoWay:
    if xlm is None:
        return Bilingual(data.architecture(config, bpe), fusion, config.seed)
    return xlm.model(config.source, config.target, fusion, config.seed)


def _same_lengths(source: Sequence[str], target: Sequence[str]) -> ParallelText:
    """Both languages' text side by side, for the BPE: no sentence is the translation of another."""
    return ParallelText(tuple(source[: len(target)]), tuple(target[: len(source)]))


def _literally(words: dict[str, str], corpus: Corpus, config: Config) -> dict[str, dict[str, Any]]:
    translations = {
        name: [evaluate.plain(word_by_word(sentence, words), config.lowercase) for sentence in text.sources]
        for name, text in corpus.tests.items()
    }
    return _scores(translations, corpus, config)


def word_by_word(sentence: str, words: dict[str, str]) -> str:
    """Each word's entry in the dictionary; a word that has none stays."""
    return " ".join(words.get(word, words.get(word.lower(), word)) for word in sentence.split())


def noisy(
    words: Sequence[str], draw: random.Random, distance: int = 3, drop: float = 0.1, blank: float = 0.1
) -> list[str | None]:
    """A broken copy: words move by at most `distance` places, some are left out, some are blank (None).

    At least one word stays. [inferred: as XLM, after Lample et al. 2018]
    """
    order = sorted(range(len(words)), key=lambda i: i + draw.random() * (distance + 1))
    remaining = [i for i in order if draw.random() >= drop] or order[:1]
    return [None if draw.random() < blank else words[i] for i in remaining]


class Turn:
    """What one update trains on: batches of both languages, and the noise; its state goes into the checkpoint."""

    def __init__(self, texts: Sequence[Sequence[str]], bpe: Bpe, bert: Bert | None, config: Config) -> None:
        self.texts, self.bpe, self.bert = texts, bpe, bert
        self.examples = [[[*ids, EOS] for ids in bpe.encode_all(text)] for text in texts]
        self.batches = [
            TokenBatches(Examples(rows, rows).lengths(), config.batch_tokens, config.seed + side)
            for side, rows in enumerate(self.examples)
        ]
        self.draw = random.Random(f"noise {config.seed}")

    def view(self, text: Sequence[str], training: bool) -> BertView | None:
        """What BERT makes of some sentences, if there is one; its dropout, where it has one, is on in training."""
        return None if self.bert is None else self.bert.train(training)(text)

    def sentences(self, language: int) -> list[int]:
        return next(self.batches[language]).tolist()

    def broken(self, language: int, rows: Sequence[int]) -> tuple[list[list[int]], list[str]]:
        """Noisy copies as token ids, and as BERT reads them."""
        mask = self.bert.tokenizer.mask_token if self.bert else ""
        ids, text = [], []
        for i in rows:
            words = noisy(self.texts[language][i].split(), self.draw)
            ids.append([*(t for w in words for t in ([BLANK] if w is None else self.bpe.encode(w))), EOS])
            text.append(" ".join(mask if w is None else w for w in words))
        return ids, text

    def state_dict(self) -> dict[str, Any]:
        version, keys, gauss = self.draw.getstate()
        return {"batches": [b.state_dict() for b in self.batches], "draw": [version, list(keys), gauss]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for batches, state in zip(self.batches, state_dict["batches"], strict=True):
            batches.load_state_dict(state)
        version, keys, gauss = state_dict["draw"]
        self.draw.setstate((version, tuple(keys), gauss))


def _train(
    model: TwoWay,
    bert: Bert | None,
    texts: Sequence[Sequence[str]],
    dictionaries: Dictionaries | None,
    corpus: Corpus,
    bpe: Bpe,
    config: Config,
    workers: Workers,
    part: Run,
) -> dict[str, Any]:
    """Train in place and translate all tests; with dictionaries, the first half of the updates translates by them."""
    if part.result is not None:
        return part.result
    training.seed_everything(config.seed)
    steps = config.fused_steps if bert else config.steps + config.fused_steps
    optimizer = torch.optim.AdamW(
        model.parameters(), config.learning_rate, (0.9, 0.98), weight_decay=config.weight_decay, fused=True
    )
    turn = Turn(texts, bpe, bert, config)
    state: State = {"model": model, "optimizer": optimizer, "turn": turn, "drop-net": model.drop_net}
    first = part.resume(state)
    for step in progress(range(first, steps), "unsupervised", steps, first):
        optimizer.param_groups[0]["lr"] = inverse_sqrt(step + 1, config.learning_rate, config.warmup)
        literal = dictionaries if step < steps // 2 else None
        loss = update_loss(model.train(), turn, literal, config)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        if (step + 1) % config.validate_every == 0:
            part.log(step, loss=loss.item())
        part.save_if_due(step + 1, state)
    model.direction = DIRECTIONS[0]
    if bert is not None:
        bert.eval()
    tests = {name: data.encode(text, bpe) for name, text in corpus.tests.items()}
    _, views = sentences.words_and_views(bert, corpus.tests, config)
    translations = {
        name: evaluate.translate(model, examples, views[name], bpe, config) for name, examples in tests.items()
    }
    part.write_json("translations.json", translations)
    part.write_weights(model)
    return part.finish({"tests": _scores(translations, corpus, config)})


def update_loss(model: TwoWay, turn: Turn, literal: Dictionaries | None, config: Config) -> Tensor:
    """Denoising and back-translation, of both languages, each a mean over its tokens.

    Args:
        literal: the dictionary of each direction, in place of the model's own translations.
    """
    total = torch.zeros((), device=model.embed_tokens.weight.device)
    for here, there in DIRECTIONS:
        rows = turn.sentences(there)
        target = [turn.examples[there][i] for i in rows]
        total = total + _loss(model, (there, there), *turn.broken(there, rows), target, turn, config)
        if literal is None:
            source, text = translated(model, (there, here), rows, turn)
        else:
            text = [word_by_word(turn.texts[there][i], literal[there]) for i in rows]
            source = [[*ids, EOS] for ids in turn.bpe.encode_all(text)]
        total = total + _loss(model, (here, there), source, text, target, turn, config)
    return total


def translated(
    model: TwoWay, direction: tuple[int, int], rows: Sequence[int], turn: Turn
) -> tuple[list[list[int]], list[str]]:
    """What the model makes of some sentences, by greedy search: token ids, and text."""
    model.direction = direction
    device, language = model.embed_tokens.weight.device, direction[0]
    source = padded([turn.examples[language][i] for i in rows], model.sizes, device)
    view = turn.view([turn.texts[language][i] for i in rows], training=False)
    beams = translate_ids(model, source, view, beam=1)
    text = [turn.bpe.decode(hypotheses[0].tokens) for hypotheses in beams]
    return [[*ids, EOS] for ids in turn.bpe.encode_all(text)], text


def _loss(
    model: TwoWay,
    direction: tuple[int, int],
    source: list[list[int]],
    text: list[str],
    target: list[list[int]],
    turn: Turn,
    config: Config,
) -> Tensor:
    model.direction = direction
    device = model.embed_tokens.weight.device
    view = turn.view(text, training=True)
    batch = batch_of(Examples(source, target), range(len(target)), lambda _: view, model.sizes, device)
    logits = model(batch.source, batch.target_in, batch.bert)
    return smoothed_cross_entropy(logits, batch, config.label_smoothing, model.sizes.pad) / sum(map(len, target))


def _scores(translations: dict[str, list[str]], corpus: Corpus, config: Config) -> dict[str, dict[str, Any]]:
    return {name: evaluate.scores(translations[name], text, config) for name, text in corpus.tests.items()}
