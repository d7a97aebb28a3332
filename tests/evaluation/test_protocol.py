"""What is run: seeds, the noise control, and what does not apply to a model."""

from fractions import Fraction

import pytest

from evaluation import protocol
from evaluation.options import Options
from tests.evaluation.tiny import installed


def test_seeds_depend_on_case_and_attack_but_not_on_order_or_budget():
    def seed(**change):
        return protocol.EvaluationRun(
            **{
                "kind": "attack",
                "name": "pgd_linf",
                "norm": "linf",
                "epsilon": Fraction(1, 255),
                **change,
            }
        )

    base = seed().seed(0, "a")
    assert seed(epsilon=Fraction(2, 255)).seed(0, "a") == base
    assert (
        len(
            {
                base,
                seed(name="segpgd").seed(0, "a"),
                seed().seed(1, "a"),
                seed().seed(0, "b"),
                seed(norm="l2").seed(0, "a"),
            }
        )
        == 5
    )


def test_noise_is_the_control_in_every_norm_that_is_attacked():
    def norms(attacks, **more):
        runs, *_ = protocol.plan_runs(
            Options(attacks=attacks, corruptions=(), **more), ct=False, two_dimensional=True
        )
        return [
            (r.name, r.norm)
            for r in runs
            if r.name == "noise"
            and r.epsilon
            == min(e.epsilon for e in runs if e.norm == r.norm and e.epsilon is not None)
        ]

    assert norms(["noise", "pgd_linf"]) == [("noise", "linf")]
    assert norms(["noise", "pgd_l2", "apgd"]) == [("noise", "l2"), ("noise", "linf")]
    assert norms(["noise"]) == [("noise", "linf")]


def test_the_suite_runs_with_its_control_in_every_norm_that_has_budgets():
    def runs(attacks, **more):
        planned = protocol.plan_runs(
            Options(attacks=attacks, corruptions=(), **more), ct=False, two_dimensional=True
        )
        return list(dict.fromkeys((r.name, r.norm) for r in planned.runs if r.kind == "attack"))

    control = [("noise", "linf"), ("noise", "l2")]
    suite = [("worst-v2", "linf"), ("worst-v2_l2", "l2")]
    assert runs(["worst"]) == runs(["worst-v2"]) == runs(Options().attacks) == control + suite
    assert runs(["worst"], epsilons_l2=[]) == [control[0], suite[0]]
    assert runs(["worst"], epsilons=[]) == [control[1], suite[1]]
    in_hu = {"epsilon_unit": "original", "epsilons": [4]}
    assert runs(["worst"], **in_hu) == [control[0], suite[0]]
    assert runs(["worst-v2_l2"]) == [suite[1]]
    assert runs(["worst-v2_linf"]) == [("worst-v2_linf", "linf")]
    with pytest.raises(ValueError, match="attack worst-v2 has no budgets: give --epsilons or"):
        runs(["worst"], epsilons=["none"], epsilons_l2="none")
    assert runs(["worst", "apgd", "noise"]) == control + suite + [("apgd", "linf")]
    assert Options(attacks=["worst"]).suite == Options(attacks=["worst-v2_l2"]).suite == "worst-v2"
    assert Options(attacks=["apgd", "worst_linf"]).suite is None


def test_a_temperature_reaches_the_attack_that_has_one_in_both_norms():
    options = Options(
        attacks=["worst", "apgd", "apgd_dice", "apgd_dice_l2"], temperature=0.1, steps=3
    )
    planned = protocol.plan_runs(options, ct=False, two_dimensional=True)
    found = {r.name: dict(r.options) for r in planned.runs if r.kind == "attack"}
    assert found["apgd_dice"] == found["apgd_dice_l2"] == {"steps": 3, "temperature": 0.1}
    assert found["apgd"] == {"steps": 3} and found["worst-v2"] == {} == found["worst-v2_l2"]


