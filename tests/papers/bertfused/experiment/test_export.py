"""A trained arm as a file: what is read back translates the same, and what does not fit is refused by name."""

from dataclasses import replace

import pytest
import torch

from labkit import tensor_files
from labkit.errors import InputError
from labkit.papers.bertfused import PAPER, Architecture, Bpe, Fusion, Transformer, Translator, load, save
from labkit.papers.bertfused.experiment import export
from labkit.papers.bertfused.experiment.config import CONFIGS
from labkit.papers.bertfused.experiment.export import FILE, Header, arms
from labkit.papers.bertfused.method.bert import random_bert
from labkit.tensor_files import TensorFileError
from labkit.workbench.runs import Run

TEXT = ["two dogs run .", "zwei hunde laufen .", "the old man sees the house ."]
BPE = Bpe.train(TEXT, 280, lowercase=True)
SIZES = Architecture(BPE.size, 16, 32, 2, 1, 1, 0.1, longest=24)


def translator(mode="both", document=False, **options):
    bert = random_bert(TEXT, width=16, **options).eval()
    return Translator(Transformer(SIZES, Fusion(mode, 16), seed=3).eval(), BPE, bert, document)


@pytest.mark.shapes_unchecked
@pytest.mark.parametrize(
    ("mode", "document", "options"),
    [
        ("both", False, {}),
        ("off", False, {}),
        ("stacked", True, {"layer": 1}),
        ("encoder", False, {"mask_cls_sep": True}),
    ],
)
def test_a_file_translates_as_what_was_kept(tmp_path, mode, document, options):
    one = translator(mode, document, **options)
    save(one.model, BPE, one.bert, tmp_path / "a.safetensors", document=document)
    again = load(tmp_path / "a.safetensors")
    sentences = ["Two dogs   run .", "", "the man", "unseen ñ"]
    assert again.translate(sentences, beam=2) == one.translate(sentences, beam=2)
    assert again.document == document
    for name, value in one.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)


def test_a_folder_of_hugging_face_is_named_not_copied(tmp_path):
    bert = random_bert(TEXT, width=16).eval()
    for part in (bert.model, bert.tokenizer):
        part.save_pretrained(tmp_path / "bert")
    from labkit.papers.bertfused import Bert

    own = Bert.from_folder(tmp_path / "bert").eval()
    one = Translator(Transformer(SIZES, Fusion("both", 16), seed=3).eval(), BPE, own)
    path = tmp_path / "a.safetensors"
    save(one.model, BPE, own, path, bert_name=str(tmp_path / "bert"))
    assert not [name for name in tensor_files.read(path, Header)[0] if name.startswith("bert.")]
    wanted = one.translate(TEXT, beam=1)
    assert load(path).translate(TEXT, beam=1) == wanted
    (tmp_path / "bert").rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"which is not here\. Give its folder"):
        load(path)
    assert load(path, bert=tmp_path / "moved").translate(TEXT, beam=1) == wanted
    with pytest.raises(InputError, match="was trained with another BERT"):
        load(path, bert=random_bert(TEXT, width=16, seed=1))


def test_headers_that_lie_are_refused(tmp_path):
    one = translator()
    save(one.model, BPE, one.bert, tmp_path / FILE)
    tensors, header = tensor_files.read(tmp_path / FILE, Header)
    lies = {
        "vocabulary": {"sizes": replace(SIZES, vocabulary=BPE.size + 1)},
        "layers": {"sizes": replace(SIZES, decoder_layers=2)},
        "longest": {"sizes": replace(SIZES, longest=2**20)},
        "mode": {"fusion": Fusion("encoder", 16)},
        "width": {"fusion": Fusion("both", 17)},
    }
    for name, change in lies.items():
        path = tmp_path / f"{name}.safetensors"
        tensor_files.write(path, tensors, header.model_copy(update=change))
        with pytest.raises(TensorFileError, match="does not hold the model that its header describes"):
            load(path)
    for name, message in {"tokenizer": "holds no 'tokenizer'", "bert_tokenizer": "holds no 'bert_tokenizer'"}.items():
        path = tmp_path / f"{name}.safetensors"
        tensor_files.write(path, {key: value for key, value in tensors.items() if key != name}, header)
        with pytest.raises(InputError, match=message):
            load(path)
    kept = {key: value for key, value in tensors.items() if not key.startswith("bert.encoder")}
    tensor_files.write(tmp_path / "bert.safetensors", kept, header)
    with pytest.raises(TensorFileError, match="does not hold the BERT"):
        load(tmp_path / "bert.safetensors")
    with pytest.raises(TensorFileError, match="there is no file"):
        load(tmp_path / "none")


def test_the_fused_arm_comes_first_and_controls_do_not(tmp_path):
    config = CONFIGS["lesson"].override(arms=("random", "bert-input", "stacked", "plain", "fused"))
    run = Run.open(tmp_path, config)
    assert arms(config, run) == ("fused", "plain", "stacked")
    assert arms(CONFIGS["smoke"], run) == ("fused", "plain", "document")
    with pytest.raises(InputError, match=r"there is no arm 'random' to export; there are fused, plain"):
        export.export(config, run, "random", tmp_path)


@pytest.mark.slow
@pytest.mark.shapes_unchecked
def test_a_run_is_exported_as_it_translated(tmp_path):
    """The file's greedy outputs are those that the run has scored; here each side has its own vocabulary.

    BERT's own dropout is on in training, frozen or not, and off in both translations.
    """
    config = CONFIGS["smoke"].override(
        experiments=("sentences", "documents"), arms=("plain", "fused", "fine-tuned"), beam=1, vocabulary=(600, 500),
        tests=2, steps=2, fused_steps=4, warmup=1, bert_dropout=True,
    )  # fmt: skip
    run = Run.open(tmp_path / "run", config)
    PAPER.run(config, run)
    from labkit.papers.bertfused.experiment import data

    for arm in arms(config, run):
        export.export(config, run, arm, tmp_path / arm)
        one = load(tmp_path / arm)
        part = run.part("documents" if arm == "document" else "sentences")
        text = (data.documents if arm == "document" else data.sentences)(config).tests["seen"]
        wanted = part.part(arm).read_json("translations.json")["seen"]
        if arm != "document":
            assert one.translate(list(text.sources), beam=1) == wanted
        else:  # talks are divided by empty lines
            lines = [line for i in range(0, len(text), 2) for line in (*text.sources[i : i + 2], "")]
            assert [line for line in one.translate(lines, beam=1) if line] == [line for line in wanted if line]
