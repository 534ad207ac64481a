"""The two views of a sentence, kept and live, and what a config can ask for."""

import pytest
import torch

from labkit.data.translation import ParallelText
from labkit.errors import ConfigError, InputError
from labkit.papers.bertfused import PAPER
from labkit.papers.bertfused.experiment import data
from labkit.papers.bertfused.experiment.config import CONFIGS, Config
from labkit.papers.bertfused.experiment.train import RUN
from labkit.papers.bertfused.method.bert import random_bert, random_control
from labkit.papers.bertfused.method.decoding import translate_ids
from labkit.papers.bertfused.method.transformer import Architecture, Fusion, Transformer
from labkit.text.feature_cache import FeatureCache
from labkit.workbench.runs import Run

SMALL = CONFIGS["smoke"]
TEXT = ["two dogs run .", "a", "the old man sees the house beside the river .", "dogs ."]


@pytest.fixture(scope="module")
def bert():
    return random_bert(TEXT).eval()


def test_kept_states_are_those_of_a_batch_of_one(bert):
    """Half precision and batches of like lengths: below 2e-3 of states of size 1."""
    words = bert.tokenize(TEXT)
    view = data.stored(bert, words)([2, 0])
    alone = [bert.view([words[i]]).states[0] for i in (2, 0)]
    for row, states in enumerate(alone):
        assert (view.states[row, : len(states)] - states).abs().max() < 2e-3 * max(1, float(states.abs().max()))
    assert view.real.sum(1).tolist() == [len(words[2].ids), len(words[0].ids)]


def test_kept_states_translate_as_live_ones(bert):
    """Logits differ by less than 1e-2, and greedy search writes the same."""
    words, draw = bert.tokenize(TEXT), torch.Generator().manual_seed(0)
    model = Transformer(Architecture(40, 32, 64, 2, 1, 1, 0.0), Fusion(bert_width=bert.width), seed=1).eval()
    model.embed_tokens.weight.data.mul_(3)  # outputs depend on what is read
    source, target = torch.randint(4, 40, (2, 4, 6), generator=draw)
    views = [make(bert, words)(range(4)) for make in (data.stored, data.live)]
    kept, live = (model(source, target, view) for view in views)
    assert 0 < (kept - live).abs().max() < 1e-2
    first, second = (translate_ids(model, source, view, beam=1, longest=(0, 6)) for view in views)
    assert [found[0].tokens for found in first] == [found[0].tokens for found in second]


def test_states_are_computed_once(bert, monkeypatch):
    words = bert.tokenize(TEXT)
    first = data.stored(bert, words)([0]).states
    monkeypatch.setattr(type(bert), "view", lambda *_: pytest.fail("computed again"))
    assert torch.equal(data.stored(bert, words)([0]).states, first)


def test_another_text_or_layer_is_another_cache(bert, monkeypatch):
    opened = []
    real = FeatureCache.open.__func__
    monkeypatch.setattr(
        FeatureCache, "open", classmethod(lambda cls, folder, key: opened.append(key) or real(cls, folder, key))
    )
    for other in (bert, random_bert(TEXT, layer=1).eval(), random_bert(TEXT, seed=1).eval()):
        data.stored(other, other.tokenize(TEXT[:2]))
    data.stored(bert, bert.tokenize(TEXT[:1]))
    assert len(set(opened)) == 4


def test_cls_and_sep_are_masked_in_kept_states_too():
    masked = random_bert(TEXT, mask_cls_sep=True).eval()
    words = masked.tokenize(TEXT)
    live, kept = data.live(masked, words)([2, 1]), data.stored(masked, words)([2, 1])
    assert torch.equal(live.real, kept.real)
    assert not live.real[:, 0].any()


def test_what_changes_is_not_kept(bert):
    """A trained BERT, one that drops out, the official padding: views that must be computed anew."""
    for option in ({"trainable": True}, {"dropout": True}, {"official_left_pad": True}):
        other = random_bert(TEXT, **option)
        data.views_of(other, other.tokenize(TEXT), SMALL)([0])
    data.views_of(random_control(bert), bert.tokenize(TEXT), SMALL)([0])
    from labkit import paths

    assert not (paths.runs_dir() / "cache").exists()


def test_lengths_are_counted_three_ways(bert):
    examples = data.Examples([[4, 2]], [[4, 5, 2]])
    assert examples.lengths().tolist() == [[2, 3]]
    assert examples.lengths(bert.tokenize(TEXT[:1])).tolist() == [[2, 3, 6]]


def test_a_vocabulary_for_each_side(tmp_path):
    """The target's is of all text in its language, the source's of the source alone; a resumed run reads both again."""
    config = SMALL.override_text({"vocabulary": "300,280"} | {"experiments": "sentences"})
    text = ParallelText(("a dog", "a dog runs"), ("ein Hund", "ein Hund läuft"))
    run = Run.open(tmp_path, config)
    bpe = data.learn_bpe(config, text, run, ["katze katze"] * 9)
    assert "▁katze" in bpe.reversed().pieces("katze")
    assert "▁katze" not in bpe.pieces("katze")
    examples = data.encode(text, bpe)
    assert examples.source[0] == [*bpe.encode("a dog"), 2]
    assert bpe.decode(examples.target[1]) == "ein hund läuft"
    sizes = data.architecture(config, bpe)
    assert (sizes.vocabulary, sizes.target_vocabulary) == (bpe.size, bpe.target.size)
    assert data.learn_bpe(config, text, run).to_json() == bpe.to_json()


