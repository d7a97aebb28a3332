"""By default the noise, and what the prior knows of it, are what they were, to the last bit."""

import numpy as np
import pytest
import pywt
import torch

from nnunetv2_lngswr.method import chunks
from nnunetv2_lngswr.method.noise import LayerwiseNoise, noise_band_energy
from tests.method.noise_before import STRIDES, band_energy_before, noisy_before, upsampled_by_two


@pytest.mark.parametrize("chunk_elements", [2**19, 300])
@pytest.mark.parametrize(
    "shape",
    [(2, 3, 16, 24), (3, 2, 9, 7), (2, 2, 1, 13), (2, 2, 8, 6, 10), (2, 1, 5, 1, 17), (2, 3, 4, 4)],
)
def test_the_same_seed_gives_the_noise_it_gave(shape, chunk_elements, rng, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", chunk_elements)
    x = torch.randn(shape, generator=rng)
    sd = torch.rand(shape[1], generator=rng) + 0.5
    layer = LayerwiseNoise(0.7)
    for seed in (0, 2**62):
        layer.seed(seed)
        assert torch.equal(layer(x, sd), noisy_before(x, sd, 0.7, seed))


@pytest.mark.parametrize("shape", [(2, 3, 9, 12), (2, 2, 6, 5, 8)])
def test_compiled_code_draws_what_it_drew(shape, rng):
    """What is drawn when, and of which shape, makes the noise; roundings aside."""
    x = torch.randn(shape, generator=rng)
    sd = torch.rand(shape[1], generator=rng) + 0.5
    layer = LayerwiseNoise(0.7)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=False)
    torch.manual_seed(3)
    found = compiled(x, sd)
    torch.manual_seed(3)
    ones = [1] * (x.ndim - 2)
    amplitude = sd.view(1, -1, *ones) * 0.7 * torch.rand(shape[0], 1, *ones)
    sizes = [tuple(shape[2:])]
    for _ in STRIDES[1:]:
        sizes.append(tuple((length + 1) // 2 for length in sizes[-1]))
    noise = torch.rand(*shape[:2], *sizes[-1]) - 0.5
    for size, coarse in zip(sizes[-2::-1], sizes[:0:-1]):
        fine = torch.rand(*shape[:2], *(2 * n for n in coarse)) - 0.5
        noise = (fine + upsampled_by_two(noise, range(len(ones))))[(..., *map(slice, size))]
    assert torch.allclose(found, x + noise * amplitude * 3**0.5, atol=1e-6)


def test_the_closed_form_is_the_one_of_the_whole_matrix():
    for wavelet in pywt.wavelist(kind="discrete"):
        if pywt.Wavelet(wavelet).orthogonal:
            for spectrum in ("white", "multiscale"):
                found = noise_band_energy(spectrum, wavelet, 2).astype(np.float32)
                before = band_energy_before(spectrum, wavelet, 2).astype(np.float32)
                assert np.array_equal(found, before), wavelet
