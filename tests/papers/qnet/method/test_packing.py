import copy
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from labkit.errors import InputError
from labkit.papers.qnet.experiment.baselines import (
    binary_weights,
    dorefa_weights,
    lsq_activations,
    lsq_weights,
    ternary_weights,
)
from labkit.papers.qnet.method.activations import quantize_activations
from labkit.papers.qnet.method.levels import LEVELS
from labkit.papers.qnet.method.packing import (
    PackedConv2d,
    PackedLinear,
    load_packed,
    pack_network,
    pack_weights,
    save_packed,
    unpack_weights,
)
from labkit.papers.qnet.method.soft_quantizer import quantizers
from labkit.papers.qnet.method.weights import quantize_weights

BATCHES = [torch.randn(8, 2, 9, 9, generator=torch.Generator().manual_seed(k)) for k in range(2)]
METHODS = {
    **{name: LEVELS[name] for name in ("W1", "W2", "W3pm2", "W3pm4")},
    "BWN": binary_weights, "TWN": ternary_weights, "DoReFa": dorefa_weights(3), "LSQ": lsq_weights(2),
}  # fmt: skip


def network(seed=0, **conv):
    """A strided, a dilated and a grouped convolution, one with a bias; a pooling and a flattening on the way."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 6, 3, stride=2, padding=(1, 2)), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, (3, 2), padding=2, dilation=2, groups=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 2 * 4, 10), nn.ReLU(), nn.Linear(10, 3),
    )  # fmt: skip
    for _ in range(3):
        model(BATCHES[0])
    return model


def quantized(method, activations=None):
    model = network()
    quantize_weights(model, method)
    if activations is not None:
        quantize_activations(model, activations, BATCHES)
    return model.eval()


class TestBits:
    @pytest.mark.parametrize("bits", range(1, 9))
    @pytest.mark.parametrize("shape", [(1,), (8,), (9,), (3, 5, 3, 3), (0,)])
    def test_round_trip_and_size(self, bits, shape):
        codes = torch.randint(2**bits, shape, generator=torch.Generator().manual_seed(bits)).to(torch.uint8)
        packed = pack_weights(codes, bits)
        assert packed.shape == (bits, math.ceil(codes.numel() / 8))
        assert torch.equal(unpack_weights(packed, shape), codes)

    def test_the_layout_is_as_documented(self):
        """Row p: bit p of each code; the first code in the lowest bit of a byte."""
        assert pack_weights(torch.tensor([1, 0, 3, 2], dtype=torch.uint8), 2).tolist() == [[0b0101], [0b1100]]

    def test_errors(self):
        with pytest.raises(InputError, match="code 4 does not fit into 2 bits, whose largest is 3"):
            pack_weights(torch.tensor([4], dtype=torch.uint8), 2)
        with pytest.raises(InputError, match="1 to 8 bits; got 0"):
            pack_weights(torch.tensor([0], dtype=torch.uint8), 0)
        with pytest.raises(InputError, match="17 codes fill 3 bytes a bit plane; got 2"):
            unpack_weights(torch.zeros(1, 2, dtype=torch.uint8), (17,))


class TestPackedNetwork:
    @pytest.mark.parametrize("name", METHODS)
    def test_computes_what_the_hard_network_computes(self, name):
        """Sheet check 10: conv on integers times alpha against conv on alpha Y."""
        model = quantized(METHODS[name])
        packed = pack_network(model)
        torch.testing.assert_close(packed(BATCHES[1]), model(BATCHES[1]), rtol=1e-5, atol=2e-6)
        assert [type(m) for m in packed.modules()].count(PackedConv2d) == 2
        assert isinstance(packed[11], PackedLinear)
        assert quantizers(model)  # the original still trains

    def test_float_path_in_float64(self):
        model = quantized(LEVELS["W2"]).double()
        torch.testing.assert_close(
            pack_network(model)(BATCHES[0].double()), model(BATCHES[0].double()), rtol=1e-12, atol=1e-12
        )

    @pytest.mark.parametrize("activations", [LEVELS["A2"], LEVELS["A4"], lsq_activations(3)])
    @pytest.mark.parametrize("weights", ["W1", "W3pm4", "BWN"])
    def test_integer_path_is_found_and_exact(self, weights, activations):
        """Accumulators against a convolution in 64-bit floats, which is exact on integers; outputs against float."""
        model = quantized(METHODS[weights], activations)
        packed = pack_network(model, BATCHES[0])
        layers = {n: m for n, m in packed.named_modules() if isinstance(m, PackedConv2d | PackedLinear)}
        assert all(layer.input_scale is not None for layer in layers.values())
        torch.testing.assert_close(packed(BATCHES[1]), model(BATCHES[1]), rtol=1e-5, atol=2e-6)
        codes = torch.randint(0, 16, (3, 6, 9, 8), generator=torch.Generator().manual_seed(0)).to(torch.int8)
        for name in ("3", "6"):
            layer = layers[name]
            wanted = layer.linear_map(codes.double(), layer.integer_levels().double())
            assert layer.accumulate(codes).dtype == torch.int32
            assert torch.equal(layer.accumulate(codes).double(), wanted)
        codes = torch.randint(0, 16, (5, 64), generator=torch.Generator().manual_seed(0)).to(torch.int8)
        wanted = F.linear(codes.double(), layers["11"].integer_levels().double())
        assert torch.equal(layers["11"].accumulate(codes).double(), wanted)

    def test_float_input_stays_on_the_float_path(self):
        packed = pack_network(quantized(LEVELS["W2"]), BATCHES[0])
        assert all(m.input_scale is None for m in packed.modules() if isinstance(m, PackedConv2d | PackedLinear))

    def test_whole_numbers_beyond_the_codes_stay_on_the_float_path(self):
        """A residual sum of quantised activations is whole too, but not bounded by the quantiser."""

        class Twice(nn.Module):
            def forward(self, x):
                return x + x

        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Twice(), nn.Linear(4, 4), nn.Linear(4, 2))
        quantize_weights(model, LEVELS["W2"])
        quantize_activations(model, LEVELS["A2"], [torch.randn(50, 4)])
        assert pack_network(model, torch.randn(50, 4))[3].input_scale is None

    @pytest.mark.slow
    def test_8_bit_activations_do_not_fit_and_stay_on_the_float_path(self):
        model = quantized(LEVELS["W2"])
        quantize_activations(model, LEVELS["A8"], [torch.randn(200, 2, 9, 9)])
        assert pack_network(model, BATCHES[0])[3].input_scale is None

    def test_memory_is_bits_not_floats(self):
        packed = pack_network(quantized(LEVELS["W1"]))
        weights = 6 * 6 * 9
        assert packed[3].packed.nbytes == math.ceil(weights / 8)
        assert packed[3].bits == 1
        tensors = [t for t in (*packed[3].parameters(), *packed[3].buffers())]
        assert sum(t.nbytes for t in tensors) < weights * 4 / 10 + 40

    def test_nothing_to_pack(self):
        with pytest.raises(InputError, match="no quantised weights to pack; call quantize_weights first"):
            pack_network(network())

    def test_other_paddings_are_refused(self):
        model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding="same"), nn.Conv2d(2, 2, 1))
        quantize_weights(model, LEVELS["W1"])
        with pytest.raises(InputError, match="pad with a number of zeros; got zeros, same"):
            pack_network(model)

    def test_levels_that_are_not_whole_have_no_integer_path(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
        quantize_weights(model, (-1.0, 0.5, 1.0))
        packed = pack_network(model)
        x = torch.randn(5, 4)
        torch.testing.assert_close(packed(x), model.eval()(x))
        with pytest.raises(InputError, match=r"whole levels from -127 to 127; this layer has \[-1.0, 0.5, 1.0\]"):
            packed[1].integer_levels()


class TestFile:
    @pytest.mark.parametrize("activations", [None, LEVELS["A2"]])
    def test_round_trip(self, tmp_path, activations):
        packed = pack_network(quantized(LEVELS["W3pm4"], activations), BATCHES[0])
        size = save_packed(packed, tmp_path / "net.safetensors")
        assert size == (tmp_path / "net.safetensors").stat().st_size
        blank = network(seed=9)
        if activations is not None:
            quantize_activations(blank, activations, [torch.randn(4, 2, 9, 9)])
        loaded = load_packed(tmp_path / "net.safetensors", blank)
        assert torch.equal(loaded(BATCHES[1]), packed(BATCHES[1]))
        assert isinstance(blank[3], nn.Conv2d)  # the argument is not touched

    @pytest.mark.parametrize(("name", "bits"), [("W1", 1), ("W2", 2), ("W3pm4", 3)])
    def test_size_is_what_the_bits_say(self, tmp_path, name, bits):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 512), nn.Linear(512, 512), nn.Linear(512, 2))
        save_file(model.state_dict(), tmp_path / "float")
        quantize_weights(model, LEVELS[name])
        size = save_packed(pack_network(model), tmp_path / "packed")
        rest = 4 * (8 * 512 + 512 + 512 + 1024 + 2)
        assert 512 * 512 * bits / 8 + rest < size < 512 * 512 * bits / 8 + rest + 1500
        assert (tmp_path / "float").stat().st_size > 512 * 512 * 4

    def test_truncated(self, tmp_path):
        path = tmp_path / "net"
        save_packed(pack_network(quantized(LEVELS["W2"])), path)
        for keep in (0, 5, 100, path.stat().st_size - 1):
            (tmp_path / "cut").write_bytes(path.read_bytes()[:keep])
            with pytest.raises(InputError, match="is not a packed network, or was cut short"):
                load_packed(tmp_path / "cut", network())

    def test_foreign(self, tmp_path):
        (tmp_path / "text").write_text("not tensors at all, only a sentence")
        with pytest.raises(InputError, match="is not a packed network"):
            load_packed(tmp_path / "text", network())
        save_file({"weight": torch.zeros(3)}, tmp_path / "other")
        with pytest.raises(InputError, match="holds other tensors, not a packed network; save_packed writes one"):
            load_packed(tmp_path / "other", network())
        with pytest.raises(InputError, match="there is no file"):
            load_packed(tmp_path / "nothing", network())

    def test_another_architecture(self, tmp_path):
        save_packed(pack_network(quantized(LEVELS["W2"])), tmp_path / "net")
        with pytest.raises(InputError, match=r"another architecture: it has a layer '3' with weights \(6, 6, 3, 3\)"):
            load_packed(tmp_path / "net", nn.Sequential(nn.Linear(2, 2)))
        smaller = copy.deepcopy(network())
        smaller[13] = nn.Linear(10, 4)
        with pytest.raises(InputError, match=r"(?s)another architecture: .*13.weight"):
            load_packed(tmp_path / "net", smaller)

    def test_save_wants_a_packed_network(self, tmp_path):
        with pytest.raises(InputError, match=r"save_packed\(pack_network\(model\), path\)"):
            save_packed(network(), tmp_path / "net")
