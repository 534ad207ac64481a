"""XLM as a start: a Transformer of XLM's architecture, one side of which begins with its weights, or both.

    x^0 = drop(LN(E[token] + P[position] + G[language]))        P, G learned; no factor sqrt(d)

Post-norm layers as in the paper's own model, with GELU and a LayerNorm over the embeddings. A sentence stands between
two </s>; the decoder begins with one. Each side has its own E, P and G, and the output's matrix is the decoder's E.
[peer code: XLM's, and its port in transformers]

XLM is an encoder that was trained on text of several languages. Here its weights can begin the translation model's
encoder, its decoder, or both; unsupervised models begin from both. A decoder has an attention to the encoder that XLM
lacks: it begins at random [peer code].
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.bertfused.method.bert import check_depth, quiet, transformers_library
from labkit.papers.bertfused.method.layers import Architecture
from labkit.papers.bertfused.method.transformer import PLAIN, BertView, Encoded, Fusion, Transformer, initialize
from labkit.papers.bertfused.method.warm_start import WarmStart
from labkit.ranges import within
from labkit.seeds import derive
from labkit.text.merges import MergesBpe, read_merges

Start = Literal["encoder", "decoder", "both"]
SPECIAL = {"pad_token": "<pad>", "sep_token": "</s>", "mask_token": "<special1>", "unk_token": "<unk>"}


class Embedded(nn.Module):
    """From the tokens' vectors to x^0 of the formula above, for one side."""

    def __init__(self, sizes: Architecture, languages: int) -> None:
        super().__init__()
        self.positions = nn.Embedding(sizes.longest, sizes.width)
        self.languages = nn.Embedding(languages, sizes.width) if languages > 1 else None
        self.norm = nn.LayerNorm(sizes.width)
        self.dropout = sizes.dropout

    def forward(
        self, tokens: Float[Tensor, "batch length width"], positions: Int[Tensor, "..."], language: int
    ) -> Float[Tensor, "batch length width"]:
        x = tokens + self.positions(positions)
        if self.languages is not None:
            x = x + self.languages.weight[language]
        return F.dropout(self.norm(x), self.dropout, self.training)


class XlmTransformer(Transformer):
    """A translation model of XLM's architecture, plain or fused.

    Args:
        sizes: with `target_vocabulary`, GELU and an output's bias, as `Xlm.sizes` has them.
        languages: how many XLM knows.
        pair: numbers of the source's language and the target's.
        eps: of all LayerNorms.

    Attributes:
        direction: (0, 1) translates from the first language of `pair` to the second, (1, 0) back.
    """

    def __init__(
        self,
        sizes: Architecture,
        fusion: Fusion = PLAIN,
        seed: int = 0,
        *,
        languages: int = 1,
        pair: tuple[int, int] = (0, 0),
        eps: float = 1e-12,
    ) -> None:
        super().__init__(sizes, fusion, seed)
        self.pair, self.direction = pair, (0, 1)
        self.source_embedded, self.target_embedded = Embedded(sizes, languages), Embedded(sizes, languages)
        initialize(self, seed)
        for name, module in self.named_modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = eps
            elif isinstance(module, nn.Embedding) and module.padding_idx is None:
                draw = torch.Generator().manual_seed(derive(seed, zlib.crc32(name.encode())))
                nn.init.normal_(module.weight, 0, sizes.width**-0.5, generator=draw)

    def encode(self, source: Int[Tensor, "batch source"], bert: BertView | None = None) -> Encoded:
        tokens = F.pad(source, (1, 0), value=self.sizes.bos)
        x = self._side(self.embed_tokens(tokens), self.source_embedded, 0)
        return self.encode_embedded(x, tokens != self.sizes.pad, bert)

    def decode(self, target_in: Int[Tensor, "batch target"], encoded: Encoded) -> Float[Tensor, "batch target width"]:
        return self.decode_embedded(self._side(self._target_embedding(target_in), self.target_embedded, 1), encoded)

    def embed_at(self, tokens: Int[Tensor, "batch beam"], position: int) -> Float[Tensor, "batch beam width"]:
        self._check_length(position + 1)
        where = torch.tensor(position, device=tokens.device)
        return self.target_embedded(self._target_embedding(tokens), where, self.pair[self.direction[1]])

    def _side(
        self, tokens: Float[Tensor, "batch length width"], embedded: Embedded, side: int
    ) -> Float[Tensor, "batch length width"]:
        self._check_length(tokens.shape[1])
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        return embedded(tokens, positions, self.pair[self.direction[side]])


