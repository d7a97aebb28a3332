"""What an attacker may change: norm, epsilon, unit and bounds, stated once.

A perturbation delta of a preprocessed case x, (C, *spatial), is measured in units of
u_c = delta_c / scale_c per channel c, where

    unit range:       scale_c = max(x_c) - min(x_c); 8/255 means what it does on images in [0, 1];
    unit normalized:  scale_c = 1, preprocessed units;
    unit original:    scale_c = preprocessed units per one unit of the file (HU, for CT).

Linf:  max |u| <= epsilon.
L2:    sqrt(mean(u^2)) <= epsilon, the root mean square per attackable voxel and channel.

In both, x + delta stays inside [min, max] of the clean channel. All tensors carry a batch axis:
(B, C, *spatial), one ball per case.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

import torch

from nnunetv2_lngswr.attacks.terms import Norm, Unit
from nnunetv2_lngswr.utils.errors import UserError

Member = TypeVar("Member", bound=StrEnum)


@dataclass(frozen=True, kw_only=True)
class ThreatModel:
    """Norm, size and unit of what an attacker may do.

    Raises
    ------
    UserError
        A negative or non-finite epsilon, or an unknown norm or unit.
    """

    norm: Norm | str
    """`linf` or `l2`."""
    epsilon: float
    """The budget; L2: root mean square per voxel."""
    unit: Unit | str = Unit.RANGE
    """Of epsilon: `range`, `normalized` or `original`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", _member(Norm, self.norm, "norm"))
        object.__setattr__(self, "unit", _member(Unit, self.unit, "epsilon unit"))
        if not (math.isfinite(self.epsilon) and self.epsilon >= 0):
            raise UserError(f"epsilon must be finite and >= 0, got {self.epsilon}")

    def ball(self, bounds: Bounds) -> Ball:
        """The ball for cases with these bounds.

        Raises
        ------
        UserError
            Unit `original` where `bounds.file_scale` is None.
        """
        scale = self._scale(bounds)
        # a constant channel cannot move inside [min, max]: it has no budget, and does not count
        # in the mean square
        free = bounds.attackable & (bounds.extent > 0)
        return Ball(
            norm=Norm(self.norm),
            epsilon=float(self.epsilon),
            scale=torch.where(free, scale, torch.zeros_like(scale)),
            bounds=bounds,
        )

    def _scale(self, bounds: Bounds) -> torch.Tensor:
        """(B, C) preprocessed units per unit of epsilon."""
        if self.unit is Unit.RANGE:
            return bounds.extent
        if self.unit is Unit.NORMALIZED:
            return torch.ones_like(bounds.extent)
        if bounds.file_scale is None:
            raise UserError(
                "epsilon unit 'original' needs an affine normalisation, and this case's is not; "
                "use 'range' or 'normalized'"
            )
        return bounds.file_scale


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Intensities of clean cases, per case and channel."""

    minimum: torch.Tensor
    """(B, C), preprocessed units."""
    maximum: torch.Tensor
    """(B, C), preprocessed units."""
    attackable: torch.Tensor
    """(C,) bool; False for channels that are no image.

    Such is the one-hot segmentation of the previous stage of a cascade.
    """
    file_scale: torch.Tensor | None = None
    """(B, C), preprocessed units per one unit of the file.

    None when it is unknown: a normalisation that is not affine.
    """

    @property
    def extent(self) -> torch.Tensor:
        """(B, C), maximum - minimum."""
        return self.maximum - self.minimum

    @classmethod
    def of(
        cls,
        x: torch.Tensor,
        *,
        image_channels: int | None = None,
        file_scale: torch.Tensor | None = None,
    ) -> Bounds:
        """Bounds of clean cases.

        Parameters
        ----------
        x
            (B, C, *spatial), preprocessed.
        image_channels
            So many channels, the first ones, are attackable; None: all.
        file_scale
            Preprocessed units per unit of the file: (C,), (image_channels,) or with a leading batch
            axis.

        Raises
        ------
        UserError
            Shapes that do not fit.
        """
        if x.ndim < 3:
            raise UserError(f"x must be (B, C, *spatial), got shape {tuple(x.shape)}")
        batch, channels = x.shape[:2]
        image_channels = channels if image_channels is None else image_channels
        if not 0 < image_channels <= channels:
            raise UserError(f"image_channels must be in 1..{channels}, got {image_channels}")
        flat = x.detach().reshape(batch, channels, -1)
        if file_scale is not None:
            file_scale = _per_channel(file_scale, x, image_channels)
        return cls(
            minimum=flat.amin(-1),
            maximum=flat.amax(-1),
            attackable=torch.arange(channels, device=x.device) < image_channels,
            file_scale=file_scale,
        )

    def cases(self, where: torch.Tensor) -> Bounds:
        """Of these cases alone, by their indices (n,)."""
        where = where.to(self.minimum.device)
        scale = self.file_scale
        return replace(
            self,
            minimum=self.minimum[where],
            maximum=self.maximum[where],
            file_scale=None if scale is None else scale[where.to(scale.device)],
        )


@dataclass(frozen=True, kw_only=True)
class Ball:
    """A ThreatModel bound to cases."""

    norm: Norm
    """Of the perturbation in units of epsilon."""
    epsilon: float
    """Its radius."""
    scale: torch.Tensor
    """(B, C), preprocessed units per unit of epsilon, 0 for channels that stay fixed."""
    bounds: Bounds
    """Of the clean cases."""

    def enlarged(self, factor: float) -> Ball:
        """The same ball with `factor` times the epsilon (the radius schedule of APGD)."""
        return replace(self, epsilon=self.epsilon * factor)

    def cases(self, where: torch.Tensor) -> Ball:
        """Of these cases alone, by their indices (n,)."""
        scale = self.scale[where.to(self.scale.device)]
        return replace(self, scale=scale, bounds=self.bounds.cases(where))


def _per_channel(file_scale: torch.Tensor, x: torch.Tensor, image_channels: int) -> torch.Tensor:
    """(B, C); 1 for channels beyond those given."""
    batch, channels = x.shape[:2]
    given = torch.as_tensor(file_scale, dtype=x.dtype, device=x.device)
    given = given.expand(batch, given.shape[-1])
    if given.shape[-1] not in (image_channels, channels):
        raise UserError(
            f"file_scale must have one entry per channel ({channels}), got {given.shape[-1]}"
        )
    filled = x.new_ones(batch, channels)
    filled[:, : given.shape[-1]] = given
    return filled


def _member(kind: type[Member], value: str, what: str) -> Member:
    try:
        return kind(value)
    except ValueError:
        raise UserError(
            f"{what} must be one of {', '.join(m.value for m in kind)}, got {value!r}"
        ) from None
