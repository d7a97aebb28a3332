"""Gradients in mixed precision keep their digits, and what overflows makes no step."""

from functools import partial

import pytest
import torch

from evaluation.model.sliding_window import SlidingWindow
from nnunetv2_lngswr.attacks import run_attack
from nnunetv2_lngswr.attacks.losses import cross_entropy
from nnunetv2_lngswr.attacks.models import scaled_gradient
from nnunetv2_lngswr.attacks.threat_model import Bounds, ThreatModel
from tests import model_folders
from tests.evaluation.model.windows import PATCH, case


@pytest.mark.parametrize("patch", (1024, 640))  # one pass, and one with windows
def test_mixed_precision_keeps_the_gradients_of_a_large_case(patch):
    # a million voxels: without a scale their gradients lose most of their digits in fp16
    nets = [model_folders.make_network(2, features=(2, 4)).eval()]
    x, target = case((1024, 1024), dtype=torch.float32)
    options = {"patch_size": (patch, patch), "tile_step_size": 1.0}
    loss = partial(cross_entropy, target=target)
    value, exact, z = SlidingWindow(nets, **options).value_and_gradient(x, loss)
    value_16, half, z_16 = SlidingWindow(
        nets, **options, autocast=torch.float16
    ).value_and_gradient(x, loss)
    assert half.dtype == z_16.dtype == torch.float32 and not torch.equal(z_16, z)
    assert float((half - exact).norm() / exact.norm()) < 0.05
    assert (half.sign() == exact.sign()).float().mean() > 0.95
    torch.testing.assert_close(value_16, value, rtol=1e-3, atol=0)


def test_what_overflows_at_any_scale_makes_no_step_and_is_counted():
    class Steep(torch.nn.Module):
        """Whose gradient is infinite where x <= 0, though its logits are finite."""

        def forward(self, x):
            return torch.cat((x, _SteepBelowZero.apply(x) - x), 1)

    x, target = case((PATCH, PATCH), dtype=torch.float32)
    window = SlidingWindow([Steep()], patch_size=(PATCH,) * 2, autocast=torch.bfloat16)
    ball = ThreatModel(norm="linf", epsilon=0.1).ball(Bounds.of(x))
    generator = torch.Generator().manual_seed(0)
    found = run_attack("fgsm", window, x, target, ball, generator=generator)
    moved = found.perturbed != x
    steep, else_ = x <= 0, (x > 0) & (x < x.max())  # what is the largest may go no higher
    assert not moved[steep].any() and moved[else_].all() and found.non_finite.tolist() == [1]


class _SteepBelowZero(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.zeros_like(x)

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return torch.where(x > 0, 0.0, torch.inf).to(x)


@pytest.mark.parametrize("factor", (300.0**2, 2.0**30))
def test_a_gradient_that_overflows_fp16_is_taken_at_a_smaller_scale(factor):
    # as through the instance norms of a window of zeros
    leaf = torch.ones(2, 1, 4, 4, requires_grad=True)
    cotangent = torch.ones(2, 1, 4, 4) * torch.tensor([1.0, 1e-9])[:, None, None, None]
    half = _Times.apply(leaf.half(), factor)
    gradient = scaled_gradient(half, leaf, cotangent)
    torch.testing.assert_close(gradient, factor * cotangent, rtol=1e-3, atol=0)


class _Times(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * ctx.factor, None


def test_a_window_of_zeros_has_the_gradient_of_fp32():
    network = model_folders.make_network(2, features=(8, 16, 32, 32)).eval()
    with torch.no_grad():  # as of images of small values; instance norm undoes it elsewhere
        next(network.parameters()).mul_(3e3)
    x, target = case((32, 96), dtype=torch.float32)
    x[..., 32:] = 0
    loss, gradients = partial(cross_entropy, target=target), []
    for autocast in (None, torch.float16):
        window = SlidingWindow(
            [network], patch_size=(32, 32), tile_step_size=1.0, autocast=autocast
        )
        gradients.append(window.value_and_gradient(x, loss)[1])
    exact, half = gradients
    assert exact[..., 64:].abs().max() > 65504 * exact[..., :32].abs().max()
    assert float((half - exact).norm() / exact.norm()) < 0.05


def test_a_case_of_small_gradients_keeps_them_beside_one_of_large_ones():
    leaf = torch.ones(2, 1, 4, 4, requires_grad=True)
    cotangent = torch.ones(2, 1, 4, 4) * torch.tensor([1.0, 1e-9])[:, None, None, None]
    gradient = scaled_gradient((leaf * 2).half(), leaf, cotangent)
    torch.testing.assert_close(gradient, 2 * cotangent, rtol=1e-3, atol=0)
