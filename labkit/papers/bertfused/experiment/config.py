"""What is compared (arms), under which settings (experiments), and what is asked for at each scale."""

from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import Field, field_validator, model_validator

from labkit.papers.bertfused.method.transformer import Fusion, Mode
from labkit.papers.bertfused.method.xlm import Start
from labkit.text.bpe import SMALLEST
from labkit.workbench.experiment import EXECUTION, Scale
from labkit.workbench.experiment import Config as BaseConfig

Experiment = Literal["sentences", "documents", "semi-supervised", "unsupervised"]
EXPERIMENTS: tuple[Experiment, ...] = get_args(Experiment)
WITH_DOCUMENTS = ("grammar", "iwslt14", "iwslt17")
CORPORA = ("grammar", "multi30k", "iwslt14", "iwslt17", "wmt14", "wmt16")


@dataclass(frozen=True)
class Arm:
    """One way to translate.

    kind: plain; fused; encoder: BERT is the encoder; input: the encoder reads BERT's output; xlm: plain, of XLM's size.
    xlm: what begins with XLM's weights there; the rest is random.
    features: what is attended to: bert; random: a fixed random vector for each WordPiece.
    warm: it starts from the plain model of stage 1, and else trains for both stages' steps from the start.
    fine_tuned: BERT is trained jointly.
    encoder_layers: so many times as many as the config's.
    """

    kind: Literal["plain", "fused", "encoder", "input", "xlm"] = "fused"
    mode: Mode = "both"
    drop_net: float = 1.0
    mixture: tuple[float, float] = (0.5, 0.5)
    features: Literal["bert", "random"] = "bert"
    warm: bool = True
    fine_tuned: bool = False
    encoder_layers: int = 1
    xlm: Start = "both"

    @property
    def hears(self) -> bool:
        """Whether it needs BERT, or what stands for it."""
        return self.kind not in ("plain", "xlm")

    def fusion(self, bert_width: int, skip: bool = True) -> Fusion:
        mode: Mode = self.mode if self.kind == "fused" else "off"
        return Fusion(mode, bert_width, self.drop_net, self.mixture, skip=skip)


ARMS: dict[str, Arm] = {
    "plain": Arm("plain"),
    "fused": Arm(),
    "no-drop-net": Arm(drop_net=0.0),
    "random": Arm(features="random"),
    "scratch": Arm(warm=False),
    "fine-tuned": Arm(fine_tuned=True),
    "bert-encoder": Arm("encoder", warm=False, fine_tuned=True),
    "bert-input": Arm("input", warm=False),
    "encoder-only": Arm(mode="encoder"),
    "decoder-only": Arm(mode="decoder"),
    "stacked": Arm(mode="stacked"),
    "deeper": Arm("plain", warm=False, encoder_layers=2),
    "sum": Arm(drop_net=0.0, mixture=(1.0, 1.0)),
    "xlm-encoder": Arm("xlm", warm=False, xlm="encoder"),
    "xlm-decoder": Arm("xlm", warm=False, xlm="decoder"),
    "xlm-both": Arm("xlm", warm=False),
}
"""The rows of the paper's ablation table, the controls, and the sum that the official code takes without its drop-net
flag."""
WITHOUT_XLM = tuple(name for name, arm in ARMS.items() if arm.kind != "xlm")
SETTINGS: dict[Experiment, tuple[str, ...]] = {
    "documents": ("plain", "context", "fused", "document"),
    "semi-supervised": ("supervised", "back-translation", "fused"),
    "unsupervised": ("word-by-word", "plain", "fused"),
}
"""What the other experiments compare; `labkit.papers.bertfused.experiment` has a file for each."""


