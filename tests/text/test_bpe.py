"""BPE: text comes back, equal text gives equal merges, users' text is never a special token."""

import subprocess
import sys

import pytest

from labkit.errors import InputError
from labkit.text.bpe import BLANK, BOS, EOS, PAD, SMALLEST, SPECIAL, Bpe, SeparateBpe

TEXT = ["the big dog sees the house .", "der große Hund sieht das Haus .", "the dogs", "Größe 12 € 狗 🐕"]


@pytest.fixture(scope="module")
def bpe():
    return Bpe.train(TEXT, 300)


@pytest.mark.parametrize("text", [*TEXT, "", "unseen ñ words\u2028 and signs <eos>", "<pad><bos>", "a"])
def test_text_comes_back(bpe, text):
    ids = bpe.encode(text)
    assert bpe.decode(ids) == " ".join(text.split())
    assert not {PAD, BOS, EOS, BLANK} & set(ids)
    assert bpe.encode_all([text, "x"]) == [ids, bpe.encode("x")]


def test_spaces_between_words_are_one_and_case_goes_where_asked():
    lower = Bpe.train(TEXT, 300, lowercase=True)
    assert lower.decode(lower.encode("  Der   GROSSE Hund ")) == "der grosse hund"


def test_separate_ones_read_the_source_and_write_the_target():
    """Both ways round, and as they come back from a file; each side knows its own words alone."""
    both = SeparateBpe(Bpe.train(TEXT[::2], 270, lowercase=True), Bpe.train(TEXT[1::2], 275, lowercase=True))
    again = Bpe.from_json(both.to_json(), True)
    for one in (both, again, again.reversed().reversed()):
        assert (one.size, one.target.size, one.target.target) == (270, 275, one.target)
        assert one.decode(one.target.encode("der Hund")) == "der hund"
        assert one.encode("the dog") == both.encode("the dog") != one.target.encode("the dog")
        assert "".join(one.pieces("the dog")) == "▁the▁dog"
        assert one.reversed().encode("das Haus") == one.target.encode("das Haus")
        assert one.reversed().decode(one.encode("the dog")) == "the dog"
    joint = Bpe.train(TEXT, 300)
    assert joint.target is joint.reversed() is joint
    for text in ('{"source": "a", "target": 1}', '{"source": "{}", "target": "{}"}'):
        with pytest.raises(InputError, match="no tokenizer"):
            Bpe.from_json(text, True)


def test_special_tokens_are_left_out_of_text(bpe):
    ids = bpe.encode("the dog")
    assert bpe.decode([BOS, *ids, EOS, PAD, PAD]) == "the dog"
    assert [bpe._tokenizer.id_to_token(i) for i in range(4)] == list(SPECIAL)


def test_frequent_words_become_one_piece(bpe):
    assert "▁the" in bpe.pieces("the dog")
    assert "".join(bpe.pieces("the dog")) == "▁the▁dog"


@pytest.mark.slow
def test_equal_text_gives_equal_merges_in_every_process(bpe):
    """Catches: ties of the trainer broken by a hash that changes from process to process."""
    code = f"from labkit.text.bpe import Bpe; print(Bpe.train({TEXT!r}, 300).to_json())"
    for seed in ("1", "2"):
        process = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**_environment(), "PYTHONHASHSEED": seed},
        )
        assert process.stdout.strip() == bpe.to_json()


def _environment():
    import os

    return dict(os.environ)


def test_a_file_gives_the_same_tokenizer(bpe):
    again = Bpe.from_json(bpe.to_json(), lowercase=False)
    assert again.size == bpe.size
    assert again.encode("the new dog <eos>") == bpe.encode("the new dog <eos>")


def test_what_cannot_be_used_is_named(bpe):
    with pytest.raises(InputError, match=r"the size of a vocabulary .* 260 .*got 100"):
        Bpe.train(TEXT, 100)
    with pytest.raises(InputError, match="this is no tokenizer"):
        Bpe.from_json("{}", lowercase=False)
    other = bpe.to_json().replace("<bos>", "<s>")
    with pytest.raises(InputError, match="another program wrote it"):
        Bpe.from_json(other, lowercase=False)
    assert Bpe.train(["a"], SMALLEST).size == SMALLEST
