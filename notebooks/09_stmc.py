# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Spatial-temporal multi-cue network
#
# *Spatial-Temporal Multi-Cue Network for Continuous Sign Language Recognition.* Zhou, Zhou, Zhou and Li, AAAI 2020,
# [arXiv 2002.03187](https://arxiv.org/abs/2002.03187)
#
# In *continuous sign language recognition* a program watches a signed sentence and writes down its *glosses*, one word for
# each sign, in their order. Signs are made with the hands, the face and the posture at the same time. The paper observes
# that networks trained on whole frames learn whatever discriminates most and ignore the rest. Its network finds the hands
# and the face by itself, gives each of these *cues* a feature of its own, follows each cue through time, and lets a joint
# path listen to all of them.
#
# **You will** take the network apart, write pieces of its decoder, train it beside a full-frame network on signing avatars
# whose glosses differ in one cue only, see which cue each network misreads, and use it on clips of your own.
#
# | mark | meaning |
# |---|---|
# | [paper] | stands in the paper's abstract |
# | [author net] | the network file that its first author shared |
# | [peer code] | what other programs of the field do |
# | [recalled] | remembered from the paper, not read again |
# | [inferred], [ours] | our reading; our choice |

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
# One frame of a signing avatar in front of a weather map. The map is full of symbols that look like hands. To know which
# shape the hand has, one must know where the hand is; to know the mouth, one must look closely at the face.

# %%
from labkit import viz
from labkit.papers import load
from labkit.papers.stmc.teaching import figures, scenes
from labkit.workbench import show

viz.use()
paper = load("stmc")
viz.show(
    figures.idea_figure(),
    "Left: a pixelated figure before a dark ground with many small rings and crosses. Beside it the same frame with a green "
    "square around the face and orange ones around the hands; then a hand and the face enlarged, and a stick figure.",
)

# %% [markdown]
# ## 2 Parameters
#
# These four values are all that you need to set. `scale` picks a whole configuration and `overrides` changes single fields
# of it. `labkit run stmc --scale smoke -p epochs 2` runs this notebook with other values.

# %% tags=["parameters"]
scale: str = "lesson"  # one of smoke, lesson, gpu, full
seed: int = 0  # seed of every random generator
run_dir: str = ""  # folder of the run; empty makes a new one
overrides: dict = {}  # fields of the config to change, such as epochs

# %% [markdown]
# Three fields are worth changing first. `arms` lists the networks that are compared. `epochs` is the length of the second
# training stage. `decoys` is the number of symbols in the background. All fields: section 10.

# %%
config = paper.config(scale, **({"seed": seed} | overrides))
run = paper.open_run(scale, config, run_dir)
show.config(config, fields=["arms", "epochs", "decoys"])

# %% [markdown]
# ## 3 What the paper claims
#
# The abstract's main claims, in our words. The *word error rate* (WER) is the share of words that must be replaced, deleted
# or inserted to turn what was read into what was signed; lower is better. A claim holds if the lower end of its interval over
# seeds exceeds the margin. Section 8 shows what was measured.

# %%
show.claims(paper, main=["full-frames-ignore-cues", "multi-cue-reads-better", "crops-must-be-where-the-cues-are"])

# %% [markdown]
# ## 4 The method, step by step
#
# frames → features of each cue (spatial module, SMC) → paths through time (temporal module, TMC) → a recurrent head for each
# path → a table of probabilities over time → glosses (decoder).
#
# **The spatial module** [author net]. The first convolutions of VGG-11 turn a frame of 224 x 224 pixels into a *map A* of
# 256 x 56 x 56; some more into a *map B* of 512 x 14 x 14; the rest, with a ninth convolution, into the *full-frame* feature.
# A pose branch grows B back to seven *heat maps* of 56 x 56: nose, shoulders, elbows, wrists. Each heat map $z$ becomes a
# point by *soft-argmax*, the mean position under its softmax:
#
# $$J=\Big(\sum_i p_i h_i,\ \sum_i p_i w_i\Big),\qquad p=\mathrm{softmax}(z),\qquad h,w\in[0,1].$$
#
# Squares of map A around the wrists and the nose go through small networks of their own: hands (one network for both) and
# face. The coordinates themselves, through two layers, are the pose feature. The lesson's network is smaller and comes from
# the same code; only the numbers of the `Architecture` differ:

# %%
from labkit.papers.stmc.method import spatial, temporal
from labkit.papers.stmc.method.architecture import PAPER, SMALL