class Config(BaseConfig):
    """Translate a corpus with some arms; train what they need."""

    experiments: tuple[Experiment, ...] = Field(("sentences",), min_length=1, description="settings of the abstract")
    arms: tuple[str, ...] = Field(("plain", "fused"), min_length=1, description="what sentences compares, see `ARMS`")
    data: str = Field("grammar", description=f"{', '.join(CORPORA)}, or parallel:PATH (a TSV file, or two: A,B)")
    source: str = Field("en", pattern="^[a-z]{2,3}$", description="language of the source, where a corpus has several")
    target: str = Field("de", pattern="^[a-z]{2,3}$", description="language of the target")
    pairs: int = Field(3000, ge=0, description="training pairs; 0: all that the corpus has")
    tests: int = Field(200, ge=0, description="pairs to validate and to test with, each; 0: all")
    bitext: int = Field(300, ge=0, description="pairs with translations in the semi-supervised experiment; 0: all")
    monolingual: str = Field(
        "", description="text file to translate back there; empty: the target sides of the pairs past bitext"
    )
    vocabulary: int | tuple[int, int] = Field(700, description="tokens of the joint BPE; A,B: of a separate one a side")
    lowercase: bool = Field(True, description="everything in lower case, BLEU without regard to case")

    bert: str = Field("minilm", description="minilm, random (knows nothing; for tests), or a folder of Hugging Face")
    bert_layer: int = Field(-1, description="which hidden states: -1 the last layer's, 0 those of the embeddings")
    mask_cls_sep: bool = Field(False, description="[CLS] and [SEP] are no keys")
    bert_dropout: bool = Field(False, description="BERT's own dropout is on in training [official code]; no cache then")
    official_left_pad: bool = Field(False, description="pad BERT's words on the left [official code]; no cache then")
    xlm: str = Field("", description="folder of an XLM that the arms xlm-... and unsupervised models begin with")
    cache: bool = Field(True, description="keep BERT's states on disk", json_schema_extra=EXECUTION)

    width: int = Field(128, ge=4, description="d of the Transformer")
    feed_forward: int = Field(256, ge=1, description="width of the feed-forward networks")
    heads: int = Field(4, ge=1, description="attention heads")
    layers: int = Field(2, ge=1, description="layers of the encoder, and of the decoder")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout of the Transformer")
    longest: int = Field(1024, ge=8, description="tokens a sentence may have; longer ones are not trained on")

    steps: int = Field(40, ge=1, description="updates of the plain model, stage 1")
    fused_steps: int = Field(220, ge=1, description="updates from the warm start on, stage 2")
    batch_tokens: int = Field(650, ge=8, description="a batch's sentences times its longest length, padding included")
    accumulate: int = Field(1, ge=1, description="batches to an update")
    learning_rate: float = Field(3e-3, gt=0, description="AdamW's step size at the end of the warm-up")
    bert_rate: float = Field(1.0, gt=0, description="step size of a BERT that is trained, as a share of learning_rate")
    warmup: int = Field(50, ge=1, description="updates until then; after it falls with the root of the update")
    weight_decay: float = Field(1e-4, ge=0, description="AdamW's, apart from the gradient")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="share of the loss that is spread over all tokens")
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the gradient")
    validate_every: int = Field(25, ge=1, description="updates between two looks at the validation loss")
    bf16: bool = Field(False, description="compute in bfloat16 where that is safe (autocast)")

    beam: int = Field(1, ge=1, description="hypotheses of the search; 1: greedy")
    length_penalty: float = Field(1.0, ge=0, description="a score is log p / tokens^this")
    dictionary: str = Field("", description="TSV of words for unsupervised translation; the grammar has its own")

    @field_validator("arms")
    @classmethod
    def _arms_exist(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in ARMS:
                raise ValueError(f"there is no arm '{name}'; there are {', '.join(ARMS)}")
        return _once(names)

    @field_validator("experiments")
    @classmethod
    def _each_once(cls, names: tuple[Experiment, ...]) -> tuple[Experiment, ...]:
        return _once(names)  # type: ignore[return-value]

    @field_validator("vocabulary", mode="before")
    @classmethod
    def _one_or_two_sizes(cls, value: object) -> object:
        sizes = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
        try:
            numbers = tuple(int(str(size)) for size in sizes)
        except (TypeError, ValueError):
            numbers = ()
        if len(numbers) not in (1, 2) or min(numbers) < SMALLEST:
            raise ValueError(f"a whole number of at least {SMALLEST}, all bytes and the special tokens, or two: A,B")
        return numbers if len(numbers) == 2 else numbers[0]

    @field_validator("data")
    @classmethod
    def _corpus_exists(cls, name: str) -> str:
        if name not in CORPORA and not name.startswith("parallel:"):
            raise ValueError(f"there is no corpus '{name}'; there are {', '.join(CORPORA)} and parallel:PATH")
        return name

    @model_validator(mode="after")
    def _fits(self) -> "Config":
        if self.data == "grammar" and not (self.pairs and self.tests):
            raise ValueError("the grammar has no end: `pairs` and `tests` must not be 0")
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even and a multiple of heads {self.heads}")
        if self.source == self.target:
            raise ValueError(f"source and target are both '{self.source}'")
        if not self.xlm and (needy := [name for name in self.arms if ARMS[name].kind == "xlm"]):
            raise ValueError(f"the arm '{needy[0]}' begins with an XLM: give its folder, `xlm`")
        if "unsupervised" in self.experiments and not (self.dictionary or self.xlm or self.data == "grammar"):
            raise ValueError("unsupervised translation starts from word by word: give a `dictionary` (or an `xlm`)")
        if "unsupervised" in self.experiments and not isinstance(self.vocabulary, int):
            raise ValueError("unsupervised translation has one model for both languages: give one joint vocabulary")
        if "unsupervised" in self.experiments and self.devices > 1:
            raise ValueError("unsupervised translation runs in one process: devices must be 1")
        if "documents" in self.experiments and self.data not in WITH_DOCUMENTS:
            raise ValueError(f"'{self.data}' does not say where a document begins; {', '.join(WITH_DOCUMENTS)} do")
        if "semi-supervised" in self.experiments:
            _leaves_text(self.bitext, self.pairs if self.data == "grammar" else 0, self.monolingual)
        return self


def _leaves_text(bitext: int, pairs: int, monolingual: str) -> None:
    """Raises ValueError where nothing is left to translate back. `pairs`: 0, not known yet."""
    if 0 < bitext < 20:
        raise ValueError(f"bitext {bitext} is too little to train on: 20 pairs or more, or 0, all of them")
    if not monolingual and not bitext:
        raise ValueError("with bitext 0 all pairs are training pairs: give text to translate back, `monolingual`")
    if not monolingual and pairs and bitext >= pairs:
        raise ValueError(f"bitext {bitext} leaves nothing of {pairs} pairs to translate back")


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError(f"a name stands there twice: {', '.join(names)}")
    return names


IWSLT = dict(
    width=512, feed_forward=1024, heads=4, layers=6, dropout=0.3, vocabulary=10_000, pairs=0, tests=0,
    bitext=0, batch_tokens=4000, learning_rate=5e-4, warmup=4000, clip_norm=25.0, beam=5, bf16=True,
)  # fmt: skip
"""transformer_iwslt_de_en and its training [official code]."""

CONFIGS: dict[Scale, Config] = {
    "smoke": Config(
        experiments=EXPERIMENTS, arms=("plain", "fused", "bert-input", "bert-encoder"), bert="random", pairs=60,
        tests=4, bitext=40, vocabulary=300, width=16, feed_forward=32, heads=2, layers=1, steps=6, fused_steps=6,
        batch_tokens=400, warmup=3, validate_every=3, beam=2,
    ),
    "lesson": Config(arms=("plain", "fused", "no-drop-net", "random")),
    "gpu": Config(
        data="multi30k", arms=("plain", "fused", "no-drop-net", "random"), pairs=0, tests=0, vocabulary=8000,
        width=256, feed_forward=1024, heads=4, layers=3, dropout=0.3, steps=6000, fused_steps=4000,
        batch_tokens=8000, learning_rate=1e-3, warmup=1000, validate_every=500, beam=5, bf16=True,
    ),
    "full": Config(
        **IWSLT, data="iwslt14", experiments=("sentences", "documents"), arms=WITHOUT_XLM,  # type: ignore[arg-type]
        bert="bert-base-uncased", steps=100_000, fused_steps=50_000, validate_every=1000,
    ),
}  # fmt: skip
