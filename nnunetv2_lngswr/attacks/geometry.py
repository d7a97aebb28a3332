"""The geometry of the threat model: projection, steps, random starts and norms, in Linf and in L2.

Projection lives here and nowhere else: onto the ball of the threat model, then into [min, max] of
the clean channel. x is (B, C, *spatial) in preprocessed units, with one ball per case; sizes are in
units of epsilon (threat_model.py), so "length 1" is one unit of epsilon and not one preprocessed
unit.
"""

from __future__ import annotations

import torch

from nnunetv2_lngswr.attacks.terms import Norm
from nnunetv2_lngswr.attacks.threat_model import Ball, Bounds


def project_onto_ball(candidate: torch.Tensor, x: torch.Tensor, ball: Ball) -> torch.Tensor:
    """The nearest point of the ball around x, in units of epsilon, clipped into [min, max].

    Clipping only shortens the perturbation, since x lies inside, so the result is in both.

    Parameters
    ----------
    candidate
        (B, C, *spatial), anywhere.
    x
        (B, C, *spatial), the clean cases.
    ball
        What may be changed, one ball per case.

    Returns
    -------
    torch.Tensor
        (B, C, *spatial).
    """
    scale = like_channels(ball.scale, x)
    delta = candidate - x
    if ball.norm is Norm.LINF:
        limit = ball.epsilon * scale
        delta = torch.minimum(torch.maximum(delta, -limit), limit)
    else:
        # channels with scale 0 do not move; dividing by 1 there keeps the arithmetic finite
        delta = torch.where(scale > 0, delta, torch.zeros_like(delta))
        rms = _rms(delta / _positive(scale), ball)
        tiny = torch.finfo(x.dtype).tiny
        delta = delta * like_cases(torch.clamp(ball.epsilon / rms.clamp_min(tiny), max=1), x)
    return clip(x + delta, ball.bounds)


def clip(x: torch.Tensor, bounds: Bounds) -> torch.Tensor:
    """x clipped into [min, max] per case and channel."""
    return torch.minimum(
        torch.maximum(x, like_channels(bounds.minimum, x)), like_channels(bounds.maximum, x)
    )


def step_direction(gradient: torch.Tensor, ball: Ball) -> torch.Tensor:
    """Steepest ascent in the ball's geometry, of length 1 in units of epsilon.

    Parameters
    ----------
    gradient
        (B, C, *spatial), of a loss with respect to the case in preprocessed units.
    ball
        Linf takes the sign, L2 the gradient scaled to RMS 1.

    Returns
    -------
    torch.Tensor
        (B, C, *spatial), preprocessed units: `x + size * step_direction(...)` moves by `size` units
        of epsilon. 0 where the gradient is 0.
    """
    scale = like_channels(ball.scale, gradient)
    if ball.norm is Norm.LINF:
        return gradient.sign() * scale
    scaled = gradient * scale  # the gradient with respect to u = delta / scale
    # divide by the maximum first: squares of small gradients underflow in float32
    scaled = scaled / like_cases(_positive(scaled.abs().flatten(1).amax(1)), scaled)
    return scaled / like_cases(_positive(_rms(scaled, ball)), scaled) * scale


def random_start(x: torch.Tensor, ball: Ball, generator: torch.Generator) -> torch.Tensor:
    """A random point of the ball: uniform in Linf; in L2 a random direction, radius U(0, epsilon).

    Drawn where the generator is: on the CPU, one seed gives one start on any device; on x's device,
    nothing is copied.
    """
    if ball.norm is Norm.LINF:
        u = _uniform(x.shape, x, generator) * 2 - 1
        return project_onto_ball(x + ball.epsilon * like_channels(ball.scale, x) * u, x, ball)
    direction = random_direction(x, ball, generator)
    radius = _uniform((len(x),), x, generator)
    return project_onto_ball(x + ball.epsilon * like_cases(radius, x) * direction, x, ball)


def random_direction(x: torch.Tensor, ball: Ball, generator: torch.Generator) -> torch.Tensor:
    """A random direction of length 1 in units of epsilon, isotropic in these units.

    Linf: a random sign per voxel. L2: Gaussian, scaled to RMS 1.
    """
    direction = torch.randn(
        x.shape, generator=generator, dtype=x.dtype, device=generator.device
    ).to(x.device)
    # step_direction takes a gradient, which it multiplies by the scale
    return step_direction(direction / _nonzero(like_channels(ball.scale, x)), ball)


def perturbation_norms(
    perturbed: torch.Tensor, x: torch.Tensor, bounds: Bounds
) -> dict[str, torch.Tensor]:
    """Size of a perturbation per case, in every norm and unit.

    Parameters
    ----------
    perturbed, x
        (B, C, *spatial), attacked and clean, preprocessed units.
    bounds
        Of the clean cases.

    Returns
    -------
    dict
        {'<linf|rms|l2>_<range|normalized|original>': (B,) float64}. RMS is over the channels that
        can move, L2 absolute. Units of the file are nan where the normalisation is not affine.
    """
    delta = (perturbed - x).cpu().double()  # MPS has no float64
    extent = bounds.extent.cpu().double()
    free = bounds.attackable.cpu() & (extent > 0)
    count = free.sum(1).double() * delta[0, 0].numel()
    scales = {
        "range": extent,
        "normalized": torch.ones_like(extent),
        "original": _file_scale(bounds),
    }
    norms = {}
    for unit, scale in scales.items():
        u = delta / like_channels(_nonzero(scale), delta)
        u = torch.where(like_channels(free, delta), u, torch.zeros_like(delta)).flatten(1)
        l2 = u.square().sum(1).sqrt()
        norms[f"linf_{unit}"] = u.abs().amax(1)
        norms[f"rms_{unit}"] = l2 / count.clamp_min(1).sqrt()
        norms[f"l2_{unit}"] = l2
    return norms


def like_channels(per_channel: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(B, C) -> (B, C, 1, ...), with as many axes as x and on its device."""
    return per_channel.reshape(*per_channel.shape, *[1] * (x.ndim - 2)).to(x.device)


def like_cases(per_case: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(B,) -> (B, 1, 1, ...), with as many axes as x and on its device."""
    return per_case.reshape(-1, *[1] * (x.ndim - 1)).to(x.device)


def _file_scale(bounds: Bounds) -> torch.Tensor:
    """(B, C) preprocessed units per unit of the file, nan where unknown."""
    if bounds.file_scale is None:
        return torch.full_like(bounds.minimum.cpu().double(), float("nan"))
    return bounds.file_scale.cpu().double()


def _uniform(
    shape: torch.Size | tuple[int, ...], x: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    drawn = torch.rand(shape, generator=generator, dtype=x.dtype, device=generator.device)
    return drawn.to(x.device)


def _positive(values: torch.Tensor) -> torch.Tensor:
    """1 where it is not."""
    return torch.where(values > 0, values, torch.ones_like(values))


def _nonzero(values: torch.Tensor) -> torch.Tensor:
    """1 where it is 0."""
    return torch.where(values == 0, torch.ones_like(values), values)


def _rms(u: torch.Tensor, ball: Ball) -> torch.Tensor:
    """Root mean square over the channels that can move, (B,)."""
    count = (ball.scale > 0).sum(1).to(u) * u[0, 0].numel()
    return u.flatten(1).square().sum(1).div(count.clamp_min(1)).sqrt()
