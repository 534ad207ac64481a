import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit.errors import InputError
from labkit.kernels import int8_layers
from labkit.papers.qnet.experiment.baselines import (
    binary_weights,
    dorefa_activations,
    dorefa_weights,
    hwgq_activations,
    lsq_activations,
    lsq_weights,
    ternary_weights,
    xnor_activations,
)
from labkit.papers.qnet.method.activations import quantize_activations
from labkit.papers.qnet.method.levels import LEVELS
from labkit.papers.qnet.method.packing import (
    PackedActivation,
    PackedLayer,
    exact_thresholds,
    pack,
    pack_weights,
    packed_layers,
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
        nn.MaxPool2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(8 * 2 * 4, 10), nn.ReLU(), nn.Linear(10, 3),
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
    def test_computes_what_the_hard_network_computes_to_the_last_bit(self, name):
        """The weights are the same float numbers, so the same convolutions see the same operands."""
        model = quantized(METHODS[name])
        packed = pack(model)
        assert torch.equal(packed[3].weight, model[3].weight)
        torch.testing.assert_close(packed(BATCHES[1]), model(BATCHES[1]), rtol=1e-6, atol=1e-7)
        assert list(packed_layers(packed)) == ["3", "6", "12"]
        assert quantizers(model)  # the original still trains

    def test_float_path_in_float64(self):
        model = quantized(LEVELS["W2"], LEVELS["A2"]).double()
        torch.testing.assert_close(pack(model)(BATCHES[0].double()), model(BATCHES[0].double()), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("activations", [LEVELS["A2"], LEVELS["A4"], lsq_activations(3)])
    @pytest.mark.parametrize("weights", ["W1", "W3pm4", "BWN"])
    def test_integer_inputs_are_found_by_structure(self, weights, activations):
        """The sample's values do not matter, so zeros do."""
        model = quantized(METHODS[weights], activations)
        packed = pack(model, torch.zeros_like(BATCHES[0]))
        assert all(layer.input_scale is not None for layer in packed_layers(packed).values())
        for name, source in (("3", "2"), ("6", "5"), ("12", "8")):
            assert torch.equal(packed.get_submodule(name).input_scale, quantizers(model)[source].scale(torch.zeros(())))

    @pytest.mark.skipif(not int8_layers.is_fast(), reason="this processor is not quicker on 8-bit integers")
    @pytest.mark.parametrize("activations", [LEVELS["A2"], LEVELS["A4"]])
    @pytest.mark.parametrize("weights", ["W1", "W3pm4", "BWN"])
    def test_the_integer_path_is_exact(self, weights, activations):
        """Against sums in 64-bit floats, exact on integers, and then two roundings: the scale's and the bias's."""
        packed = pack(quantized(METHODS[weights], activations), BATCHES[0])
        for name, shape in (("3", (3, 6, 9, 8)), ("6", (2, 6, 5, 7)), ("12", (5, 64))):
            layer = packed.get_submodule(name)
            codes = torch.randint(0, len(activations), shape, generator=torch.Generator().manual_seed(0))
            sums = layer._compute(codes.double(), layer.integer_levels().double(), None)
            each = (-1, 1, 1) if sums.dim() == 4 else (-1,)
            scale = (layer.scale * layer.input_scale).view(-1 if layer.scale.numel() > 1 else 1, *each[1:])
            wanted = sums.float() * scale
            wanted = wanted if layer.bias is None else wanted + layer.bias.view(each)
            assert torch.equal(layer.on_integers(codes * layer.input_scale), wanted)

    @pytest.mark.skipif(not int8_layers.is_fast(), reason="this processor is not quicker on 8-bit integers")
    def test_codes_travel_with_the_tensor_until_it_is_written_into(self):
        model = quantized(LEVELS["W2"], LEVELS["A2"])
        packed = pack(model, BATCHES[0])
        activation, layer = packed[2], packed[3]
        x = activation(packed[:2](BATCHES[1]))
        wanted = layer(x.clone())  # which carries no codes
        assert not hasattr(x.clone(), "_codes")
        assert torch.equal(layer(x), wanted)
        with torch.no_grad():
            x[:, 0] = activation.scale * 3 - x[:, 0]
        assert torch.equal(layer(x), layer(x.clone()))
        assert not torch.equal(layer(x), wanted)
        with torch.inference_mode():
            torch.testing.assert_close(packed(BATCHES[1]), pack(model, BATCHES[1])(BATCHES[1]))

    @pytest.mark.parametrize("weights", ["W2", "W3pm4"])
    def test_integers_or_floats_give_the_same_network(self, weights):
        """Rounding may carry an activation over a threshold: of 8 images all but two at most agree (measured: all)."""
        model = quantized(METHODS[weights], LEVELS["A2"])
        on_integers, on_floats = pack(model, BATCHES[0])(BATCHES[1]), model(BATCHES[1])
        same = torch.isclose(on_integers, on_floats, rtol=1e-4, atol=1e-5).all(1)
        assert same.sum() >= 6

    def test_float_input_stays_on_the_float_path(self):
        packed = pack(quantized(LEVELS["W2"]), BATCHES[0])
        assert all(layer.input_scale is None for layer in packed_layers(packed).values())

    @pytest.mark.parametrize("form", ["sum", "in-place sum", "average", "average of one pixel"])
    def test_new_numbers_are_no_codes(self, form):
        """Sums and averages of codes. The average of one pixel is a code, but only for images of that size."""

        class Between(nn.Module):
            def forward(self, x):
                if form == "sum":
                    return x + x
                if form == "in-place sum":
                    x += 0  # the same tensor object as the quantiser gave
                    return x
                return F.adaptive_avg_pool2d(x, 1)

        size = 1 if form == "average of one pixel" else 3
        model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), Between(), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1))
        quantize_weights(model, LEVELS["W2"])
        quantize_activations(model, LEVELS["A2"], [torch.randn(50, 2, size, size)])
        assert pack(model, torch.randn(50, 2, size, size))[3].input_scale is None

    def test_the_shortcut_has_its_own_scale(self):
        """Two quantisers that both give zeros for a sample of zeros: each layer takes the scale of its own."""

        class TwoPaths(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem, self.relu1, self.relu2 = nn.Conv2d(2, 4, 1), nn.ReLU(), nn.ReLU()
                self.first, self.second, self.shortcut = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
                self.head = nn.Conv2d(4, 2, 1)

            def forward(self, x):
                x = self.relu1(self.stem(x))
                return self.head(self.second(self.relu2(5 * self.first(x))) + self.shortcut(x))

        model = TwoPaths()
        quantize_weights(model, LEVELS["W2"])
        quantize_activations(model, LEVELS["A2"], [torch.randn(50, 2, 3, 3)])
        packed, scales = pack(model, torch.zeros(1, 2, 3, 3)), quantizers(model, "activations")
        assert torch.equal(packed.shortcut.input_scale, scales["relu1"].alpha.detach())
        assert torch.equal(packed.second.input_scale, scales["relu2"].alpha.detach())

    @pytest.mark.slow
    def test_sums_that_could_leave_float32_stay_on_the_float_path(self):
        model = nn.Sequential(nn.Linear(2, 600), nn.ReLU(), nn.Linear(600, 4), nn.Linear(4, 2))
        quantize_weights(model, LEVELS["W8"])  # 600 * 255 * 127 is above 2^24
        quantize_activations(model, LEVELS["A2"], [torch.randn(50, 2)])
        assert pack(model, torch.randn(5, 2))[2].input_scale is None

    def test_memory_is_bits_not_floats(self):
        packed = pack(quantized(LEVELS["W1"]))
        weights = 6 * 6 * 9
        assert packed[3].packed.nbytes == math.ceil(weights / 8)
        assert packed[3].bits == 1
        tensors = [t for t in (*packed[3].parameters(), *packed[3].buffers())]
        assert sum(t.nbytes for t in tensors) < weights * 4 / 10 + 40

    def test_nothing_to_pack(self):
        with pytest.raises(InputError, match="no quantisers to pack; call quantize first"):
            pack(network())

    @pytest.mark.parametrize(
        ("layer", "shape"),
        [
            (nn.Conv2d(4, 4, 3, padding="same", dilation=2), (2, 4, 7, 6)),
            (nn.Conv2d(4, 6, 3, stride=2, padding=1, padding_mode="circular"), (2, 4, 7, 6)),
            (nn.Conv1d(4, 6, 5, padding=2, padding_mode="reflect", groups=2), (2, 4, 9)),
            (nn.Conv3d(4, 6, 3, padding=(1, 0, 2)), (2, 4, 5, 4, 3)),
            (nn.ConvTranspose1d(4, 6, 3, stride=2, bias=False), (2, 4, 7)),
            (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), (2, 4, 5, 6)),
            (nn.Linear(4, 6), (2, 3, 4)),
        ],
    )
    @pytest.mark.parametrize("method", ["W3pm4", "BWN"])
    def test_every_kind_of_layer(self, layer, shape, method):
        model = nn.Sequential(copy.deepcopy(layer))
        quantize_weights(model, METHODS[method], keep_float=())
        x = torch.randn(shape)
        torch.testing.assert_close(pack(model)(x), model.eval()(x), rtol=1e-6, atol=1e-7)

    def test_a_layer_under_two_names_is_packed_under_both(self):
        shared = nn.Linear(4, 4)
        model = nn.Sequential(nn.Linear(4, 4), shared, shared, nn.Linear(4, 2))
        quantize_weights(model, LEVELS["W2"])
        packed = pack(model)
        assert packed[1] is packed[2]
        assert isinstance(packed[1], PackedLayer)
        x = torch.randn(5, 4)
        torch.testing.assert_close(packed(x), model.eval()(x))

    def test_levels_that_are_not_whole_have_no_integer_path(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2))
        quantize_weights(model, (-1.0, 0.5, 1.0))
        quantize_activations(model, LEVELS["A2"], [torch.randn(50, 4)])
        packed = pack(model, torch.randn(5, 4))
        assert packed[2].input_scale is None
        x = torch.randn(5, 4)
        torch.testing.assert_close(packed(x), model.eval()(x))


