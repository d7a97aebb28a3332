"""Adversarial training on one batch: the attack is the evaluation's, crafting leaves no trace."""

import copy
import dataclasses

import pytest
import torch

from evaluation.model.sliding_window import SlidingWindow
from nnunetv2_lngswr.attacks import BatchModel, Bounds, LabelSpace, ThreatModel, run_attack
from nnunetv2_lngswr.attacks.geometry import random_start, step_direction
from nnunetv2_lngswr.attacks.losses import cross_entropy
from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.method.network import attach, find_lngswr
from nnunetv2_lngswr.training.adversarial_batch import (
    attacked_samples,
    batch_target,
    craft,
)
from tests import model_folders
from tests.model_folders import make_network
from tests.training.crafting import SPACE, ball_of, crafted


@pytest.mark.parametrize("steps", (1, 2, 5))
@pytest.mark.parametrize("norm", ("linf", "l2"))
@pytest.mark.parametrize("dimension", (2, 3))
def test_inner_attack_is_the_evaluations_on_one_window_cases(trained, dimension, norm, steps):
    network, x, y = trained[dimension]
    window = SlidingWindow([network], patch_size=x.shape[2:], window_batch_size=len(x))
    epsilon, last = 0.02, []
    judged = window.logits
    window.logits = lambda x: last.append(x) or judged(x)
    run_attack(
        f"pgd_{norm}",
        window,
        x,
        SPACE.target(y),
        ball_of(x, norm, epsilon),
        generator=torch.Generator().manual_seed(3),
        steps=steps,
        step_size=1.25 * epsilon if steps == 1 else None,
    )
    # the evaluation returns the iterate of lowest Dice, which need not be the last; that one, which
    # is what training takes, is the only one that it judges by a forward pass
    (last_iterate,) = last
    inner = crafted(network.train(), x, y, norm=norm, steps=steps, epsilon=epsilon, seed=3)
    network.eval()
    assert torch.equal(inner, last_iterate)


@pytest.mark.parametrize("steps", (1, 3))
@pytest.mark.parametrize("norm", ("linf", "l2"))
def test_stays_in_the_ball_and_in_the_bounds_and_raises_the_loss(trained, norm, steps):
    network, x, y = trained[2]
    attacked = crafted(network, x, y, norm=norm, steps=steps)
    extent = (x.flatten(1).amax(1) - x.flatten(1).amin(1)).view(-1, 1, 1, 1)
    delta = ((attacked - x) / extent).flatten(1)
    size = delta.abs().amax(1) if norm == "linf" else delta.square().mean(1).sqrt()
    assert (size <= 0.02 * (1 + 1e-5)).all() and (size > 0.009).all()
    assert (attacked.flatten(1).amin(1) >= x.flatten(1).amin(1)).all() and (
        attacked.flatten(1).amax(1) <= x.flatten(1).amax(1)
    ).all()
    target = SPACE.target(y)
    with torch.no_grad():
        assert (cross_entropy(network(attacked), target) > cross_entropy(network(x), target)).all()


@pytest.mark.parametrize("noise", [None, 2.0])
def test_epsilon_zero_gives_the_clean_batch_back(trained, noise):
    network, x, y = trained[2]
    assert torch.equal(crafted(network, x, y, epsilon=0.0, unprojected_noise=noise), x)


@pytest.mark.parametrize("norm, dimension", [("linf", 2), ("linf", 3), ("l2", 2)])
def test_n_fgsm_adds_a_step_to_noise_and_projects_neither(trained, norm, dimension):
    network, x, y = trained[dimension]
    # far from the ends of the range
    wide = Bounds(
        minimum=x.flatten(2).amin(2) - 1,
        maximum=x.flatten(2).amax(2) + 1,
        attackable=torch.ones(1, dtype=torch.bool),
    )
    ball = ThreatModel(norm=norm, epsilon=0.02).ball(wide)
    ascent = {"steps": 1, "relative_step_size": 1.0, "unprojected_noise": 2.0}

    def craft_again(ball):
        generator = torch.Generator().manual_seed(0)
        return craft(network, x, SPACE.target(y), ball, **ascent, generator=generator)

    found = craft_again(ball)
    noisy = random_start(x, ball.enlarged(2), torch.Generator().manual_seed(0))
    leaf = noisy.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(network(leaf), SPACE.target(y)).sum(), leaf)
    assert torch.allclose(found, noisy + 0.02 * step_direction(gradient, ball), atol=1e-6)
    size = ((found - x) / ball.scale.view(-1, *[1] * (x.ndim - 1))).flatten(1)
    size = size.abs().amax(1) if norm == "linf" else size.square().mean(1).sqrt()
    assert (size <= 0.06 * (1 + 1e-5)).all() and (size > 0.02).any()
    # the range of the intensities still holds
    narrow = dataclasses.replace(ball, bounds=Bounds.of(x))
    clipped = craft_again(narrow).flatten(1)
    assert (clipped >= x.flatten(1).amin(1, True)).all()
    assert (clipped <= x.flatten(1).amax(1, True)).all()


