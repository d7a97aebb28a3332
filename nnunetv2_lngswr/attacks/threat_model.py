"""What an attacker may change: norm, epsilon, unit and bounds, stated once.

A perturbation delta of a preprocessed case x, (C, *spatial), is measured in units of u_c = delta_c / scale_c per channel c, where

    unit range:       scale_c = max(x_c) - min(x_c), so 8/255 means what it means on an image scaled to [0, 1];
    unit normalized:  scale_c = 1, preprocessed units;
    unit original:    scale_c = preprocessed units per one unit of the file (HU, for CT).

Linf:  max |u| <= epsilon.   L2:  sqrt(mean(u^2)) <= epsilon, the root mean square per attackable voxel and channel.
In both, x + delta stays inside [min, max] of the clean channel. All tensors carry a batch axis: (B, C, *spatial), one ball per case.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import torch

from nnunetv2_lngswr.attacks.terms import Norm, Unit
from nnunetv2_lngswr.utils.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Intensities of clean cases, per case and channel.

    `minimum`, `maximum`: (B, C), preprocessed units. `file_scale`: (B, C), preprocessed units per one unit of the file, or None
    when it is unknown (a normalisation that is not affine). `attackable`: (C,) bool; False for channels that are no image, such as
    the one-hot segmentation of the previous stage of a cascade.
    """

    minimum: torch.Tensor
    maximum: torch.Tensor
    attackable: torch.Tensor
    file_scale: torch.Tensor | None = None

    @classmethod
    def of(
        cls,
        x: torch.Tensor,
        *,
        image_channels: int | None = None,
        file_scale: torch.Tensor | None = None,
    ) -> Bounds:
        """Bounds of `x`, (B, C, *spatial). The first `image_channels` channels (default: all) are attackable; `file_scale` may be
        (C,), (image_channels,) or with a leading batch axis."""
        if x.ndim < 3:
            raise UserError(f"x must be (B, C, *spatial), got shape {tuple(x.shape)}")
        batch, channels = x.shape[:2]
        image_channels = channels if image_channels is None else image_channels
        if not 0 < image_channels <= channels:
            raise UserError(f"image_channels must be in 1..{channels}, got {image_channels}")
        flat = x.detach().reshape(batch, channels, -1)
        if file_scale is not None:
            given = torch.as_tensor(file_scale, dtype=x.dtype, device=x.device)
            given = given.expand(batch, given.shape[-1])
            if given.shape[-1] not in (image_channels, channels):
                raise UserError(
                    f"file_scale must have one entry per channel ({channels}), got {given.shape[-1]}"
                )
            file_scale = x.new_ones(batch, channels)
            file_scale[:, : given.shape[-1]] = given
        return cls(
            minimum=flat.amin(-1),
            maximum=flat.amax(-1),
            attackable=torch.arange(channels, device=x.device) < image_channels,
            file_scale=file_scale,
        )


@dataclass(frozen=True, kw_only=True)
class ThreatModel:
    """Norm, epsilon (L2: root mean square per voxel) and the unit of epsilon. ValueError for a negative or non-finite epsilon or an
    unknown norm or unit."""

    norm: Norm
    epsilon: float
    unit: Unit = Unit.RANGE

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", _member(Norm, self.norm, "norm"))
        object.__setattr__(self, "unit", _member(Unit, self.unit, "epsilon unit"))
        if not (math.isfinite(self.epsilon) and self.epsilon >= 0):
            raise UserError(f"epsilon must be finite and >= 0, got {self.epsilon}")

    def ball(self, bounds: Bounds) -> Ball:
        """The ball for cases with these bounds. ValueError for unit `original` where `bounds.file_scale` is None."""
        if self.unit is Unit.ORIGINAL and bounds.file_scale is None:
            raise UserError(
                "epsilon unit 'original' needs an affine normalisation, and this case's is not; use 'range' or 'normalized'"
            )
        extent = bounds.maximum - bounds.minimum
        scale = {
            Unit.RANGE: extent,
            Unit.NORMALIZED: torch.ones_like(extent),
            Unit.ORIGINAL: bounds.file_scale,
        }[self.unit]
        # a constant channel cannot move inside [min, max]: it has no budget and does not count in the mean square
        free = bounds.attackable & (extent > 0)
        return Ball(
            norm=self.norm,
            epsilon=float(self.epsilon),
            scale=torch.where(free, scale, torch.zeros_like(scale)),
            bounds=bounds,
        )


@dataclass(frozen=True, kw_only=True)
class Ball:
    """A ThreatModel bound to cases. `scale`: (B, C), preprocessed units per unit of epsilon, 0 for channels that stay fixed."""

    norm: Norm
    epsilon: float
    scale: torch.Tensor
    bounds: Bounds

    def enlarged(self, factor: float) -> Ball:
        """The same ball with `factor` times the epsilon (the radius schedule of APGD)."""
        return Ball(
            norm=self.norm, epsilon=self.epsilon * factor, scale=self.scale, bounds=self.bounds
        )


def _member(kind: type[Enum], value, what: str):
    try:
        return kind(value)
    except ValueError:
        raise UserError(
            f"{what} must be one of {', '.join(m.value for m in kind)}, got {value!r}"
        ) from None
