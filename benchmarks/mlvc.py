"""Side by side: the codec's two ways and where their time goes, its entropy coder, and the chained warp.

    labkit bench mlvc                    rows, within about --seconds
    python benchmarks/mlvc.py            the same, printed

The codec works on generated frames of 352 x 288: with all networks at an eighth of the paper's width, since time does
not depend on what weights hold, and with the ones that come with labkit; x265, veryfast, codes the same frames.
Networks and coders take CPU seconds of this process alone on a CPU, which other programs do not disturb, and wall time
on a GPU.
"""

import functools
import itertools
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.kernels.flow_warp import chained_warp, chained_warp_reference
from labkit.papers.mlvc.method.autoencoders import STRIDE
from labkit.papers.mlvc.method.codec import Codec, default_codec
from labkit.papers.mlvc.method.frame_coder import FrameCoder
from labkit.papers.mlvc.method.network import Network, Settings
from labkit.papers.mlvc.method.range_coder import SymbolCoder
from labkit.papers.mlvc.method.references import References
from labkit.papers.mlvc.method.tables import LARGEST_SCALE, LEVELS, SMALLEST_SCALE, gaussian_alphabets
from labkit.workbench.benchmark import BenchRow, compare

HEIGHT, WIDTH, NARROW = 288, 352, 0.125
SYMBOLS = 500_000
"""Of the sheet's table of entropy coders."""


def rows(device: torch.device, seconds: float) -> Iterator[BenchRow]:
    """Kernels first: they are quick, and the codec takes what is left of the time."""
    rounds = max(3, min(20, int(seconds / 6)))
    yield from warp_rows(device, rounds)
    yield from coder_rows(rounds)
    yield from codec_rows(device, max(3, min(12, int(seconds / 6))))


def best_of(candidates: dict[str, Callable[[], object]], device: torch.device, rounds: int) -> dict[str, float]:
    """Best time of each in ms, taking turns: wall time on a GPU, CPU time on a CPU, which others may keep busy."""
    clock = None if device.type == "cuda" else time.process_time
    return compare(candidates, device, rounds, warm_up=1, clock=clock)


# ---- the chained warp -----------------------------------------------------------------------------------------------


