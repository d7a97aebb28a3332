"""One-level orthonormal wavelet transform along any subset of a feature map's spatial axes.

Features are tensors ``x`` of shape (N, C, *spatial), spatial rank 2 or 3 (any rank works). Of k transformed axes come
2**k sub-bands of half the size; their order is fixed here, once, by :func:`subbands`. Odd lengths are edge-padded by
one sample and cropped after synthesis, as PyWavelets' ``periodization`` mode does.

Haar is one product per channel: the 2**k samples of a block times a 2**k x 2**k matrix, so that "transform, weight
each band, transform back" (:func:`apply_gains`) costs one pass over the data. Every other orthogonal wavelet of
PyWavelets goes through its own filters, as one orthonormal matrix per axis length.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import numpy as np
import pywt
import torch
from torch import Tensor
from torch.nn import functional as F

HAAR = "haar"


def check_wavelet(name: str) -> str:
    """Return `name` if it is an orthogonal wavelet that PyWavelets knows, else raise ValueError saying which are."""
    if name in pywt.wavelist(kind="discrete"):
        if pywt.Wavelet(name).orthogonal:
            return name
        raise ValueError(
            f"wavelet must be orthogonal, got {name!r}, which is {pywt.Wavelet(name).family_name.lower()}; "
            "use for instance 'haar', 'db2', 'sym4' or 'coif1'"
        )
    raise ValueError(
        f"wavelet must be the name of an orthogonal PyWavelets wavelet (such as 'haar', 'db2', 'sym4', 'coif1'; "
        f"see pywt.wavelist(kind='discrete')), got {name!r}"
    )


def subbands(n_axes: int) -> tuple[str, ...]:
    """Names of the sub-bands of `n_axes` transformed axes, in the order in which every tensor here holds them.

    Letter i says which filter ran along the i-th transformed axis: L low-pass, H high-pass. Two axes give
    ``('LL', 'LH', 'HL', 'HH')``, which PyWavelets' ``dwtn`` calls 'aa', 'ad', 'da', 'dd'.
    """
    return tuple("".join(letters) for letters in product("LH", repeat=n_axes))


def transformable_axes(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    """Those of the spatial `axes` (0 is the first spatial axis) whose length in `shape` (N, C, *spatial) exceeds 1."""
    return tuple(a for a in axes if shape[2 + a] > 1)


def decompose(x: Tensor, axes: Sequence[int], wavelet: str = HAAR) -> Tensor:
    """Analysis. x (N, C, *spatial) -> (N, C, B, *halved), B = 2**len(axes) bands in the order of :func:`subbands`."""
    x = _pad_to_even(x, axes)
    if wavelet != HAAR:
        return _split_halves(_apply_matrices(x, axes, wavelet, synthesis=False), axes)
    blocks = _to_blocks(x, axes)
    bands = _haar_matrix(len(axes), x) @ blocks.flatten(3)
    return bands.view(blocks.shape)


def compose(bands: Tensor, axes: Sequence[int], spatial: Sequence[int], wavelet: str = HAAR) -> Tensor:
    """Synthesis, the inverse of :func:`decompose`. `spatial` is the shape to crop to, that of the decomposed x."""
    if wavelet != HAAR:
        x = _apply_matrices(_join_halves(bands, axes), axes, wavelet, synthesis=True)
    else:
        blocks = (_haar_matrix(len(axes), bands).mT @ bands.flatten(3)).view(bands.shape)
        x = _from_blocks(blocks, axes)
    return _crop(x, spatial)


def apply_gains(x: Tensor, gains: Tensor, axes: Sequence[int], wavelet: str = HAAR) -> Tensor:
    """iDWT(gains * DWT(x)) along `axes`: x (N, C, *spatial), gains (C, B) in the order of :func:`subbands`.

    The matrix of a Haar block is made in the gains' precision and then cast to x's, so that gains of 1 are the
    identity to the last bit in every precision.
    """
    if not axes:
        return x
    spatial = x.shape[2:]
    if wavelet != HAAR:
        bands = decompose(x, axes, wavelet)
        weights = gains.to(bands.dtype).view(1, *gains.shape, *[1] * len(spatial))
        return compose(bands * weights, axes, spatial, wavelet)
    # with the matrix's signs alone, and its power of two last, unit gains give the identity without rounding
    signs = _haar_signs(len(axes), gains)
    with _without_autocast(x):
        matrices = ((signs.mT @ (gains.unsqueeze(-1) * signs)) / len(signs)).to(x.dtype)  # (C, B, B)
    blocks = _to_blocks(_pad_to_even(x, axes), axes)
    mixed = (matrices @ blocks.flatten(3)).view(blocks.shape)
    return _crop(_from_blocks(mixed, axes), spatial)


def band_energy(x: Tensor, axes: Sequence[int], wavelet: str = HAAR) -> Tensor:
    """Mean square of the coefficients of each band: x (N, C, *spatial) -> (C, B), in fp32 or better."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    with _without_autocast(x):  # sums of squares overflow fp16
        if wavelet == HAAR and axes:  # energies are the diagonal of H G H^T, with G the blocks' second moments
            blocks = _to_blocks(_pad_to_even(x, axes), axes).flatten(3)
            moments = (blocks @ blocks.mT).sum(0) / (blocks.shape[0] * blocks.shape[3])
            haar = _haar_matrix(len(axes), moments)
            return ((haar @ moments) * haar).sum(-1)
        bands = decompose(x, axes, wavelet) if axes else x.unsqueeze(2)
        return bands.square().mean(dim=(0, *range(3, bands.ndim)))


