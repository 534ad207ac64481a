"""Noise, dictionaries, and which parts of an update train what."""

import random

import pytest
import torch

from labkit.papers.bertfused.experiment import unsupervised
from labkit.papers.bertfused.experiment.baselines import Bilingual
from labkit.papers.bertfused.experiment.config import CONFIGS
from labkit.papers.bertfused.experiment.unsupervised import Turn, noisy, word_by_word
from labkit.papers.bertfused.method.bert import random_bert
from labkit.papers.bertfused.method.layers import Architecture
from labkit.papers.bertfused.method.transformer import Fusion
from labkit.text.bpe import BLANK, Bpe

WORDS = [f"w{i}" for i in range(12)]
TEXTS = (["the dog sees the house .", "a cat runs ."] * 4, ["der Hund sieht das Haus .", "eine Katze rennt ."] * 4)


def test_words_move_by_three_places_at_most():
    draw = random.Random(0)
    for _ in range(200):
        order = [int(word[1:]) for word in noisy(WORDS, draw, drop=0.0, blank=0.0)]
        assert sorted(order) == list(range(12))
        assert max(abs(position - i) for position, i in enumerate(order)) <= 3


def test_shares_of_dropped_and_blank_words():
    """10 % each; over 24,000 words the deviation is 0.2 %, 1 % is five of them."""
    draw = random.Random(1)
    noised = [noisy(WORDS, draw) for _ in range(2000)]
    kept = sum(map(len, noised))
    blank = sum(word is None for words in noised for word in words)
    assert kept / 24000 == pytest.approx(0.9, abs=0.01)
    assert blank / kept == pytest.approx(0.1, abs=0.01)


def test_a_sentence_never_becomes_empty():
    draw = random.Random(2)
    assert all(len(noisy(["one"], draw, drop=0.9)) == 1 for _ in range(50))


def test_word_by_word():
    words = {"the": "der", "dog": "Hund"}
    assert word_by_word("the dog runs The", words) == "der Hund runs der"


@pytest.fixture
def turn():
    config = CONFIGS["smoke"].override(batch_tokens=60)
    return Turn(TEXTS, Bpe.train([*TEXTS[0], *TEXTS[1]], 300), None, config)


def test_blanks_are_their_own_token_and_broken_copies_come_from_the_state(turn):
    state = turn.state_dict()
    first = [turn.broken(0, [0, 1, 2, 3]) for _ in range(5)]
    assert any(BLANK in row for ids, _ in first for row in ids)
    assert all(row[-1] == 2 for ids, _ in first for row in ids)
    turn.load_state_dict(state)
    assert [turn.broken(0, [0, 1, 2, 3]) for _ in range(5)] == first


def test_an_update_reconstructs_both_languages_and_translates_both_ways(turn, monkeypatch):
    model = Bilingual(Architecture(turn.bpe.size, 16, 32, 2, 1, 1, 0.0))
    directions = []
    original = unsupervised._loss

    def watching(model, direction, *rest):
        directions.append(direction)
        return original(model, direction, *rest)

    monkeypatch.setattr(unsupervised, "_loss", watching)
    loss = unsupervised.update_loss(model, turn, None, CONFIGS["smoke"])
    assert directions == [(1, 1), (0, 1), (0, 0), (1, 0)]
    loss.backward()
    assert model.languages.grad.abs().sum(1).gt(0).all()
    assert torch.isfinite(loss)


def test_what_the_model_translates_is_no_part_of_the_gradient(turn):
    model = Bilingual(Architecture(turn.bpe.size, 16, 32, 2, 1, 1, 0.0)).train()
    ids, text = unsupervised.translated(model, (0, 1), [0, 1], turn)
    assert model.training
    assert len(ids) == len(text) == 2
    assert all(row[-1] == 2 for row in ids)


def test_berts_dropout_is_on_in_the_losses_and_off_while_the_model_translates():
    bert, modes = random_bert([*TEXTS[0], *TEXTS[1]], width=16, dropout=True), []
    bert.register_forward_pre_hook(lambda module, _: modes.append(module.model.training))
    config = CONFIGS["smoke"].override(batch_tokens=60)
    turn = Turn(TEXTS, Bpe.train([*TEXTS[0], *TEXTS[1]], 300), bert, config)
    model = Bilingual(Architecture(turn.bpe.size, 16, 32, 2, 1, 1, 0.0), Fusion(bert_width=16))
    unsupervised.update_loss(model, turn, None, config)
    assert modes == [True, False, True] * 2  # of each direction: denoising, translating, learning from that
