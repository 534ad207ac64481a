"""Side by side: simulator steps against gymnasium's, learning against stable-baselines3's SAC + HER.

    labkit bench sher                                        the table: speed
    python benchmarks/sher.py --learning [--seeds 0 1 2]     success against environment steps and CPU-seconds (minutes)

Both learn FetchReach-v4 with 64-64 networks, batches of 256, one update an environment step, four relabelled
transitions for each original one ("future") and inputs normalised by running statistics. Every rival computes with one
thread, and CPU-seconds are counted, not the clock on the wall (on a GPU the latter). `--learning` gives each seed the
same 15 test episodes, mean actions, success at the last step.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
from torch import Tensor

from labkit import devices
from labkit.papers.sher.experiment.config import EXPERIMENTS, Arm
from labkit.papers.sher.experiment.evaluate import deterministic, success_rate
from labkit.papers.sher.experiment.learner import Learner
from labkit.papers.sher.experiment.stacks import Copy, build_agent
from labkit.papers.sher.experiment.worlds.build import sizes_of
from labkit.papers.sher.experiment.worlds.robots import GoalVector, RobotWorld, check_task
from labkit.papers.sher.experiment.worlds.small import GoalEnvironment
from labkit.papers.sher.method.agent import Agent
from labkit.workbench import training
from labkit.workbench.benchmark import BenchRow, compare

TASK = "FetchReach-v4"
# Small last layers: the peer starts with PyTorch's own weights, which are as small; at 1 learning takes 500 steps more.
EXPERIMENT = replace(
    EXPERIMENTS["fetch-reach"], world=TASK, hidden=(64, 64), batch=256, updates=50, episodes=1, final_gain=0.1
)
SB3 = "stable-baselines3"
OURS = {  # the arms of the learning curves
    "SHER": Arm(alpha=0.03, epsilon=0.05),
    "SAC v2, learned alpha": Arm("sac", alpha=None, epsilon=0.05),
    "HER with noise": Arm("her", epsilon=0.3, noise=0.2, action_l2=1.0),
    "HER without noise": Arm("her"),
}
PEERS = {"SAC+HER, warm-up 1,000": 1000, "SAC+HER, warm-up 100": 100}
CHECK, LIMIT, TESTS = 500, 5000, 15  # environment steps between two tests, and at most; test episodes


def rows(device: torch.device, seconds: float) -> Iterator[BenchRow]:
    """One row per workload and rival, within about `seconds`."""
    rounds = max(3, min(30, int(seconds / 6)))
    with devices.one_thread():
        for name in (TASK, "FetchPush-v4", "HandReach-v3", "HandManipulateBlock-v1"):
            yield from stepping_rows(name, rounds)
        yield reward_row(device, rounds)
        yield from learning_rows(device, rounds)


def clock_of(device: torch.device) -> Callable[[], float]:
    """A process's own CPU-seconds; a GPU's work is not among them."""
    return time.perf_counter if device.type == "cuda" else time.process_time


# -- the simulator ----------------------------------------------------------------------------------------------------


def stepping_rows(env_id: str, rounds: int, steps: int = 40) -> Iterator[BenchRow]:
    """The same random actions from the same starts: our step, gymnasium's, and what MuJoCo alone takes of ours."""
    check_task(env_id)
    lean, bare, plain = GoalVector(env_id, 1), GoalVector(env_id, 1), gymnasium.make(env_id)
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, 1, lean.action_size)).astype(np.float32)
    bare.reset([1])
    stepper = bare._stepper
    controls = [stepper.controls(action)[0] for action in actions]

    def ours() -> None:
        lean.reset([1])
        for action in actions:
            lean.step(action)

    def floor() -> None:
        bare.reset([1])
        with_observation, stepper.capture = stepper.capture, lambda index: None
        for control in controls:
            stepper.advance(0, control)
        stepper.capture = with_observation

    def theirs() -> None:
        plain.reset(seed=1)
        for action in actions:
            plain.step(action[0])

    rivals = {"ours": ours, "peer": theirs, "floor": floor}
    best = {name: ms / steps for name, ms in compare(rivals, torch.device("cpu"), rounds, 1, time.process_time).items()}
    for vector in (lean, bare, plain):
        vector.close()
    yield BenchRow(f"a step of {env_id}", "ms/step", best["ours"], best["peer"], "gymnasium's step")
    yield BenchRow(f"a step of {env_id}", "ms/step", best["ours"], best["floor"], "MuJoCo alone (floor)")


