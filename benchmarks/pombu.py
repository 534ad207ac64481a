"""Side by side: all models of an ensemble at once against one by one and against processes; copies against runs.

    labkit bench pombu

The peers are what one writes without stacking: K `nn.Module`s with torch's own weight norm, trained or called in turn,
or one process for each; the uv-trace as a loop over time; the loop of the paper once for every seed.
"""

import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from labkit.errors import LabkitError
from labkit.papers.pombu.experiment.tasks import half_cheetah
from labkit.papers.pombu.experiment.worlds import make_world
from labkit.papers.pombu.method.ensemble import DynamicsEnsemble, make_adam, train_step
from labkit.papers.pombu.method.imagination import draw, imagine
from labkit.papers.pombu.method.improvement import Batch, PolicyPass
from labkit.papers.pombu.method.loop import Learner, Settings
from labkit.papers.pombu.method.networks import Critics, GaussianPolicy
from labkit.papers.pombu.method.uncertainty import propagate
from labkit.rl.streams import Streams
from labkit.workbench.benchmark import BenchRow, compare

MEMBERS, STATE, ACTION, MAX_NORM, RATE = 5, 17, 6, 0.5, 2e-4
WIDTHS = {"cuda": 512, "cpu": 128}  # of a model: the paper's, and what a CPU can repeat often enough
HORIZON, ROLLOUTS = 200, 200
PROCESS_STEPS = 20