@pytest.mark.parametrize(
    "options, said",
    [
        ({"attacks": ["fgsm"], "steps_of": {"fgsm": 5}}, "attack fgsm takes no steps"),
        ({"attacks": ["square", "noise"], "steps": 9}, "give --steps square=9"),
        ({"attacks": ["ssah"], "steps": 9}, "give --steps ssah=9"),
    ],
)
def test_steps_that_would_do_nothing_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        protocol.plan_runs(Options(**options), ct=False, two_dimensional=True)
    protocol.plan_runs(
        Options(attacks=["square", "pgd_linf"], steps=9), ct=False, two_dimensional=True
    )


@pytest.mark.skipif(not installed("torchattacks"), reason="needs torchattacks")
def test_steps_reach_torchattacks_and_are_counted():
    def of(name, **options):
        options = Options(attacks=[name], epsilons=["8/255"], **options)
        planned = protocol.plan_runs(options, ct=False, two_dimensional=True)
        return next(r for r in planned.runs if r.kind == "attack")

    plain, longer = of("torchattacks:PGD"), of("torchattacks:PGD", steps=30)
    named = of("torchattacks:PGD", steps_of={"torchattacks:PGD": 30})
    assert plain.gradients == 10 and dict(plain.options) == {}
    assert longer.gradients == named.gradients == 30
    assert dict(longer.options) == dict(named.options) == {"steps": 30}
    assert of("torchattacks:FGSM", steps=30).gradients == 1
    with pytest.raises(ValueError, match="torchattacks:FGSM takes no steps"):
        of("torchattacks:FGSM", steps_of={"torchattacks:FGSM": 3})


def test_what_does_not_apply_to_a_model_is_refused_by_name():
    facts = {"ct": False, "two_dimensional": True}
    with pytest.raises(ValueError, match="attack ssah needs a network with an .encoder"):
        protocol.plan_runs(Options(attacks=["ssah"]), **facts, has_encoder=False)
    if installed("torchattacks"):
        with pytest.raises(ValueError, match="torchattacks:PGD needs exclusive labels"):
            protocol.plan_runs(Options(attacks=["torchattacks:PGD"]), **facts, regions=True)
        with pytest.raises(
            ValueError, match="torchattacks:PGD needs epsilon in unit range, got normalized"
        ):
            protocol.plan_runs(
                Options(attacks=["torchattacks:PGD"], epsilon_unit="normalized", epsilons=[0.1]),
                **facts,
            )


def test_mr_has_corruptions_of_its_own_and_nothing_else_changes():
    def planned(names, **facts):
        options = Options(attacks=["noise"], corruptions=names)
        return protocol.plan_runs(options, **{"ct": False, "two_dimensional": True, **facts})

    def names(plan):
        return {r.name for r in plan.runs if r.kind == protocol.CORRUPTION}

    own = {"gibbs_ringing", "kspace_spike"}
    if installed("torchio"):
        own |= {"mr_motion", "mr_ghosting"}
    plain, of_mr = planned(["all"]), planned(["all"], mr=True)
    assert names(of_mr) - names(plain) == own == set(of_mr.of_mr)
    assert not plain.of_mr
    assert not set(plain.corruptions_left_out) & own  # of other data, 'all' never meant them
    assert names(planned(["kspace_spike"], mr=True)) == {"kspace_spike"}
    for facts in ({}, {"ct": True}):
        with pytest.raises(
            ValueError, match=r"gibbs_ringing does not apply .*needs MR \(channel_n"
        ):
            planned(["gibbs_ringing"], **facts)


def test_a_version_of_the_suite_draws_what_the_first_one_drew():
    """On cases with all labels the figures of all versions are the same."""
    runs = [
        protocol.plan_runs(Options(attacks=[name]), ct=False, two_dimensional=True)
        for name in ("worst-v1", "worst-v2")
    ]
    seeds = [[r.seed(3, "case") for r in of.runs if r.kind == "attack"] for of in runs]
    assert seeds[0] == seeds[1] and len(set(seeds[0])) > 1
