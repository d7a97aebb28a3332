"""Laws of the wavelet transform; PyWavelets, pytorch_wavelets and ptwt are the oracles."""

import numpy as np
import pytest
import pywt
import torch

from nnunetv2_lngswr.method.bands import subbands
from nnunetv2_lngswr.method.wavelet import apply_gains, band_energy, compose, decompose
from tests.method.shapes import SHAPES, all_axes

WAVELETS = ["haar", "db2", "sym4", "coif1"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("wavelet", WAVELETS)
@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.1)]
)
def test_perfect_reconstruction(shape, wavelet, dtype, tolerance, rng):
    x = torch.randn(shape, generator=rng).to(dtype)
    axes = all_axes(shape)
    if wavelet == "sym4":  # PyWavelets tabulates it to 11 digits
        tolerance = max(tolerance, 1e-10)
    back = compose(decompose(x, axes, wavelet), axes, x.shape[2:], wavelet)
    assert back.shape == x.shape
    assert (back - x).abs().max() < tolerance


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("wavelet", WAVELETS)
def test_bands_are_those_of_pywt(shape, wavelet, rng):
    x = torch.randn(shape, generator=rng, dtype=torch.float64)
    axes = all_axes(shape)
    bands = decompose(x, axes, wavelet)
    oracle = pywt.dwtn(x.numpy(), wavelet, mode="periodization", axes=[2 + a for a in axes])
    for index, name in enumerate(subbands(len(axes))):
        key = name.replace("L", "a").replace("H", "d")
        assert np.allclose(bands[:, :, index].numpy(), oracle[key], atol=1e-12)


def test_gained_reconstruction_is_that_of_pytorch_wavelets(rng):
    pytorch_wavelets = pytest.importorskip("pytorch_wavelets", reason="oracle, in the extra 'test'")
    x = torch.randn((2, 3, 16, 12), generator=rng)
    gains = torch.rand((3, 4), generator=rng)
    low, (high,) = pytorch_wavelets.DWTForward(J=1, wave="haar", mode="periodization")(x)
    # its order of the high bands: LH (high along rows' axis), HL, HH
    weighted = (
        high * torch.stack((gains[:, 2], gains[:, 1], gains[:, 3]), dim=1)[None, :, :, None, None]
    )
    inverse = pytorch_wavelets.DWTInverse(wave="haar", mode="periodization")
    oracle = inverse((low * gains[:, 0, None, None], [weighted]))
    assert torch.allclose(apply_gains(x, gains, (0, 1)), oracle, atol=1e-5)


def test_gained_reconstruction_is_that_of_ptwt_in_3d(rng):
    ptwt = pytest.importorskip("ptwt", reason="oracle, in the extra 'test'")
    x = torch.randn((2, 3, 8, 6, 10), generator=rng, dtype=torch.float64)
    gains = torch.rand((3, 8), generator=rng, dtype=torch.float64)
    low, high = ptwt.wavedec3(x, "haar", level=1)
    weight = {
        n.replace("L", "a").replace("H", "d"): gains[:, i, None, None, None]
        for i, n in enumerate(subbands(3))
    }
    oracle = ptwt.waverec3(
        (low * weight["aaa"], {k: v * weight[k] for k, v in high.items()}), "haar"
    )
    assert torch.allclose(apply_gains(x, gains, (0, 1, 2)), oracle, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_unit_haar_gains_are_the_exact_identity(shape, dtype, rng):
    x = torch.randn(shape, generator=rng).to(dtype)
    axes = all_axes(shape)
    assert torch.equal(apply_gains(x, torch.ones(shape[1], 2 ** len(axes)), axes), x)


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_gains_select_their_own_band(wavelet, rng):
    x = torch.randn((1, 2, 8, 12), generator=rng, dtype=torch.float64)
    for band in range(4):
        gains = torch.zeros(2, 4, dtype=torch.float64)
        gains[:, band] = 1
        kept = decompose(apply_gains(x, gains, (0, 1), wavelet), (0, 1), wavelet)
        expected = torch.zeros_like(kept)
        expected[:, :, band] = decompose(x, (0, 1), wavelet)[:, :, band]
        assert torch.allclose(kept, expected, atol=1e-12)


def test_unpooled_axes_are_left_alone(rng):
    x = torch.randn((1, 1, 3, 8, 8), generator=rng)
    gains = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    y = apply_gains(x, gains, (1, 2))
    for z in range(3):
        assert torch.allclose(y[:, :, z], apply_gains(x[:, :, z], gains, (0, 1)), atol=1e-6)


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
def test_energies_sum_to_the_signals(wavelet, rng):
    x = torch.randn((3, 2, 8, 6), generator=rng, dtype=torch.float64)
    energy = band_energy(x, (0, 1), wavelet)
    assert torch.allclose(energy.mean(1), x.square().mean((0, 2, 3)))
    direct = decompose(x, (0, 1), wavelet).square().mean((0, 3, 4))
    assert torch.allclose(energy, direct)


def test_energy_of_an_empty_band_is_not_negative(rng):
    low = torch.zeros(16, 4)
    low[:, 0] = 1
    energy = band_energy(
        apply_gains(torch.randn((8, 16, 20, 20), generator=rng), low, (0, 1)), (0, 1)
    )
    assert (energy >= 0).all() and (energy[:, 1:] < 1e-6 * energy[:, :1]).all()


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
def test_energies_are_full_precision_under_autocast(wavelet, rng):
    x = 100 * torch.randn((2, 2, 64, 64), generator=rng)
    with torch.autocast("cpu", torch.float16):
        low = band_energy(x, (0, 1), wavelet)
    assert low.dtype == torch.float32 and torch.equal(low, band_energy(x, (0, 1), wavelet))


@pytest.mark.parametrize("wavelet", ["db2", "sym4"])
@pytest.mark.parametrize("autocast", [False, True])
def test_longer_wavelets_neither_round_nor_overflow_in_fp16(wavelet, autocast, rng):
    x = (40000 + torch.randn((1, 2, 16, 16), generator=rng)).to(torch.float16)
    with torch.autocast("cpu", torch.float16, enabled=autocast):
        y = apply_gains(x, torch.ones(2, 4), (0, 1), wavelet)
        wide = apply_gains(x.float(), torch.ones(2, 4), (0, 1), wavelet)
    assert y.dtype == torch.float16 and torch.equal(y, x)
    assert wide.dtype == torch.float32 and torch.allclose(wide, x.float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
def test_gradients_are_exact(wavelet, rng):
    x = torch.randn((1, 2, 5, 4), generator=rng, dtype=torch.float64, requires_grad=True)
    gains = torch.rand((2, 4), generator=rng, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, g: apply_gains(x, g, (0, 1), wavelet), (x, gains))