def rows(device: torch.device, seconds: float) -> Iterator[BenchRow]:
    """One row per workload and rival, within about `seconds`."""
    width, rounds = WIDTHS[device.type], max(3, min(20, int(seconds / 6)))
    shape = f"{MEMBERS} models of {width}-{width}"
    for members, wide, batch in ((MEMBERS, width, 1000), (8 * MEMBERS, 48, 64)):  # the loop's; eight seeds of Zone
        ours, peer = (train(device, members, wide, batch) for train in (batched_training, training_in_turn))
        best = compare({"ours": ours, "peer": peer}, device, rounds)
        workload = f"training step, {members} models of {wide}-{wide}, batch {batch}"
        yield BenchRow(workload, "ms", best["ours"], best["peer"], "modules in turn")
    if device.type == "cpu":  # K processes on one GPU would only take turns on it
        ours = batched_training(device, MEMBERS, width, 1000, PROCESS_STEPS)
        with processes(width) as in_processes:
            best = compare({"ours": ours, "peer": in_processes}, device, min(rounds, 5), warm_up=1)
        yield BenchRow(
            f"{PROCESS_STEPS} steps, {shape}, batch 1000", "ms", best["ours"], best["peer"], f"{MEMBERS} processes"
        )
    best = compare(
        {"ours": rollout(device, width), "peer": rollout_in_turn(device, width)}, device, max(3, rounds // 4), 1
    )
    workload = f"20 imagined steps of {ROLLOUTS} rollouts, {shape}"
    yield BenchRow(workload, "ms", best["ours"], best["peer"], "K modules in turn")
    for copies in (1, 20):
        best = compare({"ours": trace(device, copies), "peer": trace_in_turn(device, copies)}, device, rounds)
        workload = f"uv-trace, {HORIZON} x {ROLLOUTS * copies}"
        yield BenchRow(workload, "ms", best["ours"], best["peer"], "loop over time")
    if device.type == "cuda":
        best = compare({"ours": policy_pass(device, True), "peer": policy_pass(device, False)}, device, rounds)
        yield BenchRow("80 policy steps, minibatch 500", "ms", best["ours"], best["peer"], "without CUDA graph")
    yield iteration_row(device)


# -- training ---------------------------------------------------------------------------------------------------------


def some_rows(device: torch.device, members: int, batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(members, batch, STATE + ACTION, generator=generator)
    return x.to(device), torch.sin(x[..., :STATE]).to(device)


def batched_training(device: torch.device, members: int, width: int, batch: int, steps: int = 1) -> Callable[[], None]:
    ensemble = DynamicsEnsemble(1, members, STATE, ACTION, (width, width)).to(device)
    optimizer, (x, y) = make_adam(ensemble.net.parameters(), RATE), some_rows(device, members, batch)

    def run() -> None:
        for _ in range(steps):
            train_step(ensemble, optimizer, x, y, MAX_NORM)

    return run


def one_module(width: int) -> nn.Sequential:
    sizes = (STATE + ACTION, width, width, STATE)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [weight_norm(nn.Linear(inputs, outputs)), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def one_step(net: nn.Module, optimizer: torch.optim.Adam, x: Tensor, y: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    nn.functional.mse_loss(net(x), y).backward()
    nn.utils.clip_grad_norm_(net.parameters(), MAX_NORM)
    optimizer.step()


def training_in_turn(device: torch.device, members: int, width: int, batch: int) -> Callable[[], None]:
    nets = [one_module(width).to(device) for _ in range(members)]
    optimizers = [torch.optim.Adam(net.parameters(), RATE, fused=True) for net in nets]
    x, y = some_rows(device, members, batch)

    def run() -> None:
        for k in range(members):
            one_step(nets[k], optimizers[k], x[k], y[k])

    return run


def work(width: int, member: int) -> None:
    """A process with one model: each line that comes in is how many steps to do."""
    net, (x, y) = one_module(width), some_rows(torch.device("cpu"), MEMBERS, 1000)
    optimizer = torch.optim.Adam(net.parameters(), RATE, fused=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            one_step(net, optimizer, x[member], y[member])
        print(line, end="", flush=True)


@contextmanager
def processes(width: int) -> Iterator[Callable[[], None]]:
    """One process a member, started beforehand: what is timed is work, not starting."""
    started = [
        subprocess.Popen(
            [sys.executable, __file__, "worker", str(width), str(member)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for member in range(MEMBERS)
    ]  # fmt: skip

    def run() -> None:
        for process in started:
            assert process.stdin is not None
            print(PROCESS_STEPS, file=process.stdin, flush=True)
        for process in started:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise LabkitError("a training process of the benchmark ended; its message stands above.")

    try:
        yield run
    finally:
        for process in started:
            process.communicate()


# -- imagination ------------------------------------------------------------------------------------------------------


def actors(device: torch.device) -> tuple[GaussianPolicy, Critics]:
    return GaussianPolicy(STATE, ACTION, (64, 64), [0]).to(device), Critics(STATE, (64, 64), [0]).to(device)


def imagining(device: torch.device, dynamics: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], object]:
    policy, critics = actors(device)
    draws = draw(Streams([0], device), 20, ROLLOUTS, ACTION, MEMBERS)
    start = torch.randn(1, ROLLOUTS, STATE, device=device)

    def run() -> object:
        return imagine(
            dynamics,
            policy,
            lambda s, _: critics.value(s),
            lambda s, a, _: half_cheetah(s, a),
            start,
            draws,
            gamma=0.99,
        )

    return run


def rollout(device: torch.device, width: int) -> Callable[[], object]:
    ensemble = DynamicsEnsemble(1, MEMBERS, STATE, ACTION, (width, width)).to(device)
    ensemble.freeze()
    return imagining(device, ensemble)


def rollout_in_turn(device: torch.device, width: int) -> Callable[[], object]:
    nets = [one_module(width).to(device) for _ in range(MEMBERS)]

    def dynamics(state: Tensor, action: Tensor) -> Tensor:
        inputs = torch.cat([state, action], -1)
        return torch.stack([state + net(inputs) for net in nets], 1)

    return imagining(device, dynamics)


def policy_pass(device: torch.device, graphs: bool) -> Callable[[], None]:
    policy, _ = actors(device)
    samples = HORIZON * ROLLOUTS
    state, action = (torch.randn(1, samples, size, device=device) for size in (STATE, ACTION))
    numbers = torch.randn(4, 1, samples, device=device)
    batch = Batch(state, action, numbers[0], numbers[1], numbers[2].abs(), numbers[3], numbers[3])
    update = PolicyPass(policy, learning_rate=1e-4, clip=0.15, max_norm=MAX_NORM, graphs=graphs)
    alpha, streams = torch.full((1,), 0.5, device=device), Streams([0], device)
    return lambda: update(batch, alpha, 1, 500, streams)


# -- the trace --------------------------------------------------------------------------------------------------------


def streams_of_numbers(device: torch.device, copies: int) -> Tensor:
    return torch.randn(4, HORIZON, ROLLOUTS * copies, generator=torch.Generator().manual_seed(0)).to(device)


def trace(device: torch.device, copies: int) -> Callable[[], object]:
    r, u, v, w = streams_of_numbers(device, copies)
    return lambda: propagate(r, u.abs(), v, w, gamma=0.99, lam=0.95)


def trace_in_turn(device: torch.device, copies: int) -> Callable[[], object]:
    """As one reads it off the formulas."""
    r, u, v, w = streams_of_numbers(device, copies)

    def run() -> tuple[Tensor, Tensor]:
        uncertainty, variance = u.abs(), w.clamp_min(0)
        advantage, more = torch.zeros_like(r), torch.zeros_like(r)
        a = au = after = after_u = torch.zeros_like(r[0])
        for t in reversed(range(HORIZON)):
            a = r[t] + 0.99 * after - v[t] + 0.99 * 0.95 * a
            au = uncertainty[t] + 0.99**2 * after_u - variance[t] + 0.99**2 * 0.95 * au
            after, after_u = v[t], variance[t]
            advantage[t], more[t] = a, au
        return advantage + v, more + variance

    ours = propagate(r, u.abs(), v, w, gamma=0.99, lam=0.95)
    torch.testing.assert_close(run()[0], ours.value_target, rtol=1e-3, atol=1e-3)
    return run


# -- the whole loop ---------------------------------------------------------------------------------------------------


def iteration_row(device: torch.device) -> BenchRow:
    """An iteration of four seeds at once against four runs, on the pendulum: two iterations each, the second counts."""
    settings = Settings(
        iterations=2, horizon=50, updates=3, rollouts=50, epochs=3, members=MEMBERS, model_hidden=(64, 64),
        model_epochs=20, evaluations=5, compiled=device.type == "cuda",
    )  # fmt: skip
    alone = sum(iteration_seconds(settings, [seed], device) for seed in range(4))
    together = iteration_seconds(settings, range(4), device)
    return BenchRow("an iteration of four seeds, pendulum", "s", together, alone, "four runs")


def iteration_seconds(settings: Settings, seeds: Sequence[int], device: torch.device) -> float:
    learner = Learner(make_world("pendulum", settings.horizon), settings, seeds, device)
    learner.iterate(0)
    start = time.perf_counter()
    learner.iterate(1)
    return time.perf_counter() - start


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["worker"]:
        work(int(sys.argv[2]), int(sys.argv[3]))
        sys.exit()
    for row in rows(torch.device("cuda" if torch.cuda.is_available() else "cpu"), 60.0):
        print(f"{row.workload:<60}{row.ours:10.3f} {row.unit:<8}{row.peer:10.3f}  {row.ratio:6.2f}x  {row.peer_name}")
