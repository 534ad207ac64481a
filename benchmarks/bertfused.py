"""Side by side: translating and training, fused against plain, cached against recomputed, ours against peers.

    labkit bench bertfused               rows, within about --seconds
    python benchmarks/bertfused.py       the same, as a list

Untrained weights, and an end of sentence that is never chosen: every rival writes as many tokens. On a CPU they are
timed in CPU seconds of this process: another program on the machine slows nobody.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.kernels.residual_norm import residual_norm, residual_norm_reference
from labkit.papers.bertfused.method.attention import project_together
from labkit.papers.bertfused.method.bert import Bert, Words
from labkit.papers.bertfused.method.decoding import translate_ids
from labkit.papers.bertfused.method.marian import marian_inputs, to_marian
from labkit.papers.bertfused.method.transformer import PLAIN, Architecture, BertView, Fusion, Transformer
from labkit.workbench.benchmark import BenchRow, compare

WORDS = 8000
PLAIN_SIZES = Architecture(
    vocabulary=WORDS + 1, width=256, feed_forward=1024, heads=4, encoder_layers=3, decoder_layers=3, dropout=0.0,
    pad=WORDS, bos=WORDS, eos=0, output_bias=True,
)  # fmt: skip
"""Marian's conventions, so that CTranslate2 and transformers take the same weights."""
PAPER_SIZES = replace(PLAIN_SIZES, width=512, encoder_layers=6, decoder_layers=6)
LESSON_SIZES = Architecture(
    vocabulary=700, width=128, feed_forward=256, heads=4, encoder_layers=2, decoder_layers=2, dropout=0.1
)
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
PAPERS_COST = 1.45
"""Whole test sets took 1.386, 1.493, 1.478 and 1.438 times as long as with the plain model [paper]; their mean."""
LENGTH = 20


def best_of(candidates: dict[str, Callable[[], object]], device: torch.device, rounds: int) -> dict[str, float]:
    """Best time of each in ms, taking turns: wall time on a GPU, CPU time on a CPU."""
    clock = None if device.type == "cuda" else time.process_time
    return compare(candidates, device, rounds, warm_up=1, clock=clock)


def rows(device: torch.device, seconds: float) -> Iterator[BenchRow]:
    """Training, translating, the paper's cost of fusion, the products of all layers at once, the end of a sub-block."""
    rounds = max(2, min(20, int(seconds / 20)))
    yield from training_rows(device, rounds)
    yield from peer_rows(device, rounds)
    yield from cost_rows(device, rounds)
    yield from projection_rows(device, rounds)
    if device.type == "cuda":  # on a CPU the two are one
        yield from epilogue_rows(device, rounds)


# ---- training --------------------------------------------------------------------------------------------------------


def training_rows(device: torch.device, rounds: int) -> Iterator[BenchRow]:
    """A step of the lesson: plain, fused with BERT's states from the cache, and with BERT computed on the way."""
    batch, length = 64, 16
    draw = torch.Generator().manual_seed(0)
    source, target = (torch.randint(4, 700, (batch, length), generator=draw).to(device) for _ in range(2))
    bert = bare_bert(MINILM, device)
    words = [Words([5] * length, [0] * length) for _ in range(batch)]
    view = bert.view(words)
    fusions = {"plain": PLAIN, "fused": Fusion(bert_width=384), "both": Fusion(bert_width=384, drop_net=0.0)}
    models = {name: Transformer(LESSON_SIZES, fusion).to(device).train() for name, fusion in fusions.items()}

    def step(name: str, view_of: Callable[[], BertView | None]) -> Callable[[], None]:
        model = models[name]

        def call() -> None:
            for _ in range(4):  # several draws of drop-net
                F.cross_entropy(model(source, target, view_of()).flatten(0, 1), target.flatten()).backward()

        return call

    candidates: dict[str, Callable[[], object]] = {
        "plain": step("plain", lambda: None),
        "fused": step("fused", lambda: view),
        "both branches": step("both", lambda: view),
        "BERT on the way": step("fused", lambda: bert.view(words)),
    }
    best = best_of(candidates, device, rounds)
    rate = {name: 4 * batch * length / ms for name, ms in best.items()}
    for peer in ("plain", "both branches", "BERT on the way"):
        what = "training, fused with drop-net 1 and cached BERT"
        yield BenchRow(what, "target tokens/ms", rate["fused"], rate[peer], peer, lower_is_better=False)


# ---- translating -----------------------------------------------------------------------------------------------------


