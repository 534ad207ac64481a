"""`labkit translate`: what it reads, what it writes, and what it says about all that cannot be translated."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from labkit import cli, papers
from labkit.cli import translate as command
from labkit.errors import InputError
from labkit.papers.bertfused.experiment.export import save
from labkit.papers.bertfused.method.bert import random_bert
from labkit.papers.bertfused.method.transformer import Architecture, Fusion, Transformer
from labkit.text.bpe import Bpe

pytest.importorskip("transformers")
LINES = ["two dogs run .", "", "a cat sleeps on the mat .", "  ", "two dogs run .", "zwei hunde laufen ."]


def model_file(folder: Path, mode: str = "both", document: bool = False) -> Path:
    """An untrained translator: nonsense, but always the same."""
    bpe = Bpe.train(LINES, 280, lowercase=True)
    sizes = Architecture(
        vocabulary=bpe.size, width=16, feed_forward=16, heads=2, encoder_layers=1, decoder_layers=1, longest=60
    )
    model = Transformer(sizes, Fusion(mode=mode, bert_width=32), seed=1)
    with torch.no_grad():
        model.embed_tokens.weight.mul_(3)
    save(model, bpe, None if mode == "off" else random_bert(LINES), folder / "model.safetensors", document=document)
    return folder / "model.safetensors"


@pytest.fixture
def translate(monkeypatch, capfdbinary):
    """`labkit translate <words>` on some text: (lines of stdout, stderr)."""

    class Input:
        def __init__(self, content: bytes) -> None:
            self.buffer = io.BytesIO(content)

        def isatty(self) -> bool:
            return False

    def call(content: str | bytes, *words: object, code: int = 0) -> tuple[list[str], str]:
        monkeypatch.setattr(sys, "stdin", Input(content if isinstance(content, bytes) else content.encode()))
        with pytest.raises(SystemExit) as end:
            cli.main(["translate", *map(str, words), "--device", "cpu"])
        assert end.value.code == code
        out, err = capfdbinary.readouterr()
        return out.decode().splitlines(), err.decode()

    return call


@pytest.mark.parametrize("mode", ["off", pytest.param("both", marks=pytest.mark.slow)])
def test_lines_come_back_in_order_and_blank_ones_stay(translate, tmp_path, mode):
    model = model_file(tmp_path, mode)
    out, err = translate("\n".join(LINES) + "\n", model, "--beam", 2)
    assert len(out) == 6
    assert out[1] == out[3] == ""
    assert out[0] == out[4] != out[2]
    assert err.startswith("6 lines in ")
    again, _ = translate("\r\n".join(LINES[::-1]), model, "--beam", 2)  # other ends of lines, none at the last
    assert again == out[::-1]


def test_input_is_read_piece_by_piece_and_documents_whole(monkeypatch):
    pieces = list(command.chunks(io.BytesIO(b"a\nb\nc\nd\ne"), 2))
    assert pieces == [["a", "b"], ["c", "d"], ["e"]]
    assert list(command.chunks(io.BytesIO(b"a\nb\n"), None)) == [["a", "b"]]
    assert list(command.chunks(io.BytesIO("x\u2028y\n".encode()), None)) == [["x\u2028y"]]  # no end of a line


@pytest.mark.slow
def test_pieces_change_nothing(translate, tmp_path, monkeypatch):
    model = model_file(tmp_path)
    whole, _ = translate("\n".join(LINES), model, "--beam", 2)
    monkeypatch.setattr(command, "TOGETHER", 2)
    assert translate("\n".join(LINES), model, "--beam", 2, "--batch-tokens", 10)[0] == whole


def test_a_document_is_one(translate, tmp_path, monkeypatch):
    """The sentence before counts, at the edge of a piece, too."""
    model = model_file(tmp_path, document=True)
    monkeypatch.setattr(command, "TOGETHER", 1)
    out, _ = translate("\n".join(LINES), model, "--beam", 1)
    translator = command.open_translator(model)
    assert out == translator.translate(LINES, beam=1)


def test_nothing_in_nothing_out(translate, tmp_path):
    out, err = translate("", model_file(tmp_path))
    assert out == []
    assert err.startswith("0 lines")


@pytest.mark.slow
def test_a_run_translates_and_so_does_its_export(translate, tmp_path):
    paper = papers.load("bertfused")
    config = paper.config("smoke", experiments=("sentences",), arms=("plain", "fused"))
    run = paper.open_run("smoke", config, tmp_path / "run")
    paper.run(config, run)
    out, _ = translate("\n".join(LINES), tmp_path / "run", "--beam", 2)
    plain, _ = translate("\n".join(LINES), tmp_path / "run", "--beam", 2, "--arm", "plain")
    assert len(out) == len(plain) == 6
    with pytest.raises(SystemExit):
        cli.main(["export", str(tmp_path / "run"), str(tmp_path / "exported")])
    assert translate("\n".join(LINES), tmp_path / "exported", "--beam", 2)[0][-6:] == out
    with pytest.raises(InputError, match="--arm must be one of fused, plain"):
        command.open_translator(tmp_path / "run", "nobody")
    with pytest.raises(InputError, match="is a single model"):
        command.open_translator(tmp_path / "exported", "fused")


@pytest.mark.slow
def test_who_stops_reading_stops_the_work(tmp_path):
    """`| head -1` ends the command without a complaint."""
    words = [sys.executable, "-m", "labkit", "translate", str(model_file(tmp_path)), "--beam", "1"]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=root, env=os.environ
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write(("\n".join(LINES) + "\n").encode())
        process.stdin.close()
        complaint = process.stderr.read().decode()
        assert process.wait(timeout=900) == 0, complaint
    assert "Error" not in complaint


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        (b"good\n\xff\xfe\n", [], "line 2 of the input is no UTF-8"),
        (b"a " * 80, [], "line 1 has 161 tokens, and the model takes 60"),
        (b"a", ["--beam", "0"], "beam must lie"),
        (b"a", ["--arm", "plain"], "is a single model"),
    ],
)
def test_what_cannot_be_translated_is_refused(translate, tmp_path, content, words, message):
    out, err = translate(content, model_file(tmp_path), *words, code=2)
    assert message in err
    assert out == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "nothing", "holds no run"),
        (lambda folder: folder, "holds no run"),
        (lambda folder: written(folder / "model.safetensors", "no tensors"), "is damaged, or not a safetensors"),
        (
            lambda folder: written(folder / "config.json", '{"library": "labkit", "paper": "qnet"}').parent,
            "a model of qnet, which does not translate",
        ),
    ],
)
def test_what_is_no_translator_is_refused(tmp_path, make, words):
    with pytest.raises(InputError, match=words):
        command.open_translator(make(tmp_path))


def written(path: Path, content: str) -> Path:
    path.write_text(content)
    return path
