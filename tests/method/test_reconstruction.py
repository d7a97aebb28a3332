"""Laws of the selective reconstruction and of the bottleneck fusion."""

import pytest
import torch

from nnunetv2_lngswr.method.fusion import DynamicMultiScaleFusion
from nnunetv2_lngswr.method.reconstruction import SCALE, SelectiveWaveletReconstruction
from nnunetv2_lngswr.method.wavelet import decompose

GAINS = (1.0, 0.5, 0.25, 0.1)
ENHANCING = (1.0, 1.5, 2.0, 0.1)
"""Directional bands come out larger."""


def module_of(**options):
    return SelectiveWaveletReconstruction(3, (0, 1), **{"fixed_gains": GAINS, **options})


@pytest.mark.parametrize("gains", [GAINS, ENHANCING])
def test_open_gates_apply_the_gains_band_by_band(rng, gains):
    x = torch.randn((2, 3, 8, 10), generator=rng)
    module = module_of(fixed_gains=gains)
    before, after = decompose(x, (0, 1)), decompose(module(x), (0, 1))
    assert torch.allclose(after, before * torch.tensor(gains).view(1, 1, 4, 1, 1), atol=1e-5)


@pytest.mark.parametrize("gains", [GAINS, ENHANCING])
@pytest.mark.parametrize("gate", [0.25, 1.0])
def test_gates_get_the_gradient_of_the_energy_of_their_band(rng, gains, gate):
    x = torch.randn((2, 3, 8, 10), generator=rng)
    module = module_of(fixed_gains=gains, gate_init=gate)
    module(x).square().sum().backward()
    energy = decompose(x, (0, 1)).square().sum((0, 3, 4))[:, 1:]
    g = torch.tensor(gains[1:])
    expected = 2 * (1 - gate * (1 - g)) * (g - 1) * SCALE * energy
    assert torch.allclose(module.theta.grad, expected, rtol=1e-4)


def test_closed_gates_are_the_exact_identity(rng):
    x = torch.randn((2, 3, 7, 10), generator=rng)
    assert torch.equal(module_of(gate_init=0.0)(x), x)


def test_low_band_is_kept_whatever_was_learned(rng):
    module = module_of()
    torch.nn.init.uniform_(module.theta, -1, 1, generator=rng)
    x = torch.randn((2, 3, 8, 10), generator=rng)
    assert torch.allclose(
        decompose(module(x), (0, 1))[:, :, 0], decompose(x, (0, 1))[:, :, 0], atol=1e-5
    )


@pytest.mark.parametrize("gate", [0.0, 1.0])
def test_gradient_is_alive_at_both_ends(gate, rng):
    module = module_of(gate_init=gate)
    assert torch.equal(module.gate(), torch.full((3, 3), gate))
    module(torch.randn((2, 3, 8, 10), generator=rng)).square().sum().backward()
    assert (module.theta.grad.abs() > 1e-3).all()


def test_clamping_keeps_the_gates_inside_their_interval():
    module = module_of()
    with torch.no_grad():
        module.theta.copy_(torch.tensor([[-3.0, 0.5 / SCALE, 9.0]] * 3))
    module.clamp_gates_()
    assert torch.equal(module.theta * SCALE, torch.tensor([[0.0, 0.5, 1.0]] * 3))


def test_prior_gain_is_used_where_gains_are_not_fixed(rng):
    module = module_of(fixed_gains=None)
    prior = torch.rand((3, 4), generator=rng)
    assert (
        torch.allclose(module.gains(prior)[:, 1:], prior[:, 1:])
        and (module.gains(prior)[:, 0] == 1).all()
    )
    with pytest.raises(ValueError, match="prior_gain is needed"):
        module(torch.zeros(1, 3, 4, 4))


def test_it_is_linear_in_x(rng):
    module = module_of()
    x, y = torch.randn((2, 1, 3, 9, 8), generator=rng, dtype=torch.float64)
    assert torch.allclose(module(2 * x - y), 2 * module(x) - module(y), atol=1e-10)


@pytest.mark.parametrize("lone", [0, 1, 2])
def test_an_axis_of_length_one_is_as_one_along_which_nothing_changes(rng, lone):
    gains = (1.0, *(0.1 * n for n in range(2, 9)))  # no two alike
    module = SelectiveWaveletReconstruction(2, (0, 1, 2), fixed_gains=gains)
    shape = [6, 8, 10]
    shape[lone] = 1
    x = torch.randn((1, 2, *shape), generator=rng)
    twice = module(x.repeat_interleave(2, dim=lone + 2))
    assert torch.allclose(module(x), twice.narrow(lone + 2, 0, 1), atol=1e-5)
    assert not torch.allclose(module(x), x, atol=0.1)


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match=r"gate_init must lie in \[0, 1\], got 2"):
        module_of(gate_init=2)
    with pytest.raises(ValueError, match="one value per band"):
        module_of(fixed_gains=(1.0, 0.5))
    with pytest.raises(ValueError, match="wavelet must be"):
        module_of(wavelet="wavy")


@pytest.mark.parametrize("spatial", [(5, 6), (4, 5, 3)])
def test_bottleneck_fusion_starts_as_identity_and_learns(spatial, rng):
    module = DynamicMultiScaleFusion(4, len(spatial))
    x = torch.randn((2, 4, *spatial), generator=rng)
    y = module(x)
    assert torch.equal(y, x)
    y.square().sum().backward()
    assert module.gamma.grad.abs().min() > 0
    with torch.no_grad():
        module.gamma.fill_(1.0)
    assert not torch.allclose(module(x), x)


def test_bottleneck_fusion_is_the_weighted_sum_of_its_dilations(rng):
    fusion = DynamicMultiScaleFusion(3, 2)
    torch.nn.init.constant_(fusion.gamma, 0.7)
    x = torch.randn((2, 3, 8, 8), generator=rng)
    logits = fusion.weighting(x.mean((2, 3)))
    weights = logits.exp() / logits.exp().sum(1, keepdim=True)
    mixed = torch.stack([branch(x) for branch in fusion.branches], 1)
    expected = x + 0.7 * (weights.view(2, -1, 1, 1, 1) * mixed).sum(1)
    assert torch.allclose(fusion(x), expected, atol=1e-5)
