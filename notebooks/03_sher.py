# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Soft Hindsight Experience Replay
#
# *Soft Hindsight Experience Replay.* He, Zhuang and co-authors, 2020, [arXiv 2002.02089](https://arxiv.org/abs/2002.02089)
#
# > **Read this first.** Of this paper only title and abstract are known to us, not its body, its table or its figures. The
# > *method* is known completely: the authors released their program. No success rate in this notebook is the paper's.
#
# A robot arm is asked to push a cube to a mark. It gets $-1$ in every moment in which the cube is elsewhere, and nothing
# else is ever said to it. A beginner's arm misses a thousand times, and a thousand times $-1$ teaches nothing.
# *Hindsight*: the cube did end up *somewhere*. Pretend that this was the goal, and the failure is a lesson. *Soft*: let the
# learner be rewarded for staying random as long as it does not matter, and the noise that others add by hand is no longer needed.
# That is the paper's promise. We look at what is left of it when it is measured over many seeds, and where it fails.
#
# **You will** relabel an episode by hand, solve worlds exactly at every temperature, watch eighty learners at once in front
# of a wall, teach a simulated arm to reach from zero, and find out when the headline does not hold.
#
# | mark | meaning |
# |---|---|
# | [paper] | stands in the paper's abstract |
# | [official code] | what the released program does, or OpenAI's HER where that is said |
# | [peer code] | what other programs do |
# | [ours] | our worlds, settings, readings |

# %% [markdown]
# ## 1 The idea in one picture
#
# One failed episode, twice. On the left with the goal that was asked for (star): every reward is $-1$. On the right with a
# goal that it reached later: the same steps, and now some of them are right. Nothing was invented, for the way the point
# moves does not depend on what it was asked to do.

# %%
from labkit import viz
from labkit.papers import load
from labkit.papers.sher.teaching import exercises, figures, scenes
from labkit.workbench import show

viz.use()
paper = load("sher")
failure = scenes.failure()
figures.idea_figure(failure)

# %% [markdown]
# ## 2 Parameters
#
# The cell below is all there is to set. `labkit run sher --scale smoke -p cycles 5` (papermill) replaces these values;
# `scale` picks a whole configuration, `overrides` changes single fields of it.

# %% tags=["parameters"]
scale: str = "lesson"  # one of smoke, lesson, gpu, full
seed: int = 0  # seed of every random generator
run_dir: str = ""  # folder of the run; empty makes a new one
overrides: dict = {}  # fields of the config to change, such as replicas

# %%
config = paper.config(scale, **({"seed": seed} | overrides))
run = paper.open_run(scale, config, run_dir)
show.config(config)

# %% [markdown]
# ## 3 What the paper claims
#
# Each statement of the abstract, in our words, with the least effect that we would count as holding it; counter-checks
# that we expect to fail stand among them. The abstract gives no figures, so there are none of the paper's here.

# %%
from IPython.display import Markdown

head = "| claim | the abstract says | counts from | measured at |\n|---|---|---|---|\n"
Markdown(head + "\n".join(f"| `{c.key}` | {c.sentence} | {c.margin:g} {c.unit} | {c.scale} |" for c in paper.claims))

# %% [markdown]
# ## 4 The method, step by step
#
# **The task.** A goal $g$ is fixed during an episode of $T$ steps; $m(s)$ is what a state achieves, and
# $r(s,a,s',g)=-\mathbb 1[\lVert m(s')-g\rVert>\text{tol}]$, so $r\in\{-1,0\}$. Success means: at the goal at the *last* step.
#
# **Hindsight.** Of the transitions of a batch, four of five get another goal: what the same episode achieved at a later
# moment $t'=t+1+\lfloor U\,(T-t)\rfloor$. The reward is computed anew by the environment itself. [official code]

# %%
from labkit.papers.sher.method.hindsight import EpisodeBuffer, hindsight_time

viz.show_source(hindsight_time, EpisodeBuffer.take)

