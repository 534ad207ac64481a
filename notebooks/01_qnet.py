# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Quantization Networks
#
# Yang, Shen, Xing, Tian, Li, Deng, Huang and Hua, CVPR 2019, [arXiv 1911.09464](https://arxiv.org/abs/1911.09464)
#
# A network with 1-bit weights needs a thirty-second of the memory. But a step function has no slope: where the forward
# pass rounds, gradients end. Most methods pretend that the step was a straight line (*straight-through*). This paper
# makes the step out of something that has a slope, and sharpens it while the network trains.
#
# **You will** build the quantiser, prove what can be proved about it, train 1-, 2- and 3-bit networks on real images
# against their rivals, find where the idea works and where it breaks, and store a network in its true size.
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
# A stored weight (horizontal) is used through a staircase of sigmoids. At low temperature $T$ it is smooth and every
# weight learns. As $T$ rises it turns into the hard staircase that will be deployed, and only weights near a step still
# get a gradient (right). Training is a race: settle every weight on its level before it freezes.

# %%
import math

from labkit import viz
from labkit.papers import load
from labkit.papers.qnet import forward_mode
from labkit.papers.qnet.teaching import exercises, figures
from labkit.workbench import show
from labkit.workbench.exercises import NotAttempted

viz.use()
paper = load("qnet")
figures.idea_figure()

# %% [markdown]
# ## 2 Parameters
#
# The cell below is all there is to set. `labkit run qnet --scale full -p learning_rate 0.01` (papermill) replaces these
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
# measured stands in section 8. The abstract itself gives no figures, so that column is empty rather than guessed.

# %%
from IPython.display import Markdown

head = "| claim | the abstract says | counts from | measured at |\n|---|---|---|---|\n"
Markdown(head + "\n".join(f"| `{c.key}` | {c.sentence} | {c.margin:g} {c.unit} | {c.scale} |" for c in paper.claims))

# %% [markdown]
# ## 4 The method, step by step
#
# **The function.** Levels $Y_1<\dots<Y_{n+1}$ with gaps $s_i$, thresholds $b_i$, one input scale $\beta$ and one output
# scale $\alpha$ per layer [paper]:
#
# $$y=\alpha\Big(\sum_{i=1}^{n}s_i\,\sigma\big(T(\beta x-b_i)\big)-o\Big)\quad\text{while training},\qquad
#   y=\alpha\Big(\sum_{i=1}^{n}s_i\,\mathbb 1[\beta x>b_i]-o\Big)\quad\text{when deployed}.$$
#
# The same formula serves weights ($o=\tfrac12\sum s_i$, levels around zero) and activations ($o=0$, levels
# $0,1,\dots,2^k-1$ after a ReLU). Level sets of the paper's experiments [official code]:

# %%
from labkit.papers.qnet import LEVELS

# NBVAL_CHECK_OUTPUT
for name in ("W1", "W2", "W3pm2", "W3pm4", "A1", "A2"):
    print(f"{name:6} {[int(level) for level in LEVELS[name]]}")

# %% [markdown]
# **The layer.** Soft in `train()`, hard in `eval()`. This is the library's code, not a copy of it:

# %%
from labkit.papers.qnet import SoftQuantizer

viz.show_source(SoftQuantizer.forward)

# %% [markdown]
# **Where the steps begin.** $\beta$ is set so that the data spans the levels, and the thresholds lie midway between the
# centres of a one-dimensional k-means [official code]. For normally distributed weights and three levels that is the
# Lloyd-Max quantiser, with thresholds at $\pm0.612\sigma$:

# %%
import torch

from labkit.papers.qnet import kmeans_thresholds

normal = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(20_000) + 0.5) / 20_000)  # evenly spaced quantiles
# NBVAL_CHECK_OUTPUT
print("three levels:", [round(b, 2) + 0.0 for b in kmeans_thresholds(normal, 3).tolist()])
print("four levels: ", [round(b, 2) + 0.0 for b in kmeans_thresholds(normal, 4).tolist()])

