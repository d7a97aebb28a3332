"""The verdicts of masked_gradients.py: means over cases, and the rules that judge them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.masked_gradients_checks import GRADIENT_ERROR, LEVEL, TOLERANCE, ZERO, Protocol
from benchmarks.masked_gradients_designed import OTHER_MODEL, OTHER_START
from benchmarks.model_pair import mean
from evaluation import significance
from nnunetv2_lngswr.utils.epsilon import budget_text, parse_budget

PASSES, UNSETTLED, MASKED = "passes", "unsettled", "masked"


def summarise(cases: Sequence[Mapping[str, Any]], protocol: Protocol) -> dict[str, Any]:
    """Means over the cases of `measure_case`.

    Each Dice is {"dice", "low", "high"}, with a 95% bootstrap interval over the cases.
    """
    draws = significance.resample(len(cases), seed=protocol.seed)

    def dice(
        attack: str, epsilon: Fraction | None = None, steps: int | None = None
    ) -> dict[str, float]:
        text = "" if epsilon is None else budget_text(epsilon)
        return over_cases([_row(c, attack, text, steps)["dice"] for c in cases])

    def over_cases(values: list[float]) -> dict[str, float]:
        low, high = significance.interval(np.array(values, float)[:, None], draws)
        return {"dice": mean(values), "low": low, "high": high}

    def designed(name: str) -> dict[str, float]:
        of_cases = [c["designed"][name] for c in cases]
        shares = [f["low_share"] for f in of_cases if f["low_share"] is not None]
        return {**over_cases([f["dice"] for f in of_cases]), "low_share": mean(shares)}

    e, steps = protocol.epsilon, protocol.attack_steps
    sweep, text = sorted({*protocol.step_sweep, steps}), budget_text(e)
    surface = np.array([c["surface"]["loss"] for c in cases], float)
    return {
        "clean": dice("clean"),
        "white_box": dice(protocol.attack, e, steps),
        "transfer": dice("transfer", e, steps),
        "square": dice("square", e, protocol.queries),
        "noise": dice("noise", e),
        "steps": {
            str(n): {
                **dice(protocol.attack, e, n),
                "loss": mean([_row(c, protocol.attack, text, n)["loss"] for c in cases]),
            }
            for n in sweep
        },
        "radii": {
            budget_text(r): dice(protocol.attack, r, steps) for r in sorted({*protocol.radii, e})
        },
        "surface": {"loss": surface.mean(0).tolist(), "gradient_error": _gradient_error(cases)},
        "adaptive": {
            "gains": cases[0]["adaptive"]["gains"],
            "difference": _largest([c["adaptive"]["difference"] for c in cases]),
            "equal": all(c["adaptive"]["equal"] for c in cases),
        },
        "designed": {name: designed(name) for name in cases[0]["designed"]},
    }


def _row(
    case: Mapping[str, Any], attack: str, epsilon: str, steps: int | None
) -> Mapping[str, Any]:
    return next(
        r
        for r in case["rows"]
        if (r["attack"], r["epsilon"]) == (attack, epsilon) and steps in (None, r["steps"])
    )


def _largest(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return max(known) if len(known) == len(values) else None


def _gradient_error(cases: Sequence[Mapping[str, Any]]) -> float | None:
    """Mean over cases of |predicted - measured| / |predicted|; None where a gradient is 0."""
    pairs = [(c["surface"]["predicted"], c["surface"]["measured"]) for c in cases]
    return None if any(p == 0 for p, _ in pairs) else mean([abs(p - m) / abs(p) for p, m in pairs])


def judge(figures: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """{check: {"verdict", "why"}} by the rules of masked_gradients.py.

    `figures`: of `summarise`, or of that form.
    """
    white, clean = figures["white_box"]["dice"], figures["clean"]["dice"]
    verdicts = {
        "transfer": _not_below(
            white,
            {
                "transfer": figures["transfer"]["dice"],
                OTHER_MODEL: figures["designed"][OTHER_MODEL]["dice"],
            },
        ),
        "black box": _not_below(white, {k: figures[k]["dice"] for k in ("square", "noise")}),
        "steps": _judge_steps({int(n): s["dice"] for n, s in figures["steps"].items()}, clean),
        "radius": _judge_radii({parse_budget(r): f["dice"] for r, f in figures["radii"].items()}),
        "surface": _judge_surface(
            np.array(figures["surface"]["loss"]), figures["surface"]["gradient_error"]
        ),
        "adaptive": _judge_adaptive(**figures["adaptive"]),
        "designed": _judge_designed(white, {k: f["dice"] for k, f in figures["designed"].items()}),
    }
    return {check: {"verdict": verdict, "why": why} for check, (verdict, why) in verdicts.items()}


def _not_below(white: float, others: Mapping[str, float]) -> tuple[str, str]:
    verdict = PASSES if all(white <= other + TOLERANCE for other in others.values()) else MASKED
    return verdict, f"white box {percent(white)}, " + ", ".join(
        f"{k} {percent(v)}" for k, v in others.items()
    )


def _judge_steps(dice: Mapping[int, float], clean: float) -> tuple[str, str]:
    curve = [dice[n] for n in sorted(dice)]
    why = f"clean {percent(clean)}, then " + ", ".join(percent(d) for d in curve)
    if curve[-1] > clean - TOLERANCE:
        return MASKED, f"{why}: the longest attack does nothing"
    if curve[-1] > curve[0] + TOLERANCE:
        return MASKED, f"{why}: iterating makes the attack weaker"
    if any(b > a + TOLERANCE for a, b in pairwise(curve)):
        return UNSETTLED, f"{why}: rises on the way"
    if len(curve) > 1 and curve[-2] - curve[-1] > LEVEL:
        return UNSETTLED, f"{why}: still falling"
    return PASSES, why


def _judge_radii(dice: Mapping[Fraction, float]) -> tuple[str, str]:
    curve = [dice[r] for r in sorted(dice)]
    why = ", ".join(f"{budget_text(r)}: {percent(dice[r])}" for r in sorted(dice))
    if curve[-1] > ZERO:
        return MASKED, f"{why}: not 0 at the largest"
    rises = any(b > max(a + TOLERANCE, ZERO) for a, b in pairwise(curve))
    return (UNSETTLED, f"{why}: rises on the way") if rises else (PASSES, why)


def _judge_surface(loss: np.ndarray, error: float | None) -> tuple[str, str]:
    middle = loss.shape[1] // 2
    along, across = loss[:, middle], loss[0]
    why = f"loss {along[0]:.3f}, PGD {along[-1]:.3f}, random {max(across[0], across[-1]):.3f}"
    if error is None:
        return MASKED, f"{why}; a gradient is 0"
    why += f"; gradient's error {percent(error)}"
    if error > GRADIENT_ERROR:
        return MASKED, f"{why}: the gradient does not predict the loss"
    if along[-1] <= across.max():
        return MASKED, f"{why}: the gradient's direction is no worse than chance"
    return (UNSETTLED, f"{why}; falls on the way") if (np.diff(along) < 0).any() else (PASSES, why)


def _judge_adaptive(*, gains: int, difference: float | None, equal: bool) -> tuple[str, str]:
    shown = "no gradient" if difference is None else f"difference {difference:.2g}"
    again = "bit-equal" if equal else "different"
    why = f"{gains} reconstructions, {shown}; evaluated again: {again}"
    if not equal:
        return MASKED, why
    return (PASSES if difference in (0, None) else UNSETTLED), why


def _judge_designed(white: float, dice: Mapping[str, float]) -> tuple[str, str]:
    by_method = {k: v for k, v in dice.items() if k not in (OTHER_START, OTHER_MODEL)}
    verdict, _ = _not_below(min(white, dice[OTHER_START]), by_method)
    return verdict, _not_below(white, {OTHER_START: dice[OTHER_START], **by_method})[1]


def percent(value: float) -> str:
    """'98.4' for 0.984."""
    return f"{100 * value:.1f}"
