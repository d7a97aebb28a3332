"""Image shifts of the clinic: seeded corruptions of a preprocessed case at five severities.

Where they act: on the preprocessed case, (C, *spatial), like the attacks, with each image channel's [min, max] mapped to [0, 1]; the result is
clipped into [min, max]. Strengths are therefore fractions of the case's range, or voxels of the preprocessed grid, or HU for the CT
shifts. This is the shift that the network sees: a change of brightness or contrast of the whole file that z-scoring would undo in
deployment is not undone here, so those two are upper bounds for z-scored data. The previous stage's segmentation of a cascade is fixed.

One seed gives one case the same pattern at every severity, only stronger. batchgeneratorsv2's transforms, nnU-Net's own, are used where they
have the shift; axes of length 1 (2D cases) are left out of all of them.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import BrightnessAdditiveTransform
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.blank_rectangle import BlankRectangleTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.noise.rician import RicianNoiseTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from PIL import Image
from scipy import ndimage

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import lookup

SEVERITIES = (1, 2, 3, 4, 5)
MINIMUM_AXIS = 8  # voxels; shorter axes keep their resolution


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """A corruption. `strengths`: one per severity, in `unit`. `needs`: 'ct', 'not_ct', '2d' or '' for every data set. `function(image, strength,
    rng, hu)` -> image, with image (C, *spatial) in [0, 1]; `hu`, for CT: ([0, 1] units per HU, value of 0 HU), each (C, 1, ...)."""

    name: str
    function: Callable[..., torch.Tensor]
    strengths: tuple[float, ...]
    unit: str
    needs: str = ""


def corruption_names() -> tuple[str, ...]:
    return tuple(CORRUPTIONS)


def get_corruption(name: str) -> Corruption:
    """ValueError with the nearest names for an unknown one."""
    return lookup(CORRUPTIONS, name, "shift")


def inapplicable(*, ct: bool, two_dimensional: bool) -> dict[str, str]:
    """{shift: why it does not apply} for a data set. `ct`: every channel is normalised as CT, so files hold HU. `two_dimensional`: a 2D
    configuration, which sees slices."""
    reasons = {
        "ct": None if ct else "needs CT (CTNormalization in the plans), where files hold HU",
        "not_ct": "does not occur in CT" if ct else None,
        "2d": None if two_dimensional else "needs a 2D configuration",
    }
    return {s.name: reasons[s.needs] for s in CORRUPTIONS.values() if s.needs and reasons[s.needs]}


def apply_corruption(
    name: str,
    x: torch.Tensor,
    *,
    severity: int,
    seed: int,
    image_channels: int | None = None,
    file_scale: Sequence[float] | None = None,
    file_offset: Sequence[float] | None = None,
) -> torch.Tensor:
    """The shifted case, (C, *spatial), dtype and device of x, inside x's [min, max] per channel; x and the global random states are left
    alone. `image_channels`: leading channels that are image (default: all). `file_scale`, `file_offset`: per channel,
    x = scale * HU + offset; only the HU shifts need them. ValueError for an unknown shift or severity, or a missing scale."""
    shift = get_corruption(name)
    if severity not in SEVERITIES:
        raise UserError(f"severity must be one of {SEVERITIES}, got {severity}")
    if shift.needs == "ct" and (file_scale is None or file_offset is None):
        raise UserError(
            f"shift {name} needs the case's HU scale, and its normalisation is not affine"
        )
    channels = len(x) if image_channels is None else image_channels
    image = x[:channels].detach().cpu().double()
    column = (-1, *[1] * (x.ndim - 1))
    minimum, maximum = (
        image.flatten(1).amin(1).reshape(column),
        image.flatten(1).amax(1).reshape(column),
    )
    extent = maximum - minimum
    safe = torch.where(extent > 0, extent, torch.ones_like(extent))
    unit = ((image - minimum) / safe).float()
    shape = _shape_without_flat_axes(unit.shape)
    hounsfield = None
    if shift.needs == "ct":
        scale, offset = (
            torch.as_tensor(v, dtype=torch.float64)[:channels].reshape(column)
            for v in (file_scale, file_offset)
        )
        per_hu, zero = scale / safe, (offset - minimum) / safe
        hounsfield = tuple(v.reshape(-1, *[1] * (len(shape) - 1)).float() for v in (per_hu, zero))
    strength = shift.strengths[severity - 1]
    with _global_random_state(seed), torch.no_grad():
        changed = shift.function(
            unit.reshape(shape).clone(), strength, np.random.default_rng(seed), hounsfield
        )
    changed = changed.reshape(unit.shape).double() * extent + minimum
    # a constant channel has no range
    changed = torch.where(
        extent > 0, torch.minimum(torch.maximum(changed, minimum), maximum), image
    )
    return torch.cat([changed.to(x), x[channels:]])


# --- the shifts: image (C, *spatial) in [0, 1], strength, generator, HU scale -> image, clipped by the caller ----------------------------


def _gaussian_noise(image, sd, rng, hu):
    return _transform(
        GaussianNoiseTransform(float(sd)), image
    )  # its noise_variance is a standard deviation


def _rician_noise(image, sd, rng, hu):
    # channel by channel: it keeps mean and sd of what it is given
    return torch.cat([_transform(RicianNoiseTransform((sd, sd)), c[None]) for c in image])


def _speckle(image, sd, rng, hu):
    return image * (
        1 + sd * torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype=np.float32))
    )


def _gaussian_blur(image, sigma, rng, hu):
    # reflection needs an axis longer than the kernel's half
    return _transform(
        GaussianBlurTransform(lambda shape, dim: min(sigma, (shape[dim] - 1) / 4)), image
    )


def _motion_blur(image, length, rng, hu):
    angle = rng.uniform(0, np.pi)
    direction = np.array([*[0.0] * (image.ndim - 3), np.sin(angle), np.cos(angle)])
    path = np.linspace(-(length - 1) / 2, (length - 1) / 2, int(length))
    moved = [
        [ndimage.shift(c, t * direction, order=1, mode="nearest") for t in path]
        for c in image.numpy()
    ]
    return torch.from_numpy(np.mean(moved, axis=1, dtype=np.float32))


def _low_resolution(image, factor, rng, hu):
    thin = tuple(a for a, n in enumerate(image.shape[1:]) if n < MINIMUM_AXIS)
    return _transform(
        SimulateLowResolutionTransform(
            1 / factor, synchronize_channels=True, synchronize_axes=True, ignore_axes=thin
        ),
        image,
    )


def _contrast(image, loss, rng, hu):
    return _transform(
        ContrastTransform(1 - loss, preserve_range=True, synchronize_channels=True), image
    )


def _gamma(image, ratio, rng, hu):
    gamma = ratio if rng.random() < 0.5 else 1 / ratio
    return _transform(
        GammaTransform(
            float(gamma),
            p_invert_image=0,
            synchronize_channels=True,
            p_per_channel=1,
            p_retain_stats=0,
        ),
        image,
    )


def _bias_field(image, amplitude, rng, hu):
    grids = np.meshgrid(
        *[np.linspace(-1, 1, n, dtype=np.float32) for n in image.shape[1:]],
        indexing="ij",
        sparse=True,
    )
    field = np.zeros(image.shape[1:], np.float32)
    for powers in itertools.product(range(4), repeat=len(grids)):
        if 0 < sum(powers) <= 3:
            term = np.float32(rng.standard_normal())
            for grid, power in zip(grids, powers):
                term = term * grid**power
            field += term
    return image * torch.from_numpy(np.exp(amplitude * field / max(np.abs(field).max(), 1e-12)))


def _brightness(image, offset, rng, hu):
    return _transform(
        BrightnessAdditiveTransform(
            float(offset if rng.random() < 0.5 else -offset), 0.0, synchronize_channels=False
        ),
        image,
    )


def _jpeg(image, quality, rng, hu):
    slices = image.reshape(-1, *image.shape[-2:]).numpy()
    decoded = []
    for s in slices:
        buffer = io.BytesIO()
        Image.fromarray(np.round(s * 255).astype(np.uint8)).save(
            buffer, "JPEG", quality=int(quality)
        )
        decoded.append(np.asarray(Image.open(buffer), np.float32) / 255)
    return torch.from_numpy(np.stack(decoded)).reshape(image.shape)


def _hu_offset(image, offset, rng, hu):
    per_hu, _ = hu
    return image + (offset if rng.random() < 0.5 else -offset) * per_hu


def _hu_scale(image, change, rng, hu):
    _, zero = hu
    return zero + (image - zero) * (1 + (change if rng.random() < 0.5 else -change))


def _occlusion(image, fraction, rng, hu):
    size = tuple(max(1, round(fraction * n)) for n in image.shape[1:])
    seed = int(rng.integers(2**31))
    covered = []
    for channel in image:  # the same place in every channel
        with _global_random_state(seed):
            covered.append(_transform(BlankRectangleTransform(size, 0.0, 1), channel[None]))
    return torch.cat(covered)


CORRUPTIONS: dict[str, Corruption] = {
    s.name: s
    for s in (
        Corruption(
            name="gaussian_noise",
            function=_gaussian_noise,
            strengths=(0.02, 0.04, 0.08, 0.12, 0.18),
            unit="sd, of the range",
        ),
        Corruption(
            name="rician_noise",
            function=_rician_noise,
            strengths=(0.02, 0.04, 0.08, 0.12, 0.18),
            unit="sd, of the range",
            needs="not_ct",
        ),
        Corruption(
            name="speckle",
            function=_speckle,
            strengths=(0.1, 0.2, 0.3, 0.45, 0.6),
            unit="sd, of the intensity",
            needs="not_ct",
        ),
        Corruption(
            name="gaussian_blur",
            function=_gaussian_blur,
            strengths=(0.5, 1.0, 1.5, 2.0, 3.0),
            unit="sigma, voxels",
        ),
        Corruption(
            name="motion_blur",
            function=_motion_blur,
            strengths=(3, 5, 7, 11, 15),
            unit="path, voxels, in the plane of the last two axes",
        ),
        Corruption(
            name="low_resolution",
            function=_low_resolution,
            strengths=(1.5, 2.0, 3.0, 4.0, 6.0),
            unit="factor of voxel size",
        ),
        Corruption(
            name="contrast",
            function=_contrast,
            strengths=(0.15, 0.3, 0.45, 0.6, 0.75),
            unit="contrast lost, fraction",
        ),
        Corruption(
            name="gamma",
            function=_gamma,
            strengths=(1.2, 1.5, 1.9, 2.4, 3.0),
            unit="gamma or its inverse",
        ),
        Corruption(
            name="bias_field",
            function=_bias_field,
            strengths=(0.1, 0.2, 0.35, 0.5, 0.7),
            unit="largest |log| of the field",
        ),
        Corruption(
            name="brightness",
            function=_brightness,
            strengths=(0.05, 0.1, 0.15, 0.2, 0.3),
            unit="up or down, of the range",
        ),
        Corruption(
            name="jpeg",
            function=_jpeg,
            strengths=(50, 30, 20, 12, 6),
            unit="JPEG quality",
            needs="2d",
        ),
        Corruption(
            name="hu_offset",
            function=_hu_offset,
            strengths=(10, 20, 40, 70, 100),
            unit="HU, up or down",
            needs="ct",
        ),
        Corruption(
            name="hu_scale",
            function=_hu_scale,
            strengths=(0.02, 0.04, 0.07, 0.11, 0.16),
            unit="relative, up or down",
            needs="ct",
        ),
        Corruption(
            name="occlusion",
            function=_occlusion,
            strengths=(0.1, 0.15, 0.2, 0.3, 0.4),
            unit="of each axis, one dark box",
        ),
    )
}


# --- helpers ------------------------------------------------------------------------------------------------------------------------


def _transform(transform: BasicTransform, image: torch.Tensor) -> torch.Tensor:
    return transform(image=image.clone())["image"]


def _shape_without_flat_axes(shape: Sequence[int]) -> list[int]:
    """(C, *spatial) without spatial axes of length 1, two of them at least."""
    kept = [n for n in shape[1:] if n > 1]
    return [shape[0], *(kept if len(kept) >= 2 else shape[-2:])]


@contextmanager
def _global_random_state(seed: int):
    """batchgeneratorsv2 draws from the global states of numpy and torch: seeded inside, restored afterwards."""
    before = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(before)
