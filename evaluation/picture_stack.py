"""Small pictures of one case under every budget: what report.html pages through.

A stack is one uint8 array (planes, slices, h, w). Its planes are the image, the ground truth and
the clean prediction, then per attack shown its perturbation and the prediction under it. Images are
grey values, label maps are indices into the labels that occur, and perturbations have LEVELS steps
on either side of none. All of it is cut to the surroundings of what is labelled and thinned out, so
that a case has at most about a megabyte before compression, whatever the size of its image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SIDE, SIDE_OF_SEVERAL, SLICES = 128, 96, 5
"""Pixels at most along h and w, of one slice and of several; slices at most."""
LEVELS = 7
"""Of a perturbation, on either side of none."""
FIXED = ("image", "reference", "before")
"""The first planes; each attack has two more."""
MOST_LABELS = 255
_MARGIN = 1.3  # what is shown, by what is labelled
WINDOW = (0.5, 99.5)  # percentiles, as in examples.png
_AMPLITUDE = 99.5


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Which voxels of a volume (D, H, W) are shown."""

    slices: tuple[int, ...]
    rows: slice
    columns: slice

    def of(self, volume: np.ndarray) -> np.ndarray:
        return volume[list(self.slices), self.rows, self.columns]

    @classmethod
    def around(cls, labels: np.ndarray, *more: np.ndarray, side: int | None = None) -> Cut:
        """Where something is labelled, and at least half of the image.

        Parameters
        ----------
        labels
            The ground truth, (D, H, W).
        *more
            Other label maps that are to be seen, (D, H, W).
        side
            Pixels at most along h and w; None: SIDE, or SIDE_OF_SEVERAL slices.
        """
        slices = _slices(labels)
        if side is None:
            side = SIDE if len(slices) == 1 else SIDE_OF_SEVERAL
        there = np.any([of[list(slices)] > 0 for of in (labels, *more)], axis=(0, 1))
        wanted = [
            _wanted(np.flatnonzero(there.any(1 - axis)), n) for axis, n in enumerate(there.shape)
        ]
        stride = max(-(-(stop - start) // side) for start, stop in wanted)
        rows, columns = (
            slice(*_at_least(start, stop, min(n, side * stride), n), stride)
            for (start, stop), n in zip(wanted, there.shape)
        )
        return cls(slices=slices, rows=rows, columns=columns)


class PictureStack:
    """Collects the planes of one case, attack by attack.

    Parameters
    ----------
    image
        The preprocessed image, (D, H, W), of one channel.
    reference, before
        Ground truth and clean prediction, label maps of the same shape.
    cut
        What is shown of it.
    extent
        The image's intensity range.
    """

    def __init__(
        self,
        image: np.ndarray,
        reference: np.ndarray,
        before: np.ndarray,
        *,
        cut: Cut,
        extent: float,
    ) -> None:
        self.cut, self.extent = cut, extent
        self.image = cut.of(image).astype(np.float32)
        self._maps = [cut.of(reference), cut.of(before)]
        low, high = (float(v) for v in np.percentile(self.image, WINDOW))
        self._low, self._span = low, max(high - low, 1e-6)
        self._found: dict[tuple[str, ...], dict[str, Any]] = {}

    def consider(
        self,
        key: tuple[str, ...],
        perturbation: Callable[[], np.ndarray],
        after: Callable[[], np.ndarray],
        *,
        dice: float,
        **what: Any,
    ) -> None:
        """Show an attack, unless one of lower Dice has the same key.

        Parameters
        ----------
        key
            Such as norm and budget, of which the strongest attack is shown.
        perturbation, after
            Return perturbation and prediction, (D, H, W); called only where they are shown.
        dice
            Of the case under the attack; nan for nothing there and nothing found.
        **what
            Names the attack, JSON-ready.
        """
        rank = float("inf") if np.isnan(dice) else dice
        if key in self._found and self._found[key]["rank"] <= rank:
            return
        delta = self.cut.of(perturbation()).astype(np.float32)
        scale = max(float(np.percentile(np.abs(delta), _AMPLITUDE)), 1e-12 * self.extent)
        steps = np.rint(delta * (LEVELS / scale)).clip(-LEVELS, LEVELS) + LEVELS
        self._found[key] = {
            "rank": rank,
            "steps": steps.astype(np.uint8),
            "after": self.cut.of(after()),
            "what": {
                **what,
                "full_colour": scale / self.extent,
                "grey_values": 255 * scale / self._span,
            },
        }

    def arrays(self) -> np.ndarray | None:
        """The stack; None without an attack."""
        if not self._found:
            return None
        shown = self._found.values()
        values = self._values()
        grey = ((self.image - self._low) * (255 / self._span)).clip(0, 255)
        planes = [np.rint(grey).astype(np.uint8), *(indices_of(m, values) for m in self._maps)]
        for found in shown:
            planes += [found["steps"], indices_of(found["after"], values)]
        return np.stack(planes)

    def describe(self) -> dict[str, Any]:
        """What the planes are, JSON-ready."""
        return {
            "slices": list(self.cut.slices),
            "stride": self.cut.rows.step,
            "corner": [self.cut.rows.start, self.cut.columns.start],
            "values": self._values(),
            "attacks": [found["what"] for found in self._found.values()],
        }

    def _values(self) -> list[int]:
        maps = [*self._maps, *(found["after"] for found in self._found.values())]
        found = {int(v) for m in maps for v in np.unique(m)} - {0}
        return [0, *sorted(v for v in found if v > 0)][: MOST_LABELS + 1]


def indices_of(labels: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """A label map as indices into its values; what is not among them is background."""
    found = np.searchsorted(values, labels).clip(0, len(values) - 1)
    return np.where(np.asarray(values)[found] == labels, found, 0).astype(np.uint8)


def stack_of_example(example: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """(stack, description) of what folders of earlier versions keep: one slice, one attack.

    Parameters
    ----------
    example
        As `example.build_example` makes it, with its arrays (H, W).
    """
    maps = {k: np.asarray(example[k])[None] for k in ("reference", "before", "after")}
    image, delta = (np.asarray(example[k])[None] for k in ("image", "perturbation"))
    stack = PictureStack(
        image,
        maps["reference"],
        maps["before"],
        cut=Cut.around(*maps.values()),
        extent=float(example["range"]) or 1.0,
    )
    what = {k: example[k] for k in ("attack", "norm", "epsilon_text")}
    stack.consider((), lambda: delta, lambda: maps["after"], dice=example["dice_after"], **what)
    arrays = stack.arrays()
    assert arrays is not None
    return arrays, stack.describe()


def _slices(labels: np.ndarray) -> tuple[int, ...]:
    """The largest one and others evenly from first to last; the middle one without labels."""
    sizes = (labels > 0).reshape(len(labels), -1).sum(1)
    there = np.flatnonzero(sizes)
    if not len(there):
        return (len(labels) // 2,)
    even = there[np.linspace(0, len(there) - 1, min(SLICES, len(there))).round().astype(int)]
    largest = int(sizes.argmax())
    even[np.abs(even - largest).argmin()] = largest
    return tuple(sorted({int(i) for i in even}))


def _wanted(there: np.ndarray, n: int) -> tuple[int, int]:
    """[start, stop) along an axis of length n that is to be seen."""
    if not len(there):
        return _at_least(n // 2, n // 2, -(-n // 2), n)
    first, last = int(there[0]), int(there[-1]) + 1
    return _at_least(first, last, max(int(_MARGIN * (last - first)), -(-n // 2)), n)


def _at_least(start: int, stop: int, length: int, n: int) -> tuple[int, int]:
    """[start, stop) widened evenly to `length` within [0, n)."""
    length = min(max(length, stop - start), n)
    start = min(max((start + stop - length) // 2, 0), n - length)
    return start, start + length
