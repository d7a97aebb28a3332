import math

import pytest
import torch

from nnunetv2_lngswr.attacks import Bounds, ThreatModel, run_attack
from tests.attacks.problems import SPACE


@pytest.mark.parametrize("shape", ((32, 24), (1, 24, 32), (12, 12, 10)))
def test_squares_shrink_on_the_published_schedule(shape):
    # a model that nothing moves: every candidate is the start with one cube redrawn, so the cube's
    # side can be read off
    seen = []

    class Still:
        def logits(self, x):
            seen.append(x.clone())
            return torch.zeros(1, 2, *x.shape[2:])

    x = 0.5 + 0.01 * torch.rand((1, 1, *shape), generator=torch.Generator().manual_seed(0))
    x.flatten()[:2] = torch.tensor([0.0, 1.0])
    ball = ThreatModel(norm="linf", epsilon=0.3).ball(Bounds.of(x))
    target = SPACE.target(torch.zeros(1, *shape, dtype=torch.long))
    steps = 150
    run_attack(
        "square", Still(), x, target, ball, generator=torch.Generator().manual_seed(0), steps=steps
    )
    start, *candidates = seen
    # stripes run along it, so a cube covers whole stretches of them
    axis = next(a for a, n in enumerate(shape) if n > 1)
    drawn, length = 0, sum(n > 1 for n in shape)
    for query, candidate in enumerate(candidates):
        # p = 0.8, halved after these of 10000 queries (Andriushchenko et al. 2020, section 4.1 and
        # their code)
        halvings = sum(
            query / steps * 10000 > n for n in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
        )
        side = max(round((0.8 / 2**halvings * math.prod(shape)) ** (1 / length)), 1)
        changed = (candidate - start)[0, 0].abs() > 1e-6
        along = changed.any(tuple(a for a in range(len(shape)) if a != axis))
        if changed.any():
            drawn += 1
            at = along.nonzero().flatten()
            assert len(at) == int(at[-1] - at[0]) + 1 == min(side, shape[axis]), query
    assert len(candidates) == steps and drawn > steps / 2


def test_what_helps_is_held_also_where_the_first_look_was_nan():
    seen = []

    class Falling:
        """CE of label 1 rises as x falls; nan at the first look."""

        def logits(self, x):
            seen.append(x.clone())
            return torch.cat([-x, x], 1) * (math.nan if len(seen) == 1 else 1)

    x = 0.5 + 0.01 * torch.rand((1, 1, 32, 24), generator=torch.Generator().manual_seed(0))
    x.flatten()[:2] = torch.tensor([0.0, 1.0])
    ball = ThreatModel(norm="linf", epsilon=0.3).ball(Bounds.of(x))
    target = SPACE.target(torch.ones(1, 32, 24, dtype=torch.long))
    generator = torch.Generator().manual_seed(0)
    run_attack("square", Falling(), x, target, ball, generator=generator, steps=200)
    # the last candidates differ from the start by all that helped, and not by one small cube
    assert ((seen[-1] - seen[0]).abs() > 1e-6).float().mean() > 0.3


def test_queries_end_where_nothing_is_segmented_right_any_more():
    class Lost:
        queries = 0

        def logits(self, x):
            self.queries += 1
            return torch.cat([x + 1, -x - 1], 1)

    model = Lost()
    x = torch.rand((1, 1, 12, 14), generator=torch.Generator().manual_seed(0))
    target = SPACE.target(torch.ones(1, 12, 14, dtype=torch.long))
    ball = ThreatModel(norm="linf", epsilon=0.1).ball(Bounds.of(x))
    generator = torch.Generator().manual_seed(0)
    result = run_attack("square", model, x, target, ball, generator=generator, steps=50, restarts=3)
    assert model.queries == 1 and (result.dice == 0).all()
