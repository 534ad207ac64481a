"""A trained arm as a file: the model, its BPE and, unless it is MiniLM or the user's own folder, its BERT."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from labkit import tensor_files
from labkit.errors import InputError
from labkit.papers.bertfused.experiment import documents, sentences
from labkit.papers.bertfused.experiment.config import ARMS, Config
from labkit.papers.bertfused.method.bert import Bert, minilm
from labkit.papers.bertfused.method.layers import Architecture
from labkit.papers.bertfused.method.transformer import Fusion, Transformer
from labkit.papers.bertfused.method.translator import Translator
from labkit.tensor_files import TensorFileError
from labkit.text.bpe import Bpe
from labkit.workbench import training
from labkit.workbench.runs import Run

FILE = "model.safetensors"
DOCUMENT = "document"  # the arm of the documents experiment that BERT reads two sentences for
TOKENIZER, BERT_TOKENIZER = "tokenizer", "bert_tokenizer"  # their JSON, as bytes


class Header(BaseModel, frozen=True, extra="forbid", strict=True, allow_inf_nan=False):
    """What the tensors belong to.

    bert: none; minilm; folder: the user's own; stored: its weights are in this file.
    fingerprint: of the BERT that it was trained with.
    """

    format: Literal["labkit bertfused translator 1"] = "labkit bertfused translator 1"
    sizes: Architecture
    fusion: Fusion
    lowercase: bool
    document: bool
    bert: Literal["none", "minilm", "folder", "stored"]
    folder: str = Field("", max_length=4096)
    fingerprint: str = Field("", max_length=64)
    layer: int = -1
    mask_cls_sep: bool = False
    bert_heads: int = Field(1, ge=1, le=1024)


def arms(config: Config, run: Run) -> tuple[str, ...]:
    """The arms that translate on their own: the fused one first, then the plain one, then the others.

    Left out are the control with random vectors, and the baselines whose encoder is BERT.
    """
    names = [name for name in config.arms if ARMS[name].kind in ("plain", "fused") and ARMS[name].features == "bert"]
    names = (
        sorted(names, key=lambda name: (name != "fused", name != "plain")) if "sentences" in config.experiments else []
    )
    return (*names, *([DOCUMENT] if "documents" in config.experiments else []))


def export(config: Config, run: Run, arm: str, directory: Path) -> None:
    """Write `directory`/model.safetensors, which `load` reads.

    Raises:
        InputError: the run has no such arm, or a BERT that is trained is of a kind that is not kept.
        RunError: it is not trained yet.
    """
    if arm not in arms(config, run):
        raise InputError(f"there is no arm '{arm}' to export; there are {', '.join(arms(config, run)) or 'none'}")
    with training.workers("cpu") as workers:
        if arm == DOCUMENT:
            part = run.part("documents")
            task = documents.task_of(config, part)
            model, bert = sentences.load_arm("fused", task, config, workers, part, part=DOCUMENT)
        else:
            part = run.part("sentences")
            task = sentences.task_of(config, part)
            model, bert = sentences.load_arm(arm, task, config, workers, part)
    save(model, task.bpe, bert, directory / FILE, document=arm == DOCUMENT, bert_name=config.bert)


def save(
    model: Transformer, bpe: Bpe, bert: Bert | None, path: Path, *, document: bool = False, bert_name: str = "stored"
) -> None:
    """Keep a translator as one file.

    Args:
        bert_name: minilm, or the folder that the BERT was read from; anything else: its weights are kept, too.

    Raises:
        InputError: it must be kept, and is no BertModel of transformers.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors[TOKENIZER] = _bytes(bpe.to_json())
    about: dict[str, Any] = {"bert": "none"}
    if bert is not None:
        whole = bert.trainable or not (bert_name == "minilm" or Path(bert_name).is_dir())
        about = {
            "bert": "stored" if whole else "minilm" if bert_name == "minilm" else "folder",
            "folder": "" if whole or bert_name == "minilm" else bert_name,
            "fingerprint": "" if whole else bert.fingerprint(),
            "layer": bert.layer,
            "mask_cls_sep": bert.mask_cls_sep,
        }
        if whole:
            tensors |= _stored(bert)
            about["bert_heads"] = bert.model.config.num_attention_heads  # type: ignore[union-attr]
    header = Header(sizes=model.sizes, fusion=model.fusion, lowercase=bpe.lowercase, document=document, **about)
    tensor_files.write(path, tensors, header)


def load(path: str | Path, bert: Bert | str | Path | None = None) -> Translator:
    """The translator of a file, or of the folder that `labkit export` wrote: `translate(sentences, beam=5)`.

    Args:
        bert: the BERT that the model attends to, or its folder, where it is not MiniLM and not in the file.

    Raises:
        TensorFileError (an InputError): no such file, a damaged one, or one of another kind.
        InputError: its BERT is not there, or another one.
    """
    file = Path(path) / FILE if Path(path).is_dir() else Path(path)
    tensors, header = tensor_files.read(file, Header)
    bpe = Bpe.from_json(_text(tensors, TOKENIZER, file), header.lowercase)
    weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    model = _model(header, weights, bpe, file)
    return Translator(model, bpe, _bert(header, tensors, bert, file), document=header.document)


