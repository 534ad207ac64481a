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
# Many processors multiply 8-bit integers several times faster than floating-point numbers. They move a quarter of the
# bytes, and integer arithmetic gives the same bits on every machine. To profit from this, a network must compute with
# integers from its first layer to its last. This paper says that the quality lost on the way is lost by rounding the
# *activations*, the outputs of the layers. It limits each layer's ReLU by an upper bound, and sets that bound by a
# rule. Of the paper we could read the abstract and the introduction; its program is public.
#
# **You will** put bounds on real networks, follow one pixel through integer arithmetic, add and concatenate feature maps
# with different scales, and measure what each step costs in decibels.
#
# | mark | meaning |
# |---|---|
# | [paper] | stands in the paper's abstract or introduction |
# | [official code] | what the authors' program does |
# | [ours] | our addition, not the paper's |

# %% jupyter={"source_hidden": true} tags=["setup"]
# nothing to read: where labkit is missing (on Colab), this installs it from its clone
import importlib.util

if getattr(importlib.util.find_spec("labkit"), "origin", None) is None:  # the clone's folder alone is no package
    from pathlib import Path
    from runpy import run_path

    files = [*Path().glob("*/notebooks/install.py"), *Path("..").glob("notebooks/install.py")]
    if not files:
        raise RuntimeError("There is no clone of labkit here. Make one first, in a cell: !git clone ADDRESS")
    run_path(str(files[0].resolve()), run_name="__main__")

# %% [markdown]
# ## 1 The idea in one picture
#
# A bounded ReLU computes $\min(\max(x,0),B)$ with an upper bound $B$. Its output is then rounded to 0 or to one of a
# fixed number of levels up to $B$. The picture shows the same inputs under two bounds, with 7 levels each. The small
# bound has fine steps, but it clips every larger value (red). The large bound clips nothing, but its steps are coarse
# (orange). The bound trades one error for the other [paper].

# %%
from IPython.display import Markdown

from labkit import viz
from labkit.papers import load
from labkit.papers.brelu.teaching import exercises, figures
from labkit.workbench import show
from labkit.workbench.exercises import NotAttempted

viz.use()
paper = load("brelu")
viz.show(
    figures.idea_figure(),
    "Two staircases of 7 steps over a ReLU. Left, bound 1.5: low steps close to the ReLU, and a large red triangle above "
    "the bound. Right, bound 4.5: no red, but high steps with orange errors.",
)

# %% [markdown]
# ## 2 Parameters
#
# The next cell holds the four parameters. `scale` picks a whole configuration, `overrides` changes single fields of it.
# `labkit run brelu --scale full -p depth 20` sets them from the command line.

# %% tags=["parameters"]
scale: str = "lesson"  # one of smoke, lesson, gpu, full
seed: int = 0  # seed of every random generator
run_dir: str = ""  # folder of the run; empty makes a new one
overrides: dict = {}  # fields of the config to change, such as epochs

# %% [markdown]
# Three fields are worth changing. `levels` are the numbers of levels that are compared: with fewer, rounding costs more.
# `tune_steps` is the length of fine-tuning: with 1, clipping is not repaired. `depth` is the number of layers of the
# super-resolution network: with more, rounding errors pass through more layers. All fields: section 10.

# %%
config = paper.config(scale, **({"seed": seed} | overrides))
run = paper.open_run(scale, config, run_dir)
show.config(config, fields=["levels", "tune_steps", "depth"])

# %% [markdown]
# ## 3 What the paper claims
#
# Below are the statements of the abstract in our words, each with the smallest effect that counts as holding it.
# Section 8 has what was measured. Apart from "1/4" of the memory and "2 times" the speed the abstract gives no figures
# [paper].
#
# PSNR, in decibels (dB), is the peak signal-to-noise ratio of a restored picture:
# $10\log_{10}(255^2/\text{mean squared error})$. VDSR and VRCNN are the paper's networks for super-resolution and for the
# reduction of compression artifacts.

# %%
show.claims(paper, main=["activations-not-weights", "tuned-bound-7-bits", "integer-superresolution"])

