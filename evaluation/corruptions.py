"""Corruptions as the clinic makes them: seeded, on a preprocessed case, at five severities.

Where they act: on the preprocessed case, (C, *spatial), like the attacks, with each image channel's
[min, max] mapped to [0, 1]; the result is clipped into [min, max]. Strengths are therefore
fractions of the case's range, or voxels of the preprocessed grid, or HU for the CT corruptions.
This is what the network sees: a change of brightness or contrast of the whole file that z-scoring
would undo in deployment is not undone here, so those two are upper bounds for z-scored data. The
previous stage's segmentation of a cascade is fixed.

One seed gives one case the same pattern at every severity, only stronger. batchgeneratorsv2's
transforms, nnU-Net's own, are used where they have the corruption; axes of length 1 (2D cases) are
left out of all of them.

To add a corruption, enter it into corruption_table.py and write a function here with
`@_corruption`; its name is the corruption's.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

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

from evaluation import mr_corruptions
from evaluation.corruption_table import (
    CORRUPTIONS,
    SEVERITIES,
    Corruption,
    corruption_names,
    get_corruption,
    inapplicable,
)
from evaluation.unit_range import Hounsfield, UnitRange
from nnunetv2_lngswr.utils.errors import UserError

__all__ = [
    "CORRUPTIONS",
    "SEVERITIES",
    "Corruption",
    "apply_corruption",
    "apply_strength",
    "corruption_names",
    "get_corruption",
    "inapplicable",
]

MINIMUM_AXIS = 8  # voxels; shorter axes keep their resolution

# image (C, *spatial) in [0, 1], strength, generator, HU scale -> image, clipped by the caller
Function = Callable[..., torch.Tensor]


_FUNCTIONS: dict[str, Function] = {}


def apply_corruption(
    name: str,
    x: torch.Tensor,
    *,
    severity: int,
    seed: int,
    image_channels: int | None = None,
    file_scale: Sequence[float] | torch.Tensor | None = None,
    file_offset: Sequence[float] | torch.Tensor | None = None,
) -> torch.Tensor:
    """The corrupted case; x and the global random states are left alone.

    Parameters
    ----------
    name
        Of `corruption_names`.
    x
        Preprocessed case, (C, *spatial).
    severity
        1 to 5.
    seed
        Of the pattern.
    image_channels
        Leading channels that are image; default: all.
    file_scale, file_offset
        Per channel, x = scale * HU + offset; only the HU corruptions need them.

    Returns
    -------
    torch.Tensor
        (C, *spatial), dtype and device of x, inside x's [min, max] per channel.

    Raises
    ------
    UserError
        An unknown corruption or severity, or a missing scale.
    """
    corruption = get_corruption(name)
    if severity not in SEVERITIES:
        raise UserError(f"severity must be one of {SEVERITIES}, got {severity}")
    return apply_strength(
        name,
        x,
        strength=corruption.strengths[severity - 1],
        seed=seed,
        image_channels=image_channels,
        file_scale=file_scale,
        file_offset=file_offset,
    )


def apply_strength(
    name: str,
    x: torch.Tensor,
    *,
    strength: float,
    seed: int,
    image_channels: int | None = None,
    file_scale: Sequence[float] | torch.Tensor | None = None,
    file_offset: Sequence[float] | torch.Tensor | None = None,
) -> torch.Tensor:
    """As `apply_corruption`, at any strength, in the corruption's unit."""
    corruption = get_corruption(name)
    channels = len(x) if image_channels is None else image_channels
    image = x[:channels].detach().cpu().double()
    limits = UnitRange.of(image)
    unit = limits.to_unit(image)
    shape = _shape_without_flat_axes(unit.shape)
    hu = None
    if corruption.needs == "ct":
        if file_scale is None or file_offset is None:
            raise UserError(
                f"corruption {name} needs the case's HU scale, and its normalisation is not affine"
            )
        per_hu, zero = limits.hounsfield(file_scale, file_offset)
        column = (-1, *[1] * (len(shape) - 1))
        hu = per_hu.reshape(column), zero.reshape(column)
    rng = np.random.default_rng(seed)
    with _global_random_state(seed), torch.no_grad():
        changed = _FUNCTIONS[name](unit.reshape(shape).clone(), strength, rng, hu)
    changed = limits.from_unit(changed.reshape(unit.shape), image)
    return torch.cat([changed.to(x), x[channels:]])


def _corruption(function: Function) -> Function:
    """Enter a function under its own name, without the leading underscore, which the table has."""
    name = function.__name__.removeprefix("_")
    assert name in CORRUPTIONS, name
    _FUNCTIONS[name] = function
    return function


@_corruption
def _gaussian_noise(image, sd, rng, hu):
    """batchgeneratorsv2's, whose `noise_variance` is a standard deviation."""
    return _transform(GaussianNoiseTransform(float(sd)), image)


@_corruption
def _rician_noise(image, sd, rng, hu):
    """Magnitude MRI: sd of the noise in the real and the imaginary part (batchgeneratorsv2's)."""
    # channel by channel: it keeps mean and sd of what it is given
    return torch.cat([_transform(RicianNoiseTransform((sd, sd)), c[None]) for c in image])


@_corruption
def _speckle(image, sd, rng, hu):
    """Multiplicative noise, as of ultrasound: image * (1 + sd * normal)."""
    noise = rng.standard_normal(tuple(image.shape), dtype=np.float32)
    return image * (1 + sd * torch.from_numpy(noise))


