"""What the report says against an attack: no finite loss, no convergence, another one that did."""

import json
import math

import pytest
import torch

from evaluation.model.sliding_window import SlidingWindow
from evaluation.report import strength
from evaluation.rows import MEAN_LABEL
from tests.evaluation.report.rows import all_rows, row
from tests.evaluation.tiny import run

CASES = ("a", "b", "c", "d")


def attacked(attack, dice, *, norm="linf", epsilon=8 / 255, steps=10, **extras):
    """Rows of the foreground mean of one run, a Dice for each case; extras likewise."""
    return [
        row(
            case,
            "attack",
            attack,
            value,
            norm=norm,
            epsilon=epsilon,
            label=MEAN_LABEL,
            steps=steps,
            extras=json.dumps({k: v[i] for k, v in extras.items() if v[i] is not None}),
        )
        for i, (case, value) in enumerate(zip(CASES, dice))
    ]


def test_nothing_is_said_of_sound_attacks():
    rows = attacked("pgd_linf", [0.5] * 4, late_fall=[0.0, 0.02, 0.0, 0.01])
    rows += attacked("apgd", [0.45, 0.5, 0.41, 0.5], late_fall=[0.0] * 4)
    assert strength.checks(rows) == [] == strength.checks(all_rows())


def test_losses_that_are_not_finite_fail_the_check_of_their_run():
    rows = attacked("pgd_linf", [0.5] * 4, non_finite=[None, 3, 1, None])
    rows += attacked("pgd_linf", [0.5] * 4, epsilon=4 / 255)
    (line,) = strength.checks(rows)
    assert line.startswith(
        "Check failed: pgd_linf 8/255 met losses or gradients that are not finite, 4 in all, in 2 "
        "of 4 cases (b first)"
    )
    assert "--autocast" in line
    # also of the control, which no other line is about
    (line,) = strength.checks(attacked("noise", [0.5] * 4, non_finite=[1, None, None, None]))
    assert line.startswith("Check failed: noise (linf) 8/255 met losses")


def test_an_attack_that_still_falls_has_not_converged():
    rows = attacked("pgd_linf", [0.5] * 4, late_fall=[0.0, 0.0, 0.0, 0.05])
    rows += attacked("apgd", [0.5] * 4, steps=40, late_fall=[0.0, None, 0.0, 0.02])
    (line,) = strength.checks(rows)
    assert line == (
        "Warning: pgd_linf 8/255 has not converged: Dice fell by 1.2 points over the last quarter "
        "of its steps, mean over 4 cases. Raise --steps (now 10)."
    )
    assert strength.checks(attacked("noise", [0.5] * 4, late_fall=[0.1] * 4)) == []
    # --steps N alone is not of it
    (line,) = strength.checks(attacked("square", [0.5] * 4, steps=200, late_fall=[0.1] * 4))
    assert line.endswith("Raise --steps square=N (now 200).")


def test_attacks_that_disagree_are_named_with_the_case():
    rows = attacked("pgd_linf", [0.64, 0.5, 0.8, math.nan], late_fall=[0.0] * 4)
    rows += attacked("apgd_dice", [0.0, 0.45, 0.69, 0.0], late_fall=[0.0] * 4)
    # at another budget and in another norm they agree
    rows += attacked("pgd_linf", [0.9] * 4, epsilon=4 / 255, late_fall=[0.0] * 4)
    rows += attacked("pgd_l2", [0.1] * 4, norm="l2", late_fall=[0.0] * 4)
    (line,) = strength.checks(rows)
    assert line == (
        "Warning: attacks at linf 8/255 differ by more than 10 points of Dice in 2 of 4 cases, "
        "most in a: pgd_linf 64.0, apgd_dice 0.0. Quote worst_linf, and raise --steps or "
        "--restarts of pgd_linf where it is to stand alone."
    )


