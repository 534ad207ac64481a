"""The layers: a post-norm Transformer's, where an attention to BERT may stand beside the native one.

    encoder    x = LN(x + r0 drop(attn_S(x, x, x)) + r1 drop(attn_B(x, H_B, H_B)))
               x = LN(x + drop(FFN(x)))

    decoder    y = LN(y + drop(attn_S(y, y<=t, y<=t)))
               y = LN(y + r0 drop(attn_E(y, H_E, H_E)) + r1 drop(attn_B(y, H_B, H_B)))
               y = LN(y + drop(FFN(y)))

One residual and one LayerNorm hold both branches, so that all tensors but those of attn_B have the names and shapes of
the plain model [official code]. Where the branches are *stacked*, a variant that the paper finds worse, the attention
to BERT comes first and has a residual and a LayerNorm of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.kernels.residual_norm import residual_norm
from labkit.papers.bertfused.method.attention import Attention, KeysValues
from labkit.papers.bertfused.method.drop_net import Mix
from labkit.ranges import within

Activation = Literal["relu", "gelu", "silu"]
Positions = Literal["fairseq", "marian"]

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}


@dataclass(frozen=True)
class Architecture:
    """Sizes of the Transformer; the defaults are `transformer_iwslt_de_en` of the official code."""

    vocabulary: int
    """Of the source; the target and the output share it, and one matrix of embeddings, unless they have their own."""
    width: int = 512
    """d"""
    feed_forward: int = 1024
    heads: int = 4
    encoder_layers: int = 6
    decoder_layers: int = 6
    dropout: float = 0.3
    activation: Activation = "relu"
    positions: Positions = "fairseq"
    """Whose sinusoids: the frequencies fall to 1/10000 with the last one (fairseq), or just before it (Marian)."""
    output_bias: bool = False
    """Marian adds a bias to the logits."""
    longest: int = 1024
    """Tokens a sentence may have."""
    pad: int = 0
    bos: int = 1
    """What the decoder begins with. fairseq begins with `eos`, Marian with `pad`."""
    eos: int = 2
    target_vocabulary: int = 0
    """Of a target that shares none with the source; its embeddings are the output's, too. 0: one for both sides."""

    @property
    def outputs(self) -> int:
        """Tokens that can be written."""
        return self.target_vocabulary or self.vocabulary

    def __post_init__(self) -> None:
        within(4, 2**24, vocabulary=self.vocabulary, width=self.width, target_vocabulary=self.outputs)
        within(1, 2**20, feed_forward=self.feed_forward, heads=self.heads, longest=self.longest)
        within(1, 1000, encoder_layers=self.encoder_layers, decoder_layers=self.decoder_layers)
        within(0, 0.99, dropout=self.dropout)
        within(0, min(self.vocabulary, self.outputs) - 1, pad=self.pad, bos=self.bos, eos=self.eos)
        if self.width % self.heads or self.width % 2:
            raise InputError(f"width must be even and a multiple of heads, {self.heads}; got {self.width}.")
        if self.activation not in ACTIVATIONS:
            raise InputError(f"activation must be one of {', '.join(ACTIVATIONS)}; got '{self.activation}'.")


