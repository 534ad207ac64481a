"""The model of an arm."""

from labkit.papers.bertfused.experiment.baselines import BertEncoder, BertInput
from labkit.papers.bertfused.experiment.config import Arm
from labkit.papers.bertfused.method.layers import Architecture
from labkit.papers.bertfused.method.transformer import Transformer


def build(arm: Arm, sizes: Architecture, bert_width: int, seed: int, skip: bool = True) -> Transformer:
    """Freshly initialized; all arms of one seed begin with the same weights where they share names.

    Args:
        bert_width: d_B; no matter for a plain arm.
        skip: see `Fusion`.
    """
    if arm.kind == "encoder":
        return BertEncoder(sizes, bert_width, seed)
    if arm.kind == "input":
        return BertInput(sizes, bert_width, seed)
    return Transformer(sizes, arm.fusion(bert_width, skip), seed)
