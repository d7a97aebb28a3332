"""Layer-wise noise: zero-mean noise added to a feature map while training (arXiv 2511.16162).

    x <- x + sigma * sd(x) * n

x is (N, C, *spatial); sd(x) is the standard deviation of each channel over batch and space (no
gradient); n has mean 0 and variance 1 at every voxel; sigma is drawn per sample from
U(0, sigma_max), or is sigma_max itself. n is made of uniform variates: on CPU these take a third of
the time of normal ones, whose generation is serial and was half of what LNG-SWR cost.

Two spectra. ``white``: independent voxels. ``multiscale``: the sum of white noise at strides 1, 2,
4 and 8, or at those of `scales`, nearest-upsampled and normalised, so that energy falls into the
low band too, which the reconstruction keeps. Its blocks begin at the first voxel, or, with a random
grid, at a place of each sample's own, drawn at every step.

Randomness. Eager code draws from a generator of this module's own, which `LayerwiseNoise.seed`
sets, so that noise never disturbs the stream that augmentation draws from. A ``torch.Generator``
argument breaks fullgraph compilation: code compiled by torch.compile draws from the device's
default stream instead, to be seeded per rank.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor, nn

from nnunetv2_lngswr.method.bands import SPECTRA
from nnunetv2_lngswr.method.chunks import chunks
from nnunetv2_lngswr.method.scales import Scales
from nnunetv2_lngswr.method.upsampling import add_broadcast, add_upsampled, upsampled
from nnunetv2_lngswr.method.wavelet import analysis_matrix

MULTISCALE_STRIDES = (1, 2, 4, 8)
FILTER_WINDOW = 256
"""Taps; more than any wavelet's filter has."""
_SD_INT8 = ((2**16 - 1) / 12) ** 0.5  # of the 2**8 equally likely values, in steps


class LayerwiseNoise(nn.Module):
    """Adds noise in train mode; the identity in eval mode and for `sigma_max` 0.

    Has no parameters, and nothing in the state dict. The buffer `strength`, in [0, 1], scales all
    amplitudes.

    Parameters
    ----------
    sigma_max
        Largest amplitude, in standard deviations of the channel.
    spectrum
        "white" or "multiscale".
    random_amplitude
        Draw sigma per sample from U(0, sigma_max) rather than using sigma_max.
    scales
        Strides of the multiscale noise per scale and axis, see `scales`; None: 1, 2, 4 and 8 along
        every axis.
    random_grid
        Draw per sample where the blocks of the multiscale noise begin.

    Raises
    ------
    ValueError
        Negative `sigma_max` or unknown `spectrum`.
    """

    strength: Tensor

    def __init__(
        self,
        sigma_max: float,
        *,
        spectrum: str = "multiscale",
        random_amplitude: bool = True,
        scales: Scales | None = None,
        random_grid: bool = False,
    ):
        super().__init__()
        if not sigma_max >= 0:
            raise ValueError(f"sigma_max must be >= 0, got {sigma_max}")
        if spectrum not in SPECTRA:
            raise ValueError(f"spectrum must be one of {', '.join(SPECTRA)}, got {spectrum!r}")
        self.sigma_max = float(sigma_max)
        self.spectrum = spectrum
        self.random_amplitude = random_amplitude
        self.scales = scales
        self.random_grid = random_grid
        # a tensor: compiled code is not compiled anew when it changes
        self.register_buffer("strength", torch.ones(()), persistent=False)
        self._seed = secrets.randbits(63)
        self._generator: torch.Generator | None = None  # made on the first input's device

    @property
    def nominal_sigma(self) -> float:
        """Root mean square of sigma: sigma_max, or sigma_max / sqrt(3) when it is drawn."""
        return self.sigma_max / 3**0.5 if self.random_amplitude else self.sigma_max

    def seed(self, seed: int) -> None:
        """Restart the noise from `seed`, 63 bits: one for each layer, rank and epoch."""
        self._seed = seed
        self._generator = None

    def forward(self, x: Tensor, sd: Tensor | None = None) -> Tensor:
        """x with noise.

        Parameters
        ----------
        x
            (N, C, *spatial).
        sd
            (C,), the channels' standard deviation, if already known.

        Returns
        -------
        (N, C, *spatial); in eval mode x itself
        """
        if not self.training or self.sigma_max == 0:
            return x
        if sd is None:
            sd = channel_sd(x)
        ones = [1] * (x.ndim - 2)
        amplitude = (sd * self.strength).view(1, -1, *ones) * self.sigma_max
        compiled = torch.compiler.is_compiling()
        generator = None if compiled else self._generator_on(x.device)
        if self.random_amplitude:
            amplitude = amplitude * _rand(
                (x.shape[0], 1, *ones), generator, device=x.device, dtype=amplitude.dtype
            )
        amplitude = amplitude.expand(*x.shape[:2], *ones)
        scales = _scales(self.spectrum, len(ones), self.scales)
        shifts = None
        if self.random_grid and len(scales) > 1:
            bits = (x.shape[0], len(scales) - 1, len(ones), 1, *ones)
            shifts = _rand(bits, generator, device=x.device) < 0.5
        if not compiled:
            return _AddNoise.apply(x, amplitude, scales, shifts, generator)
        kind = {"dtype": x.dtype, "device": x.device, "generator": None}
        return x + _noise(x.shape, amplitude, shifts, scales=scales, **kind)

    def _generator_on(self, device: torch.device) -> torch.Generator:
        if self._generator is None or self._generator.device != device:
            self._generator = torch.Generator(device).manual_seed(self._seed)
        return self._generator

    def extra_repr(self) -> str:
        return (
            f"sigma_max={self.sigma_max}, spectrum={self.spectrum!r}, "
            f"random_amplitude={self.random_amplitude}, scales={self.scales}, "
            f"random_grid={self.random_grid}"
        )


