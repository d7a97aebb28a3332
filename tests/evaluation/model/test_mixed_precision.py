"""Gradients in mixed precision keep their digits, and what overflows makes no step."""

from functools import partial

import pytest
import torch

from evaluation.model.sliding_window import SlidingWindow
from nnunetv2_lngswr.attacks.losses import cross_entropy
from nnunetv2_lngswr.attacks.models import scaled_gradient
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


def test_mixed_precision_makes_no_step_where_it_overflows():
    class Overflowing(torch.nn.Module):
        def forward(self, x):
            return torch.cat((x, x * x.where(x > 0, torch.inf)), 1)

    x, target = case((PATCH, PATCH), dtype=torch.float32)
    window = SlidingWindow([Overflowing()], patch_size=(PATCH,) * 2, autocast=torch.bfloat16)
    _, gradient, _ = window.value_and_gradient(x, lambda z: z.flatten(1).mean(1))
    assert (
        torch.isfinite(gradient).all()
        and (gradient[x <= 0] == 0).all()
        and (gradient[x > 0] != 0).all()
    )


def test_a_case_of_small_gradients_keeps_them_beside_one_of_large_ones():
    leaf = torch.ones(2, 1, 4, 4, requires_grad=True)
    cotangent = torch.ones(2, 1, 4, 4) * torch.tensor([1.0, 1e-9])[:, None, None, None]
    gradient = scaled_gradient((leaf * 2).half(), leaf, cotangent)
    torch.testing.assert_close(gradient, 2 * cotangent, rtol=1e-3, atol=0)
