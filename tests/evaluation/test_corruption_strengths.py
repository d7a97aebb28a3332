"""What the strength of each corruption means, in the unit of the table, by formula or by oracle."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch.nn import functional as F

from evaluation import corruptions
from evaluation.corruptions import CORRUPTIONS, apply_corruption, apply_strength

SEEDS = range(8)


def flat(*levels, shape=(64, 64)):
    """(levels, *shape), one channel of each level, with a voxel of 0 and one of 1: the range."""
    x = torch.empty(len(levels), *shape)
    for channel, level in zip(x, levels):
        channel[:] = level
        channel[(0,) * len(shape)] = 0
        channel[(0,) * (len(shape) - 1) + (1,)] = 1
    return x


def inside(x):
    """Without the row that holds the ends of the range."""
    return x[:, 1:].double()


def smooth(shape=(48, 60), channels=2):
    """(channels, *shape) in [0, 1], no two voxels alike."""
    x = torch.rand(channels, *shape, generator=torch.Generator().manual_seed(0))
    return x / 4 + 0.75 * torch.linspace(0, 1, shape[-1])


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
@pytest.mark.parametrize("name", ["gaussian_noise", "gamma", "low_resolution", "occlusion"])
def test_a_severity_is_its_strength_of_the_table(name, severity):
    x = smooth()
    strength = CORRUPTIONS[name].strengths[severity - 1]
    found = apply_corruption(name, x, severity=severity, seed=3)
    assert torch.equal(found, apply_strength(name, x, strength=strength, seed=3))


@pytest.mark.parametrize("scale", [1, 50])
def test_gaussian_noise_by_its_standard_deviation(scale):
    x = flat(0.5, 0.4) * scale - 3
    noise = inside(apply_strength("gaussian_noise", x, strength=0.08, seed=0) - x) / scale
    assert noise.std(dim=(1, 2)).numpy() == pytest.approx([0.08, 0.08], rel=0.05)
    assert noise.mean(dim=(1, 2)).numpy() == pytest.approx([0, 0], abs=0.005)
    assert abs(float(torch.corrcoef(noise.flatten(1))[0, 1])) < 0.1  # each channel has its own


def test_rician_noise_as_the_distribution_says():
    """batchgeneratorsv2 restores mean and sd, so what an affine map of intensities leaves."""
    sd, dark, bright = 0.1, 0.15, 0.6
    x = flat(dark, dark, shape=(256, 256))
    x[:, 128:] = bright
    y = inside(apply_strength("rician_noise", x, strength=sd, seed=0))
    low, high = y[:, :127], y[:, 127:]
    rice = [stats.rice(level / sd, scale=sd) for level in (dark, bright)]
    expected = (rice[1].mean() - rice[0].mean()) / rice[1].std()
    found = (high.mean((1, 2)) - low.mean((1, 2))) / high.std(dim=(1, 2))
    assert found.numpy() == pytest.approx([expected] * 2, rel=0.02)


def test_speckle_by_its_standard_deviation_in_units_of_the_intensity():
    x = flat(0.4, 0.1)
    ratio = inside(apply_strength("speckle", x, strength=0.2, seed=0)) / inside(x) - 1
    assert ratio.std(dim=(1, 2)).numpy() == pytest.approx([0.2, 0.2], rel=0.05)
    assert ratio.mean(dim=(1, 2)).numpy() == pytest.approx([0, 0], abs=0.015)


@pytest.mark.parametrize("shape", [(65, 65), (33, 33, 33)])
def test_blur_by_its_sigma_along_every_axis(shape):
    x = torch.zeros(1, *shape)
    x[(0, *(n // 2 for n in shape))] = 1
    y = apply_strength("gaussian_blur", x, strength=2.0, seed=0)[0].double()
    for axis, n in enumerate(shape):
        profile = y.sum([a for a in range(len(shape)) if a != axis])
        place = torch.arange(n) - n // 2
        assert float((profile * place**2).sum() / profile.sum()) == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("shape", [(48, 60), (24, 30, 36)])
def test_low_resolution_by_its_factor(shape):
    x = smooth(shape)
    coarse = F.interpolate(x[None], size=[n // 3 for n in shape], mode="nearest-exact")
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    expected = F.interpolate(coarse, size=list(shape), mode=mode)[0]
    found = apply_strength("low_resolution", x, strength=3.0, seed=0)
    assert torch.allclose(found, expected, atol=1e-5)


def test_low_resolution_leaves_short_axes():
    x = smooth((4, 30, 36))
    found = apply_strength("low_resolution", x, strength=3.0, seed=0)
    expected = [apply_strength("low_resolution", x[:, i], strength=3.0, seed=0) for i in range(4)]
    # the range is the volume's, a slice's own would clip at another place
    middle = [(e > 0.3) & (e < 0.7) for e in expected]
    for i in range(4):
        assert middle[i].any()
        assert torch.allclose(found[:, i][middle[i]], expected[i][middle[i]], atol=1e-5)


def test_contrast_by_the_fraction_of_the_distance_to_the_mean_that_is_lost():
    x = smooth()
    y = apply_strength("contrast", x, strength=0.3, seed=0)
    mean = x.mean((1, 2), keepdim=True)
    assert torch.allclose(y - mean, 0.7 * (x - mean), atol=1e-5)


def test_gamma_is_the_exponent_or_its_inverse():
    x = smooth()
    low, high = x.amin((1, 2), keepdim=True), x.amax((1, 2), keepdim=True)
    unit = (x - low) / (high - low)
    by_exponent = {g: low + (high - low) * unit**g for g in (1.9, 1 / 1.9)}
    found = set()
    for seed in SEEDS:
        y = apply_strength("gamma", x, strength=1.9, seed=seed)
        found |= {
            g for g, expected in by_exponent.items() if torch.allclose(y, expected, atol=1e-4)
        }
    assert found == set(by_exponent)


@pytest.mark.parametrize("shape", [(40, 48), (16, 20, 24)])
def test_a_bias_field_by_the_largest_logarithm_of_its_factor(shape):
    x = flat(0.3, 0.2, shape=shape)
    for channel in x:  # the ends of the range in the middle, where the field is weak
        channel[(0,) * len(shape)] = channel[(0,) * (len(shape) - 1) + (1,)] = channel.median()
        channel[tuple(n // 2 for n in shape)] = 0
        channel[(*(n // 2 for n in shape[:-1]), shape[-1] // 2 + 1)] = 1
    kept = (x[0] > 0) & (x[0] < 1)
    for seed in SEEDS:
        y = apply_strength("bias_field", x, strength=0.35, seed=seed)
        first, second = ((y / x).log()[:, kept]).double()
        assert float(first.abs().max()) == pytest.approx(0.35, rel=1e-3)
        assert torch.allclose(first, second, atol=1e-4)  # one coil for all channels
        assert float(first.std()) > 0.03  # a field, no constant


def test_brightness_goes_up_or_down_by_a_share_of_the_range():
    x = flat(0.5, 0.4) * 20 - 5
    offsets = {
        round(float(value), 4)
        for seed in SEEDS
        for value in inside(apply_strength("brightness", x, strength=0.15, seed=seed) - x).unique()
    }
    assert {round(o, 2) for o in offsets} == {-3.0, 3.0}


@pytest.mark.parametrize("quality", [50, 6])
def test_jpeg_is_pillows_of_this_quality(quality):
    levels = torch.randint(0, 256, (2, 40, 48), generator=torch.Generator().manual_seed(0))
    levels[:, 0, 0], levels[:, 0, 1] = 0, 255
    found = apply_strength("jpeg", levels.float(), strength=quality, seed=0)
    for channel, decoded in zip(levels.numpy(), found.numpy()):
        buffer = io.BytesIO()
        Image.fromarray(channel.astype(np.uint8)).save(buffer, "JPEG", quality=quality)
        assert np.abs(decoded - np.asarray(Image.open(buffer), np.float32)).max() < 0.01


@pytest.mark.parametrize("shape", [(40, 60), (20, 24, 30)])
def test_occlusion_is_one_box_of_this_share_of_each_axis(shape):
    x = 0.5 + smooth(shape) / 4
    x[(slice(None), *[0] * len(shape))] = 0  # the dark of the box
    for seed in SEEDS:
        y = apply_strength("occlusion", x, strength=0.2, seed=seed)
        places = (y == 0).all(0).nonzero()
        places = places[places.sum(1) > 0]  # not the voxel that was dark before
        assert torch.equal((y != x).any(0), (y != x).all(0))  # the same in every channel
        extent = places.amax(0) - places.amin(0) + 1
        assert extent.tolist() == [round(0.2 * n) for n in shape]
        assert len(places) >= extent.prod() - 1
