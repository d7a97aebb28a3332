"""Projection, steps, random starts and norms, in every norm and unit."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetv2_lngswr.attacks import Bounds, ThreatModel
from nnunetv2_lngswr.attacks.geometry import (
    perturbation_norms,
    project_onto_ball,
    random_start,
    step_direction,
)
from tests.attacks.problems import two_channel_case

NORMS = ("linf", "l2")


def reach(x, perturbed, ball):
    """Size of the perturbation in units of epsilon, (B,), written out from the definition."""
    sizes = []
    for b in range(len(x)):
        u = torch.cat(
            [
                ((perturbed - x)[b, c] / ball.scale[b, c]).flatten()
                for c in range(x.shape[1])
                if ball.scale[b, c] > 0
            ]
        )
        sizes.append(u.abs().max() if ball.norm == "linf" else u.double().square().mean().sqrt())
    return torch.stack(sizes)


@pytest.mark.parametrize("unit", ("range", "normalized", "original"))
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", ((9,), (5, 7), (3, 1, 4)))
def test_projection_stays_in_the_ball_and_in_the_bounds(norm, unit, shape):
    x = two_channel_case(shape)
    ball = ThreatModel(norm=norm, epsilon=0.1, unit=unit).ball(
        Bounds.of(x, file_scale=torch.tensor([0.5, 2.0]))
    )
    far = x + 100 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    projected = project_onto_ball(far, x, ball)
    assert (reach(x, projected, ball) <= 0.1 * (1 + 1e-5)).all()
    for b in range(2):
        for c in range(2):
            assert projected[b, c].min() >= x[b, c].min() and projected[b, c].max() <= x[b, c].max()
    # a point of the ball stays where it is, and projecting twice changes nothing
    assert torch.allclose(project_onto_ball(projected, x, ball), projected, atol=1e-6)


SHAPES = st.lists(st.integers(1, 6), min_size=1, max_size=3)
DTYPES = {torch.float32: 1e-5, torch.float64: 1e-12}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 3),
    spatial=SHAPES,
    dtype=st.sampled_from(list(DTYPES)),
    norm=st.sampled_from(NORMS),
    unit=st.sampled_from(("range", "normalized", "original")),
    epsilon=st.sampled_from((0.0, 1e-30, 1e-6, 0.03, 1.0, 1e9)),
    far=st.sampled_from((0.0, 1e-6, 1.0, 1e6)),
    attackable=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_projection_is_idempotent_and_inside_for_any_case(
    batch, channels, spatial, dtype, norm, unit, epsilon, far, attackable, seed
):
    g = torch.Generator().manual_seed(seed)
    shape = (batch, channels, *spatial)
    x = torch.randn(shape, generator=g, dtype=dtype)
    scale = torch.rand(channels, generator=g, dtype=dtype) + 0.5
    bounds = Bounds.of(x, image_channels=min(attackable, channels), file_scale=scale)
    ball = ThreatModel(norm=norm, epsilon=epsilon, unit=unit).ball(bounds)
    tolerance = DTYPES[dtype]
    once = project_onto_ball(x + far * torch.randn(shape, generator=g, dtype=dtype), x, ball)
    assert once.shape == x.shape and once.dtype == dtype and once.isfinite().all()
    low, high = (v.reshape(*v.shape, *[1] * len(spatial)) for v in (bounds.minimum, bounds.maximum))
    assert (once >= low).all() and (once <= high).all()
    fixed = ball.scale == 0
    assert torch.equal(once[fixed], x[fixed])
    if not fixed.all():
        # rounding of x + delta is of the size of x
        rounding = tolerance * float(x.abs().max()) / float(ball.scale[~fixed].min())
        moving = [b for b in range(batch) if not fixed[b].all()]
        sizes = [reach(x[[b]], once[[b]], replace(ball, scale=ball.scale[[b]])) for b in moving]
        assert (torch.cat(sizes) <= epsilon * (1 + tolerance) + rounding).all()
    twice = project_onto_ball(once, x, ball)
    assert torch.allclose(twice, once, rtol=0, atol=2 * tolerance * float(x.abs().max()))


@pytest.mark.parametrize("norm", NORMS)
def test_zero_epsilon_is_identity_of_the_projection(norm):
    x = two_channel_case()
    ball = ThreatModel(norm=norm, epsilon=0).ball(Bounds.of(x))
    assert torch.equal(project_onto_ball(x + torch.randn(x.shape), x, ball), x)
    assert torch.equal(random_start(x, ball, torch.Generator().manual_seed(0)), x)


def test_range_unit_is_the_fraction_of_each_channels_range():
    x = two_channel_case()
    ball = ThreatModel(norm="linf", epsilon=8 / 255).ball(Bounds.of(x))
    moved = (project_onto_ball(x + 1e3, x, ball) - x)[0].flatten(1).amax(1)
    extent = x[0].flatten(1).amax(1) - x[0].flatten(1).amin(1)
    assert torch.allclose(moved, 8 / 255 * extent, rtol=1e-4)


def test_original_unit_is_the_files():
    # x = 0.02 * file + c: 10 units of the file are 0.2 preprocessed units
    x = torch.linspace(-1, 1, 50).reshape(1, 1, 50)
    ball = ThreatModel(norm="linf", epsilon=10, unit="original").ball(
        Bounds.of(x, file_scale=torch.tensor([0.02]))
    )
    moved = (project_onto_ball(x + 5, x, ball) - x).max()
    assert math.isclose(float(moved), 0.2, rel_tol=1e-5)
    norms = perturbation_norms(x + 0.1, x, ball.bounds)
    assert math.isclose(float(norms["linf_original"]), 5.0, rel_tol=1e-5)
    assert math.isclose(float(norms["l2_normalized"]), 0.1 * math.sqrt(50), rel_tol=1e-5)
    assert math.isclose(float(norms["rms_range"]), 0.05, rel_tol=1e-5)


def test_norms_are_of_the_channels_that_can_move():
    x = two_channel_case()[:1]
    moved = x.clone()
    moved[:, 0] += 0.25 * (x[:, 0].amax() - x[:, 0].amin())
    for channels, rms in ((2, 0.25 / math.sqrt(2)), (1, 0.25)):
        norms = perturbation_norms(moved, x, Bounds.of(x, image_channels=channels))
        assert float(norms["linf_range"]) == pytest.approx(0.25)
        assert float(norms["rms_range"]) == pytest.approx(rms)
        assert float(norms["l2_range"]) == pytest.approx(0.25 * math.sqrt(x[0, 0].numel()))
    constant = torch.cat([x[:, :1], torch.ones_like(x[:, :1])], 1)
    also = constant + (moved - x)[:, :1] * torch.tensor([1, 0]).view(1, 2, *[1] * (x.ndim - 2))
    norms = perturbation_norms(also, constant, Bounds.of(constant))
    assert float(norms["rms_range"]) == pytest.approx(0.25)


@pytest.mark.parametrize("norm", NORMS)
def test_channels_that_are_no_image_stay_fixed_and_do_not_count(norm):
    x = two_channel_case()
    ball = ThreatModel(norm=norm, epsilon=0.05).ball(Bounds.of(x, image_channels=1))
    moved = project_onto_ball(
        x + 10 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2)), x, ball
    )
    assert torch.equal(moved[:, 1], x[:, 1])
    assert (moved[:, 0] != x[:, 0]).any()
    if norm == "l2":
        alone = ThreatModel(norm="l2", epsilon=0.05).ball(Bounds.of(x[:, :1]))
        step = step_direction(x, ball)[:, :1]
        assert torch.allclose(step, step_direction(x[:, :1], alone))


def test_l2_step_has_rms_one_in_units_of_epsilon_even_for_tiny_gradients():
    x = two_channel_case()
    ball = ThreatModel(norm="l2", epsilon=0.05).ball(Bounds.of(x))
    for size in (1.0, 1e-30):
        assert torch.allclose(
            reach(x * 0, step_direction(x * size, ball), ball),
            torch.ones(2, dtype=torch.float64),
            rtol=1e-5,
        )
    assert torch.equal(step_direction(x * 0, ball), x * 0)


def farthest_from_uniform(values):
    """Kolmogorov-Smirnov distance of values from the uniform distribution on [0, 1].

    0.03 is its 95 % bound at 2000 draws.
    """
    values = values.double().flatten().sort().values
    steps = torch.arange(len(values) + 1).double() / len(values)
    return float(torch.maximum(steps[1:] - values, values - steps[:-1]).max())


def test_random_starts_fill_the_ball():
    # one case 2000 times; every channel has the same range and only the two ends of it can be
    # clipped
    epsilon, x = 0.05, torch.zeros(2000, 2, 16, 16)
    x[..., 0, 0], x[..., 0, 1] = -1, 1
    x[:, 1] *= 10
    starts = {n: ThreatModel(norm=n, epsilon=epsilon).ball(Bounds.of(x)) for n in NORMS}
    u = {
        n: (random_start(x, b, torch.Generator().manual_seed(0)) - x) / b.scale[..., None, None]
        for n, b in starts.items()
    }
    # L2: the radius is uniform in [0, epsilon], not always epsilon
    radius = u["l2"].flatten(1).square().mean(1).sqrt() / epsilon
    assert farthest_from_uniform(radius) < 0.04 and radius.min() < 0.01 and radius.max() > 0.98
    # and the direction has no preferred channel, voxel or sign
    direction = (u["l2"].flatten(1) / epsilon / radius[:, None]).unflatten(1, (2, -1))[..., 2:]
    assert (
        direction.mean((0, 2)).abs().max() < 0.01
        and (direction.square().mean((0, 2)) - 1).abs().max() < 0.02
    )
    assert direction.mean(0).abs().max() < 0.15 and (direction[:1] - direction[1:2]).abs().max() > 1
    # Linf: every voxel uniform in [-epsilon, epsilon], on its own
    fractions = (u["linf"].flatten(2)[..., 2:] / epsilon + 1) / 2
    for values in (fractions[:, 0, 7], fractions[:, 1, 99], fractions[0], fractions[:3, :, :]):
        assert farthest_from_uniform(values) < 1.6 / values.numel() ** 0.5
    assert (
        torch.corrcoef(torch.stack([fractions[:, 0, 7], fractions[:, 0, 8], fractions[:, 1, 7]]))
        .tril(-1)
        .abs()
        .max()
        < 0.07
    )
