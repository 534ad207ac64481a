"""The networks: published parameter counts, ResNets turned into graphs, graphs that hang together."""

import pytest
import torch

from labkit.errors import InputError
from labkit.papers.brelu.experiment.model import MobileNet, SmallResNet, classifier, parameter_count, vdsr, vrcnn
from labkit.papers.brelu.method.bounded_relu import bounded_relus
from labkit.papers.brelu.method.graph import Node
from labkit.papers.brelu.method.network import Network, calibrate, layer_report, set_bounds
from labkit.papers.brelu.method.trace import trace
from labkit.papers.brelu.method.weights import Layer, layers


@pytest.mark.parametrize(
    ("network", "count"), [(vdsr(), 665_921), (vrcnn(), 54_673), (vdsr(8, 16), 14_225), (vrcnn(32), 14_217)]
)
def test_published_parameter_counts(network, count):
    assert parameter_count(network) == count
    assert sum(p.numel() for p in network.parameters()) == count


def test_receptive_field_of_vrcnn_is_6():
    network = vrcnn(8)
    with torch.no_grad():
        for layer in layers(network).values():
            layer.conv.weight.abs_()
    x = torch.rand(1, 1, 21, 21, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(x)[0, 0, 10, 10], x)
    rows = gradient[0, 0].abs().sum(1).nonzero().flatten()
    assert (int(rows.min()), int(rows.max())) == (4, 16)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("small", 28),
        ("small", 8),
        ("resnet20", 32),
        ("resnet18", 64),
        pytest.param("resnet50", 32, marks=pytest.mark.slow),
    ],
)
def test_a_resnet_as_a_graph_gives_the_same_scores(name, size):
    torch.manual_seed(0)
    model = classifier(name, 7, 3, size)
    x = torch.randn(4, 3, size, size)
    model.train()(x)
    network = trace(model.eval()).eval()
    with torch.no_grad():
        wanted = model(x)
        torch.testing.assert_close(network(x).flatten(1), wanted, rtol=0, atol=2e-5 * float(wanted.abs().max() + 1))


@pytest.mark.slow
def test_resnet152_as_a_graph():
    network = trace(classifier("resnet152", 1000, 3, 64))
    assert len(layers(network)) == 1 + 3 * 50 + 4 + 1
    assert sum(node.operation == "add" for node in network.nodes) == 50


def test_small_resnet_has_the_published_size():
    assert parameter_count(trace(SmallResNet())) == 38_058
    assert parameter_count(trace(MobileNet())) == 16_890


def test_max_pool_stands_before_the_bounded_relu():
    names = [node.name for node in trace(classifier("resnet18", 10, 3, 32)).nodes]
    assert names[:3] == ["conv1", "maxpool", "relu"]


def test_the_graph_has_weights_of_its_own():
    model = classifier("small", 10, 1, 28)
    network = trace(model)
    before = model.conv1.weight.clone()
    with torch.no_grad():
        network.parts["conv1"].conv.weight.zero_()
    assert torch.equal(model.conv1.weight, before)


def test_calibration_leaves_the_network_as_it_was():
    network = vdsr(4, 8).train()
    next(iter(bounded_relus(network).values())).bound.fill_(0.5)
    calibrate(network, [torch.randn(2, 1, 9, 9)])
    assert network.training
    assert [float(relu.bound) for relu in bounded_relus(network).values()] == [0.5, float("inf"), float("inf")]
    assert all(relu.statistics is None for relu in bounded_relus(network).values())


def test_bounds_of_concatenated_branches_are_joint_and_of_averages_absent():
    network = vrcnn(8).eval()
    set_bounds(network, calibrate(network, [torch.randn(2, 1, 16, 16)]), "max")
    relus = bounded_relus(network.parts)
    assert float(relus["relu2_1"].bound) == float(relus["relu2_2"].bound)
    classes = trace(classifier("small", 4, 1, 28)).eval()
    set_bounds(classes, calibrate(classes, [torch.randn(2, 1, 28, 28)]), "max", factor=2.0)
    last = bounded_relus(classes.parts)["layer3_0_relu2"]
    assert float(last.bound) == float("inf")


def test_report_names_both_errors():
    torch.manual_seed(0)
    network, x = vdsr(4, 8).eval(), torch.randn(4, 1, 16, 16)
    statistics = calibrate(network, [x])
    set_bounds(network, statistics, "p95", 15)
    report = layer_report(network, statistics)
    assert list(report) == ["relu1", "relu2", "relu3"]
    assert all(0.03 < line["clip_rate"] <= 0.06 for line in report.values())
    assert all(line["clip_error"] > 0 and line["rounding_error"] > 0 for line in report.values())


def layer() -> Layer:
    return Layer(torch.nn.Conv2d(1, 1, 1))


@pytest.mark.parametrize(
    ("nodes", "modules", "message"),
    [
        ([Node("a", "layer", ("b",))], {"a": layer()}, "reads 'b', which does not stand before it"),
        ([Node("a", "layer", ("input",))], {}, "no module of that name"),
        (
            [Node("a", "layer", ("input",)), Node("b", "layer", ("a",))],
            {"a": layer(), "b": layer()},
            "layer 'b' reads sums of 'a'; put a bounded ReLU between",
        ),
        ([Node("s", "add", ("input",))], {}, "is a add of 1 inputs, not of 2"),
        ([Node("c", "concat", ("input", "input"))], {}, "concatenates the input's own codes"),
        ([Node("p", "pixel_shuffle", ("input",), (0,))], {}, "factor of 'p' must be 1 or more; got 0"),
        ([Node("p", "pad", ("input",), (1, 1))], {}, "has 5 options"),
        ([], {}, "at least one node"),
    ],
)
def test_graphs_that_do_not_hang_together(nodes, modules, message):
    with pytest.raises(InputError, match=message):
        Network(nodes, modules)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vdsr(1, 8), "VDSR needs 2 layers"),
        (lambda: vrcnn(6), "multiple of 4; got 6"),
        (lambda: classifier("resnet34", 10, 3, 64), "no classifier 'resnet34'"),
        (lambda: classifier("resnet18", 10, 3, 16), "needs images of 32x32"),
        (lambda: trace(torch.nn.Linear(2, 2)), "is a Linear that reads a feature map: flatten it first"),
        (lambda: calibrate(vdsr(2, 1), []), "at least one batch"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
