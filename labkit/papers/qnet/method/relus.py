"""A module of its own for every use of a ReLU, since each use needs a quantiser of its own, with its own scale.

Networks share them in three ways: one `nn.ReLU` under several names, one that a forward pass calls several times (as
torchvision's ResNets do), and calls of `F.relu`, which are no modules at all. The first needs copies. For the others,
`torch.fx` writes the forward pass of the module that calls them anew; all other modules stay as they are.
"""

import copy
import itertools
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Shaped
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from labkit.errors import InputError
from labkit.papers.qnet.method.batches import evaluating

RELUS = (nn.ReLU, nn.ReLU6)
FUNCTIONS: dict[Any, type[nn.ReLU] | type[nn.ReLU6]] = {
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, "relu", "relu_"), nn.ReLU),
    F.relu6: nn.ReLU6,
}
"""Calls that are ReLUs; `torch.fx` knows methods by their names."""
IN_PLACE = (torch.relu_, "relu_")


def relus_of(model: nn.Module) -> dict[str, nn.Module]:
    """Every name of a ReLU or ReLU6 module of `model`, and the module."""
    return {name: module for name, module in model.named_modules(remove_duplicate=False) if isinstance(module, RELUS)}


@torch.no_grad()
def separate_relus(model: nn.Module, sample: Shaped[Tensor, "batch *shape"]) -> tuple[nn.Module, tuple[str, ...]]:
    """The network with a ReLU module for every use, and the names of the modules whose forward pass was written anew.

    `model` is changed in place; where it calls a shared ReLU itself (then "" is among the names), the network is a new
    object. One pass over `sample` in eval mode shows who calls what. The names suffice to do the same again, without a
    sample: `rewrite_relus`.

    Raises:
        InputError: a forward pass that `torch.fx` cannot follow, or a module that is used twice and has ReLUs.
    """
    before, after = model, copy.deepcopy(model)
    rewrite_relus(after, ())
    names = callers_of_shared_relus(after, sample)
    after = rewrite_relus(after, names)
    wanted, got = (_outputs(network, sample) for network in (before, after))
    if any(not torch.equal(a, b) for a, b in zip(wanted, got, strict=True)):
        raise InputError(
            f"torch.fx cannot follow the forward pass of {_in_words(names)}: written anew it computes something else. "
            "Give each use of a ReLU an nn.ReLU() of its own"
        )
    return rewrite_relus(model, names), names


