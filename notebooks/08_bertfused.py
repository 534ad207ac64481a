# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # BERT-fused translation
#
# *Incorporating BERT into Neural Machine Translation.* Zhu, Xia, Wu, He, Qin, Zhou, Li and Liu, ICLR 2020,
# [arXiv 2002.06823](https://arxiv.org/abs/2002.06823)
#
# A translation model learns the meaning of words from pairs of sentences alone. *BERT*, a network that was trained on a
# large amount of plain text, knows far more words, but it does not translate. The usual way to use BERT is to start from it
# and to train on (*fine-tuning*). The paper finds another way better for translation: BERT stays as it is (*frozen*), reads
# the same sentence, and every layer of the translation model attends to what BERT says.
#
# **You will** see one sentence through two sets of eyes, derive *drop-net*, measure what a frozen BERT adds where the
# training pairs say nothing, take it away again with a switch, and fuse a model of your own.
#
# | mark | meaning |
# |---|---|
# | [paper] | stands in the paper |
# | [official code] | what the authors' program does |
# | [ours] | our choice |
# | [inferred] | our reading, where neither says it |

# %% jupyter={"source_hidden": true} tags=["setup"]
# nothing to read: where labkit is missing (on Colab), this installs it from its clone
import importlib.util

if importlib.util.find_spec("labkit") is None:
    from pathlib import Path
    from runpy import run_path

    files = [*Path().glob("*/notebooks/install.py"), *Path("..").glob("notebooks/install.py")]
    if not files:
        raise RuntimeError("There is no clone of labkit here. Make one first, in a cell: !git clone ADDRESS")
    run_path(str(files[0].resolve()), run_name="__main__")

# %% [markdown]
# ## 1 The idea in one picture
#
# Left: the plain model is the lower row, encoder and decoder. BERT reads the same sentence and turns it into vectors $H_B$.
# Each layer of both sides attends to them, beside its own attention. Right: the recorded runs of this notebook. English
# nouns have several names here, and one of each is held out: training never shows the word *hound*. How is it translated
# by a model that has only seen *dog*? *BLEU* is 100 where every word is right.

# %%
from labkit import viz
from labkit.papers import load
from labkit.papers.bertfused.teaching import figures, scenes
from labkit.workbench import show

viz.use()
paper = load("bertfused")
viz.show(
    figures.idea_figure(),
    "Left: boxes for the sentence, the frozen BERT, its vectors, encoder and decoder, with arrows from BERT's vectors to "
    "encoder and decoder. Right: bars of BLEU for the plain and the fused model; about equal on words seen in training, "
    "the fused one far higher on held-out synonyms.",
)

# %% [markdown]
# ## 2 Parameters
#
# These four values are all that you need to set. `scale` picks a whole configuration and `overrides` changes single fields
# of it. `labkit run bertfused --scale smoke -p pairs 100` runs this notebook with other values.

# %% tags=["parameters"]
scale: str = "lesson"  # one of smoke, lesson, gpu, full
seed: int = 0  # seed of every random generator
run_dir: str = ""  # folder of the run; empty makes a new one
overrides: dict = {}  # fields of the config to change, such as pairs

# %% [markdown]
# Three fields are worth changing first. `arms` lists the models that are compared. `pairs` is the number of training pairs.
# `bert` is the network that is listened to: MiniLM, which comes with a package, or a folder of Hugging Face. All fields:
# section 10.

# %%
config = paper.config(scale, **({"seed": seed} | overrides))
run = paper.open_run(scale, config, run_dir)
show.config(config, fields=["arms", "pairs", "bert"])

# %% [markdown]
# ## 3 What the paper claims
#
# The abstract's statements, in our words. Each has a margin: the claim holds if the lower end of its interval exceeds the
# margin. The published figures are those of the paper's own data; the lesson's language is small and generated, so only the
# direction can be compared. Section 8 shows what was measured.

# %%
show.claims(paper, main=["fusion-brings-knowledge", "knowledge-not-capacity", "embedding-beats-fine-tuning"])

# %% [markdown]
# ## 4 The method, step by step
#
# **Two views of a sentence.** The translation model cuts words into pieces by *byte-pair encoding* (BPE), learned from the
# training pairs. BERT has pieces of its own, *WordPieces*, and puts `[CLS]` before and `[SEP]` after the sentence. The two
# rows have different lengths; which piece belongs to which is never said.

