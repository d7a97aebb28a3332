"""The two-pass gradient against plain autograd through every window, its memory, and nnU-Net's own predictor."""

import itertools
import types

import numpy as np
import pytest
import torch
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.inference.sliding_window_prediction import (
    compute_gaussian,
    compute_steps_for_sliding_window,
)

from evaluation.model.folder import SegmentationModel
from evaluation.model.sliding_window import SlidingWindow
from nnunetv2_lngswr.attacks import LabelSpace
from nnunetv2_lngswr.attacks.losses import LOSSES, cross_entropy
from tests import model_folders

PATCH = 8


def networks(dimension, count=1, **more):
    return [model_folders.make_network(dimension, seed=i, **more).double() for i in range(count)]


def case(shape, *, seed=0, batch=1, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn((batch, 1, *shape), generator=g, dtype=dtype)
    return x, LabelSpace.softmax(2).target(torch.randint(0, 2, (batch, *shape), generator=g))


def whole_case(nets, x, patch, step, mirror_axes):
    """z(x) in one differentiable expression, written independently: every window, fold and mirror kept in one graph."""
    spatial = x.shape[2:]
    low = [max(p - n, 0) // 2 for p, n in zip(patch, spatial)]
    high = [max(p - n, 0) - lo for p, n, lo in zip(patch, spatial, low)]
    padded = torch.nn.functional.pad(
        x, [v for lo, hi in zip(low[::-1], high[::-1]) for v in (lo, hi)]
    )
    steps = compute_steps_for_sliding_window(tuple(padded.shape[2:]), patch, step)
    weight = compute_gaussian.__wrapped__(
        tuple(patch), value_scaling_factor=10, device=torch.device("cpu")
    ).double()
    total, weights = 0, 0
    for start in itertools.product(*steps):
        at = (slice(None), slice(None), *[slice(s, s + p) for s, p in zip(start, patch)])
        outs = [
            net(padded[at].flip(f)).flip(f)
            for net in nets
            for f in [
                [a + 2 for a in c]
                for k in range(len(mirror_axes) + 1)
                for c in itertools.combinations(mirror_axes, k)
            ]
        ]
        place = [
            v for s, p, n in list(zip(start, patch, padded.shape[2:]))[::-1] for v in (s, n - s - p)
        ]
        total = total + torch.nn.functional.pad(sum(outs) / len(outs) * weight, place)
        weights = weights + torch.nn.functional.pad(weight, place)
    return (total / weights)[
        (slice(None), slice(None), *[slice(lo, lo + n) for lo, n in zip(low, spatial)])
    ]


SHAPES = {2: ((13, 11), (5, 19), (8, 8)), 3: ((11, 9, 8), (5, 10, 8))}


@pytest.mark.parametrize(("folds", "mirror"), [(1, False), (1, True), (2, False), (2, True)])
@pytest.mark.parametrize(
    ("dimension", "shape"), [(d, s) for d, shapes in SHAPES.items() for s in shapes]
)
def test_gradient_equals_autograd_through_the_whole_sum(dimension, shape, folds, mirror):
    nets, (x, target) = networks(dimension, folds), case(shape)
    axes = tuple(range(dimension)) if mirror else ()
    leaf = x.clone().requires_grad_()
    z = whole_case(nets, leaf, (PATCH,) * dimension, 0.5, axes)
    loss = cross_entropy(z, target)
    (expected,) = torch.autograd.grad(loss.sum(), leaf)
    window = SlidingWindow(
        nets, patch_size=(PATCH,) * dimension, mirror_axes=axes, window_batch_size=3
    )
    value, gradient, logits = window.value_and_gradient(x, lambda z: cross_entropy(z, target))
    assert float((gradient - expected).norm() / expected.norm()) < 1e-9
    assert torch.allclose(value, loss) and torch.allclose(logits, z, rtol=1e-10, atol=1e-10)
    assert torch.allclose(window.logits(x), z, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_of_every_loss(name):
    nets, (x, target) = networks(2), case((13, 11))
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(
        LOSSES[name](whole_case(nets, leaf, (PATCH,) * 2, 0.5, ()), target).sum(), leaf
    )
    _, gradient, _ = SlidingWindow(nets, patch_size=(PATCH,) * 2).value_and_gradient(
        x, lambda z: LOSSES[name](z, target)
    )
    assert float((gradient - expected).norm() / expected.norm()) < 1e-9


def test_slices_of_a_2d_configuration_are_independent_2d_cases():
    nets, (x, target) = networks(2), case((3, 13, 11))
    window = SlidingWindow(nets, patch_size=(PATCH,) * 2, mirror_axes=(0, 1), window_batch_size=4)
    _, gradient, z = window.value_and_gradient(x, lambda z: cross_entropy(z, target))
    for s in range(3):
        leaf = x[:, :, s].clone().requires_grad_()
        z_s = whole_case(nets, leaf, (PATCH,) * 2, 0.5, (0, 1))
        assert torch.allclose(z[:, :, s], z_s)
        slice_target = LabelSpace.softmax(2).target(target.one_hot[:, 1, s].long())
        (expected,) = torch.autograd.grad(cross_entropy(z_s, slice_target).sum() / 3, leaf)
        assert torch.allclose(gradient[:, :, s], expected, rtol=1e-9)


@pytest.mark.parametrize("window_batch_size", (1, 2, 5, 100))
def test_batching_of_windows_and_cases_changes_nothing(window_batch_size):
    nets, (x, target) = networks(2), case((1, 13, 11), batch=2)
    one = SlidingWindow(nets, patch_size=(PATCH,) * 2)
    many = SlidingWindow(nets, patch_size=(PATCH,) * 2, window_batch_size=window_batch_size)
    batched = many.value_and_gradient(x, lambda z: cross_entropy(z, target))
    for b in range(2):
        alone_target = LabelSpace.softmax(2).target(target.one_hot[b : b + 1, 1].long())
        alone = one.value_and_gradient(x[b : b + 1], lambda z: cross_entropy(z, alone_target))
        for got, expected in zip(batched, alone):
            assert torch.allclose(got[b : b + 1], expected, rtol=1e-9, atol=1e-12)


class Counting(torch.nn.Module):
    """A network that counts its calls and the bytes that live graphs hold."""

    def __init__(self, network):
        super().__init__()
        self.network, self.calls = network, 0

    def forward(self, x):
        self.calls += 1
        return self.network(x)


def peak_graph_bytes(step, window_batch_size=1, mirror_axes=()):
    """Most bytes saved for backward at any time, and the windows of the case."""
    live, peak = 0, 0

    class Saved:
        def __init__(self, tensor):
            nonlocal live, peak
            self.tensor, self.size = tensor, tensor.numel() * tensor.element_size()
            live += self.size
            peak = max(peak, live)

        def __del__(self):
            nonlocal live
            live -= self.size

    x, target = case((32, 32))
    window = SlidingWindow(
        networks(2),
        patch_size=(16, 16),
        tile_step_size=step,
        window_batch_size=window_batch_size,
        mirror_axes=mirror_axes,
    )
    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        window.value_and_gradient(x, lambda z: cross_entropy(z, target))
    return peak, window.window_count(x)


def test_memory_does_not_depend_on_the_number_of_windows_folds_or_mirrors():
    few, four = peak_graph_bytes(1.0)
    many, sixty_four = peak_graph_bytes(1 / 7)
    assert (four, sixty_four) == (4, 64)
    assert many <= 1.1 * few
    assert peak_graph_bytes(1.0, mirror_axes=(0, 1))[0] <= 1.1 * few
    # what the measure sees when four windows are in one graph
    assert peak_graph_bytes(1.0, window_batch_size=4)[0] > 2 * few


def test_a_case_of_one_window_needs_no_second_pass():
    x, target = case((1, 8, 7), batch=3)
    counting = Counting(networks(2)[0])
    window = SlidingWindow([counting], patch_size=(PATCH,) * 2, window_batch_size=3, device="cpu")
    _, gradient, z = window.value_and_gradient(x, lambda z: cross_entropy(z, target))
    assert counting.calls == 1
    two = SlidingWindow([counting], patch_size=(PATCH,) * 2, window_batch_size=2, device="cpu")
    _, expected, expected_z = two.value_and_gradient(x, lambda z: cross_entropy(z, target))
    assert counting.calls == 1 + 4
    assert torch.allclose(gradient, expected, rtol=1e-9) and torch.allclose(z, expected_z)


@pytest.mark.parametrize(("mirror_axes", "copies"), [((), 1), ((0, 1), 4)])
def test_a_case_that_fits_into_one_batch_needs_no_second_pass(mirror_axes, copies):
    x, target = case((13, 11), batch=2)
    counting = Counting(networks(2)[0])
    options = {"patch_size": (PATCH,) * 2, "mirror_axes": mirror_axes, "device": "cpu"}
    one_by_one = SlidingWindow([counting], **options)
    calls = one_by_one.window_count(x) * copies
    value, expected, expected_z = one_by_one.value_and_gradient(
        x, lambda z: cross_entropy(z, target)
    )
    assert counting.calls == 2 * calls and calls > 4
    counting.calls = 0
    got, gradient, z = SlidingWindow(
        [counting], window_batch_size=calls, **options
    ).value_and_gradient(x, lambda z: cross_entropy(z, target))
    assert counting.calls == 1
    assert (
        torch.allclose(gradient, expected, rtol=1e-9, atol=1e-14)
        and torch.allclose(z, expected_z)
        and torch.allclose(got, value)
    )
    counting.calls = 0
    SlidingWindow([counting], window_batch_size=calls - 1, **options).value_and_gradient(
        x, lambda z: cross_entropy(z, target)
    )
    assert counting.calls == 4


def test_networks_and_random_state_come_back_as_they_were():
    network = model_folders.make_network(2, deep_supervision=True)
    network.train()
    network.encoder.eval()
    next(network.parameters()).requires_grad_(False)
    modes = [m.training for m in network.modules()]
    trainable = [p.requires_grad for p in network.parameters()]
    weights = [p.clone() for p in network.parameters()]
    state = torch.random.get_rng_state()
    x, target = case((13, 11), dtype=torch.float32)
    window = SlidingWindow([network], patch_size=(PATCH,) * 2)
    window.value_and_gradient(x, lambda z: cross_entropy(z, target))
    window.logits(x)
    with pytest.raises(RuntimeError):  # also after an error inside
        window.value_and_gradient(x, lambda z: z @ torch.zeros(2, 2))
    assert [
        m.training for m in network.modules()
    ] == modes and network.decoder.deep_supervision is True
    assert [p.requires_grad for p in network.parameters()] == trainable
    assert all(torch.equal(a, b) for a, b in zip(weights, network.parameters())) and all(
        p.grad is None for p in network.parameters()
    )
    assert torch.equal(state, torch.random.get_rng_state())


def test_gradients_work_inside_inference_mode_and_after_nnunet_cached_its_gaussian():
    nets, (x, target) = networks(2), case((13, 11))
    with torch.inference_mode():
        compute_gaussian(
            (PATCH,) * 2, sigma_scale=1.0 / 8, value_scaling_factor=10, device=torch.device("cpu")
        )
        window = SlidingWindow(nets, patch_size=(PATCH,) * 2)
        _, inside, _ = window.value_and_gradient(x, lambda z: cross_entropy(z, target))
    _, outside, _ = SlidingWindow(nets, patch_size=(PATCH,) * 2).value_and_gradient(
        x, lambda z: cross_entropy(z, target)
    )
    assert torch.equal(inside, outside)


@pytest.mark.parametrize(
    ("dimension", "shape"), [(2, (1, 21, 18)), (2, (2, 11, 18)), (3, (17, 20, 11))]
)
def test_logits_agree_with_nnunets_predictor(dimension, shape, tmp_path, monkeypatch):
    folder = model_folders.make_model_folder(
        tmp_path, dimension=dimension, folds=(0, 1), mirror_axes=tuple(range(dimension))
    )
    model = SegmentationModel.from_folder(folder)
    x = case(shape, dtype=torch.float32)[0]
    ours = model.sliding_window(window_batch_size=2).logits(x)[0]

    # its sums in float32: then the two agree to 1e-5
    proxy = types.ModuleType("torch")
    proxy.__dict__.update(vars(torch), half=torch.float32)
    with monkeypatch.context() as patched:
        patched.setattr(predict_from_raw_data, "torch", proxy)
        assert float((ours - model.predict_logits(x[0])).abs().max()) < 1e-5 * max(
            float(ours.abs().max()), 1
        )
    # as deployed, in float16: where a voxel's weights are normal float16 numbers, a few roundings per window
    deployed = model.predict_logits(x[0])
    assert deployed.dtype == torch.float16
    error = (ours - deployed.float()).abs()
    weights = model.sliding_window()._tile(x).weight_sum
    heavy = (
        weights[
            tuple(
                slice((w - n) // 2, (w - n) // 2 + n)
                for w, n in zip(weights.shape, x.shape[-dimension:])
            )
        ]
        > 1e-2
    )
    heavy = heavy.expand(ours.shape)
    assert heavy.float().mean() > 0.3 and float(error[heavy].max()) < 2**-7 * float(
        ours.abs().max()
    )
    assert np.isfinite(deployed.numpy()).all()


def test_tiling_is_nnunets():
    model_patch, x = (8, 6), case((2, 21, 13))[0]
    window = SlidingWindow(networks(2), patch_size=model_patch, tile_step_size=0.7)
    predictor = predict_from_raw_data.nnUNetPredictor(
        tile_step_size=0.7, device=torch.device("cpu")
    )
    predictor.configuration_manager = types.SimpleNamespace(patch_size=list(model_patch))
    theirs = predictor._internal_get_sliding_window_slicers(x.shape[2:])
    assert [w[1:] for w in window._tile(x).windows] == theirs


@pytest.mark.parametrize("patch", (1024, 640))  # one pass, and one with windows
def test_mixed_precision_keeps_the_gradients_of_a_large_case(patch):
    # a million voxels: without a scale their gradients lose most of their digits in fp16
    nets = [model_folders.make_network(2, features=(2, 4)).eval()]
    x, target = case((1024, 1024), dtype=torch.float32)
    options = {"patch_size": (patch, patch), "tile_step_size": 1.0}
    loss = lambda z: cross_entropy(z, target)  # noqa: E731
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


def test_features_per_window_and_their_gradient():
    nets, (x, _) = networks(2), case((13, 11), batch=2)
    window = SlidingWindow(nets, patch_size=(PATCH,) * 2, window_batch_size=3)
    count = window.window_count(x)
    assert count == 12 and window.window_cases(x).tolist() == [0] * 6 + [1] * 6
    crops = window.crop_windows(x, torch.arange(count))
    leaf = x.clone().requires_grad_()
    steps = compute_steps_for_sliding_window((13, 11), (PATCH,) * 2, 0.5)
    expected = torch.cat(
        [
            nets[0].encoder(leaf[b : b + 1, :, i : i + 8, j : j + 8])[-1]
            for b in range(2)
            for i in steps[0]
            for j in steps[1]
        ]
    )
    found = torch.cat([f for _, f in window.features(x)])
    assert torch.allclose(found, expected) and torch.equal(
        crops[1, 0], x[0, 0, 0:8, steps[1][1] : steps[1][1] + 8]
    )
    value, gradient = window.feature_value_and_gradient(
        x, lambda i, f: f.square().flatten(1).sum(1)
    )
    (reference,) = torch.autograd.grad(expected.square().sum() / 6, leaf)
    assert torch.allclose(gradient, reference, rtol=1e-9)
    assert torch.allclose(value.sum(), expected.square().sum() / 6)


def test_bad_arguments_are_named():
    nets = networks(2)
    for arguments, message in (
        ({"tile_step_size": 0.0}, r"tile_step_size must be in \(0, 1\], got 0.0"),
        ({"window_batch_size": 0}, "window_batch_size must be >= 1, got 0"),
        ({"mirror_axes": (2,)}, "mirror_axes"),
    ):
        with pytest.raises(ValueError, match=message):
            SlidingWindow(nets, patch_size=(8, 8), **arguments)
    with pytest.raises(ValueError, match="networks"):
        SlidingWindow([], patch_size=(8, 8))
    with pytest.raises(ValueError, match="spatial axes"):
        SlidingWindow(nets, patch_size=(8, 8)).logits(torch.zeros(1, 1, 8))