# %% [markdown]
# **Control as inference.** Say that $O_t=1$ when step $t$ was optimal, with $p(O_t=1)=e^{r/\alpha}$. Because rewards are $-1$
# and $0$, these are probabilities as they stand. The best policy given $O_1=\dots=O_T=1$ obeys *soft* equations [standard
# derivation; the abstract announces it]:
#
# $$V(s,g)=\mathbb E_{a\sim\pi}\,[\,Q(s,a,g)-\alpha\log\pi(a|s,g)\,],\quad Q(s,a,g)=r+\gamma\,\mathbb E\,V(s',g),\quad
# \pi\propto e^{(Q-V)/\alpha}$$
#
# They hold for *every* goal, and that is why hindsight may use any.
#
# **The learner.** SAC in its first version, with a $V$ network, twin $Q$ and a fixed temperature $\alpha=.03$:
#
# | loss | |
# |---|---|
# | $J_Q$ | $\tfrac12\mathbb E(Q_i-y)^2$, $\;y=\mathrm{clip}(r+\gamma\bar V(s',g),-\tfrac1{1-\gamma},0)$ |
# | $J_V$ | $\tfrac12\mathbb E\big(V-\min(Q_1,Q_2)(s,\tilde a,g)+\alpha\log\pi(\tilde a)\big)^2$, $\;\tilde a\sim\pi$ |
# | $J_\pi$ | $\mathbb E[\alpha\log\pi(\tilde a)-Q_1(s,\tilde a,g)]$ |

# %%
from labkit.papers.sher.method.soft_actor_critic import SoftActorCritic

viz.show_source(SoftActorCritic)

# %% [markdown]
# All networks have a first axis of *copies*: the line that trains one learner trains eighty. Each copy draws from a random
# generator of its own, so that a stack of $N$ seeds is $N$ single runs.
#
# **The density.** Actions are $\tanh(u)$, so $\log\pi$ needs $\log(1-\tanh^2u)$. Written like this it is $-\infty$ for a
# quarter of the points below; the released code adds $10^{-6}$ and is wrong from $|u|\approx7$ on.

# %%
figures.slope_figure()

# %% [markdown]
# **What the released code does besides**, each a named switch here, the plain reading being the default:
#
# | switch | plain | [official code] |
# |---|---|---|
# | `head` | heads on the last hidden layer | through a linear bottleneck of dim(a) numbers |
# | `curriculum` | uniform replay | CHER's choice of half of the candidates |
# | `epsilon` | the policy explores alone | 5 % random actions, *also when it is tested* |
# | `clip` | targets in $[-1/(1-\gamma),0]$ | the same; soft values may be above 0, so it cuts |
# | `minimum_in_actor` | $Q_1$ | $Q_1$ (SAC's papers: the minimum) |
# | `batch_entropy` | $V$ learns $-\alpha\log\pi$ of each row | of the batch's *mean*: a column minus a row is a matrix |

# %% [markdown]
# ## 5 Prove it
#
# Where states can be counted, nothing has to be believed.
#
# 1. $P(t'=t+1)$ is the mean of $1/j$: 7.2 % of a batch are relabelled with their own next state.
# 2. The bit-flip world has $V^*=-(1-\gamma^{d-1})/(1-\gamma)$ at distance $d$.
# 3. $0\le V_\text{soft}-V_\text{hard}\le\alpha\log|A|/(1-\gamma)$.
# 4. $\pi=\mathrm{softmax}(Q/\alpha)$, evaluated by a linear solve, has the value $V$.
# 5. Soft control is Bayes' rule: $p(a_1|O_{1..T}=1)$ from all action sequences is the soft policy.
# 6. For a quadratic $Q$ the best Gaussian has $\sigma^2=\alpha/|Q''|$: *temperature is width*.
# 7. A uniform policy on $[-1,1]^4$ collects $\alpha H/(1-\gamma)=8.3$ (at $\alpha=.03$, $\gamma=.99$), all of it above the clip.

# %%
import math

from labkit.papers.sher.method import soft_tabular
from labkit.papers.sher.method.hindsight import future_law
from labkit.papers.sher.teaching import checks

task = soft_tabular.bit_flip(6, stay=True)
hard, soft = soft_tabular.hard_values(task, 0.98), soft_tabular.soft_values(task, 0.1, 0.98)
own = soft_tabular.evaluate_policy(task, soft.policy, 0.1, 0.98)
gap, bound = checks.lab_values()

