"""Side by side: all networks of a grid at once against one by one; our steps against DomainBed's rules at equal batch.

    labkit bench itid

The peers' update rules are re-stated here from their formulas: ERM is one cross-entropy and Adam; IRM in DomainBed's
way takes the gradients of a dummy scale on both halves of each environment's batch, through a second autograd graph.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.papers.itid.experiment import data
from labkit.papers.itid.experiment.config import EXPERIMENTS, Config
from labkit.papers.itid.experiment.jobs import Job, build_networks, build_scene, make_jobs
from labkit.papers.itid.experiment.loop import collect_targets, fit
from labkit.papers.itid.experiment.model import Single, build_network
from labkit.papers.itid.experiment.objectives import ERM, Penalized
from labkit.papers.itid.method.renderers import PALETTE, Backgrounds
from labkit.workbench import training
from labkit.workbench.benchmark import BenchRow, compare
from labkit.workbench.runs import Run
from labkit.workbench.training import Workers

GRID = ("ERM", "mixup", "IRM-1e2", "V-REx", "GroupDRO-group", "IE-weight", "IE-edit", "IE-swap")
REPLICAS, STEPS = 5, 25


def rows(device: torch.device, seconds: float) -> Iterator[BenchRow]:
    """One row per workload and rival, within about `seconds`."""
    yield grid_row(device)
    for name, ours, peer in step_rivals(device):
        best = compare({"ours": ours, "peer": peer}, device, rounds=max(3, min(30, int(seconds / 4))))
        yield BenchRow(f"{name}, two environments of 64", "ms/step", best["ours"], best["peer"], "DomainBed's rule")
    once, naive = all_colours(device)
    best = compare({"ours": once, "peer": naive}, device, rounds=max(3, min(30, int(seconds / 4))))
    yield BenchRow("first layer for all ten colours, 500 images", "ms", best["ours"], best["peer"], "ten renderings")


def grid_row(device: torch.device) -> BenchRow:
    """Eight methods x five replicas for some steps: the whole loop, data included."""
    config = Config(experiments=("backgrounds",), arms=GRID, replicas=REPLICAS, steps=STEPS, probes=0)
    experiment = config.experiment("backgrounds")
    with training.workers(str(device)) as workers, tempfile.TemporaryDirectory() as folder:
        scenes = [build_scene(experiment, config.seed, r, device) for r in range(REPLICAS)]
        jobs = make_jobs(list(experiment.arms), experiment, scenes, config)
        best: dict[bool, float] = {}
        for stacked in (True, False, True, False):
            asked = config.override(stacked=stacked)
            groups: Sequence[list[Job]] = [jobs] if stacked else [[job] for job in jobs]
            start = time.perf_counter()
            for k, some in enumerate(groups):
                networks = build_networks(some, experiment, asked).to(device)
                run = Run.open(Path(folder) / f"{stacked}-{k}-{time.monotonic_ns()}", asked)
                fit(networks, some, experiment, asked, workers, run)
                run.close()
            spent = (time.perf_counter() - start) / STEPS * 1000
            best[stacked] = min(spent, best.get(stacked, spent))
    return BenchRow(f"{len(jobs)} networks, a step of all", "ms/step", best[True], best[False], "one by one")


def step_rivals(device: torch.device) -> Iterator[tuple[str, Callable[[], object], Callable[[], object]]]:
    """A training step of ERM and of IRM on MNIST-sized coloured digits with DomainBed's network, ours and theirs."""
    scene = data.build(EXPERIMENTS["two-colours"], 0, device)
    batch = scene.train.take(torch.arange(128, device=device) * 9)
    images = F.interpolate(batch.images, size=(28, 28))
    targets = collect_targets([batch], 2, Single(torch.nn.Identity()), slice(None), Workers(0, 1, device))
    for name, objective in (("ERM", ERM()), ("IRM", Penalized("irm-split", 100.0, rescale=False))):
        ours, theirs = (build_network("mnist-cnn", (2, 28, 28), 0, 10).to(device) for _ in range(2))
        mine = Single(ours)
        first, second = (torch.optim.Adam(n.parameters(), 1e-3) for n in (ours, theirs))

        def our_step(mine: Single = mine, optimizer: torch.optim.Adam = first, objective: object = objective) -> None:
            optimizer.zero_grad(set_to_none=True)
            objective(mine(images[None]), targets, 0).sum().backward()  # type: ignore[operator]
            optimizer.step()

        def their_step(
            network: torch.nn.Module = theirs, optimizer: torch.optim.Adam = second, irm: bool = name == "IRM"
        ) -> None:
            optimizer.zero_grad(set_to_none=True)
            logits = network(images)
            parts = [(logits[batch.environment == e], batch.labels[batch.environment == e]) for e in (0, 1)]
            loss = sum(F.cross_entropy(o, y) for o, y in parts) / 2
            if irm:
                loss = loss + 100.0 * sum(dummy_scale_penalty(o, y) for o, y in parts) / 2
            loss.backward()
            optimizer.step()

        yield f"{name} step", our_step, their_step


def dummy_scale_penalty(logits: Tensor, labels: Tensor) -> Tensor:
    """Product of the gradients of two half batches with respect to a scale of the logits."""
    scale = torch.ones(1, device=logits.device, requires_grad=True)
    halves = [F.cross_entropy(logits[k::2] * scale, labels[k::2]) for k in (0, 1)]
    first, second = (torch.autograd.grad(half, [scale], create_graph=True)[0] for half in halves)
    return (first * second).sum()


def all_colours(device: torch.device) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Over a background, a linear first layer is A m + sum_ch palette[z]_ch W_ch (1 - m): 4 products serve all z."""
    generator = torch.Generator().manual_seed(0)
    content = torch.rand(500, 1, 8, 8, generator=generator).to(device)
    weight = torch.randn(128, 3, 64, generator=generator).to(device)
    palette = torch.tensor(PALETTE, device=device)

    def once() -> Tensor:
        m = content.flatten(1)
        per_channel = torch.einsum("np,hcp->cnh", 1 - m, weight)
        return (m @ weight.sum(1).T)[None] + torch.einsum("zc,cnh->znh", palette, per_channel)

    def naive() -> Tensor:
        flat = weight.flatten(1).T
        every = [Backgrounds()(content, torch.full((500,), z, device=device)).flatten(1) @ flat for z in range(10)]
        return torch.stack(every)

    torch.testing.assert_close(once(), naive(), rtol=1e-3, atol=1e-3)
    return once, naive


if __name__ == "__main__":
    torch.set_num_threads(1)
    for row in rows(torch.device("cuda" if torch.cuda.is_available() else "cpu"), 60.0):
        print(f"{row.workload:<60}{row.ours:10.3f} {row.unit:<8}{row.peer:10.3f}  {row.ratio:6.2f}x  {row.peer_name}")
