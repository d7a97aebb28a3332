"""Laws of noise whose strides reach the object's size, on a grid that moves."""

import itertools

import numpy as np
import pytest
import torch

from nnunetv2_lngswr.method import chunks
from nnunetv2_lngswr.method.noise import LayerwiseNoise, noise_band_energy
from nnunetv2_lngswr.method.prior import FrequencyPrior
from nnunetv2_lngswr.method.scales import scales_up_to
from nnunetv2_lngswr.method.wavelet import analysis_matrix, decompose
from tests.method.unit_noise import unit_noise

ISOTROPIC = scales_up_to(16, (1, 1), (64, 64))
ANISOTROPIC = scales_up_to(16, (1, 4, 4), (16, 16, 16))
STRIDE = 8


@pytest.mark.parametrize("random_grid", [False, True])
@pytest.mark.parametrize(
    "shape, ratio",
    [
        ((64, 8, 32, 32), (1, 1)),
        ((64, 8, 13, 21), (1, 1)),
        ((64, 64, 1, 16), (1, 1)),
        ((64, 64, 1, 1), (1, 1)),
        ((64, 32, 2, 2), (1, 1)),
        ((64, 16, 3, 5), (2, 2)),
        ((64, 8, 16, 8, 8), (1, 4, 4)),
        ((64, 8, 7, 1, 9), (1, 1, 1)),
    ],
)
def test_mean_is_zero_and_variance_one_at_every_voxel(shape, ratio, random_grid, rng):
    scales = scales_up_to(32, ratio, shape[2:])
    n = unit_noise(
        shape, spectrum="multiscale", generator=rng, scales=scales, random_grid=random_grid
    )
    assert n.shape == shape
    count = shape[0] * shape[1]  # independent draws of one voxel
    assert n.mean((0, 1)).abs().max() < 5 * count**-0.5
    assert (n.var((0, 1)) - 1).abs().max() < 6 * (2 / count) ** 0.5


@pytest.mark.parametrize("size", [(2, 2), (2, 2, 2), (1, 2), (1, 1)])
def test_the_smallest_maps_have_variance_one_by_default_too(size, rng):
    n = unit_noise((64, 64, *size), spectrum="multiscale", generator=rng)
    assert (n.var((0, 1)) - 1).abs().max() < 6 * (2 / 64**2) ** 0.5


def place_of_blocks(of_sample: torch.Tensor, axis: int) -> int:
    """Where, modulo the largest stride, a sample's blocks begin.

    (C, *spatial) with many channels: neighbours have a scale in common unless all scales' blocks
    end between them.
    """
    length = of_sample.shape[1 + axis] - 1
    here, after = of_sample.narrow(1 + axis, 0, length), of_sample.narrow(1 + axis, 1, length)
    together = (here * after).transpose(1, 1 + axis).flatten(2).mean((0, 2))
    return int(together[:STRIDE].argmin() + 1) % STRIDE


@pytest.mark.parametrize("chunk_elements", [2**19, 2**14])
@pytest.mark.parametrize("compiled", [False, True])
def test_each_sample_and_step_has_a_grid_of_its_own_and_all_places_occur(
    compiled, chunk_elements, monkeypatch
):
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", chunk_elements)
    layer = LayerwiseNoise(1.0, random_amplitude=False, random_grid=True).train()
    layer.seed(0)
    torch.manual_seed(0)
    add = layer
    if compiled:
        torch._dynamo.reset()
        add = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=False)
    x, sd = torch.zeros(40, 64, 24, 16), torch.ones(64)
    steps = [[tuple(place_of_blocks(s, a) for a in (0, 1)) for s in add(x, sd)] for _ in range(2)]
    assert len(set(steps[0])) > 20 and steps[0] != steps[1]
    for axis in (0, 1):
        counts = np.bincount([places[axis] for places in sum(steps, [])], minlength=STRIDE)
        assert counts.min() >= 2 and counts.max() <= 24, counts  # 10 expected


def test_by_default_all_grids_begin_at_the_first_voxel():
    layer = LayerwiseNoise(1.0, random_amplitude=False).train()
    noise = layer(torch.zeros(8, 128, 24, 16), torch.ones(128))
    assert {place_of_blocks(sample, axis) for sample in noise for axis in (0, 1)} == {0}


