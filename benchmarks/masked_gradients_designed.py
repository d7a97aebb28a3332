"""Attacks designed against the method, of masked_gradients.py.

Each is the protocol's white-box attack on a model that the attacker, who knows the reconstruction,
puts in the place of the deployed one; what it finds is scored on the deployed one. x is
(B, C, *spatial), preprocessed.

low band
    The perturbation lies in the low band of the input, the one that the reconstruction keeps
    (LL in 2D, LLL in 3D): it is the mean of its block of two along every axis that is transformed,
    and so is the gradient.
straight through
    Forward as deployed; backward as if every reconstruction were the identity (BPDA, Athalye,
    Carlini & Wagner 2018), so that no gain damps the gradient of the high bands.
gates open
    Every reconstruction is the identity, forward too: the same weights without the method.

Beside them, `other start`: the white-box attack as it is from another random start, which says what
chance does; and `other model`: made on the other model of the pair, as `transfer` is with PGD.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from benchmarks.model_pair import problem
from benchmarks.spectral_reading_energies import branch_axes
from evaluation.model.case import Case
from evaluation.model.folder import SegmentationModel
from evaluation.protocol import EvaluationRun
from evaluation.run_case import foreground_dice_of
from nnunetv2_lngswr.attacks import Bounds, Norm, ThreatModel, run_attack
from nnunetv2_lngswr.attacks.geometry import clip, like_channels
from nnunetv2_lngswr.attacks.losses import LogitLoss
from nnunetv2_lngswr.attacks.models import DifferentiableModel
from nnunetv2_lngswr.method.bands import HAAR
from nnunetv2_lngswr.method.network import find_lngswr
from nnunetv2_lngswr.method.reconstruction import SelectiveWaveletReconstruction

if TYPE_CHECKING:
    from benchmarks.masked_gradients_checks import Protocol

OTHER_START, OTHER_MODEL = "other start", "other model"
LOW_BAND, STRAIGHT_THROUGH, GATES_OPEN = "low band", "straight through", "gates open"


def designed(
    model: SegmentationModel, other: SegmentationModel, case: Case, protocol: Protocol
) -> dict[str, dict[str, Any]]:
    """The attacks above on one case, at the protocol's epsilon and steps.

    Returns
    -------
    dict
        {attack: {"dice": of the exported segmentation, "low_share": the part of the perturbation's
        energy in the low band of the input}}. Without a reconstruction there is nothing to pass
        through or to open, and these two are left out.
    """
    window, x, target = problem(model, case)
    ball = ThreatModel(norm=Norm.LINF, epsilon=float(protocol.epsilon)).ball(case.bounds)
    seed = EvaluationRun(kind="attack", name="designed").seed(protocol.seed, case.identifier)

    def attacked(on: DifferentiableModel) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        steps = protocol.attack_steps
        found = run_attack(protocol.attack, on, x, target, ball, generator=generator, steps=steps)
        return found.perturbed

    axes = low_band_axes(window.networks[0], x)
    confined = LowBandModel(window, x, case.bounds, axes)
    found = {
        OTHER_START: attacked(window),
        OTHER_MODEL: attacked(other.sliding_window()),
        LOW_BAND: confined.point(attacked(confined)),
    }
    if reconstructions(window.networks):
        with straight_through(window.networks):
            found[STRAIGHT_THROUGH] = attacked(window)
        with gates_open(window.networks):
            found[GATES_OPEN] = attacked(window)
    return {
        name: {
            "dice": foreground_dice_of(model, case, perturbed[0].cpu()),
            "low_share": low_share(perturbed - x, axes),
        }
        for name, perturbed in found.items()
    }


def designed_cost(protocol: Protocol) -> float:
    """Of `designed`, in predictions, with all five attacks."""
    return 5 * (3.5 * protocol.attack_steps + 2)


class LowBandModel:
    """A model that sees of a perturbation what lies in the low band: its gradient lies there too.

    Parameters
    ----------
    model
        What is attacked.
    x
        (B, C, *spatial), the clean cases.
    bounds
        Of the clean cases. A block that would leave them at one voxel moves less as a whole, so
        that clipping takes nothing out of the band.
    axes
        Of x, those of the blocks.
    """

    def __init__(
        self, model: DifferentiableModel, x: torch.Tensor, bounds: Bounds, axes: Sequence[int]
    ) -> None:
        self.model, self.x, self.bounds, self.axes = model, x, bounds, axes
        self.most = -over_blocks(x - like_channels(bounds.maximum, x), axes, torch.amax)
        self.least = over_blocks(like_channels(bounds.minimum, x) - x, axes, torch.amax)

    def point(self, at: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial): the point inside the bounds whose perturbation is the low band of
        at - x; in every ball that `at` is in, since a mean is no larger than what it is of."""
        low = over_blocks(at - self.x, self.axes, torch.mean)
        return clip(self.x + torch.clamp(low, self.least, self.most), self.bounds)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.logits(self.point(x))

    def value_and_gradient(
        self, x: torch.Tensor, loss: LogitLoss
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        value, gradient, z = self.model.value_and_gradient(self.point(x), loss)
        return value, over_blocks(gradient, self.axes, torch.mean), z


def low_band_axes(network: nn.Module, x: torch.Tensor) -> tuple[int, ...]:
    """Axes of x (B, C, *spatial) that the input's reconstruction transforms, or would.

    All axes of the windows for a network without an encoder, which none can be attached to.

    Raises
    ------
    ValueError
        A wavelet whose low band is not that of means over blocks.
    """
    method = find_lngswr(network)
    if method is not None and method.config.wavelet != HAAR:
        raise ValueError(
            f"the low band is that of {HAAR}, got a model with {method.config.wavelet}"
        )
    of_window = next(p.ndim for p in network.parameters() if p.ndim > 2) - 2
    axes = branch_axes(network)["input"] if hasattr(network, "encoder") else range(of_window)
    # the windows of 2D models have an axis less than the case: the first
    return tuple(x.ndim - of_window + axis for axis in axes)


def over_blocks(
    values: torch.Tensor, axes: Sequence[int], reduce: Callable[..., torch.Tensor]
) -> torch.Tensor:
    """Every value replaced by `reduce` of its block of two along each of the axes.

    The last one of an odd length is a block with a copy of itself, as in the transform. With
    torch.mean this is the projection onto Haar's low band.
    """
    for axis in axes:
        length = values.shape[axis]
        if length % 2:
            values = torch.cat((values, values.narrow(axis, length - 1, 1)), axis)
        pairs = values.unflatten(axis, (-1, 2))
        values = reduce(pairs, axis + 1).repeat_interleave(2, axis).narrow(axis, 0, length)
    return values


def low_share(perturbation: torch.Tensor, axes: Sequence[int]) -> float | None:
    """The part of its energy that lies in the low band; None where there is no energy."""
    low = over_blocks(perturbation, axes, torch.mean)
    energy = float(perturbation.double().square().sum())
    return float(low.double().square().sum()) / energy if energy else None


def reconstructions(networks: Sequence[nn.Module]) -> list[SelectiveWaveletReconstruction]:
    """All of them, over all networks."""
    return [
        module
        for network in networks
        for module in network.modules()
        if isinstance(module, SelectiveWaveletReconstruction)
    ]


@contextmanager
def with_method(
    networks: Sequence[nn.Module], name: str, made_of: Callable[[Callable], Callable]
) -> Iterator[int]:
    """Within it, this method of every reconstruction is `made_of` the one there was.

    Yields the number of reconstructions.
    """
    modules = reconstructions(networks)
    # what stood on an instance comes back, else the method of the class shows again
    before = [(module, vars(module).get(name)) for module in modules]
    try:
        for module in modules:
            setattr(module, name, made_of(getattr(module, name)))
        yield len(modules)
    finally:
        for module, own in before:
            if own is None:
                delattr(module, name)
            else:
                setattr(module, name, own)


@contextmanager
def straight_through(networks: Sequence[nn.Module]) -> Iterator[int]:
    """Within it, gradients pass every reconstruction unchanged; yields their number."""

    def made_of(forward: Callable) -> Callable:
        def passing(x: torch.Tensor, prior_gain: torch.Tensor | None = None, **_: Any):
            with torch.no_grad():  # in place would overwrite what the graph keeps
                y = forward(x, prior_gain)
            return _GradientUnchanged.apply(x, y)

        return passing

    with with_method(networks, "forward", made_of) as count:
        yield count


@contextmanager
def gates_open(networks: Sequence[nn.Module]) -> Iterator[int]:
    """Within it, every reconstruction is the identity; yields their number."""

    def made_of(forward: Callable) -> Callable:
        return lambda x, prior_gain=None, **_: x

    with with_method(networks, "forward", made_of) as count:
        yield count


class _GradientUnchanged(torch.autograd.Function):
    """(x, y) -> y, with y's gradient as x's."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None
