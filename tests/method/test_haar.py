"""Haar's block product: chunks, compiled code, layouts, what is kept for backward, in place."""

import pytest
import torch

from nnunetv2_lngswr.method import chunks
from nnunetv2_lngswr.method.wavelet import apply_gains, band_energy, compose, decompose
from tests.method.shapes import SHAPES, all_axes


@pytest.mark.parametrize("shape", SHAPES)
def test_chunks_and_compiled_code_give_the_same(shape, rng, monkeypatch):
    x = torch.randn(shape, generator=rng, dtype=torch.float64, requires_grad=True)
    axes = all_axes(shape)
    gains = torch.rand(
        (shape[1], 2 ** len(axes)), generator=rng, dtype=torch.float64, requires_grad=True
    )
    grad = torch.randn(shape, generator=rng, dtype=torch.float64)

    def results(function):
        y = function(x, gains, axes)
        return (y, *torch.autograd.grad(y, (x, gains), grad), band_energy(x.detach(), axes))

    whole = results(apply_gains)
    compiled = results(torch.compile(apply_gains, fullgraph=True, backend="eager", dynamic=False))
    weights = gains.view(1, *gains.shape, *[1] * (len(shape) - 2))
    direct = compose(decompose(x, axes) * weights, axes, shape[2:])
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", 1)
    for other in (compiled, results(apply_gains)):
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(whole, other))
    assert torch.allclose(whole[0], direct, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_writing_over_x_changes_neither_result_nor_gradients(shape, rng):
    axes = all_axes(shape)
    x = torch.randn(shape, generator=rng, dtype=torch.float64, requires_grad=True)
    gains = (
        0.02 + 0.98 * torch.rand((shape[1], 2 ** len(axes)), generator=rng, dtype=torch.float64)
    ).requires_grad_()
    grad = torch.randn(shape, generator=rng, dtype=torch.float64)
    expected = apply_gains(x, gains, axes)
    for least_gain in (0.0, 0.02):  # where x itself is kept it must stay what it is
        own = x * 1
        y = apply_gains(own, gains, axes, least_gain=least_gain, in_place=True)
        overwritten = least_gain > 0 and all(shape[2 + a] % 2 == 0 for a in axes)
        assert torch.equal(y, expected) and (y.data_ptr() == own.data_ptr()) == overwritten
        for got, want in zip(
            torch.autograd.grad(y, (x, gains), grad),
            torch.autograd.grad(apply_gains(x, gains, axes), (x, gains), grad),
        ):
            assert torch.allclose(got, want, rtol=1e-9, atol=1e-12)


def layouts(x):
    """The same values, laid out as nnU-Net never does but a caller may."""
    yield x.to(memory_format=torch.channels_last)
    yield torch.cat((x, x), dim=1)[:, x.shape[1] :]
    odd = x.new_empty(x.numel() + 1)[1:].view(x.shape)  # storage that starts at an odd place
    yield odd.copy_(x)
    wide = x.new_empty((*x.shape[:-1], x.shape[-1] + 1))[..., 1:]  # rows of odd length
    yield wide.copy_(x)


@pytest.mark.parametrize("axes", [(0, 1), (1,), (0,)])
def test_any_layout_gives_the_same(axes, rng):
    x = torch.randn((3, 4, 6, 8), generator=rng, dtype=torch.float64)
    grad = torch.randn(x.shape, generator=rng, dtype=torch.float64)
    gains = torch.rand((4, 2 ** len(axes)), generator=rng, dtype=torch.float64, requires_grad=True)

    def results(x, grad):
        x = x.detach().requires_grad_()
        y = apply_gains(x, gains, axes)
        return (y, *torch.autograd.grad(y, (x, gains), grad), band_energy(x.detach(), axes))

    expected = results(x, grad)
    for laid, grad_laid in zip(layouts(x), layouts(grad)):
        for got, want in zip(results(laid, grad_laid), expected):
            assert torch.allclose(got, want, rtol=1e-12, atol=1e-12)


def test_backward_needs_the_features_alone(rng):
    x = torch.randn((4, 8, 32, 32), generator=rng, requires_grad=True)
    gains = torch.rand((8, 4), generator=rng, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        apply_gains(x, gains, (0, 1))
    assert sum(t.numel() for t in kept if t.data_ptr() != x.data_ptr()) <= gains.numel()


@pytest.mark.parametrize("shape", SHAPES)
def test_keeping_the_result_gives_the_same_gradients(shape, rng):
    axes = all_axes(shape)
    x = torch.randn(shape, generator=rng, dtype=torch.float64, requires_grad=True)
    gains = (
        0.02 + 0.98 * torch.rand((shape[1], 2 ** len(axes)), generator=rng, dtype=torch.float64)
    ).requires_grad_()
    grad = torch.randn(shape, generator=rng, dtype=torch.float64)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = apply_gains(x, gains, axes, least_gain=0.02)
    if all(n % 2 == 0 for n in shape[2:]):  # else the result is cropped
        assert y.data_ptr() in {t.data_ptr() for t in kept} and x.data_ptr() not in {
            t.data_ptr() for t in kept
        }
    expected = torch.autograd.grad(apply_gains(x, gains, axes), (x, gains), grad)
    for got, want in zip(torch.autograd.grad(y, (x, gains), grad), expected):
        assert torch.allclose(got, want, rtol=1e-9, atol=1e-12)


def test_a_result_that_cannot_be_divided_is_not_kept(rng):
    x = torch.randn((2, 2, 8, 8), generator=rng, requires_grad=True)
    gains = torch.zeros((2, 4), requires_grad=True)
    (gradient,) = torch.autograd.grad(
        apply_gains(x, gains, (0, 1), least_gain=0.0).sum() * 1.0, gains
    )
    assert torch.isfinite(gradient).all()
    coarse = x.detach().bfloat16().requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        apply_gains(coarse, gains, (0, 1), least_gain=0.5)
    assert coarse.data_ptr() in {t.data_ptr() for t in kept}


def test_gradients_of_small_gains_survive_half_precision(rng):
    x = torch.randn((2, 4, 64, 64), generator=rng).half().requires_grad_()
    grad = torch.randn(x.shape, generator=rng).half() + x.detach()
    gains = torch.tensor([[1.0, 0.12, 0.12, 0.02]] * 4, requires_grad=True)
    exact = torch.autograd.grad(
        apply_gains(x.double(), gains.double(), (0, 1)), gains, grad.double()
    )[0]
    (found,) = torch.autograd.grad(apply_gains(x, gains, (0, 1), least_gain=0.02), gains, grad)
    assert torch.allclose(found, exact, rtol=0.01)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("least_gain", [0.0, 0.02])
def test_constant_gains_keep_no_feature_map_and_may_overwrite(shape, least_gain, rng):
    axes = all_axes(shape)
    leaf = torch.randn(shape, generator=rng, requires_grad=True)
    gains = 0.02 + 0.98 * torch.rand((shape[1], 2 ** len(axes)), generator=rng)
    grad = torch.randn(shape, generator=rng)
    expected = torch.autograd.grad(
        apply_gains(leaf, gains.clone().requires_grad_(), axes), leaf, grad
    )[0]
    kept, x = [], leaf * 1
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = apply_gains(x, gains, axes, least_gain=least_gain, in_place=True)
    assert sum(t.numel() for t in kept) <= gains.numel()
    assert y.data_ptr() == x.data_ptr() or any(n % 2 for n in shape[2:])
    assert torch.equal(torch.autograd.grad(y, leaf, grad)[0], expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_in_place_gives_the_same_and_only_without_a_graph(shape, rng):
    axes = all_axes(shape)
    x, gains = (
        torch.randn(shape, generator=rng),
        torch.rand((shape[1], 2 ** len(axes)), generator=rng),
    )
    expected, before = apply_gains(x, gains, axes), x.clone()
    with_graph = apply_gains(x, gains.clone().requires_grad_(), axes, in_place=True)
    assert torch.equal(with_graph, expected) and torch.equal(x, before)
    y = apply_gains(x, gains, axes, in_place=True)
    assert torch.equal(y, expected)
    assert y.data_ptr() == x.data_ptr() or any(
        n % 2 for n in shape[2:]
    )  # else the result is cropped
