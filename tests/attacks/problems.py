"""What the tests of attacks share: running one on a trained network, and a model that watches."""

from __future__ import annotations

import torch

from nnunetv2_lngswr import attacks
from nnunetv2_lngswr.attacks import BatchModel, Bounds, LabelSpace, ThreatModel, run_attack

SPACE = LabelSpace.softmax(2)
QUICK = {"steps": 4}


def options(name, network, **more):
    spec = attacks.get_attack(name)
    chosen = {k: v for k, v in {**QUICK, **more}.items() if k in spec.tunable}
    return {**chosen, "surrogate": BatchModel(network)} if spec.needs_surrogate else chosen


def run(name, trained, *, norm="linf", epsilon=0.05, dimension=2, seed=0, cases=2, **more):
    network, x, y = trained[dimension]
    x, y = x[:cases], y[:cases]
    ball = ThreatModel(norm=norm, epsilon=epsilon).ball(Bounds.of(x))
    generator = torch.Generator().manual_seed(seed)
    return x, run_attack(
        name,
        BatchModel(network),
        x,
        SPACE.target(y),
        ball,
        generator=generator,
        **options(name, network, **more),
    )


def two_channel_case(shape=(5, 7)):
    g = torch.Generator().manual_seed(0)
    x = torch.randn((2, 2, *shape), generator=g)
    x[:, 1] *= 10
    return x


class Recorder(BatchModel):
    """Keeps (logits, loss) of every point at which a gradient was asked for."""

    def __init__(self, network):
        super().__init__(network)
        self.seen = []

    def value_and_gradient(self, x, loss):
        out = super().value_and_gradient(x, loss)
        self.seen.append((out[2], float(out[0])))
        return out
