"""The generated language: correct German, no synonym leaks, every sentence new."""

import random

import pytest

from labkit.errors import InputError
from labkit.papers.bertfused.experiment import grammar
from labkit.papers.bertfused.experiment.grammar import (
    NOUNS,
    content_recall,
    documents,
    held_out_names,
    sentence,
    splits,
)

PARTS = splits(600, 80, seed=0)


def test_nouns_are_told_apart_by_every_name():
    english = [name for noun in NOUNS for name in noun.english]
    assert len(english) == len(set(english))
    assert len({noun.german for noun in NOUNS}) == len(NOUNS)
    assert all(len(noun.english) >= 2 for noun in NOUNS)
    assert {noun.gender for noun in NOUNS if noun.thing} == set("mfn")


def test_no_sentence_comes_twice_and_no_held_out_name_in_training():
    sources = [pair.source for part in vars(PARTS).values() for pair in part]
    assert len(sources) == len(set(sources)) == 600 + 3 * 80
    held = set(held_out_names())
    for part in (PARTS.train, PARTS.valid, PARTS.seen):
        assert not held & {word for pair in part for word in pair.source.split()}
    names = {name for noun in NOUNS for name in noun.english}
    for pair in PARTS.unseen:
        assert {word for word in pair.source.split() if word in names} <= held


def test_equal_seeds_give_equal_language():
    assert splits(50, 5, 3) == splits(50, 5, 3) != splits(50, 5, 4)
    assert documents(20, 3) == documents(20, 3) != documents(20, 4)


def test_articles_endings_and_weak_nouns_by_hand():
    """Every target is rebuilt from its words: case by place, gender by noun."""
    forms = {noun.german: noun for noun in NOUNS} | {noun.oblique: noun for noun in NOUNS}
    for pair in [*PARTS.train, *PARTS.unseen]:
        words = pair.target.split()
        cases = iter(("nominative", "accusative", "dative"))
        for i, word in enumerate(words):
            if word not in forms:
                continue
            noun, case = forms[word], next(cases)
            described = words[i - 1] not in {a for row in grammar.ARTICLES.values() for a in row.values()}
            article = words[i - 2] if described else words[i - 1]
            assert article == grammar.ARTICLES[case][noun.gender], pair
            assert word == (noun.german if case == "nominative" else noun.oblique), pair
            if described:
                weak = case == "accusative" and noun.gender == "m"
                assert words[i - 1].endswith("en" if weak else "e"), pair


def test_a_pronoun_has_the_gender_of_the_only_noun_before():
    for talk in documents(150, 1):
        first, second = talk
        (noun,) = [noun for noun in NOUNS if noun.german in first.target.split()]
        assert second.source.split()[-2] == "it"
        assert second.target.split()[-2] == {"m": "ihn", "f": "sie", "n": "es"}[noun.gender]
        assert noun.thing
    held = held_out_names()
    for first, _ in documents(50, 1, held_out=True):
        assert sum(word in held for word in first.source.split()) == 1


def test_the_second_sentence_alone_leaves_the_gender_open():
    genders: dict[str, set[str]] = {}
    for _, second in documents(1500, 2):
        genders.setdefault(second.source.split(" ", 1)[1].split()[-3], set()).add(second.target.split()[-2])
    assert all(pronouns == {"ihn", "sie", "es"} for pronouns in genders.values())


def test_the_dictionary_knows_the_words_of_training():
    words = grammar.dictionary()
    assert all(word in words or word == "." for pair in PARTS.train for word in pair.source.split())
    assert not set(held_out_names()) & set(words)


def test_recall_by_hand():
    reference = ["der große Hund sieht die Katze ."]
    assert content_recall(reference, reference) == 1
    assert content_recall(["der große Hund mag das Auto ."], reference) == 0.5
    assert content_recall(["der kleine hund sieht das Auto ."], reference, nouns_only=True) == 0.5
    assert content_recall([""], reference) == 0


def test_more_than_there_is_is_refused():
    with pytest.raises(InputError, match="not 80 more different sentences"):
        grammar._different(lambda: sentence(random.Random(0)), 80, set())
