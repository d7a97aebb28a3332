import math

import torch

from nnunetv2_lngswr.attacks import Bounds, ThreatModel, losses, run_attack
from nnunetv2_lngswr.attacks.segpgd import wrong_weight
from tests.attacks.problems import SPACE, Recorder


def test_segpgd_weight_runs_from_zero_towards_one_half():
    assert [wrong_weight(t, 4) for t in range(1, 5)] == [0, 1 / 8, 2 / 8, 3 / 8]


def test_segpgd_uses_the_weight_of_its_step(trained):
    # the value of each ascended loss, recomputed at the iterate with the schedule's weight
    network, x, y = trained[2]
    x, y = x[:1], y[:1]
    ball = ThreatModel(norm="linf", epsilon=0.2).ball(Bounds.of(x))
    model = Recorder(network)
    run_attack(
        "segpgd",
        model,
        x,
        SPACE.target(y),
        ball,
        generator=torch.Generator().manual_seed(0),
        steps=6,
    )
    for t, (z, value) in enumerate(model.seen, start=1):
        expected = losses.segpgd_loss((t - 1) / 12)(z, SPACE.target(y))
        assert math.isclose(value, float(expected), rel_tol=1e-6)
    z, value = model.seen[-1]
    first = float(losses.segpgd_loss(0.0)(z, SPACE.target(y)))
    assert len(model.seen) == 6 and not math.isclose(value, first, rel_tol=1e-3)