# %% [markdown]
# **Into a network.** Weights are quantised through PyTorch's `parametrize`: the optimiser moves the stored weight, the
# layer uses the quantised one, autograd does the rest. The first and the last layer stay in floating point [paper].

# %%
from labkit.papers.qnet import build_model, quantize_weights

network = build_model("cnn", classes=10, image_size=28, channels=1)
placement = quantize_weights(network, LEVELS["W2"])
# NBVAL_CHECK_OUTPUT
print("quantised:", ", ".join(placement.quantized))
print("left as they are:", ", ".join(placement.excluded))

# %% [markdown]
# **The loop.** Nothing is hidden: a plain loop in which the temperature rises with every step.

# %%
from labkit.papers.qnet.experiment.train import HISTOGRAM_BINS, optimize

viz.show_source(optimize)

# %% [markdown]
# ## 5 Prove it
#
# Before training anything: identities that a right implementation satisfies exactly. Each of these would catch a bug that
# a training curve would not show.
#
# 1. Two levels are a hyperbolic tangent: $y=\alpha\tanh(T\beta x/2)$ for levels $\{-1,1\}$.
# 2. The area under the slope is $\alpha\sum s_i$ whatever $T$ is: sharpening moves gradient, it does not make any.
# 3. The width of each bump at half its height is $2\ln(3+2\sqrt2)/(T\beta)\approx3.525/(T\beta)$.
# 4. Scale invariance: $\beta\to c\beta,\ b\to cb,\ T\to T/c$ changes nothing.
# 5. Deployed, the output takes at most $n+1$ values, and they are $\alpha Y$ exactly.

# %%
from labkit.papers.qnet import soft_quantize
from labkit.papers.qnet.experiment.diagnostics import slope

x = torch.linspace(-8, 8, 160_001, dtype=torch.float64)
two = SoftQuantizer((-1.0, 1.0), torch.zeros(1), beta=0.25, alpha=2.0).double()
two.temperature.fill_(7.0)
tanh_error = (two(x) - 2 * torch.tanh(7 * 0.25 * x / 2)).abs().max()

levels, thresholds = torch.tensor([-4.0, -1.0, 0.0, 2.0]).double(), torch.tensor([-2.0, -0.5, 1.0]).double()


def area_under_slope(temperature):
    quantizer = SoftQuantizer(levels.tolist(), thresholds, alpha=0.5).double()
    quantizer.temperature.fill_(temperature)
    return torch.trapezoid(slope(quantizer, x), x).item()


bump = slope(two, x)
width = (bump > bump.max() / 2).sum().item() * (x[1] - x[0]).item()
same = soft_quantize(x, levels, thresholds, 1.0, 3.0, 5.0) - soft_quantize(x, levels, 2 * thresholds, 1.0, 6.0, 2.5)
deployed = two.eval()(x).unique()

# NBVAL_CHECK_OUTPUT
print("1 tanh, largest error below 1e-12:", bool(tanh_error < 1e-12))
print("2 area under the slope at T = 5, 20, 80:", [round(area_under_slope(t), 4) for t in (5, 20, 80)])
print("3 width of the bump and 3.525 / (T beta):", round(width, 3), round(3.5255 / (7 * 0.25), 3))
print("4 scale invariance, largest error below 1e-12:", bool(same.abs().max() < 1e-12))
print("5 deployed values:", deployed.tolist())

# %% [markdown]
# ## 6 Train and compare
#
# Every arm starts from the same float network and sees the same batches for the same number of steps; nothing is tuned
# for any of them. Two baselines need no training at all: the quantiser as initialised (*untrained*), and the same after
# batch normalisation has seen the quantised network, without labels (*re-estimated*). The second is the honest one: most
# of what training seems to win over the first is only batch statistics that do not fit.

