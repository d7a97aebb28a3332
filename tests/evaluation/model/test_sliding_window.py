"""The windows' gradient against plain autograd through all of them, its memory, its features."""

from functools import partial

import pytest
import torch
from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

from benchmarks.saved_bytes import peak_of_saved_bytes
from evaluation.model.sliding_window import SlidingWindow
from nnunetv2_lngswr.attacks import LabelSpace
from nnunetv2_lngswr.attacks.losses import LOSSES, cross_entropy
from tests import model_folders
from tests.evaluation.model.windows import (
    PATCH,
    Counting,
    case,
    networks,
    whole_case,
)

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
        loss = partial(cross_entropy, target=alone_target)
        alone = one.value_and_gradient(x[b : b + 1], loss)
        for got, expected in zip(batched, alone):
            assert torch.allclose(got[b : b + 1], expected, rtol=1e-9, atol=1e-12)


def peak_graph_bytes(step, window_batch_size=1, mirror_axes=()):
    """Most bytes saved for backward at any time without kept graphs, and the case's windows."""
    x, target = case((32, 32))
    window = SlidingWindow(
        networks(2),
        patch_size=(16, 16),
        tile_step_size=step,
        window_batch_size=window_batch_size,
        mirror_axes=mirror_axes,
        graph_bytes=0,
    )
    peak = peak_of_saved_bytes(
        partial(window.value_and_gradient, x, partial(cross_entropy, target=target))
    )
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
    two = SlidingWindow(
        [counting], patch_size=(PATCH,) * 2, window_batch_size=2, graph_bytes=0, device="cpu"
    )
    _, expected, expected_z = two.value_and_gradient(x, lambda z: cross_entropy(z, target))
    assert counting.calls == 1 + 4
    assert torch.allclose(gradient, expected, rtol=1e-9) and torch.allclose(z, expected_z)


@pytest.mark.parametrize(("mirror_axes", "copies"), [((), 1), ((0, 1), 4)])
def test_a_case_that_fits_into_one_batch_needs_no_second_pass(mirror_axes, copies):
    x, target = case((13, 11), batch=2)
    counting = Counting(networks(2)[0])
    options = {"patch_size": (PATCH,) * 2, "mirror_axes": mirror_axes, "device": "cpu"}
    options["graph_bytes"] = 0
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
        ({"graph_bytes": -1}, "graph_bytes must be >= 0, got -1"),
        ({"mirror_axes": (2,)}, "mirror_axes"),
    ):
        with pytest.raises(ValueError, match=message):
            SlidingWindow(nets, patch_size=(8, 8), **arguments)
    with pytest.raises(ValueError, match="networks"):
        SlidingWindow([], patch_size=(8, 8))
    with pytest.raises(ValueError, match="spatial axes"):
        SlidingWindow(nets, patch_size=(8, 8)).logits(torch.zeros(1, 1, 8))
