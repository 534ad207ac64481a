"""From and to the Marian of transformers: checkpoints that people have, and a second opinion on every number.

Marian is a plain post-norm Transformer with tied embeddings. Any of its checkpoints can be fused with a BERT:

    plain = from_marian(MarianMTModel.from_pretrained("path/to/opus-mt-en-de", local_files_only=True))
    model = fuse(plain, bert)
"""

from typing import Any

import torch
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.bertfused.method.layers import ACTIVATIONS, Activation, Architecture, Positions
from labkit.papers.bertfused.method.transformer import Transformer, sinusoids

SWISH = "swish"  # what Marian's configs call silu


def from_marian(marian: Any) -> Transformer:
    """A plain Transformer with the weights of a `MarianMTModel`; gives the same logits.

    Raises:
        InputError: not a Marian, or one whose embeddings are not shared, or are not scaled.
    """
    if getattr(getattr(marian, "config", None), "model_type", None) != "marian":
        raise InputError(f"a MarianMTModel of transformers is needed; got {type(marian).__name__}.")
    config: Any = marian.config
    activation: Any = "silu" if config.activation_function == SWISH else config.activation_function
    for what, fine in {
        "shared embeddings": config.share_encoder_decoder_embeddings and config.tie_word_embeddings,
        "embeddings that are scaled by sqrt(d)": config.scale_embedding,
        "as many heads in encoder and decoder": config.encoder_attention_heads == config.decoder_attention_heads,
        "feed-forward networks of one width": config.encoder_ffn_dim == config.decoder_ffn_dim,
        f"an activation among {', '.join(ACTIVATIONS)}": activation in ACTIVATIONS,
    }.items():
        if not fine:
            raise InputError(f"only a Marian with {what} can be taken over, and this one has other ones.")
    theirs = marian.state_dict()
    model = Transformer(_sizes(config, activation, _positions(theirs["model.encoder.embed_positions.weight"])))
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(torch.cat([theirs[source].reshape(-1, *value.shape[1:]) for source in _sources(name)]))
    return model.to(theirs["model.shared.weight"].dtype).eval()


def to_marian(model: Transformer) -> Any:
    """A `MarianMTModel` with the weights and positions of a plain Transformer: for `generate`, or for CTranslate2.

    Raises:
        InputError: the model is fused, and Marian has no attention to BERT; or its vocabularies are separate.
    """
    import transformers

    if model.fusion.mode != "off":
        raise InputError("a fused model cannot become a Marian, which has no attention to BERT; a plain one can.")
    sizes = model.sizes
    if sizes.target_vocabulary:
        raise InputError("only a model whose source and target share a vocabulary can become a Marian here.")
    config = transformers.MarianConfig(
        vocab_size=sizes.vocabulary, d_model=sizes.width, max_position_embeddings=sizes.longest,
        encoder_layers=sizes.encoder_layers, encoder_ffn_dim=sizes.feed_forward, encoder_attention_heads=sizes.heads,
        decoder_layers=sizes.decoder_layers, decoder_ffn_dim=sizes.feed_forward, decoder_attention_heads=sizes.heads,
        activation_function=SWISH if sizes.activation == "silu" else sizes.activation, dropout=sizes.dropout,
        attention_dropout=0.0, activation_dropout=0.0, scale_embedding=True, pad_token_id=sizes.pad,
        eos_token_id=sizes.eos, bos_token_id=sizes.bos, decoder_start_token_id=sizes.bos,
        forced_eos_token_id=sizes.eos,
    )  # fmt: skip
    marian = transformers.MarianMTModel(config).eval()
    theirs, ours = marian.state_dict(), model.state_dict()
    with torch.no_grad():
        for name, value in ours.items():
            parts = value.chunk(len(_sources(name)))
            for source, part in zip(_sources(name), parts, strict=True):
                theirs[source].copy_(part.reshape(theirs[source].shape))
        for side in ("encoder", "decoder"):
            theirs[f"model.{side}.embed_positions.weight"].copy_(model.position_table)
    return marian


def _positions(table: Tensor) -> Positions:
    """Whose sinusoids these are: Marian's, unless `to_marian` put fairseq's there."""
    kinds: tuple[Positions, ...] = ("marian", "fairseq")
    for kind in kinds:
        if torch.allclose(table.float(), sinusoids(table.shape[0], table.shape[1], kind), atol=1e-3):
            return kind
    raise InputError("only a Marian with sinusoidal positions can be taken over, and this one has other ones.")


def _sizes(config: Any, activation: Activation, positions: Positions) -> Architecture:
    return Architecture(
        vocabulary=config.vocab_size, width=config.d_model, feed_forward=config.encoder_ffn_dim,
        heads=config.encoder_attention_heads, encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers, dropout=config.dropout, activation=activation, positions=positions,
        output_bias=True, longest=config.max_position_embeddings, pad=config.pad_token_id,
        bos=config.decoder_start_token_id, eos=config.eos_token_id,
    )  # fmt: skip


def _sources(name: str) -> list[str]:
    """Marian's names of one of our tensors: the query's, key's and value's projections are three there."""
    if name == "embed_tokens.weight":
        return ["model.shared.weight"]
    if name == "output_bias":
        return ["final_logits_bias"]
    if ".in_proj." in name:
        return [f"model.{name.replace('in_proj', f'{part}_proj')}" for part in "qkv"]
    return [f"model.{name}"]


def marian_inputs(source: Tensor, pad: int) -> dict[str, Tensor]:
    """What `MarianMTModel` and its `generate` take for padded ids."""
    return {"input_ids": source, "attention_mask": (source != pad).long()}
