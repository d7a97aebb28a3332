"""The attacks of one case, as many at once as fit into a network call."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from evaluation.model.sliding_window import SlidingWindow
from evaluation.options import LINF, Options
from evaluation.protocol import GRADIENT_COST, EvaluationRun
from nnunetv2_lngswr.attacks import ATTACKS, AttackResult, Bounds, ThreatModel, run_attack
from nnunetv2_lngswr.attacks.lockstep import run_in_lockstep
from nnunetv2_lngswr.attacks.losses import SegmentationTarget
from nnunetv2_lngswr.attacks.models import DifferentiableModel


@dataclass(kw_only=True)
class CaseAttacks:
    """What attacks found on a case. Those to come are run beside the one that is asked for."""

    identifier: str
    x: torch.Tensor
    """(1, C, *spatial), preprocessed."""
    target: SegmentationTarget
    bounds: Bounds
    window: DifferentiableModel
    surrogate: DifferentiableModel | None
    options: Options
    to_come: Sequence[EvaluationRun] = ()
    """Runs of the case in their order, those that are no attacks too."""
    # by id(run): a sweep of steps is several runs of one title
    _found: dict[int, AttackResult] = field(default_factory=dict)
    _owed: dict[int, float] = field(default_factory=dict)

    def result(self, run: EvaluationRun) -> AttackResult:
        """What an attack finds at its budget; asked for once."""
        if id(run) not in self._found:
            self._run(run)
        return self._found.pop(id(run))

    def owed(self, run: EvaluationRun) -> float:
        """Seconds to add to what a run took: its share of common calls, less those of others."""
        return self._owed.pop(id(run), 0.0)

    def _run(self, run: EvaluationRun) -> None:
        together = self._beside(run)
        started = time.perf_counter()
        if len(together) == 1:
            results = [self._attack(run, self.window)]
        else:
            results = run_in_lockstep(self.window, [partial(self._attack, r) for r in together])
        seconds = time.perf_counter() - started
        calls = [r.forwards + GRADIENT_COST * r.gradients for r in results]
        self._found |= {id(r): found for r, found in zip(together, results)}
        self._owed |= {id(r): seconds * c / (sum(calls) or 1) for r, c in zip(together, calls)}
        self._owed[id(run)] -= seconds

    def _beside(self, run: EvaluationRun) -> list[EvaluationRun]:
        """The run, and those after it that share its batches."""
        waiting = [r for r in self.to_come if _shares_calls(r)]
        first = next((i for i, r in enumerate(waiting) if r is run), None)
        if first is None:
            return [run]
        return waiting[first : first + cases_at_once(self.window, self.x)]

    def _attack(self, run: EvaluationRun, window: DifferentiableModel) -> AttackResult:
        arguments = dict(run.options)
        if isinstance(self.window, SlidingWindow) and run.function.startswith("ssah"):
            arguments["axes"] = len(self.window.patch_size)  # of a volume's slices: not across them
        if self.surrogate is not None and run.function == "transfer":
            arguments["surrogate"] = self.surrogate
        threat = ThreatModel(
            norm=run.norm or LINF, epsilon=float(run.epsilon or 0), unit=self.options.epsilon_unit
        )
        return run_attack(
            run.function,
            window,
            self.x,
            self.target,
            threat.ball(self.bounds),
            generator=torch.Generator().manual_seed(run.seed(self.options.seed, self.identifier)),
            **arguments,
        )


def cases_at_once(window: DifferentiableModel, x: torch.Tensor) -> int:
    """How many attacks on a case x (1, C, *spatial) share network calls, at least 1."""
    return window.cases_per_call(x) if isinstance(window, SlidingWindow) else 1


def _shares_calls(run: EvaluationRun) -> bool:
    """Whether a run is an attack that asks the model for logits and gradients alone."""
    spec = ATTACKS.get(run.function) if run.kind == "attack" else None
    return spec is not None and not spec.needs_features and not spec.needs_surrogate
