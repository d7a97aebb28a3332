"""The loss that each attack hands to the model, against its formula written out voxel by voxel."""

import math

import pytest
import torch

from nnunetv2_lngswr.attacks import Bounds, ThreatModel, run_attack
from tests.attacks.problems import SPACE, Recorder, options


def per_voxel(formula, z, y):
    """Mean over a case's voxels of formula(p, label), z (1, K, h, w), one voxel after the other."""
    values = []
    for i, j in torch.cartesian_prod(*[torch.arange(n) for n in y.shape[1:]]).tolist():
        e = [math.exp(v) for v in z[0, :, i, j].double().tolist()]
        values.append(formula([v / sum(e) for v in e], int(y[0, i, j])))
    return sum(values) / len(values)


def jensen_shannon(p, label):
    truth = [float(k == label) for k in range(len(p))]
    middle = [(a + b) / 2 for a, b in zip(p, truth)]

    def kl(a):
        return sum(v * math.log(v / m) for v, m in zip(a, middle) if v > 0)

    return (kl(p) + kl(truth)) / 2


FORMULAS = {
    "ce": lambda p, label: -math.log(p[label]),
    "masked_ce": lambda p, label: -math.log(p[label]) if p[label] == max(p) else 0.0,
    "js": jensen_shannon,
    "cospgd": lambda p, label: -math.log(p[label]) * p[label] / math.hypot(*p),
}


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("pgd_linf", "ce"),
        ("fgsm", "ce"),
        ("apgd", "ce"),
        ("apgd_masked_ce", "masked_ce"),
        ("apgd_js", "js"),
        ("cospgd", "cospgd"),
    ],
)
def test_the_loss_that_is_ascended_is_the_one_of_the_name(name, formula, trained):
    # at every iterate where a gradient is taken: the loss handed to the model, on the logits that
    # the model has there
    network, x, y = trained[2]
    x, y = x[:1], y[:1]
    ball = ThreatModel(norm="linf", epsilon=0.2).ball(Bounds.of(x))
    model = Recorder(network)
    run_attack(
        name,
        model,
        x,
        SPACE.target(y),
        ball,
        generator=torch.Generator().manual_seed(0),
        **options(name, network, steps=6),
    )
    seen = model.seen
    assert len(seen) >= (1 if name == "fgsm" else 6)
    for z, value in seen:
        assert math.isclose(value, per_voxel(FORMULAS[formula], z, y), rel_tol=1e-4)
    # the formulas can be told apart there (fgsm looks at the clean case only, where nearly all is
    # right)
    found = sorted(per_voxel(f, seen[-1][0], y) for f in FORMULAS.values())
    assert name == "fgsm" or all(b > 1.01 * a for a, b in zip(found, found[1:])), found
