"""Parallel text from hand-made files: a reader's own, and the layouts of Multi30k, IWSLT and WMT."""

import gzip

import pytest

from labkit import paths
from labkit.data import registry, translation
from labkit.data.translation import ParallelText, clean, every, join, parallel, split
from labkit.errors import DataError, InputError


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


# -- a reader's own files ---------------------------------------------------------------------------------------------


def test_two_columns(tmp_path):
    write(tmp_path / "a.tsv", "a dog\tein Hund\tmore", "", "a\u2028cat\teine Katze", "empty\t ")
    assert parallel(str(tmp_path / "a.tsv")) == ParallelText(("a dog", "a\u2028cat"), ("ein Hund", "eine Katze"))


def test_two_files_one_of_them_packed(tmp_path):
    write(tmp_path / "a.en", "a dog", "", "a cat")
    (tmp_path / "a.de.gz").write_bytes(gzip.compress(b"ein Hund\r\nnichts\r\neine Katze\r\n"))
    text = parallel(f"{tmp_path}/a.en,{tmp_path}/a.de.gz")
    assert text == ParallelText(("a dog", "a cat"), ("ein Hund", "eine Katze"))


def test_what_is_not_parallel_is_named(tmp_path):
    write(tmp_path / "a.en", "a", "b")
    write(tmp_path / "a.de", "a")
    (tmp_path / "latin").write_bytes("Größe\tsize".encode("latin-1"))
    (tmp_path / "broken.gz").write_bytes(b"no gzip")
    write(tmp_path / "empty.tsv")
    for given, message in {
        f"{tmp_path}/a.en,{tmp_path}/a.de": "has 2 lines and .* 1: line i of one must be",
        f"{tmp_path}/a.en": "line 1: a sentence, a tab and its translation are needed; got 'a'",
        f"{tmp_path}/none.tsv": "there is no file",
        f"{tmp_path}/a.en,{tmp_path}/none": "there is no file",
        f"{tmp_path}/latin": "it is not text in UTF-8",
        f"{tmp_path}/broken.gz": "cannot be read",
        f"{tmp_path}/empty.tsv": "holds no pair of sentences",
    }.items():
        with pytest.raises(InputError, match=message):
            parallel(given)


def test_split_keeps_every_pair_once():
    text = ParallelText(tuple(f"s{i}" for i in range(100)), tuple(f"t{i}" for i in range(100)))
    parts = split(text)
    assert [len(part) for part in parts] == [90, 5, 5]
    assert sorted(source for part in parts for source in part.sources) == sorted(text.sources)
    assert all(
        source[1:] == target[1:] for part in parts for source, target in zip(part.sources, part.targets, strict=True)
    )
    with pytest.raises(InputError, match="20 pairs of sentences or more are needed; got 19"):
        split(text.select(range(19)))


# -- text -------------------------------------------------------------------------------------------------------------


def test_contexts_do_not_cross_documents():
    text = ParallelText(("a", "b", "c", "d"), ("1", "2", "3", "4"), (0, 0, 1, 1))
    assert text.contexts() == ("", "a", "", "c")
    both = join([text, text])
    assert both.documents == (0, 0, 1, 1, 2, 2, 3, 3)
    assert both.contexts() == ("", "a", "", "c") * 2
    assert text.reversed() == ParallelText(text.targets, text.sources, text.documents)
    with pytest.raises(InputError, match="no sentence before"):
        ParallelText(("a",), ("b",)).contexts()
    with pytest.raises(InputError, match="not parallel"):
        ParallelText(("a",), ())


def test_cleaning_by_hand():
    """moses: 1 to 175 words, no side longer than 1.5 times the other."""
    pairs = [("a b", "a b c"), ("a b", "a b c d"), ("", "a"), ("a " * 176, "a " * 176), ("a " * 175, "a " * 175)]
    text = ParallelText(*(tuple(pair[side] for pair in pairs) for side in (0, 1)), documents=(0, 1, 2, 3, 4))
    assert clean(text).documents == (0, 4)


def test_every_23rd_pair_validates():
    text = ParallelText(tuple(map(str, range(50))), tuple(map(str, range(50))))
    valid, train = every(text)
    assert valid.sources == ("0", "23", "46")
    assert len(train) == 47


# -- the benchmarks' layouts ------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    return tmp_path


def talks(folder, pair, prefix, tests):
    """Two talks of IWSLT's layout, with the test sets that are named."""
    first, second = pair.split("-")
    for language in (first, second):
        lines = []
        for talk in range(2):
            lines += ["<url>x</url>", f"<talkid>{talk}</talkid>", f"<title> Talk {talk}</title>"]
            lines += [f" {language} sentence {talk} {i} & more " for i in range(24)]
        write(folder / pair / f"train.tags.{pair}.{language}", *lines)
        for name in tests:
            write(
                folder / pair / f"{prefix}.{name}.{pair}.{language}.xml",
                '<?xml version="1.0"?><refset>',
                *(
                    f'<doc docid="{k}"><seg id="1"> {language} {name} {k} &amp; co </seg>\n'
                    '<seg id="2">two\nlines</seg></doc>'
                    for k in range(2)
                ),
            )


