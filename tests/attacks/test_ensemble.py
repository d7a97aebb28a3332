"""A standard suite, run as one attack."""

import dataclasses
import inspect

import pytest
import torch

from nnunetv2_lngswr.attacks import (
    BatchModel,
    Bounds,
    LabelSpace,
    ThreatModel,
    get_attack,
    run_attack,
)
from nnunetv2_lngswr.attacks.hard_dice import foreground_dice
from nnunetv2_lngswr.attacks.suites import (
    SUITES,
    evaluations_of,
    full_name,
    seeded_as,
    suites_among,
    words_of_before,
)
from nnunetv2_lngswr.utils.errors import UserError
from tests.attacks.problems import SPACE

EPSILON = 0.15


class Counter(BatchModel):
    """Counts the cases of every call."""

    def __init__(self, network):
        super().__init__(network)
        self.cases = []

    def _forward(self, x):
        self.cases.append(len(x))
        return super()._forward(x)


def attack(trained, name="worst-v1", *, epsilon=EPSILON, model=None, x=None, seed=0, **options):
    network, clean, y = trained[2]
    ball = ThreatModel(norm="linf", epsilon=epsilon).ball(Bounds.of(clean))
    x = clean if x is None else x
    generator = torch.Generator().manual_seed(seed)
    model = BatchModel(network) if model is None else model
    return run_attack(name, model, x, SPACE.target(y), ball, generator=generator, **options)


def test_all_versions_draw_the_first_ones_random_numbers():
    assert seeded_as("worst-v2") == seeded_as("worst-v1") == "worst-v1"
    assert seeded_as("worst-v2_l2") == "worst-v1_l2" and seeded_as("apgd_dice") == "apgd_dice"
    assert words_of_before(["--attacks", "worst", "noise"]) == ["--attacks", "worst-v1", "noise"]


def test_the_newest_version_and_the_names():
    assert full_name("worst") == "worst-v2" and full_name("pgd_linf") == "pgd_linf"
    assert full_name("worst-v1_l2") == "worst-v1_l2" and full_name("worst_linf") == "worst_linf"
    for wrong in ("worst-v0", "worst-v9", "worst-", "worst-v1_l1"):
        with pytest.raises(UserError, match=f"unknown suite '{wrong}'; there are worst-v1"):
            full_name(wrong)
    assert suites_among(["noise", "worst-v1_l2", "worst-v1", "apgd"]) == ["worst-v1"]


@pytest.mark.parametrize("suite", SUITES)
def test_members_are_attacks_of_every_norm_whose_names_differ(suite):
    members = SUITES[suite]
    assert len({m.name for m in members}) == len(members)
    for member in members:
        spec = get_attack(member.attack)
        taken = inspect.signature(spec.function).parameters
        assert len(spec.norms) == 2 and {*member.options} <= set(taken)
        assert not member.goes_on or "start" in taken
    assert get_attack(suite).evaluations == evaluations_of(suite)


def test_it_is_the_chain_of_its_members(trained):
    network, x, y = trained[2]
    ball = ThreatModel(norm="linf", epsilon=EPSILON).ball(Bounds.of(x))
    generator = torch.Generator().manual_seed(0)
    found = None
    for member in SUITES["worst-v1"]:
        start = {"start": found.perturbed} if member.goes_on else {}
        found = run_attack(
            member.attack,
            BatchModel(network),
            x,
            SPACE.target(y),
            ball,
            generator=generator,
            **{**member.options, **start},
        )
    suite = attack(trained)
    assert not (suite.dice == 0).any()  # else cases would have left the batch
    assert torch.equal(suite.perturbed, found.perturbed) and torch.equal(suite.dice, found.dice)
    assert suite.settings["suite"] == suite.attack == "worst-v1"
    assert (suite.forwards, suite.gradients) == evaluations_of("worst-v1")
    # whether it has converged is told by the last quarter of all candidates, not of its members
    assert len(suite.dice_history) > 20 and torch.equal(suite.best_dice_history[-1], suite.dice)


