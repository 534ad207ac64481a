"""The network in integers: identities of the scales, no float anywhere, the same bits on every body, files."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from labkit.errors import InputError
from labkit.kernels.int8_conv import Geometry, int8_conv2d
from labkit.papers.brelu.experiment.model import classifier, vdsr, vrcnn
from labkit.papers.brelu.method.bounded_relu import bounded_relus, set_rounding
from labkit.papers.brelu.method.integer import IntegerNetwork, to_integer
from labkit.papers.brelu.method.multiply_shift import mul_shift
from labkit.papers.brelu.method.network import calibrate, set_bounds
from labkit.papers.brelu.method.snap import InputScale, align_addition, align_concatenation, snap
from labkit.papers.brelu.method.trace import trace
from labkit.papers.brelu.method.weights import quantize_layers
from labkit.papers.brelu.teaching import checks

GREY, NORMALISED = 255.0, 255 * 0.226


def trained_like(name: str):
    """A network whose batch norm has seen data, with an input in int8 and in real units, and its ratio."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    if name in ("vdsr", "vrcnn"):
        network, ratio, shape = (vdsr(5, 8) if name == "vdsr" else vrcnn(16)), GREY, (2, 1, 24, 31)
    else:
        size = 32 if name in ("resnet18", "resnet50") else 12
        model = classifier(name, 10, 3, size)
        ratio, shape = NORMALISED, (4, 3, size, size)
        model.train()(torch.randn(8, 3, size, size, generator=generator))
        network = trace(model)
    codes = torch.randint(-128, 128, shape, generator=generator).to(torch.int8)
    return network.eval(), codes, codes.float() / ratio, ratio


def deployed(name: str, levels: int = 127):
    network, codes, real, ratio = trained_like(name)
    quantize_layers(network)
    set_bounds(network, calibrate(network, [real]), "3.5sigma", levels)
    scales = snap(network, InputScale(ratio), levels)
    integer = to_integer(network, scales)
    integer.engine = "torch"
    return network, scales, integer, codes, real


NETWORKS = ["vdsr", "vrcnn", "small", "resnet20", pytest.param("resnet18", marks=pytest.mark.slow)]


@pytest.mark.parametrize("name", NETWORKS)
def test_fast_and_plain_integers_are_the_same_bits(name):
    _, _, integer, codes, _ = deployed(name)
    fast = integer.forward_integer(codes)
    integer.engine = "reference"
    assert torch.equal(fast, integer.forward_integer(codes))
    integer.engine = "auto"
    assert torch.equal(fast, integer.forward_integer(codes))


@pytest.mark.parametrize("levels", [127, 15])
@pytest.mark.parametrize("name", ["vdsr", "vrcnn", "small"])
def test_every_layer_is_within_one_code_of_the_simulation(name, levels):
    """Check 2. The simulation's inputs are the integers' own, layer by layer, so that differences do not add up."""
    network, scales, integer, codes, _ = deployed(name, levels)
    computed = {}
    compute = integer._compute
    integer._compute = lambda node, values: record(compute(node, values), computed)
    integer.forward_integer(codes)
    set_rounding(network, True, levels)
    checked = 0
    for node in network.nodes:
        if node.operation != "bounded_relu" or node.name not in scales.requantizers:
            continue
        source = network.node(node.inputs[0])
        if source.operation != "layer":
            continue
        before = source.inputs[0]
        inputs = codes if before == "input" else computed[before][0]
        if inputs is None:
            continue
        real = inputs.float() / scales.codes[before]
        with torch.no_grad():
            simulated = network.parts[node.name](network.parts[source.name](real)) * scales.codes[node.name]
        assert float((simulated - computed[node.name][0]).abs().max()) < 1.01
        checked += 1
    assert checked >= 3


def record(values, computed):
    computed |= {name: value for name, value in values.items() if value[0] is not None}
    return values


