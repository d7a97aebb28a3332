"""Crafting as the tests of adversarial training do it."""

import torch

from nnunetv2_lngswr.attacks import Bounds, LabelSpace, ThreatModel
from nnunetv2_lngswr.training.adversarial_batch import craft

SPACE = LabelSpace.softmax(2)


def ball_of(x, norm="linf", epsilon=0.02):
    return ThreatModel(norm=norm, epsilon=epsilon).ball(Bounds.of(x))


def crafted(network, x, y, *, norm="linf", steps=1, epsilon=0.02, seed=0, **more):
    size = 1.25 if steps == 1 else 2.5 / steps
    generator = torch.Generator().manual_seed(seed)
    ball = ball_of(x, norm, epsilon)
    return craft(
        network,
        x,
        SPACE.target(y),
        ball,
        steps=steps,
        relative_step_size=size,
        generator=generator,
        **more,
    )