@_corruption
def _gaussian_blur(image, sigma, rng, hu):
    """batchgeneratorsv2's `blur_sigma`; nnU-Net trains with 0.5 to 1."""
    # reflection needs an axis longer than the kernel's half
    limited = GaussianBlurTransform(lambda shape, dim: min(sigma, (shape[dim] - 1) / 4))
    return _transform(limited, image)


@_corruption
def _motion_blur(image, length, rng, hu):
    """The mean over a straight path of `length` voxels in a random direction."""
    angle = rng.uniform(0, np.pi)
    direction = np.array([*[0.0] * (image.ndim - 3), np.sin(angle), np.cos(angle)])
    path = np.linspace(-(length - 1) / 2, (length - 1) / 2, int(length))
    # a running sum: all of the path at once would be many images
    found = np.zeros(tuple(image.shape), np.float32)
    for channel, summed in zip(image.numpy(), found):
        for t in path:
            summed += ndimage.shift(channel, t * direction, order=1, mode="nearest")
    return torch.from_numpy(found / np.float32(len(path)))


@_corruption
def _low_resolution(image, factor, rng, hu):
    """Down and up again: 1 / batchgeneratorsv2's `scale`; nnU-Net trains with factors up to 2."""
    thin = tuple(a for a, n in enumerate(image.shape[1:]) if n < MINIMUM_AXIS)
    transform = SimulateLowResolutionTransform(
        1 / factor, synchronize_channels=True, synchronize_axes=True, ignore_axes=thin
    )
    return _transform(transform, image)


@_corruption
def _contrast(image, loss, rng, hu):
    """1 - batchgeneratorsv2's factor on distances from the mean; nnU-Net trains with up to 0.25."""
    transform = ContrastTransform(1 - loss, preserve_range=True, synchronize_channels=True)
    return _transform(transform, image)


@_corruption
def _gamma(image, ratio, rng, hu):
    """The exponent of the intensity, or 1 over it; nnU-Net trains with 0.7 to 1.5."""
    transform = GammaTransform(
        float(ratio if rng.random() < 0.5 else 1 / ratio),
        p_invert_image=0,
        synchronize_channels=True,
        p_per_channel=1,
        p_retain_stats=0,
    )
    return _transform(transform, image)


@_corruption
def _bias_field(image, amplitude, rng, hu):
    """MRI's coil: a factor exp(polynomial of order 3 in space), the same in every channel."""
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


@_corruption
def _brightness(image, offset, rng, hu):
    """What is added to every voxel."""
    signed = float(_up_or_down(offset, rng))
    return _transform(BrightnessAdditiveTransform(signed, 0.0, synchronize_channels=False), image)


@_corruption
def _jpeg(image, quality, rng, hu):
    """Pillow's `quality`, on 8 bits per slice and channel."""
    slices = image.reshape(-1, *image.shape[-2:]).numpy()
    decoded = []
    for s in slices:
        buffer = io.BytesIO()
        picture = Image.fromarray(np.round(s * 255).astype(np.uint8))
        picture.save(buffer, "JPEG", quality=int(quality))
        decoded.append(np.asarray(Image.open(buffer), np.float32) / 255)
    return torch.from_numpy(np.stack(decoded)).reshape(image.shape)


@_corruption
def _hu_offset(image, offset, rng, hu: Hounsfield):
    """A scanner whose scale is shifted: HU + offset."""
    per_hu, _ = hu
    return _inside_window(image + _up_or_down(offset, rng) * per_hu, image)


@_corruption
def _hu_scale(image, change, rng, hu: Hounsfield):
    """A scanner whose scale is stretched around water: HU * (1 + change)."""
    _, zero = hu
    return _inside_window(zero + (image - zero) * (1 + _up_or_down(change, rng)), image)


def _inside_window(changed, image):
    """What nnU-Net's CT normalisation has clipped stays where it is: air at -1000 HU does not come
    into the window by tens of HU. Wrong only of what lies less than that beyond it, and of clipped
    voxels that resampling has moved into the range, which `Case.clipped` knows."""
    return torch.where((image > 0) & (image < 1), changed, image)


@_corruption
def _occlusion(image, fraction, rng, hu):
    """A box of this fraction of each axis at a random place, set to the minimum."""
    size = tuple(max(1, round(fraction * n)) for n in image.shape[1:])
    seed = int(rng.integers(2**31))
    covered = []
    for channel in image:  # the same place in every channel
        with _global_random_state(seed):
            covered.append(_transform(BlankRectangleTransform(size, 0.0, 1), channel[None]))
    return torch.cat(covered)


for _function in mr_corruptions.FUNCTIONS:
    _corruption(_function)


def _up_or_down(size: float, rng: np.random.Generator) -> float:
    return size if rng.random() < 0.5 else -size


def _transform(transform: BasicTransform, image: torch.Tensor) -> torch.Tensor:
    return transform(image=image.clone())["image"]


def _shape_without_flat_axes(shape: Sequence[int]) -> list[int]:
    """(C, *spatial) without spatial axes of length 1, two of them at least."""
    kept = [n for n in shape[1:] if n > 1]
    return [shape[0], *(kept if len(kept) >= 2 else shape[-2:])]


@contextmanager
def _global_random_state(seed: int) -> Iterator[None]:
    """batchgeneratorsv2 draws from the global states of numpy and torch: seeded, then restored."""
    before = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed CUDA's as well
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(before)
