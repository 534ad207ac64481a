"""What the fused model is compared with: other ways to use BERT, and the previous sentence without BERT.

Each is a Transformer that gets the same batches; only where BERT enters differs.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from labkit.papers.bertfused.method.layers import Architecture
from labkit.papers.bertfused.method.transformer import PLAIN, BertView, Encoded, Fusion, Transformer
from labkit.seeds import derive


class BertEncoder(Transformer):
    """BERT *is* the encoder, and is trained on: 27.14 BLEU where the plain model has 28.57 [paper].

    The decoder attends to W H_B + b; a BERT of another width cannot be attended to without W [ours]. The layers of the
    Transformer's own encoder are left out.
    """

    def __init__(self, sizes: Architecture, bert_width: int, seed: int = 0) -> None:
        super().__init__(sizes, PLAIN, seed)
        self.encoder.layers = nn.ModuleList()
        self.project = _projection(bert_width, sizes.width, seed)

    def encode(self, source: Int[Tensor, "batch source"], bert: BertView | None = None) -> Encoded:
        assert bert is not None
        return self.remember(self.project(bert.states), bert.real)


class BertInput(Transformer):
    """BERT's output takes the place of the source's embeddings, the encoder stands on top: 29.67 BLEU [paper].

    The source is read in BERT's words then; x^0 = drop(W H_B + b + positions) [inferred].
    """

    def __init__(self, sizes: Architecture, bert_width: int, seed: int = 0) -> None:
        super().__init__(sizes, PLAIN, seed)
        self.project = _projection(bert_width, sizes.width, seed)

    def encode(self, source: Int[Tensor, "batch source"], bert: BertView | None = None) -> Encoded:
        assert bert is not None
        self._check_length(bert.states.shape[1])
        x = self.project(bert.states) + self.position_table[: bert.states.shape[1]]
        return self.encode_embedded(F.dropout(x, self.sizes.dropout, self.training), bert.real)


class Context(Transformer):
    """The document baseline without BERT: attn_B looks at the embeddings of the sentence before, d_B = d.

    28.90 BLEU against 28.57 without [paper; its exact form is recalled]. `bert.states` holds token ids of the
    translation model, (batch, words, 1): they are embedded here, with this model's own embeddings.
    """

    def __init__(self, sizes: Architecture, drop_net: float, seed: int = 0) -> None:
        super().__init__(sizes, Fusion(bert_width=sizes.width, drop_net=drop_net), seed)

    def encode(self, source: Int[Tensor, "batch source"], bert: BertView | None = None) -> Encoded:
        assert bert is not None
        return super().encode(source, BertView(self._embed(bert.states[..., 0].long()), bert.real))


class Bilingual(Transformer):
    """One model for both directions, as unsupervised translation wants it: an embedding for each of two languages.

    It is added to every token of a sentence [inferred from XLM]. `direction` says from which language to which one the
    next pass goes.
    """

    def __init__(self, sizes: Architecture, fusion: Fusion = PLAIN, seed: int = 0) -> None:
        super().__init__(sizes, fusion, seed)
        draw = torch.Generator().manual_seed(derive(seed, 2))
        self.languages = nn.Parameter(torch.randn(2, sizes.width, generator=draw) * sizes.width**-0.5)
        self.direction = (0, 1)

    def encode(self, source: Int[Tensor, "batch source"], bert: BertView | None = None) -> Encoded:
        x = self._embed(source) + self._language(0)
        return self.encode_embedded(x, source != self.sizes.pad, bert)

    def decode(self, target_in: Int[Tensor, "batch target"], encoded: Encoded) -> Float[Tensor, "batch target width"]:
        return self.decode_embedded(self._embed(target_in) + self._language(1), encoded)

    def embed_at(self, tokens: Int[Tensor, "batch beam"], position: int) -> Float[Tensor, "batch beam width"]:
        return super().embed_at(tokens, position) + self._language(1)

    def _language(self, side: int) -> Float[Tensor, " width"]:
        return self.languages[self.direction[side]] * math.sqrt(self.sizes.width)


def _projection(bert_width: int, width: int, seed: int) -> nn.Linear:
    linear = nn.Linear(bert_width, width)
    nn.init.xavier_uniform_(linear.weight, generator=torch.Generator().manual_seed(derive(seed, 1)))
    nn.init.zeros_(linear.bias)
    return linear