@dataclass(frozen=True)
class Xlm:
    """What a folder of XLM holds.

        xlm = Xlm.from_folder("path/to/xlm-mlm-ende-1024")
        model = xlm.start("both", "en", "de")        # a translation model; model.report says what was loaded
        bpe = xlm.bpe                                # its tokenizer

    Attributes:
        tensors: as transformers calls them, without the head's prefix.
        languages: number of each language by its name; empty: a model without embeddings of languages.
    """

    sizes: Architecture
    bpe: MergesBpe
    tensors: Mapping[str, Tensor]
    languages: Mapping[str, int]
    eps: float = 1e-12

    @classmethod
    def from_folder(cls, folder: str | Path, lowercase: bool = False) -> "Xlm":
        """From a folder in Hugging Face's layout (config.json, weights, vocab.json, merges.txt).

        Raises:
            InputError: no such folder, not whole, or no XLM.
        """
        path = Path(folder)
        lost = [name for name in ("config.json", "vocab.json", "merges.txt") if not (path / name).is_file()]
        if lost:
            raise InputError(
                f"'{folder}' is no folder with an XLM in Hugging Face's layout ({lost[0]} is missing). "
                "Download one once, e.g. hf download FacebookAI/xlm-mlm-ende-1024 --local-dir xlm, and give its path."
            )
        try:
            about = json.loads((path / "config.json").read_text())
            if about.get("model_type") != "xlm":
                raise InputError(f"its config.json describes a '{about.get('model_type')}', and no XLM.")
            if about.get("asm"):
                raise InputError("its output is an adaptive softmax, which is not built here.")
            check_depth(path / "config.json")
            config, tensors = _weights(path)
            within(1e-30, 1, layer_norm_eps=config.layer_norm_eps)
            bpe = _bpe(path, config, lowercase)
            return cls(_sizes(config, bpe.size), bpe, tensors, _languages(config), config.layer_norm_eps)
        except InputError as error:
            raise InputError(f"'{folder}' cannot be used: {error}") from None
        except Exception as error:  # whatever a damaged folder makes transformers raise: its own kinds are many
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"'{folder}' cannot be read as an XLM: {reason}") from error

    def model(self, source: str, target: str, fusion: Fusion = PLAIN, seed: int = 0) -> XlmTransformer:
        """The architecture with random weights.

        Args:
            source, target: names of languages, such as en.

        Raises:
            InputError: XLM does not know one of them.
        """
        pair = tuple(self._number(name) for name in (source, target))
        return XlmTransformer(
            self.sizes, fusion, seed, languages=len(self.languages), pair=(pair[0], pair[1]), eps=self.eps
        )

    def start(self, sides: Start, source: str, target: str, seed: int = 0) -> XlmTransformer:
        """A plain translation model, one side of which begins with XLM's weights, or both. `report`: a WarmStart.

        Raises:
            InputError: see `model`.
        """
        model = self.model(source, target, seed=seed)
        named = model.state_dict()
        loaded: dict[str, Tensor] = {}
        for side in ("encoder", "decoder"):
            if sides in (side, "both"):
                loaded |= self._of_side(side == "decoder")
        with torch.no_grad():
            for name, value in loaded.items():
                named[name].copy_(value)
        model.report = WarmStart(tuple(loaded), tuple(name for name in named if name not in loaded))
        return model

    def _of_side(self, decoder: bool) -> dict[str, Tensor]:
        """XLM's tensors by the names that they have in an encoder, or in a decoder."""
        side, embedded = ("decoder", "target_embedded") if decoder else ("encoder", "source_embedded")
        rows, theirs = torch.tensor(self.bpe.rows), self.tensors
        tensors = {"embed_targets.weight" if decoder else "embed_tokens.weight": theirs["embeddings.weight"][rows]}
        if decoder and "head.bias" in theirs:
            tensors["output_bias"] = theirs["head.bias"][rows]
        tensors[f"{embedded}.positions.weight"] = theirs["position_embeddings.weight"]
        if self.languages:
            tensors[f"{embedded}.languages.weight"] = theirs["lang_embeddings.weight"]
        for kind in ("weight", "bias"):
            tensors[f"{embedded}.norm.{kind}"] = theirs[f"layer_norm_emb.{kind}"]
            for i in range(self.sizes.encoder_layers):
                layer, attention = f"{side}.layers.{i}", f"attentions.{i}"
                tensors[f"{layer}.self_attn.in_proj.{kind}"] = torch.cat(
                    [theirs[f"{attention}.{part}_lin.{kind}"] for part in "qkv"]
                )
                tensors[f"{layer}.self_attn.out_proj.{kind}"] = theirs[f"{attention}.out_lin.{kind}"]
                tensors[f"{layer}.self_attn_layer_norm.{kind}"] = theirs[f"layer_norm1.{i}.{kind}"]
                tensors[f"{layer}.fc1.{kind}"] = theirs[f"ffns.{i}.lin1.{kind}"]
                tensors[f"{layer}.fc2.{kind}"] = theirs[f"ffns.{i}.lin2.{kind}"]
                tensors[f"{layer}.final_layer_norm.{kind}"] = theirs[f"layer_norm2.{i}.{kind}"]
        return tensors

    def _number(self, language: str) -> int:
        if not self.languages:
            return 0
        if language not in self.languages:
            raise InputError(f"this XLM knows {', '.join(sorted(self.languages))}, and not '{language}'.")
        return self.languages[language]


