"""What goes wrong in an MR scanner's k-space: ringing, spikes, motion and ghosts.

MONAI's and torchio's transforms, with their random parameters drawn here: one seed gives one
pattern, only stronger with the strength. Each function is (image (C, *spatial) in [0, 1], strength,
rng, hu) -> image, as in corruptions.py, which seeds, clips and enters them; two or three spatial
axes, none of length 1. MONAI and torchio are imported when they are used: they take seconds.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import torch

from evaluation.corruption_table import MR_EXTRA
from nnunetv2_lngswr.utils.errors import UserError

MOVEMENTS = 2
"""Of `mr_motion`, torchio's default."""
GHOSTS = (2, 6)
"""Of `mr_ghosting`: every second to every sixth line of k-space, drawn."""
SPIKE_FREQUENCIES = (0.1, 0.35)
"""Of `kspace_spike`, from and to, in periods per voxel."""
MINIMUM_AXIS = 8
"""Voxels; along shorter axes there are no ghosts and no movements."""


def gibbs_ringing(image, alpha, rng, hu):
    """MONAI's GibbsNoise: what lies outside a ball in k-space is lost. Nothing is random."""
    from monai.transforms.intensity.array import GibbsNoise

    return _plain(GibbsNoise(float(alpha))(image))


def kspace_spike(image, amplitude, rng, hu):
    """MONAI's KSpaceSpikeNoise: stripes of this amplitude, one direction in all channels."""
    from monai.transforms.intensity.array import KSpaceSpikeNoise

    shape = image.shape[1:]
    place = _spike(shape, rng)
    k_space = torch.as_tensor(KSpaceSpikeNoise.shift_fourier(image, len(shape)))
    # MONAI sets the logarithm of what it finds there; a wave of k / voxels has this amplitude
    wanted = k_space[(slice(None), *place)].abs() + amplitude * shape.numel()
    channels = range(len(image))
    spike = KSpaceSpikeNoise([(c, *place) for c in channels], wanted.log().tolist())
    return _plain(spike(image))


def mr_motion(image, size, rng, hu):
    """torchio's Motion: two movements during the scan, by up to so many degrees and voxels."""
    degrees, translation = rng.uniform(-size, size, (2, MOVEMENTS, 3))
    step = 1 / (MOVEMENTS + 1)
    times = step * (np.arange(1, MOVEMENTS + 1) + rng.uniform(-0.3, 0.3, MOVEMENTS))
    # a slice is the plane of the last two axes: torchio's own way with slices, which has them in
    # the first two, leaves k-space without lines
    volume = image.unsqueeze(1) if image.ndim == 3 else image
    for axis, n in enumerate(volume.shape[1:]):
        if n < MINIMUM_AXIS:
            translation[:, axis] = 0
            degrees[:, [a for a in range(3) if a != axis]] = 0
    moved = _torchio().Motion(degrees, translation, times, "linear")(volume)
    return _plain(moved).reshape(image.shape)


def mr_ghosting(image, intensity, rng, hu):
    """torchio's Ghosting: every so many lines of k-space lose this share, along one axis."""
    ghosts = int(rng.integers(*GHOSTS, endpoint=True))
    long_axes = [a for a, n in enumerate(image.shape[1:]) if n >= MINIMUM_AXIS]
    axis = int(rng.choice(long_axes or range(image.ndim - 1)))
    ghosting = _torchio().Ghosting(ghosts, axis, float(intensity), None)
    volume = image.unsqueeze(-1) if image.ndim == 3 else image
    return _plain(ghosting(volume)).reshape(image.shape)


FUNCTIONS = (gibbs_ringing, kspace_spike, mr_motion, mr_ghosting)


def _spike(shape: torch.Size, rng: np.random.Generator) -> tuple[int, ...]:
    """A place in k-space, its middle at n // 2, off the axes' short frequencies."""
    direction = rng.standard_normal(len(shape))
    frequency = rng.uniform(*SPIKE_FREQUENCIES) * direction / np.linalg.norm(direction)
    return tuple(min(n - 1, n // 2 + int(np.rint(f * n))) for n, f in zip(shape, frequency))


def _plain(image: Any) -> torch.Tensor:
    """Without MONAI's metadata, as a tensor of its own."""
    return torch.as_tensor(image).as_subclass(torch.Tensor).float().clone()


def _torchio() -> ModuleType:
    try:
        import torchio
    except ImportError as error:
        raise UserError(
            f"the corruptions mr_motion and mr_ghosting need torchio: {MR_EXTRA} ({error})"
        ) from error
    return torchio
