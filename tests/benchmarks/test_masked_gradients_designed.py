"""Attacks designed against the method: in the band, in the budget, through the gates; and found."""

import copy
import dataclasses
from fractions import Fraction

import pytest
import torch

from benchmarks.masked_gradients_checks import Protocol, measure_case
from benchmarks.masked_gradients_designed import (
    GATES_OPEN,
    LOW_BAND,
    OTHER_MODEL,
    OTHER_START,
    STRAIGHT_THROUGH,
    LowBandModel,
    designed,
    gates_open,
    low_band_axes,
    low_share,
    over_blocks,
    reconstructions,
    straight_through,
)
from benchmarks.masked_gradients_verdicts import MASKED, PASSES, judge, summarise
from evaluation.model.folder import SegmentationModel
from nnunetv2_lngswr.attacks import BatchModel, Bounds, LabelSpace, ThreatModel, run_attack
from nnunetv2_lngswr.attacks.geometry import perturbation_norms
from nnunetv2_lngswr.attacks.losses import cross_entropy
from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.method.network import attach, find_lngswr
from nnunetv2_lngswr.method.reconstruction import SelectiveWaveletReconstruction
from nnunetv2_lngswr.method.wavelet import apply_gains, decompose
from tests.benchmarks.models import ball_cases, trained_folder, with_network
from tests.model_folders import make_network

PROTOCOL = Protocol(
    epsilon=Fraction(40, 255),
    attack="apgd_dice",
    attack_steps=10,
    step_sweep=(10,),
    radii=(),
    queries=1,
    grid=3,
)
EPSILON = 0.15


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return SegmentationModel.from_folder(trained_folder(tmp_path_factory.mktemp("model"), seed=0))


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return ball_cases(tmp_path_factory.mktemp("cases"))


def problem(shape, *, seed=0):
    """(x, target, axes of the blocks) in double precision."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn((2, 1, *shape), generator=g, dtype=torch.float64)
    target = LabelSpace.softmax(2).target(torch.randint(0, 2, (2, *shape), generator=g))
    return x, target, tuple(range(2, x.ndim))


def any_size():
    """A network for cases of every size, odd ones too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = [torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(4, 2, 1)]
        return torch.nn.Sequential(*parts).double()


SHAPES = ((16, 16), (13, 16), (9, 7), (8, 5, 6))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_mean_over_blocks_is_what_the_reconstruction_keeps(shape):
    x, _, axes = problem(shape)
    spatial = [a - 2 for a in axes]
    gains = torch.zeros(1, 2 ** len(spatial), dtype=x.dtype)
    gains[:, 0] = 1
    low = over_blocks(x, axes, torch.mean)
    torch.testing.assert_close(low, apply_gains(x, gains, spatial))
    torch.testing.assert_close(over_blocks(low, axes, torch.mean), low)


@pytest.mark.parametrize("norm", ("linf", "l2"))
@pytest.mark.parametrize("shape", ((16, 16), (13, 16)))
def test_an_attack_confined_to_the_low_band_is_in_it_and_keeps_its_budget(shape, norm):
    x, target, axes = problem(shape)
    bounds = Bounds.of(x)
    ball = ThreatModel(norm=norm, epsilon=EPSILON).ball(bounds)
    network = any_size()
    confined = LowBandModel(BatchModel(network), x, bounds, axes)
    generator = torch.Generator().manual_seed(0)
    # larger radii first: what is returned is in the ball all the same
    options = {"steps": 10, "generator": generator}
    found = run_attack("apgd_dice", confined, x, target, ball, **options)
    point = confined.point(found.perturbed)
    high = decompose(point - x, [a - 2 for a in axes])[:, :, 1:]
    assert high.abs().max() < 1e-12 and low_share(point - x, axes) == pytest.approx(1)
    size = perturbation_norms(point, x, bounds)["linf_range" if norm == "linf" else "rms_range"]
    assert (size <= EPSILON * (1 + 1e-9)).all() and (size > EPSILON / 4).all()
    torch.testing.assert_close(confined.point(point), point)  # nothing is left to take out
    for i, case in enumerate(point):
        assert x[i].min() <= case.min() and case.max() <= x[i].max()
    # what it was chosen by is what the model itself says of the point
    judged = BatchModel(network).logits(point)
    assert torch.equal(judged, confined.logits(found.perturbed))


