# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Independent and Task-Identically Distributed data
#
# *A Generalization Theory based on Independent and Task-Identically Distributed Assumption.* Zheng, Sang, Li, Yu and Xu,
# 2019, [arXiv 1911.12603](https://arxiv.org/abs/1911.12603)
#
# > **Read this first.** Of this paper only title, authors and abstract are known to us. Its theorems, its tables and its
# > code could not be obtained. The theory and the algorithm in this notebook are **our own formulation**, with our own
# > proofs and checks. Each sentence of the abstract has its counterpart, but nothing here is a transcription.
#
# A network learns to recognise cows from photographs with grass, and fails on a beach. Most theory of generalisation
# assumes that training and test data are independent and identically distributed (IID). Under that assumption the test
# has no beach that the training lacks, and this failure cannot occur. A *task* says more than a distribution: it says
# what may change without changing the answer, here the background. This notebook turns that into a bound with a term
# for the *invariance* of the hypothesis, and into an algorithm that changes the data and leaves the network alone.
#
# **You will** check theorems on every hypothesis of a small problem, see the IID bound fail in every sample, train more
# than a hundred small networks on coloured digits, bound the risk of one of them under other colours, and select models
# by three criteria.
#
# | mark | meaning |
# |---|---|
# | [paper] | stands in the paper's abstract |
# | [peer code] | what other public programs do or report |
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
# In training almost every digit has the colour of its class. In the test the same ten classes have other colours. Two
# networks are trained alike. One sees the training data as they are. The other sees them with the colours permuted at
# random among the images. Below each test digit stands what the two networks say: red is wrong, green is right.

# %%
import torch

from labkit import viz
from labkit.papers import load
from labkit.papers.itid import Config
from labkit.papers.itid.teaching import exercises, figures, scenes
from labkit.workbench import show

viz.use()
paper = load("itid")
scene = scenes.first_scene(Config())
viz.show(
    figures.idea_figure(scene, scenes.two_networks()),
    "Ten training digits, each on the colour of its class, and ten test digits on other colours. The network trained on "
    "the data as they are is wrong on all or most of them; the one trained on swapped colours is right.",
)

# %% [markdown]
# ## 2 Parameters
#
# The cell below is all there is to set. `labkit run itid --scale smoke -p steps 100` (papermill) replaces these values.
# `scale` picks a whole configuration, and `overrides` changes single fields of it.

# %% tags=["parameters"]
scale: str = "lesson"  # one of smoke, lesson, gpu, full
seed: int = 0  # seed of every random generator
run_dir: str = ""  # folder of the run; empty makes a new one
overrides: dict = {}  # fields of the config to change, such as replicas

# %% [markdown]
# Three fields are worth changing. `experiments` names what is compared; `("two-colours",)` alone takes a few seconds.
# `replicas` is the number of networks per method: with more of them the differences are more certain. `steps` is the length
# of training: with fewer steps the networks do not yet fit all labels. All fields: section 10.

# %%
config = paper.config(scale, **({"seed": seed} | overrides))
run = paper.open_run(scale, config, run_dir)
show.config(config, fields=["experiments", "replicas", "steps"])

# %% [markdown]
# ## 3 What the paper claims
#
# The abstract's main claims, in our words. Each has a margin: the least effect that counts as holding it. The abstract
# gives no figures. The other claims are in the folded table; counter-checks that we expect to fail are among them.

# %%
show.claims(paper, main=["iid-theory-misses-the-task", "invariance-bounds-the-gap", "modified-data-generalise"])

