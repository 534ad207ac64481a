"""XLM's folder and architecture, against XLM in transformers with the same random weights."""

import json
import shutil

import pytest
import torch

from labkit.errors import InputError
from labkit.papers.bertfused.method.decoding import score_ids, translate_ids
from labkit.papers.bertfused.method.transformer import Fusion
from labkit.papers.bertfused.method.warm_start import warm_start
from labkit.papers.bertfused.method.xlm import Xlm

transformers = pytest.importorskip("transformers")
TEXT = ["the dog der dog .", "a dog"]


@pytest.fixture(scope="module")
def xlm(xlm_folder):
    return Xlm.from_folder(xlm_folder)


@pytest.fixture(scope="module")
def theirs(xlm_folder):
    return transformers.XLMWithLMHeadModel.from_pretrained(xlm_folder).eval()


def batch(xlm):
    """Our ids, padded; what transformers' XLM gets for the same sentences: </s> first and last; the real places."""
    rows = [[*xlm.bpe.encode(text), 2] for text in TEXT]
    longest = max(map(len, rows))
    ours = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    table = torch.tensor(xlm.bpe.rows)
    return ours, table[torch.cat([torch.full_like(ours[:, :1], 1), ours], 1)]


def test_the_encoder_is_transformers_xlm(xlm, theirs):
    """Both languages, a padded sentence, and logits by the decoder's matrix and bias."""
    ours, ids = batch(xlm)
    for language, number in (("en", 1), ("de", 0)):
        model = xlm.start("both", language, "de").eval()
        encoded = model.encode(ours)
        real = encoded.mask[:, 0, 0]
        with torch.inference_mode():
            wanted = theirs.transformer(ids, langs=torch.full_like(ids, number)).last_hidden_state
            logits = theirs(ids, langs=torch.full_like(ids, number)).logits[..., xlm.bpe.rows]
        assert real.sum(1).tolist() == [len(xlm.bpe.encode(text)) + 2 for text in TEXT]
        torch.testing.assert_close(encoded.states[real], wanted[real], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model.logits(encoded.states)[real], logits[real], rtol=1e-4, atol=1e-4)


def test_the_decoder_is_transformers_causal_xlm(xlm, theirs):
    """Without what the encoder says, and with LayerNorms that begin as they are built: LN(LN(x)) is LN(x)."""
    ours, _ = batch(xlm)
    causal = transformers.XLMModel(transformers.XLMConfig(**theirs.config.to_dict() | {"causal": True})).eval()
    causal.load_state_dict(theirs.transformer.state_dict())
    model = xlm.start("decoder", "en", "de").eval()
    with torch.no_grad():
        for ln in (*causal.layer_norm1, *(layer.self_attn_layer_norm for layer in model.decoder)):
            ln.weight.fill_(1)
            ln.bias.zero_()
        for layer in model.decoder:
            layer.encoder_attn.out_proj.weight.zero_()
    start = torch.cat([torch.ones_like(ours[:1, :1]), ours[:1, :-1]], 1)
    with torch.inference_mode():
        ids = torch.tensor(xlm.bpe.rows)[start]
        wanted = causal(ids, langs=torch.zeros_like(ids)).last_hidden_state
    torch.testing.assert_close(model.decode(start, model.encode(ours[:1])), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("sides", "loaded"), [("encoder", {"encoder"}), ("decoder", {"decoder"}), ("both", {"encoder", "decoder"})]
)
def test_one_side_begins_with_xlm_and_the_rest_is_random(xlm, sides, loaded):
    model, other = (xlm.start(sides, "en", "de", seed=seed).state_dict() for seed in (0, 1))
    report = xlm.start(sides, "en", "de").report
    layers = {name.split(".")[0] for name in report.loaded if ".layers." in name}
    assert layers == loaded
    assert all(torch.equal(model[name], other[name]) for name in report.loaded)
    assert {name for name in report.new if "encoder_attn" in name} == {name for name in model if "encoder_attn" in name}
    assert ("embed_tokens.weight" in report.loaded) == ("encoder" in loaded)
    assert ("output_bias" in report.loaded) == ("decoder" in loaded)
    drawn = [name for name in report.new if name.endswith("weight") and "norm" not in name]
    assert not any(torch.equal(model[name], other[name]) for name in drawn)


@pytest.mark.parametrize("direction", [(0, 1), (1, 0), (1, 1)])
def test_it_searches_as_it_is_trained(xlm, direction):
    ours, _ = batch(xlm)
    model = xlm.start("both", "en", "de").eval()
    model.direction = direction
    for row, (best,) in enumerate(translate_ids(model, ours, None, beam=1, longest=(0, 4))):
        with torch.inference_mode():
            wanted = score_ids(model, model.encode(ours[row : row + 1]), torch.tensor([[*best.tokens, 2]]))
        assert float(wanted) == pytest.approx(best.log_prob, abs=1e-4)


def test_a_fused_model_begins_with_the_plain_one(xlm):
    plain, fused = xlm.start("both", "en", "de"), xlm.model("en", "de", Fusion(bert_width=12), seed=1)
    report = warm_start(fused, plain.state_dict())
    assert all(".bert_attn" in name for name in report.new)
    assert "target_embedded.languages.weight" in report.loaded


def test_a_model_of_one_language_has_no_embeddings_of_languages(tmp_path, write_xlm):
    one = Xlm.from_folder(write_xlm(tmp_path, n_langs=1))
    assert one.start("both", "en", "de").source_embedded.languages is None


def test_the_tokenizer_is_transformers(xlm_folder, xlm, monkeypatch):
    """Words already told apart; transformers asks for Moses' tokenizer even where it is not used."""
    monkeypatch.setitem(__import__("sys").modules, "sacremoses", object())
    tokenizer = transformers.XLMTokenizer(
        str(xlm_folder / "vocab.json"), str(xlm_folder / "merges.txt"), do_lowercase_and_remove_accent=False
    )
    for text in ("the dog der God a ab abc ?", "caf\u00e9 \u4e16 the ."):
        pieces = tokenizer._tokenize(text, bypass_tokenizer=True)
        wanted = tokenizer.convert_tokens_to_ids(pieces)
        assert [xlm.bpe.rows[number] for number in xlm.bpe.encode(text)] == wanted


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("vocab.json", None, "vocab.json is missing"),
        ("config.json", lambda c: c | {"model_type": "bert"}, "describes a 'bert', and no XLM"),
        ("config.json", lambda c: c | {"lang2id": {"de": 0}}, "must number its 2 languages"),
        ("config.json", lambda c: c | {"asm": True, "asm_cutoffs": [20, 40]}, "adaptive softmax"),
        ("config.json", lambda c: c | {"n_layers": 3}, "its weights lack 16 tensors"),
        ("vocab.json", lambda v: {k: i for k, i in v.items() if k != "a"}, "tokens, and its model"),
        ("vocab.json", lambda v: {k.replace("<special1>", "x1"): i for k, i in v.items()}, "no token '<special1>'"),
        ("vocab.json", lambda v: v | {"a": 3}, "each once"),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_xlm_is_refused(xlm_folder, tmp_path, name, change, message):
    folder = shutil.copytree(xlm_folder, tmp_path / "xlm")
    if change is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(json.dumps(change(json.loads((folder / name).read_text()))))
    with pytest.raises(InputError, match=message):
        Xlm.from_folder(folder)


def test_a_language_that_xlm_does_not_know_is_refused(xlm):
    with pytest.raises(InputError, match="knows de, en, and not 'fr'"):
        xlm.model("fr", "de")
