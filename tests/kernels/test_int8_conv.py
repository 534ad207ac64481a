"""The integer convolution: every body against int64, bit for bit, and other engines as oracles."""

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.errors import InputError
from labkit.kernels import int8_conv
from labkit.kernels.int8_conv import (
    Conv,
    Geometry,
    Requantizer,
    int8_conv2d,
    int8_conv2d_reference,
    reference,
    requantize,
)

REQUANTIZER = Requantizer(7566, 275, 14)
SHAPES = [  # n, c, h, w, o, kernel, stride, padding: sizes that no block divides
    (2, 3, 7, 11, 5, 3, 1, 1), (1, 1, 9, 5, 64, 3, 1, 1), (2, 64, 6, 7, 33, 3, 2, 1), (1, 70, 5, 5, 17, 1, 1, 0),
    (1, 16, 13, 9, 1, 5, 1, 2), (3, 8, 4, 4, 10, 1, 2, 0), (1, 3, 15, 15, 16, 7, 2, 3), (0, 4, 5, 5, 6, 3, 1, 1),
]  # fmt: skip

INTERPRETED = [  # the interpreter takes seconds a shape: more channels than a block, strides, a 1x1, an empty batch
    (2, 3, 5, 6, 5, 3, 2, 1), (1, 35, 4, 5, 17, 1, 1, 0), (1, 33, 3, 4, 18, 3, 1, 1), (0, 4, 5, 5, 6, 3, 1, 1),
]  # fmt: skip


def geometry(stride: int, padding: int) -> Geometry:
    return Geometry((stride, stride), (padding, padding))


def tensors(n, c, h, w, o, k, stride, padding) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(n + 10 * c + o)
    v = torch.randint(-128, 128, (n, c, h, w), generator=g).to(torch.int8)
    weight = torch.randint(-128, 128, (o, c, k, k), generator=g).to(torch.int8)
    bias = torch.randint(-5000, 5000, (o,), generator=g).to(torch.int32)
    size = reference.output_size(h, w, k, k, geometry(stride, padding))
    shortcut = torch.randint(-9000, 9000, (n, o, *size), generator=g).to(torch.int32)
    return v, weight, bias, shortcut


OPTIONS = [  # shortcut?, requantiser, sums kept?
    (False, None, True), (True, None, True), (False, REQUANTIZER, False), (True, REQUANTIZER, True),
]  # fmt: skip


def compare_bodies(body: Callable[..., int8_conv.Output], shapes: Sequence[tuple[int, ...]] = SHAPES) -> None:
    for k, shape in enumerate(shapes):
        v, weight, bias, shortcut = tensors(*shape)
        layout = v.contiguous(memory_format=torch.channels_last) if k % 2 else v
        for added, requantizer, keep in OPTIONS:
            conv = Conv(geometry(*shape[-2:]), requantizer, keep)
            got = body(layout, weight, bias, shortcut if added else None, conv)
            wanted = int8_conv2d_reference(v, weight, bias, shortcut if added else None, conv)
            for a, b in zip(got, wanted, strict=True):
                assert (a is None) == (b is None), (shape, conv)
                assert a is None or (a.dtype == b.dtype and torch.equal(a, b)), (shape, conv)


def test_strips_equal_the_reference():
    compare_bodies(reference.int8_conv2d_by_strips)


GEOMETRIES = [  # c, o, kernel, geometry: strides, paddings and dilations that differ, groups of few and of many
    (6, 8, (3, 2), Geometry((2, 1), (1, 3), (1, 2))), (6, 12, (3, 3), Geometry((1, 2), (2, 1), (2, 1), 6)),
    (6, 6, (1, 5), Geometry((1, 1), (0, 2), (1, 1), 3)), (36, 8, (3, 3), Geometry((1, 1), (1, 1), (1, 1), 4)),
]  # fmt: skip


