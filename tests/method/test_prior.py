"""Laws of the frequency-bias prior."""

import pytest
import torch

from nnunetv2_lngswr.method.noise import channel_sd
from nnunetv2_lngswr.method.prior import FrequencyPrior
from nnunetv2_lngswr.method.wavelet import band_energy, compose
from tests.method.unit_noise import unit_noise


def prior_of(axes=(0, 1), sigma=0.5, spectrum="white", channels=2, wavelet="haar", **options):
    return FrequencyPrior(
        channels, axes, sigma=sigma, spectrum=spectrum, wavelet=wavelet, **options
    )


def observe(prior, x):
    prior.observe(x)
    prior.commit()


@pytest.mark.parametrize("axes", [(0, 1), (0, 1, 2), (1, 2)])
@pytest.mark.parametrize("spectrum", ["white", "multiscale"])
def test_gain_is_the_analytic_wiener_gain(axes, spectrum, rng):
    """Bands of known energy go in; E / (E + sigma^2 var e_b) comes out."""
    rank = 3 if axes != (0, 1) else 2
    n_bands = 2 ** len(axes)
    energy = torch.rand((2, n_bands), generator=rng) * 4 + 0.1
    spatial = [32, 32, 16][:rank]
    halved = [n // 2 if a in axes else n for a, n in enumerate(spatial)]
    bands = torch.randn((16, 2, n_bands, *halved), generator=rng) * energy.sqrt().view(
        1, 2, n_bands, *[1] * rank
    )
    x = compose(bands, axes, spatial)
    prior = prior_of(axes, 0.7, spectrum)
    observe(prior, x)
    low, high = (1.0, 1.0) if spectrum == "white" else ((1 + 3 * n_bands) / 4, 0.25)
    unit = torch.tensor([low] + [high] * (n_bands - 1))
    analytic = energy / (energy + 0.7**2 * energy.mean(1, keepdim=True) * unit)
    assert (prior.gain() - analytic).abs().max() < 0.03


def test_closed_form_noise_energy_is_the_measured_one(rng):
    x = torch.randn((32, 2, 32, 32), generator=rng) * torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
    prior = prior_of(sigma=0.5, spectrum="multiscale")
    observe(prior, x)
    noise = (
        0.5
        * channel_sd(x).view(1, 2, 1, 1)
        * unit_noise(x.shape, spectrum="multiscale", generator=rng)
    )
    measured = prior_of()
    observe(measured, noise)
    closed_form = 0.5**2 * prior.variance.unsqueeze(1) * prior.unit_energy
    assert torch.allclose(measured.energy, closed_form, rtol=0.1)


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
def test_observe_returns_the_channels_standard_deviation(wavelet, rng):
    x = torch.randn((4, 2, 16, 12), generator=rng) * torch.tensor([1.0, 3.0]).view(1, 2, 1, 1) + 2
    prior = FrequencyPrior(2, (0, 1), sigma=0.5, spectrum="white", wavelet=wavelet)
    assert torch.allclose(prior.observe(x), channel_sd(x), rtol=1e-4)


@pytest.mark.parametrize(("mean", "sd"), [(1e4, 3.0), (-3e4, 5.0), (1000.0, 1.0)])
def test_raw_intensities_far_from_zero_keep_their_standard_deviation(mean, sd, rng):
    prior = prior_of(of_image=True)
    for _ in range(3):
        x = mean + sd * torch.randn((4, 2, 64, 64), generator=rng)
        exact = x.double().var((0, 2, 3), correction=0)
        assert torch.allclose(prior.observe(x[:1]), sd * torch.ones(2), rtol=0.1)
        prior.observe(x[1:])
        prior.commit()
        assert torch.allclose(prior.variance.double(), exact, rtol=0.05)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((3, 4, 131, 96), (0, 1)), ((2, 4, 37, 32, 34), (0, 1, 2)), ((2, 4, 37, 32, 34), (1, 2))],
)
def test_a_quarter_of_a_large_map_says_what_all_of_it_says(shape, axes, rng):
    x = (
        unit_noise(shape, spectrum="multiscale", generator=rng)
        * torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, *[1] * (len(shape) - 2))
        + 0.5
    )
    looked_at, prior = [], prior_of(axes, channels=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "nnunetv2_lngswr.method.prior.band_energy",
            lambda x, *args: looked_at.append(x.numel()) or band_energy(x, *args),
        )
        sd = prior.observe(x)
    prior.commit()
    assert looked_at[0] <= x.numel() / 4
    whole = band_energy(x, axes)
    assert torch.allclose(prior.energy, whole, rtol=0.12) and torch.allclose(
        sd, channel_sd(x), rtol=0.05
    )


