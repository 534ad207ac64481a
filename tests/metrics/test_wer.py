"""Word error rate: known counts, torchmetrics, the clean-up, and the authors' own predictions."""

import random
import re

import pytest

from labkit import paths
from labkit.errors import InputError
from labkit.metrics.wer import rwth_clean, word_errors

SIGN = paths.data_dir() / "sign"


def test_one_substitution_and_one_insertion():
    errors = word_errors(["A B C D"], ["A X C D E"])
    assert (errors.substitutions, errors.insertions, errors.deletions, errors.words) == (1, 1, 0, 4)
    assert errors.rate == 0.5
    assert [(e.kind, e.reference, e.hypothesis) for e in errors.sentences[0] if e.kind != "equal"] == [
        ("substitute", "B", "X"),
        ("insert", "", "E"),
    ]


def test_an_empty_hypothesis_deletes_everything_and_a_long_one_exceeds_one():
    assert word_errors([("A", "B")], [()]).rate == 1.0
    assert word_errors(["A"], ["B C D"]).rate == 3.0
    assert word_errors(["A", ""], ["A", "B"]).rate == 1.0  # a word where there is none counts, too


def test_the_corpus_is_summed_before_dividing():
    """Catches: the mean of the sentences' rates, .5 here."""
    assert word_errors(["A", "B C D E F G H I J"], ["X", "B C D E F G H I J"]).rate == pytest.approx(0.1)


def test_the_two_sides_mirror_each_other():
    random.seed(3)
    for _ in range(20):
        left, right = (" ".join(random.choices("ABC", k=random.randint(1, 8))) for _ in range(2))
        one, other = word_errors([left], [right]), word_errors([right], [left])
        total = [w.substitutions + w.deletions + w.insertions for w in (one, other)]
        assert total[0] == total[1]
        assert one.deletions - one.insertions == other.insertions - other.deletions


@pytest.mark.slow  # its import
def test_torchmetrics_agrees():
    text = pytest.importorskip("torchmetrics.text", reason="needs the extra 'peers'")
    random.seed(5)
    left = [" ".join(random.choices("ABCDE", k=random.randint(1, 9))) for _ in range(30)]
    right = [" ".join(random.choices("ABCDE", k=random.randint(0, 9))) for _ in range(30)]
    assert word_errors(left, right).rate == pytest.approx(float(text.WordErrorRate()(right, left)), abs=1e-6)


@pytest.mark.parametrize(
    ("references", "hypotheses", "words"),
    [
        (["A"], [], "1 references and 0 hypotheses"),
        ([""], ["A"], "hold no word"),
        ([], [], "hold no word"),
        ([["A B"]], ["A"], "holds no space"),
        (["A"], [[""]], "not empty"),
    ],
)
def test_bad_input_is_refused(references, hypotheses, words):
    with pytest.raises(InputError, match=words):
        word_errors(references, hypotheses)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("loc-WEST cl-KOMMEN qu-WAS poss-MEIN lh-REGEN", "WEST KOMMEN WAS MEIN REGEN"),
        ("S0NNE HABEN2", "SONNE HABEN"),
        ("__EMOTION__ A-B __PU__ __LEFTHAND__ __EPENTHESIS__", "A-B"),
        ("WIE AUSSEHEN MORGEN", "WIE-AUSSEHEN MORGEN"),
        ("ZEIGEN ZEIGEN-BILDSCHIRM REGEN", "ZEIGEN-BILDSCHIRM REGEN"),
        ("S P D REGEN", "S+P+D REGEN"),
        ("S+P D", "S+P+D"),
        ("BERGRAUM WOLKE-PLUSPLUS", "BERG WOLKE"),
        ("KUEHL KUEHL REGEN KUEHL", "KUEHL REGEN KUEHL"),
        ("__ON__ TAG", "__ON__ TAG"),
        ("", ""),
    ],
)
def test_the_clean_up_of_phoenix(raw, clean):
    assert " ".join(rwth_clean(raw)) == clean


def lines(name: str) -> list[str]:
    path = SIGN / name
    if not path.is_file():
        pytest.skip(f"needs LABKIT_DATA/sign/{name}, which is not ours to pass on")
    return path.read_text(encoding="utf-8").splitlines()


def test_the_authors_own_predictions_have_their_published_error_rate():
    """dev of PHOENIX-2014-T: 19.6 in the paper; plain corpus WER, no clean-up."""
    errors = word_errors(lines("phoenix2014T.dev.gloss"), lines("stmc.dev.gloss"))
    assert errors.words == 3748
    assert round(100 * errors.rate, 2) == 19.56
    parts = (errors.substitutions, errors.deletions, errors.insertions)
    assert [round(100 * part / errors.words, 2) for part in parts] == [9.74, 6.86, 2.96]


@pytest.mark.slow
def test_the_clean_up_turns_raw_annotations_into_the_references_that_are_passed_on():
    """Annotations of the signer-independent split against the cleaned references of the same sentences."""
    cleaned = {line.split()[0]: tuple(line.split()[5:]) for line in lines("phoenix2014-groundtruth-train.stm")}
    same = total = 0
    for line in lines("phoenix2014-train.SI5.corpus.csv"):
        name, _, _, text = line.split("|")
        if name in cleaned:
            total += 1
            same += rwth_clean(text) == cleaned[name]
            assert not re.search(r"\b(loc|cl|qu|poss|lh)-|PLUSPLUS", " ".join(rwth_clean(text)))
    assert total > 4000
    assert same / total > 0.97