@pytest.mark.parametrize(("c", "o", "kernel", "lies"), GEOMETRIES)
@pytest.mark.parametrize("requantizer", [None, REQUANTIZER, REQUANTIZER._replace(u_min=-7566)])
def test_every_geometry_equals_int64(c, o, kernel, lies, requantizer):
    g = torch.Generator().manual_seed(c + o)
    v = torch.randint(-128, 128, (2, c, 11, 13), generator=g).to(torch.int8)
    weight = torch.randint(-128, 128, (o, c // lies.groups, *kernel), generator=g).to(torch.int8)
    bias = torch.randint(-5000, 5000, (o,), generator=g).to(torch.int32)
    shortcut = torch.randint(-9000, 9000, (2, o, *reference.output_size(11, 13, *kernel, lies)), generator=g).int()
    wanted = int8_conv2d_reference(v, weight, bias, shortcut, Conv(lies, requantizer, True))
    got = int8_conv2d(v, weight, bias, lies, shortcut=shortcut, requantizer=requantizer, keep_sums=True)
    assert torch.equal(got.sums, wanted.sums)
    assert requantizer is None or torch.equal(got.codes, wanted.codes)
    if requantizer is not None:
        assert int(got.codes.min()) == (0 if requantizer.u_min == 0 else -127)


def test_many_small_strips(monkeypatch):
    monkeypatch.setattr(reference, "STRIP_BYTES", 1)
    compare_bodies(reference.int8_conv2d_by_strips)


def test_sums_of_576_and_of_4608_taps():
    """Check 3: weights and codes of 127; float32 holds the smaller sum, the larger one is beyond 2^24."""
    codes, ones = torch.full((1, 64, 3, 3), 127, dtype=torch.int8), torch.full((1, 64, 3, 3), 127, dtype=torch.int8)
    zero = torch.zeros(1, dtype=torch.int32)
    exact = int8_conv2d(codes, ones, zero).sums
    assert exact.item() == 576 * 127 * 127 < 2**24
    assert F.conv2d(codes.float(), ones.float()).item() == exact.item()
    codes, weight = codes.repeat(1, 8, 1, 1), ones.repeat(1, 8, 1, 1)
    weight[0, 0, 0, 0] = 126
    exact = int8_conv2d(codes, weight, zero).sums.item()
    assert F.conv2d(codes.double(), weight.double()).item() == exact > 2**24


@pytest.fixture
def onnx_session():
    onnx = pytest.importorskip("onnx")
    ort = pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    def run(kind: str, inputs: dict, pads: int, output: int) -> Tensor:
        values = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in inputs.items()
        ]
        node = helper.make_node(kind, list(inputs), ["y"], pads=[pads] * 4)
        graph = helper.make_graph([node], "g", values, [helper.make_tensor_value_info("y", output, None)])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return torch.from_numpy(session.run(None, inputs)[0])

    assert onnx.__version__
    return run, TensorProto


def test_onnx_runtime_agrees_on_sums(onnx_session):
    """Check 5, ConvInteger: an independent engine's int32 sums."""
    run, types = onnx_session
    v, weight, _, _ = tensors(2, 3, 7, 11, 5, 3, 1, 1)
    codes = v.clamp(min=0).to(torch.uint8)
    got = run("ConvInteger", {"x": codes.numpy(), "w": weight.numpy()}, 1, types.INT32)
    wanted = int8_conv2d(codes.to(torch.int8), weight, torch.zeros(5, dtype=torch.int32), geometry=geometry(1, 1)).sums
    assert torch.equal(got, wanted)


def test_onnx_runtime_agrees_on_codes(onnx_session):
    """Check 5, QLinearConv: the same codes but for ties, which go to even there and up here."""
    import numpy as np

    run, types = onnx_session
    v, weight, bias, _ = tensors(2, 8, 9, 9, 16, 3, 1, 1)
    codes = v.clamp(min=0)
    requantizer = Requantizer(46239, 45, 14)
    inputs = {
        "x": codes.to(torch.uint8).numpy(), "xs": np.float32(1), "xz": np.uint8(0), "w": weight.numpy(),
        "ws": np.float32(1), "wz": np.int8(0), "ys": np.float32(2**14 / 45), "yz": np.uint8(0), "b": bias.numpy(),
    }  # fmt: skip
    inputs = {name: np.asarray(value) for name, value in inputs.items()}
    got = run("QLinearConv", inputs, 1, types.UINT8).clamp(max=127).to(torch.int8)
    out = int8_conv2d(codes, weight, bias, geometry(1, 1), requantizer=requantizer, keep_sums=True)
    ties = (out.sums.long() * 45) % 2**14 == 2**13
    assert torch.equal(got[~ties], out.codes[~ties])
    assert (got - out.codes).abs().max() <= 1


def test_requantize_is_the_formula():
    u = torch.arange(-100, 8000, dtype=torch.int32)
    wanted = [(min(max(int(x), 0), 7566) * 275 + 8192) >> 14 for x in u]
    assert requantize(u, REQUANTIZER).tolist() == wanted
    assert max(wanted) == 127


def good() -> dict:
    v, weight, bias, shortcut = tensors(2, 3, 7, 11, 5, 3, 1, 1)
    return {
        "v": v, "weight": weight, "bias": bias, "geometry": geometry(1, 1), "shortcut": shortcut,
        "requantizer": REQUANTIZER,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.zeros(5, 4, 3, 3, dtype=torch.int8)}, r"v must be \(n, c, h, w\)"),
        ({"bias": torch.zeros(4, dtype=torch.int32)}, "bias must hold 5 numbers"),
        ({"geometry": geometry(0, 1)}, "must be 1 or more, paddings"),
        ({"geometry": Geometry(groups=3)}, "and 3 groups"),
        ({"requantizer": Requantizer(7566, 275, 14, -5)}, "clipped at 0 or at -u_max"),
        ({"shortcut": torch.zeros(2, 5, 6, 11, dtype=torch.int32)}, "shortcut must be int32 of shape"),
        ({"weight": torch.zeros(5, 3, 9, 9, dtype=torch.int8), "geometry": geometry(1, 0)}, "smaller than the kernel"),
        ({"requantizer": Requantizer(7566, 275, 31)}, r"shift 0\.\.30; got 7566, 275 and 31"),
        ({"requantizer": Requantizer(1 << 20, 1 << 15, 20)}, "leaves int32"),
        ({"requantizer": Requantizer(7566, 280, 14)}, "largest code would be 129"),
    ],
)
def test_bad_input_is_named(change, message):
    given = {**good(), **change}
    order = ("v", "weight", "bias", "geometry", "shortcut", "requantizer")
    with pytest.raises(InputError, match=message):
        int8_conv._check(*(given[name] for name in order))  # where the import hook does not come before it


