"""The Transformer, plain or fused with BERT: one class, and the plain one is the fused one without attn_B.

    logits = E y^L        x^0 = drop(sqrt(d) E[tokens] + positions)        E: the one matrix of embeddings

Post-norm, sinusoidal positions, embeddings shared by source, target and output, as in the official code; with separate
vocabularies the source has its own and the target's are the output's [inferred].
"""

import contextlib
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.bertfused.method.attention import Attention, KeysValues, project_together
from labkit.papers.bertfused.method.drop_net import HALVES, DropNet, Mix
from labkit.papers.bertfused.method.layers import Architecture, DecoderLayer, EncoderLayer, Positions, SelfCache
from labkit.ranges import within
from labkit.seeds import derive

Mode = Literal["off", "encoder", "decoder", "both", "stacked"]
MODES: tuple[Mode, ...] = ("off", "encoder", "decoder", "both", "stacked")


class BertView(NamedTuple):
    """What BERT says of a batch of sentences: H_B, padded on the right."""

    states: Float[Tensor, "batch words d_B"]
    real: Bool[Tensor, "batch words"]
    """False: padding, or a word that must not be looked at; at least one is True in every row."""


@dataclass(frozen=True)
class Fusion:
    """Where and how BERT is attended to."""

    mode: Mode = "both"
    """off: the plain Transformer. encoder, decoder: one side only (29.90 and 29.87 BLEU where both have 30.45 [paper]).
    stacked: in the decoder attn_B stands before attn_E, in a sub-block of its own (29.35 [paper]); the encoder is fused
    as in `both` [inferred], where the official code leaves it plain: gates do the same."""
    bert_width: int = 768
    """d_B"""
    drop_net: float = 1.0
    """p of drop-net; nothing is dropped in a stacked decoder."""
    mixture: tuple[float, float] = (0.5, 0.5)
    """(r_native, r_BERT) outside of training, and in training where drop-net leaves both."""
    encoder_gates: tuple[bool, ...] = ()
    """Which encoder layers are fused; empty: all."""
    decoder_gates: tuple[bool, ...] = ()
    skip: bool = True
    """Branches that drop-net leaves out are not computed; False where DistributedDataParallel wraps the model."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"the mode of fusion must be one of {', '.join(MODES)}; got '{self.mode}'.")
        within(1, 2**20, bert_width=self.bert_width)
        within(0, 1, drop_net=self.drop_net)
        within(-100, 100, **{"the weight of the native branch": self.mixture[0], "of BERT's": self.mixture[1]})

    def widths(self, side: Literal["encoder", "decoder"], layers: int) -> list[int | None]:
        """d_B for each layer of a side that is fused, None for the others.

        Raises:
            InputError: there are gates, and not one a layer.
        """
        gates = self.encoder_gates if side == "encoder" else self.decoder_gates
        if gates and len(gates) != layers:
            raise InputError(f"{side}_gates must name each of the {layers} layers; got {len(gates)}.")
        if self.mode == "off" or self.mode not in (side, "both", "stacked"):
            return [None] * layers
        return [self.bert_width if gate else None for gate in gates or (True,) * layers]


PLAIN = Fusion(mode="off")
EMBEDDINGS = ("embed_tokens.weight", "embed_targets.weight")


@dataclass(frozen=True)
class Encoded:
    """Source sentences, ready for the decoder; the mixes are those drawn for this pass."""

    states: Float[Tensor, "batch source width"]
    """H_E"""
    mask: Bool[Tensor, "batch 1 1 source"]
    encoder: list[KeysValues]
    """H_E as keys and values, one a decoder layer."""
    bert: list[KeysValues | None]
    """H_B as keys and values, one a decoder layer that listens to it."""
    bert_mask: Bool[Tensor, "batch 1 1 words"] | None
    mixes: list[Mix]

    def __len__(self) -> int:
        return len(self.states)

    def select(self, rows: Int[Tensor, " rows"]) -> "Encoded":
        """These sentences, in this order."""
        return replace(
            self,
            states=self.states[rows],
            mask=self.mask[rows],
            encoder=[_rows(memory, rows) for memory in self.encoder],
            bert=[None if memory is None else _rows(memory, rows) for memory in self.bert],
            bert_mask=None if self.bert_mask is None else self.bert_mask[rows],
        )


def _rows(memory: KeysValues, rows: Int[Tensor, " rows"]) -> KeysValues:
    return KeysValues(memory.keys.index_select(0, rows), memory.values.index_select(0, rows))


class Encoder(nn.Module):
    def __init__(self, sizes: Architecture, fusion: Fusion) -> None:
        super().__init__()
        widths = fusion.widths("encoder", sizes.encoder_layers)
        self.layers = nn.ModuleList(EncoderLayer(sizes, width) for width in widths)

    def __iter__(self) -> Iterator[EncoderLayer]:
        return iter([layer for layer in self.layers if isinstance(layer, EncoderLayer)])


class Decoder(nn.Module):
    def __init__(self, sizes: Architecture, fusion: Fusion) -> None:
        super().__init__()
        widths, stacked = fusion.widths("decoder", sizes.decoder_layers), fusion.mode == "stacked"
        self.layers = nn.ModuleList(DecoderLayer(sizes, width, stacked) for width in widths)

    def __iter__(self) -> Iterator[DecoderLayer]:
        return iter([layer for layer in self.layers if isinstance(layer, DecoderLayer)])


class Transformer(nn.Module):
    """The translation model; `fusion=PLAIN` is the plain one, of which every fused model holds all tensors by name.

        model = Transformer(Architecture(vocabulary=10_000), Fusion(bert_width=768))
        logits = model(source, target_in, BertView(states, real))      # (batch, target, vocabulary)

    Token ids: sentences end with `eos` and are padded on the right with `pad`; the decoder's input begins with `bos`.

    Args:
        seed: of the initial weights, and of drop-net's generator. A tensor's start depends on seed and name alone:
            a plain and a fused model of one seed begin with the same weights where they share names. [ours]

    Attributes:
        drop_net: its `state_dict` belongs into a checkpoint beside the model's.
        mixture: (r_native, r_BERT) outside of training; see `branches`.
        report: of `fuse`, a WarmStart.
    """

    position_table: Tensor

    def __init__(self, sizes: Architecture, fusion: Fusion = PLAIN, seed: int = 0) -> None:
        super().__init__()
        self.sizes, self.fusion, self.mixture = sizes, fusion, fusion.mixture
        self.report: Any = None
        self.embed_tokens = nn.Embedding(sizes.vocabulary, sizes.width, padding_idx=sizes.pad)
        self.embed_targets = (
            nn.Embedding(sizes.target_vocabulary, sizes.width, padding_idx=sizes.pad)
            if sizes.target_vocabulary
            else None
        )
        self.encoder, self.decoder = Encoder(sizes, fusion), Decoder(sizes, fusion)
        self.output_bias = nn.Parameter(torch.zeros(sizes.outputs)) if sizes.output_bias else None
        table = sinusoids(sizes.longest, sizes.width, sizes.positions)
        self.register_buffer("position_table", table, persistent=False)
        self.drop_net = DropNet(fusion.drop_net, seed, skip=fusion.skip, mixture=fusion.mixture)
        initialize(self, seed)

    def forward(
        self,
        source: Int[Tensor, "batch source"],
        target_in: Int[Tensor, "batch target"],
        bert: BertView | None = None,
    ) -> Float[Tensor, "batch target vocabulary"]:
        """Logits of the token that follows each prefix of the target."""
        return self.logits(self.decode(target_in, self.encode(source, bert)))

    def encode(self, source: Int[Tensor, "batch source"], bert: BertView | None = None) -> Encoded:
        """Everything that depends on the source alone; in training, drop-net draws here for both sides.

        Raises:
            InputError: a sentence is too long, or the model is fused and BERT's view is missing or does not fit.
        """
        return self.encode_embedded(self._embed(source), source != self.sizes.pad, bert)

    def encode_embedded(
        self,
        x: Float[Tensor, "batch source width"],
        real: Bool[Tensor, "batch source"],
        bert: BertView | None = None,
    ) -> Encoded:
        """`encode` from x^0: for an encoder whose input is something else than the tokens' embeddings."""
        self._check(len(x), bert)
        mixes = self._mixes()
        bert_mask = None if bert is None else bert.real[:, None, None]
        memories = self._bert_memories(mixes, bert)
        mask, count = real[:, None, None], len(self.encoder.layers)
        for layer, memory, mix in zip(self.encoder, memories, mixes, strict=False):
            x = layer(x, mask, memory, bert_mask, mix)
        return self.remember(x, real, memories[count:], bert_mask, mixes[count:])

    def remember(
        self,
        states: Float[Tensor, "batch source width"],
        real: Bool[Tensor, "batch source"],
        bert: list[KeysValues | None] | None = None,
        bert_mask: Bool[Tensor, "batch 1 1 words"] | None = None,
        mixes: list[Mix] | None = None,
    ) -> Encoded:
        """What the decoder attends to, from the states of any encoder."""
        count = len(self.decoder.layers)
        memories = project_together([layer.encoder_attn for layer in self.decoder], states)
        nothing: list[KeysValues | None] = [None] * count
        native: list[Mix] = [(1.0, 0.0)] * count
        return Encoded(states, real[:, None, None], memories, bert or nothing, bert_mask, mixes or native)

    def decode(self, target_in: Int[Tensor, "batch target"], encoded: Encoded) -> Float[Tensor, "batch target width"]:
        """The decoder's states y^L for all prefixes at once. Padding on the right of a target disturbs nothing."""
        return self.decode_embedded(self._embed(target_in, self._target_embedding), encoded)

    def decode_embedded(
        self, y: Float[Tensor, "batch target width"], encoded: Encoded, caches: list[SelfCache] | None = None
    ) -> Float[Tensor, "batch target width"]:
        """`decode` from y^0. With caches, y holds the newest token of each hypothesis; see `DecoderLayer`."""
        memories = zip(encoded.encoder, encoded.bert, encoded.mixes, strict=True)
        for index, (layer, memory) in enumerate(zip(self.decoder, memories, strict=True)):
            cache = None if caches is None else caches[index]
            y = layer(y, memory[0], encoded.mask, memory[1], encoded.bert_mask, memory[2], cache)
        return y

    def logits(self, states: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch vocabulary"]:
        return F.linear(states, self._target_embedding.weight, self.output_bias)

    def embed_at(self, tokens: Int[Tensor, "batch beam"], position: int) -> Float[Tensor, "batch beam width"]:
        """y^0 of tokens that all stand at one position."""
        self._check_length(position + 1)
        x = self._target_embedding(tokens) * math.sqrt(self.sizes.width) + self.position_table[position]
        return F.dropout(x, self.sizes.dropout, self.training)

    @property
    def _target_embedding(self) -> nn.Embedding:
        return self.embed_tokens if self.embed_targets is None else self.embed_targets

    def _embed(
        self, tokens: Int[Tensor, "batch length"], embedding: nn.Embedding | None = None
    ) -> Float[Tensor, "batch length width"]:
        """x^0 of source tokens, or of those that `embedding` knows."""
        self._check_length(tokens.shape[1])
        x = (embedding or self.embed_tokens)(tokens) * math.sqrt(self.sizes.width) + self.position_table[
            : tokens.shape[1]
        ]
        return F.dropout(x, self.sizes.dropout, self.training)

    def _check_length(self, length: int) -> None:
        if length > self.sizes.longest:
            raise InputError(
                f"a sentence has {length} tokens, and the model takes {self.sizes.longest} at most. "
                "Split it, or build the model with a larger `longest`."
            )

    def _check(self, batch: int, bert: BertView | None) -> None:
        """Raises InputError where BERT's view is missing or does not fit."""
        if self.fusion.mode == "off" or (bert is None and self.mixture[1] == 0 and not self.training):
            return
        if bert is None:
            raise InputError("this model is fused with BERT: give `bert`, a BertView of the same sentences.")
        if len(bert.states) != batch or bert.states.shape[-1] != self.fusion.bert_width:
            raise InputError(
                f"BERT's states must be ({batch}, words, {self.fusion.bert_width}); got {tuple(bert.states.shape)}."
            )

    def _bert_attentions(self) -> list[Attention | None]:
        """attn_B of every layer, encoder first; None where a layer has none."""
        return [*(layer.bert_attn for layer in self.encoder), *(layer.bert_attn for layer in self.decoder)]

    def _mixes(self) -> list[Mix]:
        """(r_native, r_BERT) of every layer for one pass. Outside of training nothing is drawn."""
        fused = [attention is not None for attention in self._bert_attentions()]
        drawn = iter(self.drop_net.draw(sum(fused)) if self.training and any(fused) else [])
        mixes: list[Mix] = [(next(drawn) if self.training else self.mixture) if h else (1.0, 0.0) for h in fused]
        if self.fusion.mode == "stacked":
            first = len(self.encoder.layers)
            mixes[first:] = [(1.0, 1.0 if h and self.mixture[1] else 0.0) for h in fused[first:]]
        device = self.embed_tokens.weight.device
        return [(_to(r0, device), _to(r1, device)) for r0, r1 in mixes]

    def _bert_memories(self, mixes: list[Mix], bert: BertView | None) -> list[KeysValues | None]:
        """H_B as keys and values of every layer that listens to it in this pass."""
        listens = [isinstance(r1, Tensor) or bool(r1) for _, r1 in mixes]
        if bert is None:
            return [None] * len(mixes)
        attentions = [a for a, yes in zip(self._bert_attentions(), listens, strict=True) if yes and a is not None]
        projected = iter(project_together(attentions, bert.states))
        return [next(projected) if yes else None for yes in listens]


def _to(weight: float | Tensor, device: torch.device) -> float | Tensor:
    return weight.to(device) if isinstance(weight, Tensor) else weight


@contextlib.contextmanager
def branches(model: Transformer, native: float, bert: float) -> Iterator[Transformer]:
    """Inside of the block, other weights of the two branches outside of training: (1, 0) is the native one alone."""
    before = model.mixture
    model.mixture = (float(native), float(bert))
    try:
        yield model
    finally:
        model.mixture = before


def sinusoids(length: int, width: int, kind: Positions = "fairseq") -> Float[Tensor, "length width"]:
    """Sines in the first half, cosines in the second: p_t = [sin(t w_j), cos(t w_j)].

    w_j = 10000^(-j / (d/2 - 1)) in fairseq, 10000^(-j / (d/2)) in Marian; t is counted from 0.
    """
    half = width // 2
    steps = max(half - 1, 1) if kind == "fairseq" else half
    frequencies = torch.exp(torch.arange(half, dtype=torch.float64) * -(math.log(10000) / steps))
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1).float()