# %%
result = paper.run(config, run)
print(f"trained on {result['data']}, float network: {result['float']['hard']:.2f} %")

# %%
arms = [arm for arm in config.arms if "T" not in arm or arm == "TWN"]
figures.comparison_figure(result, arms)

# %% [markdown]
# **Is it lossless?** Only if the temperature ends high. Stopped low, the soft network is excellent and the deployed one
# is not; too high, and the weights freeze before they have learnt.

# %%
final = {20.0: "W1-T20", config.weight_temperature: "W1", 2000.0: "W1-T2000"}
figures.gap_figure(result, {temperature: arm for temperature, arm in final.items() if arm in result})

# %% [markdown]
# **The weights while T rises.** One line of the image is one moment: a smooth heap splits and settles on its levels. The
# freeze meter on the right counts the weights that still get more than 1 % of the peak slope.

# %%
first_ternary = next(arm for arm in config.arms if arm.startswith("W2"))
metrics = run.part(first_ternary).metrics()
edges = HISTOGRAM_BINS.tolist()
figures.splitting_figure(metrics, edges)

# %%
figures.splitting_animation(metrics, edges)

# %% [markdown]
# **Why activations are harder.** A weight collects its gradient from all pixels. An activation has to pass its gradient
# on to the layers below, and through a steep staircase that is a few enormous samples: the norm explodes with $T$ while
# different batches stop agreeing on a direction.

# %%
from labkit.papers.qnet.teaching import scenes

figures.agreement_figure(scenes.activation_gradients(config, run, bits=1))

# %% [markdown]
# Keeping the backward pass wide while only the forward pass sharpens mends most of it (`A2-bell` against `A2` above).
# That is a straight-through surrogate once more: for activations, the paper's argument of a matching gradient is given up.
#
# **Both at once: 1-bit weights and 1-bit activations.** The paper trains in two stages: weights first, then activations
# with the weights as they are. By then the temperature of the weights is high, and
# hardly any of them can still change its level, although the network around them has changed [inferred: the freeze meter
# says so, level changes were not counted]. These runs take longer than this lesson, so they are read from
# the record (`labkit record qnet --label joint ...`): letting the weights melt and freeze once more wins back about two
# thirds of what stage 2 loses against straight-through weights, which never freeze. [ours]

# %%
from labkit.workbench import records

joint = next(record for record in records.load_all("qnet") if record.label == "joint")
both = {
    "W1A1": "annealed, weights held (the paper's)",
    "W1A1-hard": "wide bell for activations, weights held",
    "W1A1-free": "wide bell for both",
    "W1A1-again": "wide bell for activations, weights annealed again",
    "BWN-A1-hard": "wide bell for activations, BWN weights",
    "BWN-A1-LSQ": "LSQ activations, BWN weights",
}
figures.seeds_figure(joint.results, both)

# %% [markdown]
# **The authors' recipe.** Their program trains the same function by other gradients: a bell of width 1 for binary weights
# at every temperature, a leak where the sigmoid is flat, gradients clipped before they pass the quantiser, and a
# temperature that rises once an epoch [official code]. With it binary weights never freeze, but their gradient is no
# longer that of the loss (`gradient_error` 0.96, where the function's own has 0.00): a straight-through surrogate once
# more. It gained 0.3 to 0.9 points over the function's own gradient in three seeds, and nothing for ternary weights. The
# paper's *learnable biases* are fixed in the authors' program; `W2-thresholds` trains them. From the record
# (`labkit record qnet --label official ...`):

# %%
official = next(record for record in records.load_all("qnet") if record.label == "official")
recipes = {
    "W1": "1 bit, gradient of the function",
    "W1-official": "1 bit, the authors' recipe",
    "W2": "ternary, gradient of the function",
    "W2-official": "ternary, the authors' recipe",
    "W2-thresholds": "ternary, thresholds trained",
}
figures.seeds_figure(official.results, recipes)