def reward_row(device: torch.device, rounds: int, batch: int = 1216) -> BenchRow:
    """The goal rule of the hand for one batch of the released code, 64 transitions of 19 workers."""
    tasks = GoalVector("HandManipulateBlockFull-v1", 1)
    draw = np.random.default_rng(0)
    goals = draw.normal(size=(2, batch, 7))
    goals[..., 3:] /= np.linalg.norm(goals[..., 3:], axis=-1, keepdims=True)
    achieved, desired = (torch.from_numpy(g).to(device) for g in goals)
    task: Any = gymnasium.make("HandManipulateBlockFull-v1").unwrapped
    np.testing.assert_array_equal(tasks.rule.compute_reward(*goals), task.compute_reward(*goals, {}))
    best = compare(
        {
            "ours": lambda: [tasks.rule.compute_reward(achieved, desired) for _ in range(20)],
            "peer": lambda: [task.compute_reward(*goals, {}) for _ in range(20)],
        },
        device,
        rounds,
        clock=clock_of(device),
    )
    tasks.close()
    return BenchRow(f"rewards of {batch:,} hand goals", "ms", best["ours"] / 20, best["peer"] / 20, "the environment's")


# -- learning ---------------------------------------------------------------------------------------------------------


class Rival(Protocol):
    """Somebody who learns FetchReach."""

    def round(self) -> None: ...
    def success(self) -> float: ...


