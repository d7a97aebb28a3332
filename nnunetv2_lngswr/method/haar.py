"""The Haar transform as a product on blocks: weigh its bands, or measure them, without making them.

With signs alone, the bands of 2 x ... x 2 samples are their sums and differences, and "transform,
weight each band, transform back" is a symmetric map of each block onto itself. Features are tensors
(N, C, *spatial) whose transformed axes have even lengths.

Along all axes but the last one samples are combined whole rows at a time: x is taken apart into its
phases (`_phases`, views), whose sums and differences (`_butterflies`) are the bands along these
axes. Along the last axis neighbours lie beside each other in memory: there a sample and its partner
in the block are combined by shifting the row, which is far faster than picking every second sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nnunetv2_lngswr.method.chunks import chunks

INVERTIBLE = 0.01
"""Gains from here on can be divided by: what rounding (to fp16, too) does to a value is lost in the
sums over a feature map."""


def apply_gains(
    x: Tensor, gains: Tensor, axes: tuple[int, ...], *, least_gain: float, in_place: bool
) -> Tensor:
    """`wavelet.apply_gains` for Haar, even lengths and sorted axes."""
    if torch.compiler.is_compiling():
        return _pointwise(x, gains, axes)
    if torch.is_grad_enabled() and (x.requires_grad or gains.requires_grad):
        keeps_result = least_gain >= INVERTIBLE and x.dtype != torch.bfloat16
        keeps_x = gains.requires_grad and not keeps_result
        return _ApplyGains.apply(x, gains, axes, keeps_result, in_place and not keeps_x)
    return _by_chunk(x, gains, axes, out=x if in_place else torch.empty_like(x))


def band_energy(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """`wavelet.band_energy` for Haar, even lengths and sorted axes."""
    # where a band holds nothing, differences of sums of squares may round to below 0
    return _products(x, x, axes).clamp_min(0) * (2 ** len(axes) * x.shape[1] / x.numel())


class _ApplyGains(torch.autograd.Function):
    """`apply_gains` of eager code, chunk by chunk."""

    @staticmethod
    def forward(
        ctx, x: Tensor, gains: Tensor, axes: tuple[int, ...], keeps_result: bool, in_place: bool
    ) -> Tensor:
        y = _by_chunk(x, gains, axes, out=x if in_place else torch.empty_like(x))
        if in_place:
            ctx.mark_dirty(x)
        kept = None
        if ctx.needs_input_grad[1]:
            kept = y if keeps_result else x
        ctx.save_for_backward(kept, gains)
        ctx.axes, ctx.keeps_result = axes, keeps_result
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        kept, gains = ctx.saved_tensors
        needs_x, needs_gains = ctx.needs_input_grad[:2]
        grad_x = grad_gains = None
        together = needs_x and needs_gains and grad.dtype in (torch.float32, torch.float64)
        if together:
            grad_gains = torch.zeros_like(gains, dtype=grad.dtype)
        elif needs_gains:
            grad_gains = _products(kept, grad, ctx.axes)
        if needs_x:
            # a symmetric map: its transpose is itself
            products = {"other": kept, "products": grad_gains} if together else {}
            grad_x = _by_chunk(grad, gains, ctx.axes, out=torch.empty_like(grad), **products)
        if grad_gains is not None:
            grad_gains = grad_gains.to(gains.dtype)
            if ctx.keeps_result:  # whose bands are those of x times the gains
                grad_gains /= gains
        return grad_x, grad_gains, None, None, None


def _by_chunk(
    x: Tensor,
    gains: Tensor,
    axes: tuple[int, ...],
    out: Tensor,
    *,
    other: Tensor | None = None,
    products: Tensor | None = None,
) -> Tensor:
    """x + iDWT((gains - 1) * DWT(x)): as a correction, unit gains change nothing. `out` may be x.

    To `products` (C, B), if given, the inner product of each band of x with that of `other` is
    added, while x is at hand.
    """
    rows, along_last = _split_axes(x, axes)
    own, right, left = _correction_weights(x, gains, len(rows), along_last)
    for chunk in chunks(x):
        channels = chunk[1]
        phases = _phases(x[chunk], rows)
        bands = _butterflies(phases)
        if products is not None:
            assert other is not None
            bands_of_other = _butterflies(_phases(other[chunk], rows))
            products[channels] += _products_of_bands(bands, bands_of_other, along_last)
        corrections = []
        for band, of in enumerate(bands):
            correction = of * own[band][channels]
            if along_last:
                correction[..., :-1].addcmul_(of[..., 1:], right[band][channels])
                correction[..., 1:].addcmul_(of[..., :-1], left[band][channels])
            corrections.append(correction)
        results = _phases(out[chunk], rows)
        for phase, correction, result in zip(phases, _butterflies(corrections), results):
            torch.add(phase, correction, out=result)
    return out


def _correction_weights(
    x: Tensor, gains: Tensor, n_rows: int, along_last: bool
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Per band of the rows' axes, per channel: what a sample takes from itself (C, 1, ..., 1), and
    along the last axis from its right and from its left neighbour (C, 1, ..., W - 1)."""
    weights = ((gains - 1) / 2**n_rows).unflatten(1, (2**n_rows, -1))
    first, last = weights[..., 0], weights[..., -1]
    shape = (-1, *[1] * (x.ndim - 2))
    own = [w.to(x.dtype).view(shape) for w in ((first + last) / 2).unbind(1)]
    if not along_last:
        return own, [], []
    is_first = torch.arange(x.shape[-1], device=x.device) % 2 == 0
    partner = [w.to(x.dtype).view(shape) for w in ((first - last) / 2).unbind(1)]
    # rows of weights rather than masks and weights: elementwise operations are vectorised over
    # equal layouts only
    right = [(w * is_first).contiguous()[..., :-1] for w in partner]
    left = [(w * ~is_first).contiguous()[..., 1:] for w in partner]
    return own, right, left