def test_iwslt14(folder):
    names = ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2013")
    talks(folder / "iwslt14", "de-en", "IWSLT14", names)
    parts = translation.iwslt14("en", "de")
    assert [len(part) for part in parts] == [45, 3, 12]  # 48 sentences, every 23rd; three tests of two times two
    assert parts.train.sources[0] == "en sentence 0 1 & more"
    assert parts.train.targets[0] == "de sentence 0 1 & more"
    assert parts.train.documents[0] != parts.train.documents[-1]
    assert parts.test.sources[:2] == ("en TED.dev2010 0 & co", "two lines")
    assert "tst2013" not in " ".join(parts.test.sources)
    assert parts.test.contexts()[:3] == ("", "en TED.dev2010 0 & co", "")
    assert translation.iwslt14("de", "en").train == parts.train.reversed()


def test_iwslt17(folder):
    talks(folder / "iwslt17", "en-fr", "IWSLT17", [f"TED.tst{year}" for year in (2012, 2013, 2015, 2017)])
    parts = translation.iwslt17("en", "fr")
    assert [len(part) for part in parts] == [48, 8, 4]
    with pytest.raises(DataError, match=r"no folder en-zh or zh-en; it has en-fr"):
        translation.iwslt17("en", "zh")


def test_wmt14(folder):
    root = folder / "wmt14" / "de-en"
    for language in ("de", "en"):
        write(root / f"europarl-v7.de-en.{language}", f"{language} one", f"{language} two", "")
        write(root / f"commoncrawl.de-en.{language}", f"{language} three")
        write(root / f"newstest2012.{language}", f"{language} valid")
        write(root / f"newstest2013.{language}", f"{language} more", f"{language} most")
    write(root / "newstest2014-deen-src.en.sgm", '<srcset><doc><seg id="1">en test</seg></doc></srcset>')
    write(root / "newstest2014-deen-ref.de.sgm", '<refset><DOC><seg id="1">de test</seg></DOC></refset>')
    parts = translation.wmt14("en", "de")
    assert parts.train == ParallelText(("en three", "en one", "en two"), ("de three", "de one", "de two"))
    assert parts.valid.sources == ("en valid", "en more", "en most")
    assert parts.test == ParallelText(("en test",), ("de test",), (0,))


def test_wmt16(folder):
    root = folder / "wmt16" / "ro-en"
    for language, kind in (("ro", "src"), ("en", "ref")):
        write(root / f"back-translated.ro-en.{language}", f"{language} one")
        for name in ("newsdev2016", "newstest2016"):
            write(root / f"{name}-roen-{kind}.{language}.sgm", f"<doc><seg>{language} {name}</seg></doc>")
    parts = translation.wmt16("ro", "en")
    assert [part.sources for part in parts] == [("ro one",), ("ro newsdev2016",), ("ro newstest2016",)]


def test_broken_layouts_are_named(folder):
    talks(folder / "iwslt14", "de-en", "IWSLT14", ("TED.tst2010",))
    root = folder / "iwslt14" / "de-en"
    write(root / "IWSLT14.TED.tst2010.de-en.de.xml", "<doc><seg>only one</seg></doc>")
    with pytest.raises(DataError, match="have documents of different lengths"):
        translation.iwslt14("en", "de")
    write(root / "IWSLT14.TED.tst2010.de-en.de.xml", "nothing")
    with pytest.raises(DataError, match="holds no <doc> with <seg>"):
        translation.iwslt14("en", "de")
    write(root / "train.tags.de-en.de", "<talkid>1</talkid>", "one")
    with pytest.raises(DataError, match="the talks of both languages differ"):
        translation.iwslt14("en", "de")
    (root / "train.tags.de-en.de").unlink()
    with pytest.raises(DataError, match=r"there is no file .*train\.tags\.de-en\.de"):
        translation.iwslt14("en", "de")
    with pytest.raises(DataError, match="'wmt14' is not in LABKIT_DATA"):
        translation.wmt14("en", "de")
    (folder / "wmt14" / "de-en").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no training text such as europarl-v7\.de-en\.en"):
        translation.wmt14("en", "de")


def test_multi30k_is_read_as_it_is():
    if registry.status("multi30k").state != "present":
        pytest.skip("multi30k is not in LABKIT_DATA")
    parts = translation.multi30k("de", "fr")
    assert [len(part) for part in parts] == [29000, 1014, 1000]
    assert translation.multi30k().train.targets[0] == parts.train.sources[0]
    with pytest.raises(InputError, match="multi30k has en, de and fr; got 'cs'"):
        translation.multi30k("en", "cs")
    assert paths.data_dir().is_dir()
