"""Soft Dice over the case against its formula written as loops, and its scale-free temperature."""

import math

import pytest
import torch

from nnunetv2_lngswr.attacks import LabelSpace, losses
from nnunetv2_lngswr.attacks.case_dice import case_dice_loss, lacks_a_label
from nnunetv2_lngswr.attacks.losses import soft_dice_loss
from nnunetv2_lngswr.utils.errors import UserError

SHAPE = (3, 4)
SOFTMAX = LabelSpace.softmax(3, ignore_label=3)
REGIONS = LabelSpace(heads=((1, 2), (2,)), regions=True, ignore_label=3)
SPACES = pytest.mark.parametrize("space", (SOFTMAX, REGIONS), ids=("softmax", "regions"))


def problem(space, labels=4):
    g = torch.Generator().manual_seed(0)
    z = 3 * torch.randn((2, len(space.heads), *SHAPE), generator=g, dtype=torch.float64)
    return z, torch.randint(0, labels, (2, *SHAPE), generator=g)


def voxels(space, z, y, case):
    """(logits of all heads, what each foreground head should say) of the counted voxels."""
    members = space.heads if space.regions else space.heads[1:]
    for i, j in torch.cartesian_prod(*[torch.arange(n) for n in SHAPE]).tolist():
        label = int(y[case, i, j])
        if label != space.ignore_label:
            yield z[case, :, i, j].tolist(), [label in values for values in members]


def probabilities(space, logits, t):
    if space.regions:
        return [1 / (1 + math.exp(-v / t)) for v in logits]
    e = [math.exp(v / t) for v in logits]
    return [v / sum(e) for v in e[1:]]


def margin(space, logits):
    if space.regions:
        return sum(abs(v) for v in logits) / len(logits)
    second, first = sorted(logits)[-2:]
    return first - second


def expected(space, z, y, case, t, scale_free=False):
    counted = list(voxels(space, z, y, case))
    if scale_free:
        t = t * sum(margin(space, logits) for logits, _ in counted) / len(counted)
    p = [probabilities(space, logits, t) for logits, _ in counted]
    dice = []
    for head in range(len(p[0])):
        there = [truth[head] for _, truth in counted]
        if any(there):
            found = [v[head] for v in p]
            overlap = sum(v for v, yes in zip(found, there) if yes)
            dice.append(2 * overlap / (sum(found) + sum(there)))
    if not dice:
        return sum(sum(v) for v in p) / (len(p) * len(p[0]))
    return 1 - sum(dice) / len(dice)


@SPACES
@pytest.mark.parametrize("labels", (4, 2), ids=("all labels", "one label absent"))
@pytest.mark.parametrize(
    ("t", "scale_free"), ((1.0, False), (2.5, False), (0.1, True), (0.4, True))
)
def test_loss_is_its_formula(space, labels, t, scale_free):
    z, y = problem(space, labels)
    if labels == 4:
        y[0] = y[0] % 2 + 2  # the first case holds the second label and ignored voxels only
    got = soft_dice_loss(t, scale_free=scale_free)(z, space.target(y))
    for case in range(2):
        value = expected(space, z, y, case, t, scale_free)
        assert math.isclose(float(got[case]), value, rel_tol=1e-9), case


def near(space, logits, mean_margin):
    """Of each foreground head: how near one voxel is to it."""
    if space.regions:
        return [1 / (1 + math.exp(-v / mean_margin)) for v in logits]
    over = [v - max(logits[:i] + logits[i + 1 :]) for i, v in enumerate(logits)]
    return [1 / (1 + math.exp(-v / mean_margin)) for v in over[1:]]


@SPACES
@pytest.mark.parametrize("labels", (4, 2, 1), ids=("all labels", "one absent", "both absent"))
def test_the_loss_of_a_case_counts_labels_that_it_lacks_by_how_near_they_are(space, labels):
    z, y = problem(space, labels)
    got = case_dice_loss(0.4, scale_free=True)(z, space.target(y))
    for case in range(2):
        counted = list(voxels(space, z, y, case))
        unit = sum(margin(space, logits) for logits, _ in counted) / len(counted)
        lacking = [not any(truth[h] for _, truth in counted) for h in range(2)]
        nearest = [max(near(space, logits, unit)[h] for logits, _ in counted) for h in range(2)]
        if all(lacking):
            value = max(nearest)
        else:
            there = 2 - sum(lacking)
            dice = there * (1 - expected(space, z, y, case, 0.4, scale_free=True))
            value = 1 - dice / (
                there + sum(n for n, is_lacking in zip(nearest, lacking) if is_lacking)
            )
        assert math.isclose(float(got[case]), value, rel_tol=1e-9), case