# %% [markdown]
# **In its true size.** A 1-bit weight is stored in one bit, and the network computes from the packed weights what it
# computed before. The numbers are sizes of real files.

# %%
by_the_paper = tuple(arm for arm in config.arms if arm in LEVELS)
stored = scenes.stored_networks(config, run, tuple(arm for arm in by_the_paper if arm.startswith("W")))
figures.memory_figure({arm: network.bytes for arm, network in stored.items()})

# %%
# NBVAL_CHECK_OUTPUT
print("packed networks answer as the deployed ones do:", all(network.same for network in stored.values()))

# %% [markdown]
# ## 7 Explore
#
# The picture above, with handles. Raise the temperature and watch who can still learn; move the thresholds away from
# zero and see ternary weights become sparse; change the level set.

# %%
figures.staircase_figure("W2", 1.0)

# %%
figures.staircase_widget()

# %% [markdown]
# ## 8 Verdict
#
# This run, one seed. `labkit claims qnet` shows the recorded runs, with intervals over seeds.

# %%
show.ledger(paper.verdicts(result, scale))

# %%
# NBVAL_CHECK_OUTPUT
print("\n".join(paper.agreement(result, scale)))

# %% [markdown]
# ## 9 Your turn
#
# Fill in a cell and run it: the check says which property fails. The solution is in the folded cell below each.

# %% [markdown]
# **Fill in: the quantiser.** Write it from the formula in section 4. `levels` are $Y$, so the gaps are
# `levels.diff()`; mind that the levels need not be symmetric, so $-o$ is the lowest level.

# %% tags=["exercise"]
task = paper.exercise("quantiser").task  # in words


def my_quantiser(x, levels, thresholds, alpha, beta, temperature):
    raise NotAttempted  # write your answer here instead


paper.exercise("quantiser").check(my_quantiser)


# %% jupyter={"source_hidden": true} tags=["solution"]
def solution(x, levels, thresholds, alpha, beta, temperature):
    steps = torch.sigmoid(temperature * (beta * x[..., None] - thresholds))
    return alpha * (levels[0] + (levels.diff() * steps).sum(-1))


paper.exercise("quantiser").check(solution)

# %% [markdown]
# **Predict, then run: the width of a bump.** At $T=100$ and $\beta=2.5$: how wide is the stretch of stored weights around
# a threshold in which the slope is more than half its peak? Then think: with weights spread over $\pm1$, how many learn?

# %% tags=["exercise"]
my_width = None  # a number

paper.exercise("width").check(my_width)

# %% jupyter={"source_hidden": true} tags=["solution"]
# sigmoid(z) sigmoid(-z) = 1/8 at z = ln(3 + 2 sqrt 2), and z = T beta x
paper.exercise("width").check(2 * math.log(3 + 2 * math.sqrt(2)) / (100 * 2.5))

# %% [markdown]
# **Find the bug: batch norm.** Statistics collected while training do not fit the deployed network, so they are taken
# anew. This version makes things worse. Why? Mend it.

# %% tags=["exercise"]
viz.show_source(exercises.soft_reestimation)
my_reestimation = None  # a function (model, batches) -> None

paper.exercise("batch-norm").check(my_reestimation)


