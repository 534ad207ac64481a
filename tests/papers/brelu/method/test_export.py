"""The exported network in ONNX Runtime: an engine that shares no code with ours."""

import pytest
import torch

from labkit.errors import InputError
from labkit.papers.brelu.method import integer as executor
from labkit.papers.brelu.method.convert import convert
from labkit.papers.brelu.method.export import export_onnx, is_fast, runtime, runtime_is_exact, to_onnx

from ..zoo import NOT_IN_ONNX, SIZES, MobileNet, Odd, trained_like
from .test_integer import deployed

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

FAST = ["vdsr", "vrcnn"]


@pytest.fixture
def exact():
    if not runtime_is_exact():
        pytest.skip("ONNX Runtime adds products of bytes with saturation on this processor")


@pytest.mark.parametrize("levels", [127, 15])
@pytest.mark.parametrize("name", FAST)
def test_the_fast_form_gives_the_same_bits(name, levels, exact):
    """Every convolution but the last one is a QLinearConv; bits are ours."""
    _, _, integer, codes, real = deployed(name, levels)
    assert is_fast(integer.deployed)
    operations = [node.op_type for node in to_onnx(integer.deployed).graph.node]
    assert operations.count("QLinearConv") == sum(node.operation == "layer" for node in integer.nodes) - 1
    ours = integer.forward_integer(codes)
    assert torch.equal(runtime(integer.deployed)(codes), ours)
    assert torch.equal(runtime(integer.deployed, integers_only=False)(real), integer(real))


@pytest.mark.slow
@pytest.mark.parametrize("levels", [127, 3])
@pytest.mark.parametrize("name", ["small", "resnet20", "resnet18", "resnet50"])
def test_sums_give_the_same_bits(name, levels, exact):
    """Additions with their shortcuts, max-pool, padded channels and the average, in an engine that is not ours."""
    _, _, integer, codes, _ = deployed(name, levels)
    theirs = runtime(integer.deployed)(codes)
    assert theirs.dtype == torch.int32
    assert torch.equal(theirs, integer.forward_integer(codes))
    assert not is_fast(integer.deployed)


@pytest.mark.parametrize("kind", [kind for kind in SIZES if kind not in NOT_IN_ONNX])
def test_what_readers_bring_gives_the_same_bits(kind, exact, tmp_path):
    import onnxruntime

    model, x = trained_like(kind)
    integer = convert(model, [x])
    integer.engine = "torch"
    assert torch.equal(runtime(integer.deployed)(integer.to_codes(x)), integer.forward_integer(integer.to_codes(x)))
    integer.export_onnx(tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    assert torch.equal(torch.from_numpy(session.run(None, {"input": x.numpy()})[0]), integer(x))


def test_onnx_runtime_is_the_executor_where_it_is_quicker(exact, monkeypatch):
    _, _, integer, codes, _ = deployed("vdsr")
    ours = integer.forward_integer(codes)
    integer.engine, calls = "auto", []
    monkeypatch.setattr(integer, "_compute", lambda *_: calls.append("torch"))
    assert torch.equal(integer.forward_integer(codes), ours)
    assert not calls
    with torch.no_grad():
        changed = {name: torch.zeros_like(value) for name, value in integer.state_dict().items()}
    integer.load_state_dict(changed)  # a session of the old weights must not answer
    assert int(integer.forward_integer(codes).abs().max()) == 0


def test_without_onnx_runtime_torch_computes(monkeypatch):
    _, _, integer, codes, _ = deployed("vdsr")
    ours = integer.forward_integer(codes)
    integer.engine = "auto"
    monkeypatch.setattr(executor.export, "runtime_is_exact", lambda: False)
    assert torch.equal(integer.forward_integer(codes), ours)


def test_the_file_is_the_model(tmp_path):
    _, _, integer, _, _ = deployed("small")
    export_onnx(integer.deployed, tmp_path / "net.onnx")
    assert (tmp_path / "net.onnx").read_bytes() == to_onnx(integer.deployed).SerializeToString()


def test_bad_input(tmp_path):
    model, x = trained_like(Odd)
    with pytest.raises(InputError, match=r"'adaptive_avg_pool2d' pools to \(3, 2\)"):
        convert(model, [x]).export_onnx(tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
    model, x = trained_like(MobileNet)
    with pytest.raises(InputError, match="there is no folder"):
        convert(model, [x]).export_onnx(tmp_path / "missing" / "net.onnx")
