"""The multiscale noise as it was before its strides and its grid became settings, step by step."""

import math

import numpy as np
import torch

from nnunetv2_lngswr.method.chunks import chunks
from nnunetv2_lngswr.method.wavelet import analysis_matrix

STRIDES = (1, 2, 4, 8)


def noisy_before(x: torch.Tensor, sd: torch.Tensor, sigma: float, seed: int) -> torch.Tensor:
    """x (N, C, *spatial) with the noise that eager code on a CPU added to it after `seed`."""
    generator = torch.Generator().manual_seed(seed)
    ones = [1] * (x.ndim - 2)
    amplitude = sd.view(1, -1, *ones) * sigma
    amplitude = amplitude * torch.rand((x.shape[0], 1, *ones), generator=generator)
    result = torch.empty_like(x)
    for chunk in chunks(x):
        part = x[chunk]
        sizes = [tuple(part.shape[2:])]
        for _ in STRIDES[1:]:
            sizes.append(tuple((length + 1) // 2 for length in sizes[-1]))
        noise = _draw((*part.shape[:2], *sizes[-1]), generator) + 0.5 * len(STRIDES)
        for size, coarse in zip(sizes[-2::-1], sizes[:0:-1]):
            noise = upsampled_by_two(noise, range(len(ones)))
            noise = _draw((*part.shape[:2], *(2 * n for n in coarse)), generator) + noise
            noise = noise[(..., *map(slice, size))]
        sd_of_sum = ((2**16 - 1) / 12) ** 0.5 * len(STRIDES) ** 0.5
        result[chunk] = part + noise * (amplitude[chunk] / sd_of_sum)
    return result


def upsampled_by_two(x: torch.Tensor, axes) -> torch.Tensor:
    """x (N, C, *spatial), every voxel twice along `axes`."""
    for axis in axes:
        x = x.repeat_interleave(2, 2 + axis)
    return x


def band_energy_before(spectrum: str, wavelet: str, n_axes: int) -> np.ndarray:
    """Energy per band, by the matrix of the whole transform."""
    strides = STRIDES if spectrum == "multiscale" else (1,)
    length = 8 * max(strides) * 4
    low, high = analysis_matrix(wavelet, length).reshape(2, length // 2, length)
    energies = np.zeros(2**n_axes)
    for stride in strides:
        one_axis = [
            np.square(h.reshape(len(h), -1, stride).sum(-1)).sum(-1).mean() for h in (low, high)
        ]
        all_axes = np.ones(1)
        for _ in range(n_axes):
            all_axes = np.kron(all_axes, one_axis)
        energies += all_axes / len(strides)
    return energies


def _draw(shape, generator: torch.Generator) -> torch.Tensor:
    """Eight 8-bit variates from each 64-bit draw."""
    n = math.prod(shape)
    draws = torch.empty(-(-n // 8), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    return draws.view(torch.int8)[:n].view(shape).float()