def warp_rows(device: torch.device, rounds: int) -> Iterator[BenchRow]:
    """Four references of 32 channels along the chain: the paper's case at 1920 x 1024 on a GPU, CIF on a CPU.

    The floor reads images and flows once and writes the result once. `again and again` warps what was warped: another
    result, blurred, and what a codec without the chain would do.
    """
    height, width = (1024, 1920) if device.type == "cuda" else (HEIGHT, WIDTH)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 4, 32, height, width, generator=generator).to(device)
    coarse = torch.randn(4, 2, 9, 16, generator=generator)
    flows = 4 * F.interpolate(coarse, size=(height, width), mode="bicubic")[None].to(device)
    candidates: dict[str, Callable[[], object]] = {
        "ours": lambda: chained_warp(images, flows),
        "eager": lambda: chained_warp_reference(images, flows),
        "one grid_sample": lambda: one_sample(images, flows),
        "floor": lambda: (images.clone(), flows.clone()),
    }
    if device.type == "cuda":
        compiled = torch.compile(chained_warp_reference)
        candidates["compiled"] = lambda: compiled(images, flows)
    best = best_of(candidates, device, rounds)
    name = f"chain and warp, 4 x 32 channels of {height}x{width}"
    yield BenchRow(name, "ms", best["ours"], best["eager"], "eager: 3 flow warps, 4 grid_samples, stack")
    if "compiled" in best:
        yield BenchRow(name, "ms", best["ours"], best["compiled"], "the same by torch.compile")
    yield BenchRow(name, "ms", best["ours"], best["one grid_sample"], "one grid_sample of 128 channels, no chain")
    yield BenchRow(name, "ms", best["ours"], best["floor"], "floor: copying images and flows")
    best = best_of({"ours": lambda: backward(images, flows)}, device, max(2, rounds // 4))
    forward = best_of({"ours": lambda: chained_warp(images, flows)}, device, max(2, rounds // 4))
    yield BenchRow(f"{name}, with backward", "ms", best["ours"], forward["ours"], "forward alone")


def one_sample(images: Tensor, flows: Tensor) -> Tensor:
    """All channels at the places of the first flow: what grid_sample itself costs."""
    height, width = images.shape[3:]
    x = torch.arange(width, device=images.device) + flows[:, 0, 0]
    y = torch.arange(height, device=images.device)[:, None] + flows[:, 0, 1]
    grid = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], dim=-1)
    return F.grid_sample(images.flatten(1, 2), grid, padding_mode="border", align_corners=True)


def backward(images: Tensor, flows: Tensor) -> None:
    inputs = images.detach().requires_grad_(), flows.detach().requires_grad_()
    chained_warp(*inputs)[0].sum().backward()


# ---- the entropy coder ----------------------------------------------------------------------------------------------


def coder_rows(rounds: int) -> Iterator[BenchRow]:
    """Half a million Gaussian symbols: ours, grouped by 64 integer tables; constriction with a Gaussian each."""
    import constriction

    rng, stream = np.random.default_rng(0), constriction.stream
    levels = rng.integers(0, LEVELS, SYMBOLS)
    sigma = SMALLEST_SCALE * (LARGEST_SCALE / SMALLEST_SCALE) ** (levels / (LEVELS - 1))
    symbols = np.rint(rng.normal(size=SYMBOLS) * sigma).astype(np.int32)
    ours, family = SymbolCoder(gaussian_alphabets()[0]), stream.model.QuantizedGaussian(-2000, 2000)
    mean = np.zeros(SYMBOLS)

    def encode() -> np.ndarray:
        coder = stream.queue.RangeEncoder()
        coder.encode(symbols, family, mean, sigma)
        return coder.get_compressed()

    mine, theirs = ours.encode(symbols, levels), encode()
    cpu = torch.device("cpu")
    spent = best_of({
        "encode": lambda: ours.encode(symbols, levels),
        "their encode": encode,
        "decode": lambda: ours.decode(mine, levels),
        "their decode": lambda: stream.queue.RangeDecoder(theirs).decode(family, mean, sigma),
    }, cpu, max(2, rounds // 4))  # fmt: skip
    rate = {name: SYMBOLS / ms / 1000 for name, ms in spent.items()}
    for way in ("encode", "decode"):
        pair = rate[way], rate[f"their {way}"]
        peer = "constriction, a Gaussian a symbol"
        yield BenchRow(f"{way}, 64 scales", "million symbols/s", *pair, peer, lower_is_better=False)
    yield BenchRow("length of the same", "bytes", len(mine), 4 * len(theirs), "constriction, a Gaussian a symbol")
    yield BenchRow("length of the same", "bytes", len(mine), ours.bits(symbols, levels) / 8, "floor: -sum log2 p")


# ---- the codec ------------------------------------------------------------------------------------------------------


def clip(count: int) -> list[np.ndarray]:
    """Smooth noise that drifts, with fresh noise on it."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 24, 30)))
    canvas = F.interpolate(coarse, size=(HEIGHT + 64, WIDTH + 64), mode="bicubic")[0].permute(1, 2, 0).numpy()
    views = [canvas[t : t + HEIGHT, 2 * t : 2 * t + WIDTH] for t in range(count)]
    return [(view + rng.normal(0, 2, view.shape)).clip(0, 255).astype(np.uint8) for view in views]


@functools.cache
def codec(kind: str = "network") -> Codec:
    torch.manual_seed(0)
    return Codec({2: Network(Settings(width=NARROW, motion=kind))})


def codec_rows(device: torch.device, frames: int) -> Iterator[BenchRow]:
    """Frames a CPU second, both ways, against x265; then where the time of a P-frame goes, as shares of the whole."""
    shown = clip(frames)
    theirs = x265_seconds(shown)
    for name, mine in ((f"all networks at width 1/{1 / NARROW:g}", codec()), ("default networks", default_codec())):
        for way, spent, peer in zip(("encode", "decode"), our_seconds(mine, shown), theirs, strict=True):
            yield BenchRow(f"{way}, {WIDTH}x{HEIGHT}, {name}", "frames/CPU s", frames / spent, frames / peer,
                           "x265 veryfast, FFmpeg", lower_is_better=False)  # fmt: skip
    whole, parts = breakdown(codec().coders[2], shown)
    for name, spent in parts.items():
        yield BenchRow(f"P-frame, {name}", "ms", spent, whole, "the whole P-frame, sender and receiver's half")
    yield from arithmetic_rows(device)
    yield from quality_rows()


def quality_rows() -> Iterator[BenchRow]:
    """PSNR of the networks that come with labkit over a group of 13 frames that they never saw, at x265's bytes."""
    from labkit.papers.mlvc.teaching.scenes import drift

    curves = drift()
    for name, (rate, quality) in curves.items():
        if name.startswith("quality"):
            theirs = curves[f"x265 below {name}"][1]
            workload = f"default networks, {name}, {rate:.3f} bits a pixel"
            yield BenchRow(workload, "dB", float(np.mean(quality)), float(np.mean(theirs)),
                           "x265 veryfast, no more bytes", lower_is_better=False)  # fmt: skip
            yield BenchRow(f"{workload}, last P-frame", "dB", quality[-1], theirs[-1],
                           "x265 veryfast, no more bytes", lower_is_better=False)  # fmt: skip


def our_seconds(mine: Codec, shown: list[np.ndarray]) -> tuple[float, float]:
    """CPU seconds to code the frames as one group, and to decode them."""
    begun = time.process_time()
    data = mine.encode(shown, gop=len(shown), adaptive=False)
    encoded = time.process_time()
    mine.decode(data)
    return encoded - begun, time.process_time() - encoded


def x265_seconds(shown: list[np.ndarray]) -> tuple[float, float]:
    """CPU seconds of x265 (veryfast, zero latency) to code the frames and of FFmpeg to decode them, in one thread."""
    from fractions import Fraction

    import av

    context = av.CodecContext.create("libx265", "w")
    context.width, context.height, context.pix_fmt, context.time_base = WIDTH, HEIGHT, "yuv420p", Fraction(1, 25)
    params = f"crf=27:keyint={len(shown)}:log-level=none:pools=none:frame-threads=1"
    context.options = {"preset": "veryfast", "tune": "zerolatency", "x265-params": params}
    begun = time.process_time()  # of all threads
    packets = [p for frame in shown for p in context.encode(av.VideoFrame.from_ndarray(frame, format="rgb24"))]
    packets += context.encode(None)
    encoded = time.process_time()
    receiver = av.CodecContext.create("hevc", "r")
    receiver.thread_count = 1
    for packet in itertools.chain(packets, [None]):
        for frame in receiver.decode(packet):
            frame.to_ndarray(format="rgb24")
    return encoded - begun, time.process_time() - encoded


@torch.no_grad()
def breakdown(coder: FrameCoder, shown: list[np.ndarray]) -> tuple[float, dict[str, float]]:
    """Milliseconds of CPU of a whole P-frame at the sender, and of each step in it, measured one by one."""
    padded = [np.pad(f, ((0, -HEIGHT % STRIDE), (0, -WIDTH % STRIDE), (0, 0)), mode="edge") for f in shown[:3]]
    references = coder.send(padded[1], coder.start(padded[0])).references
    x = coder._tensor(padded[2])
    seen = References(references.frames.float(), references.flows.float())
    twin, network = coder.receiver, coder.network
    flow = network.estimate_motion(x.float(), seen)
    predicted = twin.predict_motion(references)
    m = network.motion_coding.encode((flow - predicted.float()) / 20)
    symbols = coder._symbols(m, "motion")
    latent = coder._latent(symbols)
    decoded = twin.decode_motion(latent, predicted)
    refined = twin.refine_motion(decoded, references)
    compensation = twin.compensate(refined, references)
    y = network.residual_coding.encode((x - compensation.prediction).float())
    levels = coder._levels(coder._symbols(network.hyperprior.encode(y), "hyper"))
    symbols_y = y.round().long().numpy()
    steps: dict[str, Callable[[], object]] = {
        "motion search": lambda: network.estimate_motion(x.float(), seen),
        "MAMVP-Net": lambda: twin.predict_motion(references),
        "motion analysis": lambda: network.motion_coding.encode((flow - predicted.float()) / 20),
        "motion synthesis": lambda: twin.decode_motion(latent, predicted),
        "MV Refine-Net": lambda: twin.refine_motion(decoded, references),
        "MMC-Net": lambda: twin.compensate(refined, references),
        "residual and hyper analysis": lambda: network.hyperprior.encode(
            network.residual_coding.encode((x - compensation.prediction).float())
        ),
        "hyper synthesis": lambda: twin.scales(coder._latent(coder._symbols(network.hyperprior.encode(y), "hyper"))),
        "residual synthesis, Refine-Net": lambda: twin.reconstruct(coder._latent(symbols_y), compensation),
        "entropy coder": lambda: coder._residual.decode(coder._residual.encode(symbols_y, levels), levels),
    }
    best = best_of({"whole": lambda: coder.send(padded[2], references), **steps}, torch.device("cpu"), 2)
    return best.pop("whole"), best


@torch.no_grad()
def arithmetic_rows(device: torch.device) -> Iterator[BenchRow]:
    """What exact integers cost: MMC-Net of the receiver against the float32 network it was made from."""
    coder = codec().coders[2]
    side = 192
    references = References.start(torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)))
    exact = References(references.frames.double(), references.flows.double())
    flow = torch.zeros(1, 2, side, side)
    best = best_of({
        "exact": lambda: coder.receiver.compensate(flow.double(), exact),
        "float": lambda: coder.network.compensate(flow, references),
    }, torch.device("cpu"), 3)  # fmt: skip
    yield BenchRow(f"MMC-Net, exact, {side}x{side}", "ms", best["exact"], best["float"], "the float32 network")


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for row in rows(device, 60):
        print(f"{row.workload:<60}{row.ours:10.3f} {row.unit:<18}{row.peer:10.3f}  {row.ratio:6.2f}x  {row.peer_name}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
