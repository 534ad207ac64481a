"""Side by side: the fused soft quantiser against plain autograd and torch.compile; a packed against a float network.

    labkit bench qnet            or, with the memory floor beside each time:   python benchmarks/qnet.py

On a GPU the activation is the sheet's, 256x64x56x56; its floor is to read or write it five times at 4.8 TB/s (an
H200). On a CPU the activation is smaller and its floor not known.
"""

import copy
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from labkit.kernels import soft_quantize, soft_quantize_reference
from labkit.papers.qnet.experiment.model import build_model
from labkit.papers.qnet.method.activations import quantize_activations
from labkit.papers.qnet.method.levels import LEVELS
from labkit.papers.qnet.method.onnx import export_onnx
from labkit.papers.qnet.method.packed_file import save
from labkit.papers.qnet.method.packing import pack
from labkit.papers.qnet.method.weights import quantize_weights
from labkit.workbench.benchmark import BenchRow, compare

GPU_BYTES_PER_SECOND = 4.8e12
CASES = ("A1", "A2", "A4")
Quantize = Callable[..., Tensor]


def rows(device: torch.device, seconds: float) -> Iterator[BenchRow]:
    """One row per workload and rival, within about `seconds`."""
    deadline = time.monotonic() + seconds
    for name in CASES:
        rivals = both_passes(name, device)
        best = compare(rivals, device, rounds=rounds_within(rivals["fused"], (deadline - time.monotonic()) / 4))
        work = f"soft_quantize {name}, forward + backward, {'x'.join(map(str, activation_shape(device)))}"
        yield BenchRow(work, "ms", best["fused"], best["autograd"], "autograd")
        if "compiled" in best:  # the function as it is in a compiled network, against its plain formula, compiled too
            yield BenchRow(f"{work}, compiled", "ms", best["compiled"], best["torch.compile"], "torch.compile")
        kept = {function: kept_bytes(name, device, call) for function, call in quantizers_to_compare().items()}
        yield BenchRow(f"{work}: kept for backward", "MB", kept["fused"] / 1e6, kept["autograd"] / 1e6, "autograd")
        if device.type == "cuda":
            peak = {rival: peak_megabytes(call, device) for rival, call in rivals.items()}
            yield BenchRow(f"{work}: peak memory", "MB", peak["fused"], peak["autograd"], "autograd")
    yield from packed_rows(device, deadline)
    yield from training_rows(device)
    yield widget_row()


def activation_shape(device: torch.device) -> tuple[int, ...]:
    return (256, 64, 56, 56) if device.type == "cuda" else (32, 64, 28, 28)


def quantizers_to_compare() -> dict[str, Quantize]:
    return {"fused": soft_quantize, "autograd": soft_quantize_reference}


def both_passes(name: str, device: torch.device) -> dict[str, Callable[[], object]]:
    """One call each: forward and backward with gradients for x, alpha and beta. torch.compile where it works."""
    x, parameters = inputs(name, device)
    dy = torch.randn_like(x)

    def call(quantize: Quantize) -> Callable[[], object]:
        wanted = [x, parameters[2], parameters[3]]
        return lambda: torch.autograd.grad(quantize(x, *parameters), wanted, dy)

    rivals = {rival: call(quantize) for rival, quantize in quantizers_to_compare().items()}
    try:
        compiled = call(torch.compile(soft_quantize, dynamic=False))
        rival = call(torch.compile(soft_quantize_reference, dynamic=False))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the compiler thinks of this machine
            compiled()
            rival()
        rivals |= {"compiled": compiled, "torch.compile": rival}
    except Exception as error:  # no compiler, no Python headers, ...: many types, and none of them ours
        print(f"torch.compile left out: {str(error).splitlines()[0]}", file=sys.stderr)
    return rivals