def test_the_grid_is_seeded_as_the_noise_is(rng):
    x = torch.randn((3, 4, 16, 16), generator=rng)
    layer = LayerwiseNoise(1.0, random_grid=True, scales=ISOTROPIC)
    before, drawn = torch.get_rng_state(), []
    for seed in (1, 1, 2):
        layer.seed(seed)
        drawn.append(layer(x))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), before)


def energies_within(noise: torch.Tensor, axes: tuple[int, ...], wavelet: str) -> torch.Tensor:
    """Energy per sample and band, (N, B), of the coefficients whose filters lie within the map."""
    bands = decompose(noise, axes, wavelet)
    for axis in axes:
        bands = bands.narrow(3 + axis, 4, bands.shape[3 + axis] - 8)
    return bands.square().movedim(2, 1).flatten(2).mean(2)


@pytest.mark.parametrize("random_grid", [False, True])
@pytest.mark.parametrize("wavelet", ["haar", "db2", "sym4"])
@pytest.mark.parametrize(
    "scales, shape", [(ISOTROPIC, (1000, 2, 48, 48)), (ANISOTROPIC, (800, 1, 48, 24, 24))]
)
def test_spectrum_is_the_closed_form(scales, shape, wavelet, random_grid, rng):
    n_axes = len(scales[0])
    grid = {"scales": scales, "random_grid": random_grid}
    energies = torch.cat(
        [
            energies_within(
                unit_noise((200, *shape[1:]), spectrum="multiscale", generator=rng, **grid),
                tuple(range(n_axes)),
                wavelet,
            )
            for _ in range(shape[0] // 200)
        ]
    )
    expected = torch.tensor(noise_band_energy("multiscale", wavelet, n_axes, **grid))
    error = energies.std(0) / len(energies) ** 0.5
    assert ((energies.mean(0) - expected).abs() < 4.5 * error).all()
    assert (error < 0.06 * expected).all()  # the comparison says something


@pytest.mark.parametrize("wavelet", ["haar", "db2", "sym4", "coif3"])
@pytest.mark.parametrize("scales", [ISOTROPIC, ANISOTROPIC])
def test_expectation_over_grids_is_that_of_the_triangle(scales, wavelet):
    """Voxels k apart share a block of stride s with probability 1 - k / s."""
    length, n_axes = 128, len(scales[0])
    apart = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    apart = np.minimum(apart, length - apart)  # the transform is periodic
    halves = analysis_matrix(wavelet, length).reshape(2, length // 2, length)
    expected = np.zeros(2**n_axes)
    for scale in scales:
        covariances = [np.maximum(0, 1 - apart / stride) for stride in scale]
        for band, letters in enumerate(itertools.product((0, 1), repeat=n_axes)):
            energies = [
                np.einsum("fi,ij,fj->f", halves[half], covariance, halves[half]).mean()
                for half, covariance in zip(letters, covariances)
            ]
            expected[band] += np.prod(energies) / len(scales)
    found = noise_band_energy("multiscale", wavelet, n_axes, scales=scales, random_grid=True)
    assert np.allclose(found, expected, rtol=1e-9)
    assert np.allclose(found.mean(), 1.0)  # an orthonormal transform keeps the variance


def test_haars_closed_form_is_known_for_any_stride():
    """Two neighbours share a block with probability 1 - 1 / s, on the fixed grid always."""
    scales = scales_up_to(512, (1, 1), (512, 512))
    strides = np.array(scales)[:, 0]
    for share in (1 - 1 / strides, (strides > 1).astype(float)):
        low, high = 1 + share, 1 - share
        expected = [np.mean(a * b) for a, b in itertools.product((low, high), repeat=2)]
        random_grid = bool((share % 1).any())
        found = noise_band_energy("multiscale", "haar", 2, scales=scales, random_grid=random_grid)
        assert np.allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2)])
def test_the_prior_knows_the_noise_along_the_axes_that_it_transforms(axes, rng):
    def prior_of(**options):
        return FrequencyPrior(4, axes, sigma=0.5, wavelet="haar", **options)

    grid = {"scales": ANISOTROPIC, "random_grid": True}
    prior = prior_of(spectrum="multiscale", **grid)
    noise = unit_noise((1000, 4, 16, 8, 8), spectrum="multiscale", generator=rng, **grid)
    measured = prior_of(spectrum="white")
    measured.observe(noise)
    measured.commit()
    assert torch.allclose(measured.energy.mean(0), prior.unit_energy, rtol=0.08)