def test_a_suite_that_still_falls_is_told_where_to_look_since_nothing_of_it_can_be_raised():
    for name, norm in (("worst-v1", "linf"), ("worst-v1_l2", "l2")):
        rows = attacked(name, [0.5] * 4, norm=norm, steps=None, late_fall=[0.0, 0.0, 0.0, 0.06])
        (line,) = strength.checks(rows)
        title, longer = {
            "linf": ("worst-v1 (linf)", "apgd_dice"),
            "l2": ("worst-v1_l2", "apgd_dice_l2"),
        }[norm]
        assert line == (
            f"Warning: {title} 8/255 has not converged: Dice fell by 1.5 points over the last "
            "quarter of its steps, mean over 4 cases. Look further beside the suite: "
            f"--attacks worst {longer} --steps 200."
        )


def test_a_suite_that_another_attack_beats_is_not_to_be_quoted_alone():
    rows = attacked("worst-v1", [0.5] * 4, steps=None, late_fall=[0.0] * 4)
    rows += attacked("apgd_dice", [0.5, 0.5, 0.5, 0.3], late_fall=[0.0] * 4)
    (line,) = strength.checks(rows)
    assert line.endswith(
        "in 1 of 4 cases, most in d: worst-v1 50.0, apgd_dice 30.0. Quote worst_linf, not worst-v1 "
        "alone."
    )


def test_members_of_a_suite_that_differ_are_named_with_the_case():
    # the first is too close; the second is at 0, where nothing is left to find
    after = {"dice_after_dice": [0.5, 0.5, 0.6, 0.6], "dice_after_dice_on": [0.41, 0.0, 0.45, 0.2]}
    dice = after["dice_after_dice_on"]
    (line,) = strength.checks(attacked("worst-v1", dice, late_fall=[0.0] * 4, **after))
    assert line == (
        "Warning: the members of worst-v1 (linf) 8/255 differ by more than 10 points of Dice in 2 "
        "of 4 cases, most in d: dice 60.0, dice_on 20.0. Look further beside the suite: "
        "--attacks worst apgd_dice --steps 200."
    )
    # an undefined Dice is no figure, and reports of other attacks have none
    after["dice_after_dice"] = [0.5, 0.5, None, None]
    assert strength.checks(attacked("worst-v1", dice, **after)) == []
    assert strength.checks(attacked("apgd_dice", dice, **after)) == []


@pytest.mark.parametrize("weak", ("noise", "fgsm", "transfer", "square"))
def test_controls_and_single_steps_are_no_measure_of_agreement(weak):
    rows = attacked("pgd_linf", [0.1] * 4, late_fall=[0.0] * 4)
    rows += attacked(weak, [0.9] * 4, late_fall=[None if weak == "fgsm" else 0.0] * 4)
    assert strength.checks(rows) == []


def test_an_evaluation_keeps_how_far_each_attack_fell_at_last(finished):
    rows = [r for r in finished.rows() if r["kind"] == "attack" and r["label"] == MEAN_LABEL]
    for r in rows:
        extras = json.loads(r["extras"] or "{}")
        assert set(extras) == ({"late_fall"} if r["attack"] == "pgd_linf" else set())
    assert set(strength.checks(finished.rows())) <= {*finished.summary["checks"]}


def test_an_evaluation_with_losses_that_are_not_finite_fails_its_check(
    world, tmp_path, monkeypatch
):
    exact, calls = SlidingWindow.value_and_gradient, []

    def overflowing(self, x, loss):
        calls.append(1)
        value, gradient, z = exact(self, x, loss)
        return (value * math.nan, gradient, z) if len(calls) == 1 else (value, gradient, z)

    monkeypatch.setattr(SlidingWindow, "value_and_gradient", overflowing)
    out = tmp_path / "out"
    result = run(world, out, attacks=["pgd_linf"], epsilons=["16/255"], corruptions=[])
    first = next(r for r in result.rows() if r["kind"] == "attack")
    assert json.loads(first["extras"])["non_finite"] == 1
    failed = "Check failed: pgd_linf 16/255 met losses or gradients that are not finite, 1 in all"
    assert any(line.startswith(failed) for line in result.summary["checks"])
    assert failed in (out / "report.md").read_text()
    assert torch.isfinite(torch.tensor([r["dice"] for r in result.rows()])).all()