# %%
task = scenes.sentences_task(config, run)
bert = scenes.frozen_bert(config)
sentence = "the old hound watches the peasant beside the dinner ."
words = bert.tokenizer.convert_ids_to_tokens(bert.tokenize([sentence])[0].ids)
viz.show(
    figures.views_figure(task.bpe.pieces(sentence), words),
    "Two rows of boxes for one sentence: the translation model's BPE pieces above, BERT's WordPieces below. They differ in "
    "number; rare words fall into several BPE pieces.",
)

# %% [markdown]
# **Attention needs no alignment.** $\mathrm{attn}(q,K,V)$ compares a query with all keys and returns a weighted mean of the
# values. Layer $l$ of the encoder attends to its own row as usual ($\mathrm{attn}_S$) and to BERT's
# ($\mathrm{attn}_B$) [paper]:
#
# $$\tilde h_i=\tfrac12\big(\mathrm{attn}_S(h_i^{l-1},H_E^{l-1},H_E^{l-1})+\mathrm{attn}_B(h_i^{l-1},H_B,H_B)\big).$$
#
# In the decoder the second attention of each layer is mixed in the same way: to the encoder's output ($\mathrm{attn}_E$) and
# to BERT. The mixture stands *inside* one residual connection and one layer normalisation [official code]; so all tensors but
# those of $\mathrm{attn}_B$ have the names and shapes of the plain model. This is the sub-block; a branch of weight 0 is not
# even computed:

# %%
from labkit.papers.bertfused.method.layers import _FeedForward

viz.show_source(_FeedForward._add)

# %% [markdown]
# **Drop-net.** A layer with two sources may lean on one of them. In training each layer therefore draws
# $U\sim\mathrm{Uniform}[0,1]$ and listens to one branch alone, with its full weight, in a share $p$ of all passes [paper]:
#
# $$U<\tfrac p2:\ (1,0)\qquad U>1-\tfrac p2:\ (0,1)\qquad\text{else}:\ (\tfrac12,\tfrac12).$$

# %%
from labkit.papers.bertfused.method.drop_net import DropNet

viz.show_source(DropNet.draw)

# %% [markdown]
# Move $p$. Before you do: does the mean weight of a branch depend on it? With $p=1$, the paper's choice, the mixture that
# inference uses never occurs in training.

# %%
viz.show(
    figures.drop_net_widget(),
    "Left: bars for the probabilities of the three cases at p = 1: native alone and BERT alone one half each, both 0. Right: "
    "the mean weights of the two branches, both one half.",
)

# %% [markdown]
# **Two stages.** First the plain model is trained; then the fused one takes over its weights, $\mathrm{attn}_B$ starts at
# random, and training goes on with a fresh optimiser [paper]. Users of the official code reported fused models *below* the
# plain one, often because the first stage's file had silently not been loaded. `warm_start` says what it has loaded, and
# refuses what does not fit:

# %%
from labkit.papers.bertfused import Architecture, Transformer, fuse

plain_model = Transformer(Architecture(vocabulary=10_000))  # transformer_iwslt_de_en
fused_model = fuse(plain_model, 768)  # BERT-base has width 768
print(str(fused_model.report).replace(", ", "\n  "))
print(f"plain: {sum(p.numel() for p in plain_model.parameters()) / 1e6:.1f} million parameters")

# %% [markdown]
# ## 5 Prove it
#
# Six identities, each checked below:
#
# 1. With weights (1, 0) the fused model is the plain model.
# 2. The mean of drop-net's weights is (1/2, 1/2) for every $p$.
# 3. If all rows of $H_B$ are the same vector $v$, $\mathrm{attn}_B$ returns $W_oW_vv+b$, whatever the query.
# 4. A sentence's $H_B$ does not depend on the batch.
# 5. Decoding step by step with cached keys and values gives the logits of one pass.
# 6. The score of a translation that beam search reports is $\log p$ by teacher forcing.

# %%
import torch

from labkit.papers.bertfused import BertView
from labkit.papers.bertfused.method.attention import Attention
from labkit.papers.bertfused.method.decoding import CachedDecoder, score_ids, translate_ids
from labkit.papers.bertfused.method.transformer import branches

