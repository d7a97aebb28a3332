"""Scales of the multiscale noise on a feature map. Imports no torch.

A scale is a stride for each spatial axis, in voxels of the feature map: the noise is constant on
blocks of that size. Scales go from fine to coarse, beginning with 1 along every axis, and from one
to the next an axis keeps its stride or doubles it.
"""

from __future__ import annotations

from collections.abc import Sequence

Scales = tuple[tuple[int, ...], ...]


def scales_up_to(max_stride: int, downsampling: Sequence[int], extent: Sequence[int]) -> Scales:
    """The scales of 1, 2, 4, ..., `max_stride` voxels of the network's input.

    Along each axis a block is as large on the input as the scale says, but has at least one voxel
    of the feature map, and no more than the feature map has. Scales that thereby become equal are
    one.

    Parameters
    ----------
    max_stride
        A power of two.
    downsampling
        Per axis, voxels of the input along one voxel of the feature map.
    extent
        Per axis, voxels of the feature map.
    """
    scales: list[tuple[int, ...]] = []
    for exponent in range(max_stride.bit_length()):
        scale = tuple(
            min(_power_of_two_up_to(2**exponent // ratio), _power_of_two_up_to(length))
            for ratio, length in zip(downsampling, extent)
        )
        if scale not in scales:
            scales.append(scale)
    return tuple(scales)


def check_max_stride(max_stride: int | None, patch_size: Sequence[int]) -> None:
    """Refuse blocks that no axis of the patch holds; a shorter axis has smaller ones.

    Raises
    ------
    ValueError
        The text names the key, the value and the patch.
    """
    if max_stride is not None and max_stride > max(patch_size):
        raise ValueError(
            f"noise_max_stride must be at most {_power_of_two_up_to(max(patch_size))}, the largest "
            f"power of two along the patch of {' x '.join(map(str, patch_size))} voxels, got "
            f"{max_stride}"
        )


def _power_of_two_up_to(n: int) -> int:
    """The largest power of two <= n; 1 where there is none."""
    return 1 << max(0, n.bit_length() - 1)
