import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit.errors import InputError
from labkit.papers.qnet.method.relus import callers_of_shared_relus, relus_of, rewrite_relus, separate_relus

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


class Inner(nn.Module):
    """Every way to call a ReLU, in one forward pass."""

    def __init__(self):
        super().__init__()
        self.relu, self.linear = nn.ReLU(), nn.Linear(4, 4)
        self.relu_2 = nn.Identity()  # a name that a new ReLU might take
        self.shift = nn.Parameter(torch.ones(4))

    def forward(self, x, *, scale=1.0):
        x = self.relu(self.linear(x)) - self.shift
        x = self.relu(self.relu_2(x) * scale) - 0.2
        x = F.relu(x) - 0.1
        x = torch.relu(x) - 0.05
        x = x.relu() - 0.02
        x = F.relu(x - 0.01, inplace=True) + torch.relu_(x - 0.5)
        return F.relu6(input=5 * x)


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Inner()
        self.act = nn.ReLU()
        self.pair = nn.Sequential(self.act, nn.Linear(4, 4), self.act)

    def forward(self, x):
        return {"out": self.act(self.inner(self.pair(x), scale=2.0)), "size": len(x)}


def test_every_use_gets_a_module_and_nothing_else_changes():
    model = Outer()
    wanted, state = model(X)["out"], copy.deepcopy(model.state_dict())
    assert callers_of_shared_relus(model, X) == ("inner", "pair")  # `act` is three names of one module
    new, names = separate_relus(model, X)
    assert new is model
    assert names == ("inner",)
    assert torch.equal(new(X)["out"], wanted)
    assert new.state_dict().keys() == state.keys()
    relus = relus_of(new)
    assert len(relus) == 3 + 8
    assert len({id(relu) for relu in relus.values()}) == 11
    assert sum(isinstance(relu, nn.ReLU6) for relu in relus.values()) == 1
    assert callers_of_shared_relus(new, X) == ()
    assert isinstance(new.inner.relu_2, nn.Identity)


def test_the_names_suffice_to_do_it_again():
    one, other = Outer(), Outer()
    _, names = separate_relus(one, X)
    rewrite_relus(other, names)
    assert list(relus_of(one)) == list(relus_of(other))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(X)["out"], other(X)["out"])


def test_the_model_itself_becomes_a_new_object():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            return F.relu(self.linear(x))

    model = Net()
    new, names = separate_relus(model, X)
    assert names == ("",)
    assert new is not model
    assert torch.equal(new(X), model(X))
    assert list(relus_of(new)) == ["relu"]


def test_what_training_does_is_traced_as_well():
    """Both modes must be one graph; the mode of the module comes back."""
    model = Outer().train()
    model.inner.eval()
    separate_relus(model, X)
    assert model.training
    assert not model.inner.training


class Statement(nn.Module):
    def forward(self, x):
        x = x + 0
        F.relu_(x)
        return x


class Remembers(nn.Module):
    """Depends on how often it was called: two traces differ."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return F.relu(x) + self.calls


def test_what_cannot_be_followed_is_refused_and_left_alone():
    for inner, message in (
        (Statement(), "'0' calls F.relu in place and does not use what it returns; write x = F.relu"),
        (Remembers(), "'0' calls F.relu, .* looks at self.training"),
    ):
        model = nn.Sequential(inner, nn.Linear(4, 4))
        with pytest.raises(InputError, match=message):
            separate_relus(model, X)
        assert model[0] is inner
    with pytest.raises(InputError, match="the model has no module 'nowhere'"):
        rewrite_relus(nn.Sequential(), ["nowhere"])
