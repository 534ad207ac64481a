import json
import random

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from labkit import tensor_files
from labkit.errors import InputError
from labkit.papers.qnet.experiment.baselines import xnor_activations
from labkit.papers.qnet.method.activations import quantize_activations
from labkit.papers.qnet.method.levels import LEVELS
from labkit.papers.qnet.method.packed_file import Header, about_file, load, save
from labkit.papers.qnet.method.packing import pack
from labkit.papers.qnet.method.weights import quantize_weights

X = torch.randn(8, 2, 9, 9, generator=torch.Generator().manual_seed(1))


def network(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 4, 10), nn.ReLU(), nn.Linear(10, 3),
    )  # fmt: skip
    model(X)
    return model


def packed(weights="W2", activations="A2"):
    model = network()
    quantize_weights(model, LEVELS[weights])
    if activations:
        quantize_activations(model, LEVELS[activations], [X])
    return pack(model, X)


@pytest.mark.parametrize("activations", ["", "A2", "A4"])
@pytest.mark.parametrize("weights", ["W1", "W3pm4"])
def test_round_trip_onto_the_float_network(tmp_path, weights, activations):
    model = packed(weights, activations)
    size = save(model, tmp_path / "net.safetensors", {"classes": ["a", "b", "c"]})
    assert size == (tmp_path / "net.safetensors").stat().st_size
    blank = network(seed=9)
    loaded = load(tmp_path / "net.safetensors", blank)
    assert torch.equal(loaded(X), model(X))
    assert about_file(tmp_path / "net.safetensors") == {"classes": ["a", "b", "c"]}
    assert isinstance(blank[3], nn.Conv2d)  # the argument is not touched
    assert blank.training
    assert not loaded.training


@pytest.mark.parametrize(("name", "bits"), [("W1", 1), ("W2", 2), ("W3pm4", 3)])
def test_size_is_what_the_bits_say(tmp_path, name, bits):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 512), nn.Linear(512, 512), nn.Linear(512, 2))
    save_file(model.state_dict(), tmp_path / "float")
    quantize_weights(model, LEVELS[name])
    size = save(pack(model), tmp_path / "packed")
    rest = 4 * (8 * 512 + 512 + 512 + 1024 + 2)
    assert 512 * 512 * bits / 8 + rest < size < 512 * 512 * bits / 8 + rest + 1500
    assert (tmp_path / "float").stat().st_size > 512 * 512 * 4


def test_damaged_in_any_place(tmp_path):
    """Cut short and bytes changed, 60 times: never a raw exception, never another network."""
    path, draw = tmp_path / "net", random.Random(0)
    save(packed(), path)
    content = path.read_bytes()
    for k in range(60):
        broken = bytearray(content)
        for _ in range(draw.randint(1, 4)):
            broken[draw.randrange(len(broken))] ^= 1 << draw.randrange(8)
        (tmp_path / "broken").write_bytes(broken if k % 2 else content[: draw.randrange(len(content))])
        with pytest.raises(InputError):
            load(tmp_path / "broken", network())


def test_foreign(tmp_path):
    (tmp_path / "text").write_text("not tensors at all, only a sentence")
    with pytest.raises(InputError, match="damaged, or not a safetensors file"):
        load(tmp_path / "text", network())
    save_file({"weight": torch.zeros(3)}, tmp_path / "other")
    with pytest.raises(InputError, match="without labkit's header"):
        load(tmp_path / "other", network())
    with pytest.raises(InputError, match="there is no file"):
        load(tmp_path / "nothing", network())


def written(tmp_path, change):
    """A file with a right checksum whose content `change` altered."""
    save(packed(), tmp_path / "net")
    tensors, header = tensor_files.read(tmp_path / "net", Header)
    fields = json.loads(header.model_dump_json())
    change(tensors, fields)
    tensor_files.write(tmp_path / "net", tensors, Header.model_validate_json(json.dumps(fields)))
    return tmp_path / "net"


def swap(name, value):
    return lambda tensors, fields: tensors.__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swap("3.scale", torch.tensor([float("nan")])), "not finite"),
        (swap("3.scale", torch.zeros(5)), "one scale, or one for each of 6; got 5"),
        (swap("3.scale", torch.zeros(1, dtype=torch.int32)), "'3.scale' is missing, or not floating-point"),
        (swap("3.levels", torch.tensor([1.0, 0.0, -1.0])), "'3.levels' must be up to 256 ascending numbers"),
        (swap("3.levels", torch.arange(9.0)), "not 324 codes of 4 bits"),
        (swap("3.packed", torch.full((2, 41), 255, dtype=torch.uint8)), "codes beyond their 3 levels"),
        (swap("3.packed", torch.zeros(2, 40, dtype=torch.uint8)), "not 324 codes of 2 bits"),
        (swap("3.input_scale", torch.tensor(-1.0)), "'3.input_scale' must be one positive number"),
        (swap("2.thresholds", torch.tensor([3.0, 2.0, 1.0])), "'2.thresholds' must be up to 256 ascending"),
        (swap("2.thresholds", torch.zeros(300)), "'2.thresholds' must be up to 256 ascending"),
        (swap("2.thresholds", torch.zeros(1)), "'2' has 4 levels and 1 thresholds"),
        (swap("2.scale", torch.tensor(0.0)), "'2.scale' must be one positive number"),
        (swap("1.weight", torch.zeros(7)), "1.weight"),
        (lambda tensors, fields: tensors.pop("1.weight"), "1.weight"),
        (lambda tensors, fields: fields["layers"].pop("3"), "3.weight"),
        (lambda tensors, fields: fields["layers"].update({"3": [6, 6, 3, 4]}), "it has a layer '3' with weights"),
        (lambda tensors, fields: fields["layers"].update({"": [6, 6]}), "it has a layer '' with weights"),
        (lambda tensors, fields: fields["activations"].append("1"), "a quantised ReLU '1', and the network has none"),
        (lambda tensors, fields: fields["separated"].append("nowhere"), "the model has no module 'nowhere'"),
    ],
)
def test_a_file_that_says_what_cannot_be(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        load(written(tmp_path, change), network())


def test_another_architecture(tmp_path):
    save(packed(), tmp_path / "net")
    with pytest.raises(InputError, match=r"does not fit this network: it has a layer '3' with weights \(6, 6, 3, 3\)"):
        load(tmp_path / "net", nn.Sequential(nn.Linear(2, 2)))
    other = network()
    other[10] = nn.Linear(10, 4)
    with pytest.raises(InputError, match=r"(?s)does not fit this network: .*10.weight"):
        load(tmp_path / "net", other)
    quantize_weights(other, LEVELS["W2"])
    with pytest.raises(InputError, match="load takes the float network"):
        load(tmp_path / "net", other)


def test_save_wants_a_packed_network(tmp_path):
    with pytest.raises(InputError, match=r"save\(pack\(model\), path\)"):
        save(network(), tmp_path / "net")
    model = network()
    quantize_weights(model, LEVELS["W2"])
    quantize_activations(model, xnor_activations, [X])
    with pytest.raises(InputError, match=r"no packed form: 2, 5, 9; they scale by their input \(XNOR\)"):
        save(pack(model), tmp_path / "net")
