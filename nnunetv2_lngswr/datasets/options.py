"""What can be chosen in a conversion, with the defaults that the command line shows.

Imports nothing heavy, so that `--help` answers at once.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.groups import compiled

FORMS = ("slices", "crops", "scans")
CONSENSUS = ("any", "majority", "all", "one")
VOTERS = ("scan", "nodule")
RESERVED_LABELS = ("background", "ignore")
MASK_PATTERN = r"(.+)_mask(?:_\d+)?"
CROP_MM = 64.0
# of 256 bits; on 515 thyroid images of 302 patients (DDTI) strangers differ in 58 and more,
# repeated views of one patient mostly in 0 to 48
MAX_DISTANCE = 48


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """The data set to write, in nnU-Net's words.

    Raises
    ------
    UserError
        A number outside 1..999, a name that is no folder name for nnU-Net, a label or channel of
        no name or of a name that means something else, fewer than two folds.
    """

    dataset_id: int
    """nnU-Net's number of the data set, 1..999."""
    name: str
    """What follows the number in the folder's name; letters, digits, `_` and `-`."""
    channel: str
    """Name of the only channel; "CT" makes nnU-Net normalise as CT."""
    label: str
    """Name of the foreground, whose value is 1."""
    file_ending: str
    """Of images and labels, with the dot."""
    folds: int = 5
    """How many folds splits_final.json has."""
    seed: int = 0
    """Of the order in which groups go to folds."""

    def __post_init__(self):
        if not 1 <= self.dataset_id <= 999:
            raise UserError(f"dataset id must be in 1..999, got {self.dataset_id} (-d)")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,200}", self.name):
            raise UserError(
                "name must consist of up to 200 letters, digits, '_' and '-', got "
                f"{self.name!r} (--name)"
            )
        if not self.label.strip() or self.label in RESERVED_LABELS:
            raise UserError(
                f"label must be a name other than {' and '.join(RESERVED_LABELS)}, which mean "
                f"something else to nnU-Net, got {self.label!r} (--label)"
            )
        if not self.channel.strip():
            raise UserError(f"channel must be a name, got {self.channel!r} (--channel)")
        if self.folds < 2:
            raise UserError(f"folds must be >= 2, got {self.folds} (--folds)")

    @property
    def dataset_name(self) -> str:
        """DatasetXXX_NAME, the folder's name."""
        return f"Dataset{self.dataset_id:03d}_{self.name}"


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How folders of images and masks are read.

    Raises
    ------
    UserError
        A pattern that is no regular expression or has no group; a threshold outside 1..255.
    """

    mask_pattern: str = MASK_PATTERN
    """A mask's name without suffix, whole; its first capture group is the image's name."""
    mask_threshold: int | None = None
    """Masks are what is at least this bright, for lossy formats; None: they must hold one value
    besides 0."""
    keep_empty: bool = False
    """Images without foreground are used."""
    luminance: bool = False
    """Colour images become grey, instead of being skipped."""
    near_duplicates: bool | None = None
    """Near-duplicates are looked for and kept in one fold; None: where nothing tells the
    patients."""

    def __post_init__(self):
        if compiled(self.mask_pattern, "mask pattern").groups < 1:
            raise UserError(
                "mask pattern must have a capture group for the image's name, "
                f"got {self.mask_pattern!r}"
            )
        if self.mask_threshold is not None and not 0 < self.mask_threshold <= 255:
            raise UserError(f"mask threshold must be in 1..255, got {self.mask_threshold}")


@dataclass(frozen=True, kw_only=True)
class LidcOptions:
    """What is made of LIDC-IDRI's scans and of what their readers marked.

    Raises
    ------
    UserError
        An unknown choice, a number out of range, a crop of whole scans, or what has no effect.
    """

    form: str = "slices"
    """slices (2D, axial, those with nodules), crops (3D, one around each nodule) or scans."""
    consensus: str = "majority"
    """Which voxels are nodule: those of any, of the majority, of all readers, or of one."""
    reader: int = 1
    """Whose outlines count with consensus "one": the number of the reading session, from 1."""
    voters: str = "scan"
    """Who votes: "scan", all readers of the scan; "nodule", those who marked the nodule."""
    small: bool = False
    """Nodules under 3 mm too."""
    crop_mm: float | None = None
    """Edge of a crop, more where the nodule is larger; for slices None is the whole slice."""
    min_pixels: int = 1
    """Slices with fewer pixels of nodule are not used."""
    keep_empty: bool = False
    """Scans without a nodule are used."""

    def __post_init__(self):
        for name, allowed in (("form", FORMS), ("consensus", CONSENSUS), ("voters", VOTERS)):
            if getattr(self, name) not in allowed:
                raise UserError(
                    f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}"
                )
        for name in ("reader", "min_pixels"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.crop_mm is not None and not 0 < self.crop_mm < math.inf:
            raise UserError(f"crop_mm must be > 0 and finite, got {self.crop_mm}")
        if self.crop_mm is not None and self.form == "scans":
            raise UserError("crop_mm is for slices and crops, whole scans are not cut")
        self._refuse_what_has_no_effect()
        if self.form == "crops" and self.crop_mm is None:
            object.__setattr__(self, "crop_mm", CROP_MM)

    def _refuse_what_has_no_effect(self) -> None:
        for name, default, applies, what in (
            ("reader", 1, self.consensus == "one", 'consensus "one"'),
            (
                "voters",
                "scan",
                self.consensus in ("majority", "all"),
                'consensus "majority", "all"',
            ),
            ("min_pixels", 1, self.form == "slices", "slices"),
            ("keep_empty", False, self.form == "scans", "scans"),
        ):
            if getattr(self, name) != default and not applies:
                raise UserError(f"{name} is for {what} alone, and would have no effect here")