def test_floats_are_refused():
    arguments = good()
    with pytest.raises(InputError, match=r"must be int8 and bias int32; got torch\.float32"):
        int8_conv._check(arguments["v"].float(), arguments["weight"], arguments["bias"], geometry(1, 1), None, None)


# --- the Triton body, through its interpreter ---------------------------------------------------------------------


def compare_triton_with_torch() -> None:
    """Runs in a process of its own, where Triton is its interpreter: every shape, option and layout."""
    triton_file = __import__("labkit.kernels.int8_conv.triton", fromlist=["int8_conv2d_triton"])
    triton_file.BLOCK_PIXELS, triton_file.BLOCK_OUT, triton_file.BLOCK_IN = 32, 16, 32
    compare_bodies(triton_file.int8_conv2d_triton, INTERPRETED)
    c, o, kernel, lies = GEOMETRIES[0]
    v = torch.randint(-128, 128, (1, c, 6, 7), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    weight, bias = torch.ones(o, c, *kernel, dtype=torch.int8), torch.zeros(o, dtype=torch.int32)
    conv = Conv(lies, REQUANTIZER._replace(u_min=-7566), False)
    got = triton_file.int8_conv2d_triton(v, weight, bias, None, conv).codes
    assert torch.equal(got, int8_conv2d_reference(v, weight, bias, None, conv).codes)