# %% jupyter={"source_hidden": true} tags=["solution"]
def mended(model, batches):
    norms = [module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
    with torch.no_grad(), forward_mode(model.train(), "hard"):  # the weights that will be deployed
        for batch in batches:
            model(batch)
    model.eval()
    for norm in norms:
        norm.momentum = 0.1


paper.exercise("batch-norm").check(mended)

# %% [markdown]
# **Fill in: where the steps begin.** Thresholds midway between the centres of a one-dimensional k-means. Quantiles are a
# good start for the centres; a dozen iterations are not always enough.

# %% tags=["exercise"]
task = paper.exercise("thresholds").task  # in words


def my_thresholds(samples, count):
    raise NotAttempted  # write your answer here instead


paper.exercise("thresholds").check(my_thresholds)


# %% jupyter={"source_hidden": true} tags=["solution"]
def lloyd(samples, count):
    values = samples.sort().values
    centres = torch.linspace(float(values[0]), float(values[-1]), 2 * count + 1, dtype=values.dtype)[1::2]
    for _ in range(500):
        nearest = torch.bucketize(values, (centres[1:] + centres[:-1]) / 2)
        counts = torch.bincount(nearest, minlength=count)
        sums = torch.zeros(count, dtype=values.dtype).index_add(0, nearest, values)
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return (centres[1:] + centres[:-1]) / 2


paper.exercise("thresholds").check(lloyd)

# %% [markdown]
# **Ablation: how hot?** Choose a final temperature for 1-bit weights on the digits (180 steps). The bar: soft and
# deployed accuracy at most 1 point apart, and halfway through at least 1 % of the weights still learning.

# %% tags=["exercise"]
my_temperature = None  # a number

paper.exercise("temperature").check(my_temperature)

# %% jupyter={"source_hidden": true} tags=["solution"]
paper.exercise("temperature").check(150.0)

# %% [markdown]
# **Fill in: true bits.** Store codes of 1, 2 or 3 bits (an integer tensor) in that many bits each, as bytes, and get them
# back. Counting starts where a `uint8` tensor with one code a byte is not good enough.

# %% tags=["exercise"]
task = paper.exercise("packing").task  # in words


def my_pack(codes, bits):
    raise NotAttempted  # write your answer here instead


def my_unpack(packed, shape):
    raise NotAttempted


paper.exercise("packing").check((my_pack, my_unpack))

# %% jupyter={"source_hidden": true} tags=["solution"]
viz.show_source(exercises.numpy_pack, exercises.numpy_unpack)
paper.exercise("packing").check((exercises.numpy_pack, exercises.numpy_unpack))

# %% [markdown]
# **Open.** No arm here beats the straight-through baselines at this scale. Can one? Ideas: raise the temperature by the
# share of weights that still learn instead of by the clock; learn the thresholds (`learn_thresholds=True`); replace the
# logistic by another step. `labkit run qnet -p arms W1,BWN -p weight_temperature 100` compares on the same budget.

# %% [markdown]
# ## 10 Take it home, and full scale
#
# **Your own network.** Any `torch.nn.Module` with convolutions (of 1 to 3 dimensions, transposed or not) or linear layers,
# and batches of `(inputs, targets)`. It needs no changes: a ReLU that is used at many places, or called as `F.relu`, gets a
# quantiser for each use, and what cannot be handled is refused by name.
#
# ```python
# from labkit.papers.qnet import export_onnx, fit, load, pack, quantize, save
#
# model = quantize(my_model, weights="W2", activations="A2", sample=my_batches)  # a copy; my_model stays as it is
# fit(model, my_batches, epochs=5)  # or your own loop, with set_temperature(model, 300 * (step + 1) / steps) at each step
# packed = pack(model, next(iter(my_batches)))  # 2-bit weights, activations as thresholds, integers where they pay
# save(packed, "my_model.safetensors")
# deployed = load("my_model.safetensors", my_model)  # without any data
# export_onnx(packed, "my_model.onnx", next(iter(my_batches)))  # DequantizeLinear and comparisons: for any engine
# ```
#
# Here they are at work, on a small network with three calls of `F.relu` that is trained on scikit-learn's digits first:

# %%
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from labkit.papers.qnet import fit, pack, placement, quantize, save
from labkit.papers.qnet import load as load_packed


class MyModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.norm, self.hidden, self.last = nn.BatchNorm2d(32), nn.Linear(32 * 16, 64), nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.norm(self.conv2(F.relu(self.conv1(x)))))
        return self.last(F.relu(self.hidden(F.max_pool2d(x, 2).flatten(1))))