# NBVAL_CHECK_OUTPUT
print("1 share relabelled with the own next state, T = 50:", round(0.8 * float(future_law(50)[0]), 4))
print("2 hard values at distance 0 to 3:", [round(float(hard.v[s]), 4) + 0.0 for s in (0, 1, 3, 7)])
print("3 largest gap", f"{gap:.4f}", "below its bound", f"{bound:.2f}")
print("4 error of the policy's own value below 1e-9:", float((own - soft.v).abs().max()) < 1e-9)
print(
    "5 posterior of the first action, three bits:",
    soft_tabular.posterior_policy(soft_tabular.bit_flip(3), 0.5, 4)[0, 1],
)
print("6 width at alpha .04, curvature 4:", checks.optimal_width(0.04, 4.0))
print("7 entropy's worth:", round(0.03 * 4 * math.log(2) / 0.01, 1))

# %% [markdown]
# **A maze at three temperatures**, solved exactly. Cold, the policy is certain; hot, it does not care. Look at the goal
# (lower right): at $\alpha=1$ its value is above 0, since three actions stay there and choosing among them is rewarded.

# %%
figures.temperature_figure()

# %% [markdown]
# **What a network makes of it.** Reach on a line: every step is worth $-1$ until the point is near enough, so the best value
# is a staircase, $-(1-\gamma^k)/(1-\gamma)$ with $k$ steps outside. A hard critic finds its slope and rounds the edges. The soft
# one lies below, and hardly because its policy is slow: played out from the far end, its rewards are worth about $-5.8$ (best:
# $-5.71$). But a narrow policy's entropy is *negative*, and is counted in: another $-0.6$. The rest is the network's error.

# %%
figures.value_figure(scenes.line_values())

# %% [markdown]
# ## 6 Train and compare
#
# Three experiments. *Bits*: turn one row of 12 bits into another, Q-learning with hindsight and without. *Walls*: a point
# must go round a wall in 25 steps, with 24,000 steps of experience; ten seeds a wall and learner, all at once. *FetchReach*:
# a simulated arm, learned from nothing.

# %%
result = paper.run(config, run)
trained = [name for name in config.experiments if name in result]
print(f"trained on {result['data']}")

# %% [markdown]
# **Without hindsight nothing happens, with it everything does.** Random play meets one row of 4,096.

# %%
figures.arms_figure([result], "bits") if "bits" in trained else None

# %% [markdown]
# **Four learners before two walls.** Thin lines are seeds. HER is DDPG with hindsight: its policy is deterministic and
# explores only with the noise that is added by hand. `HER-none` adds none, `HER-eps` 5 % random actions, `HER-noise` what
# OpenAI tuned ($\sigma=.2$ and 30 % random). `SHER` adds none either; it has its entropy.

# %%
shown = "walls" if "walls" in trained else trained[0]
figures.curves_figure(result, shown)

# %%
Markdown("\n".join(figures.seeds_table([result], shown)))

# %% [markdown]
# **All seeds that were recorded.** Ten seeds are few. The record holds more of them; intervals are percentile bootstraps in
# which seeds are drawn anew inside of each wall.

# %%
kept = scenes.recorded("") or [result]
pairs = [("SHER", "HER-none"), ("SHER", "HER-eps"), ("SHER", "HER-noise")]
lines = [*figures.seeds_table(kept), "", *figures.differences_table(kept, pairs)] if "walls" in kept[0] else []
Markdown("\n".join(lines))

# %% [markdown]
# What to see. (1) Without added noise HER stalls for many seeds and SHER for few or none: **entropy replaced the
# hand-tuned noise**. (2) Against HER *with* its tuned noise there is no gain in success. (3) It is not faster either.
#
# **And what not to believe.** This is one setting, found in five pilots in which noisy HER and SHER learn; HER without noise
# was not among them, so its step size was never tuned. Below are the eight corners of a box around it: learning rate a
# third and three times as large, slower and faster targets, half and twice the batch, with the same number of updates. Off
# the centre the headline does not hold: the learning rate decides nearly everything, and at one corner HER without noise is
# as good as the rest. That the soft learner is *less brittle to hyper-parameters* is not what we measure. Much of the spread
# is learning cut short, so it says nothing about where the learners would end.

