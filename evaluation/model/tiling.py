"""nnU-Net's tiling of a case: its windows, the weights of their voxels and the mirrored copies.

Steps, Gaussian (in float16, the values that nnU-Net deploys) and zero padding to the patch are
nnU-Net's own functions. The patch may have one axis fewer than the case (2D configurations):
windows then lie within each slice of the first axis.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import (
    compute_gaussian,
    compute_steps_for_sliding_window,
)

from nnunetv2_lngswr.utils.errors import UserError

Window = tuple
"""Index into (B, C, *padded), the case's number first: one window (C, *patch)."""
Flip = tuple[int, ...]
"""Axes of a window to mirror."""
Batch = list[tuple[Window, Flip]]
"""Windows, each with its mirroring, of one network call."""


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """The windows of a batch of cases."""

    x: torch.Tensor
    """Padded cases on the device, (B, C, *padded)."""
    crop: tuple
    """Slices that undo the padding."""
    windows: list[Window]
    """Of all cases, in their order."""
    windows_per_case: int
    """The same for every case."""
    weight_sum: torch.Tensor
    """Sum of the windows' Gaussians, (*patch axes of the padded case)."""


def tile(
    x: torch.Tensor,
    patch_size: tuple[int, ...],
    *,
    tile_step_size: float,
    gaussian: torch.Tensor,
) -> Tiling:
    """The tiling of cases of one shape.

    Parameters
    ----------
    x
        (B, C, *spatial).
    patch_size
        As many axes as `spatial`, or one fewer.
    tile_step_size
        As a fraction of the patch.
    gaussian
        `gaussian_weights` of the patch, on the device where the work happens.

    Raises
    ------
    UserError
        Another number of axes.
    """
    spatial, patch = x.ndim - 2, len(patch_size)
    if spatial not in (patch, patch + 1):
        raise UserError(
            f"x must be (B, C, *spatial) with {patch} or {patch + 1} spatial axes for patch "
            f"{patch_size}, got shape {tuple(x.shape)}"
        )
    x = x.detach().to(gaussian.device)
    padded, crop = pad_nd_image(x, patch_size, "constant", {"value": 0}, return_slicer=True)
    assert isinstance(padded, torch.Tensor)
    starts = compute_steps_for_sliding_window(padded.shape[-patch:], patch_size, tile_step_size)
    positions = [
        tuple(slice(s, s + p) for s, p in zip(at, patch_size)) for at in itertools.product(*starts)
    ]
    slices = itertools.product(*(range(n) for n in padded.shape[2 : padded.ndim - patch]))
    within = [(slice(None), *s, *position) for s in slices for position in positions]
    weight_sum = torch.zeros(padded.shape[-patch:], dtype=x.dtype, device=x.device)
    for position in positions:
        weight_sum[position] += gaussian.to(x.dtype)
    return Tiling(
        x=padded,
        crop=(slice(None), slice(None), *crop[2:]),
        windows=[(case, *w) for case in range(len(x)) for w in within],
        windows_per_case=len(within),
        weight_sum=weight_sum,
    )


def gaussian_weights(patch_size: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """nnU-Net's weights of a window's voxels, (*patch) float16."""
    # __wrapped__: nnU-Net caches this tensor, and one made under its inference_mode cannot enter a
    # graph
    with torch.inference_mode(False):
        return compute_gaussian.__wrapped__(
            patch_size,
            sigma_scale=1.0 / 8,
            value_scaling_factor=10,
            device=torch.device("cpu"),
        ).to(device)


def flips_of(mirror_axes: Sequence[int]) -> list[Flip]:
    """The mirrored copies of a window (C, *patch): none mirrored, then nnU-Net's order."""
    return [
        tuple(axis + 1 for axis in axes)
        for size in range(len(mirror_axes) + 1)
        for axes in itertools.combinations(mirror_axes, size)
    ]


def mirrored(tiling: Tiling, batch: Batch) -> torch.Tensor:
    """The batch's windows, (n, C, *patch): contiguous and memory of their own, as nnU-Net's."""
    return torch.stack([tiling.x[w].flip(f) for w, f in batch])
