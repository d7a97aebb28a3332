"""What a model says of a case: the exported segmentation, and the probabilities behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunetv2_lngswr.utils.errors import UserError


def finite(logits: torch.Tensor) -> torch.Tensor:
    """Return logits, (K, *spatial), if they are finite: NaN has no argmax and no calibration.

    Raises
    ------
    UserError
        They are not.
    """
    # by channels: a mask of all labels of a whole CT would be GiB
    if not all(bool(channel.isfinite().all()) for channel in logits):
        raise UserError("the network returned NaN or infinite logits")
    return logits


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Of one case, in the geometry of its ground truth.

    Probabilities are made of the very logits that the segmentation is of, where they are asked for:
    of a whole CT in a hundred labels they are many GiB, around the object few.
    """

    segmentation: np.ndarray
    """Labels, (*spatial)."""
    logits: torch.Tensor | np.ndarray
    """(K, *cropped): on that grid, but for nnU-Net's crop and order of axes."""
    label_manager: LabelManager
    """Whose softmax, or of regions sigmoid, is theirs."""
    axes: Sequence[int] | None = None
    """nnU-Net's transpose_backward: which axis of `cropped` each of `spatial` is; None: the same
    one."""
    corner: Sequence[int] | None = None
    """Of the crop, in the axes of `cropped`; None: nothing is cropped."""

    def probability(self, channel: int, box: Sequence[slice]) -> np.ndarray:
        """Of one label or region, (*box) float32, as nnU-Net exports it: 0 outside its crop.

        Parameters
        ----------
        channel
            Of the logits, not the background's.
        box
            A slice with both ends per axis of `spatial`.
        """
        count = len(box)
        axes = range(count) if self.axes is None else self.axes
        corner = (0,) * count if self.corner is None else self.corner
        shape, taken, place = [0] * count, [slice(0)] * count, [slice(0)] * count
        for axis, side in zip(axes, box):
            low, high = side.start - int(corner[axis]), side.stop - int(corner[axis])
            start = max(low, 0)
            stop = max(min(high, self.logits.shape[axis + 1]), start)
            shape[axis] = high - low
            taken[axis], place[axis] = slice(start, stop), slice(start - low, stop - low)
        found = np.zeros(shape, np.float32)
        found[tuple(place)] = self._nonlinearity(channel, tuple(taken))
        return found.transpose(tuple(axes))

    def _nonlinearity(self, channel: int, taken: tuple[slice, ...]) -> np.ndarray:
        """(*taken), nnU-Net's sigmoid or softmax of one channel."""
        logits = torch.as_tensor(self.logits)[(channel, *taken)].float()
        if self.label_manager.has_regions:
            return torch.sigmoid(logits).numpy()
        return torch.exp(logits - self._log_partition[taken]).numpy()

    @cached_property
    def _log_partition(self) -> torch.Tensor:
        """(*cropped), what softmax divides by, once for all labels."""
        # by slices: in float32 all labels of the whole case would be twice what the logits take
        slices = torch.as_tensor(self.logits).unbind(1)
        return torch.stack([torch.logsumexp(labels.float(), 0) for labels in slices])