class _FeedForward(nn.Module):
    """What both kinds of layers end with. The names are fairseq's."""

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        self.dropout, self.activation = sizes.dropout, ACTIVATIONS[sizes.activation]
        self.fc1 = nn.Linear(sizes.width, sizes.feed_forward)
        self.fc2 = nn.Linear(sizes.feed_forward, sizes.width)
        self.final_layer_norm = nn.LayerNorm(sizes.width)

    def _feed_forward(self, x: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
        return self._add(x, self.final_layer_norm, (1.0, lambda: self.fc2(self.activation(self.fc1(x)))))

    def _add(
        self,
        x: Float[Tensor, "batch length width"],
        norm: nn.LayerNorm,
        *branches: tuple[float | Tensor, Callable[[], Tensor]],
    ) -> Float[Tensor, "batch length width"]:
        """LN(x + sum_k r_k drop(branch_k)); branches of weight 0 are not computed."""
        computed = [(r, branch) for r, branch in branches if isinstance(r, Tensor) or r]
        values, weights = [branch() for _, branch in computed], [r for r, _ in computed]
        dropout = self.dropout if self.training else 0.0
        return residual_norm(x, values, weights, norm.weight, norm.bias, dropout=dropout, eps=norm.eps)


class EncoderLayer(_FeedForward):
    """Self-attention, beside it attn_B where `bert_width` is given, then the feed-forward network."""

    def __init__(self, sizes: Architecture, bert_width: int | None = None) -> None:
        super().__init__(sizes)
        self.self_attn = Attention(sizes.width, sizes.heads)
        self.self_attn_layer_norm = nn.LayerNorm(sizes.width)
        self.bert_attn = Attention(sizes.width, sizes.heads, bert_width) if bert_width else None

    def forward(
        self,
        x: Float[Tensor, "batch source width"],
        mask: Bool[Tensor, "batch 1 1 source"],
        bert: KeysValues | None = None,
        bert_mask: Bool[Tensor, "batch 1 1 words"] | None = None,
        mix: Mix = (1.0, 0.0),
    ) -> Float[Tensor, "batch source width"]:
        """h^l of h^{l-1}.

        Args:
            bert: H_B as keys and values of this layer's attn_B; None is allowed where `mix` gives it the number 0.
            mix: (r0, r1) of this pass.
        """

        def native() -> Tensor:
            queries, memory = self.self_attn.itself(x)
            return self.self_attn.attend(queries, memory, mask)

        def fused() -> Tensor:
            assert self.bert_attn is not None
            assert bert is not None
            return self.bert_attn.attend(self.bert_attn.queries(x), bert, bert_mask)

        x = self._add(x, self.self_attn_layer_norm, (mix[0], native), (mix[1], fused))
        return self._feed_forward(x)


class SelfCache:
    """Keys and values of what a decoder layer has written so far, in memory that doubles when it is full.

    Rows are hypotheses: sentence by sentence, `beam` of each.
    """

    def __init__(self) -> None:
        self.length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def append(self, new: KeysValues) -> KeysValues:
        """Everything so far, with the newest position at the end."""
        end = self.length + new.keys.shape[2]
        if self._keys is None or self._values is None:
            self._keys, self._values = self._room(new.keys, 16), self._room(new.values, 16)
        while end > self._keys.shape[2]:
            self._keys, self._values = (
                torch.cat([old, torch.empty_like(old)], 2) for old in (self._keys, self._values)
            )
        self._keys[:, :, self.length : end] = new.keys
        self._values[:, :, self.length : end] = new.values
        self.length = end
        return KeysValues(self._keys[:, :, :end], self._values[:, :, :end])

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        """Row i becomes what row rows[i] was."""
        if self._keys is not None and self._values is not None:
            self._keys, self._values = (part.index_select(0, rows) for part in (self._keys, self._values))

    @staticmethod
    def _room(like: Tensor, length: int) -> Tensor:
        return like.new_empty(*like.shape[:2], max(length, like.shape[2]), like.shape[3])


class DecoderLayer(_FeedForward):
    """Causal self-attention, attention to the encoder, beside it (or before it) attn_B, then the feed-forward network.

    Args:
        stacked: attn_B comes first, in a sub-block of its own: y = LN_B(y + drop(attn_B)). [official code:
            transformerstack]
    """

    def __init__(self, sizes: Architecture, bert_width: int | None = None, stacked: bool = False) -> None:
        super().__init__(sizes)
        self.self_attn = Attention(sizes.width, sizes.heads)
        self.self_attn_layer_norm = nn.LayerNorm(sizes.width)
        self.encoder_attn = Attention(sizes.width, sizes.heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(sizes.width)
        self.bert_attn = Attention(sizes.width, sizes.heads, bert_width) if bert_width else None
        self.bert_attn_layer_norm = nn.LayerNorm(sizes.width) if bert_width and stacked else None

    def forward(
        self,
        y: Float[Tensor, "batch target width"],
        encoder: KeysValues,
        mask: Bool[Tensor, "batch 1 1 source"],
        bert: KeysValues | None = None,
        bert_mask: Bool[Tensor, "batch 1 1 words"] | None = None,
        mix: Mix = (1.0, 0.0),
        cache: SelfCache | None = None,
    ) -> Float[Tensor, "batch target width"]:
        """s^l of s^{l-1}.

        With a cache, y holds the newest token of each of `target` hypotheses, in place of successive positions: these
        share the memories of their sentence, which are not repeated for them.
        """

        def itself() -> Tensor:
            if cache is None:
                return self.self_attn.attend(*self.self_attn.itself(y), causal=True)
            queries, new = self.self_attn.itself(y.reshape(-1, 1, y.shape[-1]))
            return self.self_attn.attend(queries, cache.append(new)).view_as(y)

        def native() -> Tensor:
            return self.encoder_attn.attend(self.encoder_attn.queries(y), encoder, mask)

        def fused() -> Tensor:
            assert self.bert_attn is not None
            assert bert is not None
            return self.bert_attn.attend(self.bert_attn.queries(y), bert, bert_mask)

        y = self._add(y, self.self_attn_layer_norm, (1.0, itself))
        if self.bert_attn_layer_norm is None:
            y = self._add(y, self.encoder_attn_layer_norm, (mix[0], native), (mix[1], fused))
        else:
            if isinstance(mix[1], Tensor) or mix[1]:  # 0 takes the whole sub-block out
                y = self._add(y, self.bert_attn_layer_norm, (mix[1], fused))
            y = self._add(y, self.encoder_attn_layer_norm, (mix[0], native))
        return self._feed_forward(y)
