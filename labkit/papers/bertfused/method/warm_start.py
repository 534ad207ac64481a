"""The second stage begins with the first one's weights; what was taken is said, and what does not fit is refused.

Users of the official code found fused models below the plain one, because a checkpoint under another name was never
loaded and `strict=False` hid it. Without the warm start the paper itself measures 27.03 BLEU against 30.45.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.bertfused.method.bert import Bert
from labkit.papers.bertfused.method.transformer import EMBEDDINGS, Fusion, Mode, Transformer


@dataclass(frozen=True)
class WarmStart:
    """Names of tensors: taken from the plain model, and new, which begin at random: attn_B alone."""

    loaded: tuple[str, ...]
    new: tuple[str, ...]

    def __str__(self) -> str:
        layers = sorted({name.partition(".bert_attn")[0] for name in self.new})
        fresh = f"{len(self.new)} new (attention to BERT in {len(layers)} layers)" if self.new else "none new"
        return f"warm start: {len(self.loaded)} tensors loaded, {fresh}, none missing, none left over"


def warm_start(model: Transformer, tensors: Mapping[str, Tensor]) -> WarmStart:
    """Copy `tensors`, a trained model's `state_dict`, into `model`; only those of attn_B may be missing.

    Optimizer and schedule begin anew. This is not function preserving: half of what each mixed sub-block had learned
    makes room for the random branch, so the validation loss jumps and then recovers.

    Raises:
        InputError: tensors are missing, left over, or of another shape; nothing was changed. Names them.
    """
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in tensors]
    new = [name for name in missing if ".bert_attn" in name]
    lost = [name for name in missing if ".bert_attn" not in name]
    left_over = [name for name in tensors if name not in wanted]
    shapes = {name: (tuple(tensors[name].shape), tuple(wanted[name].shape)) for name in wanted if name in tensors}
    misfits = {name: pair for name, pair in shapes.items() if pair[0] != pair[1]}
    for name in misfits.keys() & set(EMBEDDINGS):
        (rows, width), (here, wanted_width) = misfits[name]
        if width == wanted_width:
            raise InputError(
                f"the plain model has {rows} entries in its vocabulary, the fused one {here}: "
                "both need the same tokenizer, in the same order. Nothing was loaded."
            )
    problems = [f"{_some(lost)} missing"] if lost else []
    problems += [f"{_some(left_over)} left over"] if left_over else []
    problems += [f"{name} is {theirs} and should be {here}" for name, (theirs, here) in list(misfits.items())[:3]]
    if problems:
        raise InputError(f"the warm start does not fit, and nothing was loaded: {'; '.join(problems)}.")
    with torch.no_grad():
        for name, value in wanted.items():
            if name in tensors:
                value.copy_(tensors[name])
    return WarmStart(tuple(name for name in wanted if name in tensors), tuple(new))


def fuse(
    plain: nn.Module,
    bert: Bert | int,
    mode: Mode = "both",
    drop_net: float = 1.0,
    seed: int = 0,
) -> Transformer:
    """A fused model that begins with what `plain` has learned; `plain` stays as it is.

        bert = Bert.from_folder("path/to/any-hugging-face-encoder")
        model = fuse(plain, bert)
        logits = model(source, target_in, bert(sentences))

    Args:
        plain: a plain Transformer of this room; `from_marian` makes one of a Marian.
        bert: what will be attended to, or its width d_B alone.
        mode, drop_net: see `Fusion`.
        seed: of attn_B's weights and of drop-net.

    Returns:
        The model, in training mode as `plain` is; its `report` says what was loaded and what is new.

    Raises:
        InputError: `plain` is fused already, or there is nothing to fuse.
    """
    if not isinstance(plain, Transformer):
        raise InputError(
            f"a Transformer of this room can be fused; got {type(plain).__name__}. "
            "A Marian of transformers becomes one by from_marian(model)."
        )
    if plain.fusion.mode != "off":
        raise InputError(
            f"this model is fused already (mode '{plain.fusion.mode}'): train it on, or start from a plain one."
        )
    if mode == "off":
        raise InputError("mode 'off' fuses nothing: use the plain model.")
    width = bert if isinstance(bert, int) else bert.width
    model = Transformer(plain.sizes, Fusion(mode=mode, bert_width=width, drop_net=drop_net), seed)
    model.to(plain.embed_tokens.weight.device, plain.embed_tokens.weight.dtype)
    model.report = warm_start(model, plain.state_dict())
    return model.train(plain.training)


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
