"""Three ways to keep a run, and none of them looks at the test by accident."""

import pytest
import torch

from labkit.errors import InputError
from labkit.papers.itid.experiment.selection import CRITERIA, Candidate, by_trial, criteria_for, select

# held-out fifths of the training environments; four fifths of the test environment, and its other fifth; twins
GOOD_ON_TRAINING = Candidate(
    "ERM", 0, 0, {0: [0.8, 0.9], 1: [0.7, 0.9]}, [0.3, 0.1], [0.31, 0.12], {0: [0.2, 0.2], 1: [0.2, 0.2]}
)
STEADY = Candidate(
    "IE-swap", 1, 0, {0: [0.6, 0.7], 1: [0.6, 0.7]}, [0.6, 0.7], [0.62, 0.69], {0: [0.6, 0.6], 1: [0.6, 0.6]}
)
PEAKED = Candidate("IRM", 2, 1, {0: [0.9, 0.5], 1: [0.9, 0.5]}, [0.9, 0.2], [0.92, 0.3], {0: [0.7, 0.4], 1: [0.9, 0.8]})


def test_each_criterion_keeps_its_own():
    everyone = [GOOD_ON_TRAINING, STEADY, PEAKED]
    first = select(everyone, "training-domain")
    assert (first.candidate.draw, first.checkpoint, first.accuracy) in ((0, 1, 0.1), (2, 0, 0.9))
    assert select([GOOD_ON_TRAINING, STEADY], "training-domain").accuracy == 0.1
    assert select([GOOD_ON_TRAINING, STEADY], "training-domain").regret == pytest.approx(0.6)
    third = select(everyone, "leave-one-domain-out")
    assert (third.candidate.draw, third.checkpoint, third.accuracy) == (2, 0, 0.9)  # its twins stop early, too
    oracle = select(everyone, "oracle")
    assert (oracle.candidate.draw, oracle.checkpoint, oracle.accuracy) == (1, 1, 0.7)  # last checkpoint, no early stop
    assert oracle.regret == pytest.approx(0.2)


@pytest.mark.parametrize("criterion", [name for name in CRITERIA if name != "oracle"])
def test_the_test_environment_is_not_used_in_selection(criterion):
    """Change only the test accuracies: the same candidate is kept."""

    def with_test(test):
        return [Candidate(c.algorithm, c.draw, c.trial, c.held_out, test[k], test[k], c.left_out)
                for k, c in enumerate((GOOD_ON_TRAINING, STEADY))]  # fmt: skip

    kept = {
        select(with_test(test), criterion).candidate.draw
        for test in ([[0.0, 0.0], [1.0, 1.0]], [[1.0, 1.0], [0.0, 0.0]])
    }
    assert len(kept) == 1


def test_the_oracle_looks_at_the_fifth_that_is_not_reported():
    """Where it selected on what it reports, chance would be sold as skill."""
    assert CRITERIA["oracle"](PEAKED)[0] == 0.3
    rng = torch.Generator().manual_seed(0)
    blind = torch.rand(2, 200, generator=rng).tolist()  # 200 draws that know nothing: the two halves agree by chance
    candidates = [Candidate("ERM", k, 0, {0: [0.5]}, [a], [b]) for k, (a, b) in enumerate(zip(*blind, strict=True))]
    chosen = select(candidates, "oracle")
    assert chosen.candidate.test_held_out[0] == max(blind[1])
    assert chosen.accuracy == blind[0][chosen.candidate.draw] < max(blind[0])


def test_without_twins_there_is_no_leaving_out_of_domains():
    alone = Candidate("ERM", 0, 0, {0: [0.5]}, [0.5], [0.5])
    assert criteria_for([STEADY, PEAKED]) == list(CRITERIA)
    assert criteria_for([alone]) == ["training-domain", "oracle"]


def test_one_selection_per_trial():
    chosen = by_trial([GOOD_ON_TRAINING, STEADY, PEAKED], "oracle")
    assert {trial: s.candidate.draw for trial, s in chosen.items()} == {0: 1, 1: 2}


def test_bad_input():
    with pytest.raises(InputError, match="criterion must be one of"):
        select([STEADY], "best")
    with pytest.raises(InputError, match="nothing to select from"):
        select([], "oracle")
    with pytest.raises(InputError, match="needs twins"):
        select([Candidate("ERM", 0, 0, {0: [0.5]}, [0.5], [0.5])], "leave-one-domain-out")