class _AddNoise(torch.autograd.Function):
    """x + noise of eager code, chunk by chunk: most of the time went into fresh memory for what is
    made on the way."""

    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        amplitude: Tensor,
        scales: Scales,
        shifts: Tensor | None,
        generator: torch.Generator,
    ) -> Tensor:
        result = torch.empty_like(x)
        draw = partial(_noise, scales=scales, dtype=x.dtype, device=x.device, generator=generator)
        for chunk in chunks(x):
            of, out = x[chunk], result[chunk]
            shifted = None if shifts is None else shifts[chunk[0]]
            torch.add(of, draw(of.shape, amplitude[chunk], shifted, out=out), out=out)
        return result

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad, None, None, None, None


def channel_sd(x: Tensor) -> Tensor:
    """Standard deviation of each channel over batch and space, without gradient.

    Parameters
    ----------
    x
        (N, C, *spatial).

    Returns
    -------
    (C,), fp32 or better
    """
    x = x.detach()
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    dims = (0, *range(2, x.ndim))
    # two passes by hand: Tensor.var over several axes is ten times slower on CPU
    return (x - x.mean(dims, keepdim=True)).square_().mean(dims).sqrt()


def noise_band_energy(
    spectrum: str,
    wavelet: str,
    n_axes: int,
    *,
    scales: Scales | None = None,
    random_grid: bool = False,
) -> np.ndarray:
    """Closed form of unit noise's energy per coefficient in each band.

    White noise stays white under an orthonormal transform: 1 in every band. Noise of stride s has
    along one axis the covariance 1[floor(i/s) = floor(j/s)], and over several axes the product of
    these; so its energies are products of one-axis energies, the mean over the band's filters h of
    sum_ij h_i h_j 1[floor(i/s) = floor(j/s)]. With a random grid it is the expectation over the
    places where the blocks begin, which the axes have each for itself.

    Parameters
    ----------
    spectrum, wavelet
        Of the noise and of the transform.
    n_axes
        How many axes are transformed.
    scales
        Of the multiscale noise, along the transformed axes; None: strides 1, 2, 4 and 8.
    random_grid
        Whether the blocks begin anywhere.

    Returns
    -------
    (2**n_axes,), ordered as `bands.subbands`
    """
    scales = _scales(spectrum, n_axes, scales)
    energies = np.zeros(2**n_axes)
    for strides in scales:
        all_axes = np.ones(1)
        for stride in strides:
            all_axes = np.kron(all_axes, _one_axis_energy(wavelet, stride, random_grid))
        energies += all_axes / len(scales)
    return energies