def endless(sizes: Architecture, fusion: Fusion, device: torch.device) -> Transformer:
    """A model whose sentences end at their limit alone."""
    model = Transformer(sizes, fusion, seed=0).to(device).eval()
    assert model.output_bias is not None
    with torch.no_grad():
        model.output_bias[sizes.eos] = -1e4
    return model


def sources(sizes: Architecture, count: int, device: torch.device) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randint(2, sizes.vocabulary - 1, (count, LENGTH), generator=draw)
    tokens[:, -1] = sizes.eos
    return tokens.to(device)


def peer_rows(device: torch.device, rounds: int) -> Iterator[BenchRow]:
    """The plain model, greedy and with a beam of 5: its cache against none, transformers and CTranslate2."""
    model, count = endless(PLAIN_SIZES, PLAIN, device), 16 if device.type == "cpu" else 256
    source = sources(PLAIN_SIZES, count, device)
    marian = to_marian(model.cpu())
    model.to(device)
    with tempfile.TemporaryDirectory() as folder:
        fast = ctranslate2_of(marian, Path(folder), device)
        marian.to(device).generation_config.forced_eos_token_id = None
        for beam in (1, 5):
            candidates: dict[str, Callable[[], object]] = {
                "ours": lambda beam=beam: ours(model, source, beam),
                "transformers": lambda beam=beam: generated(marian, source, beam),
                "without a cache": lambda beam=beam: ours(model, source, beam, cache=False),
            }
            if beam == 1:  # with more, the forced end that only we count may turn hypotheses round
                check_they_agree(ours(model, source, 1), generated(marian, source, 1), fast and fast(source, 1))
            if fast is not None:
                candidates["CTranslate2, float32"] = lambda beam=beam: fast(source, beam)
            best = best_of(candidates, device, rounds)
            rate = {name: count * LENGTH / ms for name, ms in best.items()}
            for peer in [name for name in candidates if name != "ours"]:
                what = f"plain {PLAIN_SIZES.width} x {PLAIN_SIZES.decoder_layers}, {count} sentences, beam {beam}"
                yield BenchRow(what, "target tokens/ms", rate["ours"], rate[peer], peer, lower_is_better=False)


def check_they_agree(ours: list[list[int]], *others: list[list[int]] | None) -> None:
    """All rivals write the same, but for sentences where rounding decides between two words."""
    for other in others:
        if other is not None:
            same = sum(a == b for a, b in zip(ours, other, strict=True))
            assert same >= 0.9 * len(ours), f"only {same} of {len(ours)} sentences agree"


def ours(
    model: Transformer, source: Tensor, beam: int, view: BertView | None = None, cache: bool = True
) -> list[list[int]]:
    beams = translate_ids(model, source, view, beam=beam, longest=(0, LENGTH + 1), cache=cache)
    return [hypotheses[0].tokens for hypotheses in beams]


def generated(marian: Any, source: Tensor, beam: int) -> list[list[int]]:
    options = {"length_penalty": 1.0, "early_stopping": True} if beam > 1 else {}
    outputs = marian.generate(
        **marian_inputs(source, PLAIN_SIZES.pad), num_beams=beam, do_sample=False, max_new_tokens=LENGTH,
        suppress_tokens=[PLAIN_SIZES.pad], **options,
    )  # fmt: skip
    return [row[1:] for row in outputs.tolist()]


def ctranslate2_of(marian: Any, folder: Path, device: torch.device) -> Callable[[Tensor, int], list[list[int]]] | None:
    """The same weights in CTranslate2 on one thread; None where it is not installed."""
    try:
        import ctranslate2
        from ctranslate2.converters.transformers import MarianMTLoader
    except ModuleNotFoundError:
        return None
    spec = MarianMTLoader().get_model_spec(marian)
    tokens = ["</s>", "<unk>", *(f"t{number}" for number in range(2, WORDS))]
    for register in (spec.register_source_vocabulary, spec.register_target_vocabulary):
        register(tokens)
    spec.config.eos_token, spec.config.unk_token = "</s>", "<unk>"
    spec.config.decoder_start_token = "</s>"
    spec.validate()
    spec.optimize(quantization=None)
    spec.save(str(folder))
    threads = torch.get_num_threads()
    translator = ctranslate2.Translator(str(folder), device=device.type, intra_threads=threads, inter_threads=1)

    def translate(source: Tensor, beam: int) -> list[list[int]]:
        lines = [[tokens[token] for token in row] for row in source.tolist()]
        results = translator.translate_batch(
            lines, beam_size=beam, max_decoding_length=LENGTH, min_decoding_length=LENGTH, length_penalty=1
        )
        return [[int(word[1:]) if word[0] == "t" else 1 for word in one.hypotheses[0]] for one in results]

    return translate


