"""One-level orthonormal wavelet transform along any subset of a feature map's spatial axes.

Features are tensors ``x`` of shape (N, C, *spatial), spatial rank 2 or 3 (any rank works). Of k transformed axes come
2**k sub-bands of half the size; their order is fixed here, once, by :func:`subbands`. Odd lengths are edge-padded by
one sample and cropped after synthesis, as PyWavelets' ``periodization`` mode does.

Haar needs no filters: with signs alone, its bands are sums and differences of the samples of a 2 x ... x 2 block, and "transform,
weight each band, transform back" (:func:`apply_gains`) is a symmetric map of each block onto itself. Every other orthogonal wavelet of
PyWavelets goes through its own filters, as one orthonormal matrix per axis length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product

import numpy as np
import pywt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

HAAR = "haar"
CHUNK_ELEMENTS = 2**19  # values, of which a handful are held at once
# gains from here on can be divided by: what rounding (to fp16, too) does to a value is lost in the sums over a feature map
INVERTIBLE = 0.01


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


def compose(
    bands: Tensor, axes: Sequence[int], spatial: Sequence[int], wavelet: str = HAAR
) -> Tensor:
    """Synthesis, the inverse of :func:`decompose`. `spatial` is the shape to crop to, that of the decomposed x."""
    if wavelet != HAAR:
        x = _apply_matrices(_join_halves(bands, axes), axes, wavelet, synthesis=True)
    else:
        blocks = (_haar_matrix(len(axes), bands).mT @ bands.flatten(3)).view(bands.shape)
        x = _from_blocks(blocks, axes)
    return _crop(x, spatial)


def apply_gains(
    x: Tensor,
    gains: Tensor,
    axes: Sequence[int],
    wavelet: str = HAAR,
    *,
    least_gain: float = 0.0,
    in_place: bool = False,
) -> Tensor:
    """iDWT(gains * DWT(x)) along `axes`: x (N, C, *spatial), gains (C, B) in the order of :func:`subbands`.

    Gains of 1 are the identity to the last bit in every precision. Of Haar nothing but x is kept for backward, which is once
    differentiable, and x for the gradient of the gains only. `least_gain`: what no gain is below; where one can divide by it, the
    result, which the next layer keeps too, is kept instead of x. `in_place`: x may be overwritten; where it is kept, it is not.
    """
    if not axes:
        return x
    spatial = x.shape[2:]
    if wavelet != HAAR:
        bands = decompose(x, axes, wavelet)
        weights = gains.to(bands.dtype).view(1, *gains.shape, *[1] * len(spatial))
        return compose(bands * weights, axes, spatial, wavelet)
    axes = tuple(sorted(axes))
    x = _pad_to_even(x, axes)
    if torch.compiler.is_compiling():
        y = _haar_pointwise(x, gains, axes)
    elif torch.is_grad_enabled() and (x.requires_grad or gains.requires_grad):
        keeps_result = least_gain >= INVERTIBLE and x.dtype != torch.bfloat16
        keeps_x = gains.requires_grad and not keeps_result
        y = _HaarGains.apply(x, gains, axes, keeps_result, in_place and not keeps_x)
    else:
        y = _haar_by_piece(x, gains, axes, out=x if in_place else torch.empty_like(x))
    return _crop(y, spatial)


def band_energy(x: Tensor, axes: Sequence[int], wavelet: str = HAAR) -> Tensor:
    """Mean square of the coefficients of each band: x (N, C, *spatial) -> (C, B), in fp32 or better."""
    if wavelet == HAAR and axes:
        axes = tuple(sorted(axes))
        x = _pad_to_even(x, axes)
        # where a band holds nothing, differences of sums of squares may round to below 0
        return _haar_products(x, x, axes).clamp_min(0) * (2 ** len(axes) * x.shape[1] / x.numel())
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    with _without_autocast(x):  # sums of squares overflow fp16
        bands = decompose(x, axes, wavelet) if axes else x.unsqueeze(2)
        return bands.square().mean(dim=(0, *range(3, bands.ndim)))


# --- Haar ---------------------------------------------------------------------------------------------------------------------------
#
# Along all axes but the last one samples are combined whole rows at a time: x is taken apart into its phases (`_phases`, views), whose sums and
# differences (`_butterflies`) are the bands along these axes. Along the last axis neighbours lie beside each other in memory: there a
# sample and its partner in the block are combined by shifting the row, which is far faster than picking every second sample.


class _HaarGains(torch.autograd.Function):
    """`apply_gains` of eager code, piece by piece, so that what it makes on the way stays in the cache."""

    @staticmethod
    def forward(
        ctx, x: Tensor, gains: Tensor, axes: tuple[int, ...], keeps_result: bool, in_place: bool
    ) -> Tensor:
        y = _haar_by_piece(x, gains, axes, out=x if in_place else torch.empty_like(x))
        if in_place:
            ctx.mark_dirty(x)
        kept = (y if keeps_result else x) if ctx.needs_input_grad[1] else None
        ctx.save_for_backward(kept, gains)
        ctx.axes, ctx.keeps_result = axes, keeps_result
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        kept, gains = ctx.saved_tensors
        grad_x = grad_gains = None
        together = all(ctx.needs_input_grad[:2]) and grad.dtype in (torch.float32, torch.float64)
        if ctx.needs_input_grad[1]:
            grad_gains = (
                torch.zeros_like(gains, dtype=grad.dtype)
                if together
                else _haar_products(kept, grad, ctx.axes)
            )
        if ctx.needs_input_grad[0]:
            # a symmetric map: its transpose is itself
            products = {"other": kept, "products": grad_gains} if together else {}
            grad_x = _haar_by_piece(grad, gains, ctx.axes, out=torch.empty_like(grad), **products)
        if grad_gains is not None:
            grad_gains = grad_gains.to(gains.dtype)
            if ctx.keeps_result:  # whose bands are those of x times the gains
                grad_gains /= gains
        return grad_x, grad_gains, None, None, None


def _haar_by_piece(
    x: Tensor,
    gains: Tensor,
    axes: tuple[int, ...],
    out: Tensor,
    *,
    other: Tensor | None = None,
    products: Tensor | None = None,
) -> Tensor:
    """x + iDWT((gains - 1) * DWT(x)), even sizes: as a correction, unit gains change nothing. `out` may be x.

    To `products` (C, B), if given, the inner product of each band of x with that of `other` is added, while x is at hand.
    """
    rows, along_last = _split_axes(x, axes)
    # per band of the rows' axes (C, R): what a sample takes from itself and from its partner along the last axis
    weights = ((gains - 1) / 2 ** len(rows)).unflatten(1, (2 ** len(rows), -1))
    own, partner = (
        (weights[..., 0] + weights[..., -1]) / 2,
        (weights[..., 0] - weights[..., -1]) / 2,
    )
    shape = (-1, *[1] * (x.ndim - 2))
    own = [w.to(x.dtype).view(shape) for w in own.unbind(1)]
    right = left = []
    if along_last:
        first = torch.arange(x.shape[-1], device=x.device) % 2 == 0
        partner = [w.to(x.dtype).view(shape) for w in partner.unbind(1)]
        # rows of weights rather than masks and weights: elementwise operations are vectorised over equal layouts only
        right = [(w * first).contiguous()[..., :-1] for w in partner]
        left = [(w * ~first).contiguous()[..., 1:] for w in partner]
    for piece in chunks(x):
        phases = _phases(x[piece], rows)
        bands = _butterflies(phases)
        if products is not None:
            products[piece[1]] += _products(
                bands, _butterflies(_phases(other[piece], rows)), along_last
            )
        corrections = []
        for band, of in enumerate(bands):
            correction = of * own[band][piece[1]]
            if along_last:
                correction[..., :-1].addcmul_(of[..., 1:], right[band][piece[1]])
                correction[..., 1:].addcmul_(of[..., :-1], left[band][piece[1]])
            corrections.append(correction)
        for phase, correction, result in zip(
            phases, _butterflies(corrections), _phases(out[piece], rows)
        ):
            torch.add(phase, correction, out=result)
    return out


def _haar_products(x: Tensor, y: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Inner product of each band of x with that of y, per channel: (C, B), in fp32 or better. Even sizes."""
    kind = torch.promote_types(x.dtype, torch.float32)
    rows, along_last = _split_axes(x, axes)
    result = x.new_zeros(x.shape[1], 2 ** len(axes), dtype=kind)
    for piece in chunks(x):
        of_x = _butterflies(_phases(x[piece].to(kind), rows))  # sums of squares overflow fp16
        of_y = of_x if x is y else _butterflies(_phases(y[piece].to(kind), rows))
        result[piece[1]] += _products(of_x, of_y, along_last)
    return result