@pytest.mark.parametrize("name", ["vdsr", "small"])
def test_whole_network_is_near_its_simulation(name):
    network, scales, integer, codes, real = deployed(name)
    set_rounding(network, True, 127)
    with torch.no_grad():
        wanted = network(real)
    got = integer(real)
    assert torch.equal(integer.to_codes(real), codes)
    assert torch.equal(got, (integer.forward_integer(codes).double() / scales.sums[network.nodes[-1].name]).float())
    assert float((got - wanted).abs().max()) < 0.06 * float(wanted.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small", "resnet20", "resnet18", "resnet50"])
def test_additions_add_equal_ratios(name):
    """Check 6: r_main = r_shortcut mul / 2^shift to 1e-12, with the weight steps the layers really have."""
    network, scales, _, _, _ = deployed(name)
    adds = [node for node in network.nodes if node.operation == "add"]
    assert len(adds) >= 3
    for node in adds:
        main, shortcut = node.inputs
        source = network.node(main).inputs[0]
        _, (mul, shift) = scales.factors[node.name]
        r_main = scales.codes[source] / float(network.parts[main].step)
        assert abs(r_main / (scales.sums[shortcut] * mul / 2**shift) - 1) < 1e-12


def test_concatenated_branches_have_one_ratio():
    network, scales, _, _, _ = deployed("vrcnn")
    for node in network.nodes:
        if node.operation == "concat":
            first, second = (scales.codes[name] for name in node.inputs)
            assert abs(first / second - 1) < 1e-12
            for name in node.inputs:
                source = network.node(name).inputs[0]
                layer, before = network.parts[source], network.node(source).inputs[0]
                requantizer = scales.requantizers[name]
                ratio = scales.codes[before] / float(layer.step) * requantizer.mul / 2**requantizer.shift
                assert abs(ratio / first - 1) < 1e-12
                assert float(network.parts[name].bound) == pytest.approx(127 / first)


def test_the_papers_rule_for_concatenation():
    """s_a := (s_b 2^shift_b / mul_b) mul_a / 2^shift_a for the branch with the larger mul / (s 2^shift)."""
    r, (s_a, s_b), bounds = 812.0, (0.004, 0.007), (0.3, 0.5)
    (mul_a, sh_a), (mul_b, sh_b) = (mul_shift(round(b * r / s)) for b, s in zip(bounds, (s_a, s_b), strict=True))
    out_a, out_b = r * mul_a / (s_a * 2**sh_a), r * mul_b / (s_b * 2**sh_b)
    assert out_a > out_b
    new = align_concatenation(s_a, out_a, out_b)
    assert new == pytest.approx((s_b * 2**sh_b / mul_b) * mul_a / 2**sh_a, rel=1e-12)


def test_alignment_of_additions():
    checks.check_alignment(align_addition)


def test_adding_nothing_changes_nothing():
    """A shortcut of zeros: the block gives what its main path gives."""
    _, scales, integer, codes, _ = deployed("small")
    add = next(n.name for n in integer.nodes if n.operation == "add")
    shortcut, computed = integer._operand, {}
    integer._operand = lambda node, i, values: shortcut(node, i, values) * 0
    compute = integer._compute
    integer._compute = lambda node, values: record(compute(node, values), computed)
    integer.forward_integer(codes)
    relu = next(n.name for n in integer.nodes if add in n.inputs)
    main = next(n for n in integer.nodes if n.name == add).inputs or ()
    source = next(n for n in integer.nodes if n.name == main[0]).inputs[0]
    weight, bias = getattr(integer, f"{main[0]}_weight"), getattr(integer, f"{main[0]}_bias")
    lies = Geometry(padding=(1, 1))
    alone = int8_conv2d(computed[source][0], weight, bias, lies, requantizer=scales.requantizers[relu])
    assert torch.equal(alone.codes, computed[relu][0])


class OnlyIntegers(TorchDispatchMode):
    """Refuses every operation that touches a floating-point tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.dtypes = 0, set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for value in torch.utils._pytree.tree_leaves((args, kwargs or {}, result)):
            if isinstance(value, torch.Tensor):
                assert not value.is_floating_point(), f"{operation} computes in {value.dtype}"
                self.dtypes.add(value.dtype)
        self.operations += 1
        return result


@pytest.mark.parametrize("name", ["vdsr", "vrcnn", "small", "resnet20"])
def test_no_floating_point_operation_from_input_to_output(name, monkeypatch):
    """The matrix product itself is exact on every machine, but not every processor takes it in integer units."""
    monkeypatch.setattr("labkit.kernels.int8_conv.reference.int8_matmul", lambda a, b: a.int() @ b.int())
    _, _, integer, codes, _ = deployed(name)
    with OnlyIntegers() as watch:
        integer.forward_integer(codes)
    assert watch.operations > 20
    averages = any(node.operation == "adaptive_average" for node in integer.nodes)
    assert watch.dtypes == {torch.int8, torch.int32} | ({torch.int64} if averages else set())


def test_the_watch_would_see_a_float():
    with OnlyIntegers(), pytest.raises(AssertionError, match=r"computes in torch\.float32"):
        torch.ones(3, dtype=torch.int32).float()


def test_bounds_are_snapped_to_what_integers_reach():
    network, scales, _, _, _ = deployed("vdsr")
    for name, relu in bounded_relus(network.parts).items():
        u_max, mul, shift, _ = scales.requantizers[name]
        assert float(relu.bound) * scales.sums[name] == pytest.approx(127 * 2**shift / mul)
        assert (u_max * mul + (1 << shift) // 2) >> shift == 127


def test_snapping_again_hardly_moves_anything():
    network = deployed("small")[0]
    before = {name: float(relu.bound) for name, relu in bounded_relus(network.parts).items()}
    snap(network, InputScale(NORMALISED))
    for name, relu in bounded_relus(network.parts).items():
        assert float(relu.bound) == pytest.approx(before[name], rel=0.02)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_saved_network_gives_the_same_bits(name, tmp_path):
    _, _, integer, codes, _ = deployed(name)
    size = integer.save(tmp_path / "net.safetensors")
    assert size == (tmp_path / "net.safetensors").stat().st_size == integer.stored_bytes
    again = IntegerNetwork.load(tmp_path / "net.safetensors")
    assert torch.equal(again.forward_integer(codes), integer.forward_integer(codes))


def test_vdsr_in_its_published_size_takes_a_quarter(tmp_path):
    """Check 10: 665,921 parameters; the authors' integer file has 671,544 bytes, ours about as many."""
    network = vdsr()
    quantize_layers(network)
    real = torch.rand(1, 1, 8, 8) - 0.5
    set_bounds(network, calibrate(network, [real]), "3.5sigma")
    integer = to_integer(network, snap(network, InputScale(GREY)))
    size = integer.save(tmp_path / "vdsr")
    assert integer.weight_bytes == 664_704 + 4 * 1217
    assert 671_544 * 0.98 < size < 0.27 * 4 * 665_921


def test_pixels_become_codes():
    """Also those out of range, as bicubic interpolation makes them: they are limited, and do not wrap."""
    scale = InputScale(GREY)
    pixels = torch.tensor([-50.0, 0.0, 0.4, 127.6, 128.0, 255.0, 300.0])
    assert scale.codes((pixels - 128) / 255).tolist() == [-128, -128, -128, 0, 0, 127, 127]


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-128 / 255, 127 / 255), (-2.1, 2.6), (-3.0, -1.0), (0.2, 7.0)])
def test_the_inputs_scale_reaches_both_ends(low, high):
    """Pixels / 255, and (pixels - 128) / 255, become pixel - 128; 0 always has a code of its own."""
    scale = InputScale.of(low, high)
    ends = scale.codes(torch.tensor([low, high, 0.0])).tolist()
    assert ends[0] >= -128
    assert ends[1] <= 127
    assert ends[2] == scale.zero
    assert 127 in (-ends[0], ends[1]) or -128 in ends
    back = (torch.tensor([low, high]) * scale.ratio).round() / scale.ratio
    torch.testing.assert_close(back, torch.tensor([low, high]), rtol=0, atol=0.51 / scale.ratio)
    if high in (1.0, 127 / 255):
        assert ends[:2] == [-128, 127]


