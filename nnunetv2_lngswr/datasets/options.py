"""What can be chosen in a conversion, with the defaults that the command line shows. Imports nothing heavy, so that `--help` answers at once."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nnunetv2_lngswr.utils.errors import UserError

FORMS = ("slices", "crops", "scans")
CONSENSUS = ("any", "majority", "all", "one")
VOTERS = ("scan", "nodule")
MASK_PATTERN = r"(.+)_mask(?:_\d+)?"
CROP_MM = 64.0
# of 256 bits; on 515 thyroid images of 302 patients (DDTI) strangers differ in 58 and more, repeated views of one patient mostly in 0 to 48
MAX_DISTANCE = 48


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """The data set to write: nnU-Net's number and name, channel, label and file ending, and the folds."""

    dataset_id: int
    name: str
    channel: str
    label: str
    file_ending: str
    folds: int = 5
    seed: int = 0

    def __post_init__(self):
        if not 1 <= self.dataset_id <= 999:
            raise UserError(f"dataset id must be in 1..999, got {self.dataset_id} (-d)")
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise UserError(
                f"name must consist of letters, digits, '_' and '-', got {self.name!r} (--name)"
            )
        if self.folds < 2:
            raise UserError(f"folds must be >= 2, got {self.folds} (--folds)")

    @property
    def dataset_name(self) -> str:
        return f"Dataset{self.dataset_id:03d}_{self.name}"


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """`mask_pattern`: a mask's name without suffix, whole; its first capture group is the image's name. `mask_threshold`: masks are what is at
    least this bright, for lossy formats; None: masks must hold one value besides 0. `keep_empty`: images without foreground are used.
    `luminance`: colour images become grey, instead of being skipped."""

    mask_pattern: str = MASK_PATTERN
    mask_threshold: int | None = None
    keep_empty: bool = False
    luminance: bool = False

    def __post_init__(self):
        try:
            expression = re.compile(self.mask_pattern)
        except re.error as error:
            raise UserError(
                f"mask pattern {self.mask_pattern!r} is no regular expression: {error}"
            ) from None
        if expression.groups < 1:
            raise UserError(
                f"mask pattern must have a capture group for the image's name, got {self.mask_pattern!r}"
            )
        if self.mask_threshold is not None and not 0 < self.mask_threshold <= 255:
            raise UserError(f"mask threshold must be in 1..255, got {self.mask_threshold}")


@dataclass(frozen=True, kw_only=True)
class LidcOptions:
    """`form`: slices (2D, axial, those with nodules), crops (3D, one around each nodule) or scans. `consensus`, `reader`, `voters`: as in
    lidc_xml.consensus. `small`: nodules under 3 mm too. `crop_mm`: edge of a crop, more where the nodule is larger; for slices None is the
    whole slice. `min_pixels`: of nodule in a slice. `keep_empty`: scans without a nodule are used."""

    form: str = "slices"
    consensus: str = "majority"
    reader: int = 1
    voters: str = "scan"
    small: bool = False
    crop_mm: float | None = None
    min_pixels: int = 1
    keep_empty: bool = False

    def __post_init__(self):
        for name, allowed in (("form", FORMS), ("consensus", CONSENSUS), ("voters", VOTERS)):
            if getattr(self, name) not in allowed:
                raise UserError(
                    f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}"
                )
        for name in ("reader", "min_pixels"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.crop_mm is not None and not self.crop_mm > 0:
            raise UserError(f"crop_mm must be > 0, got {self.crop_mm}")
        if self.crop_mm is not None and self.form == "scans":
            raise UserError("crop_mm is for slices and crops, whole scans are not cut")
        if self.form == "crops" and self.crop_mm is None:
            object.__setattr__(self, "crop_mm", CROP_MM)
