"""The notebook's "your turn" cells: what is asked, how an answer is judged, wrong answers that people give."""

from collections.abc import Sequence
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from labkit import devices
from labkit.errors import InputError
from labkit.papers.bertfused.experiment import sentences
from labkit.papers.bertfused.experiment.config import Config
from labkit.papers.bertfused.teaching import checks
from labkit.workbench import training
from labkit.workbench.exercises import Exercise, number
from labkit.workbench.runs import Run

# -- 1 fill in: drop-net ----------------------------------------------------------------------------------------------


def drop_net(u: float, p: float) -> tuple[float, float]:
    if u < p / 2:
        return 1.0, 0.0
    if u > 1 - p / 2:
        return 0.0, 1.0
    return 0.5, 0.5


def drop_net_with_halves(u: float, p: float) -> tuple[float, float]:
    native, bert = drop_net(u, p)
    return min(native, 0.5), min(bert, 0.5)


def drop_net_twice_as_often(u: float, p: float) -> tuple[float, float]:
    return (1.0, 0.0) if u < p else (0.0, 1.0) if u > 1 - p else (0.5, 0.5)


def drop_net_on_one_side(u: float, p: float) -> tuple[float, float]:
    return (1.0, 0.0) if u < p else (0.5, 0.5)


def dropout_of_bert(u: float, p: float) -> tuple[float, float]:
    """The right means, by rescaled dropout of one branch: another method."""
    return (0.5, 0.0) if u < p / 2 else (0.5, 0.5 / (1 - p / 2))


# -- 2 predict: parameters --------------------------------------------------------------------------------------------


def new_parameters(d: int = 512, d_b: int = 768, layers: int = 12) -> int:
    """attn_B: q and output d x d, k and v d_B x d, four biases, in every layer of encoder and decoder."""
    return layers * (2 * d * d + 2 * d * d_b + 4 * d)


# -- 3 find the bug: padding ------------------------------------------------------------------------------------------


