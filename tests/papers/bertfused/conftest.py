"""A folder of XLM in Hugging Face's layout: two layers, two languages, random weights."""

import json
import string
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

SPECIAL = ["<s>", "</s>", "<pad>", "<unk>", *(f"<special{i}>" for i in range(10))]
MERGES = [("t", "h"), ("th", "e</w>"), ("d", "e"), ("de", "r</w>"), ("o", "g</w>"), ("a", "b")]  # "ab" is no token


def _write(folder: Path, **changes: object) -> Path:
    transformers = pytest.importorskip("transformers")
    letters = [*string.ascii_letters, ".", "?", "é"]
    tokens = [*SPECIAL, *letters, *(f"{letter}</w>" for letter in letters), *("".join(m) for m in MERGES[:-1])]
    config = transformers.XLMConfig(**{
        "vocab_size": len(tokens), "emb_dim": 16, "n_layers": 2, "n_heads": 2, "n_langs": 2, "dropout": 0.1,
        "max_position_embeddings": 128, "lang2id": {"de": 0, "en": 1}, "id2lang": {"0": "de", "1": "en"},
    } | changes)  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.XLMWithLMHeadModel(config)
        for value in model.parameters():  # biases, too, and large enough to be seen
            value.data.normal_(0, 0.3)
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}), encoding="utf-8")
    (folder / "merges.txt").write_text("".join(f"{a} {b} 7\n" for a, b in MERGES), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"do_lowercase_and_remove_accent": false}')
    return folder


@pytest.fixture(scope="session")
def write_xlm() -> Callable[..., Path]:
    """(folder, fields of its config to change) -> the folder."""
    return _write


@pytest.fixture(scope="session")
def xlm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("xlm"))