def test_dice_after_each_member_never_rises_and_ends_at_what_is_returned(trained):
    result = attack(trained)
    after = [result.extras[f"dice_after_{m.name}"] for m in SUITES["worst-v1"]]
    assert all((b <= a).all() for a, b in zip(after, after[1:]))
    assert torch.equal(after[-1], result.dice) and (after[0] < 0.9).all()
    z = trained[2][0](result.perturbed).detach()
    assert torch.equal(foreground_dice(z, SPACE.target(trained[2][2])), result.dice)


def test_cases_at_zero_leave_the_batch(trained):
    network, clean, y = trained[2]
    epsilon, rest = 0.4, len(clean) - 1
    # the first case is lost before any attack
    x = torch.cat([-clean[:1], clean[1:]])
    assert foreground_dice(network(x).detach(), SPACE.target(y))[0] == 0
    model = Counter(network)
    result = attack(trained, model=model, epsilon=epsilon, x=x)
    assert result.dice[0] == 0 and torch.equal(result.perturbed[0], x[0])
    # the clean cases and the point after each member are judged with all of them
    whole = [n for n in model.cases if n == len(clean)]
    assert len(whole) <= 1 + len(SUITES["worst-v1"]) and rest in model.cases
    assert result.dice_history[1:-1, 0].isnan().any() and result.late_fall[0] == 0
    assert not result.dice_history[:, 1].isnan().all()


class Greys(torch.nn.Module):
    """Label 1 is bright; label 2 an area a little darker than the background, which neither noise
    nor what harms label 1 makes of it."""

    def forward(self, x):
        area = torch.nn.functional.avg_pool2d(x, 5, 1, 2, count_include_pad=False)
        return torch.cat([torch.zeros_like(x), 20 * (x - 0.5), 1 - 40 * (area - 0.2).abs()], 1)


def bright_and_grey():
    """(images, labels): a bright square; the second case has a dark area too."""
    x = torch.full((2, 1, 16, 16), 0.3)
    x[:, :, 1:5, 1:5] = 0.9
    x[0, :, 12, 12] = 0.2
    x[1, :, 9:] = 0.2
    return x, Greys()(x).argmax(1)


def attack_greys(name, cases, epsilon, model):
    x, y = (of[:cases] for of in bright_and_grey())
    ball = ThreatModel(norm="linf", epsilon=epsilon).ball(Bounds.of(x))
    generator = torch.Generator().manual_seed(0)
    target = LabelSpace.softmax(3).target(y)
    return run_attack(name, model, x, target, ball, generator=generator)


@pytest.mark.parametrize("name, leaves", [("worst-v1", 1.0), ("worst-v2", 0.5)])
def test_a_label_that_a_case_lacks_is_gone_after_from_the_second_version_on(name, leaves):
    assert attack_greys(name, 1, 0.15, BatchModel(Greys())).dice.tolist() == [leaves]


def test_on_cases_with_all_labels_the_second_version_is_the_first(trained):
    first, second = (attack(trained, name) for name in ("worst-v1", "worst-v2"))
    assert torch.equal(first.perturbed, second.perturbed) and torch.equal(first.dice, second.dice)
    assert (first.forwards, first.gradients) == (second.forwards, second.gradients)
    assert torch.equal(second.extras["dice_after_absent"], second.dice)


def test_members_for_cases_that_lack_a_label_are_run_on_these_alone():
    found = attack_greys("worst-v2", 2, 0.15, BatchModel(Greys()))
    on, absent = (found.extras[f"dice_after_{name}"] for name in ("dice_on", "absent"))
    assert absent[0] < on[0] and absent[1] == on[1]
    judged = (~found.dice_history.isnan()).sum(0)
    assert judged[0] - judged[1] == SUITES["worst-v2"][-1].gradients


def test_a_label_that_falls_late_says_nothing_of_how_far_the_others_have_converged():
    found = attack_greys("worst-v2", 1, 0.15, BatchModel(Greys()))
    falls_at_the_end = found.dice_history.clone()
    falls_at_the_end[-1] = 0.1
    late = dataclasses.replace(found, dice_history=falls_at_the_end)
    assert late.late_fall.tolist() == [0.0]
    assert dataclasses.replace(late, late_fall_of=None).late_fall.item() > 0.3
