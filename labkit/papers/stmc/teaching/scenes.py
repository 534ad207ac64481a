"""What the pictures look at: sentences of the run, a trained network's heat maps and posteriors, recorded arms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from labkit import paths
from labkit.data.sign import Sentence
from labkit.metrics.wer import Edit, word_errors
from labkit.papers.stmc.experiment import avatars
from labkit.papers.stmc.experiment.config import ARMS, Config
from labkit.papers.stmc.experiment.data import JUDGED_BY, batch
from labkit.papers.stmc.experiment.recognizer import of_run
from labkit.papers.stmc.experiment.train import build
from labkit.papers.stmc.method.network import STMC
from labkit.seeds import derive
from labkit.text import ctc
from labkit.workbench.records import load_all
from labkit.workbench.runs import Run

NAMES = {"full": "full frame", "hand": "hands", "face": "face", "pose": "pose"}


@dataclass(frozen=True)
class Reading:
    """One test sentence, and what the multi-cue network of a run says about it.

    maps: softmax of the heat maps, (time, points, h, w). points: J, (time, points, 2) as (row, column).
    posteriors: probabilities of each head, (steps, labels), by its name; "joint" first. transcript: glosses that the
    joint head reads, with the steps of each.
    """

    sentence: Sentence
    maps: np.ndarray
    points: np.ndarray
    posteriors: Mapping[str, np.ndarray]
    glosses: tuple[str, ...]
    transcript: tuple[tuple[str, int, int], ...]
    window: tuple[int, int]


def reading(config: Config, run: Run, index: int = 0) -> Reading | None:
    """The `index`-th sentence that the run was judged by; None where it trained no multi-cue network on avatars."""
    if config.data != "avatars" or "multi-cue" not in config.arms or run.part("multi-cue").result is None:
        return None
    recognizer = of_run(config, run, "multi-cue")
    return read(recognizer.model, recognizer.glosses, judged_by(config, index))


def judged_by(config: Config, index: int) -> Sentence:
    """The `index`-th of the sentences that a run on avatars is judged by."""
    world = avatars.World(size=config.base().size, decoys=config.decoys, label_noise=config.label_noise)
    return avatars.sentences(index + 1, derive(config.seed, JUDGED_BY), world)[index]


@torch.no_grad()
def read(model: STMC, glosses: tuple[str, ...], sentence: Sentence) -> Reading:
    """What a network says about a sentence."""
    a = model.eval().architecture
    one = batch([sentence], 0, a.size)
    maps = model.backbone.spatial.heat_maps(one.frames)
    output = model(one.frames, one.lengths)
    assert output.points is not None
    heads = {"joint": output.joint} | dict(zip((NAMES[cue] for cue in a.cues), output.cues, strict=False))
    posteriors = {name: head[0].exp().double().numpy() for name, head in heads.items()}
    log_probs = output.joint[0].double().numpy()
    best = ctc.beam_search(log_probs)[0]
    spans = ctc.align(log_probs, best.labels).spans
    spoken = tuple((glosses[label - 1], *span) for label, span in zip(best.labels, spans, strict=True))
    soft = maps.flatten(2).softmax(-1).view_as(maps).numpy()
    return Reading(sentence, soft, output.points.numpy(), posteriors, glosses, spoken, (a.face_window, a.hand_window))


@cache
def untrained() -> Reading:
    """The same by a network that nobody has trained: for pictures that need no run."""
    from labkit.papers.stmc.experiment.config import CONFIGS

    config = CONFIGS["smoke"]
    model = build(ARMS["multi-cue"].architecture(config.base()), 13, config, first_stage=False)
    return read(model, avatars.GLOSSES, avatars.sentences(1, 5)[0])


def transcripts(config: Config, result: Mapping[str, Any], arm: str, count: int = 4) -> list[tuple[Edit, ...]]:
    """The first sentences that the run was judged by, aligned with what an arm read."""
    read_by = result.get("arms", {}).get(arm, {}).get("transcripts", [])[:count]
    if config.data != "avatars" or not read_by:
        return []
    references = [" ".join(judged_by(config, k).glosses) for k in range(len(read_by))]
    return list(word_errors(references, read_by).sentences)


def published_predictions(count: int = 6) -> list[tuple[Edit, ...]]:
    """The authors' own predictions for PHOENIX-2014-T, dev, where LABKIT_DATA/sign holds them; else nothing."""
    folder = paths.data_dir() / "sign"
    files = [folder / name for name in ("phoenix2014T.dev.gloss", "stmc.dev.gloss")]
    if not all(file.is_file() for file in files):
        return []
    sides = [file.read_text(encoding="utf-8").splitlines()[:count] for file in files]
    return list(word_errors(*sides).sentences)


def recorded(value: str = "wer") -> dict[str, dict[int, float]]:
    """A number of every arm in the lesson's records, by seed; of the first record that has the arm."""
    numbers: dict[str, dict[int, float]] = {}
    for record in load_all("stmc"):
        if record.scale != "lesson":
            continue
        for arm in record.results[0].get("arms", {}):
            by_seed = {
                seed: result["arms"][arm].get(value)
                for seed, result in zip(record.seeds, record.results, strict=True)
                if arm in result["arms"]
            }
            if arm not in numbers and None not in by_seed.values():
                numbers[arm] = by_seed
    return numbers


def leads() -> dict[str, dict[int, float]]:
    """How much lower the word error rate of multi-cue was than each other arm's, by seed.

    Both numbers come from one record, and within it from one seed; the first record that has the arm beside multi-cue.
    """
    rates: dict[str, dict[int, float]] = {}
    for record in load_all("stmc"):
        tables = [result.get("arms", {}) for result in record.results]
        if record.scale != "lesson" or not all("multi-cue" in table for table in tables):
            continue
        for arm in tables[0].keys() - {"multi-cue"} - rates.keys():
            rates[arm] = {
                seed: table[arm]["wer"] - table["multi-cue"]["wer"]
                for seed, table in zip(record.seeds, tables, strict=True)
            }
    return {arm: rates[arm] for arm in ARMS if arm in rates}


def lead_lines(rates: Mapping[str, Mapping[int, float]]) -> list[str]:
    """One line an arm: in how many seeds multi-cue read better, and by how much."""
    width = max(map(len, rates), default=0)
    return [
        f"{arm:<{width}}  better in {sum(v > 0 for v in by_seed.values())} of {len(by_seed)} seeds, by "
        f"{100 * min(by_seed.values()):.0f} to {100 * max(by_seed.values()):.0f} points"
        for arm, by_seed in rates.items()
    ]


def pair_line(values: Mapping[str, Mapping[int, float]], first: str, second: str) -> str:
    """In how many of the seeds that both arms have the first one has the lower word error rate."""
    seeds = values.get(first, {}).keys() & values.get(second, {}).keys()
    better = sum(values[first][seed] < values[second][seed] for seed in seeds)
    return f"{first} reads better than {second} in {better} of {len(seeds)} seeds"


def toy_posteriors(sharpness: float = 1.0, seed: int = 0, steps: int = 12, labels: int = 5) -> np.ndarray:
    """Log-probabilities of made-up scores: flatter for a smaller sharpness."""
    scores = sharpness * np.random.default_rng(seed).normal(0, 1, (steps, labels))
    return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)


def counts(sentences: Sequence[Sequence[Edit]]) -> tuple[int, int, int, int]:
    """Substitutions, deletions, insertions and reference words."""
    kinds = [edit.kind for sentence in sentences for edit in sentence]
    return kinds.count("substitute"), kinds.count("delete"), kinds.count("insert"), len(kinds) - kinds.count("insert")
