"""Side by side: the beam decoder against flashlight-text, two kernels against their floors and other ways,
and frames a second of the network in training and reading.

    labkit bench stmc                    rows, within about --seconds

Frames a second are of the lesson's network, on a GPU of the paper's. Where flashlight-text is not installed, its row is
left out.
"""

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from labkit.kernels.crop_windows import crop_windows
from labkit.kernels.soft_argmax import soft_argmax, soft_argmax_reference
from labkit.papers.stmc.method.architecture import PAPER, SMALL, Architecture
from labkit.papers.stmc.method.losses import joint_loss
from labkit.papers.stmc.method.network import STMC
from labkit.text import ctc
from labkit.workbench.benchmark import BenchRow, compare

STEPS, LABELS, WIDTH = 40, 1296, 20
"""Of a decoded sentence: about 170 frames of PHOENIX-2014, its vocabulary and blank, the paper's beam [recalled]."""


def rows(device: torch.device, seconds: float) -> Iterator[BenchRow]:
    """Decoder, kernels, network."""
    rounds = max(3, min(20, int(seconds / 4)))
    yield from decoder_rows(rounds)
    yield from soft_argmax_rows(device, rounds)
    yield from crop_rows(device, rounds)
    yield from network_rows(device, max(2, rounds // 4))


def best_of(candidates: dict[str, Callable[[], object]], device: torch.device, rounds: int) -> dict[str, float]:
    """Best time of each in ms, taking turns: wall time on a GPU, CPU time on a CPU, which others may keep busy."""
    clock = None if device.type == "cuda" else time.process_time
    return compare(candidates, device, rounds, warm_up=1, clock=clock)


# -- decoder ----------------------------------------------------------------------------------------------------------


def posteriors(seed: int = 0) -> np.ndarray:
    """Peaky, as trained networks give them: a blank or one gloss nearly everywhere."""
    random = np.random.default_rng(seed)
    scores = random.normal(0, 1, (STEPS, LABELS))
    scores[np.arange(STEPS), np.where(random.random(STEPS) < 0.6, 0, random.integers(1, LABELS, STEPS))] += 9
    return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)


def decoder_rows(rounds: int) -> Iterator[BenchRow]:
    """One sentence by each decoder; the same labelling comes out, or the row does not."""
    p, cpu = posteriors(), torch.device("cpu")
    candidates: dict[str, Callable[[], object]] = {
        "beam": lambda: ctc.beam_search(p, WIDTH),
        "greedy": lambda: ctc.greedy(p),
    }
    peer = flashlight(p)
    if peer is not None:
        assert peer() == ctc.beam_search(p, WIDTH)[0].labels
        candidates["flashlight"] = peer
    best = best_of(candidates, cpu, rounds)
    name = f"beam of {WIDTH}, {STEPS} steps, {LABELS} labels"
    if peer is not None:
        yield BenchRow(name, "ms", best["beam"], best["flashlight"], "flashlight-text (C++), 20 best tokens a step")
    yield BenchRow(name, "ms", best["beam"], best["greedy"], "floor: greedy")


def flashlight(p: np.ndarray) -> Callable[[], ctc.Labelling] | None:
    """The peer's lexicon-free decoder without a language model; None where it is not installed."""
    try:
        from flashlight.lib.text import decoder
    except ImportError:
        return None
    options = decoder.LexiconFreeDecoderOptions(
        beam_size=WIDTH, beam_size_token=WIDTH, beam_threshold=1e9, lm_weight=0.0, sil_score=0.0, log_add=True,
        criterion_type=decoder.CriterionType.CTC,
    )  # fmt: skip
    engine = decoder.LexiconFreeDecoder(options, decoder.ZeroLM(), -1, 0, [])
    emissions = np.ascontiguousarray(p, dtype=np.float32)

    def decode() -> ctc.Labelling:
        tokens = engine.decode(emissions.ctypes.data, *emissions.shape)[0].tokens
        return ctc.collapse([token for token in tokens if token >= 0])

    return decode


# -- kernels ----------------------------------------------------------------------------------------------------------


def soft_argmax_rows(device: torch.device, rounds: int) -> Iterator[BenchRow]:
    """Seven heat maps of 56 x 56 a frame: against softmax and one product, our formula compiled, and one reading."""
    count = 64 if device.type == "cpu" else 512
    maps = torch.randn(count, PAPER.points, 56, 56, generator=torch.Generator().manual_seed(0)).to(device)
    cells = torch.cartesian_prod(*torch.linspace(0, 1, 56).repeat(2, 1)).to(device)

    def expected(maps: Tensor) -> Tensor:
        return maps.flatten(2).softmax(2) @ cells

    assert (soft_argmax(maps) - expected(maps)).abs().max() < 1e-5
    candidates: dict[str, Callable[[], object]] = {
        "ours": lambda: soft_argmax(maps),
        "softmax, one product": lambda: expected(maps),
        "floor: reading the maps once": lambda: maps.sum((2, 3)),
    }
    compiled = compiled_or_none(soft_argmax_reference, maps.flatten(0, 1))
    if compiled is not None:
        candidates["our formula by torch.compile"] = compiled
    best = {name: 1000 * ms / count for name, ms in best_of(candidates, device, rounds).items()}
    for peer in list(candidates)[1:]:
        yield BenchRow("soft-argmax, 7 maps of 56x56", "us/frame", best["ours"], best[peer], peer)


def compiled_or_none(function: Callable[[Tensor], object], argument: Tensor) -> Callable[[], object] | None:
    """A call of the compiled function; None where there is no compiler."""
    compiled = torch.compile(function, dynamic=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the compiler thinks of this machine
            compiled(argument)
    except Exception as error:  # no compiler, no Python headers, ...: many types, and none of them ours
        print(f"torch.compile left out: {str(error).splitlines()[0]}", file=sys.stderr)
        return None
    return lambda: compiled(argument)


def crop_rows(device: torch.device, rounds: int) -> Iterator[BenchRow]:
    """Both hands' windows of 24 x 24 x 256 a frame: against the loop over frames, and against copying the result."""
    count = 16 if device.type == "cpu" else 128
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(count, 256, 56, 56, generator=generator).to(device)
    maps = maps.contiguous(memory_format=torch.channels_last)  # as the network keeps them
    corners = torch.randint(56 - 24 + 1, (count, 2, 2), generator=generator).to(device)
    out = crop_windows(maps, corners, 24)
    assert torch.equal(out, loop(maps, corners, 24))
    best = best_of(
        {
            "ours": lambda: crop_windows(maps, corners, 24),
            "loop": lambda: loop(maps, corners, 24),
            "floor": lambda: out.clone(),
        },
        device,
        rounds,
    )
    each = {name: 1000 * value / count for name, value in best.items()}
    yield BenchRow("crops of both hands, 2 x 256 x 24x24", "us/frame", each["ours"], each["loop"], "loop over frames")
    yield BenchRow(
        "crops of both hands, 2 x 256 x 24x24", "us/frame", each["ours"], each["floor"], "floor: copying them"
    )


def loop(maps: Tensor, corners: Tensor, side: int) -> Tensor:
    """As the author's network does it: slices, frame by frame."""
    pieces = [
        torch.stack([frame[:, r : r + side, c : c + side] for r, c in at.tolist()])
        for frame, at in zip(maps, corners, strict=True)
    ]
    return torch.stack(pieces)


# -- network ----------------------------------------------------------------------------------------------------------


def network_rows(device: torch.device, rounds: int) -> Iterator[BenchRow]:
    """Frames a second of the multi-cue network against the full frame alone: what the cues cost."""
    base = PAPER if device.type == "cuda" else SMALL
    full = replace(base, cues=("full",), pose_branch=False)
    for what, call in (("reading", reading), ("training", training_step)):
        best = best_of({"multi": call(base, device), "full": call(full, device)}, device, rounds)
        multi, alone = (1000 * FRAMES / best[name] for name in ("multi", "full"))
        yield BenchRow(f"{what}, {base.size} px", "frames/s", multi, alone, "full frame alone", lower_is_better=False)


FRAMES = 48


def network(architecture: Architecture, device: torch.device) -> tuple[STMC, Tensor, Tensor]:
    torch.manual_seed(0)
    net = STMC(architecture, 13).to(device)
    return net, torch.rand(FRAMES, 3, architecture.size, architecture.size, device=device), torch.tensor([FRAMES])


def reading(architecture: Architecture, device: torch.device) -> Callable[[], object]:
    net, frames, _ = network(architecture, device)
    net.eval()
    return lambda: net.posteriors(frames)


def training_step(architecture: Architecture, device: torch.device) -> Callable[[], object]:
    net, frames, lengths = network(architecture, device)
    glosses = [torch.tensor([1, 2, 3])]

    def step() -> None:
        net.zero_grad()
        joint_loss(net(frames, lengths), glosses).backward()

    return step