def _model(header: Header, weights: dict[str, Tensor], bpe: Bpe, file: Path) -> Transformer:
    """The sizes of the header are compared with the tensors first: no header takes more memory than its file."""
    sizes = header.sizes
    layers = {name.split(".layers.")[0] + name.split(".")[2] for name in weights if ".layers." in name}
    embedded, inner = weights.get("embed_tokens.weight"), weights.get("encoder.layers.0.fc1.weight")
    written = weights.get("embed_targets.weight", embedded)
    fits = (
        embedded is not None
        and written is not None
        and inner is not None
        and embedded.shape == (sizes.vocabulary, sizes.width)
        and written.shape == (sizes.outputs, sizes.width)
        and (bpe.size, bpe.target.size) == (sizes.vocabulary, sizes.outputs)
        and inner.shape == (sizes.feed_forward, sizes.width)
        and len(layers) == sizes.encoder_layers + sizes.decoder_layers
        and sizes.longest <= 2**16
        and header.fusion.bert_width <= 2**14
    )
    if not fits:
        raise TensorFileError(f"'{file}' does not hold the model that its header describes.")
    model = Transformer(sizes, header.fusion)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise TensorFileError(
            f"'{file}' does not hold the model that its header describes ({str(error).splitlines()[-1].strip()})."
        ) from None
    return model.eval()


def _bert(header: Header, tensors: dict[str, Tensor], chosen: Bert | str | Path | None, file: Path) -> Bert | None:
    options = {"layer": header.layer, "mask_cls_sep": header.mask_cls_sep}
    if header.bert == "none":
        return None
    if header.bert == "stored":
        return _restored(header, tensors, file)
    if chosen is None and header.bert == "folder" and not Path(header.folder).is_dir():
        raise InputError(
            f"'{file}' attends to the BERT in '{header.folder}', which is not here. Give its folder: "
            "load(path, bert=...)."
        )
    if isinstance(chosen, str | Path):
        chosen = Bert.from_folder(chosen, **options)
    bert = chosen or (minilm(**options) if header.bert == "minilm" else Bert.from_folder(header.folder, **options))
    if bert.fingerprint() != header.fingerprint:
        raise InputError(f"'{file}' was trained with another BERT than this one: its weights or its tokenizer differ.")
    return bert.eval()


# -- a BERT in the file -----------------------------------------------------------------------------------------------


def _stored(bert: Bert) -> dict[str, Tensor]:
    from transformers import BertModel

    if not isinstance(bert.model, BertModel) or bert.model.config.hidden_act != "gelu":
        raise InputError(f"a {type(bert.model).__name__} cannot be kept in the file of a model; a BertModel can.")
    tensors = {f"bert.{name}": value for name, value in bert.model.state_dict().items()}
    return tensors | {BERT_TOKENIZER: _bytes(bert.tokenizer.backend_tokenizer.to_str())}


def _restored(header: Header, tensors: dict[str, Tensor], file: Path) -> Bert:
    """All sizes but the number of heads come from the tensors."""
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    weights = {name.removeprefix("bert."): value for name, value in tensors.items() if name.startswith("bert.")}
    try:
        words, positions = (weights[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position"))
        config = BertConfig(
            vocab_size=len(words), hidden_size=words.shape[1], max_position_embeddings=len(positions),
            num_hidden_layers=len({name.split(".")[2] for name in weights if name.startswith("encoder.layer.")}),
            intermediate_size=len(weights["encoder.layer.0.intermediate.dense.weight"]),
            num_attention_heads=header.bert_heads,
        )  # fmt: skip
        model = BertModel(config, add_pooling_layer="pooler.dense.weight" in weights)
        model.load_state_dict(weights)
    except (KeyError, RuntimeError, ValueError, IndexError) as error:
        raise TensorFileError(
            f"'{file}' does not hold the BERT that it should ({str(error).splitlines()[-1]})."
        ) from None
    try:
        backend = Tokenizer.from_str(_text(tensors, BERT_TOKENIZER, file))
    except Exception as error:  # the library raises the bare class
        raise TensorFileError(f"'{file}' holds no tokenizer of a BERT ({error}).") from None
    backend.no_truncation()
    backend.no_padding()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", sep_token="[SEP]", pad_token="[PAD]", cls_token="[CLS]",
        mask_token="[MASK]",
    )  # fmt: skip
    return Bert(model, tokenizer, layer=header.layer, mask_cls_sep=header.mask_cls_sep).eval()


def _bytes(text: str) -> Tensor:
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


def _text(tensors: dict[str, Tensor], name: str, file: Path) -> str:
    try:
        text = bytes(tensors[name].tolist()).decode()
        json.loads(text)
        return text
    except (KeyError, ValueError, TypeError):
        raise TensorFileError(f"'{file}' holds no '{name}'.") from None
