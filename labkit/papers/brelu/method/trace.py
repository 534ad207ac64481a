"""Any convolutional network as a `Network`: read with torch.fx, batch norm folded, bounds put where codes are needed.

What a network may be made of stands in `_MODULES` and `_FUNCTIONS`; anything else is refused by name.
"""

import copy
import inspect
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from labkit.errors import InputError
from labkit.papers.brelu.method.bounded_relu import BoundedIdentity, BoundedReLU
from labkit.papers.brelu.method.graph import KEEPS_FORMS, PADDING_MODES, READS_CODES, Node, forms, readers
from labkit.papers.brelu.method.network import Network
from labkit.papers.brelu.method.weights import Layer, pair, same_padding, zero_padding
from labkit.vision.resnet import PadChannels

POSSIBLE = (
    "Conv2d, Linear, BatchNorm, ReLU, ReLU6, max, average and adaptive pooling, addition, concatenation of channels, "
    "nearest upsampling by whole factors, pixel shuffle, padding, dropout, flatten and mean over the pixels"
)
NORMS = (nn.modules.batchnorm._BatchNorm,)  # those over several processes among them


def trace(model: nn.Module) -> Network:
    """`model`, in evaluation, as a network with weights of its own; batch norm is frozen.

    A max-pool behind a ReLU moves before it [official code]: the same numbers, a quarter of the work. Where a
    convolution or a concatenation reads a value that is not the output of a ReLU, a bound is put in between.

    Raises:
        InputError: something in it has no integer form here; names it, and says what has.
    """
    model = copy.deepcopy(model).eval()
    graph = _Tracer().trace(_OneInput(model))
    build = _Builder(model)
    flat = False
    for node in graph.nodes:
        if node.op == "output":
            flat = build.finish(node)
        elif node.op != "placeholder" and node.users:
            build.node(node)
    return Network(build.nodes, build.modules, flat)


class _OneInput(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Any) -> Any:
        return self.model(x)