def _products(x: Sequence[Tensor], y: Sequence[Tensor], along_last: bool) -> Tensor:
    """Of the (unscaled) bands along all axes but the last one: the inner products of all bands, per channel, (C, B)."""
    dims = (0, *range(2, x[0].ndim))
    result = []
    for of_x, of_y in zip(x, y):
        own = (of_x * of_y).sum(dims)
        if not along_last:
            result.append(own)
            continue
        if torch.compiler.is_compiling():
            crossed = (of_x[..., ::2] * of_y[..., 1::2] + of_x[..., 1::2] * of_y[..., ::2]).sum(
                dims
            )
        else:  # a b + c d is the imaginary part of (a + i c)(d + i b): half the time of two products of every second sample
            crossed = (_as_pairs(of_x) * _as_pairs(of_y)).sum(dims).imag
        result += [(own + crossed) / 2, (own - crossed) / 2]
    return torch.stack(result, dim=1) / 2 ** (len(x).bit_length() - 1)


def _as_pairs(x: Tensor) -> Tensor:
    """Neighbours along the last axis as one complex number."""
    pairs = x.unflatten(-1, (-1, 2))
    viewable = (
        x.stride(-1) == 1
        and x.storage_offset() % 2 == 0
        and all(s % 2 == 0 for s in pairs.stride()[:-1])
    )
    return torch.view_as_complex(
        pairs if viewable else pairs.clone(memory_format=torch.contiguous_format)
    )


