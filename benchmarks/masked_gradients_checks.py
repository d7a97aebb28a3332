"""The checks of masked_gradients.py: what is run, by which rules it is judged, and the measuring.

Everything goes through the sliding window that the model deploys and the project's attacks, by
evaluation.run_case: Linf, epsilon as a fraction of the case's range, loss CE.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.masked_gradients_designed import designed, designed_cost, with_method
from benchmarks.model_pair import problem
from evaluation.inputs import CaseFiles
from evaluation.model.case import Case
from evaluation.model.folder import SegmentationModel
from evaluation.options import Options
from evaluation.protocol import EvaluationRun
from evaluation.rows import MEAN_LABEL
from evaluation.run_case import run_case
from nnunetv2_lngswr.attacks import Norm, ThreatModel, get_attack, run_attack
from nnunetv2_lngswr.attacks.geometry import (
    clip,
    project_onto_ball,
    random_direction,
    step_direction,
)
from nnunetv2_lngswr.attacks.losses import cross_entropy
from nnunetv2_lngswr.utils.epsilon import budget_text

TOLERANCE = 0.01
"""Of Dice; attacks are random and cases few."""
LEVEL = 0.02
"""Of Dice: a step sweep that still falls by more is unsettled."""
ZERO = 0.05
"""Of Dice: what counts as 0."""
GRADIENT_ERROR = 0.25
"""The largest relative error with which a gradient predicts a small step."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is run; budgets are fractions of the range."""

    epsilon: Fraction = Fraction(8, 255)
    """Of all checks but the radius."""
    attack: str = "pgd_linf"
    """The white-box attack of all checks; transferred perturbations are PGD's."""
    attack_steps: int = 10
    """Of the attack wherever its steps are not swept, and of transfer."""
    step_sweep: tuple[int, ...] = (1, 2, 5, 10, 20, 50)
    """Steps of the attack in the check of that name."""
    radii: tuple[Fraction, ...] = (
        Fraction(4, 255),
        Fraction(16, 255),
        Fraction(32, 255),
        Fraction(64, 255),
    )
    """Beside epsilon, in the check of the radius."""
    queries: int = 200
    """Of square."""
    grid: int = 5
    """Points per axis of the loss surface; odd, so that 0 is among them."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        if self.grid < 3 or self.grid % 2 == 0:
            raise ValueError(f"grid must be odd and at least 3, got {self.grid}")
        spec = get_attack(self.attack)
        if "steps" not in spec.tunable or not spec.uses_gradients or spec.own_steps:
            raise ValueError(f"attack must ascend a loss in steps, got {self.attack}")
        if not self.epsilon > 0 or not self.step_sweep:
            raise ValueError(
                "epsilon must be > 0 and step_sweep hold a number of steps, "
                f"got {self.epsilon} and {self.step_sweep}"
            )

    def runs(self) -> list[EvaluationRun]:
        """What evaluation.run_case is told to run.

        One name, hence one seed: the sweeps differ by steps or radius and not by their start.
        """
        sweep = sorted({*self.step_sweep, self.attack_steps})
        return [
            EvaluationRun(kind="clean", name="clean"),
            *(_attack(self.attack, self.epsilon, steps) for steps in sweep),
            *(
                _attack(self.attack, radius, self.attack_steps)
                for radius in sorted({*self.radii} - {self.epsilon})
            ),
            _attack("transfer", self.epsilon, self.attack_steps),
            _attack("square", self.epsilon, self.queries, gradients=0),
            _attack("noise", self.epsilon, None, gradients=0),
        ]

    def record(self) -> dict[str, Any]:
        """JSON-ready, with the rules."""
        values = dataclasses.asdict(self) | {
            "epsilon": budget_text(self.epsilon),
            "radii": [budget_text(r) for r in self.radii],
        }
        rules = {
            "tolerance": TOLERANCE,
            "level": LEVEL,
            "zero": ZERO,
            "gradient_error": GRADIENT_ERROR,
        }
        return {
            **values,
            "norm": Norm.LINF.value,
            "unit": "range",
            "mirroring": False,
            "rules": rules,
        }


def _attack(
    name: str, epsilon: Fraction, steps: int | None, *, gradients: int | None = None
) -> EvaluationRun:
    gradients = steps or 0 if gradients is None else gradients
    forwards = 1 if gradients else steps or 1
    options = {} if steps is None else {"steps": steps}
    return EvaluationRun(
        kind="attack",
        name=name,
        function=name,
        norm=Norm.LINF.value,
        epsilon=epsilon,
        options=options,
        forwards=forwards,
        gradients=gradients,
    )


def measure_case(
    model: SegmentationModel,
    other: SegmentationModel,
    files: CaseFiles,
    protocol: Protocol,
    advance: Callable[[float], None] = lambda cost: None,
) -> dict[str, Any]:
    """All checks on one case.

    Parameters
    ----------
    model, other
        The model, and the one that makes the transferred perturbations.
    files
        Of the case.
    protocol
        What is run.
    advance
        Hears the cost of what was done, in predictions.

    Returns
    -------
    dict
        {"case", "rows": [{"attack", "epsilon", "steps", "dice", "loss"}], "surface": as
        `loss_surface`, "adaptive": as `adaptive`, "designed": as `designed`}.
    """
    result = run_case(
        model, files, protocol.runs(), Options(seed=protocol.seed), surrogate=other, advance=advance
    )
    chosen = [
        r for r in result.rows if r["label"] == MEAN_LABEL and not r["attack"].startswith("worst")
    ]
    columns = {
        "attack": "attack",
        "epsilon": "epsilon_text",
        "steps": "steps",
        "dice": "dice",
        "loss": "attack_loss",
    }
    rows = [{name: r.get(column) for name, column in columns.items()} for r in chosen]
    case = model.preprocess(
        files.images, files.label, files.previous_stage, identifier=files.identifier
    )
    surface = loss_surface(model, case, protocol)
    found = {
        "case": case.identifier,
        "rows": rows,
        "surface": surface,
        "adaptive": adaptive(model, case),
        "designed": designed(model, other, case, protocol),
    }
    advance(surface_cost(protocol) + designed_cost(protocol))
    return found


def surface_cost(protocol: Protocol) -> float:
    """Of `loss_surface`, in predictions."""
    return protocol.grid**2 + 3.5 * (protocol.attack_steps + 4)


def loss_surface(model: SegmentationModel, case: Case, protocol: Protocol) -> dict[str, Any]:
    """The loss around a case, and how well its gradient predicts a small step.

    Returns
    -------
    dict
        "loss" [a][b]: CE on x + a PGD + b random, a in [0, 1] and b in [-1, 1], both of Linf size
        epsilon, clipped into [min, max]. "predicted" and "measured": change of the loss over 2 h
        along sign(gradient), h = epsilon / 32.
    """
    window, x, target = problem(model, case)
    ball = ThreatModel(norm=Norm.LINF, epsilon=float(protocol.epsilon)).ball(case.bounds)
    seed = EvaluationRun(kind="attack", name="surface").seed(protocol.seed, case.identifier)
    generator = torch.Generator().manual_seed(seed)
    found = run_attack(
        protocol.attack, window, x, target, ball, generator=generator, steps=protocol.attack_steps
    )
    random = project_onto_ball(x + ball.epsilon * random_direction(x, ball, generator), x, ball) - x

    def loss(at: torch.Tensor) -> float:
        return float(cross_entropy(window.logits(at), target))

    along, across = grid(protocol)
    losses = [
        [loss(clip(x + a * (found.perturbed - x) + b * random, ball.bounds)) for b in across]
        for a in along
    ]
    gradient = window.value_and_gradient(x, lambda z: cross_entropy(z, target))[1]
    # not clipped: the question is about the function, and voxels at the border of the range count
    step = ball.epsilon / 32 * step_direction(gradient, ball)
    return {
        "loss": losses,
        "predicted": 2 * float((gradient * step).sum()),
        "measured": loss(x + step) - loss(x - step),
    }


def grid(protocol: Protocol) -> tuple[list[float], list[float]]:
    """(a along PGD, b along the random direction) of the loss surface."""
    return np.linspace(0, 1, protocol.grid).tolist(), np.linspace(-1, 1, protocol.grid).tolist()


def adaptive(model: SegmentationModel, case: Case) -> dict[str, Any]:
    """Are the gains constants, and is the model deterministic?

    Returns
    -------
    dict
        "gains": reconstructions found. "difference": |gradient with the gains detached - full
        gradient| / |full|, None where the gradient is 0. "equal": whether logits and gradient come
        out bit-equal when evaluated again under another random state.
    """
    window, x, target = problem(model, case)

    def evaluate(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            _, gradient, z = window.value_and_gradient(x, lambda z: cross_entropy(z, target))
        return gradient, z

    full, z = evaluate(0)
    again, z_again = evaluate(1)
    with gains_detached(window.networks) as count:
        detached, _ = evaluate(0)
    norm = float(full.norm())
    difference = float((detached - full).norm())
    return {
        "gains": count,
        "difference": difference / norm if norm else None,
        "equal": bool(torch.equal(full, again) and torch.equal(z, z_again)),
    }


@contextmanager
def gains_detached(networks: Sequence[nn.Module]) -> Iterator[int]:
    """Within it, no gradient flows through the gains of any reconstruction; yields their number."""

    def made_of(gains: Callable) -> Callable:
        def detached(prior_gain: torch.Tensor | None = None) -> torch.Tensor:
            return gains(None if prior_gain is None else prior_gain.detach()).detach()

        return detached

    with with_method(networks, "gains", made_of) as count:
        yield count
