"""The channels of a case mapped to [0, 1] and back: strengths of corruptions are fractions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

Hounsfield = tuple[torch.Tensor, torch.Tensor]
"""[0, 1] units per HU, and the value of 0 HU, each (C, 1, ...)."""


@dataclass(frozen=True)
class UnitRange:
    """[min, max] of each channel, (C, 1, ...) float64, mapped to [0, 1]."""

    minimum: torch.Tensor
    maximum: torch.Tensor

    @classmethod
    def of(cls, image: torch.Tensor) -> UnitRange:
        """Of (C, *spatial)."""
        column = (-1, *[1] * (image.ndim - 1))
        flat = image.flatten(1)
        return cls(flat.amin(1).reshape(column), flat.amax(1).reshape(column))

    @property
    def extent(self) -> torch.Tensor:
        """Of each channel."""
        return self.maximum - self.minimum

    @property
    def divisor(self) -> torch.Tensor:
        """The extent; 1 where a channel is constant."""
        return torch.where(self.extent > 0, self.extent, torch.ones_like(self.extent))

    def to_unit(self, image: torch.Tensor) -> torch.Tensor:
        """(C, *spatial) into [0, 1], float32."""
        return ((image - self.minimum) / self.divisor).float()

    def from_unit(self, changed: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Back, clipped; constant channels, which have no range, as they were in `image`."""
        changed = changed.double() * self.extent + self.minimum
        changed = torch.minimum(torch.maximum(changed, self.minimum), self.maximum)
        return torch.where(self.extent > 0, changed, image)

    def hounsfield(
        self, scale: Sequence[float] | torch.Tensor, offset: Sequence[float] | torch.Tensor
    ) -> Hounsfield:
        """[0, 1] units per HU, and the value of 0 HU, where x = scale * HU + offset per channel."""
        per_hu, zero = self._column(scale), self._column(offset) - self.minimum
        return (per_hu / self.divisor).float(), (zero / self.divisor).float()

    def _column(self, values: Sequence[float] | torch.Tensor) -> torch.Tensor:
        channels = len(self.minimum)
        values = torch.as_tensor(values, dtype=torch.float64)[:channels]
        return values.reshape(self.minimum.shape)
