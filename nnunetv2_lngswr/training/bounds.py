"""The bounds that an attack on a training patch stays in: those of its case, widened to the patch.

Shapes: x (B, C, *spatial), preprocessed units; one ball per sample (attacks.threat_model).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunetv2_lngswr.attacks.threat_model import Bounds
from nnunetv2_lngswr.utils.errors import UserError


class CaseRanges:
    """[min, max] per channel of nnU-Net's preprocessed cases.

    Read from the whole case when it is first asked for, then kept.

    Parameters
    ----------
    datasets
        nnU-Net's dataset objects (`identifiers`, `load_case`).
    """

    def __init__(self, *datasets: Any) -> None:
        self._datasets = datasets
        self._known: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def __call__(self, keys: Iterable[str]) -> tuple[Tensor, Tensor]:
        """(minimum, maximum), each (B, image channels) float32 on the CPU.

        Raises
        ------
        UserError
            A case is stored as integers, or has values that are not finite.
        """
        minima, maxima = zip(*(self._of(str(key)) for key in keys))
        return torch.from_numpy(np.stack(minima)), torch.from_numpy(np.stack(maxima))

    def check_type(self) -> None:
        """Refuse integers (UserError) by the first case: preprocessing writes all of one kind."""
        self._images(self._datasets[0].identifiers[0])

    def _of(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        if key not in self._known:
            # one channel in memory at a time
            extremes = [
                (channel.min(), channel.max()) for channel in map(np.asarray, self._images(key))
            ]
            minimum, maximum = np.array(extremes, np.float32).T
            if not np.isfinite((minimum, maximum)).all():
                raise UserError(
                    f"the preprocessed case {key} holds NaN or infinite values: mend its image and "
                    "preprocess the data set again"
                )
            self._known[key] = minimum, maximum
        return self._known[key]

    def _images(self, key: str) -> Any:
        dataset = next(d for d in self._datasets if key in d.identifiers)
        images = dataset.load_case(key)[0]
        if not np.issubdtype(images.dtype, np.floating):
            raise UserError(
                f"adversarial training needs floating-point images, but the preprocessed case {key}"
                f" holds {images.dtype}; preprocess the data set with a normalisation that writes "
                "floats, as nnU-Net's do"
            )
        return images


def patch_bounds(
    x: Tensor, case_range: tuple[Tensor, Tensor] | None, image_channels: int
) -> Bounds:
    """Bounds of augmented patches.

    Parameters
    ----------
    x
        (B, C, *spatial).
    case_range
        Minimum and maximum of the patches' cases, (B, image channels) each, which are widened to
        the patch; None: the bounds of the patch alone.
    image_channels
        Channels beyond (the previous stage of a cascade) are not attackable.
    """
    bounds = Bounds.of(x, image_channels=image_channels)
    if case_range is None:
        return bounds
    minimum, maximum = bounds.minimum.clone(), bounds.maximum.clone()
    low, high = (values.to(x, non_blocking=True) for values in case_range)
    minimum[:, :image_channels] = torch.minimum(minimum[:, :image_channels], low)
    maximum[:, :image_channels] = torch.maximum(maximum[:, :image_channels], high)
    return Bounds(minimum=minimum, maximum=maximum, attackable=bounds.attackable)