def test_its_gradient_is_that_of_the_low_band():
    x, target, axes = problem((9, 8))
    network = any_size()
    # bounds that hold nothing back
    wide = Bounds.of(torch.cat((x - 9, x + 9), -1))
    confined = LowBandModel(BatchModel(network), x, wide, axes)
    u = (x + 0.1 * torch.randn_like(x)).requires_grad_()
    loss = cross_entropy(network(x + over_blocks(u - x, axes, torch.mean)), target)
    (expected,) = torch.autograd.grad(loss.sum(), u)
    value, gradient, _ = confined.value_and_gradient(u.detach(), lambda z: cross_entropy(z, target))
    torch.testing.assert_close(value, loss.detach())
    torch.testing.assert_close(gradient, expected)


def with_method(seed=0, **config):
    return attach(make_network(2, seed=seed), LNGSWRConfig(**config)).double().eval()


def gradient_of(network, x, target):
    _, gradient, z = BatchModel(network).value_and_gradient(x, lambda z: cross_entropy(z, target))
    return gradient, z


def test_straight_through_is_the_backbones_gradient_at_the_reconstructed_image():
    x, target, _ = problem((16, 16))
    network = with_method(reconstruct_stages=False)
    full, z = gradient_of(network, x, target)
    with straight_through([network]) as count:
        gradient, z_straight = gradient_of(network, x, target)
    assert count == 1 and torch.equal(z, z_straight)
    with torch.no_grad():
        image = find_lngswr(network).image(x)
    with gates_open([network]):
        expected, z_open = gradient_of(network, image, target)
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(z_open, z)
    assert (full - gradient).norm() > 0.1 * full.norm()


def test_open_gates_are_gates_at_zero():
    x, target, _ = problem((16, 16))
    network, opened = with_method(), with_method(gate_init=0.0)
    with gates_open([network]) as count:
        assert count == 2
        for ours, theirs in zip(gradient_of(network, x, target), gradient_of(opened, x, target)):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("replacing", (straight_through, gates_open))
def test_the_method_comes_back_also_after_an_error(replacing):
    x, target, _ = problem((16, 16))
    network = with_method()
    before, keys = gradient_of(network, x, target), [set(m.__dict__) for m in network.modules()]
    with pytest.raises(KeyboardInterrupt), replacing([network]), gates_open([network]):
        raise KeyboardInterrupt
    assert all(torch.equal(a, b) for a, b in zip(before, gradient_of(network, x, target)))
    assert [set(m.__dict__) for m in network.modules()] == keys


def test_the_blocks_are_of_the_axes_of_the_case():
    plane, volume = make_network(2), make_network(3)
    assert low_band_axes(plane, torch.zeros(1, 1, 1, 16, 16)) == (3, 4)
    assert low_band_axes(plane, torch.zeros(1, 1, 16, 16)) == (2, 3)
    assert low_band_axes(volume, torch.zeros(1, 1, 8, 8, 8)) == (2, 3, 4)
    with pytest.raises(ValueError, match="the low band is that of haar, got a model with db2"):
        low_band_axes(with_method(wavelet="db2"), torch.zeros(1, 1, 16, 16))


class Rounding(SelectiveWaveletReconstruction):
    """A reconstruction that hides the gradient of what stands before it."""

    def forward(self, x, prior_gain=None, **options):
        return (super().forward(x, prior_gain) * 1.5).round() / 1.5


def test_a_reconstruction_that_hides_gradients_is_found_and_an_honest_one_passes(model, cases):
    network = attach(copy.deepcopy(model.networks[0]), LNGSWRConfig(gate_init=0.0))
    found = {}
    for kind in (SelectiveWaveletReconstruction, Rounding):
        find_lngswr(network).image.reconstruction.__class__ = kind
        measured = [measure_case(with_network(model, network), model, cases[0], PROTOCOL)]
        figures = summarise(measured, PROTOCOL)
        shares = {name: f["low_share"] for name, f in figures["designed"].items()}
        assert [*shares] == [OTHER_START, OTHER_MODEL, LOW_BAND, STRAIGHT_THROUGH, GATES_OPEN]
        assert shares[LOW_BAND] == pytest.approx(1) and shares[OTHER_START] < 0.9
        found[kind.__name__] = judge(figures)["designed"]
    assert found["SelectiveWaveletReconstruction"]["verdict"] == PASSES, found
    assert found["Rounding"]["verdict"] == MASKED, found


def test_without_a_reconstruction_there_is_nothing_to_open(model, cases):
    assert reconstructions(model.networks) == []
    case = model.preprocess(cases[0].images, cases[0].label, identifier="case")
    short = dataclasses.replace(PROTOCOL, attack_steps=3)
    found = designed(model, model, case, short)
    assert [*found] == [OTHER_START, OTHER_MODEL, LOW_BAND]
    assert found == designed(model, model, case, short)
    assert found[OTHER_MODEL] == found[OTHER_START]  # which is itself here