def test_integer_images_are_refused(trained):
    network, x, y = trained[2]
    with pytest.raises(ValueError, match="needs floating-point images, got torch.int16"):
        craft(
            network,
            x.short(),
            SPACE.target(y),
            ball_of(x),
            steps=1,
            relative_step_size=1.0,
            generator=torch.Generator(),
        )


def test_crafting_leaves_no_trace(rng):
    network = attach(
        make_network(2, deep_supervision=True, features=(4, 8, 8)), LNGSWRConfig(gains="prior")
    ).train()
    lngswr = find_lngswr(network)
    lngswr.seed_noise(lambda layer: layer)
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, momentum=0.9)
    x, y = model_folders.batch(2)

    def step():
        optimizer.zero_grad()
        sum(z.square().mean() for z in network(x)).backward()
        optimizer.step()

    step()
    frozen = next(network.parameters()).requires_grad_(False)  # a choice of the user's

    def state():
        parts = (
            network.state_dict(),
            dict(network.named_buffers()),
            optimizer.state_dict(),
            {n: p.grad for n, p in network.named_parameters()},
        )
        return copy.deepcopy(parts)

    def streams():
        own = (b.noise._generator.get_state() for _, b in lngswr.branches())
        return torch.get_rng_state(), *own

    def flags():
        modes = [m.training for m in network.modules()]
        return modes, [p.requires_grad for p in network.parameters()]

    before, streams_before, flags_before = state(), streams(), flags()
    crafted(network, x, y, steps=3)
    assert all(torch.equal(a, b) for a, b in zip(streams(), streams_before))
    assert flags() == flags_before and not frozen.requires_grad and network.decoder.deep_supervision
    for found, expected in zip(state(), before):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_batch_statistics_stay_those_of_the_training(rng):
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Conv2d(4, 2, 1),
    ).train()
    x, y = model_folders.batch(2)
    network(x)
    before = copy.deepcopy(network.state_dict())
    crafted(network, x, y, steps=2)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert network[1].training


def test_half_precision_keeps_the_gradients_of_a_large_image():
    # a million voxels: without a scale their gradients lose most of their digits in fp16
    network = make_network(2, features=(2, 4)).eval()
    x, y = model_folders.batch(2, size=1024, count=1)

    def loss(z):
        return cross_entropy(z, SPACE.target(y))

    _, exact, _ = BatchModel(network).value_and_gradient(x, loss)
    _, half, z = BatchModel(network, autocast=torch.float16).value_and_gradient(x, loss)
    assert z.dtype == half.dtype == torch.float32
    assert (half.sign() == exact.sign()).float().mean() > 0.95
    assert float((half - exact).norm() / exact.norm()) < 0.05


def test_gradients_that_are_not_finite_make_no_step(rng):
    class Overflowing(torch.nn.Module):
        def forward(self, x):
            steep = torch.where(x > 0.5, x * float("inf"), x)
            return torch.cat((steep, -x), 1)

    x, y = torch.rand(1, 1, 8, 8, generator=rng), torch.zeros(1, 8, 8, dtype=torch.long)
    out = crafted(Overflowing(), x, y)
    assert out.isfinite().all() and not torch.equal(out, x)


# --- shares, targets


@pytest.mark.parametrize(
    "batch_size, share", [(2, 0.25), (2, 0.5), (10, 0.1), (3, 0.0), (3, 1.0), (1, 0.3)]
)
def test_clean_share_is_exact_over_the_steps_and_anywhere_in_the_batch(rng, batch_size, share):
    attacked = [attacked_samples(step, batch_size, share, rng) for step in range(100)]
    assert sum(batch_size - len(a) for a in attacked) == round(100 * batch_size * share)
    assert all(len(set(a.tolist())) == len(a) and (a < batch_size).all() for a in attacked)
    if 0 < share < 1:  # nnU-Net's last samples hold the foreground
        assert {i for a in attacked for i in range(batch_size) if i not in a.tolist()} == set(
            range(batch_size)
        )


def test_targets_of_labels_regions_and_ignored_voxels():
    labels = torch.tensor([[0, 1], [2, -1]]).view(1, 1, 2, 2)
    target = batch_target(labels, LabelSpace.softmax(2, ignore_label=2))
    assert target.one_hot[0, 1].tolist() == [[False, True], [False, False]] and target.mask[
        0, 0
    ].tolist() == [[True, True], [False, True]]
    regions = torch.stack(
        [labels[:, 0] > 0, labels[:, 0] == 1, labels[:, 0] == 2], 1
    )  # the last: ignored
    space = LabelSpace(heads=((1, 2), (1,)), regions=True, ignore_label=2)
    target = batch_target(regions, space)
    assert torch.equal(target.one_hot, regions[:, :2]) and torch.equal(target.mask, ~regions[:, 2:])
    target = batch_target(
        regions[:, :2].to(torch.int16), LabelSpace(heads=((1, 2), (1,)), regions=True)
    )
    assert (
        target.one_hot.shape == (1, 2, 2, 2)
        and target.mask.shape == (1, 1, 2, 2)
        and target.mask.all()
    )