digits = load_digits()
images, labels = torch.tensor(digits.images[:, None] / 16).float(), torch.tensor(digits.target)
my_batches = list(zip(images[:1500].split(50), labels[:1500].split(50), strict=True))
torch.manual_seed(seed)
my_model = MyModel()
optimizer = torch.optim.SGD(my_model.parameters(), lr=0.05, momentum=0.9)
for x, y in 10 * my_batches:
    optimizer.zero_grad()
    F.cross_entropy(my_model(x), y).backward()
    optimizer.step()

model = quantize(my_model, weights="W2", activations="A2", sample=my_batches)
fit(model, my_batches, epochs=4)
size = save(pack(model, my_batches[0]), run.directory / "my_model.safetensors")
deployed = load_packed(run.directory / "my_model.safetensors", my_model)
for name, network in (("float", my_model.eval()), ("deployed", deployed)):
    print(
        f"{name}: {100 * (network(images[1500:]).argmax(1) == labels[1500:]).double().mean():.1f} % of 297 new digits"
    )
print(f"{size} bytes on disk, {sum(4 * p.numel() for p in my_model.parameters())} in float32")

# %%
# NBVAL_CHECK_OUTPUT
for what, names in placement(model).items():
    print(f"{what}: {', '.join(names.quantized)}; float: {', '.join(names.excluded) or 'none'}")

# %% [markdown]
# A trained arm of a run leaves in the same form: `labkit export RUN DIR --arm W2`, and `labkit.papers.qnet.load(DIR)` reads
# it back.
#
# **Packing buys size, and costs no time**, on a CPU that multiplies 8-bit integers (VNNI): ResNet-20 with 2-bit weights and
# activations takes 67 ms of one core for 64 images, the float network 69 ms, each in its quickest memory layout. The products
# alone are three times as quick as in float; the thresholds and the batch norm between them cost most of what is won there.
# Without VNNI the packed network computes in float and takes about half as long again; ONNX Runtime, which has no quick
# kernel for comparisons, takes 2.2 times the float network's time there. `labkit bench qnet` measures your machine.
#
# **Full scale.** The paper's own setting is ImageNet, ResNet-18, from a trained float network [official code]:
#
# ```
# labkit data check imagenet                                  # says how the folder must look
# labkit run qnet --scale full -p float_weights resnet18.safetensors
# torchrun --nproc-per-node 8 -m labkit train qnet --scale full
# ```
#
# What that asks for, next to one data-centre GPU for ten minutes and to this lesson:

# %%
show.scales(paper.configs)

# %% [markdown]
# **Recorded runs** are listed by `labkit claims qnet`; each record in `data/records/qnet/` holds its config, seeds,
# versions, hardware and command.
#
# **What is known, and what is our reading.**
#
# - The function, its two scales, fixed thresholds, level sets, k-means start, first and last layer in float: [official
#   code], in agreement with the [paper].
# - The temperature rises linearly [official code] with every step instead of every epoch [ours].
# - Gradients are those of the function itself. The authors' program deviates in five ways (a wide bell for binary
#   weights, a clamp with a leak, a cap on the temperature, a derivative that is right only for unit gaps, clipping before
#   the quantiser's backward pass). For weights, the arms `W1-official` and `W2-official` train by that recipe; the
#   derivative for unit gaps is the exact one for the authors' activations, whose gaps are 1.
# - The k-means start places thresholds by the density of the weights while the levels stay uniform. With few levels that
#   is harmless; with many it bends the weights, and the error stops falling (16 % of the energy of normally distributed
#   weights at 8 bits, where thresholds midway between the levels leave 0.02 %). A finding of ours; `init="mse"` is the other start.
# - Batch norm re-estimation, the wide bell for activations and melting the weights again in stage 2 are [ours].
# - Detection (SSD300 on Pascal VOC) is not built; that claim stands in the ledger as not measured.
