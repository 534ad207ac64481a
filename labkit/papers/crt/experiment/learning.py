"""Networks that teach themselves on generated motion: features through the ridge layer, and the predictor of overlaps.

The first author's own UDT (CVPR 2019) learns features by correlation filters without labels [general]; here the
filter is stage 2's ridge regression: learn w on one search image in closed form, answer on another, and let the
error flow back through the solve.  Rivals are among the answers, so what is learned is to tell look-alikes apart.
[ours]
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from labkit.papers.crt.experiment.data import Pairs
from labkit.papers.crt.method import ridge
from labkit.papers.crt.method.features import SmallNet, hand_made
from labkit.papers.crt.method.prroi import descriptors
from labkit.papers.crt.method.refine import IoUNet, training_boxes
from labkit.papers.crt.method.sampling import boxes_at, labels, ring_boxes
from labkit.progress import progress
from labkit.seeds import derive
from labkit.workbench.runs import Run, Stateful
from labkit.workbench.training import ShuffledIndices, Workers

Loss = Callable[[nn.Module, Pairs, Tensor], Tensor]
NOISE = 3  # what a seed is derived for, beside those of `data`
DRAWS = 128  # random boxes per pair, of which the overlap loss keeps 16


def ridge_loss(net: nn.Module, pairs: Pairs, noise: Tensor, bins: int = 6, lam: float = 0.002) -> Tensor:
    """Squared error of stage 2's answers on the second image, its w solved on the first one."""
    maps = net(torch.cat([pairs.first, pairs.second]).float() / 255)
    then, now = maps.chunk(2)
    size = pairs.first.shape[-1]
    middle = torch.full_like(pairs.position, size / 2)
    boxes = ring_boxes(middle, pairs.target)
    y, omega = labels(boxes, boxes[:, 0])
    w = ridge.fit(descriptors((then,), (4,), boxes, bins), y, lam, omega)
    near = ring_boxes(pairs.position, pairs.target_then)
    wanted, weight = labels(near, near[:, 0])
    rivals = boxes_at(pairs.rivals.clamp(0, size), pairs.target_then)
    overlap = torch.exp(-8 * ((pairs.rivals - pairs.position[:, None]) / pairs.target_then[:, None]).square().sum(-1))
    wanted = torch.cat([wanted, overlap], 1)
    weight = torch.cat([weight, pairs.visible / pairs.rivals.shape[1]], 1)
    answers = (descriptors((now,), (4,), torch.cat([near, rivals], 1), bins) @ w[..., None])[..., 0]
    return (weight * (answers - wanted).square()).sum(1).mean()


def overlap_loss(net: nn.Module, pairs: Pairs, noise: Tensor) -> Tensor:
    """Squared error of predicted IoUs on the second image, modulated by the first [peer code: ATOM]."""
    predictor = net.module if isinstance(net, nn.parallel.DistributedDataParallel) else net
    assert isinstance(predictor, Predictor)
    size = pairs.first.shape[-1]
    middle = torch.full_like(pairs.position, size / 2)
    before = boxes_at(middle[:, None], pairs.target)[:, 0]
    after = boxes_at(pairs.position[:, None], pairs.target_then)[:, 0]
    boxes, truth = training_boxes(after, noise)
    then, now = (hand_made(images.float() / 255, 4) for images in (pairs.first, pairs.second))
    return F.mse_loss(net(then, before, now, boxes), truth)


class Predictor(nn.Module):
    """An `IoUNet` as one function of two images' maps, for the training loop and its distribution."""

    def __init__(self, net: IoUNet) -> None:
        super().__init__()
        self.net = net

    def forward(
        self,
        then: Float[Tensor, "n c h w"],
        box: Float[Tensor, "n 4"],
        now: Float[Tensor, "n c h w"],
        boxes: Float[Tensor, "n k 4"],
    ) -> Float[Tensor, "n k"]:
        return self.net.predict(self.net.test_maps((now,)), self.net.modulate((then,), box), boxes)


class _Generator:
    """A random generator that a checkpoint can hold."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def state_dict(self) -> dict[str, Tensor]:
        return {"state": self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        self.generator.set_state(state_dict["state"])


def fit(
    net: nn.Module, loss_of: Loss, pairs: Pairs, steps: int, batch: int, learning_rate: float, seed: int,
    workers: Workers, run: Run, log_every: int = 10,
) -> nn.Module:  # fmt: skip
    """Adam on batches of pairs, the step size falling to 0 along a cosine.  Resumes from the run's checkpoint.

    The noise is drawn for the whole batch in every process, so that two processes train as one would.
    """
    model = workers.wrap(net).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    batches, noise = ShuffledIndices(len(pairs), batch, seed), _Generator(derive(seed, NOISE))
    state: dict[str, Stateful] = {
        "net": net,
        "optimizer": optimizer,
        "schedule": schedule,
        "batches": batches,
        "noise": noise,
    }
    start = run.resume(state)
    for step in progress(range(start, steps), "training", total=steps, initial=start):
        indices = next(batches)
        drawn = torch.randn(len(indices), DRAWS, 5, generator=noise.generator)
        mine = workers.share(torch.arange(len(indices)))
        loss = loss_of(model, pairs.pick(indices[mine], workers.device), drawn[mine].to(workers.device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % log_every == 0 or step == steps - 1:
            run.log(step, loss=float(workers.mean(loss.detach())))
        run.save_if_due(step + 1, state)
    return net.eval()


def small_net(seed: int) -> SmallNet:
    torch.manual_seed(seed)
    return SmallNet()


def predictor(seed: int) -> Predictor:
    torch.manual_seed(seed)
    return Predictor(IoUNet((16,), (4,)))