# NBVAL_CHECK_OUTPUT
for name, a in (("paper", PAPER), ("lesson", SMALL)):
    print(f"{name}: {a.size} px, map A {a.side_of_a}, map B {a.side_of_b}, cue sizes {a.cue_sizes}")
    print(f"    temporal blocks: {a.intra_size} channels a cue, {a.inter_size} jointly")

# %% [markdown]
# One function makes the feature of any cue. `crop` cuts windows of whole cells out of map A, centred at cell
# `round(55 * J)` and moved inside where they would stick out. Before you go on, ask yourself what teaches the pose branch.
# (An exercise of section 9 asks it, too.)

# %%
viz.show_source(spatial.SpatialMultiCue._feature)

# %% [markdown]
# **The temporal module** [author net]. Each cue $n$ has an *intra-cue* path of its own; the *inter-cue* path $o$ hears itself
# and, by a convolution of width 1, all cues:
#
# $$f_{l,n}=\mathrm{ReLU}(\mathrm{conv}_5(f_{l-1,n})),\qquad
# o_l=\big[\mathrm{ReLU}(\mathrm{conv}_5(o_{l-1}))\,;\ \mathrm{ReLU}(\mathrm{conv}_1([f_{l,1},\dots,f_{l,N}]))\big].$$
#
# Information flows from the cues into the joint path and never back. There are two such blocks, each followed by a maximum
# over pairs of steps.

# %%
viz.show_source(temporal.TemporalBlock.forward)

# %%
viz.show(
    figures.field_figure(),
    "Four horizontal bars below one another, each 16 frames long; each begins four frames to the right of the one above.",
)

# %% [markdown]
# **The heads.** A bidirectional recurrent network (BLSTM) and a linear layer on each path give, for every step, a probability
# for each gloss and for a *blank*, "nothing new". Training needs no times: *connectionist temporal classification* (CTC) adds
# up all ways to lay the glosses over the steps. A *path* says one label or blank in every step; $\mathcal B$ removes repeats and
# then blanks; the probability of the glosses $\ell$ is
#
# $$p(\ell\mid X)=\sum_{\pi:\ \mathcal B(\pi)=\ell}\ \prod_t p(\pi_t\mid t).$$
#
# The loss [form: recalled] is that of the joint head, of every cue's head with weight $\alpha=0.6$, and the error $L_R$ of the
# key points, which only training needs (in the paper they come from a pose estimator):
#
# $$L=-\ln p_{\text{joint}}(\ell)-\alpha\sum_n\ln p_n(\ell)+L_R .$$

# %%
from labkit.papers.stmc.method import losses

viz.show_source(losses.joint_loss)

# %% [markdown]
# **Two stages** [recalled]. CTC from a random start does little for a long time: blanks everywhere are a comfortable answer.
# So the network first learns to name the gloss of each step from *pseudo labels*, without the recurrent part. In the lesson
# these simply cut each sentence into equal parts [ours]; with `labels="aligned"` a full-frame network is trained first, and
# its *forced alignment*, the best path among those of the right glosses, gives them.

# %%
viz.show(
    figures.ladder_figure(),
    "A grid of five states (blank, A, blank, B, blank) against seven steps, shaded by probability; an orange line runs from "
    "the top left to the bottom right through the cells of the best path.",
)

# %% [markdown]
# **Decoding.** The best path is found step by step (*greedy*). The best labelling is another question, because a labelling
# collects all its paths. *Prefix beam search* carries the most probable beginnings from step to step, each with two sums: paths
# that end in a blank, and paths that end in the last label. Only so does it know whether the same label again means a repeat.

# %%
from labkit.text import ctc

viz.show_source(ctc.beam_search)

# %% [markdown]
# ## 5 Prove it
#
# Nine identities, computed in double precision:
#
# 1. A heat map with one huge value points exactly there; a flat one to the middle.
# 2. Windows never leave map A, wherever the point lies.
# 3. The number of steps follows from the number of frames; you write the formula in section 9.
# 4. A step of a sentence equals the step of its clip of 16 frames: stage 1 may take whole sentences.
# 5. A batch of sentences of different lengths gives what each sentence gives by itself.
# 6. CTC's sum over all paths, written down one by one, equals the loss of PyTorch.
# 7. The probabilities of all labellings sum to 1.
# 8. A beam as wide as there are prefixes finds the best labelling with its whole probability.
# 9. Both readings of $L_R$, $\mathrm{smoothL1}(\beta d)$ and $\beta\,\mathrm{smoothL1}(d)$, agree for $\beta=1$.