def chunks(x: Tensor) -> Iterator[tuple[slice, slice]]:
    """Samples and channels to work on at once: on a CPU, in eager code, as many as the cache holds; else all."""
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        yield slice(None), slice(None)
        return
    channels = max(1, min(x.shape[1], CHUNK_ELEMENTS // max(1, x[0, 0].numel())))
    samples = max(1, CHUNK_ELEMENTS // max(1, x[0].numel()))
    for n in range(0, x.shape[0], samples):
        for c in range(0, x.shape[1], channels):
            yield slice(n, n + samples), slice(c, c + channels)


def _haar_pointwise(x: Tensor, gains: Tensor, axes: tuple[int, ...]) -> Tensor:
    """`apply_gains` for torch.compile, which makes one kernel of it."""
    weights = ((gains - 1) / 2 ** len(axes)).to(x.dtype).unsqueeze(0)
    phases = _phases(x, axes)
    bands = _butterflies(phases)
    corrections = _butterflies(
        [b * weights[..., i].view(1, -1, *[1] * (x.ndim - 2)) for i, b in enumerate(bands)]
    )
    parts = [phase + correction for phase, correction in zip(phases, corrections)]
    for axis in reversed(axes):
        parts = [
            torch.stack(pair, dim=3 + axis).flatten(2 + axis, 3 + axis)
            for pair in zip(parts[::2], parts[1::2])
        ]
    return parts[0]


def _split_axes(x: Tensor, axes: tuple[int, ...]) -> tuple[tuple[int, ...], bool]:
    """The axes but the last one in memory order, and whether that is among them."""
    last = x.ndim - 3
    return tuple(a for a in axes if a != last), last in axes


def _phases(x: Tensor, axes: Sequence[int]) -> list[Tensor]:
    """The 2**len(axes) views of every second sample along `axes`; the last axis changes fastest."""
    parts = [x]
    for axis in axes:
        pairs = [p.unflatten(2 + axis, (p.shape[2 + axis] // 2, 2)) for p in parts]
        parts = [p.select(3 + axis, i) for p in pairs for i in (0, 1)]
    return parts


def _butterflies(parts: Sequence[Tensor]) -> list[Tensor]:
    """Walsh-Hadamard transform over a list of 2**k tensors: phases to (unscaled) bands, and back."""
    parts, step = list(parts), 1
    while step < len(parts):
        for i in range(len(parts)):
            if not i & step:
                parts[i], parts[i | step] = parts[i] + parts[i | step], parts[i] - parts[i | step]
        step *= 2
    return parts


@lru_cache(maxsize=256)
def analysis_matrix(wavelet: str, length: int) -> np.ndarray:
    """Orthonormal (length, length): PyWavelets' one-level periodized transform, low half above the high half."""
    low, high = pywt.dwt(np.eye(length), wavelet, mode="periodization", axis=0)
    return np.concatenate((low, high))


def _without_autocast(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)


def _haar_matrix(n_axes: int, like: Tensor) -> Tensor:
    """(B, B), orthonormal: rows are the bands, columns the samples of a block (row-major over the axes)."""
    n = 2**n_axes
    rows = [[(-1.0) ** bin(band & sample).count("1") for sample in range(n)] for band in range(n)]
    return torch.tensor(rows, dtype=like.dtype, device=like.device) * 2.0 ** (-n_axes / 2)


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
        x = F.linear(x.movedim(2 + axis, -1), matrix.T if synthesis else matrix).movedim(
            -1, 2 + axis
        )
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