# %% [markdown]
# ## 4 The method, step by step
#
# **What an integer means.** An integer tensor $u$ stands for the real tensor $u/r$. The number $r$ is its *ratio*:
# integers per unit. The input is `pixel - 128` with $r=255$. Batch normalisation is first multiplied into the weights,
# which gives $W'$. They are rounded to multiples of a *weight step* $s$: the integer weights are
# $w=\mathrm{round}(W'/s)$ [official code]. A convolution of integers with ratio $r$ then gives sums with ratio $r/s$,
# held in 32 bits (int32). The bias is rounded to a whole number at that ratio.
#
# **Bounded ReLU in integers** [official code]. Clip, multiply, shift:
#
# $$v=\big(\min(\max(u,0),u_{max})\cdot mul+2^{shift-1}\big)\gg shift,\qquad u_{max}=\mathrm{round}(B\,r).$$
#
# The fraction $mul/2^{shift}$ replaces a real factor, and the shift to the right replaces a division. The result $v$ is a
# *code* from 0 to 127, which fits into 8 bits (int8). These are the 127 levels above zero. An example:

# %%
import torch

from labkit.kernels.int8_conv import requantize
from labkit.papers.brelu import mul_shift
from labkit.papers.brelu.method.multiply_shift import requantizer_for, snapped_bound

ratio, bound = 9_731.5, 0.83
triple = requantizer_for(bound, ratio)
sums = torch.tensor([-5, 0, 31, 32, 4000, triple.u_max, 99_999], dtype=torch.int32)
# NBVAL_CHECK_OUTPUT
print("bound", bound, "at ratio", ratio, "-> u_max", round(bound * ratio))
print(
    f"u_max {triple.u_max}, mul {triple.mul}, shift {triple.shift}", "-> bound", round(snapped_bound(triple, ratio), 5)
)
print("sums: ", sums.tolist())
print("codes:", requantize(sums, triple).tolist())

# %% [markdown]
# **Snapping.** A whole number `mul` reaches only some bounds. The bound is therefore moved to the nearest one in reach,
# $B:=127\cdot2^{shift}/(mul\cdot r)$, and the network is fine-tuned with the moved bound [official code]. Each bar below
# is a reachable $u_{max}$. With more bits for `mul` the bars are closer together.

# %%
viz.show(
    figures.snapping_widget(),
    "Bars at the reachable values of u_max, labelled by mul. A black line marks the value asked for, 46,000; the nearest "
    "bar is blue.",
)

# %% [markdown]
# **Where the bound comes from** [official code]. Run the float network over training data. Sort the $n$ outputs of a ReLU
# in each batch, zeros included: $y_{(0)}\le\dots\le y_{(n-1)}$. The bound is the mean over the batches of
#
# $$y_{(\mathrm{round}(n\,p))},\qquad p=0.99977.$$
#
# If the inputs of the ReLU are normally distributed with mean 0, this is 3.5 standard deviations, hence the name "3.5 σ
# rule"; $p=0.99865$ gives 3. Here no layer is tuned by hand. The authors set the bounds of one of their networks,
# VRCNN, by hand [official code].
#
# **Fine-tuning** [official code]. The optimiser moves float weights; the network computes with their rounded copies. The
# gradient passes the rounding as if it were the identity (the *straight-through estimator*). Bounds are in place and
# clip, but *activations are not rounded in training*. Batch normalisation keeps its statistics and its scale.

# %%
from labkit.papers.brelu.method.weights import quantize_straight_through, weight_codes

viz.show_source(weight_codes, quantize_straight_through)

# %% [markdown]
# **Adding feature maps.** In a residual block two integer tensors are added: the main path and the shortcut. Their
# ratios differ. The shortcut is multiplied by a fraction $mul/2^{shift}$ that brings it within 1 % of the main path.
# Then the *weight step* of the main path is changed until both ratios agree exactly [official code]. A shortcut without
# a convolution reads the int32 sums before the shift, not the int8 codes, so that it is not rounded once more in every
# block.
#
# **Concatenating feature maps.** The branch with the larger ratio gets a coarser weight step, until the ratios agree
# [official code]. Both branches get the same bound first, so that the correction is small [ours].

# %%
from labkit.papers.brelu.method.snap import align_concatenation

viz.show_source(align_concatenation)

# %% [markdown]
# ## 5 Prove it
#
# Some statements can be checked before any training.
#
# 1. The numbers that the authors released are snapped bounds: $u_{max}=\mathrm{round}(127\cdot2^{shift}/mul)$.
# 2. Our search for `mul` and `shift` reaches code 127 for every $u_{max}$ and never leaves int32. The tests check all
#    $2^{24}$ values, the cell below a sample.
# 3. The authors' search fails for some $u_{max}$, among them 64, 128 and 256. `mode="paper"` refuses these.
# 4. For the ReLU of a standard normal variable, a bound $k$ and $L$ levels the mean squared error of clipping and
#    rounding is $E(k)=(1+k^2)(1-\Phi(k))-k\,\varphi(k)+(k/L)^2/24$, with the normal distribution function $\Phi$ and
#    density $\varphi$. It is least at $k=3.92$ for 127 levels and at 2.90 for 15.

