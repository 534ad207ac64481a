"""Properties that hold exactly.  One check, three uses: test, exercise, and wrong answers that must not pass."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from labkit.papers.bertfused.method.bert import Bert, random_bert

Mix = Callable[[float, float], Any]

TALKS = ["a b", "c d e", "f", "g h", "i", "j k l"]
NUMBERS = [0, 0, 0, 1, 2, 2]


# -- drop-net ---------------------------------------------------------------------------------------------------------


def weights(mix: Mix, u: float, p: float) -> tuple[float, float]:
    answer = mix(u, p)
    assert isinstance(answer, tuple), f"a pair (native, BERT) is asked for; got {answer!r}"
    assert len(answer) == 2, f"a pair (native, BERT) is asked for; got {len(answer)} things"
    return float(answer[0]), float(answer[1])


def check_mean_weights(mix: Mix) -> None:
    """The mean over U of both weights is 1/2, for every p: 2000 midpoints; the jumps lie between them."""
    for p in (0.0, 0.3, 1.0):
        grid = [(i + 0.5) / 2000 for i in range(2000)]
        for side, name in ((0, "native"), (1, "BERT")):
            mean = sum(weights(mix, u, p)[side] for u in grid) / len(grid)
            assert abs(mean - 0.5) < 1e-9, f"for p = {p} the {name} branch has the mean weight {mean:.3f}, not 0.5"


def check_cases(mix: Mix) -> None:
    """p = 1: one branch alone, each as often; p = 0: always both; p = 0.5: three cases, 1/4, 1/4, 1/2."""
    for p, wanted in ((0.0, (0, 0, 1.0)), (0.5, (0.25, 0.25, 0.5)), (1.0, (0.5, 0.5, 0))):
        draws = [weights(mix, (i + 0.5) / 400, p) for i in range(400)]
        for case, share in zip(((1.0, 0.0), (0.0, 1.0), (0.5, 0.5)), wanted, strict=True):
            actual = sum(draw == case for draw in draws) / 400
            assert abs(actual - share) < 1e-9, f"for p = {p} the weights {case} come in {actual:.0%} of all draws"


# -- padding ----------------------------------------------------------------------------------------------------------


@cache
def small_bert() -> Bert:
    return random_bert(["two small dogs run in the garden .", "a dog sees the house and the old tree ."]).eval()


ROWS = ([2, 7, 9, 3], [2, 8, 11, 7, 9, 14, 3], [2, 10, 3])
"""Token ids of three sentences for `small_bert`."""


def check_padding(pad: Callable[[Sequence[Sequence[int]], int], Any]) -> None:
    """BERT's states of a sentence are the same alone and in a batch."""
    ids, mask = _as_tensors(pad(ROWS, 0))
    bert = small_bert().model
    with torch.inference_mode():
        states = bert(input_ids=ids, attention_mask=mask).last_hidden_state
        for row, tokens in enumerate(ROWS):
            alone = bert(input_ids=torch.tensor([tokens])).last_hidden_state[0]
            real = states[row][mask[row].bool()]
            assert len(real) == len(tokens), f"sentence {row + 1} has {len(tokens)} tokens; the mask shows {len(real)}"
            error = float((real - alone).abs().max())
            assert error < 1e-4, f"sentence {row + 1} is another one in the batch: its states differ by {error:.2f}"


def check_mask(pad: Callable[[Sequence[Sequence[int]], int], Any]) -> None:
    """As long as the longest sentence; 1 where a token is."""
    ids, mask = _as_tensors(pad(ROWS, 0))
    assert ids.shape == mask.shape == (3, 7), (
        f"3 sentences, 7 tokens at most; got {tuple(ids.shape)}, {tuple(mask.shape)}"
    )
    for row, tokens in enumerate(ROWS):
        assert ids[row][mask[row].bool()].tolist() == list(tokens), (
            f"the tokens of sentence {row + 1} are not all there"
        )


def _as_tensors(answer: Any) -> tuple[Tensor, Tensor]:
    assert isinstance(answer, tuple), f"a pair (ids, mask) is asked for; got {answer!r}"
    assert len(answer) == 2, f"a pair (ids, mask) is asked for; got {len(answer)} things"
    return torch.as_tensor(answer[0]), torch.as_tensor(answer[1])


# -- documents --------------------------------------------------------------------------------------------------------


def check_contexts(build: Callable[[Sequence[str], Sequence[int]], Any]) -> None:
    """The sentence before, in the same talk."""
    answer = list(build(list(TALKS), list(NUMBERS)))
    assert len(answer) == len(TALKS), f"one context a sentence: {len(TALKS)}; got {len(answer)}"
    for i, (context, number) in enumerate(zip(answer, NUMBERS, strict=True)):
        if i and NUMBERS[i - 1] == number:
            assert context == TALKS[i - 1], (
                f"before sentence {i + 1} of these talks stands another one than '{context}'"
            )


def check_first_sentences(build: Callable[[Sequence[str], Sequence[int]], Any]) -> None:
    """Nothing stands before the first sentence of a talk."""
    answer = list(build(list(TALKS), list(NUMBERS)))
    for i, context in enumerate(answer):
        if i == 0 or NUMBERS[i - 1] != NUMBERS[i]:
            assert context == "", f"sentence {i + 1} begins a talk, and its context is '{context}'"


# -- label smoothing --------------------------------------------------------------------------------------------------


def check_smoothed(loss: Callable[[Tensor, Tensor, float, int], Any]) -> None:
    """(1 - eps) (-log p(y)) + eps / V sum_v -log p(v), summed over the tokens that are no padding."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 7, generator=draw, dtype=torch.float64)
    target = torch.tensor([[3, 4, 2, 0, 0], [5, 6, 1, 4, 2]])
    for eps in (0.0, 0.1, 0.5):
        wanted = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), target.flatten(), ignore_index=0, label_smoothing=eps, reduction="sum"
        )
        actual = torch.as_tensor(loss(logits.clone(), target, eps, 0), dtype=torch.float64)
        assert actual.dim() == 0, f"one number is asked for; got shape {tuple(actual.shape)}"
        assert abs(float(actual - wanted)) < 1e-9, (
            f"for eps = {eps} the loss is {float(wanted):.4f}; got {float(actual):.4f}"
        )


def check_padding_is_silent(loss: Callable[[Tensor, Tensor, float, int], Any]) -> None:
    """More padding changes nothing."""
    draw = torch.Generator().manual_seed(1)
    logits = torch.randn(1, 6, 7, generator=draw, dtype=torch.float64)
    target = torch.tensor([[3, 4, 2, 0, 0, 0]])
    long, short = (float(loss(logits[:, :n], target[:, :n], 0.1, 0)) for n in (6, 3))
    assert abs(long - short) < 1e-9, f"three tokens of padding change the loss from {short:.4f} to {long:.4f}"