@pytest.mark.parametrize("wavelet", ["haar", "db2", "sym4", "coif1"])
def test_a_large_map_says_of_every_wavelet_what_its_bands_hold(wavelet):
    """A smooth image has no high band, wherever rows are left out of it."""
    rows, columns = torch.meshgrid(*[torch.linspace(0, 3, 256)] * 2, indexing="ij")
    x = (torch.sin(rows) + torch.cos(columns))[None, None]
    prior = prior_of((0, 1), channels=1, wavelet=wavelet)
    prior.observe(x)
    prior.commit()
    whole = band_energy(x, (0, 1), wavelet)
    assert torch.allclose(prior.energy, whole, rtol=0.15, atol=0)


def test_gain_is_one_before_the_first_update():
    assert torch.equal(prior_of().gain(), torch.ones(2, 4))


def test_gain_is_one_without_noise_and_for_dead_channels(rng):
    prior = prior_of(sigma=0.0)
    observe(prior, torch.randn((2, 2, 8, 8), generator=rng))
    assert torch.equal(prior.gain(), torch.ones(2, 4))
    dead = prior_of()
    observe(dead, torch.zeros(2, 2, 8, 8))
    assert torch.equal(dead.gain(), torch.ones(2, 4))


def test_running_mean_of_the_first_steps_is_even_then_exponential(rng):
    prior = prior_of(momentum=0.25)
    energies = []
    for scale in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0):
        observe(prior, torch.full((1, 2, 4, 4), scale))
        energies.append(4 * scale**2)  # of the low band
    expected = energies[0]
    for step, energy in enumerate(energies[1:], start=1):
        weight = max(0.25, 1 / (step + 1))
        expected += weight * (energy - expected)
    assert prior.energy[0, 0].item() == pytest.approx(expected, rel=1e-5)
    assert int(prior.steps) == 6


def test_two_observations_before_a_commit_are_one_joined_batch(rng):
    x = torch.randn((6, 2, 8, 8), generator=rng)
    joined, parts = prior_of(), prior_of()
    for part, whole in ((x, joined), (x[:2], parts), (x[2:], parts)):
        whole.observe(part)
    joined.commit(), parts.commit()
    assert torch.allclose(joined.energy, parts.energy, rtol=1e-5)
    assert torch.allclose(parts.variance, x.var((0, 2, 3), correction=0), rtol=1e-5)
    assert int(parts.steps) == 1


def test_commit_without_observation_changes_nothing(rng):
    prior = prior_of()
    observe(prior, torch.randn((2, 2, 8, 8), generator=rng))
    before = {k: v.clone() for k, v in prior.state_dict().items()}
    prior.commit()
    assert all(torch.equal(before[k], v) for k, v in prior.state_dict().items())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_that_overflows_changes_nothing(rng, bad):
    prior = prior_of()
    x = torch.randn((2, 2, 8, 8), generator=rng)
    observe(prior, x)
    before = {k: v.clone() for k, v in prior.state_dict().items()}
    observe(prior, torch.where(x == x.max(), bad, x))
    assert all(torch.equal(before[k], v) for k, v in prior.state_dict().items())
    observe(prior, 2 * x)
    assert prior.steps == 2 and torch.isfinite(prior.energy).all()


@pytest.mark.parametrize("lone", [0, 1, 2])
def test_an_axis_of_length_one_is_as_one_along_which_nothing_changes(rng, lone):
    shape = [6, 8, 10]
    shape[lone] = 1
    x = torch.randn((8, 2, *shape), generator=rng)
    prior, twice = prior_of((0, 1, 2)), prior_of((0, 1, 2))
    observe(prior, x)
    observe(twice, x.repeat_interleave(2, dim=lone + 2))
    # two equal values have one coefficient, of twice the energy
    assert torch.allclose(2 * prior.energy, twice.energy, atol=1e-5)
    assert ((prior.energy > 0).sum(1) == 4).all()
    assert torch.allclose(prior.variance, twice.variance)


def test_state_travels(rng):
    prior, other = prior_of(), prior_of()
    observe(prior, torch.randn((2, 2, 8, 8), generator=rng))
    other.load_state_dict(prior.state_dict())
    assert torch.equal(other.gain(), prior.gain())
