"""Which feature maps are reconstructed, and along which axes. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from nnunetv2_lngswr.method.config import LNGSWRConfig


def wavelet_axes(strides: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Spatial axes that are transformed: those along which a feature map is pooled next.

    Parameters
    ----------
    strides
        Of each stage, one number per spatial axis.

    Returns
    -------
    list of tuple
        Of the image, then of each stage; the bottleneck's are those of its own strides.
    """
    pooled = [tuple(a for a, stride in enumerate(s) if stride > 1) for s in strides]
    last = len(pooled) - 1
    return [pooled[min(s, last)] for s in (1, *range(1, len(pooled) + 1))]


def reconstructs(config: LNGSWRConfig, stage: int, last: int) -> bool:
    """Whether the output of a stage is reconstructed, where it has axes."""
    if not config.reconstruction:
        return False
    if stage == last:
        return config.reconstruct_bottleneck
    return config.reconstruct_stages and stage >= config.reconstruct_from_stage


def check_gains(config: LNGSWRConfig, strides: Sequence[Sequence[int]]) -> None:
    """Refuse gains that are not for as many axes as the network pools.

    Raises
    ------
    ValueError
        As `LNGSWRConfig.band_gains`, for a feature map that is reconstructed.
    """
    image, *stages = wavelet_axes(strides)
    places = [image] if config.reconstruction and config.reconstruct_input else []
    last = len(stages) - 1
    places += [axes for s, axes in enumerate(stages) if reconstructs(config, s, last)]
    for axes in places:
        if axes:
            config.band_gains(len(axes))