class _Tracer(fx.Tracer):
    """Looks through shape annotations, whose checks would refuse the stand-ins that fx traces with."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (PadChannels, *NORMS)) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self.is_leaf_module(m, self.path_of_module(m)):
            return super().call_module(m, forward, args, kwargs)
        return inspect.unwrap(type(m).forward)(m, *args, **kwargs)

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        try:
            return super().trace(root, concrete_args)
        except (fx.proxy.TraceError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(
                f"torch.fx cannot follow this model's forward ({str(error).splitlines()[0]}): it must take one tensor, "
                "and no branch or loop in it may depend on what is in the tensor. Rewrite that part."
            ) from None


class _Builder:
    """Collects nodes and modules while the traced graph is read."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.nodes: list[Node] = []
        self.modules: dict[str, Layer | BoundedReLU] = {}
        self.names: dict[fx.Node, str] = {}  # where each traced value stands
        self.flat: set[str] = set()  # values that are (n, features) in the model

    # -- reading

    def node(self, node: fx.Node) -> None:
        if node.op == "call_module":
            target = str(node.target).removeprefix("model.")
            part = self.model.get_submodule(target) if target != "model" else self.model
            self.names[node] = self.module(_name(target), part, self.source(node, node.args[0]), node)
        elif node.op in ("call_function", "call_method"):
            self.function(node)
        elif node.op == "get_attr":
            raise InputError(f"'{node.target}' is a parameter or tensor that the model computes with: {_only()}")

    def source(self, node: fx.Node, argument: Any) -> str:
        """The name of an operand of `node`."""
        if not isinstance(argument, fx.Node):
            raise InputError(f"'{node.name}' computes with {argument!r}, which is not a feature map: {_only()}")
        if argument.op == "placeholder":
            return "input"
        if argument not in self.names:
            raise InputError(f"'{node.name}' computes with '{argument.name}', which is not a feature map: {_only()}")
        return self.names[argument]

    def function(self, node: fx.Node) -> None:
        if (node.op == "call_method" and node.target == "size") or node.target is getattr:
            return  # sizes are read by `view` alone, which looks at them itself
        if node.target is operator.getitem and isinstance(node.args[0], fx.Node) and node.args[0] not in self.names:
            return  # of such a size
        key = node.target if node.op == "call_function" else str(node.target)
        if key not in _FUNCTIONS:
            name = key if isinstance(key, str) else getattr(key, "__name__", str(key))
            raise InputError(f"'{node.name}' calls {name}: {_only()}")
        try:
            self.names[node] = _FUNCTIONS[key](self, node, *node.args, **node.kwargs)
        except TypeError as error:
            raise InputError(f"'{node.name}' has arguments that are not understood here ({error}): {_only()}") from None

    def finish(self, output: fx.Node) -> bool:
        """The last passes. Returns whether the output is (n, features)."""
        if not isinstance(output.args[0], fx.Node) or not self.nodes:
            raise InputError("the model must return one tensor that it computed.")
        last = self.source(output, output.args[0])
        self.pool_before_relu()
        self.drop_unread(last)
        self.bound_codes()
        self.additions_last()
        return last in self.flat

    # -- writing

    def add(self, name: str, operation: Any, inputs: tuple[str, ...], options: tuple[int, ...] = ()) -> str:
        name = self.free(name)
        self.nodes.append(Node(name, operation, inputs, options))
        if operation in KEEPS_FORMS and operation != "flatten" and inputs[0] in self.flat:
            raise InputError(f"'{name}' reads features that were flattened before: {_only()}")
        return name

    def free(self, name: str) -> str:
        """A name that no other node has: a module that is called twice gives two."""
        name = f"{name}_" if name == "input" or hasattr(nn.ModuleDict, name) else name
        taken = {node.name for node in self.nodes}
        return next(one for one in (name, *(f"{name}_{i}" for i in range(2, 10_000))) if one not in taken)

    def module(self, name: str, part: nn.Module, source: str, node: fx.Node) -> str:
        """The node of one call of a module."""
        if isinstance(part, nn.Conv2d | nn.Linear):
            return self.layer(name, part, source)
        if isinstance(part, NORMS):
            return self.norm(name, part, source)
        for kind, write in _MODULES.items():
            if type(part) is kind:
                return write(self, name, part, source)
        raise InputError(f"'{node.target}' is a {type(part).__name__}: {_only()}".replace("'model.", "'"))

    def layer(self, name: str, conv: nn.Conv2d | nn.Linear, source: str) -> str:
        if isinstance(conv, nn.Linear):
            if source not in self.flat:
                raise InputError(f"'{name}' is a Linear that reads a feature map: flatten it first.")
        elif zero_padding(conv) is None:
            sides = same_padding(conv) if isinstance(conv.padding, str) else _both_sides(*pair(conv.padding))
            source = self.add(f"{name}_pad", "pad", (source,), (*sides, PADDING_MODES.index(conv.padding_mode)))
            name = self.add(name, "layer", (source,))
            self.modules[name] = Layer(conv, padded=True)
            return name
        name = self.add(name, "layer", (source,))
        self.modules[name] = Layer(conv)
        if isinstance(conv, nn.Linear):
            self.flat.add(name)
        return name

    def norm(self, name: str, norm: Any, source: str) -> str:
        """Folded into the layer before it; a depthwise 1x1 convolution of its own where that is read elsewhere too."""
        layer = self.modules.get(source)
        if isinstance(layer, Layer) and layer.norm is None and self.calls(source) == 1:
            self.modules[source] = Layer(layer.conv, norm, padded=layer.geometry.padding == (0, 0))
            return source
        if source in self.flat:
            raise InputError(f"'{name}' is a BatchNorm1d without a layer of its own before it: {_only()}")
        scaling = nn.Conv2d(norm.num_features, norm.num_features, 1, groups=norm.num_features, bias=False)
        nn.init.ones_(scaling.weight).requires_grad_(False)
        like = norm.running_mean
        name = self.add(name, "layer", (source,))
        self.modules[name] = Layer(scaling.to(like.device) if like is not None else scaling, norm)
        return name

    def calls(self, name: str) -> int:
        """How many traced values read the node `name`."""
        traced = [node for node, stands in self.names.items() if stands == name]
        return sum(len(node.users) for node in traced)

    def relu(self, name: str, source: str, ceiling: float = math.inf) -> str:
        name = self.add(name, "bounded_relu", (source,))
        self.modules[name] = BoundedReLU(ceiling=ceiling)
        if source in self.flat:
            self.flat.add(name)
        return name

    def flatten(self, name: str, source: str) -> str:
        if source in self.flat:
            return source
        name = self.add(name, "flatten", (source,))
        self.flat.add(name)
        return name

    def mean(self, name: str, source: str, keepdim: bool) -> str:
        name = self.add(name, "adaptive_average", (source,), (1, 1))
        return name if keepdim else self.flatten(f"{name}_flat", name)

    # -- passes over the finished list

    def pool_before_relu(self) -> None:
        """relu, max-pool -> max-pool, relu, where nobody else reads the ReLU."""
        for node in list(self.nodes):
            by_name, read_by = {one.name: one for one in self.nodes}, readers(self.nodes)
            relu = by_name.get(node.inputs[0])
            if node.operation != "max_pool" or relu is None or relu.operation != "bounded_relu":
                continue
            if len(read_by[relu.name]) == 1 and relu.inputs[0] != "input":
                first = Node(node.name, "max_pool", relu.inputs, node.options)
                i, j = self.nodes.index(relu), self.nodes.index(node)
                self.nodes[j] = Node(relu.name, "bounded_relu", (node.name,))
                self.nodes[i] = first
                self.read_instead(node.name, relu.name, after=j)

    def read_instead(self, old: str, new: str, after: int) -> None:
        for k in range(after + 1, len(self.nodes)):
            inputs = tuple(new if name == old else name for name in self.nodes[k].inputs)
            self.nodes[k] = Node(self.nodes[k].name, self.nodes[k].operation, inputs, self.nodes[k].options)

    def drop_unread(self, last: str) -> None:
        """What the output does not need; the output then stands last."""
        needed = {last}
        for node in reversed(self.nodes):
            if node.name in needed:
                needed.update(node.inputs)
        self.nodes = [node for node in self.nodes if node.name in needed]
        self.modules = {node.name: self.modules[node.name] for node in self.nodes if node.name in self.modules}

    def bound_codes(self) -> None:
        """A bound of its own for every value that a layer or concatenation reads, and that is no ReLU's."""
        bounded: dict[str, str] = {}
        finished: list[Node] = []
        for node in self.nodes:
            inputs = list(node.inputs)
            if node.operation in READS_CODES:
                have = forms([*finished, Node("reader", node.operation, node.inputs)])
                for i, name in enumerate(inputs):
                    own_scale = node.operation == "concat" and self.stems_from_input(name, finished)
                    if "codes" in have[name] and not own_scale:
                        continue
                    if name not in bounded:
                        bounded[name] = self.free(f"{name}_bound")
                        finished.append(Node(bounded[name], "bounded_relu", (name,)))
                        positive = self.never_negative(name, finished)
                        self.modules[bounded[name]] = BoundedReLU() if positive else BoundedIdentity()
                    inputs[i] = bounded[name]
            finished.append(Node(node.name, node.operation, tuple(inputs), node.options))
        self.nodes = finished

    def stems_from_input(self, name: str, nodes: list[Node]) -> bool:
        """Are these the input's own codes, perhaps moved?"""
        by_name = {node.name: node for node in nodes}
        while name in by_name and by_name[name].operation in KEEPS_FORMS:
            name = by_name[name].inputs[0]
        return name == "input"

    def never_negative(self, name: str, nodes: list[Node]) -> bool:
        by_name = {node.name: node for node in nodes}
        if name == "input" or by_name[name].operation == "layer":
            return False
        if by_name[name].operation == "bounded_relu":
            return not self.modules[name].signed if name in self.modules else False
        return all(self.never_negative(one, nodes) for one in by_name[name].inputs)

    def additions_last(self) -> None:
        """Operands of an addition: first a layer that nobody else reads, computed just before it, if there is one."""
        for add in [node for node in self.nodes if node.operation == "add"]:
            read_by, by_name = readers(self.nodes), {node.name: node for node in self.nodes}
            for name in add.inputs:
                if name in by_name and by_name[name].operation == "layer" and read_by[name] == [add]:
                    if add.inputs.count(name) > 1:
                        continue
                    other = add.inputs[1 - add.inputs.index(name)]
                    layer = by_name[name]
                    self.nodes.remove(layer)
                    i = self.nodes.index(add)
                    self.nodes[i : i + 1] = [layer, Node(add.name, "add", (name, other))]
                    break