def rewrite_relus(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """Copies for ReLUs with several names, then new forward passes for the modules `names`; see `separate_relus`.

    Raises:
        InputError: there is no such module, or `torch.fx` cannot follow its forward pass.
    """
    known: set[int] = set()
    for name, relu in relus_of(model).items():
        if id(relu) in known:
            model.set_submodule(name, copy.deepcopy(relu))
        known.add(id(relu))
    for name in names:
        try:
            module = model.get_submodule(name)
        except AttributeError:
            raise InputError(f"the model has no module '{name}', whose ReLUs are to be separated") from None
        new = _rewritten(name, module)
        if name:
            model.set_submodule(name, new)
        else:
            model = new
    return model


def callers_of_shared_relus(model: nn.Module, sample: Shaped[Tensor, "batch *shape"]) -> tuple[str, ...]:
    """Names of the modules that call `F.relu` or the like, or one ReLU module more than once in a forward pass.

    Raises:
        InputError: a module with ReLUs is itself used more than once.
    """
    watch = _Watch(model)
    with watch:
        _outputs(model, sample)
    for (caller, relu), count in watch.calls.items():
        if watch.runs[caller] > 1 and (count > 1 or relu == ""):
            raise InputError(
                f"'{caller}' is used {watch.runs[caller]} times in one pass and has a ReLU in it; each use needs a "
                "scale of its own: give the model a copy of that module for each use"
            )
    shared = {caller for (caller, relu), count in watch.calls.items() if relu == "" or count > 1}
    return tuple(sorted(shared))


class _Watch(TorchFunctionMode):
    """Counts, while active, how often each module runs, and how often it calls each ReLU ("": a function)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.runs: Counter[str] = Counter()
        self.calls: Counter[tuple[str, str]] = Counter()
        self._running: list[str] = []

    def __enter__(self) -> "_Watch":
        with ExitStack() as hooks:
            for name, module in self.model.named_modules():
                hooks.enter_context(module.register_forward_pre_hook(self._start(name)))
                hooks.enter_context(module.register_forward_hook(self._end, always_call=True))
            self._hooks = hooks.pop_all()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._hooks.close()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in FUNCTIONS and self._running and not self._in_relu():
            self.calls[self._running[-1], ""] += 1
        return function(*args, **(kwargs or {}))

    def _in_relu(self) -> bool:
        return isinstance(self.model.get_submodule(self._running[-1]), RELUS)

    def _start(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any) -> None:
            if isinstance(module, RELUS) and self._running:
                self.calls[self._running[-1], name] += 1
            self.runs[name] += 1
            self._running.append(name)

        return hook

    def _end(self, *_: Any) -> None:
        self._running.pop()


class _OneLevel(fx.Tracer):
    """Follows one forward pass, and calls every module in it as it is."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return True


def _rewritten(name: str, module: nn.Module) -> fx.GraphModule:
    graph = _trace(name, module)
    new = fx.GraphModule(module, graph, class_name=type(module).__name__)
    used: set[str] = set()
    for node in list(graph.nodes):
        if node.op == "call_module" and isinstance(relu := new.get_submodule(node.target), RELUS):
            if node.target in used:
                node.target = _add(new, node.target, copy.deepcopy(relu))
            used.add(node.target)
        elif node.op in ("call_function", "call_method") and node.target in FUNCTIONS:
            if not node.users:  # in place, and read through its input
                raise InputError(
                    f"{_in_words([name])} calls F.relu in place and does not use what it returns; write x = F.relu(x)"
                )
            in_place = node.target in IN_PLACE or bool(node.kwargs.get("inplace") or node.args[1:2] == (True,))
            target = _add(new, node.name, FUNCTIONS[node.target](in_place))
            with graph.inserting_before(node):
                call = graph.call_module(target, (node.args[0] if node.args else node.kwargs["input"],))
            node.replace_all_uses_with(call)
            graph.erase_node(node)
    new.recompile()
    return new


def _add(module: nn.Module, wanted: str, child: nn.Module) -> str:
    """`child` under the first free name of wanted, wanted_2, wanted_3, ...; returns the name."""
    taken = {name for name, _ in module.named_modules()} | set(dir(module))
    names = itertools.chain([wanted], (f"{wanted}_{number}" for number in itertools.count(2)))
    name = next(name for name in names if name not in taken)
    module.set_submodule(name, child)
    return name


def _trace(name: str, module: nn.Module) -> fx.Graph:
    """The graph of one forward pass, the same in training and in eval mode."""
    why = f"{_in_words([name])} calls F.relu, or one nn.ReLU several times"
    mend = "give each use an nn.ReLU() of its own"
    mode = module.training
    try:
        texts, graph = [], None
        for module.training in (not mode, mode):
            graph = _OneLevel().trace(module)
            texts.append(graph.python_code("self").src)
    except Exception as error:  # whatever the reader's own code raises when it meets a symbol in place of a tensor
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{why}, and torch.fx cannot follow its forward pass ({first}); {mend}") from error
    finally:
        module.training = mode
    if texts[0] != texts[1]:
        raise InputError(
            f"{why}, and its forward pass looks at self.training, as F.dropout(x, training=self.training) does; use "
            f"nn.Dropout, or {mend}"
        )
    assert graph is not None
    return graph


@torch.no_grad()
def _outputs(model: nn.Module, sample: Tensor) -> list[Tensor]:
    """All tensors that `model` returns in eval mode; it is left as it was. Random draws within repeat."""
    with evaluating(model), torch.random.fork_rng():
        torch.manual_seed(0)
        output = model(sample.clone())
    return [leaf for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def _in_words(names: Iterable[str]) -> str:
    return " and ".join(f"'{name}'" if name else "the model" for name in names)
