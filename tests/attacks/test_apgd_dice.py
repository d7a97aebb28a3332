"""What apgd_dice alone promises: its scale, its starts, its temperature."""

import copy
import math

import pytest
import torch

from nnunetv2_lngswr.attacks import BatchModel, Bounds, ThreatModel, run_attack
from nnunetv2_lngswr.utils.errors import UserError
from tests.attacks.problems import SPACE


class Scaled(BatchModel):
    """Its logits are those of the network times a factor; keeps the points that are looked at."""

    def __init__(self, network, factor=1.0):
        super().__init__(network)
        self.factor, self.points = factor, []

    def _forward(self, x):
        self.points.append(x.detach().clone())
        return self.factor * super()._forward(x)


def attack(trained, model, *, epsilon=0.15, **options):
    _, x, y = trained[2]
    ball = ThreatModel(norm="linf", epsilon=epsilon).ball(Bounds.of(x))
    generator = torch.Generator().manual_seed(0)
    options = {"steps": 10, **options}
    return run_attack("apgd_dice", model, x, SPACE.target(y), ball, generator=generator, **options)


def test_logits_times_500_give_the_same_perturbation(trained):
    network, x, y = trained[2]
    # in double precision no sign of a gradient depends on the rounding
    network = copy.deepcopy(network).double()
    trained = {2: (network, x.double(), y)}
    plain, scaled = (attack(trained, Scaled(network, f)) for f in (1.0, 500.0))
    assert (plain.dice < 0.9).all()
    assert torch.allclose(plain.perturbed, scaled.perturbed, rtol=0, atol=1e-12)
    assert torch.equal(plain.dice, scaled.dice) and torch.allclose(plain.loss, scaled.loss)
    # at a temperature in units of the logits nothing is left of the gradient there
    options = {"scale_free": False, "temperature": 1.0}
    plain, scaled = (attack(trained, Scaled(network, f), **options) for f in (1.0, 500.0))
    assert scaled.dice.mean() > plain.dice.mean() + 0.05


def test_restarts_begin_at_the_start_then_at_the_clean_case_then_anywhere(trained):
    network, x, _ = trained[2]
    one_stage = {"steps": 3, "radius_schedule": False, "epsilon": 0.01}
    start = x + 0.005
    begins = {}
    for name, options in {"random": {}, "given": {"start": start}}.items():
        model = Scaled(network)
        result = attack(trained, model, restarts=3, **one_stage, **options)
        begins[name] = model.points[::4]  # three steps, and the start
        assert len(begins[name]) == 3 and result.settings["start"] == name
    clipped = torch.minimum(start, x.flatten(2).amax(2)[..., None, None])
    assert torch.allclose(begins["given"][0], clipped, atol=1e-6)
    for name, points in begins.items():
        others = points if name == "random" else points[1:]
        assert torch.equal(points[1], x)
        assert all((a - b).abs().max() > 1e-3 for a, b in zip(others, others[1:]))


@pytest.mark.parametrize(("radius_schedule", "steps"), ((True, 4), (False, 1)))
def test_going_on_from_a_point_is_never_worse_than_that_point(radius_schedule, steps, trained):
    network, _, _ = trained[2]
    first = attack(trained, BatchModel(network), steps=20)
    # too few steps to come back by themselves
    second = attack(
        trained,
        BatchModel(network),
        steps=steps,
        start=first.perturbed,
        temperature=1.0,
        scale_free=False,
        radius_schedule=radius_schedule,
    )
    assert (second.dice <= first.dice).all() and (first.dice < 0.9).all()


@pytest.mark.parametrize("temperature", (0, -2.0, math.nan, math.inf))
def test_a_temperature_that_is_not_positive_is_refused(temperature, trained):
    model = Scaled(trained[2][0])
    with pytest.raises(UserError, match="temperature must be a finite number > 0"):
        attack(trained, model, temperature=temperature)
    assert not model.points


def test_a_start_that_fits_no_case_is_refused(trained):
    network, x, _ = trained[2]
    for start in (x[:1], torch.full_like(x, math.nan)):
        with pytest.raises(UserError, match="start must be finite and of the shape of the case"):
            attack(trained, BatchModel(network), start=start)


def test_a_start_that_has_won_already_is_what_is_returned(trained):
    network, x, y = trained[2]

    class FindsNothing(torch.nn.Module):
        def forward(self, images):
            z = network(images)
            return torch.cat([z[:, :1].abs() + 1, -z[:, 1:].abs() - 1], 1)

    result = attack(trained, BatchModel(FindsNothing()), start=x)
    assert (result.dice == 0).all() and result.perturbed.shape == x.shape
    assert result.extras["step_sizes"].shape == (0, len(x))
