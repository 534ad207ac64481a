"""Integers against float, side by side in one process: layers of the paper's networks, and VDSR as a whole.

    labkit bench brelu            or, with all times beside each other:   python benchmarks/brelu.py

The rivals: PyTorch in float32, both memory layouts, ONNX Runtime in float32, and per layer PyTorch's quantised
convolution. The integers run as they do for everybody: in ONNX Runtime where it is installed; the engine of PyTorch
alone stands beside it. ONNX Runtime gets as many threads as PyTorch. On a CPU the clock counts the seconds of this
process, so that other work on the machine changes little.
"""

import copy
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit.kernels.int8_conv import Geometry, Requantizer, int8_conv2d, requantize
from labkit.papers.brelu.experiment.model import vdsr
from labkit.papers.brelu.method.integer import IntegerNetwork, to_integer
from labkit.papers.brelu.method.network import Network, calibrate, set_bounds
from labkit.papers.brelu.method.snap import InputScale, snap
from labkit.papers.brelu.method.weights import layers, quantize_layers
from labkit.workbench.benchmark import BenchRow, compare

LAYERS = ((64, 64, 56, 3), (256, 256, 14, 3), (64, 256, 56, 1), (64, 64, 128, 3))  # in, out, side, kernel
REQUANTIZER = Requantizer(46239, 45, 14)  # the stem of the authors' ResNet-152
Calls = dict[str, Callable[[], object]]


def rows(device: torch.device, seconds: float) -> Iterator[BenchRow]:
    """One row per workload and rival, within about `seconds`."""
    deadline = time.monotonic() + seconds
    for shape in LAYERS:
        n = 1 if device.type == "cpu" else 32
        calls = layer_calls(*shape, n, device)
        rounds = rounds_within(calls["int8"], (deadline - time.monotonic()) / 8)
        best = compare(calls, device, rounds, clock=clock_of(device))
        work = f"convolution {shape[0]}->{shape[1]}, {shape[3]}x{shape[3]}, {n}x{shape[2]}x{shape[2]}"
        for peer in best.keys() - {"int8"}:
            yield BenchRow(work, "ms", best["int8"], best[peer], peer)
    yield requantizer_row(device)
    for depth, width in ((8, 16), (20, 64)):
        side = 256 if device.type == "cpu" else 1024
        calls, integer = network_calls(depth, width, side, device)
        share = (deadline - time.monotonic()) / 3
        best = compare(calls, device, rounds_within(calls["integers"], share), clock=clock_of(device))
        for peer in best.keys() - {"integers"}:
            yield BenchRow(f"VDSR {depth}x{width}, {side}x{side}", "ms", best["integers"], best[peer], peer)
        count = sum(p.numel() for p in vdsr(depth, width).parameters())
        yield BenchRow(f"VDSR {depth}x{width} file", "kB", integer.stored_bytes / 1e3, 4 * count / 1e3, "float32")


def clock_of(device: torch.device) -> Callable[[], float] | None:
    return time.process_time if device.type == "cpu" else None


def layer_calls(channels: int, out: int, side: int, kernel: int, n: int, device: torch.device) -> Calls:
    """One convolution with what follows it: bounded ReLU and requantiser, or bias and clamp in float."""
    generator = torch.Generator().manual_seed(0)
    v = torch.randint(0, 128, (n, channels, side, side), generator=generator).to(torch.int8).to(device)
    weight = torch.randint(-127, 128, (out, channels, kernel, kernel), generator=generator).to(torch.int8).to(device)
    bias = torch.zeros(out, dtype=torch.int32, device=device)
    v = v.contiguous(memory_format=torch.channels_last)
    x, w, b = v.float(), weight.float(), bias.float()
    first = (x.contiguous(), w.contiguous())
    last = tuple(t.contiguous(memory_format=torch.channels_last) for t in (x, w))
    pad = kernel // 2

    def plain(pair: tuple[Tensor, ...]) -> Callable[[], object]:
        return lambda: nn.functional.conv2d(*pair, b, padding=pad).clamp_(0, 6.0)

    calls: Calls = {
        "int8": lambda: int8_conv2d(v, weight, bias, Geometry(padding=(pad, pad)), requantizer=REQUANTIZER),
        "float32": plain(first),
        "float32 channels last": plain(last),
    }
    if device.type == "cpu" and (call := torch_quantized(v, weight, pad)):
        calls["PyTorch's quantised convolution"] = call
    return calls


