"""The text of every experiment, and each sentence in its two views: the model's own tokens, and BERT's words."""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from labkit import paths
from labkit.data import translation
from labkit.data.translation import ParallelText
from labkit.errors import InputError
from labkit.papers.bertfused.experiment import grammar
from labkit.papers.bertfused.experiment.config import Config
from labkit.papers.bertfused.method.bert import Bert, RandomVectors, Words, minilm, random_bert, random_control
from labkit.papers.bertfused.method.layers import Architecture
from labkit.papers.bertfused.method.transformer import BertView
from labkit.papers.bertfused.method.translator import padded
from labkit.papers.bertfused.method.xlm import Xlm
from labkit.text.batches import cut
from labkit.text.bpe import EOS, Bpe, SeparateBpe
from labkit.text.feature_cache import FeatureCache, cached, key_of
from labkit.workbench.runs import Run

Views = Callable[[Sequence[int]], BertView | None]
"""BERT's view of some sentences, by their numbers; None: there is no BERT."""


class Corpus(NamedTuple):
    """What one experiment trains on, validates and tests with."""

    name: str
    train: ParallelText
    valid: ParallelText
    tests: dict[str, ParallelText]


# -- text -------------------------------------------------------------------------------------------------------------


def sentences(config: Config) -> Corpus:
    """The corpus of a config; from the grammar with two tests, `seen` and `unseen`.

    Raises:
        DataError: it is not in LABKIT_DATA.
        InputError: the reader's own files cannot be used.
    """
    if config.data == "grammar":
        parts = grammar.splits(config.pairs, config.tests, config.seed)
        seen, unseen = _text(parts.seen), _text(parts.unseen)
        return Corpus("grammar", _text(parts.train), _text(parts.valid), {"seen": seen, "unseen": unseen})
    if config.data.startswith("parallel:"):
        loaded = translation.split(translation.parallel(config.data.removeprefix("parallel:")))
        name = "the reader's own text"
    else:
        loaded, name = translation.CORPORA[config.data](config.source, config.target), config.data
    valid, test = (_first(part, config.tests) for part in (loaded.valid, loaded.test))
    return Corpus(name, _first(loaded.train, config.pairs), valid, {"test": test})


