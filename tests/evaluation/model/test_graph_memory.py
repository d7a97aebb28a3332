"""Graphs kept from the first pass: they change no bit, save calls, and stay within their budget."""

from functools import partial

import pytest
import torch

from benchmarks.saved_bytes import peak_of_saved_bytes
from evaluation.model.graph_memory import bytes_of_graph
from evaluation.model.sliding_window import SlidingWindow
from nnunetv2_lngswr.attacks.losses import cross_entropy
from nnunetv2_lngswr.attacks.models import frozen
from tests.evaluation.model.windows import (
    PATCH,
    Counting,
    case,
    networks,
    whole_case,
)


def bytes_of_windows(nets, x, windows):
    """The budget that holds the graphs of exactly so many windows."""
    with frozen(nets):
        window = x.new_zeros(1, 1, *[PATCH] * (x.ndim - 2))
        return int(windows * bytes_of_graph(nets[0], window))


@pytest.mark.parametrize("kept", (3, 7, 10**6))  # of more: the first call, some, all
@pytest.mark.parametrize(
    ("shape", "folds", "mirror_axes"),
    [((13, 11), 1, ()), ((13, 11), 2, (0, 1)), ((11, 9, 8), 1, (0, 2)), ((5, 19), 2, (1,))],
)
def test_kept_graphs_change_nothing(shape, folds, mirror_axes, kept):
    nets, (x, target) = networks(len(shape), folds), case(shape)
    patch, loss = (PATCH,) * len(shape), partial(cross_entropy, target=target)
    options = {"patch_size": patch, "mirror_axes": mirror_axes, "window_batch_size": 3}
    repeated = SlidingWindow(nets, graph_bytes=0, **options).value_and_gradient(x, loss)
    budget = bytes_of_windows(nets, x, kept)
    got = SlidingWindow(nets, graph_bytes=budget, **options).value_and_gradient(x, loss)
    assert all(torch.equal(a, b) for a, b in zip(got, repeated))
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(whole_case(nets, leaf, patch, 0.5, mirror_axes)), leaf)
    assert float((got[1] - expected).norm() / expected.norm()) < 1e-9


@pytest.mark.parametrize("kept", (3, 10**6))
def test_kept_graphs_change_nothing_in_mixed_precision(kept):
    nets, (x, target) = networks(2), case((13, 11), dtype=torch.float32)
    nets = [net.float() for net in nets]
    loss = partial(cross_entropy, target=target)
    options = {"patch_size": (PATCH,) * 2, "autocast": torch.bfloat16}
    repeated = SlidingWindow(nets, graph_bytes=0, **options).value_and_gradient(x, loss)
    window = SlidingWindow(nets, graph_bytes=bytes_of_windows(nets, x, kept), **options)
    assert all(torch.equal(a, b) for a, b in zip(window.value_and_gradient(x, loss), repeated))


@pytest.mark.parametrize(
    ("kept", "calls"), [(1, 8), (2, 4 + 3), (5, 4 + 2), (6, 4 + 1), (7, 4), (10**6, 4)]
)
def test_only_calls_that_were_not_kept_are_repeated(kept, calls):
    """Seven windows in calls of two, the last of one."""
    nets, (x, target) = networks(2), case((8, 32))
    counting, loss = Counting(nets[0]), partial(cross_entropy, target=target)
    window = SlidingWindow(
        [counting],
        patch_size=(PATCH,) * 2,
        window_batch_size=2,
        graph_bytes=bytes_of_windows([counting], x, kept),
        device="cpu",
    )
    assert window.window_count(x) == 7
    window.value_and_gradient(x, loss)  # measures a window besides
    counting.calls = 0
    window.value_and_gradient(x, loss)
    assert counting.calls == calls


def test_a_window_is_measured_once_for_each_precision():
    x, target = case((8, 32))
    counting = Counting(networks(2)[0])
    window = SlidingWindow([counting], patch_size=(PATCH,) * 2, device="cpu")
    for calls in (7 + 1, 7, 7):
        counting.calls = 0
        window.value_and_gradient(x, partial(cross_entropy, target=target))
        assert counting.calls == calls
    counting.float()
    counting.calls = 0
    window.value_and_gradient(x.float(), partial(cross_entropy, target=target))
    assert counting.calls == 7 + 1


@pytest.mark.parametrize("mirror_axes", [(), (0, 1)])
@pytest.mark.parametrize("kept", (1, 2.5, 4))
def test_memory_stays_within_the_budget_whatever_the_number_of_windows(kept, mirror_axes):
    nets, (x, target) = networks(2), case((16, 16))
    budget = bytes_of_windows(nets, x, kept)
    loss = partial(cross_entropy, target=target)

    def peak(step, graph_bytes):
        options = {"tile_step_size": step, "mirror_axes": mirror_axes}
        window = SlidingWindow(nets, patch_size=(PATCH,) * 2, graph_bytes=graph_bytes, **options)
        window.value_and_gradient(x, loss)
        found = peak_of_saved_bytes(partial(window.value_and_gradient, x, loss))
        return found, window.window_count(x)

    (few, four), (many, twenty_five) = (peak(step, budget) for step in (1.0, 1 / 4))
    assert (four, twenty_five) == (4, 25)
    assert many <= 1.01 * few
    one = peak(1.0, 0)[0]
    # the loss has a graph of its own beside them
    assert int(kept) * one <= many < (int(kept) + 0.5) * one
    # what the measure sees where the budget is as large as the case
    assert peak(1 / 4, 10**9)[0] >= 25 * one


def test_bytes_of_a_graph_are_those_that_are_saved_once_and_are_not_the_networks():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1000), requires_grad=False)
            self.register_buffer("scale", torch.ones(1000))

        def forward(self, x):
            held = (x * self.weight * self.scale).sigmoid()  # saves its result and two of ours
            return held * held.view(1000)  # saves the same result twice

    x = torch.randn(1000)
    assert bytes_of_graph(Twice(), x) == 2 * 4 * 1000  # the sigmoid and the output
    assert not x.requires_grad
