"""Connectionist temporal classification (CTC): the labelling that a network's posteriors over time stand for.

A *path* has one label or blank in every time step; B removes repeats, then blanks, and leaves a *labelling*.  Its
probability is that of all its paths:

    p(l | X) = sum over paths pi with B(pi) = l of prod_t p(pi_t | t)            (Graves et al., 2006)

Decoders for one sequence, in float64 on the CPU: `greedy` takes the best path, `beam_search` looks for the best
labelling, `align` for the best path of a given labelling.  `labellings` writes the sum out, for tests and for teaching.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike

from labkit.errors import InputError

LogProbs = Float64[np.ndarray, "time labels"]
Labelling = tuple[int, ...]
MOST_PATHS = 2_000_000  # of `labellings`


@dataclass(frozen=True)
class Hypothesis:
    """labels: a labelling, blanks left out. log_prob: natural logarithm of its probability, or of its best path's."""

    labels: Labelling
    log_prob: float


@dataclass(frozen=True)
class Alignment:
    """The best path of a labelling. path: a label or blank in every step. spans: first and last step of each label."""

    path: Labelling
    log_prob: float
    spans: tuple[tuple[int, int], ...]


def collapse(path: Sequence[int], blank: int = 0) -> Labelling:
    """B(path): repeats become one, then blanks go."""
    return tuple(label for label, _ in itertools.groupby(path) if label != blank)


def shortest(labels: Sequence[int]) -> int:
    """The fewest steps in which a path of `labels` fits: two equal neighbours need a blank between them."""
    return len(labels) + sum(a == b for a, b in itertools.pairwise(labels))


def greedy(log_probs: ArrayLike, blank: int = 0) -> Hypothesis:
    """The labelling of the best path: the best label of every step, then B. Not always the best labelling.

    Raises:
        InputError: not a table of (time, labels) log-probabilities, or no such blank.
    """
    p = _checked(log_probs, blank)
    path = p.argmax(1)
    return Hypothesis(collapse(path.tolist(), blank), float(p.max(1).sum()))


def beam_search(log_probs: ArrayLike, width: int = 20, blank: int = 0) -> list[Hypothesis]:
    """Prefix beam search: the `width` most probable labellings found, the best first.

    Every prefix carries two sums over its paths, those that end in a blank and those that end in its last label; paths
    of one prefix are added up, which a search over paths does not do. Exact when `width` is not below the number of
    prefixes.

    Raises:
        InputError: not a table of log-probabilities, no such blank, or a width below 1.
    """
    p = _checked(log_probs, blank)
    if width < 1:
        raise InputError(f"the beam's width must be at least 1; got {width}.")
    prefixes: list[Labelling] = [()]
    in_blank, in_label = np.zeros(1), np.full(1, -np.inf)
    for step in p:
        prefixes, in_blank, in_label = _advance(prefixes, in_blank, in_label, step, width, blank)
    total = np.logaddexp(in_blank, in_label)
    order = np.argsort(-total, kind="stable")
    return [Hypothesis(prefixes[k], float(total[k])) for k in order if total[k] > -np.inf]


def _advance(
    prefixes: list[Labelling],
    in_blank: np.ndarray,
    in_label: np.ndarray,
    step: np.ndarray,
    width: int,
    blank: int,
) -> tuple[list[Labelling], np.ndarray, np.ndarray]:
    """One time step: every prefix stays, or grows by a label; the `width` best are kept.

    Labels beyond the `width` + 2 most probable ones need no look: a prefix has `width` better ways to grow, its own
    last label and the blank left out, and so has the whole beam.
    """
    total, count = np.logaddexp(in_blank, in_label), len(prefixes)
    labels = np.argpartition(-step, width + 1)[: width + 2] if width + 2 < len(step) else np.arange(len(step))
    column = {int(label): k for k, label in enumerate(labels)}
    longer = total[:, None] + step[labels][None]  # prefix k and label labels[c]
    if blank in column:
        longer[:, column[blank]] = -np.inf
    stays_label = np.full(count, -np.inf)
    positions = {prefix: k for k, prefix in enumerate(prefixes)}
    for k, prefix in enumerate(prefixes):
        if prefix:
            stays_label[k] = in_label[k] + step[prefix[-1]]
            if (c := column.get(prefix[-1])) is not None:
                longer[k, c] = in_blank[k] + step[prefix[-1]]  # the same label again needs a blank between
    for k, prefix in enumerate(prefixes):  # a prefix that grows into another one of the beam joins it
        if prefix and (parent := positions.get(prefix[:-1])) is not None:
            repeats = prefixes[parent][-1:] == prefix[-1:]
            grown = (in_blank if repeats else total)[parent] + step[prefix[-1]]
            stays_label[k] = np.logaddexp(stays_label[k], grown)
            if (c := column.get(prefix[-1])) is not None:
                longer[parent, c] = -np.inf
    stays_blank = total + step[blank]
    scores = np.concatenate([np.logaddexp(stays_blank, stays_label), longer.ravel()])
    best = np.argsort(-scores, kind="stable")[:width]
    best = best[scores[best] > -np.inf]
    chosen = [(int(k), -1) if k < count else divmod(int(k) - count, len(labels)) for k in best]
    chosen_prefixes = [prefixes[k] if c < 0 else (*prefixes[k], int(labels[c])) for k, c in chosen]
    blanks = np.array([stays_blank[k] if c < 0 else -np.inf for k, c in chosen])
    lasts = np.array([stays_label[k] if c < 0 else longer[k, c] for k, c in chosen])
    return chosen_prefixes, blanks, lasts


