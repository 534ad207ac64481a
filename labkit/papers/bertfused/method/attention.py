"""Multi-head attention, with what the fused model asks of it: a memory of another width, keys and values made ahead.

attn(q, K, V) = concat_i softmax(q W_i^q (K W_i^k)^T / sqrt(d_h) + mask) V W_i^v  W^o + b^o         d_h = d / h
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from labkit.errors import InputError


class KeysValues(NamedTuple):
    """A memory as the heads see it."""

    keys: Float[Tensor, "batch heads length head_width"]
    values: Float[Tensor, "batch heads length head_width"]


class Attention(nn.Module):
    """Attention with h heads; queries of width d, a memory of width d or, for BERT, d_B.

    Keys, values and queries of the native attentions share one (3 d, d) matrix as in the [official code], which decides
    how widely they are initialized; the attention to BERT has three separate ones.

    Args:
        memory_width: d_B; None: the memory has the queries' width and the three projections share a matrix.
    """

    def __init__(self, width: int, heads: int, memory_width: int | None = None) -> None:
        super().__init__()
        if width < 1 or heads < 1 or width % heads:
            raise InputError(f"the width must be a multiple of the number of heads; got {width} and {heads}.")
        self.heads, self.width, self.joint = heads, width, memory_width is None
        if memory_width is None:
            self.in_proj = nn.Linear(width, 3 * width)
        else:
            self.q_proj = nn.Linear(width, width)
            self.k_proj = nn.Linear(memory_width, width)
            self.v_proj = nn.Linear(memory_width, width)
        self.out_proj = nn.Linear(width, width)
        self.watched: list[Tensor] | None = None  # see `watch`

    def queries(self, x: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch heads length head_width"]:
        if self.joint:
            return self._split(F.linear(x, self.in_proj.weight[: self.width], self.in_proj.bias[: self.width]))
        return self._split(self.q_proj(x))

    def memory(self, x: Float[Tensor, "batch length memory_width"]) -> KeysValues:
        """Keys and values of a memory, to be attended to as often as one likes."""
        if self.joint:
            keys, values = F.linear(x, *self.key_value_parameters()).chunk(2, -1)
        else:  # two products: one would have to copy the weights
            keys, values = self.k_proj(x), self.v_proj(x)
        return KeysValues(self._split(keys), self._split(values))

    def key_value_parameters(self) -> tuple[Float[Tensor, "two_width memory_width"], Float[Tensor, " two_width"]]:
        """Weight and bias of the keys' projection above those of the values'."""
        if self.joint:
            return self.in_proj.weight[self.width :], self.in_proj.bias[self.width :]
        weight = torch.cat([self.k_proj.weight, self.v_proj.weight])
        return weight, torch.cat([self.k_proj.bias, self.v_proj.bias])

    def itself(
        self, x: Float[Tensor, "batch length width"]
    ) -> tuple[Float[Tensor, "batch heads length head_width"], KeysValues]:
        """Queries, keys and values of the same x, by one product."""
        q, k, v = (self._split(part) for part in self.in_proj(x).chunk(3, -1))
        return q, KeysValues(k, v)

    def attend(
        self,
        q: Float[Tensor, "batch heads length head_width"],
        memory: KeysValues,
        mask: Bool[Tensor, "batch 1 #length memory_length"] | None = None,
        causal: bool = False,
    ) -> Float[Tensor, "batch length width"]:
        """attn of the formula above.

        Args:
            mask: True where a key may be looked at; at least one a row.
            causal: query t sees keys up to t.
        """
        if self.watched is not None:
            self.watched.append(attention_weights(q, memory.keys, mask, causal))
        context = F.scaled_dot_product_attention(q, memory.keys, memory.values, attn_mask=mask, is_causal=causal)
        return self.out_proj(context.transpose(1, 2).flatten(2))

    def _split(self, x: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch heads length head_width"]:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def attention_weights(
    q: Float[Tensor, "batch heads length head_width"],
    keys: Float[Tensor, "batch heads memory_length head_width"],
    mask: Bool[Tensor, "batch 1 #length memory_length"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "batch heads length memory_length"]:
    """softmax(q K^T / sqrt(d_h) + mask): what each query looks at; rows sum to 1."""
    scores = q @ keys.mT / math.sqrt(q.shape[-1])
    if causal:
        scores = scores.masked_fill(~torch.ones_like(scores[0, 0], dtype=torch.bool).tril(), -math.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(-1)


def project_together(
    attentions: Sequence[Attention], memory: Float[Tensor, "batch length memory_width"], stacked: bool | None = None
) -> list[KeysValues]:
    """Keys and values of one memory for many attentions.

    H_B does not depend on the layer: with the weights one above the other, one product (T_B, d_B) x (d_B, 2 n d) takes
    the place of 2 n, n the number of attentions.

    Args:
        stacked: by one product; None: on a GPU. The weights are copied for it, which a CPU does not win back.
    """
    if not attentions:
        return []
    if not (memory.is_cuda if stacked is None else stacked):
        return [attention.memory(memory) for attention in attentions]
    parameters = [attention.key_value_parameters() for attention in attentions]
    weight, bias = torch.cat([weight for weight, _ in parameters]), torch.cat([bias for _, bias in parameters])
    parts = F.linear(memory, weight, bias).chunk(2 * len(attentions), -1)
    return [
        KeysValues(attention._split(keys), attention._split(values))
        for attention, keys, values in zip(attentions, parts[::2], parts[1::2], strict=True)
    ]


@contextlib.contextmanager
def watch(model: nn.Module) -> Iterator[dict[str, list[Float[Tensor, "batch heads length memory_length"]]]]:
    """Inside of the block, the weights of every attention of `model` by its name, one tensor a call.

    with watch(model) as weights:
        model(source, target_in, bert)
    weights["decoder.layers.0.bert_attn"][0]    # (batch, heads, target words, WordPieces)
    """
    modules = {name: module for name, module in model.named_modules() if isinstance(module, Attention)}
    weights: dict[str, list[Tensor]] = {name: [] for name in modules}
    for name, module in modules.items():
        module.watched = weights[name]
    try:
        yield weights
    finally:
        for module in modules.values():
            module.watched = None