@lru_cache(maxsize=256)
def analysis_matrix(wavelet: str, length: int) -> np.ndarray:
    """Orthonormal (length, length): PyWavelets' one-level periodized transform, low half above the high half."""
    low, high = pywt.dwt(np.eye(length), wavelet, mode="periodization", axis=0)
    return np.concatenate((low, high))


def _without_autocast(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)


def _haar_signs(n_axes: int, like: Tensor) -> Tensor:
    """(B, B) of 1 and -1: rows are the bands, columns the samples of a block (row-major over the axes)."""
    n = 2**n_axes
    rows = [[(-1.0) ** bin(band & sample).count("1") for sample in range(n)] for band in range(n)]
    return torch.tensor(rows, dtype=like.dtype, device=like.device)


def _haar_matrix(n_axes: int, like: Tensor) -> Tensor:
    return _haar_signs(n_axes, like) * 2.0 ** (-n_axes / 2)


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


def _to_blocks(x: Tensor, axes: Sequence[int]) -> Tensor:
    """(N, C, *even spatial) -> (N, C, B, *halved): the samples of each 2 x ... x 2 block, gathered."""
    shape, offsets, halves = list(x.shape[:2]), [], []
    for axis, length in enumerate(x.shape[2:]):
        halves.append(len(shape))
        if axis in axes:
            shape += [length // 2, 2]
            offsets.append(len(shape) - 1)
        else:
            shape.append(length)
    gathered = x.reshape(shape).permute(0, 1, *offsets, *halves)
    return gathered.reshape(*x.shape[:2], 2 ** len(axes), *(shape[h] for h in halves))


def _from_blocks(blocks: Tensor, axes: Sequence[int]) -> Tensor:
    """The inverse of :func:`_to_blocks`."""
    k, halved = len(axes), blocks.shape[3:]
    order, spatial, offset = [0, 1], [], 2
    for axis, length in enumerate(halved):
        order.append(2 + k + axis)
        if axis in axes:
            order.append(offset)
            offset += 1
            length *= 2
        spatial.append(length)
    split = blocks.reshape(*blocks.shape[:2], *[2] * k, *halved)
    return split.permute(order).reshape(*blocks.shape[:2], *spatial)


# an operator of its own, since torch.compile cannot trace PyWavelets; a copy, since compiled code may write into an operator's result
@torch.library.custom_op("lngswr::analysis_matrix", mutates_args=())
def _analysis_tensor(wavelet: str, length: int) -> Tensor:
    return torch.tensor(analysis_matrix(wavelet, length))


@_analysis_tensor.register_fake
def _(wavelet: str, length: int) -> Tensor:
    return torch.empty(length, length, dtype=torch.float64)


def _apply_matrices(x: Tensor, axes: Sequence[int], wavelet: str, *, synthesis: bool) -> Tensor:
    for axis in axes:
        matrix = _analysis_tensor(wavelet, x.shape[2 + axis]).to(device=x.device, dtype=x.dtype)
        x = F.linear(x.movedim(2 + axis, -1), matrix.T if synthesis else matrix).movedim(-1, 2 + axis)
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