class Ours:
    """`seeds` copies of one arm, learning at once. A round is an episode each, and an update for every step of it."""

    def __init__(self, arm: Arm, seeds: Sequence[int], device: torch.device) -> None:
        self.stack = [Copy("arm", arm, "", replica=0, seed=seed) for seed in seeds]
        self.world: GoalEnvironment = RobotWorld(TASK, device=device)
        self.tests = RobotWorld(TASK, device=device)
        self.agent: Agent = build_agent(self.stack, EXPERIMENT, sizes_of(self.world), device)
        one = training.Workers(0, 1, device)
        self.learner = Learner(self.agent, self.stack, self.world, EXPERIMENT, one, LIMIT // self.world.horizon)

    def round(self) -> None:
        self.learner.cycle()

    def learn(self, updates: int) -> None:
        for step in range(updates):
            self.learner.update(step)

    def success(self) -> float:
        return float(success_rate(deterministic(self.agent), self.tests, len(self.stack), TESTS).mean())


class StableBaselines:
    """SAC + HER as its authors' zoo trains FetchReach: gamma .95, learned temperature, normalised observations."""

    def __init__(self, seed: int, warm_up: int, device: torch.device) -> None:
        from stable_baselines3 import SAC, HerReplayBuffer
        from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

        check_task(TASK)
        self.tests = RobotWorld(TASK)
        self.environment = VecNormalize(DummyVecEnv([lambda: gymnasium.make(TASK)]), norm_obs=True, norm_reward=False)
        self.environment.seed(seed)
        self.model = SAC(
            "MultiInputPolicy",
            self.environment,
            replay_buffer_class=HerReplayBuffer,
            replay_buffer_kwargs={"n_sampled_goal": 4, "goal_selection_strategy": "future"},
            learning_rate=1e-3,
            gamma=0.95,
            batch_size=256,
            learning_starts=warm_up,
            policy_kwargs={"net_arch": [64, 64]},
            buffer_size=100_000,
            seed=seed,
            device=device,
        )
        self.fresh = True

    def round(self) -> None:
        self.model.learn(self.tests.horizon, reset_num_timesteps=self.fresh, log_interval=None)
        self.fresh = False

    def learn(self, updates: int) -> None:
        self.model.train(updates, 256)

    def success(self) -> float:
        def act(t: int, now: dict[str, Tensor]) -> Tensor:
            rows = {key: value[0].numpy() for key, value in now.items()}
            action, _ = self.model.predict(self.environment.normalize_obs(rows), deterministic=True)
            return torch.from_numpy(action)[None]

        return float(success_rate(act, self.tests, 1, TESTS)[0])


def learning_rows(device: torch.device, rounds: int, seeds: int = 8) -> Iterator[BenchRow]:
    """Environment step plus update, and the update alone (sampling included): one seed, and several in one stack."""
    sac = OURS["SAC v2, learned alpha"]
    peer = StableBaselines(0, 100, device)
    rivals = {"SAC v2": Ours(sac, [0], device), "SHER": Ours(OURS["SHER"], [0], device)}
    stacks = {name: Ours(arm, range(seeds), device) for name, arm in (("SAC v2", sac), ("SHER", OURS["SHER"]))}
    everybody: dict[str, Ours | StableBaselines] = {SB3: peer, **rivals}
    everybody |= {f"{name} x {seeds}": stack for name, stack in stacks.items()}
    for _ in range(4):  # buffers with something in them, and past the peer's warm-up
        for one in everybody.values():
            one.round()
    steps, clock = peer.tests.horizon, clock_of(device)
    whole = compare({name: one.round for name, one in everybody.items()}, device, max(3, rounds // 2), 0, clock)
    alone = compare(
        {name: (lambda one=one: one.learn(20)) for name, one in everybody.items()}, device, rounds, 1, clock
    )
    for name in rivals:
        yield BenchRow(
            f"{name}, one seed: step + update", "ms", whole[name] / steps, whole[SB3] / steps, f"{SB3} SAC+HER"
        )
        yield BenchRow(f"{name}, one seed: update", "ms", alone[name] / 20, alone[SB3] / 20, f"{SB3} SAC+HER")
    for name in stacks:
        full, pure = whole[f"{name} x {seeds}"] / seeds, alone[f"{name} x {seeds}"] / seeds
        yield BenchRow(
            f"{name}, {seeds} seeds, per seed: step + update", "ms", full / steps, whole[SB3] / steps, f"{SB3} SAC+HER"
        )
        yield BenchRow(f"{name}, {seeds} seeds, per seed: update", "ms", pure / 20, alone[SB3] / 20, f"{SB3} SAC+HER")


def learning(seeds: Sequence[int]) -> None:
    """Print success after every 500 steps, and when .9 was first reached: in environment steps and CPU-seconds."""
    cpu = torch.device("cpu")
    rivals: dict[str, Callable[[int], Rival]] = {
        **{f"ours: {name}": (lambda seed, arm=arm: Ours(arm, [seed], cpu)) for name, arm in OURS.items()},
        **{f"{SB3}: {name}": (lambda seed, n=n: StableBaselines(seed, n, cpu)) for name, n in PEERS.items()},
    }
    for seed in seeds:
        for name, make in rivals.items():
            curve = learning_curve(make(seed))
            first = next((point for point in curve if point[2] >= 0.9), None)
            reached = f"{first[0]:,} steps, {first[1]:.1f} CPU-s" if first else f"not within {LIMIT:,} steps"
            rates = " ".join(f"{rate:.2f}" for _, _, rate in curve)
            print(f"{name:<46} seed {seed}   .9 after {reached:<28} {rates}", flush=True)


def learning_curve(rival: Rival) -> list[tuple[int, float, float]]:
    """[(environment steps, CPU-seconds without testing, success)], until three perfect tests in a row or the limit."""
    spent, curve = 0.0, []
    horizon = EXPERIMENT.updates
    for step in range(horizon, LIMIT + 1, horizon):
        start = time.process_time()
        rival.round()
        spent += time.process_time() - start
        if step % CHECK == 0:
            curve.append((step, spent, rival.success()))
            if len(curve) >= 3 and all(rate == 1 for _, _, rate in curve[-3:]):
                break
    return curve


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learning", action="store_true", help="success against steps and CPU-seconds")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=60.0, help="time to spend on the table, about")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.learning:
        learning(asked.seeds)
    else:
        for row in rows(torch.device("cuda" if torch.cuda.is_available() else "cpu"), asked.seconds):
            print(f"{row.workload:<52}{row.ours:9.3f} {row.unit:<8}{row.peer:9.3f}  {row.ratio:6.2f}x  {row.peer_name}")