# %%
from labkit.errors import InputError
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


# NBVAL_CHECK_OUTPUT
print("1 released triples are snapped:", all(snapped(mul, shift, 127).u_max == u for u, mul, shift in released))
print("2 code 127 within int32:", all(reaches(u) for u in range(1, 2**24, 4999)))
print("3 the paper's search refused at 64, 128, 256:", [refused(u) for u in (64, 128, 256)])
print("4 best bound at 127 and 15 levels:", [round(best_bound(gaussian_error, n), 2) for n in (127, 15)])

# %% [markdown]
# The error $E(k)$ as code, and its curves. To the left of the minimum (dot) clipping dominates, to the right rounding.

# %%
viz.show_source(gaussian_error)
viz.show(
    figures.error_figure(),
    "Three curves of the mean squared error against the bound, each with a minimum. With fewer levels the curve lies "
    "higher, and its minimum further to the left.",
)

# %% [markdown]
# A residual network with random weights, converted to integers:
#
# 5. Fast int8 products and plain int64 convolutions give the same bits.
# 6. Both operands of every addition have the same ratio.
# 7. ONNX Runtime, an independent engine, gives the same bits from the network that `export_onnx` writes. It multiplies
#    by a float32 factor and rounds halves to even. `mul_shift` prefers pairs for which such a factor gives the same code
#    for every sum [ours].

# %%
from labkit.papers.brelu import InputScale, calibrate, quantize_layers, set_bounds, snap, to_integer, trace
from labkit.papers.brelu.experiment.model import SmallResNet
from labkit.papers.brelu.method.export import runtime

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
print("5 same bits from int8 and int64:", same)
print("6 ratios of", len(mismatch), "additions equal to 1e-12:", max(mismatch) < 1e-12)

# %%
engine = runtime(integer.deployed)
scores = None if engine is None else engine(codes)
print("7 ONNX Runtime is not installed" if scores is None else f"7 same bits there: {torch.equal(scores, fast)}")

# %% [markdown]
# ## 6 Train and compare
#
# There are three tasks. The main one is super-resolution: a small VDSR doubles the resolution of a picture. *Bicubic*
# interpolation is what it has to beat. A network that returns *pixels* shows every rounding error in its PSNR. Artifact
# reduction (VRCNN) needs concatenations. Classification by a small residual network needs additions. There are 127
# levels: signed 8-bit storage has as many codes above zero. 31 and 15 levels show the effect of fewer bits.
#
# Where `LABKIT_DATA` has them, the networks train on the photographs of T91 and on Fashion-MNIST, and are tested on
# five pictures (Set5), on three of the 68 of BSD68, and on Fashion-MNIST. Otherwise two photographs and the digits of
# scikit-learn take their place.

# %%
result = paper.run(config, run)
print("trained and tested on:", result["data"])
shown = result["superresolution"]
print(f"bicubic {shown['input']:.2f} dB, float network {shown['float']:.2f} dB on {shown['test']}")

# %% [markdown]
# **The trade-off.** The bounds of the 3.5 σ rule are multiplied by a factor, the same in all layers. Left: no training
# after that. Right: the same after fine-tuning.
#
# Before you run the next cell: on which side of the peak should fine-tuning help, where clipping dominates or where
# rounding does?

# %%
viz.show(
    figures.map_figure(shown),
    "PSNR against the bound, one curve per number of levels; left untrained, right fine-tuned. The curves rise to a peak "
    "and fall; with fewer levels the fall begins earlier.",
)

# %% [markdown]
# Fine-tuning raises the left side, where clipping dominates. The right side, where rounding dominates, stays as it was.
#
# **Weights or activations?** Only one of the two is quantised at a time. Grey: weights. Orange: activations, bound at the
# largest value. Blue: activations, bound by the 3.5 σ rule.

# %%
viz.show(
    figures.one_at_a_time_figure({task: result[task] for task in config.tasks}),
    "Bars of what is lost relative to float, one panel per task: weights with 8 bits and fewer, activations with 127 "
    "levels and fewer under the largest value and under the 3.5 sigma rule. 8-bit weights lose next to nothing.",
)