draw = torch.Generator().manual_seed(0)
tiny = Transformer(Architecture(40, 32, 64, 2, 2, 2, dropout=0.0)).eval()
both = fuse(tiny, 24)
source = torch.tensor([[5, 6, 7, 2], [8, 9, 2, 0]])
target = torch.tensor([[1, 10, 11, 12], [1, 13, 14, 0]])
view = BertView(torch.randn(2, 6, 24, generator=draw), torch.ones(2, 6, dtype=torch.bool))
grid = torch.linspace(0, 1, 2001)[:-1] + 1 / 4000
attention = Attention(32, 2, 24)
queries, v = attention.queries(torch.randn(1, 3, 32, generator=draw)), torch.randn(24, generator=draw)
constant = attention.attend(queries, attention.memory(v.expand(1, 5, 24)))

with torch.inference_mode():
    with branches(both, 1, 0):
        alone = both(source, target, view)
    encoded = both.encode(source, view)
    whole = both(source, target, view)
    decoder = CachedDecoder(both, encoded)
    steps = torch.stack([decoder.step(target[:, t : t + 1])[:, 0] for t in range(4)], 1)
    best = translate_ids(both, source[:1], BertView(view.states[:1], view.real[:1]), beam=4)[0][0]
    first = both.encode(source[:1], BertView(view.states[:1], view.real[:1]))
    forced = score_ids(both, first, torch.tensor([[*best.tokens, 2]]))
    long = "the very old man with the large coat sees the house ."
    together, single = bert([sentence, long]).states[0], bert([sentence]).states[0]

# %%
# NBVAL_CHECK_OUTPUT
means = [
    [((grid < p / 2) * 1.0 + ((grid >= p / 2) & (grid <= 1 - p / 2)) * 0.5).mean().item() - 0.5]
    for p in (0.0, 0.3, 1.0)
]
error = {
    "1 weights (1, 0): the plain model": alone - tiny(source, target),
    "2 drop-net's mean weight": torch.tensor(means),
    "3 equal rows: a closed form": constant - attention.out_proj(attention.v_proj(v)),
    "4 alone and in a batch": (together[: len(single)] - single) / 10,
    "5 step by step": (steps - whole)[0],
    "6 the score that is reported": forced - best.log_prob,
}
for name, value in error.items():
    print(f"{name}: below 1e-4 {bool(value.abs().max() < 1e-4)}")

# %% [markdown]
# ## 6 Train and compare
#
# **The language** [ours]. A small grammar writes English sentences with their German translations, articles and endings
# included. Every noun has two or three English names; the last one never occurs in training. Two tests of new sentences:
# `seen` uses the words of training, `unseen` the held-out name of every noun.

# %%
for test, text in task.corpus.tests.items():
    print(f"{test}:\n  {text.sources[0]}\n  {text.targets[0]}")

# %% [markdown]
# All arms start from the same plain model, stopped early, and go on for the same number of updates:
#
# - `plain`: without BERT;
# - `fused`: BERT-fused, drop-net with $p=1$;
# - `no-drop-net`: BERT-fused, $p=0$;
# - `random`: BERT-fused, but BERT's vectors are replaced by a fixed random vector for each WordPiece. This control has as
#   many parameters and no knowledge.
#
# BERT is *MiniLM*: 6 layers, 23 million parameters, English only, tuned further for the similarity of sentences. It is
# frozen, so its vectors are computed once and kept on disk in half precision. Before you run the next cells: which arms will
# translate `seen` well, and which `unseen`?

# %%
result = paper.run(config, run)
arms = result.get("sentences", {}).get("arms", {})
print("trained:", ", ".join(arms))

# %%
viz.show(
    lambda: figures.comparison_figure(arms),
    "BLEU of each arm on both tests. On seen words all bars are close to 100; on unseen words those of the arms that hear "
    "BERT are far above the plain model and the random control.",
    when=arms,
)

# %%
from IPython.display import Markdown

head = "| arm | test | BLEU | whole sentences | nouns | parameters trained |\n|---|---|---|---|---|---|\n"
Markdown(head + "\n".join(scenes.table(arms) or ["| not part of this run | | | | | |"]))

# %% [markdown]
# A translation is counted only where BERT could have helped: the *nouns* column is the share of the reference's nouns that
# the translation holds. Each noun is unseen in the second test, while articles, adjectives and verbs are known; so a
# plain model does not fall to 0 BLEU there. The counting is sacreBLEU's; its signature and the paired bootstrap over
# sentences, fused against plain, in this run:

# %%
print("\n".join(scenes.gains(result)) or "not part of this run")