@cache
def _one_axis_energy(wavelet: str, stride: int, random_grid: bool) -> tuple[float, float]:
    """Energy of noise of one stride in the low and in the high band of one axis.

    A band's filters are one filter, moved by even numbers of voxels; all these places relative to
    the blocks are equally frequent, and with a random grid so are the odd ones.
    """
    matrix = analysis_matrix(wavelet, FILTER_WINDOW)
    energies = []
    for first in (0, FILTER_WINDOW // 2):
        taps = matrix[first + FILTER_WINDOW // 4]  # from the middle: in one piece
        sums = []
        for place in range(0, stride, 1 if random_grid else 2):
            tail = -(place + FILTER_WINDOW) % stride
            blocks = np.pad(taps, (place, tail)).reshape(-1, stride).sum(-1)
            sums.append(np.square(blocks).sum())
        energies.append(float(np.mean(sums)))
    return energies[0], energies[1]


def _scales(spectrum: str, n_axes: int, scales: Scales | None) -> Scales:
    """What the spectrum is made of: `scales` and their default are of the multiscale one."""
    if spectrum == "white":
        return ((1,) * n_axes,)
    return scales or tuple((stride,) * n_axes for stride in MULTISCALE_STRIDES)


def _noise(
    shape,
    amplitude: Tensor,
    shifts: Tensor | None,
    *,
    scales: Scales,
    dtype,
    device,
    generator,
    out: Tensor | None = None,
) -> Tensor:
    """Noise of `shape` (N, C, *spatial), mean 0 and standard deviation `amplitude` (N, C, 1, ...).

    `shifts` (N, scales - 1, axes, 1, 1, ...): whether a sample's blocks of the next coarser scale
    begin one block of this scale before the first; None: no. `out`: memory to make it in, if it
    fits.
    """
    draw = partial(_uniform, dtype=dtype, device=device, generator=generator)
    factors = [
        tuple(c // f for f, c in zip(fine, coarse)) for fine, coarse in zip(scales, scales[1:])
    ]
    sizes = [tuple(shape[2:])]
    for by in factors:
        sizes.append(_blocks(sizes[-1], by, shifted=shifts is not None))
    # coarse to fine
    noise, mean, sd = draw((*shape[:2], *sizes[-1]), out=None if factors else out)
    by_axis = [[None] * len(sizes[0])] * len(factors)
    if shifts is not None:
        by_axis = [scale.unbind(1) for scale in shifts.to(noise.dtype).unbind(1)]
    noise.sub_(len(sizes) * mean)  # of all scales at once, where it costs least
    for i, by in reversed(list(enumerate(factors))):
        # whole blocks, of which some are cut off
        whole = [-(-length // f) * f for length, f in zip(sizes[i], by)]
        fine = draw((*shape[:2], *whole), out=None if i else out)[0]
        if torch.compiler.is_compiling() and shifts is None:
            add_broadcast(fine, noise, by)
        elif torch.compiler.is_compiling():
            fine = fine + upsampled(noise, whole, by, by_axis[i])
        else:
            add_upsampled(fine, noise, by, by_axis[i])
        noise = _crop(fine, sizes[i])
    sd *= len(sizes) ** 0.5
    # before the cast, which rounds; under autocast on a GPU all of it is fp16 already
    return noise.mul_((amplitude / sd).to(noise.dtype)).to(dtype)


def _blocks(lengths: Sequence[int], by: Sequence[int], *, shifted: bool) -> tuple[int, ...]:
    """How many blocks of `by` (1 or 2) voxels cover each axis; one more where they may be shifted,
    since the last one then begins within."""
    return tuple(
        length if f == 1 else (length + 1) // 2 + shifted for length, f in zip(lengths, by)
    )


def _rand(shape, generator: torch.Generator | None, **options) -> Tensor:
    """torch.rand, which knows no batch size that is open while it compiles beside a generator, not
    even beside None."""
    if generator is None:
        return torch.rand(shape, **options)
    return torch.rand(shape, generator=generator, **options)


def _uniform(
    shape, *, dtype, device, generator, out: Tensor | None = None
) -> tuple[Tensor, float, float]:
    """Independent uniform variates, their mean and their standard deviation; in `out` where shape,
    type and layout are what is needed."""
    if device.type != "cpu" or torch.compiler.is_compiling():
        variates = _rand(shape, generator, dtype=dtype, device=device).sub_(0.5)
        return variates, 0.0, 12**-0.5
    # drawing is serial: eight 8-bit variates from each 64-bit draw; -128 ... 127 has the mean -0.5
    n = math.prod(shape)
    draws = torch.empty(-(-n // 8), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    draws = draws.view(torch.int8)[:n].view(shape)
    if out is None or out.shape != shape or out.dtype != torch.float32 or not out.is_contiguous():
        return draws.float(), -0.5, _SD_INT8
    return out.copy_(draws), -0.5, _SD_INT8


def _crop(x: Tensor, spatial: tuple[int, ...]) -> Tensor:
    return x[(..., *(slice(length) for length in spatial))]