def broken_padding(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids of a batch and the mask of the real ones, for `bert(input_ids=..., attention_mask=...)`."""
    longest = max(map(len, rows))
    ids = [[pad] * (longest - len(row)) + list(row) for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


def padding(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    longest = max(map(len, rows))
    ids = [list(row) + [pad] * (longest - len(row)) for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


def padding_without_mask(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    ids, _ = padding(rows, pad)
    return ids, torch.ones_like(ids)


def padding_that_cuts(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    shortest = min(map(len, rows))
    ids = torch.tensor([list(row)[:shortest] for row in rows])
    return ids, torch.ones_like(ids)


# -- 4 predict: which gain survives? ----------------------------------------------------------------------------------


def _survives(answer: Any) -> None:
    assert isinstance(answer, tuple), f"three of True and False are asked for; got {answer!r}"
    assert len(answer) == 3, f"three of True and False are asked for; got {len(answer)} things"
    truth = survivals()
    names = ("rows of H_B in another order", "H_B of another sentence", "a random vector for each WordPiece")
    wrong = [name for name, choice, right in zip(names, answer, truth, strict=True) if bool(choice) != right]
    assert not wrong, f"look again at: {', '.join(wrong)}"


@cache
def survivals() -> tuple[bool, bool, bool]:
    """Does attention to BERT give the same output? Computed with a random model: the answer needs no training."""
    from labkit.papers.bertfused.method.attention import Attention

    draw = torch.Generator().manual_seed(0)
    attention = Attention(16, 2, 8).double()
    query, states, other = (torch.randn(1, n, w, generator=draw).double() for n, w in ((3, 16), (5, 8), (5, 8)))
    vectors = torch.randn(1, 5, 8, generator=draw).double()

    def output(h_b: Tensor) -> Tensor:
        return attention.attend(attention.queries(query), attention.memory(h_b))

    def same(h_b: Tensor) -> bool:
        return bool((output(h_b) - output(states)).abs().max() < 1e-9)

    return same(states[:, [3, 0, 4, 2, 1]]), same(other), same(vectors)


# -- 5 fill in: contexts ----------------------------------------------------------------------------------------------


def contexts(sentences_of: Sequence[str], talks: Sequence[int]) -> list[str]:
    return [sentences_of[i - 1] if i and talks[i - 1] == talks[i] else "" for i in range(len(sentences_of))]


def contexts_across_talks(sentences_of: Sequence[str], talks: Sequence[int]) -> list[str]:
    return ["", *sentences_of[:-1]]


def contexts_after(sentences_of: Sequence[str], talks: Sequence[int]) -> list[str]:
    return [sentences_of[i + 1] if talks[i + 1 : i + 2] == [talks[i]] else "" for i in range(len(sentences_of))]


# -- 6 fill in: label smoothing ---------------------------------------------------------------------------------------


def smoothed(logits: Tensor, target: Tensor, eps: float, pad: int) -> Tensor:
    log_p = logits.log_softmax(-1)
    nll = -log_p.gather(-1, target[..., None])[..., 0]
    each = (1 - eps) * nll - eps * log_p.mean(-1)
    return each[target != pad].sum()


def smoothed_with_padding(logits: Tensor, target: Tensor, eps: float, pad: int) -> Tensor:
    log_p = logits.log_softmax(-1)
    return ((1 - eps) * -log_p.gather(-1, target[..., None])[..., 0] - eps * log_p.mean(-1)).sum()


def smoothed_over_the_others(logits: Tensor, target: Tensor, eps: float, pad: int) -> Tensor:
    """The share goes to the V - 1 wrong classes only."""
    log_p = logits.log_softmax(-1)
    right = log_p.gather(-1, target[..., None])[..., 0]
    each = -(1 - eps) * right - eps * (log_p.sum(-1) - right) / (logits.shape[-1] - 1)
    return each[target != pad].sum()


# -- 7 ablation: when to fuse -----------------------------------------------------------------------------------------

UPDATES = 180
BAR = 45.0
FAST = Config(
    arms=("fused",), pairs=700, tests=40, seed=7, batch_tokens=500, warmup=30, learning_rate=3e-3, validate_every=20
)
"""The lesson in small: one arm, some ten seconds."""


@cache
def unseen_bleu(steps: int, fused_steps: int) -> float:
    """BLEU on held-out names after a training in small."""
    config = FAST.override(steps=steps, fused_steps=fused_steps)
    with TemporaryDirectory() as folder, training.workers("cpu") as workers, devices.one_thread():
        run = Run.open(folder, config)
        result = sentences.compare(config, workers, run.part("sentences"))
        run.close()
    return float(result["arms"]["fused"]["tests"]["unseen"]["bleu"])


def _is_a_split(answer: Any) -> None:
    assert isinstance(answer, tuple), f"a pair (stage 1, stage 2) is asked for; got {answer!r}"
    assert len(answer) == 2, f"a pair (stage 1, stage 2) is asked for; got {len(answer)} things"
    assert all(isinstance(part, int) and part >= 1 for part in answer), f"two whole numbers of at least 1; got {answer}"
    assert sum(answer) <= UPDATES, f"{sum(answer)} updates are more than the {UPDATES} that you have"


def _reaches_the_bar(answer: tuple[int, int]) -> None:
    try:
        score = unseen_bleu(*answer)
    except InputError as error:
        raise AssertionError(str(error)) from None
    assert score >= BAR, f"{score:.1f} BLEU on held-out names; {BAR:.0f} are asked for"


EXERCISES = (
    Exercise(
        key="drop-net",
        kind="fill in",
        task="Write `mix(u, p)`: the weights (native, BERT) of one layer for a uniform draw $u$ and the rate $p$. "
        "The mean over $u$ must be what inference uses.",
        properties={"three cases": checks.check_cases, "the mean": checks.check_mean_weights},
        solution=drop_net,
        wrong={
            "a lone branch counts half": drop_net_with_halves,
            "each case comes twice as often": drop_net_twice_as_often,
            "only BERT is ever dropped": drop_net_on_one_side,
            "dropout of BERT's branch, rescaled": dropout_of_bert,
        },
        difficulty=1,
        minutes=5,
        hints=(
            "Cut the unit interval into three parts: one at each end, of the same length.",
            "Below $p/2$ the native branch alone, with its full weight; above $1-p/2$ BERT's alone; the mixture "
            "between.",
        ),
    ),
    Exercise(
        key="parameters",
        kind="predict, then run",
        task="The IWSLT model has $d=512$, six layers in the encoder and six in the decoder; BERT-base has $d_B=768$. "
        "How many trained parameters does the attention to BERT add in all? (Within 1 %.)",
        properties={
            "count": number(
                float(new_parameters()), 0.01 * new_parameters(), "count the four matrices of one layer again"
            )
        },
        solution=new_parameters(),
        wrong={
            "all four matrices d x d": 12 * 4 * 512 * 512,
            "the encoder only": new_parameters(layers=6),
            "all four matrices d x d_B": 12 * 4 * 512 * 768,
        },
        difficulty=1,
        minutes=5,
        hints=(
            "Queries come from the translation model, keys and values from BERT; the output goes back.",
            "Per layer two matrices of $d\\times d$ and two of $d_B\\times d$; the biases hardly count.",
        ),
    ),
    Exercise(
        key="padding",
        kind="find the bug",
        task="This function prepares a batch for BERT. A sentence's states should not depend on its neighbours in the "
        "batch. Do they? Write a function that returns `(ids, mask)` for which they do not.",
        properties={"ids and mask": checks.check_mask, "alone as in a batch": checks.check_padding},
        solution=padding,
        wrong={
            "as shown": broken_padding,
            "padding is looked at": padding_without_mask,
            "sentences are cut": padding_that_cuts,
        },
        difficulty=2,
        minutes=10,
        hints=(
            "Run BERT on the second sentence alone and in the batch, then on the first: which of them differs?",
            "BERT counts positions from the left edge of the tensor.",
        ),
    ),
    Exercise(
        key="which-survives",
        kind="predict, then run",
        task="Replace $H_B$ in a trained fused model by (a) its own rows in another order, the mask with them, (b) "
        "$H_B$ of another sentence, (c) one fixed random vector for each WordPiece. Which leave the output "
        "of $\\mathrm{attn}_B$ as it was, but for rounding? A tuple of three, True or False.",
        properties={"all three": _survives},
        solution=survivals(),
        wrong={
            "none": (False, False, False),
            "order matters": (False, False, True),
            "everything": (True, True, True),
            "only names matter": (True, False, True),
        },
        difficulty=2,
        minutes=5,
        hints=(
            "Attention is a weighted sum over the keys. What does it know of their order?",
            "Positions entered BERT; between $H_B$ and the model's layers none are added.",
        ),
    ),
    Exercise(
        key="contexts",
        kind="fill in",
        task="For document-level translation BERT reads the sentence before. Write `contexts(sentences, talks)`: a "
        "list of strings, from sentences in order and the number of the talk each belongs to.",
        properties={"the sentence before": checks.check_contexts, "no talk leaks": checks.check_first_sentences},
        solution=contexts,
        wrong={"talks run together": contexts_across_talks, "the sentence after": contexts_after},
        difficulty=1,
        minutes=5,
        hints=(
            "Two talks stand one after another in the list.",
            "The context is empty where the number of the talk differs from the one before.",
        ),
    ),
    Exercise(
        key="label-smoothing",
        kind="fill in",
        task="Write `loss(logits, target, eps, pad)`: label-smoothed cross-entropy, "
        "$(1-\\epsilon)(-\\log p(y))+\\frac{\\epsilon}{V}\\sum_v-\\log p(v)$, summed over the tokens that are not "
        "`pad`. Logits are (batch, length, V).",
        properties={"the sum": checks.check_smoothed, "padding": checks.check_padding_is_silent},
        solution=smoothed,
        wrong={"padding counts": smoothed_with_padding, "over the other V - 1": smoothed_over_the_others},
        difficulty=2,
        minutes=10,
        hints=(
            "One call of `log_softmax` gives all you need.",
            "`gather` picks $\\log p(y)$, `mean(-1)` is the sum over the vocabulary divided by V.",
        ),
    ),
    Exercise(
        key="when-to-fuse",
        kind="ablation",
        task=f"A small language and {UPDATES} updates in all. Stage 1 trains the plain model, stage 2 the fused one "
        f"from there. Split them so that the fused model reaches {BAR:.0f} BLEU on held-out names of nouns: a pair "
        "(stage 1, stage 2).",
        properties={"a split": _is_a_split, "held-out names": _reaches_the_bar},
        solution=(20, 160),
        wrong={"most for the plain model": (150, 30), "more than there are": (200, 200)},
        difficulty=3,
        minutes=15,
        hints=(
            "What has a layer to learn from BERT once its own attention already explains the training sentences?",
            "The plain model may stop long before it has converged.",
        ),
    ),
)