# %%
box = scenes.recorded("box")
figures.box_figure(box) if box else "not recorded yet: labkit record sher --label box, see section 10"

# %% [markdown]
# **How warm?** The same agent at other temperatures (all with 5 % random actions). $\alpha=0$ is the cleanest control: the
# same twin critics, the same stochastic actor, no entropy in the objective.

# %%
warm = scenes.recorded("alpha")
figures.arms_figure(warm, "alpha") if warm else "not recorded yet: labkit record sher --label alpha, see section 10"

# %% [markdown]
# **A robot arm.** FetchReach in MuJoCo, 2,000 steps from zero. SHER as released (5 % random actions) and HER with its noise
# and its penalty on large actions. HER is as fast or faster here, and cheaper per update: this task does not speak for
# the paper.

# %%
figures.curves_figure(result, "fetch-reach") if "fetch-reach" in trained else None

# %% [markdown]
# The arm before and after, on the same goals (red frame: not there; green: there).

# %%
films = scenes.fetch_films(config, run) if "fetch-reach" in trained else "no robot was trained"
print(films) if isinstance(films, str) else figures.film_figure(films)

# %%
from IPython.display import Image

from labkit.papers.sher.teaching.rendering import to_gif

None if isinstance(films, str) else Image(data=to_gif([*films["before"], *films["after"]], fps=8, colors=24))

# %% [markdown]
# **What was learned.** Test episodes in front of the first wall, of the seed with which HER without noise did *worst*.

# %%
layout = "gap" if shown == "walls" else ""
learners = {}
if shown == "walls":
    ends = result["walls"]["arms"]["HER-none"]["success"][layout]
    worst = ends.index(min(ends))
    arms = config.experiment("walls").arms
    learners = {arm: scenes.trained(config, run, "walls", arm, layout, worst) for arm in arms}
paths = {arm: scenes.fixed_paths(learner) for arm, learner in learners.items()}
figures.paths_figure(paths, layout) if paths else None

# %% [markdown]
# ## 7 Explore
#
# **Relabel this episode.** Choose the present moment $t$ and a later one, and see which rewards flip. Bars: how likely each
# $t'$ is. Dashed: the law of $t'-t$ over all $t$.

# %%
figures.idea_figure(failure)

# %%
figures.relabel_widget(failure)

# %% [markdown]
# **The temperature.** A maze solved exactly in every position of the sliders. Tick the clip and watch the goal's own value.

# %%
figures.gap_figure(result) if config.exact else None

# %%
figures.alpha_widget()

# %% [markdown]
# **The cloud of seeds.** Every dot is a training run. Choose an experiment, and the evaluation: with the mean action, or as
# the released code tests, with samples and 5 % random actions.

# %%
figures.arms_figure(kept, "walls") if "walls" in kept[0] else None

# %%
sources = {name: ([result], name) for name in trained if name != "bits"}
sources |= {f"recorded: {name}": (runs, name) for name in ("alpha", "switches") if (runs := scenes.recorded(name))}
figures.cloud_widget(sources)

# %% [markdown]
# **The critics.** $Q$ over all actions at a position of your choice. Red: actions of the policy there, a cloud of samples
# for SHER, one dot for HER. Move the position behind the wall's end.

# %%
chosen = {arm: learners[arm].agent for arm in ("SHER", "HER-none") if arm in learners}
figures.landscape_picture(chosen) if chosen else None

# %%
figures.landscape_widget(chosen, layout) if chosen else None

# %% [markdown]
# ## 8 Verdict
#
# This run, one seed of the run with ten training seeds a wall. `labkit claims sher` shows the recorded runs.

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
# **Fill in: the later moment.** For moments `t` (0 to T - 1), the horizon `T` and uniform numbers `u` in [0, 1), return
# $t'$, every moment of $t+1..T$ being equally likely.

# %% tags=["exercise"]
my_later = None  # a function (t, horizon, u) -> t'

paper.exercise("later").check(my_later)


# %% jupyter={"source_hidden": true} tags=["solution"]
def later(t, horizon, u):
    return t + 1 + (u * (horizon - t)).long()