# -- what there is ----------------------------------------------------------------------------------------------------


def _only() -> str:
    return f"it has no integer form here. There are {POSSIBLE}."


def _name(target: str) -> str:
    name = target.replace(".", "_")
    return f"_{name}" if name[:1].isdigit() else name


def _both_sides(down: int, across: int) -> tuple[int, int, int, int]:
    return across, across, down, down


def _max_pool(build: _Builder, name: str, pool: nn.MaxPool2d, source: str) -> str:
    kernel = pair(pool.kernel_size)
    stride = kernel if pool.stride is None else pair(pool.stride)
    if pool.return_indices:
        raise InputError(f"'{name}' returns indices: {_only()}")
    options = (*kernel, *stride, *pair(pool.padding), *pair(pool.dilation), int(pool.ceil_mode))
    return build.add(name, "max_pool", (source,), options)


def _average_pool(build: _Builder, name: str, pool: nn.AvgPool2d, source: str) -> str:
    kernel = pair(pool.kernel_size)
    stride = kernel if pool.stride is None else pair(pool.stride)
    if pool.divisor_override is not None:
        raise InputError(f"'{name}' has a divisor_override: {_only()}")
    options = (*kernel, *stride, *pair(pool.padding), int(pool.ceil_mode), int(pool.count_include_pad))
    return build.add(name, "average_pool", (source,), options)