# %% [markdown]
# ## 4 The method, step by step
#
# **The assumption** [ours]. A datum has a *content* $c$ and a label $y$. Both are drawn from the task $P_T(c,y)$,
# independently and from the same distribution for all training and test data. A datum also has a *nuisance* $z$, drawn from
# a law (a probability distribution) $Q_i(z\mid c,y)$ of its own. The image is $x=g(c,z)$. IID is the special case in
# which all $Q_i$ are equal.
#
# A hypothesis $h$ has the loss $f_h(c,y,z)\in[0,1]$ and, under the law $Q$, the risk $R_Q(h)=\mathbb E f_h$. It is
# *invariant* if $h(g(c,z))$ does not depend on $z$. **Four measures** say how far it is from invariant when the law changes
# from $Q$ to $Q'$. TV is the total variation distance, half the sum of absolute differences; $h_\#Q$ is the law of the
# prediction.
#
# | | definition | needs |
# |---|---|---|
# | $\iota$ | $\mathbb E_{(c,y)}\,\lvert\mathbb E_Q f_h-\mathbb E_{Q'} f_h\rvert$ | labels and both laws |
# | tv | $\mathbb E_{(c,y)}\,\mathrm{TV}(h_\#Q,h_\#Q')$ | both laws |
# | $\delta$ | $P(h(g(c,z))\neq h(g(c,z')))$, $z\sim Q$ and $z'\sim Q'$ independent | **no labels**, only other renderings |
# | $\Omega$ | $\mathbb E_{(c,y)}[\max_z f_h-\min_z f_h]$ | every $z$; the worst case |
#
# **Theorem 1** [ours]. With $\mathrm{osc}_z f=\max_z f-\min_z f$, for every $h$ and all laws $Q$, $Q'$:
#
# $$\lvert R_Q(h)-R_{Q'}(h)\rvert\ \le\ \iota\ \le\ \mathbb E\,[\mathrm{osc}_z f_h\cdot\mathrm{TV}(Q,Q')].$$
#
# *Proof.* The first inequality is the triangle inequality. For the second, fix $(c,y)$ and subtract the midpoint $m$ of
# the range of $f$: $\lvert\sum_z(Q-Q')(f-m)\rvert\le\lVert Q-Q'\rVert_1\cdot\mathrm{osc}/2=\mathrm{osc}\cdot\mathrm{TV}$. ∎
#
# The bound is a product. It is small if $h$ is invariant (osc is small) **or** if the two laws agree (TV is small).
#
# **Theorem 2** [ours]. Let $S$ be $n$ independent data with the laws $Q_i$, $\hat R_S$ the mean loss on it, and $Q^*$ the
# law of the test. With probability at least $1-d$, for all $h$ of a finite class $H$ at once:
#
# $$R_{Q^*}(h)\ \le\ \hat R_S(h)+\frac1n\sum_i\iota(h;Q_i,Q^*)+\sqrt{\frac{\ln(|H|/d)}{2n}}.$$
#
# *Proof.* Hoeffding's inequality and a union bound over $H$ bound the distance of $\hat R_S$ from its mean. They need
# independence, but *not* identical distributions. Theorem 1 bounds the distance of that mean from $R_{Q^*}$. ∎
#
# The IID bound is the same without the term in $\iota$.

# %%
from labkit.papers.itid import Swap
from labkit.papers.itid.method import bounds

viz.show_source(bounds.itid_bound)

# %% [markdown]
# **Theorem 5** [ours] (Theorems 3 and 4 are in section 5). If the law of $z$ depends on $y\in\{0,1\}$ only, and $c$ and
# $z$ can be read off the image, the log-odds of the Bayes classifier are a sum of two terms:
#
# $$\ln\frac{P(1\mid c,z)}{P(0\mid c,z)}=\ln\frac{P(1\mid c)}{P(0\mid c)}+\ln\frac{Q(z\mid 1)}{Q(z\mid 0)}.$$
#
# *Proof.* Bayes' rule, because $c$ and $z$ are independent given $y$. ∎ The second term is the shortcut. It vanishes for
# all $z$ if and only if $z$ is independent of $y$.
#
# **The algorithm: invariance enhancement (IE)** [ours]. Modify the training data so that $z$ is independent of $y$,
# then train as usual by empirical risk minimisation (ERM). *Swap* gives each image the nuisance of another one,
# *Uniform* draws it anew, *Edit* changes the image at random without knowing $z$, and *Weight* gives each datum a
# weight.

# %%
viz.show_source(Swap)

# %%
viz.show(
    figures.swap_figure(scene),
    "Upper row: one training digit of each class. Lower row: the same digits in the same order, their colours permuted.",
)

# %% [markdown]
# Whether $z$ is independent of $y$ can be tested. If it is, $G=2n\hat I(y;z)$ with the empirical mutual information
# $\hat I$ is about chi-squared distributed: for ten classes and ten colours its mean is 81, and it exceeds 126 in one
# of 1000 cases. Modifiers compose with `Chain`.

# %%
from labkit.papers.itid import Chain, Edit, Uniform, Weight
from labkit.papers.itid.method import edits
from labkit.papers.itid.method.modifiers import g_statistic

data = scene.train
modifiers = {"Swap": Swap(), "Uniform": Uniform(), "Chain(Swap, Edit)": Chain(Swap(), Edit(edits.shift))}
print(f"{'as they are':18} G = {g_statistic(data.labels, data.nuisance)[0]:.0f}")
for name, modifier in modifiers.items():
    modified = modifier(data, torch.Generator().manual_seed(0))
    print(f"{name:18} G = {g_statistic(modified.labels, modified.nuisance)[0]:.0f}")
