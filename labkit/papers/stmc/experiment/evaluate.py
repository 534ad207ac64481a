"""Plain numbers of a trained recogniser: error rates over the corpus, and which cue's glosses it confuses."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from labkit.data.sign import Sentence
from labkit.metrics.wer import WordErrors, rwth_clean, word_errors
from labkit.papers.stmc.experiment import avatars
from labkit.papers.stmc.experiment.data import Task, batch
from labkit.papers.stmc.method.network import STMC
from labkit.papers.stmc.method.temporal import fewest_frames
from labkit.text import ctc

PIXELS = avatars.FRAME - 1


Centers = Callable[[int, int], torch.Tensor]
"""(index of a sentence, its frames) to the places of its crops, (frames, points, 2)."""


@torch.no_grad()
def transcripts(
    model: STMC, sentences: Sequence[Sentence], task: Task, together: int, width: int, centers: Centers | None = None
) -> list[dict[str, Any]]:
    """What the network reads in each sentence: {"beam": glosses, "greedy": glosses, "pixels": error of J or None}."""
    model.eval()
    a, rows, device = model.architecture, [], next(model.parameters()).device
    for start in range(0, len(sentences), together):
        some = sentences[start : start + together]
        points = task.points if all(sentence.points is not None for sentence in some) else 0
        one = batch(some, points, a.size, fewest=fewest_frames(a.padded)).to(device)
        at = None
        if centers is not None:
            at = torch.cat([centers(start + k, n) for k, n in enumerate(one.lengths.tolist())]).to(device)
        output = model(one.frames, one.lengths, at)
        log_probs, lengths = output.joint.double().cpu().numpy(), output.lengths.tolist()
        errors = _pixels(output.points, one.points, one.lengths)
        for k in range(len(some)):
            own = log_probs[k, : lengths[k]]
            best, path = ctc.beam_search(own, width)[0], ctc.greedy(own)
            rows.append({"beam": task.decode(best.labels), "greedy": task.decode(path.labels), "pixels": errors[k]})
    return rows


def _pixels(points: Any, targets: Any, lengths: torch.Tensor) -> list[float | None]:
    """Mean error of the key points of each sentence, in pixels of a frame of 40."""
    if points is None or targets is None:
        return [None] * len(lengths)
    errors = (points - targets).abs().nanmean((1, 2)) * PIXELS
    return [float(part.mean()) for part in errors.split(lengths.tolist())]


def summarise(rows: Sequence[Mapping[str, Any]], sentences: Sequence[Sentence], task: Task) -> dict[str, Any]:
    """Error rates of a corpus.

    Returns:
        {"wer", "substitutions", "deletions", "insertions": shares of the reference words, "greedy": WER of greedy
        decoding, "words", "each": [substitutions, deletions, insertions, words] of every sentence, "pixels": error of
        the key points in pixels of a frame of 40, "confusions": see `confusions`, avatars only}
    """
    clean = rwth_clean if task.name == "phoenix2014" else tuple
    references = [clean(sentence.glosses) for sentence in sentences]
    errors, greedy = (word_errors(references, [clean(row[name]) for row in rows]) for name in ("beam", "greedy"))
    pixels = [row["pixels"] for row in rows if row["pixels"] is not None]
    summary: dict[str, Any] = {
        "wer": errors.rate,
        "substitutions": errors.substitutions / errors.words,
        "deletions": errors.deletions / errors.words,
        "insertions": errors.insertions / errors.words,
        "greedy": greedy.rate,
        "words": errors.words,
        "each": [_counts(edits) for edits in errors.sentences],
        "transcripts": [" ".join(row["beam"]) for row in rows[:20]],
    }
    if pixels:
        summary["pixels"] = sum(pixels) / len(pixels)
    if task.name == "avatars":
        summary["confusions"] = confusions(errors)
    return summary


def _counts(edits: Sequence[Any]) -> list[int]:
    kinds = [edit.kind for edit in edits]
    return [*(kinds.count(kind) for kind in ("substitute", "delete", "insert")), len(kinds) - kinds.count("insert")]


def confusions(errors: WordErrors) -> dict[str, dict[str, float]]:
    """Of the avatars' glosses that were found at their place, how often a cue was read wrongly.

    Returns:
        {cue: {"alone": share of words taken for the partner that differs in this cue alone, among those and the right
        ones; "any": share of aligned words whose cue was wrong, whatever else was}}; guessing gives .5 in hand and
        face, .67 in motion.
    """
    pairs = [(e.reference, e.hypothesis) for s in errors.sentences for e in s if e.kind in ("equal", "substitute")]
    differing = [avatars.cues_between(*pair) for pair in pairs]
    right = sum(not cues for cues in differing)
    table = {}
    for cue in avatars.CUES:
        alone = sum(cues == (cue,) for cues in differing)
        table[cue] = {
            "alone": alone / max(alone + right, 1),
            "any": sum(cue in cues for cues in differing) / max(len(pairs), 1),
        }
    return table
