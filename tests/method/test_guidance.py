"""Guided noise: where a step along the gradient goes, whose it is, and what it leaves alone."""

import pytest
import torch

from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.method.guidance import Guidance
from nnunetv2_lngswr.method.network import attach, find_lngswr
from tests.model_folders import make_network

SIZE = 0.1


def sd_of(x):
    dims = (0, *range(2, x.ndim))
    return (x - x.mean(dims, keepdim=True)).square().mean(dims).sqrt()


def after_a_step(x, weight, new):
    """Guidance for the step after one on the loss sum(weight * x)."""
    guidance = Guidance(SIZE)
    guidance(x, sd_of(x))
    guidance.pass_on(len(x))  # it has seen the shape
    (weight * guidance(x, sd_of(x))).sum().backward()
    guidance.pass_on(new)
    return guidance


@pytest.mark.parametrize("shape", [(4, 2, 8, 6), (4, 3, 4, 6, 5)])
@pytest.mark.parametrize("new", [1, 2, 4])
def test_samples_that_stay_go_up_by_the_size_and_new_ones_stay(shape, new, rng):
    x = torch.randn(shape, generator=rng) * 3
    weight = torch.randn(shape, generator=rng)
    guidance = after_a_step(x, weight, new)
    moved = guidance(x, sd_of(x)) - x
    size = SIZE * sd_of(x).view(1, -1, *[1] * (x.ndim - 2))
    stay = len(x) - new
    torch.testing.assert_close(moved[:stay], (size * weight[new:].sign()).detach())
    assert not moved[stay:].any()


def test_strength_scales_it_and_eval_mode_has_none(rng):
    x = torch.randn((4, 2, 8, 8), generator=rng)
    guidance = after_a_step(x, torch.ones_like(x), new=1)
    whole = guidance(x, sd_of(x)) - x
    guidance.strength.fill_(0.25)
    torch.testing.assert_close(guidance(x, sd_of(x)) - x, 0.25 * whole)
    guidance.eval()
    assert guidance(x, sd_of(x)) is x
    assert not guidance.state_dict() and not list(guidance.parameters())


def test_a_gradient_scaler_and_what_overflows_do_not_show(rng):
    x = torch.randn((4, 2, 8, 8), generator=rng)
    weight = torch.randn(x.shape, generator=rng)
    expected = after_a_step(x, weight, new=2).direction
    torch.testing.assert_close(after_a_step(x, 65536 * weight, new=2).direction, expected)
    weight[2, 0, 0], weight[2, 0, 1] = float("nan"), -float("inf")
    found = after_a_step(x, weight, new=2).direction
    assert not found[0, 0, 0].any() and (found[0, 0, 1] == -1).all()
    torch.testing.assert_close(found[0, 0, 2:], expected[0, 0, 2:])


def test_half_precision_keeps_a_direction_that_the_small_step_would_lose(rng):
    x = torch.randn((4, 2, 8, 8), generator=rng).half()
    guidance = Guidance(SIZE)
    guidance.strength.fill_(1e-3)
    sd = sd_of(x.float())
    guidance(x, sd)
    guidance.pass_on(len(x))
    moved = guidance(x, sd)
    assert moved.dtype == torch.half == guidance.direction.dtype
    moved.backward(torch.full_like(x, 1e-6))  # times 1e-4 there is nothing left in fp16
    guidance.pass_on(1)
    assert (guidance.direction[:3] == 1).all()


def test_another_batch_than_the_trainings_passes_through(rng):
    x = torch.randn((4, 2, 8, 8), generator=rng)
    guidance = after_a_step(x, torch.ones_like(x), new=1)
    assert guidance(x[:2], sd_of(x)) is not None
    torch.testing.assert_close(guidance(x[:2], sd_of(x)), x[:2])
    guidance.restart()
    torch.testing.assert_close(guidance(x, sd_of(x)), x)


@pytest.mark.parametrize("compiled", [False, True])
def test_all_layers_of_a_network_are_guided_in_eager_and_compiled_code(compiled, rng):
    quiet = {"noise_sigma_input": 1e-6, "noise_sigma_stages": 1e-6}
    module = attach(make_network(2), LNGSWRConfig(noise_guided=SIZE, **quiet))
    lngswr = find_lngswr(module)
    network = module
    if compiled:
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        network = torch.compile(module, backend="aot_eager", fullgraph=True)
    x = torch.randn((4, 1, 16, 16), generator=rng)

    def loss(x):
        out = network(x)
        return (out[0] if isinstance(out, (list, tuple)) else out).square().mean()

    for _ in range(4):
        loss(x).backward()
        for guidance in lngswr.guidance():
            guidance.pass_on(new=2)
    if compiled:  # without a direction and with one, and no more at every step
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 3
    assert len(lngswr.guidance()) == 1 + len(lngswr.stages)
    for guidance in lngswr.guidance():
        shares = guidance.direction.detach().abs().flatten(1).mean(1)
        assert (shares[:2] > 0.5).all() and not shares[2:].any()
    moved = torch.cat((x[2:], x[:2]))  # as the training's window has it
    guided = loss(moved)
    for guidance in lngswr.guidance():
        guidance.restart()
    assert guided > loss(moved)


@pytest.mark.parametrize(
    "options", [{"noise": False}, {"noise_sigma_input": 0, "noise_sigma_stages": 0}]
)
def test_without_noise_nothing_is_guided(options):
    config = LNGSWRConfig(noise_guided=SIZE, **options)
    assert not config.guides and LNGSWRConfig(noise_guided=SIZE).guides
    assert not find_lngswr(attach(make_network(2), config)).guidance()