# %%
import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from labkit.kernels.soft_argmax import soft_argmax
from labkit.papers.stmc import STMC

torch.manual_seed(0)
peak = torch.full((1, 56, 56), -1e4, dtype=torch.float64)
peak[0, 13, 40] = 1e4
at = torch.rand(500, 2, 2)
first = spatial.corners(at, 56, 24)
net = STMC(replace(SMALL, padded=False), 5).double().eval()  # no padding, as in the author's network
one, other = torch.rand(28, 3, 40, 40).double(), torch.rand(20, 3, 40, 40).double()
together = net(torch.cat([one, other]), torch.tensor([28, 20]))
alone = net(other, torch.tensor([20]))
cues = [torch.randn(1, d, 40, dtype=torch.float64) for d in SMALL.cue_sizes]
whole = net.backbone.temporal(cues, torch.tensor([40]))[1]
part = net.backbone.temporal([cue[..., 8:24] for cue in cues], torch.tensor([16]))[1]
table = scenes.toy_posteriors(1.0, 0, 6, 3)
every = ctc.labellings(table)
torch_loss = F.ctc_loss(
    torch.from_numpy(table)[:, None], torch.tensor([[1, 2]]), torch.tensor([6]), torch.tensor([2]), reduction="sum"
)
best = ctc.beam_search(table, 3**6)[0]
points, targets = torch.rand(2, 5, 7, 2, dtype=torch.float64)

# %%
# NBVAL_CHECK_OUTPUT
errors = {
    "1 soft-argmax of a peak": soft_argmax(peak)[0] - torch.tensor([13 / 55, 40 / 55]).double(),
    "2 windows stay inside": first - first.clamp(0, 56 - 24),
    "3 steps as computed": torch.tensor(temporal.steps_of(28) - together.joint.shape[1]),
    "4 a sentence's step = its clip's": whole[..., 2] - part[..., 0],
    "5 in a batch = alone": together.joint[1, : int(alone.lengths)] - alone.joint[0],
    "6 all paths = torch's CTC loss": torch_loss + math.log(every[1, 2]),
    "7 labellings sum to 1": torch.tensor(sum(every.values()) - 1),
    "8 a wide beam is exact": torch.tensor(best.log_prob - math.log(max(every.values()))),
    "9 one beta, one loss": losses.pose_loss(points, targets, 1.0) - losses.pose_loss(points, targets, 1.0, "outside"),
}
for name, error in errors.items():
    print(f"{name}: below 1e-6 {bool(error.abs().max() < 1e-6)}")

# %% [markdown]
# ## 6 Train and compare
#
# **The data** [ours]. A gloss of the avatars is a motion (three), a hand shape (two) and a mouth (two): twelve glosses. Every
# gloss has a partner that differs from it in the hand shape alone, one in the mouth alone, and two in the motion alone. A
# network that ignores a cue must confuse exactly those. Signs run into each other, each gloss is followed by only six others
# (a grammar), and the background holds symbols that look like hands.

# %%
viz.show(
    figures.strip_figure(scenes.judged_by(paper.config("lesson"), 0)),
    "Eight frames of one sentence in a row, with the gloss of each above it: the hands move, the symbols behind them change.",
)

# %% [markdown]
# Look at partners: choose a gloss and the cue in which its partner differs.

# %%
viz.show(
    figures.pairs_widget(),
    "Two rows of three frames: the same avatar signs two glosses; only the shapes at the ends of its arms differ.",
)

# %% [markdown]
# **The arms.** `full-frame` is the same trunk without hands, face and pose; `multi-cue` is the paper's network. Both get the
# same sentences and the same number of epochs. `multi-cue` is also given key points in training, and takes more compute an
# epoch: the controls further down ask what these are worth. Before you run the next cell: which cue will the full-frame
# network misread most, and which least?

# %%
result = paper.run(config, run)
print("data:", result["data"], "| sentences to learn from and to judge by:", *result["sentences"])

# %%
viz.show(
    figures.comparison_figure(result),
    "A horizontal bar for each arm: word error rate in percent, made of substitutions, deletions and insertions.",
)

# %%
viz.show(
    lambda: figures.confusions_figure(result),
    "For each of the cues hand, face and motion a bar for each arm: how often it was misread; dashed lines mark guessing.",
    when=[arm for arm in result["arms"].values() if "confusions" in arm],
)

