"""Image files of all kinds -> grey images and binary masks; what is not one is refused by name."""

from __future__ import annotations

import contextlib
import re
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from nnunetv2_lngswr.utils.files import atomic_path

# what Pillow's decoders raise on files that are damaged or absurdly large
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    MemoryError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
# 'RGB;16B'; 'BGR;16' has 16 bit for all three
_SIXTEEN_BIT = re.compile(";16[BLN]")
_EIGHT_BIT = ("L", "LA", "RGB", "RGBA", "RGBX")


class Unfit(ValueError):
    """A file that cannot be used; the text says why."""


def read_image(path: Path, *, luminance: bool = False) -> np.ndarray:
    """A grey image, (H, W) uint8 or uint16.

    Parameters
    ----------
    path
        Of any format that Pillow reads; grey images saved as RGB become grey again.
    luminance
        Colour images become grey (ITU-R 601), instead of being refused.

    Raises
    ------
    Unfit
        Not readable, in colour (unless `luminance`), or transparent.
    """
    pixels = _pixels(path)
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] in (2, 4):
        if (pixels[..., -1] != 255).any():
            raise Unfit("image has transparent pixels")
        pixels = pixels[..., :-1]
    difference = int(np.ptp(pixels.astype(int), axis=2).max())
    if difference == 0:
        return np.ascontiguousarray(pixels[..., 0])
    if not luminance:
        raise Unfit(
            f"colour image (channels differ by up to {difference}); "
            "--luminance makes such images grey"
        )
    return np.rint(pixels @ np.array([0.299, 0.587, 0.114])).astype(pixels.dtype)


def read_mask(path: Path, *, threshold: int | None = None) -> np.ndarray:
    """A binary mask, (H, W) bool.

    Parameters
    ----------
    path
        Of any format that Pillow reads.
    threshold
        The mask is what is at least this bright; None: what is not 0.

    Raises
    ------
    Unfit
        Not readable; without `threshold` more than one value or colour besides 0; what is
        transparent would be foreground.
    """
    pixels = _pixels(path)
    if pixels.ndim == 3:
        pixels = _without_alpha(pixels)
    brightest = pixels if pixels.ndim == 2 else pixels.max(2)
    if threshold is not None:
        return brightest >= threshold
    foreground = _values(pixels)
    if len(foreground) > 1:
        some = ", ".join("/".join(map(str, value)) for value in foreground[:6])
        raise Unfit(
            f"mask has {len(foreground)} values besides 0 ({some}), one was expected; "
            "--mask-threshold for lossy files"
        )
    return brightest > 0


def _values(pixels: np.ndarray) -> list[tuple[int, ...]]:
    """The values, or colours, besides 0 of (H, W) or (H, W, C)."""
    channels = pixels.reshape(*pixels.shape[:2], -1)
    shifts = 16 * np.arange(channels.shape[2], dtype=np.uint64)[::-1]
    # one integer for each pixel: rows are slow to sort
    packed = np.unique((channels.astype(np.uint64) << shifts).sum(2, dtype=np.uint64))
    return [tuple(int(v) for v in (p >> shifts) & np.uint64(0xFFFF)) for p in packed if p]


def _without_alpha(pixels: np.ndarray) -> np.ndarray:
    """(H, W, C) without the alpha channel, which says nothing about a mask unless it hides some."""
    if pixels.shape[2] not in (2, 4):
        return pixels
    colours, alpha = pixels[..., :-1], pixels[..., -1]
    if alpha.any() and colours[alpha == 0].any():
        raise Unfit("the mask has colours where it is transparent: save it without transparency")
    return colours


def write_png(array: np.ndarray, path: Path) -> None:
    """Write (H, W) uint8 or uint16; the file appears whole or not at all."""
    with atomic_path(path) as temporary:
        Image.fromarray(array).save(temporary)


def _pixels(path: Path) -> np.ndarray:
    """(H, W) or (H, W, C), uint8 or uint16, as viewers show it; palettes are resolved."""
    with contextlib.ExitStack() as opened:
        try:
            image = opened.enter_context(Image.open(path))
            if image.mode in _EIGHT_BIT and _SIXTEEN_BIT.search(_raw_mode(image)):
                # Pillow would keep the upper half of each value
                raise Unfit("colours of 16 bit are not read: save it as 16 bit grey, or 8 bit")
            image.load()
            frames = getattr(image, "n_frames", 1)
            with contextlib.suppress(*_DAMAGED):  # what says nothing leaves it as it is stored
                image = ImageOps.exif_transpose(image)
        except _DAMAGED as error:
            why = str(error) or type(error).__name__
            raise Unfit(f"not readable as an image ({why})") from None
        if frames > 1:
            raise Unfit(f"file holds {frames} images")
        pixels = _resolved(image)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise Unfit(f"values are {pixels.dtype}, 8 or 16 bit without sign were expected")
    return pixels


def _raw_mode(image: Image.Image) -> str:
    """How the file stores a pixel, such as 'RGB;16B'; empty where Pillow does not say."""
    for tile in getattr(image, "tile", None) or ():
        args = tile[3]
        return str(args if isinstance(args, str) else next(iter(args or ()), ""))
    return ""


def _resolved(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):
        return _sixteen_bit(np.asarray(image))
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode in ("P", "CMYK", "YCbCr", "HSV", "LAB"):
        mode = "RGBA" if "transparency" in image.info else "RGB"
        return np.asarray(image.convert(mode))
    return np.asarray(image)


def _sixteen_bit(pixels: np.ndarray) -> np.ndarray:
    if pixels.min() < 0 or pixels.max() > 65535:
        raise Unfit("values do not fit into 16 bit")
    return pixels.astype(np.uint16)