def test_output_keeps_its_fraction():
    """[official code]: the residual is rounded with the picture, not before."""
    network, _, integer, _, real = deployed("vdsr")
    set_rounding(network, True, 127)
    with torch.no_grad():
        wanted = 255 * network(real)
    got = 255 * integer(real)
    assert float((got - wanted).abs().max()) < 2.5
    assert float((got - got.round()).abs().max()) > 0.1


def test_averages_over_large_pictures_stay_in_int32():
    """The mean, not the sum: 96 x 96 pixels, and any size other than that of calibration."""
    network, scales, integer, _, _ = deployed("small")
    set_rounding(network, True, 127)
    codes = torch.randint(-128, 128, (1, 3, 200, 192), generator=torch.Generator().manual_seed(1)).to(torch.int8)
    with torch.no_grad():
        wanted = network(codes.float() / scales.input.ratio)
    got = integer(codes.float() / scales.input.ratio)
    assert float((got - wanted).abs().max()) < 0.06 * float(wanted.abs().max())


def test_bad_input():
    network, _, _, ratio = trained_like("vdsr")
    with pytest.raises(InputError, match="call quantize_layers"):
        snap(network, InputScale(ratio))
    quantize_layers(network)
    with pytest.raises(InputError, match="call set_bounds"):
        snap(network, InputScale(ratio))
    quantize_layers(network, per_channel=True)
    with pytest.raises(InputError, match="one step per channel"):
        snap(network, InputScale(ratio))
    with pytest.raises(InputError, match="zero everywhere"):
        InputScale.of(0.0, 0.0)
    with pytest.raises(InputError, match="finite numbers"):
        InputScale.of(0.0, float("inf"))
    _, _, integer, _, _ = deployed("small")
    if not hasattr(IntegerNetwork.forward, "__wrapped__"):  # the shape checks refuse it before
        with pytest.raises(InputError, match="takes int8"):
            integer.forward_integer(torch.zeros(1, 3, 12, 12))
        with pytest.raises(InputError, match="what the float network took"):
            integer(torch.zeros(1, 3, 12, 12, dtype=torch.int8))


def test_an_enormous_bias_is_refused():
    network, scales, _, _, _ = deployed("vdsr")
    with torch.no_grad():
        network.parts["conv2"].conv.bias.fill_(1e9)
    with pytest.raises(InputError, match="leave int32"):
        to_integer(network, scales)