weight = Weight(data.labels, data.nuisance)
print(f"Weight: effective size {weight.effective_sample_size:.0f} of {len(data)}, mean weight {weight.mean_weight:.2f}")
print("some pairs (y, z) that the weights need do not occur:", weight.overlap_alarm)

# %% [markdown]
# **Theorem 6** [ours]. The weights $w=p(y)p(z)/p(y,z)$ make $z$ independent of $y$, too, if every pair $(y,z)$ with
# $p(y)p(z)>0$ occurs. They reduce $n$ data to an effective sample size of $n/\mathbb E w^2$, where
# $\mathbb E w^2=\sum_{y,z} p(y)^2p(z)^2/p(y,z)$. *Proof.* Insert $w$; the effective sample size is
# $(\sum w)^2/\sum w^2$, and $\mathbb E w=1$. ∎
#
# The curve shows the effective size where $z=y$ with probability $\rho$, and $z$ is uniform otherwise. In the sample
# above most pairs do not occur at all. Therefore its mean weight is far below 1, and its effective size is larger than
# that of the theorem. A swap creates the missing pairs.

# %%
viz.show(
    figures.sample_size_figure(0.98),
    "Effective sample size against rho, logarithmic. With reweighting it falls from 1200 to below 10 as rho comes near 1; "
    "a dot marks rho = .98. With swapping it stays at 1200.",
)

# %% [markdown]
# **The loop.** All methods train in one loop. At each step every method sees the same data, through its own modifier:

# %%
from labkit.papers.itid.experiment.loop import batches_at

viz.show_source(batches_at)

# %% [markdown]
# All networks are trained at once: their parameters are stacked along a first axis, `torch.func.vmap` runs the forward pass,
# and the gradient of the summed losses holds the gradient of each network. The whole loop is
# `labkit.papers.itid.experiment.loop.fit`.

# %% [markdown]
# ## 5 Prove it
#
# Four contents, two nuisances and two labels give $2^{4\cdot2}=256$ hypotheses. The statements below [ours] are checked
# with exact expectations: the first on random problems with three labels, the others about hypotheses on all 256 of
# them. The numbers are those of the printed lines.
#
# 1. **Lemma 0.** $\lvert R_Q-R_{Q'}\rvert\le\iota\le\mathrm{tv}\le\delta$, and $\iota\le\Omega$.
# 2. Exactly $2^4=16$ hypotheses are invariant: one for each map from contents to labels.
# 3. **Theorem 4.** The largest difference $R_Q(h)-R_{Q'}(h)$ over all pairs of laws is $\Omega(h)$. So $h$ has the same risk
#    under all laws if and only if $\Omega(h)=0$: invariance is necessary, not only sufficient.
# 4. **Theorem 3.** On the invariant class $\iota=0$, and $\ln|H|$ falls from $|C||Z|\ln|Y|$ to $|C|\ln|Y|$. With $d=.1$ the
#    last term of Theorem 2 shrinks by the factor $\sqrt{\ln160/\ln2560}$.
# 5. **Theorem 5**, the sum of section 4.
# 6. **Theorem 6**, from the closed form for ten classes and from the table of $p(y,z)$.
# 7. **Theorem 7.** $\mathrm{Var}f=\mathrm{Var}(\mathbb E[f\mid c,y])+\mathbb E\,\mathrm{Var}(f\mid c,y)$. A loss that is
#    averaged over nuisances has the first term only.
# 8. If laws depend on $y$ only, the largest difference of the risks is
#    $\Omega_y=\sum_y P(y)\,[\max_z\mathbb E(f\mid y,z)-\min_z\mathbb E(f\mid y,z)]\le\Omega$.
# 9. If two tasks have the label rules $\eta(c)=P(y{=}1\mid c)$ and $\eta'(c)$, Theorem 1 has the further term
#    $\mathbb E\lvert\eta-\eta'\rvert$, which no invariance removes.

# %%
from labkit.papers.itid import NuisanceLaw, all_hypotheses, toy_task, zero_one
from labkit.papers.itid.method import measures
from labkit.papers.itid.teaching import checks

task, hypotheses = toy_task(), all_hypotheses(4, 2)
losses = zero_one(hypotheses, 2)
omega = measures.oscillation(task, losses)
reached = []
for h in range(256):
    high, low = bounds.extreme_laws(losses[h])
    reached.append(float(task.risk(losses[h : h + 1], high) - task.risk(losses[h : h + 1], low) - omega[h]))

# NBVAL_CHECK_OUTPUT
print("1 order of the measures, largest violation below 1e-14:", checks.order_of_couplings() < 1e-14)
print("2 hypotheses and invariant ones:", len(hypotheses), int((omega == 0).sum()))
print("3 two laws reach Omega, error below 1e-15:", max(map(abs, reached)) < 1e-15)
print("4 last term of the bound shrinks by the factor", round(bounds.penalty_ratio(4, 2, 2, 0.1), 3))

