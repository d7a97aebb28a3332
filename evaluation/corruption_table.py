"""The corruptions by name: their five strengths and what they need.

Imports no torch, so that a misspelt name is refused at once; what each does is in corruptions.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec

from nnunetv2_lngswr.utils.names import lookup

SEVERITIES = (1, 2, 3, 4, 5)
MR_EXTRA = "pip install 'nnunetv2_lngswr[mr]'"
_MR_CHANNEL = re.compile(
    r"(mp)?mri?|t[12]\w*|flair|pdw?|adc|dwi|swi|lge|bssfp|mprage|tof", re.IGNORECASE
)


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
    """'ct', 'not_ct', '2d', 'mr', or '' for every data set."""
    package: str = ""
    """What must be installed besides."""
    affine: bool = False
    """Intensities change by one affine map, and next to none of them is clipped: normalisation in
    the network, as nnU-Net's instance normalisation, undoes that. Brightness is not of these: it
    moves up to nine tenths of a skewed image to an end of its range."""


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
        name="contrast",
        strengths=(0.15, 0.3, 0.45, 0.6, 0.75),
        unit="contrast lost, fraction",
        affine=True,
    ),
    Corruption(name="gamma", strengths=(1.2, 1.5, 1.9, 2.4, 3.0), unit="gamma or its inverse"),
    Corruption(
        name="bias_field", strengths=(0.1, 0.2, 0.35, 0.5, 0.7), unit="largest |log| of the field"
    ),
    Corruption(
        name="brightness",
        strengths=(0.05, 0.1, 0.15, 0.2, 0.3),
        unit="up or down, of the range",
    ),
    Corruption(name="jpeg", strengths=(50, 30, 20, 12, 6), unit="JPEG quality", needs="2d"),
    Corruption(
        name="hu_offset",
        strengths=(10, 20, 40, 70, 100),
        unit="HU, up or down",
        needs="ct",
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
    # the third of these costs what the others cost at severity 3: benchmarks/mr_calibration.py
    Corruption(
        name="gibbs_ringing",
        strengths=(0.6, 0.7, 0.775, 0.82, 0.86),
        unit="of k-space's radius that is lost",
        needs="mr",
    ),
    Corruption(
        name="kspace_spike",
        strengths=(0.04, 0.06, 0.08, 0.11, 0.15),
        unit="amplitude of the stripes, of the range",
        needs="mr",
    ),
    Corruption(
        name="mr_motion",
        strengths=(0.5, 0.9, 1.4, 2.0, 3.0),
        unit="degrees and voxels, at most, of two movements",
        needs="mr",
        package="torchio",
    ),
    Corruption(
        name="mr_ghosting",
        strengths=(0.4, 0.6, 0.75, 0.9, 1.0),
        unit="of every n-th line of k-space that is lost",
        needs="mr",
        package="torchio",
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


def is_affine(name: str) -> bool:
    """Whether a corruption of this name is; one that is known no more is not."""
    return name in CORRUPTIONS and CORRUPTIONS[name].affine


def is_mr(channel_names: Iterable[str]) -> bool:
    """Whether every channel is named after MR: 'MR', 'T1w', 'FLAIR', ... in dataset.json."""
    names = [re.split(r"[^0-9a-zA-Z]+", str(name)) for name in channel_names]
    return bool(names) and all(any(map(_MR_CHANNEL.fullmatch, words)) for words in names)


def inapplicable_of_mr(*, mr: bool) -> dict[str, str]:
    """{corruption of MR alone: why it does not apply}; where channels are MR, what needs a package.

    Parameters
    ----------
    mr
        Every channel is MR, see `is_mr`.
    """
    own = [c for c in CORRUPTIONS.values() if c.needs == "mr"]
    if not mr:
        return {c.name: "needs MR (channel_names of dataset.json)" for c in own}
    missing = [c for c in own if c.package and find_spec(c.package) is None]
    return {c.name: f"needs {c.package}: {MR_EXTRA}" for c in missing}


def inapplicable(*, ct: bool, two_dimensional: bool) -> dict[str, str]:
    """{corruption: why it does not apply} for a data set, but for those of MR alone.

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
