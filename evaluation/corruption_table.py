"""The corruptions by name: their five strengths and what they need.

Imports no torch, so that a misspelt name is refused at once; what each does is in corruptions.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from nnunetv2_lngswr.utils.names import lookup

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """What a corruption is called, how strong it is and where it applies."""

    name: str
    """As users write it."""
    strengths: tuple[float, ...]
    """One per severity, in `unit`."""
    unit: str
    """Of the strengths."""
    needs: str = ""
    """'ct', 'not_ct', '2d', or '' for every data set."""


def _table(*corruptions: Corruption) -> dict[str, Corruption]:
    return {c.name: c for c in corruptions}


CORRUPTIONS: dict[str, Corruption] = _table(
    Corruption(
        name="gaussian_noise", strengths=(0.02, 0.04, 0.08, 0.12, 0.18), unit="sd, of the range"
    ),
    Corruption(
        name="rician_noise",
        strengths=(0.02, 0.04, 0.08, 0.12, 0.18),
        unit="sd, of the range",
        needs="not_ct",
    ),
    Corruption(
        name="speckle",
        strengths=(0.1, 0.2, 0.3, 0.45, 0.6),
        unit="sd, of the intensity",
        needs="not_ct",
    ),
    Corruption(name="gaussian_blur", strengths=(0.5, 1.0, 1.5, 2.0, 3.0), unit="sigma, voxels"),
    Corruption(
        name="motion_blur",
        strengths=(3, 5, 7, 11, 15),
        unit="path, voxels, in the plane of the last two axes",
    ),
    Corruption(
        name="low_resolution", strengths=(1.5, 2.0, 3.0, 4.0, 6.0), unit="factor of voxel size"
    ),
    Corruption(
        name="contrast", strengths=(0.15, 0.3, 0.45, 0.6, 0.75), unit="contrast lost, fraction"
    ),
    Corruption(name="gamma", strengths=(1.2, 1.5, 1.9, 2.4, 3.0), unit="gamma or its inverse"),
    Corruption(
        name="bias_field", strengths=(0.1, 0.2, 0.35, 0.5, 0.7), unit="largest |log| of the field"
    ),
    Corruption(
        name="brightness", strengths=(0.05, 0.1, 0.15, 0.2, 0.3), unit="up or down, of the range"
    ),
    Corruption(name="jpeg", strengths=(50, 30, 20, 12, 6), unit="JPEG quality", needs="2d"),
    Corruption(
        name="hu_offset", strengths=(10, 20, 40, 70, 100), unit="HU, up or down", needs="ct"
    ),
    Corruption(
        name="hu_scale",
        strengths=(0.02, 0.04, 0.07, 0.11, 0.16),
        unit="relative, up or down",
        needs="ct",
    ),
    Corruption(
        name="occlusion", strengths=(0.1, 0.15, 0.2, 0.3, 0.4), unit="of each axis, one dark box"
    ),
)


def corruption_names() -> tuple[str, ...]:
    """In the order of the report."""
    return tuple(CORRUPTIONS)


def get_corruption(name: str) -> Corruption:
    """The corruption of this name.

    Raises
    ------
    UserError
        There is none; the text has the nearest names.
    """
    return lookup(CORRUPTIONS, name, "corruption")


def inapplicable(*, ct: bool, two_dimensional: bool) -> dict[str, str]:
    """{corruption: why it does not apply} for a data set.

    Parameters
    ----------
    ct
        Every channel is normalised as CT, so files hold HU.
    two_dimensional
        A 2D configuration, which sees slices.
    """
    reasons = {}
    if ct:
        reasons["not_ct"] = "does not occur in CT"
    else:
        reasons["ct"] = "needs CT (CTNormalization in the plans), where files hold HU"
    if not two_dimensional:
        reasons["2d"] = "needs a 2D configuration"
    return {c.name: reasons[c.needs] for c in CORRUPTIONS.values() if c.needs in reasons}