law = NuisanceLaw.aligned(0.9, 4)
log_odds = (task.law[:, 1] / task.law[:, 0]).log()[:, None] + (law.table[0, 1] / law.table[0, 0]).log()
error = float((bounds.bayes_log_odds(task.joint(law)) - log_odds).abs().max())
print("5 the two terms add up to the log-odds, error below 1e-13:", error < 1e-13)
print("6 E w^2 at rho = .9, .98:", [round(bounds.second_moment_aligned(r, 10), 2) for r in (0.9, 0.98)])
cells = torch.full((10, 10), 0.001) + torch.eye(10) * 0.09  # p(y, z) at rho = .9
print("6 the same from the table of p(y, z), rho = .9:", round(bounds.second_moment(cells.double()), 2))
between, within = bounds.variance_split(task, losses, law)
total, kept = float((between + within).mean()), float(between.mean())  # over all hypotheses
print(f"7 variance of the loss {total:.3f}, of its mean over nuisances {kept:.3f}")
print("8 Omega_y <= Omega:", bool((measures.oscillation_by_label(task, losses) <= omega + 1e-14).all()))
rules = torch.tensor([[0.1, 0.9], [0.1, 0.5]], dtype=torch.float64)
print("9 E |eta - eta'|:", bounds.label_rule_gap(torch.tensor([0.5, 0.5], dtype=torch.float64), *rules))

# %% [markdown]
# **A closed form** with infinitely many images. The label is $y=\pm1$, the content $c=y+\mathcal N(0,1)$, the nuisance
# $z=ay+\mathcal N(0,1)$ with $a=2$. The first line has the accuracies of the Bayes rule in training and with the sign
# of $z$ flipped, and of the rule that uses $c$ alone. Least squares gives $z$ a larger weight than $c$, and the weight
# 0 once $z$ is permuted.
#
# Theorem 2 has a version for linear scores $\langle w,x\rangle$ with $\lVert w\rVert\le B$ and $\lVert x\rVert\le R$. For
# the ramp loss $\min(1,\max(0,1-y\langle w,x\rangle/\gamma))$ the last term becomes
# $2BR/(\gamma\sqrt n)+\sqrt{\ln(1/d)/2n}$. The rule $w=(1,0)$ is invariant, so that $\iota=0$.

# %%
from labkit.papers.itid.method import gaussian

# NBVAL_CHECK_OUTPUT
print({name: round(value, 3) for name, value in gaussian.accuracies(2.0).items()})
generator = torch.Generator().manual_seed(0)
y, c, z = gaussian.sample(100_000, 2.0, generator)
for name, nuisance in {"as they are": z, "swapped": z[torch.randperm(len(z), generator=generator)]}.items():
    print(f"weights of c and z, {name}: {[abs(round(w, 1)) for w in gaussian.least_squares(c, nuisance, y).tolist()]}")
inside = (c**2 + z**2).sqrt() <= 6  # the theorem needs bounded inputs
risk = float((1 - (y * c)[inside]).clamp(0, 1).mean())  # ramp loss with margin 1
for n in (100, 10_000, 1_000_000):
    print(f"n = {n}: risk at most {bounds.itid_bound_linear(risk, 0.0, 1.0, 6.0, 1.0, n, 0.05):.2f}")

# %% [markdown]
# **Do the bounds hold on samples?** The colour agrees with the label in 90 % of one half of the data, in 80 % of the
# other half, and in 10 % of the test. With $d=.1$ a bound may fail in one sample of ten.
#
# Before you run the next cell: does the IID bound fail less often when the sample is larger?
#
# The right panel compares what training selects. **Theorem 8** [ours] concerns the blue curve. Let $U$ be a law of the
# nuisance that was fixed before $S$ was drawn. With probability at least $1-d$, for all $h\in H$ and every $Q^*$:
#
# $$R_{Q^*}(h)\ \le\ \frac1n\sum_i\mathbb E_{z\sim U}\,\ell(h(g(c_i,z)),y_i)+\iota(h;U,Q^*)+\sqrt{\frac{\ln(|H|/d)}{2n}}.$$
#
# *Proof.* The summands depend on $(c_i,y_i)$ only, so they are IID with mean $R_U(h)$. Hoeffding, a union bound and
# Theorem 1 do the rest. ∎ The training laws $Q_i$ do not occur in it any more.

# %%
from labkit.papers.itid.method.coverage import coverage_by_size

