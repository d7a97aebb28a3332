"""One-level orthonormal wavelet transform along any subset of a feature map's spatial axes.

Features are tensors ``x`` of shape (N, C, *spatial), spatial rank 2 or 3 (any rank works). Of k
transformed axes come 2**k sub-bands of half the size, in the order of `bands.subbands`. Odd lengths
are edge-padded by one sample and cropped after synthesis, as PyWavelets' ``periodization`` mode
does.

Every orthogonal wavelet of PyWavelets goes through its own filters, as one orthonormal matrix per
axis length. Haar, whose bands are sums and differences of the samples of a block, has a faster way
to weigh and to measure them, which is in `haar`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pywt
import torch
from torch import Tensor
from torch.nn import functional as F

from nnunetv2_lngswr.method import haar
from nnunetv2_lngswr.method.bands import HAAR


def apply_gains(
    x: Tensor,
    gains: Tensor,
    axes: Sequence[int],
    wavelet: str = HAAR,
    *,
    least_gain: float = 0.0,
    in_place: bool = False,
) -> Tensor:
    """iDWT(gains * DWT(x)) along `axes`.

    With Haar, gains of 1 are the identity to the last bit in every precision that holds the sum of
    a block (fp16: up to 16,000 in 3D), and nothing but x is kept for backward, which is once
    differentiable, and x for the gradient of the gains only. Other wavelets are computed in fp32 or
    better.

    Parameters
    ----------
    x
        (N, C, *spatial).
    gains
        (C, 2**len(axes)), in the order of `bands.subbands`.
    axes
        Spatial axes, 0 being the first; none: x comes back.
    least_gain
        What no gain is below. Where one can divide by it, the result, which the next layer keeps
        too, is kept instead of x.
    in_place
        x may be overwritten; where it is kept, it is not.

    Returns
    -------
    (N, C, *spatial)
    """
    if not axes:
        return x
    spatial = x.shape[2:]
    if wavelet != HAAR:
        with torch.autocast(x.device.type, enabled=False):  # the low band is 2**(axes/2) times x
            bands = decompose(_at_least_fp32(x), axes, wavelet)
            weights = gains.to(bands.dtype).view(1, *gains.shape, *[1] * len(spatial))
            return compose(bands * weights, axes, spatial, wavelet).to(x.dtype)
    axes = tuple(sorted(axes))
    y = haar.apply_gains(
        _pad_to_even(x, axes), gains, axes, least_gain=least_gain, in_place=in_place
    )
    return _crop(y, spatial)


def band_energy(x: Tensor, axes: Sequence[int], wavelet: str = HAAR) -> Tensor:
    """Mean square of the coefficients of each band.

    Parameters
    ----------
    x
        (N, C, *spatial).
    axes
        Spatial axes, 0 being the first; none: all of x is one band.

    Returns
    -------
    (C, 2**len(axes)), in fp32 or better
    """
    if wavelet == HAAR and axes:
        axes = tuple(sorted(axes))
        return haar.band_energy(_pad_to_even(x, axes), axes)
    x = _at_least_fp32(x)
    with torch.autocast(x.device.type, enabled=False):  # sums of squares overflow fp16
        bands = decompose(x, axes, wavelet) if axes else x.unsqueeze(2)
        return bands.square().mean(dim=(0, *range(3, bands.ndim)))


def decompose(x: Tensor, axes: Sequence[int], wavelet: str = HAAR) -> Tensor:
    """Analysis: x (N, C, *spatial) -> (N, C, 2**len(axes), *halved)."""
    x = _pad_to_even(x, axes)
    return _split_halves(_apply_matrices(x, axes, wavelet, synthesis=False), axes)


def compose(
    bands: Tensor, axes: Sequence[int], spatial: Sequence[int], wavelet: str = HAAR
) -> Tensor:
    """Synthesis, the inverse of `decompose`.

    Parameters
    ----------
    bands
        (N, C, 2**len(axes), *halved).
    spatial
        The shape to crop to, that of the decomposed x.

    Returns
    -------
    (N, C, *spatial)
    """
    x = _apply_matrices(_join_halves(bands, axes), axes, wavelet, synthesis=True)
    return _crop(x, spatial)


def transformable_axes(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    """Those of the spatial `axes` whose length in `shape` (N, C, *spatial) exceeds 1."""
    return tuple(a for a in axes if shape[2 + a] > 1)


@lru_cache(maxsize=256)
def analysis_matrix(wavelet: str, length: int) -> np.ndarray:
    """PyWavelets' one-level periodized transform as an orthonormal matrix.

    Returns
    -------
    (length, length): the low half above the high half
    """
    low, high = pywt.dwt(np.eye(length), wavelet, mode="periodization", axis=0)
    return np.concatenate((low, high))


def _at_least_fp32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _pad_to_even(x: Tensor, axes: Sequence[int]) -> Tensor:
    for axis in axes:
        if x.shape[2 + axis] % 2:
            x = torch.cat((x, x.narrow(2 + axis, x.shape[2 + axis] - 1, 1)), dim=2 + axis)
    return x


def _crop(x: Tensor, spatial: Sequence[int]) -> Tensor:
    for axis, length in enumerate(spatial):
        if x.shape[2 + axis] != length:
            x = x.narrow(2 + axis, 0, length)
    return x


# an operator of its own, since torch.compile cannot trace PyWavelets; a copy, since compiled code
# may write into an operator's result
@torch.library.custom_op("lngswr::analysis_matrix", mutates_args=())
def _analysis_tensor(wavelet: str, length: int) -> Tensor:
    return torch.tensor(analysis_matrix(wavelet, length))


@_analysis_tensor.register_fake
def _(wavelet: str, length: int) -> Tensor:
    return torch.empty(length, length, dtype=torch.float64)


def _apply_matrices(x: Tensor, axes: Sequence[int], wavelet: str, *, synthesis: bool) -> Tensor:
    for axis in axes:
        matrix = _analysis_tensor(wavelet, x.shape[2 + axis]).to(device=x.device, dtype=x.dtype)
        rows = x.movedim(2 + axis, -1)
        x = F.linear(rows, matrix.T if synthesis else matrix).movedim(-1, 2 + axis)
    return x


def _split_halves(x: Tensor, axes: Sequence[int]) -> Tensor:
    parts = [x]
    for axis in axes:
        parts = [half for part in parts for half in part.chunk(2, dim=2 + axis)]
    return torch.stack(parts, dim=2)


def _join_halves(bands: Tensor, axes: Sequence[int]) -> Tensor:
    parts = list(bands.unbind(2))
    for axis in reversed(axes):
        parts = [torch.cat(pair, dim=2 + axis) for pair in zip(parts[::2], parts[1::2])]
    return parts[0]