def cost_rows(device: torch.device, rounds: int) -> Iterator[BenchRow]:
    """What fusion adds to translating, BERT included, in the paper's architecture with a BERT-base; beam 5."""
    count = 4 if device.type == "cpu" else 128
    plain, fused = (endless(PAPER_SIZES, fusion, device) for fusion in (PLAIN, Fusion(bert_width=768)))
    source, bert = sources(PAPER_SIZES, count, device), bare_bert(BASE, device)
    words = [Words([5] * LENGTH, [0] * LENGTH) for _ in range(count)]
    candidates: dict[str, Callable[[], object]] = {
        "plain": lambda: ours(plain, source, 5),
        "fused": lambda: ours(fused, source, 5, bert.view(words)),
    }
    best = best_of(candidates, device, max(2, rounds // 2))
    cost = best["fused"] / best["plain"]
    yield BenchRow(
        f"cost of fusion, {count} sentences, beam 5", "x plain", cost, PAPERS_COST, "the paper's mean of four"
    )


def bare_bert(sizes: dict[str, int], device: torch.device) -> Bert:
    """A BERT of that size with random weights: as fast as a trained one."""
    from types import SimpleNamespace

    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=100, **sizes), add_pooling_layer=False)
    return Bert(model, SimpleNamespace(pad_token_id=0)).to(device).eval()


# ---- products and kernels --------------------------------------------------------------------------------------------


def projection_rows(device: torch.device, rounds: int) -> Iterator[BenchRow]:
    """Keys and values of H_B for 12 layers of the paper: by one product on a GPU, by 24 on a CPU; and the other way."""
    count = 8 if device.type == "cpu" else 200
    model = Transformer(replace(PAPER_SIZES, vocabulary=40, pad=39, bos=39), Fusion(bert_width=768)).to(device)
    attentions = [layer.bert_attn for layer in [*model.encoder, *model.decoder] if layer.bert_attn is not None]
    memory = torch.randn(count, LENGTH, 768, device=device)
    weight = torch.cat([attention.key_value_parameters()[0] for attention in attentions]).detach()
    one, many = "one product, weights stacked each time", "24 products"
    ours, other = (one, many) if device.type == "cuda" else (many, one)
    with torch.inference_mode():
        candidates: dict[str, Callable[[], object]] = {
            one: lambda: project_together(attentions, memory, stacked=True),
            many: lambda: project_together(attentions, memory, stacked=False),
            "floor": lambda: F.linear(memory, weight),
        }
        best = best_of(candidates, device, 5 * rounds)
    what = f"keys and values of {count * LENGTH} words for 12 layers, {ours}"
    yield BenchRow(what, "ms", best[ours], best[other], other)
    yield BenchRow(what, "ms", best[ours], best["floor"], "floor: the product, weights stacked ahead")


def epilogue_rows(device: torch.device, rounds: int) -> Iterator[BenchRow]:
    """LN(x + 1/2 drop(a) + 1/2 drop(b)) forward and backward, 4000 tokens of width 512; floor: 3 reads, 1 write."""
    x, a, b = (torch.randn(4000, 512, device=device, requires_grad=True) for _ in range(3))
    gamma, beta = (torch.ones(512, device=device, requires_grad=True) for _ in range(2))
    compiled = torch.compile(residual_norm_reference)

    def call(body: Callable[..., Tensor]) -> Callable[[], None]:
        return lambda: body(x, [a, b], [0.5, 0.5], gamma, beta, dropout=0.3).sum().backward()

    def floor() -> None:
        torch.add(x.detach(), a.detach()).add_(b.detach())

    candidates = {"ours": call(residual_norm), "PyTorch": call(residual_norm_reference), "compiled": call(compiled)}
    best = best_of(candidates | {"floor": floor}, device, 10 * rounds)
    for peer in ("PyTorch", "compiled", "floor"):
        name = "floor: adding three" if peer == "floor" else peer
        yield BenchRow("residual, dropout, LayerNorm, with gradients", "ms", best["ours"], best[peer], name)


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for row in rows(device, 120.0):
        print(f"{row.workload:<60}{row.ours:>10.4g}{row.peer:>10.4g} {row.unit:<18}{row.ratio:>7.2f}  {row.peer_name}")


if __name__ == "__main__":
    main()