def test_of_two_heads_that_are_equal_each_has_a_gradient_towards_being_predicted():
    for tied in ((1.0, 1.0, 0.0), (1.0, 0.0, 1.0)):
        z = torch.tensor(tied, dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, *SHAPE).clone()
        z.requires_grad_()
        loss = case_dice_loss(0.4, scale_free=True)
        (gradient,) = torch.autograd.grad(
            loss(z, SOFTMAX.target(torch.zeros((1, *SHAPE), dtype=torch.long))).sum(), z
        )
        head = tied.index(1.0, 1)
        assert gradient[0, head].max() > 0


@SPACES
def test_where_no_label_lacks_the_loss_of_a_case_is_soft_dice(space):
    z, y = problem(space)
    target = space.target(y)
    assert not lacks_a_label(target).any()
    assert torch.equal(case_dice_loss(2.5)(z, target), soft_dice_loss(2.5)(z, target))
    y[1] = y[1] % 2
    assert lacks_a_label(space.target(y)).tolist() == [False, True]


@SPACES
def test_a_case_without_foreground_is_attacked_by_false_positives(space):
    z, y = problem(space, 1)
    target = space.target(y)
    got = soft_dice_loss(2.0)(z, target)
    for case in range(2):
        assert math.isclose(float(got[case]), expected(space, z, y, case, 2.0), rel_tol=1e-9)
    z.requires_grad_()
    (gradient,) = torch.autograd.grad(soft_dice_loss(2.0)(z, target).sum(), z)
    foreground = gradient if space.regions else gradient[:, 1:].sum(1)
    assert (foreground > 0).all()


def test_an_ignored_case_has_a_loss_and_no_gradient():
    z, _ = problem(SOFTMAX)
    target = SOFTMAX.target(torch.full((2, *SHAPE), 3))
    z.requires_grad_()
    value = losses.get_loss("scale_free_dice")(z, target)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    assert value.tolist() == [0, 0] and (gradient == 0).all()


@SPACES
@pytest.mark.parametrize("name", ("soft_dice", "scale_free_dice"))
def test_ignored_voxels_have_no_influence(name, space):
    z, y = problem(space)
    loss, target = losses.get_loss(name), space.target(y)
    ignored = (y == 3)[:, None].expand_as(z)
    other = torch.where(ignored, torch.full_like(z, 50.0), z)
    assert ignored.any() and torch.equal(loss(z, target), loss(other, target))


@SPACES
@pytest.mark.parametrize("factor", (500, 1 / 500))
def test_scale_free_loss_does_not_see_the_scale_of_the_logits(space, factor):
    z, y = problem(space)
    target = space.target(y)

    def value_and_gradient(loss, z):
        z = z.clone().requires_grad_()
        value = loss(z, target)
        return value.detach(), torch.autograd.grad(value.sum(), z)[0]

    free, fixed = soft_dice_loss(0.1, scale_free=True), soft_dice_loss(1.0)
    value, gradient = value_and_gradient(free, z)
    scaled_value, scaled_gradient = value_and_gradient(free, factor * z)
    assert torch.allclose(value, scaled_value, rtol=1e-9)
    assert torch.allclose(gradient, factor * scaled_gradient, rtol=1e-6, atol=1e-15)
    # the temperature carries no gradient: it is a number of the case
    scale = losses.mean_margin(z, target)
    fixed_gradient = [
        value_and_gradient(soft_dice_loss(0.1 * float(s)), z)[1][case]
        for case, s in enumerate(scale)
    ]
    assert torch.allclose(gradient, torch.stack(fixed_gradient), rtol=1e-9)
    assert not torch.allclose(fixed(z, target), fixed(factor * z, target), rtol=1e-2)


def test_equal_logits_have_a_finite_gradient():
    target = LabelSpace.softmax(2).target(torch.tensor([[0, 1, 1]]))
    z = torch.full((1, 2, 3), 7.0, requires_grad=True)
    value = losses.get_loss("scale_free_dice")(z, target).sum()
    (gradient,) = torch.autograd.grad(value, z)
    assert value.isfinite() and gradient.isfinite().all() and (gradient != 0).any()


@pytest.mark.parametrize(
    "temperature", (0, -1, 0.0, math.nan, math.inf, -math.inf, "2", None, True)
)
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(UserError, match="temperature must be a finite number > 0, got "):
        soft_dice_loss(temperature)
