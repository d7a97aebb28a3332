"""Parts of a feature map to work on at once, so that what is made on the way stays in the cache."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK_ELEMENTS = 2**19
"""Values of a chunk, of which a handful are held at once."""


def chunks(x: Tensor) -> Iterator[tuple[slice, slice]]:
    """Samples and channels of x (N, C, *spatial) to work on at once.

    On a CPU, in eager code, as many as the cache holds; else all.
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        yield slice(None), slice(None)
        return
    channels = max(1, min(x.shape[1], CHUNK_ELEMENTS // max(1, x[0, 0].numel())))
    samples = max(1, CHUNK_ELEMENTS // max(1, x[0].numel()))
    for n in range(0, x.shape[0], samples):
        for c in range(0, x.shape[1], channels):
            yield slice(n, n + samples), slice(c, c + channels)
