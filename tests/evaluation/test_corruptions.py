"""Laws of the corruptions: strengths rise with severity, one seed gives one result, nothing else
changes."""

import numpy as np
import pytest
import torch

from evaluation import corruptions
from tests.model_folders import ball

SHAPES = [(1, 24, 30), (12, 20, 16), (3, 16, 40)]
HU = {"file_scale": [1 / 50.0] * 2, "file_offset": [-2.0] * 2}


def case(shape, channels=2):
    image = torch.from_numpy(np.stack([ball(shape, seed=c)[0] for c in range(channels)]))
    return image / 50 - 2


def corrupted(name, x, severity, seed=0, **options):
    return corruptions.apply_corruption(name, x, severity=severity, seed=seed, **HU, **options)


def test_each_of_the_table_has_its_function_and_five_strengths():
    assert set(corruptions._FUNCTIONS) == set(corruptions.CORRUPTIONS)
    for corruption in corruptions.CORRUPTIONS.values():
        assert len(corruption.strengths) == len(corruptions.SEVERITIES), corruption.name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", corruptions.corruption_names())
def test_strength_rises_with_severity(name, shape):
    x = case(shape)
    seeds = range(8 if name == "occlusion" else 3)  # a box that lies in dark air changes little
    distance = [
        np.mean([(corrupted(name, x, s, seed) - x).abs().mean() for seed in seeds])
        for s in corruptions.SEVERITIES
    ]
    assert distance[0] > 0
    assert all(b > a for a, b in zip(distance, distance[1:])), distance


@pytest.mark.parametrize("name", corruptions.corruption_names())
def test_one_seed_one_result_inside_the_range(name):
    for shape in SHAPES:
        x = case(shape)
        before, numpy_state, torch_state = (
            x.clone(),
            np.random.get_state()[1].copy(),
            torch.random.get_rng_state(),
        )
        for severity in (1, 5):
            y = corrupted(name, x, severity, seed=4)
            assert torch.equal(y, corrupted(name, x, severity, seed=4))
            assert y.shape == x.shape and y.dtype == x.dtype and torch.isfinite(y).all()
            for c in range(2):
                assert x[c].min() <= y[c].min() and y[c].max() <= x[c].max()
        assert torch.equal(x, before)
        assert (np.random.get_state()[1] == numpy_state).all() and torch.equal(
            torch.random.get_rng_state(), torch_state
        )


@pytest.mark.parametrize(
    "name", ["gaussian_noise", "speckle", "bias_field", "motion_blur", "occlusion", "rician_noise"]
)
def test_another_seed_gives_another_pattern(name):
    x = case((1, 24, 30))
    assert not torch.equal(corrupted(name, x, 3, seed=1), corrupted(name, x, 3, seed=2))


@pytest.mark.parametrize("name", corruptions.corruption_names())
def test_channels_that_are_no_image_stay_fixed(name):
    x = case((1, 24, 30), channels=3)
    y = corrupted(name, x, 5, image_channels=2)
    assert torch.equal(y[2], x[2]) and not torch.equal(y[:2], x[:2])


def test_constant_channels_stay_constant():
    x = case((1, 24, 30))
    x[1] = 0.7
    for name in corruptions.corruption_names():
        assert torch.equal(corrupted(name, x, 5)[1], x[1]), name


def test_hu_offset_is_in_hu():
    x = torch.linspace(-4, 4, 25).reshape(1, 1, 5, 5)  # HU = 50 (x + 2)
    y = corrupted("hu_offset", x, 3)
    inside = (y > x.min()) & (y < x.max())
    hu = ((y - x) * 50)[inside]
    assert hu.abs().numpy() == pytest.approx(np.full(hu.numel(), 40), rel=1e-4)


def test_hu_scale_keeps_water():
    x = torch.linspace(-4, 4, 25).reshape(1, 1, 5, 5)
    x[0, 0, 0, 1] = -2.0  # 0 HU
    y = corrupted("hu_scale", x, 5)
    assert y[0, 0, 0, 1] == pytest.approx(-2.0, abs=1e-5)
    assert abs(float(y[0, 0, 2, 2]) + 2) == pytest.approx(2 * 1.16, rel=1e-4) or abs(
        float(y[0, 0, 2, 2]) + 2
    ) == pytest.approx(2 * 0.84, rel=1e-4)


def test_which_corruptions_apply():
    us, ct3d = (
        corruptions.inapplicable(ct=False, two_dimensional=True),
        corruptions.inapplicable(ct=True, two_dimensional=False),
    )
    assert set(us) == {"hu_offset", "hu_scale"}
    assert set(ct3d) == {"jpeg", "rician_noise", "speckle"}


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda x: corruptions.apply_corruption("gausian_noise", x, severity=1, seed=0),
            "gaussian_noise",
        ),
        (
            lambda x: corruptions.apply_corruption("gamma", x, severity=6, seed=0),
            "severity must be one of",
        ),
        (lambda x: corruptions.apply_corruption("hu_offset", x, severity=1, seed=0), "HU scale"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(case((1, 8, 8)))