def _adaptive(operation: str) -> Callable[..., str]:
    def write(build: _Builder, name: str, pool: Any, source: str) -> str:
        size = pool.output_size
        sides = (size, size) if isinstance(size, int) else tuple(size)
        return build.add(name, operation, (source,), tuple(side or 0 for side in sides))

    return write


def _upsample(build: _Builder, name: str, part: nn.Upsample, source: str) -> str:
    scale = part.scale_factor
    factors = tuple(scale) if isinstance(scale, tuple) else (scale, scale)
    if part.mode != "nearest" or None in factors or any(f != int(f) or f < 1 for f in factors):  # type: ignore[arg-type]
        raise InputError(f"'{name}' resizes by {part.mode} to {part.size or part.scale_factor}: {_only()}")
    return build.add(name, "upsample", (source,), tuple(int(f) for f in factors))  # type: ignore[arg-type]


def _padding(mode: str) -> Callable[..., str]:
    def write(build: _Builder, name: str, part: Any, source: str) -> str:
        sides = tuple(part.padding)
        if min(sides) < 0 or getattr(part, "value", 0):
            raise InputError(f"'{name}' crops, or pads with another number than 0: {_only()}")
        return build.add(name, "pad", (source,), (*sides, PADDING_MODES.index(mode)))

    return write


def _flatten(build: _Builder, name: str, part: nn.Flatten, source: str) -> str:
    if (part.start_dim, part.end_dim) != (1, -1):
        raise InputError(f"'{name}' flattens dimensions {part.start_dim} to {part.end_dim}: {_only()}")
    return build.flatten(name, source)


def _pad_channels(build: _Builder, name: str, part: PadChannels, source: str) -> str:
    return build.add(name, "pad_channels", (source,), (part.stride, part.before, part.after))


_MODULES: Mapping[type[nn.Module], Callable[..., str]] = {
    nn.ReLU: lambda build, name, part, source: build.relu(name, source),
    nn.ReLU6: lambda build, name, part, source: build.relu(name, source, 6.0),
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveAvgPool2d: _adaptive("adaptive_average"),
    nn.AdaptiveMaxPool2d: _adaptive("adaptive_max"),
    nn.Upsample: _upsample,
    nn.UpsamplingNearest2d: _upsample,
    nn.PixelShuffle: lambda build, name, part, x: build.add(name, "pixel_shuffle", (x,), (part.upscale_factor,)),
    nn.PixelUnshuffle: lambda build, name, part, x: build.add(name, "pixel_unshuffle", (x,), (part.downscale_factor,)),
    nn.ZeroPad2d: _padding("zeros"),
    nn.ConstantPad2d: _padding("zeros"),
    nn.ReflectionPad2d: _padding("reflect"),
    nn.ReplicationPad2d: _padding("replicate"),
    nn.CircularPad2d: _padding("circular"),
    nn.Flatten: _flatten,
    PadChannels: _pad_channels,
    nn.Identity: lambda build, name, part, source: source,
    nn.Dropout: lambda build, name, part, source: source,
    nn.Dropout2d: lambda build, name, part, source: source,
}


def _as_module(make: Callable[..., nn.Module]) -> Callable[..., str]:
    """A function with a module of the same meaning."""

    def write(build: _Builder, node: fx.Node, input: Any, *arguments: Any, **options: Any) -> str:
        return build.module(node.name, make(*arguments, **options), build.source(node, input), node)

    return write


def _interpolate(size: Any = None, scale_factor: Any = None, mode: str = "nearest", **rest: Any) -> nn.Module:
    return nn.Upsample(size, scale_factor, mode)


def _pad_module(pad: Any, mode: str = "constant", value: float | None = None) -> nn.Module:
    kinds = {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d, "circular": nn.CircularPad2d}
    if len(pad) != 4:
        raise TypeError(f"pad={pad}")
    return kinds[mode](tuple(pad)) if mode in kinds else nn.ConstantPad2d(tuple(pad), value or 0.0)


