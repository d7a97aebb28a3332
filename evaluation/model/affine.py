"""What one unit of the file becomes in a preprocessed case: normalised = scale * file + offset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

TOLERANCE = 1e-4  # of the normalised range


@dataclass(frozen=True, kw_only=True)
class FileAffine:
    """What normalisation does to a case, on the grid before resampling."""

    scale: list[float]
    """Per channel."""
    offset: list[float]
    """Per channel."""
    clipped: np.ndarray
    """(C, *spatial) bool, cropped and transposed: where it does something else, which is to clip
    (CT)."""


def file_affine(
    image: np.ndarray,
    previous_stage: np.ndarray | None,
    plans: PlansManager,
    configuration: ConfigurationManager,
) -> FileAffine | None:
    """Fit (scale, offset) per channel to what nnU-Net's normalisation does to this case.

    So any scheme is covered; clipped values are left out.

    Parameters
    ----------
    image
        (C, *spatial) as nnU-Net reads it.
    previous_stage
        Segmentation of a cascade's previous stage, (1, *spatial).

    Returns
    -------
    FileAffine or None
        None where the normalisation is not affine.
    """
    preprocessor = configuration.preprocessor_class(verbose=False)
    if not hasattr(preprocessor, "_normalize"):
        return None
    axes = [0, *[i + 1 for i in plans.transpose_forward]]
    seg = None if previous_stage is None else np.copy(previous_stage).transpose(axes)
    before, seg, _ = crop_to_nonzero(image.astype(np.float32).transpose(axes), seg)
    after = preprocessor._normalize(
        before.copy(), seg, configuration, plans.foreground_intensity_properties_per_channel
    )
    scales, offsets, clipped = [], [], np.zeros(after.shape, bool)
    for c, masked in enumerate(configuration.use_mask_for_norm[: len(image)]):
        inside = seg[0] >= 0 if masked else np.ones(seg.shape[1:], bool)
        fit = _fit(before[c][inside].astype(np.float64), after[c][inside].astype(np.float64))
        if fit is None:
            return None
        scales.append(fit[0])
        offsets.append(fit[1])
        extent = np.ptp(after[c][inside]) if inside.any() else 0
        misfit = np.abs(fit[0] * before[c].astype(np.float64) + fit[1] - after[c])
        clipped[c] = inside & (misfit > TOLERANCE * extent)
    return FileAffine(scale=scales, offset=offsets, clipped=clipped)


def _fit(file: np.ndarray, normalised: np.ndarray) -> tuple[float, float] | None:
    if not normalised.size:
        return None
    extent = np.ptp(normalised)
    if extent == 0:
        return 1.0, 0.0  # a constant channel never moves; any scale will do
    # the extremes may be clipped values (CT); without two values between them they are all there is
    open_range = (normalised > normalised.min()) & (normalised < normalised.max())
    for chosen in (open_range, np.ones_like(open_range)):
        f, n = file[chosen], normalised[chosen]
        if f.size and np.ptp(f) > 0:
            low, high = f.argmin(), f.argmax()
            scale = (n[high] - n[low]) / (f[high] - f[low])
            offset = n[low] - scale * f[low]
            if scale > 0 and np.abs(scale * f + offset - n).max() <= TOLERANCE * extent:
                return float(scale), float(offset)
            if chosen is open_range:
                return None
    return None