# %% [markdown]
# 8-bit weights lose next to nothing in any task. Compare the loss of 4-bit weights with that of activations at 15
# levels, which are also 4 bits. In the two tasks that return pixels, activations with the largest value as bound lose
# much, and the 3.5 σ rule recovers most of that. The loss of 4-bit weights varies strongly between seeds, above all in
# classification. Only the intervals over seeds can decide the abstract's statement, task by task
# (`labkit claims brelu`). With them it is shown for none of the three tasks; in classification 4-bit weights lose more
# than activations.
#
# **Bound rules.** `max` is the largest value, `3.5sigma` and `3sigma` are the rules of section 4. Two rules of other
# schemes are shown untrained: `mse` minimises the mean squared error, `kl` the Kullback-Leibler divergence between the
# histograms before and after rounding.

# %%
viz.show(
    figures.rules_figure(shown),
    "One row per bound rule, untrained and fine-tuned, and a last row for the integer network. Points for 127, 31 and 15 "
    "levels show the PSNR relative to float. At 15 levels the rule max is furthest to the left.",
)

# %% [markdown]
# With 127 levels `max` is as good as the rule: the largest activation of this small network is at most 2.5 times the
# rule's bound. With 31 and with 15 levels the rule is better. The integer network (last row) agrees with its simulation,
# the fine-tuned 3.5 σ row.
#
# **Other schemes**, rebuilt here for comparison [ours]. *gemmlowp* (TensorFlow) takes the largest value as bound, with
# 255 levels; *TensorRT* (NVIDIA) the `kl` rule. Neither is trained. *DoReFa* (from the paper DoReFa-Net) and *LSQ*
# (learned step size quantisation) round activations in training; LSQ also trains the steps. *bounds with rounding* is
# the paper's method with activations rounded in training as well. These networks are not part of the lesson: the table
# is read from the record (`labkit record brelu --label peers ...`).

# %%
from labkit.workbench import records

others = next(record for record in records.load_all("brelu") if record.label == "peers")
Markdown(figures.peers_table([result["superresolution"] for result in others.results]))

# %% [markdown]
# **Classification.** Accuracy without training, for each rule. `p99` and `p95` put the bound at a percentile of the
# activations, so they are the tightest.

# %%
viz.show(
    lambda: figures.classes_figure(result["classification"]),
    "Accuracy against the number of levels, one curve per rule. At 127 levels all but p95 are close to float; at "
    "3 levels the two tightest bounds, p99 and p95, are highest.",
    when="classification" in result,
)

# %% [markdown]
# **Size.** The bars are for VDSR in its published size, 20 layers of 64 channels, with random weights.

# %%
sizes = shown["published_bytes"]
viz.show(
    figures.size_figure({"float32": sizes["float_memory"], "integers, file": sizes["integer_file"]}),
    "Two bars: the integer file has about a quarter of the bytes of the float32 weights.",
)

# %%
# NBVAL_CHECK_OUTPUT
print("VDSR as integers:", round(sizes["integer_file"] / sizes["float_memory"], 3), "of float32 on disk")
print("same bits from plain and from fast integers:", shown["same_on_backends"] == 1)
print("integers within 3 grey levels of their simulation:", shown["integer_difference"] < 3)

# %% [markdown]
# **The pictures.** Top: a piece of a test picture, as it is restored. Bottom: its difference from the original, times
# 8.

# %%
from labkit.papers.brelu.teaching import scenes

trained = scenes.open_superresolution(config, run)
viz.show(
    figures.pictures_figure(trained),
    "Four versions of a piece of a picture: bicubic, float network, integers, original. The differences of the float and "
    "of the integer network look alike; those of bicubic are stronger at edges.",
)

# %% [markdown]
# **One pixel.** The table follows one pixel through the first three layers, in each through the channel with the
# largest sum. It shows the integer, the real number that it stands for, and what the float network has at the same
# place.

# %%
Markdown(figures.pixel_table(scenes.follow_pixel(trained, 40, 40)))

# %% [markdown]
# **How fast could it be?** A *roofline*, measured now on one thread of this machine. The flat part is the speed of its
# products, the slope the speed of its memory; no layer can be above the line. Each dot is the computed limit of one
# convolution, labelled with its channels in and out and its kernel size. Integers have faster products, and they need a
# quarter of the bytes, so their dots lie further to the right. `labkit bench brelu` measures real speeds.

