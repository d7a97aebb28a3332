"""Each loss against its formula written as a loop over voxels."""

import math
from dataclasses import replace

import pytest
import torch

from nnunetv2_lngswr.attacks import LabelSpace, losses

SHAPE = (3, 4)
SOFTMAX = LabelSpace.softmax(3, ignore_label=3)
REGIONS = LabelSpace(heads=((1, 2), (2,)), regions=True, ignore_label=3)


def problem(space):
    g = torch.Generator().manual_seed(0)
    z = 3 * torch.randn((2, len(space.heads), *SHAPE), generator=g, dtype=torch.float64)
    y = torch.randint(0, 4, (2, *SHAPE), generator=g)
    return z, y


def voxels(space, z, y, case):
    """(probabilities, truth, right) per counted voxel and region, which is a two-class problem."""
    for at in torch.cartesian_prod(*[torch.arange(n) for n in SHAPE]).tolist():
        label = int(y[(case, *at)])
        if label == space.ignore_label:
            continue
        values = z[(case, slice(None), *at)]
        if space.regions:
            for k, members in enumerate(space.heads):
                p, truth = torch.sigmoid(values[k]), float(label in members)
                yield (
                    torch.stack([p, 1 - p]),
                    torch.tensor([truth, 1 - truth]),
                    (values[k] > 0) == bool(truth),
                )
        else:
            truth = torch.zeros(3)
            truth[label] = 1
            yield torch.softmax(values, 0), truth, int(values.argmax()) == label


def ce(p, t):
    return -float((t * p.log()).sum())


def js(p, t):
    m = (p + t) / 2

    def kl(a, b):
        return sum(float(i) * math.log(float(i) / float(j)) for i, j in zip(a, b) if i > 0)

    return 0.5 * kl(p, m) + 0.5 * kl(t, m)


def cosine(p, t):
    return float((p * t).sum() / (p.norm() * t.norm()))


PER_VOXEL = {
    "ce": (losses.cross_entropy, lambda p, t, right: ce(p, t)),
    "masked_ce": (losses.masked_cross_entropy, lambda p, t, right: right * ce(p, t)),
    "js": (losses.jensen_shannon, lambda p, t, right: js(p, t)),
    "cospgd": (losses.cospgd_loss, lambda p, t, right: cosine(p, t) * ce(p, t)),
    "segpgd": (losses.segpgd_loss(0.2), lambda p, t, right: (0.8 if right else 0.2) * ce(p, t)),
}


@pytest.mark.parametrize("space", (SOFTMAX, REGIONS), ids=("softmax", "regions"))
def test_dice_and_cross_entropy_are_nnunets_sum_over_counted_voxels(space):
    z, y = problem(space)
    got = losses.dice_cross_entropy(z, space.target(y))
    heads = 2  # of the foreground, in both
    for case in range(2):
        overlap, size, entropies = [0.0] * heads, [0.0] * heads, []
        for number, (p, t, _) in enumerate(voxels(space, z, y, case)):
            entropies.append(ce(p, t))
            of = [(number % heads, 0)] if space.regions else [(k, k + 1) for k in range(heads)]
            for head, at in of:
                overlap[head] += float(p[at] * t[at])
                size[head] += float(p[at] + t[at])
        dice = [(2 * o + 1e-5) / (s + 1e-5) for o, s in zip(overlap, size)]
        expected = sum(entropies) / len(entropies) + 1 - sum(dice) / heads
        assert math.isclose(float(got[case]), expected, rel_tol=1e-6)


@pytest.mark.parametrize("space", (SOFTMAX, REGIONS), ids=("softmax", "regions"))
@pytest.mark.parametrize("name", PER_VOXEL)
def test_loss_is_the_mean_of_its_formula_over_counted_voxels(name, space):
    loss, formula = PER_VOXEL[name]
    z, y = problem(space)
    got = loss(z, space.target(y))
    for case in range(2):
        values = [formula(p, t, bool(right)) for p, t, right in voxels(space, z, y, case)]
        assert math.isclose(float(got[case]), sum(values) / len(values), rel_tol=1e-6)


@pytest.mark.parametrize("space", (SOFTMAX, REGIONS), ids=("softmax", "regions"))
@pytest.mark.parametrize("name", [*PER_VOXEL, "dice_ce"])
def test_ignored_voxels_have_no_influence(name, space):
    loss = PER_VOXEL[name][0] if name in PER_VOXEL else losses.dice_cross_entropy
    z, y = problem(space)
    z.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(z, space.target(y)).sum(), z)
    ignored = (y == 3)[:, None].expand_as(z)
    assert ignored.any() and (gradient[ignored] == 0).all() and (gradient[~ignored] != 0).any()


def test_weights_of_cospgd_and_segpgd_carry_no_gradient_and_act_per_voxel():
    # gradient at a voxel = its own weight times the CE gradient there: a global mean of the weights
    # would give another ratio
    z, y = problem(SOFTMAX)
    target = SOFTMAX.target(y)
    z.requires_grad_()
    (plain,) = torch.autograd.grad(losses.cross_entropy(z, target).sum(), z)
    for loss, weight in (
        (losses.cospgd_loss, losses.cosine_map(z, target)),
        (losses.segpgd_loss(0.1), losses.correct_map(z, target) * 0.8 + 0.1),
    ):
        (weighted,) = torch.autograd.grad(loss(z, target).sum(), z)
        assert torch.allclose(weighted, weight * plain, rtol=1e-9, atol=1e-12)
        assert weight.std() > 0.1


def test_losses_are_finite_and_have_gradients_at_extreme_logits():
    target = LabelSpace.softmax(2).target(torch.tensor([[0, 1]]))
    z = torch.tensor([[[200.0, 200.0], [-200.0, -200.0]]], requires_grad=True)
    for name, loss in losses.LOSSES.items():
        value = loss(z, target).sum()
        (gradient,) = torch.autograd.grad(value, z)
        assert torch.isfinite(value) and torch.isfinite(gradient).all(), name


def test_minus_one_counts_as_background_and_unknown_labels_are_named():
    space = LabelSpace.softmax(2)
    assert torch.equal(
        space.target(torch.tensor([[-1, 1]])).one_hot, space.target(torch.tensor([[0, 1]])).one_hot
    )
    with pytest.raises(ValueError, match=r"labels \[7\]"):
        space.target(torch.tensor([[0, 7]]))


def test_label_space_follows_nnunets_label_manager():
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    expected = replace(REGIONS, class_order=(1, 2))
    assert LabelSpace.from_label_manager(LabelManager(labels, [1, 2])) == expected
    plain = LabelManager({"background": 0, "a": 1, "b": 2, "ignore": 3}, None)
    assert LabelSpace.from_label_manager(plain) == SOFTMAX
    with pytest.raises(ValueError, match="did you mean"):
        losses.get_loss("masked_cee")