class TestPackedActivation:
    @pytest.mark.parametrize("relu", [nn.ReLU(), nn.ReLU6()])
    @pytest.mark.parametrize(
        "method", [LEVELS["A1"], LEVELS["A3"], LEVELS["A8"], (0.0, 1.0, 4.0), lsq_activations(2), dorefa_activations(3),
                   hwgq_activations(2)]
    )  # fmt: skip
    def test_every_code_is_the_quantisers_own(self, relu, method):
        """Around each threshold, float by float: a threshold one float off would show."""
        model = nn.Sequential(relu)
        quantize_activations(model, method, [3 * torch.randn(2000)])
        quantizer = quantizers(model)["0"]
        packed = PackedActivation.of(relu, quantizer)
        near = [packed.thresholds.clone()]
        for _ in range(3):
            near.append(torch.nextafter(near[-1], torch.tensor(math.inf)))
        x = torch.cat([*near, *(-t for t in near), torch.randn(1000) * 3, torch.tensor([0.0, 5e9, -5e9])])
        quantized_x = relu(x)
        assert torch.equal(packed.levels[packed.codes(x).int()], quantizer.levels[quantizer.codes(quantized_x).int()])
        torch.testing.assert_close(packed(x), model.eval()(x), rtol=1e-6, atol=0)
        assert len(packed.thresholds.unique()) >= len(packed.thresholds) - 1

    def test_levels_that_a_relu6_cannot_reach_are_left_out(self):
        model = nn.Sequential(nn.ReLU6())
        quantize_activations(model, LEVELS["A2"], [torch.rand(100) * 6])
        quantizer = quantizers(model)["0"]
        with torch.no_grad():
            quantizer.beta.div_(3)  # now the third threshold lies beyond 6
        packed = PackedActivation.of(nn.ReLU6(), quantizer)
        assert len(packed.levels) == 2 + int(quantizer.beta * 6 > quantizer.thresholds[1])

    def test_exact_thresholds_of_a_known_staircase(self):
        """floor(x): just below 1, 2 and 3, in both precisions."""
        for dtype in (torch.float32, torch.float64):
            first, thresholds = exact_thresholds(lambda x: x.clamp(max=3).floor().int(), torch.zeros((), dtype=dtype))
            assert first == 0
            whole = torch.tensor([1.0, 2.0, 3.0], dtype=dtype)
            assert torch.equal(thresholds, torch.nextafter(whole, torch.zeros_like(whole)))

    def test_scales_that_depend_on_the_input_are_left_as_they_are(self):
        model = quantized(LEVELS["W2"], xnor_activations)
        packed = pack(model)
        assert quantizers(packed)
        torch.testing.assert_close(packed(BATCHES[1]), model(BATCHES[1]), rtol=1e-5, atol=1e-6)

    def test_negative_scales_are_refused(self):
        model = quantized(LEVELS["W2"], LEVELS["A2"])
        with torch.no_grad():
            quantizers(model, "activations")["2"].alpha.neg_()
        with pytest.raises(InputError, match=r"negative.*train it more gently"):
            pack(model)
