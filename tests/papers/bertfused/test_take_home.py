"""The ten lines of README and notebook, on text, a model and an encoder that the repository does not hold."""

import contextlib
import io
import random
import re

import pytest
import torch

from labkit import paths
from labkit.errors import InputError
from labkit.papers.bertfused import PAPER, Architecture, Transformer, from_marian, fuse, load
from labkit.papers.bertfused.experiment.export import export
from labkit.papers.bertfused.method.bert import random_bert
from labkit.workbench.runs import Run

NOTEBOOK = paths.root() / "notebooks" / "08_bertfused.py"
SENTENCES = ["el perro corre .", "", "la casa"]


def snippet() -> str:
    """The first Python block of heading 10."""
    page = NOTEBOOK.read_text().split("# ## 10 ", 1)[1]
    block = re.search(r"^# ```python\n(.*?)^# ```$", page, re.DOTALL | re.MULTILINE)
    assert block is not None
    return "\n".join(line.removeprefix("# ").removeprefix("#") for line in block[1].splitlines())


class Letters:
    """A tokenizer that the repository does not hold: a letter is a token."""

    def encode(self, text: str) -> list[int]:
        return [4 + ord(letter) % 60 for letter in text]

    def decode(self, ids) -> str:
        return "".join(chr(60 + i) for i in ids)


def commands() -> list[str]:
    """What heading 10 tells to type, a command a line."""
    page = NOTEBOOK.read_text().split("# ## 10 ", 1)[1].replace("\\\n#", "")
    return re.findall(r"^# (?:torchrun .* -m )?labkit (\w+ .*)$", page, re.MULTILINE)


def test_every_command_of_the_page_has_a_config():
    """A corpus that does not say where a document begins cannot be asked for its documents."""
    trained = [line.partition("#")[0].split() for line in commands() if line.startswith(("train ", "run "))]
    assert len(trained) >= 6
    for words in trained:
        assert words[1] == "bertfused"
        scale = words[words.index("--scale") + 1] if "--scale" in words else "lesson"
        fields = {words[i + 1]: words[i + 2] for i, word in enumerate(words) if word == "-p"}
        PAPER.config(scale).override_text(fields)


def test_the_lines_are_ten_at_most():
    assert len(snippet().splitlines()) <= 10


@pytest.mark.parametrize("marian", [False, True])
def test_the_lines_fuse_a_model_and_an_encoder_of_the_readers_own(tmp_path, marian):
    """A plain Transformer, and a Marian of transformers; the encoder is a folder of random weights."""
    encoder = random_bert(SENTENCES, width=24)
    for part in (encoder.model, encoder.tokenizer):
        part.save_pretrained(tmp_path)
    if marian:
        from transformers import MarianConfig, MarianMTModel

        settings = MarianConfig(
            vocab_size=70, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48, pad_token_id=69, eos_token_id=2,
            decoder_start_token_id=69, forced_eos_token_id=2, scale_embedding=True,
        )  # fmt: skip
        plain = from_marian(MarianMTModel(settings))
    else:
        plain = Transformer(Architecture(70, 32, 64, 2, 1, 1))
    printed = io.StringIO()
    rows = [[*Letters().encode(sentence), 2] for sentence in SENTENCES]
    longest = max(map(len, rows))
    names = {
        "my_bert_folder": tmp_path,
        "my_plain_model": plain,
        "my_source": torch.tensor([[*row, *[plain.sizes.pad] * (longest - len(row))] for row in rows]),
        "my_target_in": torch.tensor([[plain.sizes.bos, 5, 6]] * 3),
        "my_sentences": SENTENCES,
        "my_tokenizer": Letters(),
    }
    with contextlib.redirect_stdout(printed):
        exec(snippet(), names)
    report, *translations = printed.getvalue().splitlines()
    assert report.startswith("warm start: ")
    assert "none missing" in report
    assert names["logits"].shape == (3, 3, 70)
    assert len(translations) == 1  # a list of three


@pytest.mark.slow
@pytest.mark.shapes_unchecked
def test_train_on_two_text_files_and_translate(tmp_path):
    """A language nobody has: digits, spelled out. The plain model learns some of it in seconds."""
    draw, names = random.Random(0), ["null", "uno", "dwa", "tri", "vier"]
    rows = [[draw.randrange(5) for _ in range(draw.randint(1, 4))] for _ in range(400)]
    (tmp_path / "a.num").write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))
    (tmp_path / "a.txt").write_text("".join(" ".join(names[i] for i in row) + "\n" for row in rows))
    config = PAPER.config(
        "smoke", data=f"parallel:{tmp_path}/a.num,{tmp_path}/a.txt", experiments=("sentences",),
        arms=("plain", "fused"), pairs=0, tests=0, width=32, feed_forward=64, steps=60, fused_steps=60, warmup=20,
        learning_rate=5e-3, dropout=0.0, batch_tokens=600,
    )  # fmt: skip
    run = Run.open(tmp_path / "run", config)
    result = PAPER.run(config, run)["sentences"]
    assert result["data"] == "the reader's own text"
    assert "nouns" not in result["arms"]["plain"]["tests"]["test"]
    export(config, run, "plain", tmp_path / "out")
    translations = load(tmp_path / "out").translate(["1 2 3", "", "4"], beam=2)
    assert translations[1] == ""
    said = set(" ".join(translations).split())
    assert said & set(names)  # over 20 seeds every one writes names; right ones are not asked for here


def test_what_cannot_be_taken_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="a Transformer of this room can be fused; got Linear"):
        fuse(torch.nn.Linear(2, 2), 16)
    (tmp_path / "a.txt").write_text("no tab here\n" * 30)
    config = PAPER.config("smoke", data=f"parallel:{tmp_path}/a.txt", experiments=("sentences",))
    with pytest.raises(InputError, match="a sentence, a tab and its translation are needed"):
        PAPER.run(config, Run.open(tmp_path / "run", config))
