"""The suite's own checks refuse what they must, in closures too, and each closure is called with what is its own."""

import functools
import threading

import beartype
import jaxtyping
import lazy_checks
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

checked = functools.partial(lazy_checks.jaxtyped, typechecker=beartype.beartype)


def adder(amount: float):
    @checked
    def add(x: Float[Tensor, "n"], y: Float[Tensor, "n"], again: int = 0) -> Float[Tensor, "n"]:
        if again:
            return adder(10 * amount)(x, y, again=again - 1) + amount
        return x + y + amount

    return add


@checked
def wrong_shape(x: Float[Tensor, "n"]) -> Float[Tensor, "n n"]:
    return x


def test_a_wrong_argument_or_result_is_refused():
    one, two = torch.ones(1), torch.ones(2)
    for call in (lambda: adder(1.0)(one, two), lambda: adder(2.0)(1.0, two), lambda: wrong_shape(two)):
        with pytest.raises(jaxtyping.TypeCheckError):
            call()
    assert adder(3.0)(one, one).tolist() == [5.0]  # a refused call leaves nothing behind


def test_each_closure_is_its_own_also_one_inside_of_another():
    one = torch.ones(1)
    first, second = adder(1.0), adder(2.0)
    assert [f(one, one).item() for f in (first, second, first)] == [3.0, 4.0, 3.0]
    assert first(one, one, again=2).item() == 113.0
    assert first.__name__ == "add"


def test_each_thread_calls_its_own():
    one, wrong = torch.ones(1), []

    def many(amount: int) -> None:
        add = adder(float(amount))
        wrong.extend(k for k in range(200) if add(one, one).item() != 2 + amount)

    threads = [threading.Thread(target=many, args=(amount,)) for amount in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