coverage = coverage_by_size(100, seed=0)
viz.show(
    figures.coverage_figure(coverage),
    "Left: the IID bound fails in 100 % of the samples at all three sizes, the ITID bound in none. Right: the target risk "
    "of ERM stays far above its training risk; two other curves, one upon the other, stay near the training risk.",
)

# %% [markdown]
# The IID bound fails in every sample. More data do not help, because it has no term for the change of the law. ERM on
# re-rendered data selects from all 256 hypotheses, and its risk under the target law is that of ERM over the 16 invariant
# ones: the two curves coincide.

# %%
# NBVAL_CHECK_OUTPUT
for n, rates in coverage.items():
    holds = rates["itid_violations"] <= 0.1
    print(f"n = {n}: ITID bound fails in at most 10 %: {holds}, IID in {rates['iid_violations']:.0%}")

# %% [markdown]
# ## 6 Train and compare
#
# All methods of a replica start from the same weights and see the same batches. Nothing is tuned for any of them, and
# every run is reported.
#
# - **Modified data** [ours]: IE-swap, IE-uniform, IE-edit (random mixtures of the colour channels), IE-weight, IE-resample
#   (draws all pairs $(y,z)$ equally often), IE-adaptive (draws those edits more often that change predictions).
# - **Other training data:** mixup blends pairs of images; wrong-edit shifts the images, where the nuisance is the colour.
# - **Other losses:** invariant risk minimisation (IRM) penalises a classifier that can be improved by rescaling it in one
#   training environment; V-REx penalises the variance of the environments' risks; GroupDRO (distributionally robust
#   optimisation) gives groups with a high risk more weight; consistency penalises different predictions for an image and
#   its swapped version.
# - **Oracle:** trained and tested without any colour.
#
# A number in a name is the strength of a penalty; l2 marks stronger weight decay.

# %%
import textwrap

result = paper.run(config, run)
trained = [name for name in config.experiments if name in result]
print(textwrap.fill(f"trained on {result['data']}: {', '.join(trained)}", 78))

# %%
titles = {
    "backgrounds": "colour tells the class",
    "two-colours": "two colours, 25 % label noise",
    "mild": "milder bias",
}
viz.show(
    figures.comparison_figure(
        result, {name: titles.get(name, name) for name in trained if not name.startswith("shifts")}
    ),
    "One panel an experiment, one row a method. Hollow circles: accuracy with the colours of training, near 1 without "
    "label noise. Squares: accuracy where the bias is broken, low for ERM and the penalties, high for swapped data.",
)

# %% [markdown]
# Bars are one standard deviation over the replicas. What to see:
#
# - Penalties (IRM, V-REx, GroupDRO) and weights help little or not at all on the left. There the networks fit every
#   training label, so that the risks are near 0 in all environments, and little is left to penalise or to weight.
# - Edits help because they create pairs of digit and colour that the training data lack.
# - An edit of the *wrong* kind does harm.
# - The consistency penalty uses the same swaps inside the loss. It is as good as training on swapped data.
#
# **Theorem 1 on every trained network.** No point lies above the diagonal. Where the accuracy with the colours of
# training is 1, gap and $\iota$ are equal by construction; so the left panel checks the theorem and is no further
# evidence. The right panel is evidence: in each experiment networks with a smaller $\Omega$ tend to have a higher
# accuracy. The bound is one-sided. An invariant network can still be a poor one, as some of the penalised networks are.

# %%
viz.show(
    figures.theorem_figure(result, [name for name in ("mild", "two-colours", "backgrounds") if name in trained]),
    "Left: gap of the risks against iota, one point a network, all on or below the diagonal. Right: accuracy with broken "
    "bias against Omega; it falls as Omega grows, with some inaccurate networks at small Omega.",
)

# %% [markdown]
# **Becoming invariant.** The curves show $\delta$ on test images during training. Within a few steps plain ERM depends on
# the colour and keeps depending on it. On swapped data the network learns to ignore it.

# %%
first = trained[0]
arms = tuple(config.experiment(first).arms)
wanted = ("ERM", "IRM-1e4", "IE-weight", "IE-edit", "IE-swap", "consistency")
viz.show(
    figures.learning_figure(scenes.metrics_of(config, run, first), [arm for arm in wanted if arm in arms]),
    "delta against the training step. ERM, IRM and IE-weight stay high; IE-edit falls slowly; IE-swap and consistency "
    "fall to near 0.",
)

# %% [markdown]
# **A certificate** [ours] for one trained network, from $n$ fresh held-out images. With probability at least $1-d$:
#
# $$R_{Q^*}(h)\ \le\ \hat R(h)+\hat\delta(h;Q,Q^*)+2\sqrt{\ln(2/d)/2n}.$$
#
# $\hat R$ is the risk under the training law $Q$, and $\hat\delta$ needs no labels. The right end of a bar is the
# ceiling at $d=.05$. It is high for plain ERM and low for the network trained on swapped data.

