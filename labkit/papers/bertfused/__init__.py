"""BERT-fused neural machine translation (Zhu et al., ICLR 2020, arXiv 2002.06823)."""

from typing import TYPE_CHECKING

from labkit.lazy import lazily
from labkit.workbench.experiment import Paper

if TYPE_CHECKING:
    from labkit.papers.bertfused.experiment.config import ARMS, Arm, Config
    from labkit.papers.bertfused.experiment.export import load, save
    from labkit.papers.bertfused.method.bert import Bert, minilm
    from labkit.papers.bertfused.method.marian import from_marian
    from labkit.papers.bertfused.method.transformer import Architecture, BertView, Fusion, Transformer
    from labkit.papers.bertfused.method.translator import Translator
    from labkit.papers.bertfused.method.warm_start import WarmStart, fuse, warm_start
    from labkit.papers.bertfused.method.xlm import Xlm
    from labkit.text.bpe import Bpe

PAPER = Paper(
    room=__name__,
    title="Incorporating BERT into Neural Machine Translation",
    arxiv="2002.06823",
    venue="ICLR 2020",
    idea="A frozen BERT reads the sentence, too, and every layer of the translation model attends to what it says.",
    notebook="08_bertfused",
    needs={"gpu": ("multi30k",), "full": ("iwslt14", "bert-base-uncased")},
)

__all__ = [
    "ARMS",
    "PAPER",
    "Architecture",
    "Arm",
    "Bert",
    "BertView",
    "Bpe",
    "Config",
    "Fusion",
    "Transformer",
    "Translator",
    "WarmStart",
    "Xlm",
    "from_marian",
    "fuse",
    "load",
    "minilm",
    "save",
    "warm_start",
]

__getattr__, __dir__ = lazily(__name__)