def _add(build: _Builder, node: fx.Node, input: Any, other: Any, *, alpha: float = 1) -> str:
    if alpha != 1:
        raise InputError(f"'{node.name}' adds {alpha} times its operand: {_only()}")
    operands = (build.source(node, input), build.source(node, other))
    flat = [name in build.flat for name in operands]
    if any(flat) and not all(flat):
        raise InputError(f"'{node.name}' adds features to a feature map: {_only()}")
    name = build.add(node.name, "add", operands)
    if all(flat):
        build.flat.add(name)
    return name


def _concat(build: _Builder, node: fx.Node, tensors: Any, dim: int = 0, **options: Any) -> str:
    dim = options.get("axis", dim)
    operands = tuple(build.source(node, one) for one in tensors)
    flat = [name in build.flat for name in operands]
    if (dim not in (1, -3) and not (all(flat) and dim == -1)) or any(flat) != all(flat):
        raise InputError(f"'{node.name}' concatenates along dimension {dim}, not the channels: {_only()}")
    name = build.add(node.name, "concat", operands)
    if all(flat):
        build.flat.add(name)
    return name


def _flat(build: _Builder, node: fx.Node, input: Any, start_dim: int = 0, end_dim: int = -1) -> str:
    return _flatten(build, node.name, nn.Flatten(start_dim, end_dim), build.source(node, input))


def _view(build: _Builder, node: fx.Node, input: Any, *shape: Any) -> str:
    sizes = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
    if len(sizes) != 2:  # whether the two are the batch and its features shows when the networks are compared
        raise InputError(f"'{node.name}' gives a feature map another shape, {sizes}: {_only()}")
    return build.flatten(node.name, build.source(node, input))


def _mean(build: _Builder, node: fx.Node, input: Any, dim: Any = None, keepdim: bool = False) -> str:
    if dim is None or sorted(d % 4 for d in ((dim,) if isinstance(dim, int) else dim)) != [2, 3]:
        raise InputError(f"'{node.name}' averages over dimensions {dim}, not over the pixels: {_only()}")
    return build.mean(node.name, build.source(node, input), keepdim)


def _same(build: _Builder, node: fx.Node, input: Any, *arguments: Any, **options: Any) -> str:
    return build.source(node, input)


def _relu6(inplace: bool = False) -> nn.Module:
    return nn.ReLU6()


def _relu(inplace: bool = False) -> nn.Module:
    return nn.ReLU()


def _hardtanh(min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> nn.Module:
    if (min_val, max_val) != (0, 6):
        raise TypeError(f"min_val={min_val}, max_val={max_val}")
    return nn.ReLU6()


_FUNCTIONS: Mapping[Any, Callable[..., str]] = {
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, F.relu_, "relu", "relu_"), _as_module(_relu)),
    F.relu6: _as_module(_relu6),
    F.hardtanh: _as_module(_hardtanh),
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _add),
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), _concat),
    F.max_pool2d: _as_module(nn.MaxPool2d),
    torch.max_pool2d: _as_module(nn.MaxPool2d),
    F.avg_pool2d: _as_module(nn.AvgPool2d),
    F.adaptive_avg_pool2d: _as_module(nn.AdaptiveAvgPool2d),
    F.adaptive_max_pool2d: _as_module(nn.AdaptiveMaxPool2d),
    F.interpolate: _as_module(_interpolate),
    F.pixel_shuffle: _as_module(nn.PixelShuffle),
    F.pixel_unshuffle: _as_module(nn.PixelUnshuffle),
    F.pad: _as_module(_pad_module),
    **dict.fromkeys((torch.flatten, "flatten"), _flat),
    **dict.fromkeys(("view", "reshape", torch.reshape), _view),
    **dict.fromkeys((torch.mean, "mean"), _mean),
    **dict.fromkeys((F.dropout, F.dropout2d, "contiguous", "clone", "detach"), _same),
}


def check_same(model: nn.Module, network: Network, x: Tensor) -> None:
    """Raises InputError when the traced network does not compute what the model does."""
    with torch.no_grad():
        wanted = copy.deepcopy(model).eval()(x)  # a copy: some of its parts may train and others not
        got = network.eval()(x)
    if wanted.shape != got.shape:
        raise InputError(f"traced, the model gives {tuple(got.shape)} in place of {tuple(wanted.shape)}.")
    apart = float((got - wanted).abs().max()) / max(float(wanted.abs().max()), 1e-12)
    if not apart < 1e-3:
        raise InputError(
            f"traced, the model gives other numbers ({apart:.1%} of the largest output apart): something in its "
            "forward is not visible to torch.fx, or its output is not finite."
        )
