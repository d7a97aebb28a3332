"""The consistency loss: the clean loss plus a divergence that is torch's own."""

import pytest
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch.nn import functional as F

from nnunetv2_lngswr.training.consistency import ConsistencyLoss, divergence
from tests.training.crafting import SPACE


@pytest.mark.parametrize("regions", (False, True))
def test_divergence_is_the_mean_kl_and_zero_for_equal_predictions(rng, regions):
    z, other = torch.randn(2, 2, 3, 4, 5, generator=rng)
    mask = torch.rand(2, 1, 4, 5, generator=rng) > 0.3
    kinds = [
        torch.distributions.Bernoulli(logits=t)
        if regions
        else torch.distributions.Categorical(logits=t.movedim(1, -1))
        for t in (z, other)
    ]
    kl = torch.distributions.kl_divergence(*kinds)
    expected = kl[mask.expand(-1, 3, -1, -1)].mean() if regions else kl[mask[:, 0]].mean()
    assert torch.allclose(divergence(z, other, mask, regions=regions), expected, rtol=1e-4)
    assert divergence(z, z, mask, regions=regions).abs() < 1e-6


def test_consistency_loss_is_the_clean_loss_plus_the_weighted_divergence_of_every_scale(rng):
    samples = torch.tensor([1, 2])
    outputs = [torch.randn(3 + 2, 2, n, n, generator=rng, requires_grad=True) for n in (8, 4)]
    targets = [torch.randint(0, 2, (3, 1, n, n), generator=rng) for n in (8, 4)]
    plain = DeepSupervisionWrapper(lambda z, t: F.cross_entropy(z, t[:, 0]), (0.75, 0.25))
    loss = ConsistencyLoss(plain, 3.0, samples, SPACE)(outputs, targets)
    expected = plain([z[:3] for z in outputs], targets)
    for weight, z in zip((0.75, 0.25), outputs):
        expected = expected + 3 * weight * divergence(
            z[samples], z[3:], torch.ones(2, 1, *z.shape[2:]), regions=False
        )
    assert torch.allclose(loss, expected)
    loss.backward()
    assert outputs[0].grad[3:].abs().sum() > 0 and outputs[0].grad[:3].abs().sum() > 0


def test_without_deep_supervision_it_is_the_same_of_one_scale(rng):
    samples, z = torch.tensor([1, 2]), torch.randn(3 + 2, 2, 8, 8, generator=rng)
    target = torch.randint(0, 2, (3, 1, 8, 8), generator=rng)

    def plain(z, t):
        return F.cross_entropy(z, t[:, 0])

    counted = torch.ones(2, 1, 8, 8)
    expected = plain(z[:3], target) + 3 * divergence(z[samples], z[3:], counted, regions=False)
    assert torch.allclose(ConsistencyLoss(plain, 3.0, samples, SPACE)(z, target), expected)
