"""Several attacks at once, whose calls of the model share batches.

A network is slow on a batch of one small case, on a GPU more so than on a CPU. Attacks ask for one
call after another, so each gets a thread and a stand-in for the model that waits; once all that
still run are waiting, their cases are one batch. An attack that has ended, such as one whose Dice
is 0, leaves it.

What an attack finds is what it finds alone, but for the rounding of larger batches, which can turn
the sign of a gradient near 0, and with it what follows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nnunetv2_lngswr.attacks.best_iterate import AttackResult
from nnunetv2_lngswr.attacks.losses import LogitLoss, per_case
from nnunetv2_lngswr.attacks.models import DifferentiableModel

Attack = Callable[[DifferentiableModel], AttackResult]


def run_in_lockstep(model: DifferentiableModel, attacks: Sequence[Attack]) -> list[AttackResult]:
    """Run attacks that need logits and gradients only, each as if it had the model alone.

    Parameters
    ----------
    model
        What is attacked, by calls from this thread alone.
    attacks
        Functions of a model. Their cases have one shape (C, *spatial), and nothing that they change
        is shared.

    Returns
    -------
    list of AttackResult
        In the order of `attacks`.

    Raises
    ------
    BaseException
        What one of them, or the model, raised; the others are ended first.
    """
    return _Table(model, attacks).run()


@dataclass
class _Call:
    """A call of the model that an attack waits for."""

    x: torch.Tensor
    loss: LogitLoss | None
    """None: logits are asked for."""
    answer: Any = None


class _Ended(BaseException):
    """Ends an attack that waits for a call which will not be answered."""


class _Seat:
    """What one attack takes for the model; answers may be shared, and are not written to."""

    def __init__(self, ask: Callable[[_Call], Any]) -> None:
        self._ask = ask

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return self._ask(_Call(x, None))

    def value_and_gradient(
        self, x: torch.Tensor, loss: LogitLoss
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self._ask(_Call(x, loss))


class _Table:
    """Where attacks wait for each other."""

    def __init__(self, model: DifferentiableModel, attacks: Sequence[Attack]) -> None:
        self.model = model
        self.results: list[AttackResult | None] = [None] * len(attacks)
        self.errors: list[BaseException] = []
        self.calls: dict[int, _Call] = {}
        self.running, self.over = len(attacks), False
        self.changed = threading.Condition()
        self.threads = [
            threading.Thread(target=self._attack, args=(i, a), daemon=True)
            for i, a in enumerate(attacks)
        ]

    def run(self) -> list[AttackResult]:
        try:
            for thread in self.threads:
                thread.start()
            while calls := self._all_waiting():
                _answer(self.model, calls)
                with self.changed:
                    self.changed.notify_all()
        finally:
            with self.changed:
                self.over = True
                self.changed.notify_all()
            for thread in self.threads:
                if thread.ident is not None:  # it was started
                    thread.join()
        if self.errors:
            raise self.errors[0]
        return [r for r in self.results if r is not None]

    def _all_waiting(self) -> list[_Call]:
        """The next call of each that still runs, in their order; empty where all have ended."""
        with self.changed:
            self.changed.wait_for(lambda: self.errors or len(self.calls) == self.running)
            calls = [] if self.errors else [self.calls[i] for i in sorted(self.calls)]
            self.calls = {}
        return calls

    def _attack(self, number: int, attack: Attack) -> None:
        """One attack, in its thread."""
        found = error = None
        try:
            found = attack(_Seat(lambda call: self._ask(number, call)))
        except _Ended:
            pass
        except BaseException as raised:
            error = raised
        with self.changed:
            self.results[number] = found
            self.errors += [] if error is None else [error]
            self.running -= 1
            self.changed.notify_all()

    def _ask(self, number: int, call: _Call) -> Any:
        with self.changed:
            self.calls[number] = call
            self.changed.notify_all()
            self.changed.wait_for(lambda: call.answer is not None or self.over)
        if call.answer is None:
            raise _Ended
        return call.answer


def _answer(model: DifferentiableModel, calls: Sequence[_Call]) -> None:
    """Answer all, by one batch of logits and one of gradients."""
    _answer_logits(model, [c for c in calls if c.loss is None])
    ascending = [c for c in calls if c.loss is not None]
    if not ascending:
        return
    sizes = [len(c.x) for c in ascending]

    def loss(z: torch.Tensor) -> torch.Tensor:
        parts = zip(ascending, z.split(sizes))
        return torch.cat([per_case(c.loss(part)) for c, part in parts if c.loss is not None])

    found = model.value_and_gradient(torch.cat([c.x for c in ascending]), loss)
    for call, *answer in zip(ascending, *(part.split(sizes) for part in found)):
        call.answer = tuple(answer)


def _answer_logits(model: DifferentiableModel, calls: Sequence[_Call]) -> None:
    """Cases that are the same, such as the clean one for every budget, are forwarded once."""
    different: list[_Call] = []
    of_which: list[int] = []
    for call in calls:
        same = [i for i, d in enumerate(different) if torch.equal(d.x, call.x)]
        of_which.append(same[0] if same else len(different))
        different += [] if same else [call]
    if not different:
        return
    z = model.logits(torch.cat([c.x for c in different]))
    parts = z.split([len(c.x) for c in different])
    for call, i in zip(calls, of_which):
        call.answer = parts[i]