def log_likelihood(log_probs: ArrayLike, labels: Sequence[int], blank: int = 0) -> float:
    """ln p(labels | X) by the forward recursion; -inf where no path is long enough.

    Raises:
        InputError: not a table of log-probabilities, no such blank, or a label that is none.
    """
    p, states = _with_blanks(log_probs, labels, blank)
    alpha = np.full(len(states), -np.inf)
    alpha[:2] = p[0, states[:2]]
    skips = _skips(states, blank)
    for step in p[1:]:
        alpha = np.logaddexp.reduce(_predecessors(alpha, skips)) + step[states]
    return float(np.logaddexp.reduce(alpha[-2:]))


def align(log_probs: ArrayLike, labels: Sequence[int], blank: int = 0) -> Alignment:
    """Forced alignment: the most probable path that B turns into `labels` (Viterbi's recursion).

    Raises:
        InputError: not a table of log-probabilities, a label that is none, or fewer steps than any path needs.
    """
    p, states = _with_blanks(log_probs, labels, blank)
    if len(p) < shortest(labels):
        raise InputError(
            f"{len(labels)} labels need {shortest(labels)} steps or more (a blank between equal neighbours); "
            f"there are {len(p)}."
        )
    score = np.full(len(states), -np.inf)
    score[:2] = p[0, states[:2]]
    skips, back = _skips(states, blank), np.zeros((len(p), len(states)), dtype=int)
    for t, step in enumerate(p[1:], 1):
        before = _predecessors(score, skips)
        back[t] = before.argmax(0)
        score = before.max(0) + step[states]
    state = len(states) - 1 if len(states) == 1 or score[-1] >= score[-2] else len(states) - 2
    total, visited = float(score[state]), [state]
    for t in range(len(p) - 1, 0, -1):
        state -= back[t, state]
        visited.append(state)
    visited.reverse()
    spans = tuple(
        (visited.index(2 * k + 1), len(visited) - 1 - visited[::-1].index(2 * k + 1)) for k in range(len(labels))
    )
    return Alignment(tuple(int(states[s]) for s in visited), total, spans)


def labellings(log_probs: ArrayLike, blank: int = 0) -> dict[Labelling, float]:
    """The probability of every labelling, by writing all paths down; for a few labels and steps only.

    Raises:
        InputError: there are more than two million paths.
    """
    p = _checked(log_probs, blank)
    time, count = p.shape
    if count**time > MOST_PATHS:
        raise InputError(f"{count} labels in {time} steps make {count}^{time} paths; {MOST_PATHS:,} at most.")
    sums: dict[Labelling, float] = {}
    for path in itertools.product(range(count), repeat=time):
        labels = collapse(path, blank)
        sums[labels] = sums.get(labels, 0.0) + math.exp(sum(p[t, label] for t, label in enumerate(path)))
    return sums


# -- the ladder of states ---------------------------------------------------------------------------------------------


def _with_blanks(log_probs: ArrayLike, labels: Sequence[int], blank: int) -> tuple[np.ndarray, np.ndarray]:
    """The table, and the states of a labelling: blank, l_1, blank, l_2, ..., blank."""
    p = _checked(log_probs, blank)
    for label in labels:
        if not 0 <= label < p.shape[1] or label == blank:
            raise InputError(f"labels lie between 0 and {p.shape[1] - 1} and are not the blank {blank}; got {label}.")
    states = np.full(2 * len(labels) + 1, blank)
    states[1::2] = labels
    return p, states


def _skips(states: np.ndarray, blank: int) -> np.ndarray:
    """True where a path may come from two states back: over a blank, between different labels."""
    skips = np.zeros(len(states), dtype=bool)
    skips[2:] = (states[2:] != blank) & (states[2:] != states[:-2])
    return skips


def _predecessors(score: np.ndarray, skips: np.ndarray) -> np.ndarray:
    """(3, states): the score of the state itself, of the one before, and of the one before that where it is allowed."""
    rows = np.full((3, len(score)), -np.inf)
    rows[0] = score
    rows[1, 1:] = score[:-1]
    rows[2, 2:] = np.where(skips[2:], score[:-2], -np.inf)
    return rows


def _checked(log_probs: ArrayLike, blank: int) -> np.ndarray:
    p = np.asarray(log_probs, dtype=np.float64)
    if p.ndim != 2 or not len(p) or p.shape[1] < 2:
        raise InputError(
            f"log_probs must be a table (time, labels) with a step and two labels at least; got {p.shape}."
        )
    if np.isnan(p).any() or (p > 1e-3).any():
        raise InputError("log_probs must hold logarithms of probabilities, at most 0. For scores call log_softmax.")
    if not 0 <= blank < p.shape[1]:
        raise InputError(f"blank must be one of the {p.shape[1]} labels, counted from 0; got {blank}.")
    return p