def test_context_views_hold_token_ids():
    views = data.context_views([[5, 2], [7, 8, 2]], torch.device("cpu"))
    view = views([1, 0])
    assert view.states[..., 0].tolist() == [[7, 8, 2], [5, 2, 0]]
    assert view.real.tolist() == [[True, True, True], [True, True, False]]


def test_the_readers_own_files(tmp_path):
    lines = "".join(f"sentence {i}\tSatz {i}\n" for i in range(40))
    (tmp_path / "a.tsv").write_text(lines)
    corpus = data.sentences(Config(data=f"parallel:{tmp_path / 'a.tsv'}", pairs=0, tests=0))
    assert corpus.name == "the reader's own text"
    assert [len(part) for part in (corpus.train, corpus.valid, corpus.tests["test"])] == [36, 2, 2]
    with pytest.raises(InputError, match="there is no file"):
        data.sentences(Config(data="parallel:nowhere.tsv"))
    with pytest.raises(InputError, match="bitext = 100 takes all of the 36"):
        data.halves(Config(data=f"parallel:{tmp_path / 'a.tsv'}", bitext=100))


def test_a_whole_bitext_and_text_of_ones_own_to_translate_back(tmp_path):
    (tmp_path / "news.de").write_text("ein Hund\n\nzwei Hunde \n")
    corpus, monolingual = data.halves(SMALL.override(bitext=0, monolingual=str(tmp_path / "news.de")))
    assert len(corpus.train) == SMALL.pairs
    assert monolingual == ("ein Hund", "zwei Hunde")
    (tmp_path / "empty.de").write_text("\n")
    with pytest.raises(InputError, match="holds no sentence"):
        data.halves(SMALL.override(bitext=0, monolingual=str(tmp_path / "empty.de")))


def test_an_xlm_has_no_need_of_a_dictionary(xlm_folder):
    assert data.monolingual(SMALL)[-1]["dog"] == "Hund"
    assert data.monolingual(SMALL.override(xlm=str(xlm_folder)))[-1] == {}


def test_halves_of_text_without_translations_do_not_meet():
    corpus, source, target, _ = data.monolingual(SMALL)
    assert not set(source) & set(corpus.train.reversed().targets[len(source) :])
    assert set(target) == set(corpus.train.targets[len(source) :])


def test_documents_of_the_grammar():
    corpus = data.documents(SMALL)
    contexts = corpus.train.contexts()
    assert set(contexts[::2]) == {""}
    assert all(source.endswith(" it .") for source in corpus.train.sources[1::2])
    assert isinstance(corpus.tests["unseen"], ParallelText)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ("fuse",)}, "there is no arm 'fuse'; there are plain, fused"),
        ({"arms": ("plain", "plain")}, "a name stands there twice"),
        ({"data": "wmt99"}, "there is no corpus 'wmt99'; there are grammar"),
        ({"experiments": ("paragraphs",)}, "experiments"),
        ({"pairs": 0}, "the grammar has no end"),
        ({"width": 30, "heads": 4}, "must be even and a multiple of heads"),
        ({"target": "en"}, "source and target are both 'en'"),
        ({"vocabulary": 100}, "a whole number of at least 260"),
        ({"vocabulary": (300, 100)}, "or two: A,B"),
        ({"vocabulary": (300, 300), "experiments": ("unsupervised",)}, "give one joint vocabulary"),
        ({"data": "multi30k", "experiments": ("unsupervised",)}, "give a `dictionary`"),
        ({"arms": ("plain", "xlm-both")}, "the arm 'xlm-both' begins with an XLM: give its folder, `xlm`"),
        ({"data": "multi30k", "experiments": ("documents",)}, "'multi30k' does not say where a document begins"),
        ({"experiments": ("unsupervised",), "devices": 2}, "runs in one process: devices must be 1"),
        ({"experiments": ("semi-supervised",), "bitext": 4000}, "bitext 4000 leaves nothing of 3000 pairs"),
        ({"experiments": ("semi-supervised",), "bitext": 7}, "bitext 7 is too little"),
        ({"experiments": ("semi-supervised",), "bitext": 0}, "give text to translate back, `monolingual`"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"source": "EN"}, "source"),
    ],
)
def test_what_a_config_refuses(changes, message):
    with pytest.raises(ConfigError, match=message):
        PAPER.config("lesson", **changes)


def test_what_is_not_there_is_said_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setitem(RUN, "sentences", lambda *_: pytest.fail("trained first"))
    run = Run.open(tmp_path, SMALL)
    nowhere = [{name: "nowhere"} for name in ("bert", "xlm", "dictionary", "monolingual")]
    for changes in (*nowhere, {"bert_layer": 7}):
        with pytest.raises(InputError, match=r"nowhere|has 2 layers"):
            PAPER.train(SMALL.override(**changes), run)


def test_no_such_bert():
    with pytest.raises(InputError, match=r"no folder with an encoder in Hugging Face's layout"):
        data.load_bert(SMALL.override(bert="nowhere"), TEXT)
    with pytest.raises(InputError, match="has 2 layers"):
        data.load_bert(SMALL.override(bert_layer=7), TEXT)
