"""Files of integer networks: what was damaged or made up is refused in words, and nothing else happens."""

import json
import math
import random

import pytest
import torch
from pydantic import RootModel

from labkit import tensor_files
from labkit.errors import InputError
from labkit.papers.brelu.method.convert import convert
from labkit.papers.brelu.method.deployed import Deployed
from labkit.papers.brelu.method.integer import IntegerNetwork

from ..zoo import MobileNet, UNet, trained_like

Raw = RootModel[dict]


@pytest.fixture(scope="module", params=[MobileNet, UNet])
def network(request):
    model, x = trained_like(request.param)
    return convert(model, [x]), x


@pytest.fixture
def file(network, tmp_path):
    network[0].save(tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def test_the_header_says_everything(network, file):
    """Read back it is the same, and so is the sum over the file."""
    content = file.read_bytes()
    Deployed.read(file).write(file)
    assert file.read_bytes() == content
    assert network[0].stored_bytes == len(content)


def test_a_flipped_bit_or_a_lost_end_is_noticed(file):
    content, generator = file.read_bytes(), random.Random(0)
    for _ in range(60):
        changed = bytearray(content)
        changed[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        file.write_bytes(changed)
        with pytest.raises(InputError):
            IntegerNetwork.load(file)
    for length in (0, 5, 500, len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(InputError):
            IntegerNetwork.load(file)


def test_other_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(3)}, tmp_path / "other")
    with pytest.raises(InputError, match="another program wrote it"):
        IntegerNetwork.load(tmp_path / "other")
    with pytest.raises(InputError, match="there is no file"):
        IntegerNetwork.load(tmp_path / "missing")
    tensor_files.write(tmp_path / "foreign", {"x": torch.zeros(3)}, Raw({"format": "another"}))
    with pytest.raises(InputError, match="another kind of file"):
        IntegerNetwork.load(tmp_path / "foreign")


VALUES = (0, -1, 1, 7, 300, 10**6, 2**31, 2**70, 0.5, 1e308, -1e-9, "x", "input", None, [], {}, True)


def leaves(value, path=()):
    """Where every number and text of a header stands."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if isinstance(inner, dict | list):
            yield from leaves(inner, (*path, key))
        yield (*path, key)


def changed_at(header, path, value):
    header = json.loads(json.dumps(header))
    part = header
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return header


@pytest.mark.slow
def test_made_up_headers_are_refused_or_compute(network, file):
    """With a right checksum: the network that a changed header describes is refused by name, or runs in integers."""
    integer, x = network
    header, tensors = json.loads(integer.deployed.header.model_dump_json()), integer.deployed.tensors
    generator, refused = random.Random(1), 0
    places = list(leaves(header))
    for _ in range(400):
        raw = changed_at(header, generator.choice(places), generator.choice(VALUES))
        tensor_files.write(file, tensors, Raw(raw))
        try:
            other = IntegerNetwork.load(file)
        except InputError:
            refused += 1
            continue
        other.engine = "torch"
        try:
            y = other(x[:1, :, :12, :12])
        except (InputError, RuntimeError):  # shapes that do not meet depend on the image
            continue
        assert math.isfinite(float(y.abs().max()))
    assert refused > 200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h["scales"]["requantizers"][0].__setitem__(1, 0), "must be positive"),
        (lambda h: h["scales"]["requantizers"][0].__setitem__(2, 31), r"shift 0\.\.30"),
        (lambda h: h["scales"]["requantizers"][0].__setitem__(1, 1 << 20), "leaves int32|largest code"),
        (lambda h: h["geometry"][0][1].__setitem__(0, 4000), "more than twice its kernel"),
        (lambda h: h["geometry"][0][0].__setitem__(0, 0), "do not fit"),
        (lambda h: h["geometry"][0].__setitem__(3, 5), "do not fit"),
        (lambda h: h["nodes"][0].__setitem__("inputs", ["later"]), "does not stand before it"),
    ],
)
def test_numbers_that_would_not_compute_are_named(network, file, change, message):
    integer, _ = network
    header = json.loads(integer.deployed.header.model_dump_json())
    first = dict(header)  # the first entry of each table, wherever it is called
    first["geometry"] = list(header["geometry"].values())
    first["scales"] = header["scales"] | {"requantizers": list(header["scales"]["requantizers"].values())}
    change(first)
    tensor_files.write(file, integer.deployed.tensors, Raw(header))
    with pytest.raises(InputError, match=message):
        IntegerNetwork.load(file)


def test_tensors_that_do_not_belong_are_refused(network, file):
    integer, _ = network
    header, tensors = integer.deployed.header, integer.deployed.tensors
    name = next(iter(tensors))
    for changed in (
        tensors | {"more": torch.zeros(3, dtype=torch.int8)},
        {key: value for key, value in tensors.items() if key != name},
        tensors | {name: tensors[name].int()},
        tensors | {name: tensors[name][:, :0]},
    ):
        tensor_files.write(file, changed, header)
        with pytest.raises(InputError):
            IntegerNetwork.load(file)


def test_no_file_makes_its_reader_hang():
    """A concatenation of a concatenation...: each names the last one twice, 2^60 ways to the bottom."""
    from labkit.papers.brelu.method.graph import Node, check_nodes

    nodes = [Node("r", "bounded_relu", ("input",)), Node("c0", "concat", ("r", "r"))]
    nodes += [Node(f"c{i}", "concat", (f"c{i - 1}",) * 2) for i in range(1, 60)]
    check_nodes(nodes)
    for node, message in (
        (Node("u", "upsample", ("input",), (65, 1)), "64 or less"),
        (Node("p", "max_pool", ("input",), (4000, 4000, 1, 1, 0, 0, 1, 1, 0)), "the most there can be"),
        (Node("p", "pad", ("input",), (0, 0, 4000, 0, 0)), "256 are the most"),
    ):
        with pytest.raises(InputError, match=message):
            check_nodes([node])
    with pytest.raises(InputError, match="pixels of one"):
        check_nodes([Node("u", "upsample", ("input",), (64, 64)), Node("v", "upsample", ("u",), (64, 64))])