# %% [markdown]
# The bars count words that were found at their place. A network that finds few words at all has few to misread, so look at both
# pictures together. A dashed line marks what guessing gives. The lesson is short: in some recorded seeds the multi-cue network
# had not yet learned one of its cues when it ended, and which one differs from seed to seed.

# %%
curves = {
    f"{arm}, {stage}": (run.part(arm).part("stage-1") if stage == "stage 1" else run.part(arm)).metrics()
    for arm in result["arms"]
    for stage in ("stage 1", "stage 2")
}
viz.show(
    figures.training_figure(curves),
    "Two panels, stage 1 and stage 2: the loss of each arm against the training step; both fall, multi-cue's sum of five "
    "heads from higher up.",
)

# %% [markdown]
# `multi-cue` adds up the losses of five heads and of the key points, so its curve lies higher; compare shapes, not heights.
#
# **What was read**, word under word. Errors are coloured:

# %%
from IPython.display import HTML

HTML(figures.alignment_html(scenes.transcripts(config, result, list(result["arms"])[-1])))

# %% [markdown]
# The authors shared their predictions for PHOENIX-2014-T, a corpus of German weather forecasts. Our metric scores them at
# 19.56 % WER on dev, which rounds to the published 19.6 (a test holds it to that). The glosses may not be passed on; where
# `LABKIT_DATA/sign` holds them, the next cell shows the first sentences.

# %%
published = scenes.published_predictions()
HTML(figures.alignment_html(published) if published else "<p>Not here: LABKIT_DATA/sign holds no predictions.</p>")

# %% [markdown]
# **Controls** ask what else could explain the difference. `full-frame-pose-loss` has the pose branch and its loss, but no crops;
# `random-crops` cuts at random places; `full-frame-longer` trains twice as long; `intra-only` and `inter-only` leave out one of
# the two paths through time. They were recorded in a record of their own, with `multi-cue` anew and seeds 0 to 2:
# `labkit record stmc --label controls -p arms multi-cue,full-frame-pose-loss,...`. Each digit is a run and its seed. Before you
# run the next cell: should key points as a second task help the full-frame network?

# %%
recorded = scenes.recorded()
viz.show(
    lambda: figures.recorded_figure(recorded),
    "One row for each recorded arm: the numbers of its seeds at their word error rates, and a grey bar at the mean. "
    "multi-cue spreads from 2 to 56 %; full-frame, alone, with key points or twice as long, and random-crops stay above "
    "60 %; intra-only and inter-only lie between 2 and 47 %.",
    when=recorded,
)

# %% [markdown]
# What the records say, seed by seed:
#
# - `full-frame-pose-loss` and `random-crops` lose to `multi-cue` in each of the three seeds, by 28 points of WER or more. They
#   read even less than `full-frame`, and mostly delete: where key points are only a second task, they do not help here.
# - `full-frame-longer` loses in each of them too, by 18 points or more, with 68 CPU-seconds a run against 81.
# - Whether both paths through time matter is open. Without the inter-cue path seed 0 reads much better, the others a little
#   worse; without the intra-cue path seed 0 reads better, seeds 1 and 2 worse. No direction is the same in all seeds.
#
# The intervals are wider than these sentences sound: seed 0 of `multi-cue` has not learned the motions, seeds 1 and 2 read
# nearly everything, and three such seeds do not lift the near end of any control above its margin. Section 8 has the verdicts.
# `hand-only`, `face-only`, `pose-only`, `frozen-spatial` and `joint-loss-alone` are arms as well, and were not recorded yet:
# `labkit record stmc --label cues -p arms multi-cue,hand-only,face-only,pose-only,frozen-spatial,joint-loss-alone`.

# %% [markdown]
# ## 7 Explore
#
# **Frame by frame.** What the pose branch of this run finds in a sentence it was not trained on: rings in blue are found, white
# ones true; squares are the crops. Where is the wrong hand looked at?

# %%
reading = scenes.reading(config, run) or scenes.untrained()
viz.show(
    figures.player_widget(reading),
    "Left: a frame with found key points in blue beside the true ones in white, and squares around face and hands. Right: "
    "a heat map of one point, dark but for a bright spot.",
)

# %% [markdown]
# **Posteriors over time.** The heads of the same sentence. The head of one cue cannot know what that cue does not show: choose
# `face` and look at which glosses share the probability.

# %%
viz.show(
    figures.ridge_widget(reading),
    "Above: curves of the six largest labels' probability against the step; peaks follow one another, the blank dotted "
    "between them. Below: the four frames in the middle of the chosen step.",
)

