"""Nearest upsampling of the noise's scales: each to the next finer one, on a grid per sample.

Blocks are 1 or 2 voxels long along each axis. A sample whose grid is shifted along an axis begins
there with the second half of a block: voxel i lies in block (i + 1) // 2 rather than i // 2, so
that coarse (N, C, *spatial) holds one block more than there are pairs of voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def upsampled(
    coarse: Tensor, lengths: Sequence[int], by: Sequence[int], shift: Sequence[Tensor | None]
) -> Tensor:
    """coarse, nearest-upsampled `by` 1 or 2 along each axis to `lengths`. For compiled code, which
    makes one loop of it.

    `shift`: for each axis (N, 1, ...), 1 for samples that begin with the second half of a block.
    """
    for axis, length in enumerate(lengths):
        if by[axis] == 2:
            voxels = torch.arange(length, device=coarse.device)
            blocks = coarse.index_select(2 + axis, voxels // 2)
            second_first = shift[axis]
            if second_first is not None:
                shifted = coarse.index_select(2 + axis, (voxels + 1) // 2)
                blocks = torch.where(second_first > 0, shifted, blocks)
            coarse = blocks
    return coarse


def add_broadcast(fine: Tensor, coarse: Tensor, by: Sequence[int]) -> None:
    """fine += `upsampled` coarse, where no sample is shifted. For compiled code, in 3D the faster
    way."""
    rows = coarse if by[-1] == 1 else torch.stack((coarse, coarse), dim=-1).flatten(-2)
    shape = list(fine.shape[:2])
    for axis, (length, f) in enumerate(zip(coarse.shape[2:-1], by)):
        shape += [length, f]
        rows = rows.unsqueeze(3 + 2 * axis)
    fine.view(*shape, fine.shape[-1]).add_(rows)


def add_upsampled(
    fine: Tensor, coarse: Tensor, by: Sequence[int], shift: Sequence[Tensor | None]
) -> None:
    """fine += `upsampled` coarse. For eager code: with no temporary of fine's size."""
    if by[-1] == 2:
        coarse = _interleaved(*_first_and_second(coarse, coarse.ndim - 1, shift[-1]))
    parts = [(fine, coarse)]
    for axis in range(2, fine.ndim - 1):
        if by[axis - 2] == 2:
            parts = [
                pair
                for fine, coarse in parts
                for pair in zip(
                    fine.unflatten(axis, (-1, 2)).unbind(axis + 1),
                    _first_and_second(coarse, axis, shift[axis - 2]),
                )
            ]
    for part, blocks in parts:
        part.add_(blocks)


def _first_and_second(coarse: Tensor, axis: int, shift: Tensor | None) -> tuple[Tensor, Tensor]:
    """The blocks in which the even and the odd voxels along `axis` lie."""
    if shift is None:
        return coarse, coarse
    pairs = coarse.shape[axis] - 1
    here, after = coarse.narrow(axis, 0, pairs), coarse.narrow(axis, 1, pairs)
    if shift.numel() == 1 and shift.device.type == "cpu":
        return here, after if shift else here  # of one sample: nothing to copy
    # exact for 0 and 1; torch.where takes three times as long on CPU
    return here, torch.lerp(here, after, shift)


def _interleaved(even: Tensor, odd: Tensor) -> Tensor:
    """(..., n) and (..., n) -> (..., 2n), in turn."""
    if even.device.type == "cpu":  # in single precision; a fifth of what torch.stack takes there
        return torch.view_as_real(torch.complex(even, odd)).flatten(-2)
    return torch.stack((even, odd), dim=-1).flatten(-2)