# %% [markdown]
# **The switch of stages.** At the start of stage 2 a part of what every layer had learned gives way to random attention, so
# the loss of a fused arm jumps, the more the longer stage 1 was. In the lesson stage 1 ends early: the jump is small, and the
# fused arm at first learns more slowly than the plain one. The paper found the warm start essential, 30.45 BLEU against 27.03
# from scratch (IWSLT'14 En-De). When stage 1 should end, the last exercise asks.

# %%
viz.show(
    lambda: figures.curves_figure(
        {name: arm["curve"] for name, arm in arms.items()}, scenes.stage_1(run), config.steps
    ),
    "Validation loss, logarithmic, against updates: the black curve of the plain model in stage 1 up to a dotted line, then "
    "one curve an arm. All fall by more than an order of magnitude; the fused arm falls later than the plain one, and lower.",
    when=arms,
)

# %% [markdown]
# **The ablation table.** Recorded runs, smaller than the lesson: BERT on one side only (`encoder-only`, `decoder-only`),
# BERT's output as the encoder's input (`bert-input`), BERT as the encoder and trained on (`bert-encoder`), the fused model
# without a warm start (`scratch`). BLEU, means over seeds:

# %%
head = "| arm | BLEU | seeds |\n|---|---|---|\n"
ablations = scenes.recorded_rows("sentences", label="ablations")
Markdown(head + "\n".join(ablations or ["| not recorded | | |"]))

# %% [markdown]
# Not all of the paper's ranking comes back in this language. The decoder's attention to BERT carries nearly all of the
# knowledge; the encoder's alone does little. `bert-input`, whose encoder sees nothing but BERT's vectors, translates unseen
# words better than the fused model, which may as well believe its own embeddings: where those know nothing, that is a loss.
# The warm start, which trains them first, does not help here either. `bert-encoder` is trained with the step size of all
# other weights, which is large for a BERT: with two of three seeds it diverges, and its mean says little.

# %% [markdown]
# **Documents.** "The man sees it": German needs to know what *it* is. In the recorded runs talks have two sentences, and only
# the first one tells. `document` is the fused model whose BERT reads `[CLS] first [SEP] second [SEP]`; the translation model
# still gets one sentence. `context` is the baseline without BERT: attention to the embeddings of the first sentence. Share of
# right pronouns:

# %%
head = "| arm | right pronouns | seeds |\n|---|---|---|\n"
Markdown(head + "\n".join(scenes.recorded_rows("documents", number="pronouns") or ["| not recorded | | |"]))

# %% [markdown]
# **Less than a bitext.** *Semi-supervised*: a few pairs, and much German text that a model of the other direction translates
# back; its output becomes the source side of more training pairs. *Unsupervised*: no pair at all; one model for both
# directions learns to repair broken sentences (denoising) and to undo its own translations, which begin word by word from a
# dictionary. What the paper has from another model's weights (XLM) is here our reading [inferred].

# %%
head = "| arm | BLEU | seeds |\n|---|---|---|\n"
less = {name: scenes.recorded_rows(name) for name in ("semi-supervised", "unsupervised")}
Markdown("\n\n".join(f"{name}\n\n{head}" + "\n".join(rows or ["| not recorded | | |"]) for name, rows in less.items()))

# %% [markdown]
# ## 7 Explore
#
# **Who looks at what.** Type an English sentence of this small language, with a word that training has never shown, and hover
# over the cells. Rows are the model's pieces, columns what they look at. Find the row of a held-out noun in
# $\mathrm{attn}_B$: where does the decoder find the meaning?

# %%
scene = scenes.trained(config, run)
viz.show(
    lambda: figures.attention_widget(scene, "the old hound sees the house ."),
    "A heat map of attention weights: rows are the German pieces that the model writes, columns BERT's WordPieces; darker "
    "cells are larger weights.",
    when=scene,
)

# %% [markdown]
# **The branch switch.** Both models were trained; only the weights $(1-r,r)$ of the two branches are changed now. Before you
# move the slider: which of the two models suffers more when a branch is taken away?

# %%
viz.show(
    lambda: figures.switch_widget(scenes.branch_switch(scene)),
    "BLEU against the weight of BERT's branch, one panel for seen and one for unseen words. With drop-net the curve on seen "
    "words stays high over the whole range; without it both ends fall.",
    when=scene,
)

# %% [markdown]
# **The synonym lab.** Choose a noun that training never shows. Left: the five most probable pieces after the article. Right:
# all English nouns where BERT places them. Red: the noun with its synonyms.

# %%
viz.show(
    lambda: figures.synonym_widget(scene),
    "Left: bars of probabilities, the fused model's are concentrated on one German noun, the plain model's are not. Right: "
    "points for all nouns in two dimensions, synonyms near each other.",
    when=scene,
)