def _products(x: Tensor, y: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Inner product of each band of x with that of y, per channel: (C, B), in fp32 or better."""
    kind = torch.promote_types(x.dtype, torch.float32)
    rows, along_last = _split_axes(x, axes)
    result = x.new_zeros(x.shape[1], 2 ** len(axes), dtype=kind)
    for chunk in chunks(x):
        of_x = _butterflies(_phases(x[chunk].to(kind), rows))  # sums of squares overflow fp16
        of_y = of_x if x is y else _butterflies(_phases(y[chunk].to(kind), rows))
        result[chunk[1]] += _products_of_bands(of_x, of_y, along_last)
    return result


def _products_of_bands(x: Sequence[Tensor], y: Sequence[Tensor], along_last: bool) -> Tensor:
    """From the (unscaled) bands along all axes but the last one: the inner products of all bands,
    per channel, (C, B)."""
    dims = (0, *range(2, x[0].ndim))
    result = []
    for of_x, of_y in zip(x, y):
        own = (of_x * of_y).sum(dims)
        if not along_last:
            result.append(own)
            continue
        if torch.compiler.is_compiling():
            crossed = of_x[..., ::2] * of_y[..., 1::2] + of_x[..., 1::2] * of_y[..., ::2]
            crossed = crossed.sum(dims)
        else:
            # a b + c d is the imaginary part of (a + i c)(d + i b): half the time of two products
            # of every second sample
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
    if not viewable:
        pairs = pairs.clone(memory_format=torch.contiguous_format)
    return torch.view_as_complex(pairs)


def _pointwise(x: Tensor, gains: Tensor, axes: tuple[int, ...]) -> Tensor:
    """`apply_gains` for torch.compile, which makes one kernel of it."""
    weights = ((gains - 1) / 2 ** len(axes)).to(x.dtype).unsqueeze(0)
    phases = _phases(x, axes)
    bands = _butterflies(phases)
    corrections = _butterflies(
        [b * weights[..., i].view(1, -1, *[1] * (x.ndim - 2)) for i, b in enumerate(bands)]
    )
    parts = [phase + correction for phase, correction in zip(phases, corrections)]
    for axis in reversed(axes):
        pairs = zip(parts[::2], parts[1::2])
        parts = [torch.stack(pair, dim=3 + axis).flatten(2 + axis, 3 + axis) for pair in pairs]
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
    """Walsh-Hadamard transform of a list of 2**k tensors: phases to (unscaled) bands, and back."""
    parts, step = list(parts), 1
    while step < len(parts):
        for i in range(len(parts)):
            if not i & step:
                parts[i], parts[i | step] = parts[i] + parts[i | step], parts[i] - parts[i | step]
        step *= 2
    return parts