paper.exercise("later").check(later)

# %% [markdown]
# **Find the bug: a relabelling that teaches nothing.** The goals are right, and still no learner ever improves.

# %% tags=["exercise"]
viz.show_source(exercises.relabel_goal_only)
my_relabel = None  # a function (batch, goal) -> batch

paper.exercise("relabel").check(my_relabel)


# %% jupyter={"source_hidden": true} tags=["solution"]
def mended(batch, goal):
    reward = checks.reward_of(batch["next_achieved"], goal)  # the reward belongs to the goal, not to the step
    return {**batch, "goal": goal, "reward": reward}


paper.exercise("relabel").check(mended)

# %% [markdown]
# **Fill in: the stable slope.** $\log(1-\tanh^2u)$ for tensors of float32, right near 0 and finite at $u=40$. (A hint:
# $1-\tanh^2u=4/(e^u+e^{-u})^2$, and `softplus(x)` is $\log(1+e^x)$.)

# %% tags=["exercise"]
my_slope = None  # a function (u) -> log(1 - tanh(u)^2)

paper.exercise("log-slope").check(my_slope)


# %% jupyter={"source_hidden": true} tags=["solution"]
def slope(u):
    from torch.nn.functional import softplus

    return 2 * (math.log(2) - u - softplus(-2 * u))


paper.exercise("log-slope").check(slope)

# %% [markdown]
# **Fill in: the soft backup.** From `q` (states, actions) and `alpha`, return $V$ and the policy that maximise
# $\mathbb E_\pi[Q]+\alpha H(\pi)$. Derive it: a Lagrange multiplier for $\sum_a\pi=1$, and the rest follows.

# %% tags=["exercise"]
my_backup = None  # a function (q, alpha) -> (v, policy)

paper.exercise("soft-backup").check(my_backup)


# %% jupyter={"source_hidden": true} tags=["solution"]
def backup(q, alpha):
    import torch

    return alpha * torch.logsumexp(q / alpha, -1), torch.softmax(q / alpha, -1)


paper.exercise("soft-backup").check(backup)

# %% [markdown]
# **Predict, then run: temperature is width.** $Q(a)=-2(a-.3)^2$ and $\alpha=.04$. Which mean and standard deviation does the
# best Gaussian policy have?

# %% tags=["exercise"]
my_width = None  # a pair (mean, standard deviation)

paper.exercise("width").check(my_width)

# %% jupyter={"source_hidden": true} tags=["solution"]
# E[Q] = -2 ((mu - .3)^2 + sigma^2) and H = log sigma + const: sigma^2 = alpha / 4, mu = .3
paper.exercise("width").check((0.3, 0.1))

# %% [markdown]
# **Ablation: which goals?** Strategies are `future`, `final`, `episode`, `random`, `next` and `none`; `k` is the number of
# relabelled transitions per original one. Q-learning on nine bits must succeed in 80 % after 160 episodes. Predict first
# what `next` does: its rewards are all 0, so it is never wrong.

# %% tags=["exercise"]
my_choice = None  # a dictionary {"strategy": ..., "k": ...}

paper.exercise("strategy").check(my_choice)

# %% jupyter={"source_hidden": true} tags=["solution"]
# with the own next state every reward is 0: Q is 0 everywhere and tells no action from another
paper.exercise("strategy").check({"strategy": "future", "k": 4.0})

# %% [markdown]
# **Open.** (1) Remove $V$: `SAC-v2` in `EXPERIMENTS["switches"]`. What changes in cost and in spread? (2) Find a world in which
# the clip at 0 hurts a *trained* agent. (3) CHER's $\lambda$ grows by $1.0001$ a step; its diversity term uses one nearest
# neighbour, which makes the set function a plain sum (see `curriculum.py`): what would two neighbours change?
# (4) Neither learner leaves the `pocket`. With five times the budget? Write down what you expect before you look. (5) In `push` a
# point must push a disc to a mark, and in 48,000 steps none of our learners got anywhere (success 0 to .05, four seeds each).
# In an episode in which the disc is not touched every relabelled reward is 0. How could the first touch come sooner?

