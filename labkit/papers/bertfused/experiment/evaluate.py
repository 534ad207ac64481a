"""Plain numbers: translations and what they are worth."""

from collections.abc import Sequence
from typing import Any

import torch

from labkit.data.translation import ParallelText
from labkit.metrics.bleu import bleu, paired_bootstrap, tokenization_for
from labkit.papers.bertfused.experiment.config import Config
from labkit.papers.bertfused.experiment.data import Examples, Views
from labkit.papers.bertfused.experiment.grammar import PRONOUNS, content_recall
from labkit.papers.bertfused.method.decoding import translate_ids
from labkit.papers.bertfused.method.transformer import Transformer, branches
from labkit.papers.bertfused.method.translator import padded
from labkit.text.batches import cut
from labkit.text.bpe import Bpe

BRANCHES = {"both": (0.5, 0.5), "native": (1.0, 0.0), "bert": (0.0, 1.0)}
"""(r_native, r_BERT) of the branch switch."""
SWITCHED = 100
"""Test sentences that the branch switch translates."""


def translate(
    model: Transformer, examples: Examples, views: Views, bpe: Bpe, config: Config, beam: int | None = None
) -> list[str]:
    """The best translation of each sentence, in order."""
    translations, device = [""] * len(examples), model.embed_tokens.weight.device
    beam, lengths = config.beam if beam is None else beam, examples.lengths()[:, 0]
    for rows in cut(lengths, (-lengths).argsort(kind="stable"), max(1, 4 * config.batch_tokens // beam)):
        source = padded([examples.source[i] for i in rows], model.sizes, device)
        beams = translate_ids(model, source, views(rows.tolist()), beam=beam, length_penalty=config.length_penalty)
        for i, hypotheses in zip(rows.tolist(), beams, strict=True):
            translations[i] = bpe.decode(hypotheses[0].tokens)
    return translations


def scores(hypotheses: Sequence[str], text: ParallelText, config: Config) -> dict[str, Any]:
    """BLEU with its signature and, for the grammar, what only a known language has.

    Returns:
        {"bleu", "signature", "exact": share of sentences without any mistake} and, for the grammar, {"content",
        "nouns": shares of the words that are there}
    """
    references = [plain(sentence, config.lowercase) for sentence in text.targets]
    counted = bleu(hypotheses, references, lowercase=config.lowercase, tokenize=tokenization_for(config.target))
    exact = sum(h == r for h, r in zip(hypotheses, references, strict=True)) / len(references)
    result: dict[str, Any] = {"bleu": counted.score, "signature": counted.signature, "exact": exact}
    if config.data == "grammar":
        result["content"] = content_recall(hypotheses, references)
        result["nouns"] = content_recall(hypotheses, references, nouns_only=True)
    return result


def plain(sentence: str, lowercase: bool) -> str:
    """A reference as the BPE gives text back: single spaces, in lower case where it has lowercased."""
    sentence = " ".join(sentence.split())
    return sentence.lower() if lowercase else sentence


def pronoun_accuracy(hypotheses: Sequence[str], text: ParallelText) -> float:
    """Of the sentences that say "it", those whose translation has the right one of ihn, sie, es, and no other."""
    wanted = hit = 0
    for hypothesis, source, reference in zip(hypotheses, text.sources, text.targets, strict=True):
        if "it" in source.lower().split():
            right, written = (set(PRONOUNS.values()) & set(s.lower().split()) for s in (reference, hypothesis))
            wanted, hit = wanted + 1, hit + (written == right)
    return hit / max(wanted, 1)


def switched(
    model: Transformer, examples: Examples, views: Views, bpe: Bpe, text: ParallelText, config: Config
) -> dict[str, float]:
    """BLEU of the first sentences with both branches, and with each alone."""
    few = Examples(examples.source[:SWITCHED], examples.target[:SWITCHED])
    first = text.select(range(min(SWITCHED, len(text))))
    result = {}
    for name, weights in BRANCHES.items():
        with branches(model, *weights):
            result[name] = scores(translate(model, few, views, bpe, config, beam=1), first, config)["bleu"]
    return result


def gain(ours: Sequence[str], theirs: Sequence[str], text: ParallelText, config: Config) -> dict[str, Any]:
    """BLEU of ours minus BLEU of theirs over sentences drawn anew.

    Returns:
        {"bleu", "low", "high", "p_value"}; a single sentence has "bleu" alone.
    """
    references = [plain(sentence, config.lowercase) for sentence in text.targets]
    compared = paired_bootstrap(
        ours, theirs, references, lowercase=config.lowercase, tokenize=tokenization_for(config.target), seed=config.seed
    )
    gap = compared.gain
    if gap.replicates == 1:
        return {"bleu": gap.value}
    return {"bleu": gap.value, "low": gap.low, "high": gap.high, "p_value": compared.p_value}


def trainable(module: torch.nn.Module) -> int:
    """Parameters that training changes."""
    return sum(value.numel() for value in module.parameters() if value.requires_grad)
