import pytest
import torch

from nnunetv2_lngswr.attacks import BatchModel, Bounds, ThreatModel, run_attack
from tests.attacks.problems import SPACE, run


def test_noise_is_random_signs_at_the_full_budget(trained):
    x, result = run("noise", trained, epsilon=0.01)
    inner = (x - x.flatten(2).amin(2)[..., None, None] > 0.5) & (
        x.flatten(2).amax(2)[..., None, None] - x > 0.5
    )
    size = (
        (result.perturbed - x).abs()
        / (x.flatten(2).amax(2) - x.flatten(2).amin(2))[..., None, None]
    )[inner]
    assert torch.allclose(size, torch.full_like(size, 0.01), rtol=1e-3)
    _, l2 = run("noise", trained, norm="l2", epsilon=0.01)
    assert torch.allclose(
        l2.norms["rms_range"], torch.full((2,), 0.01, dtype=torch.float64), rtol=0.02
    )


def test_l2_noise_is_isotropic_in_units_of_epsilon(trained):
    _, x, y = trained[2]
    x = torch.cat((x, 100 * x[:, :1]), 1)[:1]  # two channels with far ranges
    ball = ThreatModel(norm="l2", epsilon=0.01).ball(Bounds.of(x))
    model = BatchModel(torch.nn.Conv2d(2, 2, 1))
    perturbed = run_attack(
        "noise", model, x, SPACE.target(y[:1]), ball, generator=torch.Generator().manual_seed(0)
    ).perturbed
    rms = ((perturbed - x) / ball.scale.view(1, 2, 1, 1)).square().mean((2, 3)).sqrt()[0]
    assert float(rms[0]) == pytest.approx(
        float(rms[1]), rel=0.3
    )  # few voxels; the channels differ by 100
