# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Integer-only networks with bounded ReLU
#
# Zhao, Liu and Li, ISCAS 2021, [arXiv 2006.11735](https://arxiv.org/abs/2006.11735)
#
# A processor multiplies 8-bit integers several times faster than floating-point numbers, moves a quarter of the bytes,
# and gets the same bits on every machine. To use it, a network must live on whole numbers from its first pixel to its
# last. This paper says that the price of doing so is paid by the *activations*, and that one number per layer, the bound
# of its ReLU, decides how high it is.
#
# **You will** put bounds on real networks, follow one pixel through nothing but integers, add and concatenate feature
# maps whose integers mean different things, and measure in decibels where the quality goes.
#
# | mark | meaning |
# |---|---|
# | [paper] | stands in the paper's abstract or introduction |
# | [official code] | what the authors' program does |
# | [inferred] | our reading, where neither says |
# | [ours] | our addition, not the paper's |

# %% [markdown]
# ## 1 The idea in one picture
#
# A bounded ReLU has a floor at 0 and a ceiling at its bound $B$; between them lie a fixed number of steps. A tight bound
# cuts off large values but keeps the steps fine; a wide one cuts nothing and makes every step coarse. Somewhere between
# lies the least error (right). What makes the paper work is an asymmetry: a network can *learn* to live with clipping,
# but no training brings back what rounding has erased.

# %%
from IPython.display import Markdown

from labkit import viz
from labkit.papers import load
from labkit.papers.brelu.teaching import exercises, figures
from labkit.workbench import show
from labkit.workbench.exercises import NotAttempted

viz.use()
paper = load("brelu")
figures.idea_figure()

# %% [markdown]
# ## 2 Parameters
#
# The cell below is all there is to set. `labkit run brelu --scale full -p depth 20` (papermill) replaces these
# values; `scale` picks a whole configuration, `overrides` changes single fields of it.

# %% tags=["parameters"]
scale: str = "lesson"  # one of smoke, lesson, gpu, full
seed: int = 0  # seed of every random generator
run_dir: str = ""  # folder of the run; empty makes a new one
overrides: dict = {}  # fields of the config to change, such as epochs

# %%
config = paper.config(scale, **({"seed": seed} | overrides))
run = paper.open_run(scale, config, run_dir)
show.config(config)

# %% [markdown]
# ## 3 What the paper claims
#
# Each statement of the abstract, in our words, with the least effect that we would count as holding it. What was
# measured stands in section 8. Besides "1/4" and "2 times" the abstract gives no figures: that column is empty rather
# than guessed.

# %%
head = "| claim | the abstract says | paper's figure | counts from | measured at |\n|---|---|---|---|---|\n"
Markdown(
    head
    + "\n".join(
        f"| `{c.key}` | {c.sentence} | {c.published or '–'} | {c.margin:g} {c.unit} | {c.scale} |" for c in paper.claims
    )
)

# %% [markdown]
# ## 4 The method, step by step
#
# **What an integer means.** An integer tensor $u$ stands for the real tensor $u/r$; $r$ is its *ratio*, integers per unit.
# The input is `pixel - 128` with $r=255$. Weights are rounded to a grid of step $s$, $w=\mathrm{round}(W'/s)$, where $W'$
# has batch normalisation folded in [official code]. A convolution multiplies integers, so its sums have the ratio
# $r/s$, in int32.
#
# **Bounded ReLU in integers** [official code]. Clip, multiply, shift; the result is a code from 0 to 127 and fits int8:
#
# $$v=\big(\min(\max(u,0),u_{max})\cdot mul+2^{shift-1}\big)\gg shift,\qquad u_{max}=\mathrm{round}(B\,r).$$
#
# A factor has become $mul/2^{shift}$, and a division a shift. Here is the whole of it for one number:

# %%
from labkit.papers.brelu import mul_shift
from labkit.papers.brelu.method.multiply_shift import requantizer_for, snapped_bound