# %% [markdown]
# **Which cues?** The recorded networks behind a switchboard: turn cues on and off. Sets of cues that were not recorded say so.
# Bars are means over the recorded seeds: 0 to 5 for `full-frame` and `multi-cue`, 0 to 2 for `random-crops`.

# %%
viz.show(
    lambda: figures.switchboard_widget(recorded),
    "Bars of recorded word error rates, one for each set of cues; the chosen set is blue.",
    when="multi-cue" in recorded,
    otherwise="Not recorded yet: labkit record stmc",
)

# %% [markdown]
# **The beam.** Made-up posteriors of seven steps and three labels. Grey: the probability of a labelling with all its paths,
# orange where it is what the best path reads. Blue: what the beam found of it. From which width on is the best labelling right?

# %%
viz.show(
    figures.beam_widget(),
    "Pairs of bars for the six most probable labellings: all paths, and what the beam collected, which is at most as high.",
)

# %% [markdown]
# ## 8 Verdict
#
# This run, one seed:

# %%
show.ledger(paper.verdicts(result, scale))

# %%
# NBVAL_CHECK_OUTPUT
print("\n".join(paper.agreement(result, scale)))

# %% [markdown]
# The recorded runs, with intervals over seeds. A claim is *not shown* where the interval holds the margin: more seeds could
# decide either way.

# %%
show.ledger(paper.verdicts())

# %% [markdown]
# ## 9 Your turn
#
# Fill in a cell and run it: the check names the property that fails. `.hint()` in place of `.check(...)` gives two hints, one
# after the other. The solution is folded below.

# %% [markdown]
# **How many steps?**

# %% tags=["exercise"]
display(paper.exercise("steps"))
my_steps = None  # a function (T) -> whole number

paper.exercise("steps").check(my_steps)

# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
# a window of 5 has T - 4 places; the maximum over pairs drops an odd one
paper.exercise("steps").check(lambda time: ((time - 4) // 2 - 4) // 2)

# %% [markdown]
# **From path to labelling**

# %% tags=["exercise"]
display(paper.exercise("collapse"))
my_collapse = None  # a function (path) -> tuple

paper.exercise("collapse").check(my_collapse)

# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
# repeats first: a blank between two equal labels keeps both


def without_repeats_and_blanks(path):
    return tuple(label for k, label in enumerate(path) if label and (k == 0 or label != path[k - 1]))


paper.exercise("collapse").check(without_repeats_and_blanks)

# %% [markdown]
# **Counting paths**

# %% tags=["exercise"]
display(paper.exercise("paths"))
my_paths = None  # a function (T, n) -> whole number

paper.exercise("paths").check(my_paths)

# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
# cut T + n + 1 into 2 n + 1 parts of at least one: choose 2 n of the T + n gaps
paper.exercise("paths").check(lambda time, n: math.comb(time + n, 2 * n))

# %% [markdown]
# **A window that leaves the map**

# %% tags=["exercise"]
display(paper.exercise("window"))
from labkit.papers.stmc.teaching import exercises

viz.show_source(exercises.broken_window)
my_window = None  # a function (row, column, side, size) -> (first row, first column)

paper.exercise("window").check(my_window)

# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
# the last cell of the window is first + size - 1, which may be side - 1 at most


def begins(row, column, side, size):
    return tuple(min(max(round((side - 1) * j) - (size // 2 - 1), 0), side - size) for j in (row, column))


paper.exercise("window").check(begins)

# %% [markdown]
# **Fool the best path**

# %% tags=["exercise"]
display(paper.exercise("fool-greedy"))
my_table = None  # rows are steps, columns are blank, 1, 2

paper.exercise("fool-greedy").check(my_table)

# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
# blank twice is one path of .16; the labelling (1) has three paths of .12 + .12 + .09
paper.exercise("fool-greedy").check(np.array([[0.4, 0.3, 0.3], [0.4, 0.3, 0.3]]))

# %% [markdown]
# **Who teaches the pose branch?**

# %% tags=["exercise"]
display(paper.exercise("teachers"))
my_teachers = None  # a set of names

paper.exercise("teachers").check(my_teachers)

# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
# cells are rounded and the pose feature is detached; soft crops interpolate
paper.exercise("teachers").check({"key points' loss", "hand feature, soft crops"})

# %% [markdown]
# **A fifth cue**

# %% tags=["exercise"]
display(paper.exercise("fifth-cue"))
my_cue = None  # a function (J of all frames) -> (time, 4)

paper.exercise("fifth-cue").check(my_cue)

# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
# differences of neighbouring frames; detached, as the pose feature is


def motion_of_the_hands(points):
    wrists = points.detach()[:, 5:].flatten(1)
    return torch.cat([torch.zeros_like(wrists[:1]), wrists.diff(dim=0)])


paper.exercise("fifth-cue").check(motion_of_the_hands)

# %% [markdown]
# ## 10 Take it home, and full scale
#
# Your own clips: a folder with a table `glosses.csv` (columns `name,glosses`, and `split` if you like), and for every name a
# folder of frames or a video. With `keypoints.npz`, one array (time, 7, 2) a sentence, each point as (column, row) shares of
# the frame in the order nose, shoulders, elbows, wrists, the multi-cue network is trained; without, the full-frame one.
#
# ```
# labkit train stmc -p data folder:my_clips -p train_sentences 0 -p test_sentences 0
# labkit recognise runs/stmc/lesson-001 my_clips/hello.mp4       # glosses with their times
# ```
#
# In Python, on frames however you read them (uint8 RGB, time x height x width x 3):
#
# ```python
# from labkit.papers.stmc import Recognizer
#
# recognizer = Recognizer.load(my_run)  # a run's folder, or one that labkit export wrote
# transcript = recognizer.transcribe(my_frames)
# print(transcript)
# for spoken in transcript.glosses:
#     print(spoken.gloss, "frames", spoken.first, "to", spoken.last)
# recognizer.save("recognizer.safetensors")
# ```

# %%
from labkit.papers.stmc import Recognizer

recognizer = Recognizer.load(run.directory)
sentence = scenes.judged_by(paper.config("lesson"), 3)
for spoken in recognizer.transcribe(sentence.frames).glosses:
    print(f"{spoken.gloss:<16} frames {spoken.first:>3} to {spoken.last}")

# %% [markdown]
# - `gpu`: a larger corpus of avatars, 112 x 112 pixels, 600 sentences, labels by forced alignment, all controls.
# - `full`: PHOENIX-2014 (or `-p data phoenix2014t`, `csl-1`, `csl-2`) at 224 x 224 pixels with the recalled recipe: stage 1 on
#   clips of 16 frames, batch 24; stage 2 with step size 5e-5 and two sentences a step. You bring the corpus, the key points
#   (`train-keypoints.npz` beside the frames) and, if you like, VGG-11's ImageNet weights (`-p vgg_weights FILE`). About two
#   days on one GPU of 24 GB [inferred].
#
# ```
# labkit run stmc --scale gpu
# labkit data list                                    # what the corpora's folders must look like
# labkit train stmc --scale full -p vgg_weights vgg11.pth
# torchrun --nproc-per-node 2 -m labkit train stmc --scale full
# labkit export runs/stmc/lesson-001 DIR --arm multi-cue
# ```
#
# All fields of the config of this run, then the fields in which the scales differ:

# %%
show.config(config)

# %%
show.scales(paper.configs)

# %% [markdown]
# **Recorded runs** are listed by `labkit claims stmc`; each record in `data/records/stmc/` holds its config, seeds, versions,
# hardware and command.
#
# **What is known, and what is our reading.**
#
# - [paper]: the two modules, a pose branch of the network's own, intra-cue and inter-cue paths, joint optimisation from end to
#   end, three corpora. Published WER on test: PHOENIX-2014 20.7, PHOENIX-2014-T 21.0.
# - [author net]: all layers and sizes, the clamping of crops, detached points, no padding in time, blank 0.
# - [recalled]: the form of the loss, $\alpha=0.6$, $\beta=30$, the stages and their step sizes, beam width 20. Where $\beta$
#   stands is not established; the field `pose_loss` offers both. The pairing of wrists with left and right is [inferred].
# - [ours]: avatars, equal parts as first labels, the filling of blanks in aligned labels, batch normalisation in the small
#   network (VGG-11 has none), AdamW with a rising and falling step size in the lesson, soft crops, and all controls.
# - Error rates here count every edit as 1. NIST's sclite weighs substitutions 4 and the others 3 while it aligns, so its split
#   can differ. For PHOENIX-2014 the clean-up of its evaluation is applied first, which changes rates by whole points.
# - Not measured: single cues, the frozen spatial module and the joint loss alone; everything that needs the corpora or a GPU.