def initialize(model: Transformer, seed: int) -> None:
    """Draw all weights anew as the official code does, each from a generator of (seed, its name).

    Embeddings N(0, 1/d), the padding's 0; matrices Xavier-uniform, biases 0; LayerNorms 1 and 0. The native attentions'
    q, k, v are one (3 d, d) matrix, bound sqrt(6 / 4 d); attn_B has three, bounds sqrt(6 / 2 d) and
    sqrt(6 / (d + d_B)): it starts with larger weights.
    """
    for name, value in model.named_parameters():
        draw = torch.Generator(value.device).manual_seed(derive(seed, zlib.crc32(name.encode())))
        if name in EMBEDDINGS:
            nn.init.normal_(value, 0, model.sizes.width**-0.5, generator=draw)
            with torch.no_grad():
                value[model.sizes.pad] = 0
        elif value.dim() == 2:
            nn.init.xavier_uniform_(value, generator=draw)
        elif name.endswith("norm.weight"):
            nn.init.ones_(value)
        else:
            nn.init.zeros_(value)


__all__ = [
    "EMBEDDINGS",
    "HALVES",
    "MODES",
    "PLAIN",
    "Architecture",
    "BertView",
    "Encoded",
    "Fusion",
    "Mode",
    "Transformer",
    "branches",
    "initialize",
    "sinusoids",
]