def _weights(path: Path) -> tuple[Any, dict[str, Tensor]]:
    """Config and tensors; those of the output's bias under `head.bias`, where the folder has a head."""
    transformers = transformers_library()
    with quiet(transformers.utils.logging):
        model, report = transformers.XLMWithLMHeadModel.from_pretrained(
            path, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    lost = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    body = sorted(name for name in lost if not name.startswith("pred_layer."))
    if body:
        raise InputError(f"its weights lack {len(body)} tensors of the model that its config describes: {body[0]}...")
    tensors = {name: value.detach().float() for name, value in model.transformer.state_dict().items()}
    if "pred_layer.proj.bias" not in lost:
        tensors["head.bias"] = model.pred_layer.proj.bias.detach().float()
    return model.config, tensors


def _sizes(config: Any, vocabulary: int) -> Architecture:
    return Architecture(
        vocabulary, config.emb_dim, 4 * config.emb_dim, config.n_heads, config.n_layers, config.n_layers,
        config.dropout, "gelu" if config.gelu_activation else "relu", output_bias=True,
        longest=config.max_position_embeddings, target_vocabulary=vocabulary,
    )  # fmt: skip


def _bpe(path: Path, config: Any, lowercase: bool) -> MergesBpe:
    vocabulary = json.loads((path / "vocab.json").read_text(encoding="utf-8"))
    if not isinstance(vocabulary, dict) or not all(type(number) is int for number in vocabulary.values()):
        raise InputError("its vocab.json does not give a number to each token.")
    if len(vocabulary) != config.n_words:
        raise InputError(f"its vocab.json has {len(vocabulary):,} tokens, and its model {config.n_words:,} vectors.")
    about = path / "tokenizer_config.json"
    chosen = json.loads(about.read_text()) if about.is_file() else {}
    pad, sep, mask, unk = (
        token if isinstance(token := chosen.get(name), str) else default for name, default in SPECIAL.items()
    )
    merges = read_merges((path / "merges.txt").read_text(encoding="utf-8"))
    plain_letters = bool(chosen.get("do_lowercase_and_remove_accent", True))  # the default of transformers
    return MergesBpe(vocabulary, merges, (pad, sep, sep, mask, unk), lowercase, plain_letters)


def _languages(config: Any) -> dict[str, int]:
    """Raises InputError where the numbers are not those of the embeddings."""
    if config.n_langs < 2 or not config.use_lang_emb:
        return {}
    numbers: Any = getattr(config, "lang2id", None)
    if not isinstance(numbers, dict) or sorted(numbers.values()) != list(range(config.n_langs)):
        raise InputError(f"its config.json must number its {config.n_langs} languages in lang2id.")
    return {str(name): int(number) for name, number in numbers.items()}