# %% [markdown]
# **Beam search.** Instead of the best next token, keep the best few beginnings. `length penalty` divides $\log p$ by
# tokens$^\alpha$ and so decides between short and long outputs; 0 favours short ones.

# %%
viz.show(
    lambda: figures.beam_widget(scenes.beam_tree(scene, "the old hound sees the house .")),
    "A tree from left to right, one column a token: blue hypotheses go on, green ones have ended, grey ones are given up; each "
    "with its piece and log probability.",
    when=scene,
)

# %% [markdown]
# **What it costs.** Speed on this machine, as a share of the plain model's, in training and in decoding. Kept states leave the
# additional attention as the only cost; a new sentence still has to pass through BERT once. MiniLM is thirty times as large as
# this small translation model; BERT-base is three times as large as the paper's for IWSLT.

# %%
viz.show(
    lambda: figures.cost_figure(scenes.costs(scene)),
    "Left: bars of speed relative to the plain model for kept states and for BERT on the fly. Right: the paper's extra "
    "inference time, 39 to 49 percent.",
    when=scene,
)

# %% [markdown]
# ## 8 Verdict
#
# This run, one seed. `labkit claims bertfused` shows the recorded runs, with intervals over seeds.

# %%
show.ledger(paper.verdicts(result, scale))

# %%
# NBVAL_CHECK_OUTPUT
print("\n".join(paper.agreement(result, scale)))

# %% [markdown]
# The recorded runs:

# %%
show.ledger(paper.verdicts())

# %% [markdown]
# ## 9 Your turn
#
# Fill in a cell and run it: the check names the property that fails. `.hint()` in place of `.check(...)` gives two hints, one
# after the other. The solution is folded below.

# %% [markdown]
# **Drop-net**

# %% tags=["exercise"]
display(paper.exercise("drop-net"))
my_mix = None  # a function (u, p) -> (native, BERT)

paper.exercise("drop-net").check(my_mix)

# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
# a lone branch has its full weight: that is what makes the mean 1/2 for every p


def mix(u, p):
    if u < p / 2:
        return 1.0, 0.0
    return (0.0, 1.0) if u > 1 - p / 2 else (0.5, 0.5)


paper.exercise("drop-net").check(mix)

# %% [markdown]
# **How many new parameters?**

# %% tags=["exercise"]
display(paper.exercise("parameters"))
my_count = None  # a number

paper.exercise("parameters").check(my_count)

# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
# queries and output d x d, keys and values d_B x d, four biases; twelve layers
paper.exercise("parameters").check(12 * (2 * 512**2 + 2 * 512 * 768 + 4 * 512))

# %% [markdown]
# **A batch for BERT**

# %% tags=["exercise"]
display(paper.exercise("padding"))
from labkit.papers.bertfused.teaching import exercises

viz.show_source(exercises.broken_padding)
my_padding = None  # a function (rows, pad) -> (ids, mask)

paper.exercise("padding").check(my_padding)

# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
# positions are counted from the left edge: padding there moves the sentence