# %% [markdown]
# ## 10 Take it home, and full scale
#
# **On your own environment.** Any gymnasium environment with goals will do (an observation with `observation`,
# `achieved_goal` and `desired_goal`, and `compute_reward`): by its id, itself, or a function that makes it. Its actions may have any
# finite bounds, its episodes any length; rewards of $-1/0$ and of $0/1$ are told apart by asking it; an end by the environment
# (termination) is an end, time running out (truncation) is none. What cannot be learned is refused by name.
#
# ```python
# from labkit.papers.sher import SHER
#
# model = SHER(my_env, seed=0)
# model.learn(1_000)  # steps of the environment
# print(f"goal reached at the last step: {model.success_rate(20):.0%} of 20 episodes")
#
# observation, _ = my_env.reset(seed=1)
# action, _ = model.predict(observation)  # within the bounds of the environment
# model.save("model.safetensors")
# model = SHER.load("model.safetensors", my_env)  # predicts, and goes on learning
# ```
#
# `HER` and `SAC` (version 2) have the same verbs; `help(SHER)` lists the options, the switches of section 4 among them, and
# `episodes=4` plays in four copies at a time. The verbs are those of stable-baselines3, whose `evaluate_policy` takes the model.

# %%
from labkit.papers.sher import SHER

model = SHER("FetchReach-v4", seed=0, device="cpu").learn(1_000)
print(f"goal reached at the last step: {model.success_rate(20):.0%} of 20 episodes after {model.steps:,} steps")

# %% [markdown]
# **Full scale.** `gpu`: FetchPush, SHER and HER with the released networks and batch, updates as a CUDA graph, simulators in threads.
# `full`: the released schedule, 200 epochs of 50 cycles of 40 updates, six tasks, five seeds, eight arms; 19 M (Fetch) or
# 38 M (hand) steps each. Resumable at any moment.
#
# ```
# labkit run sher --scale gpu
# torchrun --nproc-per-node 2 -m labkit train sher --scale full -p experiments fetch-push
# labkit record sher --scale lesson --label alpha -p experiments alpha -p replicas 5 --seeds 0,1
# labkit record sher --scale lesson --label switches -p experiments switches -p replicas 5 --seeds 0,1
# labkit record sher --scale lesson --label batch-entropy -p experiments released -p replicas 5 --seeds 0,1
# labkit export RUN DIR --arm fetch-reach/SHER
# labkit record sher --scale lesson --label box --seeds 0 -p replicas 3 -p experiments \
#   $(echo box-0.00{1,9}-0.{9,4}-{32,128} | tr " " ,)
# ```

# %%
show.scales(paper.configs)

# %% [markdown]
# **Recorded runs** are listed by `labkit claims sher`; each record in `data/records/sher/` holds its config, seeds,
# versions, hardware and command.
#
# **What is known, and what is our reading.**
#
# - [paper]: HER with maximum-entropy learning, derived as inference; state of the art on OpenAI's robot tasks, above all in
#   the hand; very similar results over seeds. Its success rates are not known to us.
# - [official code]: everything of section 4. The released program replays through CHER's sampler; whether the paper's own
#   runs did is open, and plain replay is our default. It was written for MuJoCo's old physics; curves compare in shape only.
#   Its $V$ learns the batch's mean entropy: on the walls 20 seeds show no difference (IQM .81 against .83 by rows; with its
#   sampler and bottleneck both fail, .04 and .02).
# - [peer code]: another public re-implementation reports SHER as not good enough on FetchReach, and SAC with hindsight is
#   known to fail on some seeds of the same task in other libraries. Stable-Baselines3 with its zoo's settings *and
#   normalised observations* solves FetchReach in 2,000 to 3,000 steps.
# - [ours]: the walls, the setting of section 6, every interval; exact densities (the released ones add $10^{-6}$), the head as
#   one layer, normalisers fed with all relabelled steps (64 rows through CHER's sampler there), the oldest episodes forgotten first.
# - **Not shown here**: higher success than HER with tuned noise, faster learning, robustness to hyper-parameters, anything
#   about hands. The walls' two equally short ways are used by *every* learner alike: starts and goals decide, not entropy.
