"""Attacks in lockstep find what each finds alone, in fewer and larger calls."""

import threading
from functools import partial

import pytest
import torch

from nnunetv2_lngswr.attacks import BatchModel, Bounds, ThreatModel, run_attack
from nnunetv2_lngswr.attacks.lockstep import run_in_lockstep
from tests.attacks.problems import SPACE

BUDGETS = (0.02, 0.05, 0.1)
# different numbers of steps, with and without gradients, a chain with a random start
NAMES = ("noise", "fgsm", "pgd_linf", "square", "worst-v1")


class Counter(BatchModel):
    """Counts the cases of every call, and the threads it was called from."""

    def __init__(self, network):
        super().__init__(network)
        self.cases, self.threads = [], set()

    def _forward(self, x):
        self.cases.append(len(x))
        self.threads.add(threading.get_ident())
        return super()._forward(x)


def attack(trained, name, epsilon, model):
    """One case in double precision, so that rounding of batches does not turn a sign."""
    network, x, y = trained[2]
    x = x[:1].double()
    ball = ThreatModel(norm="linf", epsilon=epsilon).ball(Bounds.of(x))
    steps = {"steps": 5} if name in ("pgd_linf", "square") else {}
    generator = torch.Generator().manual_seed(3)
    return run_attack(name, model, x, SPACE.target(y[:1]), ball, generator=generator, **steps)


@pytest.fixture
def network(trained):
    network = trained[2][0]
    yield network.double()
    network.float()


def test_each_finds_what_it_finds_alone_and_calls_are_shared(trained, network):
    attacks = [partial(attack, trained, n, e) for n in NAMES for e in BUDGETS]
    alone, together = Counter(network), Counter(network)
    expected = [a(alone) for a in attacks]
    found = run_in_lockstep(together, attacks)
    for one, other in zip(expected, found, strict=True):
        assert one.attack == other.attack and one.settings == other.settings
        assert (one.forwards, one.gradients) == (other.forwards, other.gradients)
        torch.testing.assert_close(one.perturbed, other.perturbed, rtol=0, atol=1e-9)
        torch.testing.assert_close(one.dice, other.dice)
        torch.testing.assert_close(one.loss_history, other.loss_history, equal_nan=True)
    assert len(together.cases) <= max(a.queries for a in expected) * 2 < len(alone.cases)
    assert max(together.cases) > len(BUDGETS) and together.threads == {threading.get_ident()}
    # every budget of a suite forwards the clean case
    assert sum(together.cases) < sum(alone.cases)


def test_what_has_ended_leaves_the_batch(trained, network):
    steps = (2, 6, 4)

    def pgd(model, n):
        x, y = trained[2][1][:1].double(), trained[2][2][:1]
        ball = ThreatModel(norm="linf", epsilon=0.01).ball(Bounds.of(x))
        generator = torch.Generator().manual_seed(0)
        target = SPACE.target(y)
        return run_attack("pgd_linf", model, x, target, ball, generator=generator, steps=n)

    counter = Counter(network)
    run_in_lockstep(counter, [partial(pgd, n=n) for n in steps])
    # each has a last forward besides
    assert sum(counter.cases) == sum(steps) + len(steps)
    sizes = [c for c in counter.cases if c > 1]
    assert sizes[0] == 3 and sizes == sorted(sizes, reverse=True)


def test_none_and_one(trained, network):
    assert run_in_lockstep(BatchModel(network), []) == []
    (found,) = run_in_lockstep(BatchModel(network), [partial(attack, trained, "fgsm", 0.05)])
    assert found.attack == "fgsm"


@pytest.mark.parametrize("broken", ["attack", "model"])
def test_an_error_ends_all_and_comes_out(trained, network, broken):
    def fails(model):
        model.logits(trained[2][1][:1].double())
        raise ValueError("an attack failed")

    class Failing(Counter):
        def value_and_gradient(self, x, loss):
            raise RuntimeError("a model failed")

    model = Failing(network) if broken == "model" else Counter(network)
    attacks = [partial(attack, trained, "pgd_linf", e) for e in BUDGETS]
    attacks += [fails] if broken == "attack" else []
    before = threading.active_count()
    with pytest.raises((ValueError, RuntimeError), match=f"{broken} failed"):
        run_in_lockstep(model, attacks)
    assert threading.active_count() == before


def test_an_interrupt_while_threads_are_started_leaves_none(trained, network, monkeypatch):
    started, start = [], threading.Thread.start

    def interrupted(thread):
        if len(started) == 2:
            raise KeyboardInterrupt
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    attacks = [partial(attack, trained, "pgd_linf", e) for e in BUDGETS]
    with pytest.raises(KeyboardInterrupt):
        run_in_lockstep(BatchModel(network), attacks)
    assert len(started) == 2 and not any(thread.is_alive() for thread in started)