# %%
viz.show(
    figures.ladder_figure(result, first, [arm for arm in ("ERM", "IE-weight", "IE-edit", "IE-swap") if arm in arms]),
    "One bar a method, three parts: held-out risk, delta, confidence. The dot of the true risk lies inside of each bar. "
    "The bar of ERM is the longest, that of IE-swap the shortest.",
)

# %% [markdown]
# To estimate $\delta$, predict each image in two renderings and count how often the predictions differ. Here both colours
# of each test digit are drawn uniformly; the brackets are 95 % intervals.

# %%
from labkit.papers.itid.method.measures import estimate_delta

predictions = scenes.predictions_of(config, run) if "backgrounds" in trained else None
if predictions:
    colours = torch.randint(10, (2, len(predictions.labels)), generator=torch.Generator().manual_seed(0))
    for arm, table in predictions.tables.items():
        predicted, rerendered = (table.gather(1, z[:, None])[:, 0] for z in colours)
        print(f"{arm}: delta = {estimate_delta(predicted, rerendered)}")

# %% [markdown]
# **No change of the law.** Digits are shifted by up to one pixel, in training and test alike. Then $\iota=0$, and only
# complexity and variance matter (Theorems 3 and 7). Drawing the shift anew in every step helps most where data are few.

# %%
viz.show(
    lambda: figures.shrinking_figure(result),
    "Test accuracy against 50, 200 and 800 training images. Shifts drawn anew lie above fixed shifts; the distance is "
    "largest at 50 images.",
    when=any(name.startswith("shifts") for name in trained),
)

# %% [markdown]
# ## 7 Explore
#
# **Phase transition.** Two labels and two colours. The content agrees with the label with probability $1-\text{noise}$, the
# colour with probability $\rho$ in training and with another probability (`test rho`) in the test. Before you run the next
# cell: at which $\rho$ does the Bayes classifier begin to follow the colour? The bars are the two terms of Theorem 5.

# %%
viz.show(
    figures.transition_widget(),
    "Accuracy of the Bayes classifier against rho. Training accuracy is flat, then rises; test accuracy is flat, then "
    "falls in one step where rho equals one minus the noise. Beside it two bars: content and colour term.",
)

# %% [markdown]
# **All hypotheses in one plane.** Each dot is one of the 256. The sliders set how often the colour agrees with the label in
# training and under the target law. The dots move and stay on or below the diagonal. The 16 invariant ones stay at 0.

# %%
viz.show(
    figures.map_widget(),
    "Gap of the risks against iota: all dots on or below the diagonal, the invariant ones at the origin, the hypothesis "
    "of least training risk marked far from it.",
)

# %% [markdown]
# **Class by colour.** The maps show the accuracy on test digits of each class in each colour; a cross marks the worst
# cell.

# %%
viz.show(
    lambda: figures.heat_figure(predictions),
    "Two heat maps, class by colour. ERM: high on the diagonal, where class and colour agree, and low in most other "
    "cells. IE-swap: high everywhere.",
    when=predictions,
)

# %% [markdown]
# **One digit in ten colours.** Below each image stands what the two networks say. For which digits does the second one
# fail?

# %%
viz.show(
    lambda: figures.recolour_widget(predictions),
    "A test digit on ten backgrounds. Below it the predictions of ERM, which change with the colour, and those of IE-swap.",
    when=predictions,
)

# %% [markdown]
# **Model selection.** A sweep has twenty draws of hyper-parameters, and one is kept. *Regret* is the distance from its test
# accuracy to that of the best draw. `training-domain` keeps the draw with the best accuracy on held-out data of the training
# environments, `leave-one-domain-out` the best one on a training environment that was left out, and `oracle` the best one
# on held-out data of the test environment. The sweep is artificial [ours]: the more a draw relies on the colour, the better
# it is in training and the worse in the test, as on DomainBed's coloured digits. So validation on the training environments
# keeps a draw that relies on the colour.

# %%
viz.show(
    figures.casino_widget(),
    "Left: test accuracy against the score of the criterion, one dot a draw; the kept draw has the highest score and a low "
    "test accuracy. Right: histogram of the regret over 100 sweeps.",
)

# %% [markdown]
# ## 8 Verdict
#
# This run has one seed. `labkit claims itid` shows the recorded runs, with intervals over seeds.

# %%
show.ledger(paper.verdicts(result, scale))

# %%
# NBVAL_CHECK_OUTPUT
print("\n".join(paper.agreement(result, scale)))