def inputs(name: str, device: torch.device) -> tuple[Tensor, tuple[Tensor, ...]]:
    """An activation as a ReLU gives it, and levels, thresholds, alpha, beta and T = 10."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(activation_shape(device), generator=generator).relu_().to(device).requires_grad_()
    levels = torch.tensor(LEVELS[name], device=device)
    alpha, beta = (torch.tensor(v, device=device, requires_grad=True) for v in (3 / len(levels), len(levels) / 3))
    return x, (levels, (levels[1:] + levels[:-1]) / 2, alpha, beta, torch.tensor(10.0, device=device))


def kept_bytes(name: str, device: torch.device, quantize: Quantize) -> int:
    """Bytes that the forward pass keeps for the backward pass, each storage counted once."""
    x, parameters = inputs(name, device)
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = quantize(x, *parameters)  # held: else its memory is used, and counted, again
    del y
    return sum(kept.values())


def peak_megabytes(call: Callable[[], object], device: torch.device) -> float:
    """Most memory at any time during the call, above what was there before."""
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 1e6


def packed_rows(device: torch.device, deadline: float) -> Iterator[BenchRow]:
    """ResNet-20 as it would be deployed, float weights against packed: size of the file, time of a batch."""
    network, batch = build_model("resnet20", 10, 32, 3), torch.randn(64, 3, 32, 32)
    network.eval()
    with tempfile.TemporaryDirectory() as folder:
        float_file = Path(folder) / "float.safetensors"
        save_file(network.state_dict(), float_file)
        for name in ("W1", "W2", "W3pm4"):
            quantized = copy.deepcopy(network)
            quantize_weights(quantized, LEVELS[name])
            size = save(pack(quantized), Path(folder) / name)
            yield BenchRow(f"ResNet-20 {name} file", "kB", size / 1e3, float_file.stat().st_size / 1e3, "float32")
    quantized = copy.deepcopy(network)
    quantize_weights(quantized, LEVELS["W2"])
    quantize_activations(quantized, LEVELS["A2"], [batch])
    quantized.to(device).eval()
    batch = batch.to(device)
    last, network = batch.contiguous(memory_format=torch.channels_last), network.to(device)
    packed, quickest = pack(quantized, batch), {"memory_format": torch.channels_last}
    calls = {
        "hard network": inference(quantized, batch),
        "packed, contiguous": inference(packed, batch),
        "packed, channels-last": inference(copy.deepcopy(packed).to(**quickest), last),
        "float, contiguous": inference(network, batch),
        "float, channels-last": inference(copy.deepcopy(network).to(**quickest), last),
    }
    if device.type == "cpu":
        calls |= exported(pack(quantized), network, batch)
    best = compare(calls, device, rounds=rounds_within(calls["hard network"], (deadline - time.monotonic()) / 8))
    work = "ResNet-20 W2A2 inference, 64 images"
    ours = min(best[name] for name in best if name.startswith("packed"))
    yield BenchRow(f"{work}, quickest layout", "ms", ours, best["hard network"], "hard network")
    floats = min(best[name] for name in best if name.startswith("float"))
    yield BenchRow(f"{work}, quickest layout", "ms", ours, floats, "float network, quickest layout")
    yield BenchRow(f"{work}, contiguous", "ms", best["packed, contiguous"], best["float, contiguous"], "float network")
    if "exported" in best:
        yield BenchRow(f"{work}, ONNX Runtime", "ms", best["exported"], best["exported float"], "float network there")


def exported(packed: nn.Module, network: nn.Module, batch: Tensor) -> dict[str, Callable[[], object]]:
    """Both networks in ONNX Runtime on one thread, where it is installed."""
    try:
        import onnxruntime
    except ImportError:
        return {}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_onnx(packed, Path(folder) / "packed.onnx", batch)
        torch.onnx.export(network, (batch,), f"{folder}/float.onnx", dynamo=False, input_names=["input"])
        names, inputs = ("packed", "float"), {"input": batch.numpy()}
        sessions = [onnxruntime.InferenceSession(f"{folder}/{name}.onnx", options) for name in names]
    return {
        "exported": lambda: sessions[0].run(None, inputs),
        "exported float": lambda: sessions[1].run(None, inputs),
    }


def training_rows(device: torch.device) -> Iterator[BenchRow]:
    """What quantising costs while training: a step of the lesson's network, against the same step in float."""
    images, labels = torch.randn(128, 1, 28, 28, device=device), torch.randint(10, (128,), device=device)

    def step_of(model: nn.Module) -> Callable[[], object]:
        optimizer = torch.optim.SGD(model.to(device).parameters(), lr=1e-3)

        def step() -> None:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()

        return step

    float_net = build_model("cnn", 10, 28, 1)
    steps = {"float network": step_of(float_net)}
    for name in ("W1", "W2", "W3pm4"):
        quantized = copy.deepcopy(float_net)
        quantize_weights(quantized, LEVELS[name])
        steps[name] = step_of(quantized)
    best = compare(steps, device, rounds=20)
    for name in ("W1", "W2", "W3pm4"):
        yield BenchRow(
            f"training step, {name} weights, batch 128", "ms", best[name], best["float network"], "float step"
        )


def widget_row() -> BenchRow:
    """One move of a handle in the notebook, against what feels immediate."""
    from labkit.papers.qnet.teaching.figures import staircase_widget

    box, cpu = staircase_widget(), torch.device("cpu")
    slider = box.children[1]

    def move() -> None:
        slider.value = 3.0 - slider.value + 0.1 * (slider.value == 1.5)

    return BenchRow(
        "staircase widget, one move", "ms", compare({"ours": move}, cpu, rounds=10)["ours"], 100.0, "100 ms"
    )


def inference(model: nn.Module, batch: Tensor) -> Callable[[], object]:
    @torch.no_grad()
    def call() -> object:
        return model(batch)

    return call


def rounds_within(call: Callable[[], object], seconds: float) -> int:
    """How often a few rivals about as slow as `call` can take turns in that time: 3 to 30."""
    call()
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return max(3, min(30, int(seconds / (4 * (time.perf_counter() - start)))))


if __name__ == "__main__":
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    floor = 5 * 4 * torch.Size(activation_shape(device)).numel() / GPU_BYTES_PER_SECOND * 1e3
    print(
        f"memory floor of forward + backward on an H200: {floor:.3f} ms" if device.type == "cuda" else "one CPU thread"
    )
    for row in rows(device, 60.0):
        print(f"{row.workload:<75}{row.ours:10.3f} {row.unit:<3}{row.peer:10.3f}  {row.ratio:6.2f}x  {row.peer_name}")
