"""Where in an image there is something."""

from __future__ import annotations

import numpy as np


def bounding_box(mask: np.ndarray, *, margin: int = 0) -> tuple[slice, ...] | None:
    """The smallest box around all that is True.

    Parameters
    ----------
    mask
        Boolean, any number of axes.
    margin
        Voxels by which it is wider on every side, within the array.

    Returns
    -------
    tuple of slice or None
        None where nothing is True.
    """
    box = []
    for axis, length in enumerate(mask.shape):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        found = np.flatnonzero(mask.any(others))
        if not found.size:
            return None
        box.append(slice(max(found[0] - margin, 0), min(found[-1] + 1 + margin, length)))
    return tuple(box)