# %%
from labkit.papers.brelu.teaching import roofline

viz.show(
    figures.roofline_figure(
        roofline.measure(), [(64, 64, 56, 3), (256, 256, 14, 3), (64, 256, 56, 1), (1, 64, 128, 3)]
    ),
    "Operations per second against operations per byte, on logarithmic axes: the int8 roof and the float32 roof, each "
    "with four convolutions as dots. The int8 roof lies above the float32 roof.",
)

# %% [markdown]
# ## 7 Explore
#
# **One pixel, every layer.** This is the table above with sliders for the pixel and for the number of layers. The title
# shows how far integers and float differ at the end.

# %%
viz.show(
    figures.pixel_widget(trained),
    "Left, the picture with a circle at the chosen pixel. Right, a table of each step with its integer, what it stands "
    "for, and the float network's value.",
)

# %% [markdown]
# **The bound of one layer.** Move the bound over the histogram of the first layer's activations; values above it turn
# red. The curves on the right are the two errors and their sum; the blue dot is the bound as set. With fewer levels the minimum moves to the left.

# %%
first_layer = trained.statistics["parts.relu1"]
viz.show(
    figures.bound_widget(first_layer),
    "Left, a histogram of activations with the bound as a vertical line. Right, clipping error falling and rounding error "
    "rising with the bound, and their sum with a minimum between.",
)

# %% [markdown]
# **The restored picture.** Fewer levels, wider bounds: when does the difference become visible?

# %%
viz.show(
    figures.viewer_widget(trained),
    "Left, the restored piece of the picture; right, eight times its difference from the original. The title shows "
    "levels, bound and PSNR.",
)

# %% [markdown]
# **Aligning an addition.** Find a multiplier and a shift that bring the shortcut within 1 % of the main path. Several
# pairs do; prefer the smallest shift.

# %%
viz.show(
    figures.ratio_widget(),
    "Two bars, integers per unit of the main path and of the shortcut. The second is red until they agree within 1 %.",
)

# %% [markdown]
# ## 8 Verdict
#
# This run has one seed, so it has no interval. `labkit claims brelu` shows the recorded runs with 95 % intervals over
# seeds; a claim holds there when the near end of the interval passes the margin. The claim about a MobileNet is not part
# of this run: it has a record of its own (`labkit record brelu --label mobilenet -p tasks mobilenet`).

# %%
show.ledger(paper.verdicts(result, scale))

# %% [markdown]
# Does this run lie where the recorded ones do? Speed is left out: it depends on the machine.

# %%
# NBVAL_CHECK_OUTPUT
print("\n".join(line for line in paper.agreement(result, scale) if "twice-as-fast" not in line))

# %% [markdown]
# ## 9 Your turn
#
# Fill in a cell and run it: the check names the property that fails. `.hint()` in place of `.check(...)` gives two hints,
# one after the other. The solution is folded below.

# %% [markdown]
# ### Clip, multiply, shift

# %% tags=["exercise"]
display(paper.exercise("requantise"))


def my_requantise(u, mul, shift, u_max):
    raise NotAttempted  # write your answer here instead


paper.exercise("requantise").check(my_requantise)


# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
def solution(u, mul, shift, u_max):
    return (u.clamp(0, u_max) * mul + (1 << shift) // 2) >> shift


paper.exercise("requantise").check(solution)

# %% [markdown]
# ### Staying inside int32

# %% tags=["exercise"]
display(paper.exercise("overflow"))
my_shift = None  # a whole number

paper.exercise("overflow").check(my_shift)

# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
# code <= 15 means u mul + 2^(shift-1) < 16 * 2^shift = 2^(shift+4), and 2^(shift+4) <= 2^31 up to shift 27
paper.exercise("overflow").check(27)

# %% [markdown]
# ### A search that sometimes fails

# %% tags=["exercise"]
display(paper.exercise("search"))
viz.show_source(exercises.broken_search)
my_search = None  # a function u_max -> (mul, shift)

paper.exercise("search").check(my_search)


# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
# it aims at 127.5, half a code too high: u_max gets code 127 only where mul happens to be rounded down
def mended(u_max):
    for shift in range(24, -1, -1):  # aim at 127, the finest multiplier first
        mul = (2 * (127 << shift) + u_max) // (2 * u_max)
        largest = u_max * mul + (1 << shift) // 2
        if 0 < mul < 1 << 15 and largest < 2**31 and largest >> shift == 127:
            return mul, shift


paper.exercise("search").check(mended)

# %% [markdown]
# ### The bound rule

# %% tags=["exercise"]
display(paper.exercise("rule"))


def my_rule(batches, rank):
    raise NotAttempted  # write your answer here instead


paper.exercise("rule").check(my_rule)


# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
def rule(batches, rank):
    values = [batch.flatten().sort().values[round(batch.numel() * rank)] for batch in batches]
    return float(torch.stack(values).mean())


paper.exercise("rule").check(rule)

# %% [markdown]
# ### The addition

# %% tags=["exercise"]
display(paper.exercise("addition"))


def my_alignment(r_in, step, r_shortcut):
    raise NotAttempted  # write your answer here instead


paper.exercise("addition").check(my_alignment)


# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
def aligned(r_in, step, r_shortcut):
    q = r_shortcut / (r_in / step)
    for shift in range(28):
        mul = max(1, round(2**shift / q))
        if abs(2**shift / mul - q) < 0.01 * q:
            return r_in / (r_shortcut * mul / 2**shift), (mul, shift)


paper.exercise("addition").check(aligned)

# %% [markdown]
# ### Another distribution

# %% tags=["exercise"]
display(paper.exercise("laplace"))
my_bound = None  # a number

paper.exercise("laplace").check(my_bound)

# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
# half of the values are positive: clipping adds e^-k, rounding half of (k / 127)^2 / 12
from labkit.papers.brelu.method.bounds import laplace_error

paper.exercise("laplace").check(min((laplace_error(k / 100, 127), k / 100) for k in range(100, 3000))[1])

# %% [markdown]
# **Open questions.**
#
# - Train the bounds (`baselines.learn_bounds` gives them a gradient). Do they end where the rule puts them?
# - Replace the rounding shift by one that rounds down. How far do the outputs drift, layer by layer?
# - Let an addition read the int8 codes in place of the sums. How does a deep residual network react?

# %% [markdown]
# ## 10 Take it home, and full scale
#
# **Your own network.** `convert` takes any CNN that torch.fx can trace: convolutions of every kind, BatchNorm, ReLU and
# ReLU6, pooling, additions and concatenations anywhere, nearest upsampling, pixel shuffle. Any other operation is
# refused by name. The model itself is not changed.
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
# The example converts, without fine-tuning, a network that this notebook has not used, on scikit-learn's digits.

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
# **The paper's own setting** [official code]: ImageNet ResNets from published float weights, VDSR on 291 images, VRCNN on
# intra-coded pictures of the video codec HEVC:
#
# ```
# labkit data check imagenet                                  # says how the folder must look
# labkit run brelu --scale full -p classification.float_weights resnet18.safetensors
# torchrun --nproc-per-node 8 -m labkit train brelu --scale full
# ```
#
# T91, BSD200, Set5, Set14 and BSD68 are expected as `sr/<set>/*.png` below `LABKIT_DATA`.
#
# All fields of this run's config, then the fields in which the four scales differ:

# %%
show.config(config)
show.scales(paper.configs)

# %% [markdown]
# **Recorded runs** are listed by `labkit claims brelu`. Each record in `data/records/brelu/` holds its config, seeds,
# versions, hardware and command. `labkit bench brelu` times integers against float and ONNX Runtime on your machine.
#
# **What is known, and what is our reading.**
#
# - Only the abstract and the introduction of the [paper] were at hand, so its tables are not quoted.
# - From the [official code]: the ratios, the weight step on folded weights, clip-multiply-shift, snapping, the ranks
#   0.99865 and 0.99977, the addition that reads sums, the concatenation, and the fine-tuning loop. An average is taken of
#   the integers, and the network's output is not rounded to codes.
# - The search for `mul` and `shift` is [ours]; `mode="paper"` is the authors'.
# - One bound for concatenated branches, bounds of both signs where no ReLU follows a convolution, and a zero-point for
#   inputs of one sign are [ours].
# - The authors' loop keeps a second copy of the weights. Our straight-through form is equivalent for optimisers without
#   weight decay. With weight decay, the decay acts on the float weight in place of the rounded one [ours].
# - Bounds come from training images [ours]; the authors' ResNet script takes validation images [official code].
# - JPEG replaces HEVC in the lesson, and libx265 the reference encoder at full scale [ours].
