"""Somebody else's merges: the order of merging, unknown letters, and the way back."""

import pytest

from labkit.errors import InputError
from labkit.text.merges import MergesBpe, read_merges

TOKENS = [
    "<s>",
    "</s>",
    "<pad>",
    "<unk>",
    "<special1>",
    "a",
    "b",
    "c",
    "c</w>",
    "b</w>",
    "ab",
    "bc</w>",
    "abc</w>",
    ".",
]
VOCABULARY = {token: i for i, token in enumerate([*TOKENS, ".</w>", "e</w>"])}


def bpe(merges, **options):
    return MergesBpe(VOCABULARY, merges, **options)


def test_the_merge_that_stands_first_wins():
    assert bpe([("a", "b"), ("b", "c</w>")]).pieces("abc") == ["▁ab", "c"]
    assert bpe([("b", "c</w>"), ("a", "b")]).pieces("abc") == ["▁a", "bc"]
    assert bpe([("a", "b"), ("ab", "c</w>")]).pieces("abc") == ["▁abc"]
    assert bpe([("a", "b")]).pieces("abab") == ["▁ab", "a", "b"]  # a last b is another letter


def test_special_tokens_come_first_and_the_vocabulary_follows():
    one = bpe([("a", "b")])
    assert one.rows[:4] == [2, 1, 1, 4]
    assert one.rows[4:] == list(range(16))
    assert one.size == 20
    assert [one.rows[number] for number in one.encode("abc")] == [VOCABULARY["ab"], VOCABULARY["c</w>"]]


def test_there_and_back():
    one = bpe([("a", "b")])
    assert one.decode([1, *one.encode("abc b."), 2, 0]) == "abc b ."
    assert one.encode_all(["abc", ""]) == [one.encode("abc"), []]


def test_what_the_vocabulary_lacks_is_unknown_and_never_written():
    one = bpe([])
    assert [one.rows[number] for number in one.encode("axb <pad>")].count(3) == 5  # x, then < p d >: a is a letter
    assert "<" not in one.decode(range(one.size))


def test_case_and_accents_go_where_asked():
    assert bpe([]).encode("É") == bpe([]).encode("x")
    assert bpe([], plain_letters=True).encode("É") == bpe([]).encode("e")
    assert bpe([], lowercase=True).encode("ABC") == bpe([]).encode("abc")


def test_merges_are_read_and_named_where_they_are_none():
    assert read_merges("#version: 0.2\na b 7\n\nab c</w> 3\n") == [("a", "b"), ("ab", "c</w>")]
    with pytest.raises(InputError, match="line 2 of the merges, 'alone'"):
        read_merges("a b\nalone\n")


def test_bad_vocabularies_are_refused():
    with pytest.raises(InputError, match="each once"):
        MergesBpe(VOCABULARY | {"a": 7}, [])
    with pytest.raises(InputError, match="no token '<pad>'"):
        MergesBpe({"<s>": 0}, [])
    with pytest.raises(InputError, match="stays in its folder"):
        bpe([]).to_json()