ratio, bound = 9_731.5, 0.83
triple = requantizer_for(bound, ratio)
# NBVAL_CHECK_OUTPUT
print("asked for: bound", bound, "at ratio", ratio, "-> u_max", round(bound * ratio))
print("integers: ", triple, "-> bound", round(snapped_bound(triple, ratio), 5))
print(
    "codes of -5, 0, 31, 32, 4000, u_max, 99999:",
    [
        (min(max(u, 0), triple.u_max) * triple.mul + (1 << triple.shift) // 2) >> triple.shift
        for u in (-5, 0, 31, 32, 4000, triple.u_max, 99_999)
    ],
)

# %% [markdown]
# **Snapping.** Not every ceiling can be reached with a whole `mul`. So the *bound* moves to the nearest one that can,
# $B:=127\cdot2^{shift}/(mul\cdot r)$, and the network is trained with the moved bound [official code]. With few bits the
# moves are visible:

# %%
figures.snapping_figure(46_000, 6)

# %% [markdown]
# **Where the bound comes from** [official code]. Run the float network over training data; in each layer take the value
# at rank 0.99977 of all outputs of the ReLU, zeros included, batch by batch, and average. For normally distributed
# activations that rank is 3.5 standard deviations (0.99865 is 3). No layer is tuned by hand.

# %%
from labkit.papers.brelu.method.bounds import ActivationStatistics

viz.show_source(ActivationStatistics.bound)

# %% [markdown]
# **Fine-tuning** [official code]. The optimiser moves float weights; the network computes with their rounded copies
# (straight through). Bounds are in place and clip; *activations are not rounded while training*. Batch norm is frozen.

# %%
from labkit.papers.brelu.method.weights import quantize_straight_through

viz.show_source(quantize_straight_through)

# %% [markdown]
# **Adding feature maps.** In a residual block two integer tensors meet whose ratios have nothing to do with each other.
# The shortcut is scaled by a small $mul/2^{shift}$ that comes within 1 %; the last percent is taken up by *changing the
# weight step* of the main path, so that both ratios agree exactly [official code]. The shortcut reads the int32 sums from
# before the shift, not the int8 codes: a block must not round its own identity.
#
# **Concatenating.** The branch with the larger ratio gets a coarser weight step until the ratios agree [official code];
# we give both branches one bound first, so that almost nothing is left to correct [ours].

# %%
from labkit.papers.brelu.method.snap import align_addition, align_concatenation

viz.show_source(align_addition, align_concatenation)

# %% [markdown]
# ## 5 Prove it
#
# Before training anything: what can be proved.
#
# 1. The authors' released numbers are snapped bounds: $u_{max}=\mathrm{round}(127\cdot2^{shift}/mul)$.
# 2. Our search reaches code 127 for every $u_{max}$ and never leaves int32 (the tests do all $2^{24}$; here, a sample).
# 3. Theirs aims at 127.5 and fails for some, such as 64, 128 and 256; it is refused there.
# 4. The best bound of a normal activation is 3.92 standard deviations at 127 levels and 2.90 at 15.
# 5. A network with additions: fast int8 products and plain int64 convolutions give the same bits, and both operands of
#    every addition have the same ratio.

# %%
import torch

from labkit.errors import InputError
from labkit.papers.brelu import InputScale, calibrate, quantize_layers, set_bounds, snap, to_integer, trace
from labkit.papers.brelu.experiment.model import SmallResNet
from labkit.papers.brelu.method.bounds import best_bound, gaussian_error
from labkit.papers.brelu.method.multiply_shift import snapped

released = [(7566, 275, 14), (46239, 45, 14), (21675, 3, 9), (57824, 2303, 20), (61425, 271, 17), (48959, 85, 15)]


def reaches(u_max):
    mul, shift = mul_shift(u_max)
    largest = u_max * mul + (1 << shift) // 2
    return largest < 2**31 and largest >> shift == 127


def refused(u_max):
    try:
        mul_shift(u_max, mode="paper")
    except InputError:
        return True
    return False


torch.manual_seed(0)
block = SmallResNet()
block.train()(torch.randn(16, 1, 28, 28))
network = trace(block.eval())
pixels = torch.randint(-128, 128, (4, 1, 28, 28))
real = pixels / 57.63
quantize_layers(network)
set_bounds(network, calibrate(network, [real]), "3.5sigma")
scales = snap(network, InputScale(57.63))
integer = to_integer(network, scales)
codes = integer.to_codes(real)  # the pixels again, as int8
fast = integer.forward_integer(codes)
integer.engine = "reference"
same = torch.equal(fast, integer.forward_integer(codes))
mismatch = []
for node in network.nodes:
    if node.operation == "add":
        main, shortcut = node.inputs
        source = network.node(main).inputs[0]
        _, (mul, shift) = scales.factors[node.name]
        r_main = scales.codes[source] / float(network.parts[main].step)
        mismatch.append(abs(r_main / (scales.sums[shortcut] * mul / 2**shift) - 1))

# NBVAL_CHECK_OUTPUT
print("1 released triples are snapped:", all(snapped(mul, shift, 127).u_max == u for u, mul, shift in released))
print("2 code 127 within int32:", all(reaches(u) for u in range(1, 2**24, 4999)))
print("3 the paper's search refused at 64, 128, 256:", [refused(u) for u in (64, 128, 256)])
print("4 best bound at 127 and 15 levels:", [round(best_bound(gaussian_error, n), 2) for n in (127, 15)])
print("5 same bits:", same, "- ratios of", len(mismatch), "additions equal to 1e-12:", max(mismatch) < 1e-12)

# %% [markdown]
# **Another engine.** `export_onnx` writes the same network for others, and ONNX Runtime, which shares no code with ours,
# must give the same bits. It requantises by a float32 factor and rounds halves to even; `mul_shift` prefers pairs for
# which some such factor puts every sum on its code, so that its fast kernels serve [ours]. Additions are spelled out.

# %%
from labkit.papers.brelu.method.export import runtime

engine = runtime(integer.deployed)
scores = None if engine is None else engine(codes)
print("ONNX Runtime is not installed" if scores is None else f"same bits there: {torch.equal(scores, fast)}")

# %% [markdown]
# ## 6 Train and compare
#
# Images to classify are too easy to show anything at 8 bits: every sensible bound gives the float accuracy. A network
# that must return *pixels* cannot hide an error. So the main experiment is super-resolution (a small VDSR, factor 2),
# beside artifact reduction (VRCNN, with concatenations) and a residual network that classifies (with additions).
# 127 levels are what 8-bit storage leaves for a value that is never negative; 31 and 15 show what is to come.

# %%
result = paper.run(config, run)
print("trained and tested on:", result["data"])
shown = result["superresolution"]
print(f"bicubic {shown['input']:.2f} dB, float network {shown['float']:.2f} dB on {shown['test']}")

# %% [markdown]
# **The trade-off.** All bounds of the 3.5 σ rule times a factor, at each number of levels. On the left nothing is trained:
# a hill, whose top moves to tighter bounds as levels get fewer. On the right each point has been fine-tuned: the slope on
# the left side (clipping) has risen, the one on the right (rounding) has not moved at all.

# %%
figures.map_figure(shown)

# %% [markdown]
# **Whose fault is it?** One thing quantised at a time. Activations up to their largest value cost much with few levels, and
# the tuned bound takes most of that away. Against weights of as many bits the comparison is closer than the abstract
# sounds: what 4-bit weights cost differs a lot from seed to seed (the ledger has the interval), and in classification
# below 8 bits it is the *other way round*, because batch norm spreads the channels over one weight step per layer. The
# abstract's sentence is about 8-bit weights, which indeed cost nothing anywhere.

# %%
figures.one_at_a_time_figure({task: result[task] for task in config.tasks})

# %% [markdown]
# **Rules.** With 127 levels the largest value is as good as any rule, because a network as small as this has no long
# tails: nobody needs a tuned bound here. With 31 and 15 levels the rule wins by far, and integers (black) lie on top of
# their simulation. `mse` and `kl` are the rules of other schemes, without training.

# %%
figures.rules_figure(shown)

# %%
if "peers" in shown:
    rows = [f"| {name} | {value - shown['float']:+.3f} |" for name, value in shown["peers"].items()]
    text = "| other ways, and their levels | dB relative to float |\n|---|---|\n" + "\n".join(rows)
else:
    text = "no peers at this scale"
Markdown(text)

# %% [markdown]
# *bounds with rounding* is the paper's bound with activations rounded in training as well, which the authors do not do: at
# 15 levels it beats theirs. LSQ learns its steps besides.
#
# **Classification.** The fewer the levels, the tighter the best bound.

# %%
figures.classes_figure(result["classification"])

# %%
sizes = shown["published_bytes"]
figures.size_figure({"float32, VDSR of 20 layers": sizes["float_memory"], "integers, file": sizes["integer_file"]})

# %%
# NBVAL_CHECK_OUTPUT
print("VDSR as integers:", round(sizes["integer_file"] / sizes["float_memory"], 3), "of float32 on disk")
print("same bits from plain and from fast integers:", shown["same_on_backends"] == 1)
print("integers within 3 grey levels of their simulation:", shown["integer_difference"] < 3)

# %% [markdown]
# **To see it.** A piece of a test picture; below, eight times the difference from the original.

# %%
from labkit.papers.brelu.teaching import scenes

trained = scenes.open_superresolution(config, run)
figures.pictures_figure(trained)

# %% [markdown]
# **Follow one pixel.** The liveliest channel of the first three layers: what the integers are, what they stand for, and what the
# float network has at the same place.

# %%
Markdown(figures.pixel_table(scenes.follow_pixel(trained, 40, 40)))

# %% [markdown]
# **How fast could it be?** Measured here and now, one thread: what the machine's int8 and float32 products and its memory
# allow at best, and where layers of the paper's networks lie under these roofs. Integers win twice, by cheaper products and by a
# quarter of the bytes. `labkit bench brelu` measures how near one gets.

# %%
from labkit.papers.brelu.teaching import roofline

figures.roofline_figure(roofline.measure(), [(64, 64, 56, 3), (256, 256, 14, 3), (64, 256, 56, 1), (1, 64, 128, 3)])

# %% [markdown]
# ## 7 Explore
#
# **One pixel, every layer.** The table above with handles: go to another pixel, follow it deeper. Left the place, right its
# integers; the title says how far integers and float are apart at the end.

# %%
figures.pixel_widget(trained)

# %% [markdown]
# **The bound of one layer.** Move it over the histogram; values beyond it turn red. The curves are the two errors and
# their sum. With few levels the dip lies far left of the largest value.

# %%
first_layer = trained.statistics["parts.relu1"]
figures.bound_figure(first_layer, 1.0, 31)

# %%
figures.bound_widget(first_layer)

# %% [markdown]
# **The picture.** Fewer levels, wider bounds: when do you see it?

# %%
figures.viewer_widget(trained)

# %% [markdown]
# **The puzzle of the addition.** Find a multiplier and a shift that bring the shortcut to within 1 % of the main path.
# Several pairs do; the smallest shift is the cheapest.

# %%
figures.ratio_widget()

# %% [markdown]
# **Snapping**, with handles.

# %%
figures.snapping_widget()

# %% [markdown]
# ## 8 Verdict
#
# This run, one seed. `labkit claims brelu` shows the recorded runs, with intervals over seeds.

# %%
show.ledger(paper.verdicts(result, scale))

# %%
# NBVAL_CHECK_OUTPUT
print(
    "\n".join(line for line in paper.agreement(result, scale) if "twice-as-fast" not in line)
)  # depends on the machine

# %% [markdown]
# ## 9 Your turn
#
# Fill in a cell and run it: the check says which property fails. The solution is in the folded cell below each.

# %% [markdown]
# **Fill in: clip, multiply, shift.** The bounded ReLU on int32 sums; the answer is an integer tensor.

# %% tags=["exercise"]
task = paper.exercise("requantise").task


def my_requantise(u, mul, shift, u_max):
    raise NotAttempted  # write your answer here instead


paper.exercise("requantise").check(my_requantise)


# %% jupyter={"source_hidden": true} tags=["solution"]
def solution(u, mul, shift, u_max):
    return (u.clamp(0, u_max) * mul + (1 << shift) // 2) >> shift


paper.exercise("requantise").check(solution)

# %% [markdown]
# **Predict, then run: overflow.** The authors' search aims at 127.5: $u\cdot mul$ comes up to $127.5\cdot2^{shift}$. Up to
# which shift is $u\cdot mul+2^{shift-1}$ sure to stay below $2^{31}$?

# %% tags=["exercise"]
my_shift = None  # a whole number

paper.exercise("overflow").check(my_shift)

# %% jupyter={"source_hidden": true} tags=["solution"]
# 127.5 * 2^shift + 2^(shift-1) = 128 * 2^shift = 2^(shift+7) < 2^31
paper.exercise("overflow").check(23)

# %% [markdown]
# **Find the bug: the search.** It aims half a code too high, so that it depends on `mul` being rounded *down*. For some
# `u_max` it never succeeds. Mend it (and keep everything below $2^{31}$).

# %% tags=["exercise"]
viz.show_source(exercises.search_with_a_bug)
my_search = None  # a function u_max -> (mul, shift)

paper.exercise("search").check(my_search)


# %% jupyter={"source_hidden": true} tags=["solution"]
def mended(u_max):
    for shift in range(24, -1, -1):  # aim at 127, the finest multiplier first
        mul = (2 * (127 << shift) + u_max) // (2 * u_max)
        largest = u_max * mul + (1 << shift) // 2
        if 0 < mul < 1 << 15 and largest < 2**31 and largest >> shift == 127:
            return mul, shift


paper.exercise("search").check(mended)

# %% [markdown]
# **Fill in: the rule.** Mean over batches of the sorted value at index `round(n * rank)`, counted from 0, zeros included.

# %% tags=["exercise"]
task = paper.exercise("rule").task


def my_rule(batches, rank):
    raise NotAttempted  # write your answer here instead


paper.exercise("rule").check(my_rule)


# %% jupyter={"source_hidden": true} tags=["solution"]
def rule(batches, rank):
    values = [batch.flatten().sort().values[round(batch.numel() * rank)] for batch in batches]
    return float(torch.stack(values).mean())


paper.exercise("rule").check(rule)

# %% [markdown]
# **Fill in: the addition.** Given the ratio of the main path's input, its weight step, and the ratio of the shortcut:
# return a new step and `(mul, shift)` so that `r_in / new_step` equals `r_shortcut * mul / 2**shift` exactly.

# %% tags=["exercise"]
task = paper.exercise("addition").task


def my_alignment(r_in, step, r_shortcut):
    raise NotAttempted  # write your answer here instead


paper.exercise("addition").check(my_alignment)


# %% jupyter={"source_hidden": true} tags=["solution"]
def aligned(r_in, step, r_shortcut):
    q = r_shortcut / (r_in / step)
    for shift in range(28):
        mul = max(1, round(2**shift / q))
        if abs(2**shift / mul - q) < 0.01 * q:
            return r_in / (r_shortcut * mul / 2**shift), (mul, shift)


paper.exercise("addition").check(aligned)

# %% [markdown]
# **Predict, then run: another distribution.** Activations are the ReLU of a Laplace variable of scale 1: its tail is
# $e^{-x}/2$, longer than the normal one's. Where is the best bound at 127 levels, in scale units?

# %% tags=["exercise"]
my_bound = None  # a number

paper.exercise("laplace").check(my_bound)

# %% jupyter={"source_hidden": true} tags=["solution"]
from labkit.papers.brelu.method.bounds import laplace_error

# half of the mass clips with e^-k, half of it is rounded with (k / 127)^2 / 12
paper.exercise("laplace").check(min((laplace_error(k / 100, 127), k / 100) for k in range(100, 3000))[1])

# %% [markdown]
# **Open.** Let the bounds learn (`baselines.learn_bounds` gives them a gradient): do they end where the rule puts them?
# Replace the rounding shift by a plain one and measure the drift, half a code a layer. Let an addition read int8 codes
# instead of the sums and see what a deep residual network makes of it.

# %% [markdown]
# ## 10 Take it home, and full scale
#
# **Your own network.** Any CNN that torch.fx can trace: convolutions of every kind, BatchNorm, ReLU and ReLU6, pooling,
# additions and concatenations anywhere, nearest upsampling, pixel shuffle. What else is in it is refused by name.
#
# ```python
# from labkit.papers.brelu import convert, load
#
# integer = convert(my_model, my_batches)  # some hundred training images set bounds and scales; the model stays as it is
# integer = convert(my_model, my_batches, finetune=my_training_loop)  # better: train once more, bounds in place
# scores = integer(my_images)  # called like my_model; from the first convolution on there are only integers
# integer.save("integer.safetensors")
# integer.export_onnx("integer.onnx")  # the same bits elsewhere
# scores = load("integer.safetensors")(my_images)
# ```
#
# Here with a network that is not among this room's, on scikit-learn's digits, without fine-tuning:

# %%
from sklearn.datasets import load_digits
from torch import nn

from labkit.papers.brelu import convert

digits = load_digits()
images, labels = torch.tensor(digits.images[:, None] / 16).float(), torch.tensor(digits.target)
torch.manual_seed(0)
my_model = nn.Sequential(
    *(nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU6()),
    *(nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.Conv2d(24, 32, 1), nn.BatchNorm2d(32), nn.ReLU6()),
    *(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(512, 10)),
)
optimizer = torch.optim.Adam(my_model.parameters(), lr=3e-3)
for batch in torch.randperm(1200).repeat(8).split(64):
    optimizer.zero_grad()
    nn.functional.cross_entropy(my_model(images[batch]), labels[batch]).backward()
    optimizer.step()
integer = convert(my_model.eval(), [images[:512]])

with torch.no_grad():
    answers = [network(images[1200:]).argmax(1) for network in (my_model, integer)]
# NBVAL_CHECK_OUTPUT
print("float network above 90 %:", bool((answers[0] == labels[1200:]).double().mean() > 0.9))
print("integers give the same answer on 97 % and more:", bool((answers[0] == answers[1]).double().mean() >= 0.97))

# %% [markdown]
# `labkit export RUN DIR` writes the network of a finished run as a folder that `load` reads.
#
# **The paper's own setting:** ImageNet ResNets from published float weights, VDSR on 291 images, VRCNN on HEVC intra
# pictures [official code]:
#
# ```
# labkit data check imagenet                                  # says how the folder must look
# labkit run brelu --scale full -p classification.float_weights resnet18.safetensors
# torchrun --nproc-per-node 8 -m labkit train brelu --scale full
# ```
#
# T91, BSD200, Set5, Set14 and BSD68 are expected as `sr/<set>/*.png` below LABKIT_DATA. What that asks for, next to one
# data-centre GPU for ten minutes and to this lesson:

# %%
show.scales(paper.configs)

# %% [markdown]
# **Recorded runs** are listed by `labkit claims brelu`; each record in `data/records/brelu/` holds its config, seeds,
# versions, hardware and command. `labkit bench brelu` times integers against float and ONNX Runtime on your machine.
#
# **What is known, and what is our reading.**
#
# - Ratios, the weight step on folded weights, clip-multiply-shift, snapping, ranks 0.99865 and 0.99977, the addition with
#   its two copies, the concatenation, the fine-tuning loop: [official code]. Only the abstract of the [paper] was at hand,
#   so its tables are not quoted.
# - The search for `mul` and `shift` is [ours] by default (`mode="paper"` is theirs, refused where it fails).
# - One bound for concatenated branches, bounds of both signs where no ReLU follows a convolution, and a zero-point for
#   inputs of one sign are [ours]; averages are the integers' mean, and the output keeps its fraction [official code].
# - The straight-through form of the shadow loop is the same for optimisers without weight decay; with it, the decay acts on
#   the float weight instead of the rounded one [ours].
# - Bounds come from training images; the authors' ResNet script takes validation images.
# - JPEG stands in for HEVC in the lesson; libx265 for the reference encoder at full scale [ours].
