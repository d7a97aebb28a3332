"""Tiny networks and cases for the sliding window, and its sum written out as one expression."""

import itertools

import torch
from nnunetv2.inference.sliding_window_prediction import (
    compute_gaussian,
    compute_steps_for_sliding_window,
)

from nnunetv2_lngswr.attacks import LabelSpace
from tests import model_folders

PATCH = 8


def networks(dimension, count=1, **more):
    return [model_folders.make_network(dimension, seed=i, **more).double() for i in range(count)]


def case(shape, *, seed=0, batch=1, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn((batch, 1, *shape), generator=g, dtype=dtype)
    return x, LabelSpace.softmax(2).target(torch.randint(0, 2, (batch, *shape), generator=g))


def whole_case(nets, x, patch, step, mirror_axes):
    """z(x) in one differentiable expression, written independently.

    Every window, fold and mirror is kept in one graph.
    """
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


class Counting(torch.nn.Module):
    """A network that counts its calls."""

    def __init__(self, network):
        super().__init__()
        self.network, self.calls = network, 0

    def forward(self, x):
        self.calls += 1
        return self.network(x)