# %% [markdown]
# ## 9 Your turn
#
# Fill in a cell and run it: the check names the property that fails. `.hint()` in place of `.check(...)` gives two hints,
# one after the other. The solution is folded below.

# %% [markdown]
# **Both sides of Theorem 1**

# %% tags=["exercise"]
display(paper.exercise("theorem-1"))
my_theorem = None  # a function (p, f, q, q2) -> (iota, bound)

paper.exercise("theorem-1").check(my_theorem)


# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
def both_sides(p, f, q, q2):
    inside = (p * ((q - q2) * f).sum(-1).abs()).sum()
    oscillation, tv = f.amax(-1) - f.amin(-1), (q - q2).abs().sum(-1) / 2
    return inside, (p * oscillation * tv).sum()


paper.exercise("theorem-1").check(both_sides)

# %% [markdown]
# **The worst two laws** (Theorem 4)

# %% tags=["exercise"]
display(paper.exercise("extreme-laws"))
my_laws = None  # a function (f) -> (q, q2)

paper.exercise("extreme-laws").check(my_laws)


# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
def worst_laws(f):
    import torch

    one_hot = torch.nn.functional.one_hot
    return one_hot(f.argmax(-1), f.shape[-1]).double(), one_hot(f.argmin(-1), f.shape[-1]).double()


paper.exercise("extreme-laws").check(worst_laws)

# %% [markdown]
# **A swap that does not help**

# %% tags=["exercise"]
display(paper.exercise("swap"))
viz.show_source(exercises.broken_swap)
my_swap = None  # a function (labels, nuisance, generator) -> new nuisance

paper.exercise("swap").check(my_swap)


# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
def mended(labels, nuisance, generator):
    import torch

    return nuisance[torch.randperm(len(nuisance), generator=generator)]  # donors from *other* classes, too


paper.exercise("swap").check(mended)

# %% [markdown]
# **Content or colour?**

# %% tags=["exercise"]
display(paper.exercise("transition"))
my_accuracies = None  # a pair of numbers

paper.exercise("transition").check(my_accuracies)

# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
# 65 %: the content is right more often than the colour. The classifier follows it, and it is right in 70 % of the test.
# 75 %: now the colour is right more often. The classifier follows it, and it is right in 20 % of the test.
paper.exercise("transition").check((0.70, 0.20))

# %% [markdown]
# **An edit of your own.** An edit that changes labels violates the assumption: half a turn makes a 9 out of a 6. The
# check trains three networks, which takes a few seconds.

# %% tags=["exercise"]
display(paper.exercise("edit"))
my_edit = None  # a function (images, generator) -> images

paper.exercise("edit").check(my_edit)


# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
def mix_colours(images, generator):
    import torch

    mix = torch.rand(len(images), 3, 3, generator=generator)
    mixed = torch.einsum("nij,njhw->nihw", mix / mix.sum(2, keepdim=True), images)
    kept = torch.rand(len(images), 3, 1, 1, generator=generator)
    return kept * mixed + (1 - kept) * mixed.amax(1, keepdim=True)


paper.exercise("edit").check(mix_colours)

# %% [markdown]
# **V-REx.** When your penalty passes: what are its value and its gradient for a network that fits every training label?

# %% tags=["exercise"]
display(paper.exercise("v-rex"))
my_penalty = None  # a function (risks) -> penalty

paper.exercise("v-rex").check(my_penalty)


# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
def variance(risks):
    return ((risks - risks.mean()) ** 2).mean()  # all risks 0: penalty and gradient are 0, and nothing changes


paper.exercise("v-rex").check(variance)

# %% [markdown]
# **Open.** Write one paragraph: what does this bound *not* say?
#
# <details>
# <summary>Some points</summary>
#
# - A constant classifier is perfectly invariant.
# - $\iota$ needs the law of the test. Without it only $\Omega$ is left.
# - An edit that changes labels violates the assumption.
# - A nuisance that was not listed is not looked for.
# - Where the background hides part of the digit, $g$ is not injective, and no accurate classifier has $\delta=0$.
#
# </details>