def documents(config: Config) -> Corpus:
    """Text that says where documents begin; from the grammar talks whose second sentence says "it"; in the
    test `unseen` it stands for a noun by its held-out name.

    Raises:
        InputError: the corpus does not know its documents.
    """
    if config.data != "grammar":
        corpus = sentences(config)
        if not corpus.train.documents:
            raise InputError(f"{corpus.name} does not say where a document begins; iwslt14 and iwslt17 do.")
        return corpus
    counts = [max(1, n // 2) for n in (config.pairs, config.tests, config.tests)]
    talks = grammar.documents(sum(counts), config.seed)
    train, valid, seen = (
        _talks(talks[end - count : end]) for count, end in zip(counts, itertools.accumulate(counts), strict=True)
    )
    unseen = _talks(grammar.documents(counts[-1], config.seed, held_out=True))
    return Corpus("grammar", train, valid, {"seen": seen, "unseen": unseen})


def halves(config: Config) -> tuple[Corpus, tuple[str, ...]]:
    """For back-translation: the bitext, and text in the target language: the reader's own, or the target sides of the
    other training pairs.

    Raises:
        InputError: no pairs are left for these, or the text cannot be read.
    """
    corpus = sentences(config)
    if config.monolingual:
        return corpus._replace(train=_first(corpus.train, config.bitext)), translation.monolingual(config.monolingual)
    if not 0 < config.bitext < len(corpus.train):
        raise InputError(f"bitext = {config.bitext} takes all of the {len(corpus.train)} training pairs.")
    few = corpus.train.select(range(config.bitext))
    return corpus._replace(train=few), corpus.train.targets[config.bitext :]


def monolingual(config: Config) -> tuple[Corpus, tuple[str, ...], tuple[str, ...], dict[str, str]]:
    """For unsupervised translation: source sides of one half, target sides of the other, and a dictionary of words,
    which is empty where an XLM is the start and none was asked for.

    Raises:
        InputError: the dictionary's file cannot be used.
    """
    corpus = sentences(config)
    middle = len(corpus.train) // 2
    if config.dictionary:
        words = translation.parallel(config.dictionary)
        entries = dict(zip(words.sources, words.targets, strict=True))
    else:
        entries = {} if config.xlm else grammar.dictionary()
    return corpus, corpus.train.sources[:middle], corpus.train.targets[middle:], entries


def _text(pairs: Sequence[grammar.Pair]) -> ParallelText:
    return ParallelText(*_sides(pairs))


def _talks(talks: Sequence[Sequence[grammar.Pair]]) -> ParallelText:
    pairs = [pair for talk in talks for pair in talk]
    return ParallelText(*_sides(pairs), tuple(number for number, talk in enumerate(talks) for _ in talk))


def _sides(pairs: Sequence[grammar.Pair]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(pair.source for pair in pairs), tuple(pair.target for pair in pairs)


def _first(text: ParallelText, count: int) -> ParallelText:
    return text.select(range(min(count, len(text)))) if count else text


# -- the model's own view ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Examples:
    """Sentences as token ids; both sides end with eos."""

    source: list[list[int]]
    target: list[list[int]]

    def __len__(self) -> int:
        return len(self.source)

    def lengths(self, words: Sequence[Words] = ()) -> Int[np.ndarray, "sentences ways"]:
        """Source, target and, where there are some, BERT's words."""
        ways = [[len(row) for row in side] for side in (self.source, self.target)]
        return np.array([*ways, *([[len(one.ids) for one in words]] if words else [])], dtype=np.int64).T


class Batch(NamedTuple):
    source: Int[Tensor, "batch source"]
    target_in: Int[Tensor, "batch target"]
    target_out: Int[Tensor, "batch target"]
    bert: BertView | None


def learn_bpe(config: Config, text: ParallelText, run: Run, more: Sequence[str] = ()) -> Bpe:
    """The BPE of a training text, joint or one a side; a run that goes on reads the one that it began with.

    Args:
        more: sentences of the target language without a source.
    """
    stored = run.read_json("bpe.json")
    if stored is None:
        bpe = _trained_bpe(config, text, more)
        run.write_json("bpe.json", bpe.to_json())
        return bpe
    return Bpe.from_json(stored, config.lowercase)


def _trained_bpe(config: Config, text: ParallelText, more: Sequence[str]) -> Bpe:
    if isinstance(config.vocabulary, int):
        return Bpe.train([*text.sources, *more, *text.targets, *more], config.vocabulary, config.lowercase)
    sides = zip((text.sources, [*text.targets, *more]), config.vocabulary, strict=True)
    return SeparateBpe(*(Bpe.train(side, size, config.lowercase) for side, size in sides))


def encode(text: ParallelText, bpe: Bpe) -> Examples:
    sides = (bpe.encode_all(text.sources), bpe.target.encode_all(text.targets))
    return Examples(*([[*ids, EOS] for ids in side] for side in sides))


def architecture(config: Config, bpe: Bpe, encoder_layers: int = 1) -> Architecture:
    return Architecture(
        bpe.size, config.width, config.feed_forward, config.heads, config.layers * encoder_layers, config.layers,
        config.dropout, longest=config.longest, target_vocabulary=0 if bpe.target is bpe else bpe.target.size,
    )  # fmt: skip


def batch_of(examples: Examples, rows: Sequence[int], views: Views, sizes: Architecture, device: torch.device) -> Batch:
    """Some sentences as tensors, padded on the right, with BERT's view of them."""
    target = padded([examples.target[i] for i in rows], sizes, device)
    start = torch.full_like(target[:, :1], sizes.bos)
    target_in = torch.cat([start, target[:, :-1]], 1)
    target_in = target_in.masked_fill(target_in == sizes.eos, sizes.pad)
    return Batch(padded([examples.source[i] for i in rows], sizes, device), target_in, target, views(rows))


# -- BERT's view ------------------------------------------------------------------------------------------------------


def check(config: Config) -> None:
    """What a config names is there: said before anything is trained.

    Raises:
        InputError: BERT, XLM, the dictionary or the text to translate back cannot be read.
    """
    load_bert(config, ["a sentence ."])
    if config.xlm:
        load_xlm(config).model(config.source, config.target)
    if config.dictionary:
        translation.parallel(config.dictionary)
    if config.monolingual:
        translation.monolingual(config.monolingual)


def load_bert(config: Config, sample: Sequence[str], trainable: bool = False) -> Bert:
    """The BERT of a config; a frozen MiniLM is read once a process, and all arms hear the same one.

    Args:
        sample: sentences that a random BERT's WordPieces are made from.

    Raises:
        InputError: no such folder, no MiniLM, no such layer.
    """
    options = dict(
        layer=config.bert_layer, mask_cls_sep=config.mask_cls_sep, trainable=trainable, dropout=config.bert_dropout,
        official_left_pad=config.official_left_pad,
    )  # fmt: skip
    if config.bert == "random":
        return random_bert(sample, seed=config.seed, **options)
    if config.bert != "minilm":
        return Bert.from_folder(config.bert, **options)
    return minilm(**options) if trainable or config.bert_dropout else _frozen_minilm(**options)


_frozen_minilm = functools.lru_cache(maxsize=1)(minilm)


def load_xlm(config: Config) -> Xlm:
    """The XLM of a config.

    Raises:
        InputError: no such folder, or no XLM.
    """
    return Xlm.from_folder(config.xlm, config.lowercase)


def control(bert: Bert, seed: int) -> Bert:
    """Random vectors in place of BERT, as large as its states are. [ours]"""
    with torch.no_grad():
        scale = float(bert(["the same size as before ."]).states.pow(2).mean().sqrt())
    return random_control(bert, scale, seed)


def live(bert: Bert, words: Sequence[Words]) -> Views:
    """BERT runs over every batch: slow, and the only way where it is trained, or drops out."""
    return lambda rows: bert.view([words[i] for i in rows])


def stored(bert: Bert, words: Sequence[Words], batch_tokens: int = 4096) -> Views:
    """BERT runs once over all sentences; its states lie on disk from then on, under `runs/cache/features`."""
    lengths = np.array([len(one.ids) for one in words], dtype=np.int64)
    key = key_of(bert.fingerprint(), [list(one) for one in words])

    def compute(rows: list[int]) -> list[Tensor]:
        states = bert.view([words[i] for i in rows]).states
        return [states[number, : lengths[i]] for number, i in enumerate(rows)]

    batches = [batch.tolist() for batch in cut(lengths, np.argsort(-lengths, kind="stable"), batch_tokens)]
    folder = paths.runs_dir() / "cache" / "features"
    return from_cache(cached(folder, key, lengths.tolist(), bert.width, compute, batches), bert, words)


def from_cache(cache: FeatureCache, bert: Bert, words: Sequence[Words]) -> Views:
    def view(rows: Sequence[int]) -> BertView:
        states, real = cache.padded(rows)
        if bert.mask_cls_sep:
            real = bert.looked_at([words[i] for i in rows])
        return BertView(states.to(bert.device), real.to(bert.device))

    return view


def views_of(bert: Bert, words: Sequence[Words], config: Config) -> Views:
    """Kept ones where they stay the same, and live ones else."""
    changes = bert.trainable or bert.dropout or bert.official_left_pad
    quick = isinstance(bert.model, RandomVectors)
    return live(bert, words) if changes or quick or not config.cache else stored(bert, words)


def no_view(rows: Sequence[int]) -> None:
    """The view of a plain model."""


def context_views(contexts: Sequence[Sequence[int]], device: torch.device) -> Views:
    """For `baselines.Context`: the tokens of the sentence before, an eos at the end: never empty."""

    def view(rows: Sequence[int]) -> BertView:
        longest = max(len(contexts[i]) for i in rows)
        ids = torch.zeros(len(rows), longest, 1, device=device)
        for number, i in enumerate(rows):
            ids[number, : len(contexts[i]), 0] = torch.tensor(contexts[i], dtype=torch.float32)
        return BertView(ids, ids[..., 0] > 0)

    return view
