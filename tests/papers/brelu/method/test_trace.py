"""Networks of other people: read with torch.fx, computed in integers, and what cannot be is refused by name."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit.errors import InputError
from labkit.papers.brelu.method import shapes
from labkit.papers.brelu.method.bounded_relu import BoundedIdentity, BoundedReLU, bounded_relus, set_rounding
from labkit.papers.brelu.method.convert import convert
from labkit.papers.brelu.method.graph import Node
from labkit.papers.brelu.method.integer import IntegerNetwork
from labkit.papers.brelu.method.network import calibrate, set_bounds
from labkit.papers.brelu.method.trace import check_same, trace
from labkit.papers.brelu.method.weights import Layer, layers, quantize_layers

from ..zoo import SIZES, MobileNet, SuperResolution, TorchvisionResNet, UNet, trained_like

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


@pytest.mark.parametrize("kind", SIZES)
def test_the_traced_network_is_the_model(kind):
    model, x = trained_like(kind)
    network = trace(model)
    with torch.no_grad():
        wanted = model(x)
        torch.testing.assert_close(network(x), wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("kind", SIZES)
def test_integers_are_near_the_model_and_the_same_bits_on_every_engine(kind, tmp_path):
    """Untrained weights, no fine-tuning: over 12 seeds at most 2.4 % of the largest output apart."""
    model, x = trained_like(kind)
    before = copy.deepcopy(model.state_dict())
    integer = convert(model, [x])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        wanted = model(x)
    got = integer(x)
    assert got.shape == wanted.shape
    assert got.dtype == torch.float32
    assert float((got - wanted).abs().max()) < 0.12 * float(wanted.abs().max())
    codes, outputs = integer.to_codes(x), []
    for engine in ("auto", "torch", "reference"):
        integer.engine = engine
        outputs.append(integer.forward_integer(codes))
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])
    integer.save(tmp_path / "net.safetensors")
    assert torch.equal(IntegerNetwork.load(tmp_path / "net.safetensors")(x), got)


@pytest.mark.parametrize("kind", SIZES)
def test_fewer_levels_follow_the_simulation(kind):
    """15 levels: the integers stay with the network that rounds to 15 levels, not with the one that does not."""
    model, x = trained_like(kind)
    kept = {}
    integer = convert(model, [x], levels=15, finetune=lambda network: kept.update(network=network))
    network = kept["network"]
    codes = integer.to_codes(x)
    real = (codes.float() - integer.scales.input.zero) / integer.scales.input.ratio
    set_rounding(network, True, 15)
    with torch.no_grad():
        wanted = network(real)
    assert float((integer(x) - wanted).abs().mean()) < 0.05 * float(wanted.abs().max())


def test_a_relu_used_everywhere_is_bounded_place_by_place():
    model, x = trained_like(TorchvisionResNet)
    network = trace(model)
    assert len({id(part) for part in bounded_relus(network).values()}) == len(bounded_relus(network)) == 8
    set_bounds(network, calibrate(network, [x]), "3.5sigma")
    bounds = [float(relu.bound) for relu in bounded_relus(network).values()]
    assert len(set(bounds)) == len(bounds)


def test_relu6_keeps_its_ceiling_and_projections_get_bounds_of_both_signs():
    model, x = trained_like(MobileNet)
    network = trace(model)
    set_bounds(network, calibrate(network, [100 * x]), "max")
    relus = bounded_relus(network)
    assert {type(relu) for relu in relus.values()} == {BoundedReLU, BoundedIdentity}
    assert all(float(relu.bound) <= 6 for relu in relus.values() if relu.ceiling == 6)
    assert sum(relu.signed for relu in relus.values()) == 4


def test_a_relu6_beside_a_wider_branch_still_ends_at_6():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1), nn.Conv2d(4, 1, 1)

        def forward(self, x):
            return self.c(torch.cat([F.relu6(self.a(x)), F.relu(self.b(x))], 1))

    torch.manual_seed(0)
    model = Branches()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.abs() + 0.5)
    x = torch.rand(4, 1, 9, 9) * 20
    integer = convert(model, [x], rule="max")
    with torch.no_grad():
        wanted = model(x)
    assert float((integer(x) - wanted).abs().max()) < 0.02 * float(wanted.abs().max())


def test_a_layer_that_is_called_twice_has_two_places_and_one_weight():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            return self.conv(F.relu(self.conv(x)))

    model, x = Twice(), torch.randn(3, 3, 8, 8)
    network = trace(model)
    first, second = layers(network.parts).values()
    assert first.conv is second.conv
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        wanted = model(x)
    assert float((convert(model, [x])(x) - wanted).abs().max()) < 0.1 * float(wanted.abs().max())


def test_the_input_may_be_added_and_concatenated():
    for kind in (SuperResolution, UNet):
        model, x = trained_like(kind)
        assert sum("input" in node.inputs for node in trace(model).nodes) == 2
        assert convert(model, [x])(x).shape == model(x).shape


def test_what_is_added_may_be_anything():
    """A concatenation, the input, a pooled value, a sum of sums; and a value to itself."""

    def forward(m, x):
        y = m.relu(m.conv(x))
        both = torch.cat([y, y], 1) + torch.cat([y, m.conv(x)], 1)
        return F.avg_pool2d(both, 2) + F.max_pool2d(both + both, 2)

    torch.manual_seed(0)
    model, x = Function(forward), torch.randn(3, 3, 10, 10)
    with torch.no_grad():
        wanted = model(x)
    integer = convert(model, [x])
    got = integer(x)
    assert float((got - wanted).abs().max()) < 0.05 * float(wanted.abs().max())
    integer.engine = "reference"
    assert torch.equal(integer(x), got)


def test_fine_tuning_is_the_readers_own_loop():
    """The network that is handed over computes with weights on their grid and clips at its bounds; training helps."""
    model, x = trained_like(TorchvisionResNet, 32)
    with torch.no_grad():
        wanted = model(x)

    def distance(network) -> float:
        return float((network(x) - wanted).square().mean())

    def finetune(network: nn.Module) -> None:
        assert network.training
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        for _ in range(15):
            optimizer.zero_grad()
            F.mse_loss(network(x), wanted).backward()
            optimizer.step()

    before, after = (distance(convert(model, [x], rule="p95", finetune=tune)) for tune in (None, finetune))
    assert after < before  # over 20 seeds less than 0.47 of it


def test_a_tuned_network_comes_back_with_its_grid():
    """The step is part of the state: a reloaded network must not run float weights."""
    model, _ = trained_like(TorchvisionResNet)
    tuned, fresh = trace(model), trace(model)
    quantize_layers(tuned)
    fresh.load_state_dict(tuned.state_dict())
    for one, other in zip(layers(tuned).values(), layers(fresh).values(), strict=True):
        assert float(one.step) == float(other.step) > 0
        assert torch.equal(one.used()[0], other.used()[0])


def test_loaders_with_labels_serve_for_calibration():
    model, x = trained_like(TorchvisionResNet)
    data = torch.utils.data.TensorDataset(x, torch.arange(len(x)))
    loader = torch.utils.data.DataLoader(data, batch_size=3)
    assert torch.equal(convert(model, loader)(x), convert(model, list(x.split(3)))(x))


@pytest.mark.parametrize(
    "options",
    [
        (3, 3, 2, 2, 1, 1, 1, 1, 0),
        (2, 3, 1, 2, 1, 0, 2, 1, 1),
        (3, 2, 3, 3, 0, 1, 1, 2, 1),
        (2, 2, 2, 2, 0, 0, 1, 1, 1),
    ],
)
@pytest.mark.parametrize("size", [(11, 14), (8, 9), (7, 7)])
def test_pools_of_integers_are_torchs(options, size):
    """Windows that hang over the edge, border and dilation included; averages round half up."""
    x = torch.randint(-5000, 5000, (2, 3, *size), dtype=torch.int32, generator=torch.Generator().manual_seed(0))
    ceil = bool(options[8])
    wanted = F.max_pool2d(x.double(), options[:2], options[2:4], options[4:6], options[6:8], ceil)
    assert torch.equal(shapes.max_pool(x, options).double(), wanted)
    for counted in (0, 1):
        node = Node("p", "average_pool", ("input",), (*options[:6], int(ceil), counted))
        exact = F.avg_pool2d(x.double(), options[:2], options[2:4], options[4:6], ceil, bool(counted))
        assert float((shapes.integer_average(node, x).double() - exact).abs().max()) <= 0.5 + 1e-9
    node = Node("p", "adaptive_average", ("input",), (3, 2))
    assert (
        float((shapes.integer_average(node, x) - F.adaptive_avg_pool2d(x.double(), (3, 2))).abs().max()) <= 0.5 + 1e-9
    )
    assert torch.equal(shapes.adaptive_max(x, (3, 2)).double(), F.adaptive_max_pool2d(x.double(), (3, 2)))


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_padding_of_integers_is_torchs(mode):
    x = torch.randint(-100, 100, (2, 3, 6, 5), dtype=torch.int8, generator=torch.Generator().manual_seed(0))
    index = ("constant", "reflect", "replicate", "circular").index(mode)
    wanted = F.pad(x.float(), (2, 1, 0, 3), mode=mode)
    assert torch.equal(shapes.pad(x, (2, 1, 0, 3, index)).float(), wanted)


def small(part: nn.Module, channels: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), part)


class Function(nn.Module):
    """A convolution, and what a test wants behind it."""

    def __init__(self, forward) -> None:
        super().__init__()
        self.conv, self.relu, self.wanted = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), forward

    def forward(self, x):
        return self.wanted(self, x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (small(nn.GELU()), "'2' is a GELU: it has no integer form here. There are Conv2d"),
        (small(nn.ConvTranspose2d(4, 4, 2)), "'2' is a ConvTranspose2d"),
        (small(nn.Upsample(scale_factor=2, mode="bilinear")), "'_2' resizes by bilinear"),
        (small(nn.Upsample(scale_factor=1.5)), "'_2' resizes by nearest to 1.5"),
        (small(nn.AvgPool2d(2, divisor_override=3)), "divisor_override"),
        (small(nn.BatchNorm2d(4, track_running_stats=False)), "no running statistics"),
        (small(nn.Linear(4, 4)), "is a Linear that reads a feature map"),
        (small(nn.MaxPool2d(2, return_indices=True)), "returns indices"),
        (Function(lambda m, x: m.conv(x) * 2), "'mul' calls mul"),
        (Function(lambda m, x: m.conv(x) + 1), "'add' computes with 1"),
        (Function(lambda m, x: torch.sigmoid(m.conv(x))), "'sigmoid' calls sigmoid"),
        (Function(lambda m, x: m.conv(x) if x.sum() > 0 else x), "cannot follow this model's forward"),
        (Function(lambda m, x: (m.conv(x), x)), "must return one tensor"),
        (Function(lambda m, x: torch.cat([m.conv(x), x], 2)), "along dimension 2"),
        (Function(lambda m, x: m.conv(x).view(x.size(0), 4, -1)), "another shape"),
        (Function(lambda m, x: m.conv(x) + m.conv.bias[0]), "computes with"),
        (Function(lambda m, x: torch.add(m.conv(x), x[:, :1], alpha=2)), "no integer form"),
    ],
)
def test_what_has_no_integer_form_is_refused_by_name(model, message):
    with pytest.raises(InputError, match=message):
        convert(model.eval(), [torch.randn(2, 3, 9, 9)])


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "at least one batch"),
        ([torch.zeros(2, 3, 9, 9)], "zero everywhere|is dead"),
        ([torch.zeros(2, 3, 9, 9, dtype=torch.uint8)], r"float images \(n, c, h, w\); got torch\.uint8"),
        ([torch.randn(3, 9, 9)], r"got torch\.float32, \(3, 9, 9\)"),
        ([torch.full((2, 3, 9, 9), float("nan"))], "not finite"),
        ([{"image": torch.randn(2, 3, 9, 9)}], "got dict"),
    ],
)
def test_bad_calibration(batches, message):
    with pytest.raises(InputError, match=message):
        convert(small(nn.Conv2d(4, 2, 1)), batches)


def test_a_dead_layer_is_named():
    model = small(nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        model[0].bias.fill_(-1e4)
    with pytest.raises(InputError, match="'_1': a layer gave nothing but zeros"):
        convert(model, [torch.randn(2, 3, 9, 9)])


def test_what_is_asked_for_is_checked_first():
    model = small(nn.Conv2d(4, 2, 1))
    with pytest.raises(InputError, match="between 1 and 127, the codes of int8; got 255"):
        convert(model, [], levels=255)
    with pytest.raises(InputError, match="there is no bound rule 'sigma'"):
        convert(model, [], rule="sigma")


def test_half_precision_is_refused():
    with pytest.raises(InputError, match=r"call model\.float\(\) first"):
        convert(small(nn.Conv2d(4, 2, 1)).half(), [torch.randn(2, 3, 9, 9)])


def test_what_torch_fx_cannot_see_is_noticed():
    """A branch on the image's size is decided when it is traced; another size then takes the other one."""
    model = Function(lambda m, x: m.relu(m.conv(x)))
    network = trace(model)
    with torch.no_grad():
        next(iter(layers(network.parts).values())).conv.bias.add_(1)
    with pytest.raises(InputError, match="traced, the model gives other numbers"):
        check_same(model, network, torch.randn(2, 3, 9, 9))


def test_layers_alone_pad_only_with_zeros():
    for conv in (nn.Conv2d(2, 2, 2, padding="same"), nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")):
        with pytest.raises(InputError, match="`trace` pads with a node"):
            Layer(conv)
    same = nn.Conv2d(2, 3, (3, 5), padding="same", dilation=(2, 1))
    x = torch.randn(1, 2, 9, 9)
    torch.testing.assert_close(Layer(same)(x), same(x))
    uneven = nn.Conv2d(2, 3, (3, 5), stride=(1, 2), padding=(0, 2))
    torch.testing.assert_close(Layer(uneven)(x), uneven(x))
