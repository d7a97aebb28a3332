"""Laws of the layer-wise noise."""

import copy

import numpy as np
import pytest
import torch

from nnunetv2_lngswr.method import chunks
from nnunetv2_lngswr.method.bands import SPECTRA
from nnunetv2_lngswr.method.noise import (
    LayerwiseNoise,
    channel_sd,
    noise_band_energy,
)
from nnunetv2_lngswr.method.wavelet import band_energy
from tests.method.unit_noise import unit_noise


def noise_of(module, x):
    return module(x) - x


@pytest.mark.parametrize("spectrum", ["white", "multiscale"])
@pytest.mark.parametrize(
    "shape", [(64, 8, 32, 32), (16, 8, 16, 8, 24), (64, 8, 13, 21), (64, 64, 1, 16)]
)
def test_mean_is_zero_and_variance_one_at_every_voxel(spectrum, shape, rng):
    n = unit_noise(shape, spectrum=spectrum, generator=rng)
    assert n.shape == shape
    count = shape[0] * shape[1]  # independent draws of one voxel
    assert n.mean((0, 1)).abs().max() < 5 * count**-0.5
    assert (n.var((0, 1)) - 1).abs().max() < 6 * (2 / count) ** 0.5


@pytest.mark.parametrize("spectrum", ["white", "multiscale"])
@pytest.mark.parametrize("wavelet", ["haar", "db2", "sym4"])
@pytest.mark.parametrize("n_axes", [2, 3])
def test_spectrum_is_the_closed_form(spectrum, wavelet, n_axes, rng):
    shape = (40, 10, *[64, 32, 16][:n_axes])
    measured = band_energy(
        unit_noise(shape, spectrum=spectrum, generator=rng), tuple(range(n_axes)), wavelet
    )
    expected = noise_band_energy(spectrum, wavelet, n_axes)
    assert np.allclose(measured.mean(0).numpy(), expected, rtol=0.06)


def test_multiscale_puts_its_surplus_into_the_low_band():
    # four strides, three of which are constant on a Haar block: (1 + 3 * 4) / 4 and 1 / 4
    assert np.allclose(noise_band_energy("multiscale", "haar", 2), [3.25, 0.25, 0.25, 0.25])
    assert np.allclose(noise_band_energy("multiscale", "haar", 3), [(1 + 3 * 8) / 4] + [0.25] * 7)


def test_amplitude_follows_the_channels_sd(rng):
    scale = torch.tensor([1.0, 10.0, 0.1]).view(1, 3, 1, 1)
    x = torch.randn((8, 3, 64, 64), generator=rng) * scale + 100
    module = LayerwiseNoise(0.5, random_amplitude=False, spectrum="white")
    assert torch.allclose(noise_of(module, x).std((0, 2, 3)), 0.5 * scale.flatten(), rtol=0.05)


def test_random_amplitude_is_uniform_per_sample(rng):
    x = torch.randn((400, 2, 32, 32), generator=rng)
    module = LayerwiseNoise(1.0, random_amplitude=True, spectrum="white")
    module.seed(0)
    amplitude = noise_of(module, x).std((1, 2, 3))
    assert abs(amplitude.mean() - 0.5) < 0.06 and abs(amplitude.std() - 12**-0.5) < 0.04
    assert abs(amplitude.square().mean().sqrt() - module.nominal_sigma) < 0.06


def test_the_input_stays_what_it_was(rng):
    x = torch.randn((2, 3, 8, 8), generator=rng)
    before = x.clone()
    assert not torch.equal(LayerwiseNoise(1.0)(x), before) and torch.equal(x, before)


def test_eval_mode_is_identity(rng):
    x = torch.randn((2, 3, 8, 8), generator=rng)
    assert LayerwiseNoise(1.0).eval()(x) is x


def test_sigma_zero_is_identity(rng):
    x = torch.randn((2, 3, 8, 8), generator=rng)
    assert LayerwiseNoise(0.0)(x) is x


def test_same_seed_same_noise_and_other_seed_other_noise(rng):
    x = torch.randn((2, 3, 8, 8), generator=rng)
    module = LayerwiseNoise(1.0)
    drawn = []
    for seed in (1, 1, 2, 2**62):
        module.seed(seed)
        drawn.append(module(x))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[3])
    assert not torch.equal(module(x), module(x))


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("shape", [(3, 4, 16, 24), (2, 3, 9, 7), (2, 2, 8, 6, 10)])
def test_chunks_have_the_same_law(shape, spectrum, rng, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", 100)
    x = torch.randn(shape, generator=rng)
    sd = torch.linspace(1, 2, shape[1])
    module = LayerwiseNoise(0.5, spectrum=spectrum, random_amplitude=False)
    noise = torch.stack([module(x, sd) - x for _ in range(1000)]).movedim(2, 0).flatten(1, 2)
    assert noise.mean(1).abs().max() < 5 * 0.5 * 2 / noise.shape[1] ** 0.5
    assert torch.allclose(
        noise.std(1),
        (0.5 * sd).view(-1, *[1] * (len(shape) - 2)).expand(noise[:, 0].shape),
        rtol=0.15,
    )


def test_the_global_stream_is_left_alone(rng):
    module = LayerwiseNoise(1.0)
    before = torch.get_rng_state()
    module(torch.randn((2, 3, 8, 8), generator=rng))
    assert torch.equal(torch.get_rng_state(), before)


def test_no_state_and_no_gradient_through_sd(rng):
    module = LayerwiseNoise(1.0)
    assert not module.state_dict() and not list(module.parameters())
    x = torch.randn((2, 3, 8, 8), generator=rng, requires_grad=True)
    grad = torch.randn(x.shape, generator=rng)
    # passed on as it is: in-place arithmetic on views once made autograd copy it three times
    assert torch.autograd.grad(module(x), x, grad)[0].data_ptr() == grad.data_ptr()
    copy.deepcopy(module)(x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_is_kept(dtype, rng):
    x = torch.randn((2, 3, 8, 8), generator=rng).to(dtype)
    y = LayerwiseNoise(1.0)(x)
    assert y.dtype == dtype and y.isfinite().all()


def test_channel_sd_survives_a_large_mean():
    x = torch.randn((4, 2, 32, 32), dtype=torch.float64)
    assert torch.allclose(
        channel_sd(x.float() + 1e4), x.std((0, 2, 3), correction=0).float(), rtol=1e-2
    )


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="sigma_max must be >= 0, got -0.1"):
        LayerwiseNoise(-0.1)
    with pytest.raises(ValueError, match="spectrum must be one of white, multiscale, got 'pink'"):
        LayerwiseNoise(0.1, spectrum="pink")
