"""Names that settings share with the transform: wavelets, spectra, sub-bands. Imports no torch."""

from __future__ import annotations

from importlib import import_module
from itertools import product
from typing import Any

HAAR = "haar"
NOT_QUITE_ORTHOGONAL = ("dmey",)
"""That PyWavelets calls orthogonal; a test looks for others."""
SPECTRA = ("white", "multiscale")
"""Of the layer-wise noise, see `noise`."""


def check_wavelet(name: str) -> str:
    """Return `name` if it is a wavelet that the transform can use.

    Raises
    ------
    ValueError
        PyWavelets does not know it, or it is not orthogonal; the text says which would do.
    """
    if name == HAAR:
        return name
    # its names come from compiled code, where type checkers do not see them
    pywt: Any = import_module("pywt")
    if name not in pywt.wavelist(kind="discrete"):
        raise ValueError(
            "wavelet must be the name of an orthogonal PyWavelets wavelet (such as 'haar', 'db2', "
            f"'sym4', 'coif1'; see pywt.wavelist(kind='discrete')), got {name!r}"
        )
    if name in NOT_QUITE_ORTHOGONAL:
        raise ValueError(
            f"wavelet must be orthogonal, and the filters of {name!r} are only nearly so (a cut "
            "approximation): gains of 1 would not be the identity; use for instance 'haar', 'db2', "
            "'sym4' or 'coif1'"
        )
    if not pywt.Wavelet(name).orthogonal:
        raise ValueError(
            f"wavelet must be orthogonal, got {name!r}, which is "
            f"{pywt.Wavelet(name).family_name.lower()}; "
            "use for instance 'haar', 'db2', 'sym4' or 'coif1'"
        )
    return name


def subbands(n_axes: int) -> tuple[str, ...]:
    """Names of the sub-bands of `n_axes` transformed axes, in the order that every tensor has.

    Letter i says which filter ran along the i-th transformed axis: L low-pass, H high-pass. Two
    axes give ``('LL', 'LH', 'HL', 'HH')``, which PyWavelets' ``dwtn`` calls 'aa', 'ad', 'da', 'dd'.
    """
    return tuple("".join(letters) for letters in product("LH", repeat=n_axes))