def torch_quantized(v: Tensor, weight: Tensor, pad: int) -> Callable[[], object] | None:
    """PyTorch's own int8 convolution with ReLU and requantisation (announced to be removed); None where it is gone."""
    operations = torch.ops.quantized
    if not hasattr(torch, "quantize_per_tensor") or not hasattr(operations, "conv2d_relu"):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says at every call that it will be removed
        codes = torch.quantize_per_tensor(v.float(), 1.0, 0, torch.quint8)
        weights = torch.quantize_per_tensor(weight.float(), 1.0, 0, torch.qint8)
        packed = operations.conv2d_prepack(weights, torch.zeros(len(weight)), [1, 1], [pad, pad], [1, 1], 1)
    scale = REQUANTIZER.u_max / 127
    return lambda: operations.conv2d_relu(codes, packed, scale, 0)


def requantizer_row(device: torch.device) -> BenchRow:
    """Clip, multiply, shift as operations of their own, against the floor: int32 read once, int8 written once."""
    u = torch.randint(-50_000, 50_000, (1, 64, 128, 128), dtype=torch.int32, device=device)
    best = compare(
        {
            "unfused": lambda: requantize(u, REQUANTIZER),
            "copy": lambda: u.to(torch.int8),
        },
        device,
    )
    return BenchRow("requantise 64x128x128, unfused", "ms", best["unfused"], best["copy"], "int32 -> int8 copy")


def network_calls(depth: int, width: int, side: int, device: torch.device) -> tuple[Calls, IntegerNetwork]:
    """VDSR with random weights: speed does not depend on training."""
    torch.manual_seed(0)
    network = vdsr(depth, width).eval()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (1, 1, side, side), generator=generator).to(torch.uint8)
    real = (pixels.float() - 128) / 255
    quantize_layers(network)
    set_bounds(network, calibrate(network, [real[..., :64, :64]]), "3.5sigma")
    integer = to_integer(network, snap(network, InputScale(255.0)))
    for layer in layers(network).values():
        layer.step.zero_()  # plain float weights from here on
    codes, x = integer.to_codes(real).to(device), real.to(device)
    last = copy.deepcopy(network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    first, moved = network.to(device), copy.deepcopy(integer).to(device)

    def plain(model: Network, image: Tensor) -> Callable[[], object]:
        def call() -> object:
            with torch.no_grad():
                return model(image)

        return call

    calls: Calls = {
        "integers": lambda: moved.forward_integer(codes),
        "float32": plain(first, x),
        "float32 channels last": plain(last, x.contiguous(memory_format=torch.channels_last)),
    }
    if device.type == "cpu":
        in_torch = copy.deepcopy(integer)
        in_torch.engine = "torch"
        calls["PyTorch's int8 products"] = lambda: in_torch.forward_integer(codes)
        calls |= onnx_calls(network, real.numpy())
    return calls, integer


def onnx_calls(network: Network, real: np.ndarray) -> Calls:
    """ONNX Runtime in float32; none where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return {}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    content = float_onnx(network).SerializeToString()
    plain = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return {"ONNX Runtime float32": lambda: plain.run(None, {"x": real})}


def float_onnx(network: Network) -> Any:
    """The chain of convolutions and clips as float ONNX."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, last = [], [numpy_helper.from_array(np.float32(0), "zero")], "x"
    for node in network.nodes:
        if node.operation == "layer":
            weight, bias = (t.detach().cpu().numpy() for t in network.parts[node.name].folded())  # type: ignore[operator]
            constants += [
                numpy_helper.from_array(weight, f"{node.name}_w"),
                numpy_helper.from_array(bias, f"{node.name}_b"),
            ]
            inputs, pad = [last, f"{node.name}_w", f"{node.name}_b"], weight.shape[2] // 2
            nodes.append(helper.make_node("Conv", inputs, [node.name], pads=[pad] * 4))
        else:
            top = np.float32(float(network.parts[node.name].bound))  # type: ignore[arg-type]
            constants.append(numpy_helper.from_array(top, f"{node.name}_top"))
            nodes.append(helper.make_node("Clip", [last, "zero", f"{node.name}_top"], [node.name]))
        last = node.name
    shape: list[str | int] = ["n", 1, "h", "w"]
    graph = helper.make_graph(
        nodes,
        "float",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, shape)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def rounds_within(call: Callable[[], object], seconds: float) -> int:
    """How often a few rivals some three times as slow as `call` can take turns in that time: 3 to 30."""
    call()
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return max(3, min(30, int(seconds / (10 * (time.perf_counter() - start)))))


if __name__ == "__main__":
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    for row in rows(device, 60.0):
        print(f"{row.workload:<48}{row.ours:10.3f} {row.unit:<3}{row.peer:10.3f}  {row.ratio:6.2f}x  {row.peer_name}")