# %% [markdown]
# ## 10 Take it home, and full scale
#
# A modifier works behind any `DataLoader`: as its collate function, or called on its batches. Images may have 8 bits or any
# floating-point type, be grey or in colour, and have any size. Edit what does not matter to the label. Use weights for a
# nuisance that you know but cannot edit. In this example the dataset yields (image, label, camera):
#
# ```python
# from torch.nn.functional import cross_entropy
# from torch.utils.data import DataLoader
#
# from labkit.papers.itid import BatchModifier, Chain, Edit, Weight
# from labkit.papers.itid.method import edits
#
# vary_colours_and_balance_cameras = Chain(Edit(edits.color_matrix), Weight(my_labels, my_cameras))
# modify = BatchModifier(vary_colours_and_balance_cameras, fields=("images", "labels", "weights"))
# for images, labels, weights in DataLoader(my_dataset, 64, shuffle=True, collate_fn=modify.collate):
#     loss = (weights * cross_entropy(my_model(images), labels, reduction="none")).mean()
#     my_optimizer.zero_grad(), loss.backward(), my_optimizer.step()
# ```
#
# `Swap` needs a renderer: any function of content and nuisance that returns images. Where objects have masks, `Cutouts` puts
# each of them on the background of another photograph. Below, the same network and loop are run without and with a swap.

# %%
from torch.utils.data import DataLoader, TensorDataset

from labkit.papers.itid import BatchModifier
from labkit.papers.itid.method.modifiers import Unchanged
from labkit.papers.itid.method.renderers import PALETTE
from labkit.progress import progress


def on_colour(grey, number):  # your own renderer
    return grey + (1 - grey) * torch.tensor(PALETTE)[number][:, :, None, None]


dataset = TensorDataset(data.content, data.labels, data.nuisance)  # your own (content, label, nuisance)
any_colour = on_colour(scene.test_content, torch.randint(10, scene.test_labels.shape))
for name, modifier in {"as they are": Unchanged(), "Swap": Swap()}.items():
    modify = BatchModifier(modifier, renderer=on_colour)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(192, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in progress(range(20), name):  # your own loop
        for images, labels in DataLoader(dataset, batch_size=64, shuffle=True, collate_fn=modify.collate):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    right = (model(any_colour).argmax(1) == scene.test_labels).double().mean()
    print(f"{name:12} right on digits of any colour: {right:.0%}")

# %% [markdown]
# **Your own domains.** Give any folder of `<domain>/<class>/<image>` with two or more domains. Each domain is left out once,
# every method that the data allow is trained, and every selection criterion is reported. Photographs up to 32 pixels get
# DomainBed's small network, larger ones a ResNet-18. `labkit export` writes a trained classifier, and
# `labkit.papers.itid.load` reads it.
#
# ```
# labkit train itid -p experiments "" -p sweep folder:PATH -p image_size 64 -p max_images 500   # one draw, 300 steps
# labkit train itid --scale full -p experiments "" -p sweep folder:PATH                         # 20 draws, 3 trials
# ```
#
# **Full scale.** `gpu`: IRM's coloured MNIST with its own hyper-parameters [peer code], and CIFAR-10 with a border in the
# class's colour. `full`: DomainBed's protocol with 20 draws, 3 trials, each environment left out in turn, and three selection
# criteria.
#
# ```
# labkit data get mnist                                       # Fashion-MNIST takes its place where it is missing
# labkit run itid --scale gpu
# torchrun --nproc-per-node 8 -m labkit train itid --scale full
# ```

# %% [markdown]
# All fields of this run's config, and then the fields in which the scales differ:

# %%
show.config(config)
show.scales(paper.configs)

# %% [markdown]
# `labkit claims itid` lists the **recorded runs**. Each record in `data/records/itid/` holds its config, seeds, versions,
# hardware and command.
#
# **What is known, and what is our reading.**
#
# - [paper]: IID hides the properties of the task. Under ITID a bound identifies hypothesis invariance as what guarantees
#   generalisation. An algorithm enhances invariance by modifying data distributions. Toy and real images support this. No
#   figure, theorem or dataset is known to us.
# - [ours]: the setting of section 4, the four measures, Theorems 1 to 8, the certificate, every modifier, IE-adaptive.
# - [peer code]: IRM's penalty (full-batch square, loss divided by lambda) and DomainBed's (product of two half-batch
#   gradients, optimiser started anew); V-REx's biased variance; GroupDRO's detached weights; mixup across environments.
#   DomainBed splits each environment 80 : 20. The criteria use the 20 % of the training environments, or of the test
#   environment (oracle). Reported is the accuracy on the other 80 % of the test environment.
# - [ours] in the sweep: photographs are not augmented and get a ResNet-18 trained from scratch (DomainBed: a ResNet-50
#   trained on ImageNet). All draws of a trial start from the same weights. Digits are rotated with bilinear interpolation.
# - Two other readings of the abstract are special cases [ours]: nuisances that are transformations (`Shifts`,
#   `Rotations`), and one task per datum (`bounds.label_rule_gap` is then the further term of Theorem 1).
# - In DomainBed's own table no method is on average more than one point better than tuned ERM [peer code]. On its
#   coloured digits every method that is selected by training-domain validation ends near 10 % in the reversed
#   environment [peer code].
