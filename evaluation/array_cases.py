"""Cases that are given as arrays, in memory, for a network that is given as such."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import refuse_no_utf8
from nnunetv2_lngswr.utils.values import shown

if TYPE_CHECKING:
    import torch

    from evaluation.model.case import Case


@dataclass(frozen=True, eq=False)
class ArrayCase:
    """One case, as the network takes it.

    Parameters
    ----------
    identifier
        Its name in the report, unique.
    image
        Tensor or array (C, *spatial), two or three spatial axes; what the network takes, so
        normalised already.
    label
        Tensor or array (*spatial) or (1, *spatial), whole numbers.
    spacing
        Of the spatial axes, mm; None: 1 each.

    Raises
    ------
    UserError
        Shapes that do not fit, values that are not finite or no labels, a name that is no name.
    """

    identifier: str
    image: torch.Tensor
    label: torch.Tensor
    spacing: Sequence[float] | None = None

    folds = None

    def __post_init__(self) -> None:
        import torch

        self._check_name()
        image, label = (_plain(getattr(self, n), f"{self.place}: {n}") for n in ("image", "label"))
        if image.ndim not in (3, 4):
            raise UserError(
                f"{self.place}: image must be (C, *spatial) with two or three spatial axes, got "
                f"shape {tuple(image.shape)}"
            )
        if label.shape == (1, *image.shape[1:]):
            label = label[0]
        if label.shape != image.shape[1:]:
            raise UserError(
                f"{self.place}: label must have the image's spatial shape "
                f"{tuple(image.shape[1:])}, got {tuple(label.shape)}"
            )
        image = image.float()
        if not torch.isfinite(image).all():
            raise UserError(f"{self.place}: image holds NaN or infinite values")
        # as int64, and so compared: torch has few operations for unsigned integers
        whole = label.real.long() if label.is_complex() else label.long()
        if label.is_complex() or (label.is_floating_point() and not bool((label == whole).all())):
            raise UserError(f"{self.place}: label must hold whole numbers")
        spacing = self._spacing_of(label.ndim)
        if len(spacing) != label.ndim or not all(0 < s < math.inf for s in spacing):
            raise UserError(
                f"{self.place}: spacing must be {label.ndim} numbers > 0 (mm), got {spacing}"
            )
        # copies of our own: what was given may change, and stays as it is
        for name, value in (
            ("image", image.clone()),
            ("label", whole.clone()),
            ("spacing", spacing),
        ):
            object.__setattr__(self, name, value)

    @property
    def key(self) -> str:
        """Names the part file."""
        return self.identifier

    @property
    def place(self) -> str:
        """For messages."""
        return f"case {self.identifier}"

    @cached_property
    def hashes(self) -> dict[str, str]:
        """What a part keeps of its case: the hash of image, label and spacing."""
        digest = hashlib.sha256()
        for array in (self.image, self.label):
            digest.update(repr(tuple(array.shape)).encode())
            digest.update(array.contiguous().numpy().tobytes())
        digest.update(repr(self.spacing).encode())
        return {"arrays_sha256": digest.hexdigest()}

    def check(self, model: Any) -> None:
        """Nothing: it was checked when it was made."""

    def load(self, model: Any) -> Case:
        """The case, which `model` takes as it is."""
        from evaluation.model.case import Case

        return Case(
            identifier=self.identifier,
            image_files=(),
            x=self.image,
            labels=self.label,
            ground_truth=self.label.numpy(),
            properties={"spacing": self.spacing},
            image_channels=len(self.image),
            file_scale=None,
            file_offset=None,
            resampled=False,
        )

    def _spacing_of(self, axes: int) -> tuple[float, ...]:
        if self.spacing is None:
            return (1.0,) * axes
        try:
            return tuple(float(s) for s in self.spacing)
        except (TypeError, ValueError):
            raise UserError(
                f"{self.place}: spacing must be {axes} numbers > 0 (mm), got {shown(self.spacing)}"
            ) from None

    def _check_name(self) -> None:
        name = self.identifier
        # results are filed under it, so it must not lead elsewhere
        if not isinstance(name, str) or not name.strip() or set(name) & {"/", "\\", "\0", "\n"}:
            raise UserError(
                f"a case's name must be a text without slashes, since results are filed under it, "
                f"got {shown(name)}"
            )
        refuse_no_utf8(name)


def as_cases(given: Sequence[ArrayCase | Sequence[Any]]) -> list[ArrayCase]:
    """ArrayCases, or tuples of their parameters, each name once.

    Raises
    ------
    UserError
        As ArrayCase; no case, a name twice, images of two and of three axes or of other channels.
    """
    cases = [_as_case(case) for case in given]
    if not cases:
        raise UserError("cases must hold at least one case (name, image, label, spacing), got none")
    seen: set[str] = set()
    for case in cases:
        if case.identifier in seen:
            raise UserError(f"{case.place} is there twice; give each case a name of its own")
        seen.add(case.identifier)
        first = cases[0]
        if (case.image.ndim, len(case.image)) != (first.image.ndim, len(first.image)):
            raise UserError(
                f"all cases must have as many channels and axes: {first.place} has an image "
                f"{tuple(first.image.shape)}, {case.place} {tuple(case.image.shape)}"
            )
    return cases


def _as_case(case: ArrayCase | Sequence[Any]) -> ArrayCase:
    if isinstance(case, ArrayCase):
        return case
    if not isinstance(case, Sequence) or isinstance(case, str) or len(case) not in (3, 4):
        raise UserError(
            f"a case must be an ArrayCase or (name, image, label, spacing), got {shown(case)}"
        )
    return ArrayCase(*case)


def _plain(array: Any, what: str) -> torch.Tensor:
    """On the CPU, without a graph or MONAI's metadata."""
    import torch

    if not isinstance(array, torch.Tensor):
        try:
            array = torch.as_tensor(_as_torch_takes_it(array))
        except (TypeError, ValueError, RuntimeError):
            raise UserError(f"{what} must be a tensor or an array, got {shown(array)}") from None
    return array.detach().cpu().as_subclass(torch.Tensor)


def _as_torch_takes_it(array: Any) -> Any:
    """A NumPy array without negative strides or foreign byte order; else what is given."""
    import numpy as np

    if not isinstance(array, np.ndarray):
        return array
    native = array.dtype.newbyteorder("=")
    return np.ascontiguousarray(array, dtype=native)
