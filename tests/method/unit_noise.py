"""The noise by itself, as the layer adds it."""

import torch

from nnunetv2_lngswr.method.noise import LayerwiseNoise


def unit_noise(
    shape: tuple[int, ...], *, spectrum: str, generator: torch.Generator, **grid
) -> torch.Tensor:
    """What the layer adds to channels of standard deviation 1, (N, C, *spatial).

    `grid`: `scales` and `random_grid` of the layer.
    """
    layer = LayerwiseNoise(1.0, spectrum=spectrum, random_amplitude=False, **grid).train()
    layer._generator = generator
    return layer(torch.zeros(shape), torch.ones(shape[1]))