def pad_right(rows, pad):
    longest = max(map(len, rows))
    ids = [list(row) + [pad] * (longest - len(row)) for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


paper.exercise("padding").check(pad_right)

# %% [markdown]
# **What of BERT matters?**

# %% tags=["exercise"]
display(paper.exercise("which-survives"))
my_answer = None  # three of True and False

paper.exercise("which-survives").check(my_answer)

# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
# attention is a weighted sum over keys, and a sum has no order; the content is another one in the two other cases
paper.exercise("which-survives").check((True, False, False))

# %% [markdown]
# **The sentence before**

# %% tags=["exercise"]
display(paper.exercise("contexts"))
my_contexts = None  # a function (sentences, talks) -> list of strings

paper.exercise("contexts").check(my_contexts)

# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
# nothing stands before the first sentence of a talk


def before(sentences, talks):
    return [sentences[i - 1] if i and talks[i - 1] == talks[i] else "" for i in range(len(sentences))]


paper.exercise("contexts").check(before)

# %% [markdown]
# **Label smoothing**

# %% tags=["exercise"]
display(paper.exercise("label-smoothing"))
my_loss = None  # a function (logits, target, eps, pad) -> a number

paper.exercise("label-smoothing").check(my_loss)

# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
# the mean of log p over the vocabulary is the sum divided by V


def smoothed(logits, target, eps, pad):
    log_p = logits.log_softmax(-1)
    right = log_p.gather(-1, target[..., None])[..., 0]
    each = -(1 - eps) * right - eps * log_p.mean(-1)
    return each[target != pad].sum()


paper.exercise("label-smoothing").check(smoothed)

# %% [markdown]
# **When to fuse**

# %% tags=["exercise"]
display(paper.exercise("when-to-fuse"))
my_split = None  # (updates of stage 1, updates of stage 2)

paper.exercise("when-to-fuse").check(my_split)

# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
# once the plain model explains the training sentences, little gradient is left that could teach a layer to hear BERT
paper.exercise("when-to-fuse").check((20, 200))

# %% [markdown]
# ## 10 Take it home, and full scale
#
# Your own plain model, tokenizer and any encoder folder of Hugging Face:
#
# ```python
# from labkit.papers.bertfused import Bert, Translator, fuse
#
# bert = Bert.from_folder(my_bert_folder)  # frozen; minilm() needs no folder
# model = fuse(my_plain_model, bert)  # a Transformer of labkit, or from_marian(your Marian)
# print(model.report)  # what was loaded and what is new; what does not fit is refused
# logits = model(my_source, my_target_in, bert(my_sentences))  # for your own training loop
# print(Translator(model, my_tokenizer, bert).translate(my_sentences, beam=5))
# ```
#
# What this notebook trained, on sentences of yours; about two of three held-out nouns come out right:

# %%
from labkit.papers.bertfused import Translator

my_sentences = ["the furious vocalist loves the boat .", "", "the hound likes the dinner ."]
if scene:
    translator = Translator(scene.models["fused"], scene.bpe, scene.bert)
    print("\n".join(translator.translate(my_sentences, beam=5)))

# %% [markdown]
# Two text files or a table of pairs are enough to train, and a run translates from the command line; order and empty lines
# are kept:
#
# ```
# labkit train bertfused -p data parallel:pairs.tsv -p pairs 0 -p tests 0
# labkit train bertfused -p data parallel:train.en,train.de -p vocabulary 8000
# labkit translate runs/bertfused/lesson-001 --beam 5 < in.txt > out.txt
# labkit export runs/bertfused/lesson-001 DIR --arm fused      # labkit.papers.bertfused.load("DIR")
# labkit run bertfused --scale gpu                             # Multi30k, one GPU
# labkit train bertfused --scale full -p bert path/to/bert-base-uncased
# labkit train bertfused --scale full -p data iwslt17 -p target zh -p vocabulary 10000,10000
# labkit train bertfused --scale full -p data wmt16 -p source ro -p target en -p experiments semi-supervised
# torchrun --nproc-per-node 8 -m labkit train bertfused --scale full -p data wmt14
# ```
#
# - `gpu`: Multi30k (29,000 image captions), MiniLM, a model of width 256.
# - `full`: the paper's model and training on IWSLT'14, single sentences and documents; WMT by `-p data`. You bring the data
#   and BERT's folder.
#
# All fields of the config of this run, then the fields in which the scales differ:

# %%
show.config(config)

# %%
show.scales(paper.configs)

# %% [markdown]
# **Recorded runs** are listed by `labkit claims bertfused`; each record in `data/records/bertfused/` holds its config, seeds,
# versions, hardware and command.
#
# **What is known, and what is our reading.**
#
# - [paper]: equations, drop-net, two stages, frozen BERT; the ablations of section 3's published figures.
# - [official code]: one residual and normalisation for both branches; separate query, key and value matrices of
#   $\mathrm{attn}_B$; Adam with decoupled weight decay, label smoothing 0.1, inverse-square-root schedule. Three habits are
#   not followed unless asked for: BERT's words padded on the left, BERT's own dropout on in training (`bert_dropout`), and a
#   sum in place of the mean without the drop-net flag (arm `sum`).
# - [ours]: raw text through a byte-level BPE where the paper uses Moses and subword-nmt; the weights that were best on the
#   validation set are kept; in the lesson stage 1 ends early.
# - [inferred]: the encoder's input in the arm `bert-input`, the document baseline `context`, all of unsupervised training.
# - [inferred]: with separate vocabularies the target's embeddings are the output matrix, too; the source has its own.
# - Not built: XLM's weights as a start.
# - Results of others for who runs `full`, IWSLT'14 En-De: fairseq 28.6, JoeyNMT 28.9, the paper 30.45 [peer code: their
#   pages].
