"""LIDC-IDRI's reader annotations: the XML of one scan -> what each reader marked.

Schema (namespace http://www.nih.gov; LidcReadMessage.xsd of the LIDC-IDRI download):
LidcReadMessage / ResponseHeader / SeriesInstanceUid; one readingSession per reader; in it
unblindedReadNodule with noduleID, characteristics (nodules of 3 mm and more) and roi
(imageZposition, imageSOP_UID, inclusion, edgeMap with xCoord and yCoord in pixels); nonNodule marks
are not nodules. A nodule under 3 mm is a single edgeMap, its centre.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nnunetv2_lngswr.utils.errors import UserError

_LARGEST = 65535  # of a coordinate: DICOM counts rows and columns in 16 bit


@dataclass(frozen=True, kw_only=True)
class Roi:
    """A reader's outline in one slice."""

    sop_uid: str
    """SOP instance UID of the slice."""
    inclusion: bool
    """False for a hole."""
    points: np.ndarray
    """(n, 2) int, x and y in pixels."""


@dataclass(frozen=True, kw_only=True)
class ReaderNodule:
    """A nodule as one reader saw it."""

    reader: int
    """1, 2, ... by reading session; it is not the same person in every scan."""
    nodule_id: str
    rois: tuple[Roi, ...]
    characteristics: Mapping[str, int] = field(default_factory=dict)
    """The ratings, 1 to 5 or 6, by name; empty for nodules under 3 mm."""

    @property
    def small(self) -> bool:
        """Marked as under 3 mm: points instead of outlines."""
        return not self.characteristics and all(len(roi.points) == 1 for roi in self.rois)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """All readings of one scan."""

    series_uid: str
    readers: int
    """Number of reading sessions."""
    nodules: tuple[ReaderNodule, ...]


def read_reading(path: str | Path) -> Reading | None:
    """The readings in an XML file; None for those of chest radiographs (IdriReadMessage).

    Raises
    ------
    UserError
        The file, which is named, is anything else or damaged.
    """
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
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return Reading(series_uid=series_uid, readers=len(sessions), nodules=nodules)


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
        [_integer(edge.findtext(f"{{*}}{axis}Coord") or "", where) for axis in "xy"]
        for edge in element.findall("{*}edgeMap")
    ]
    if not edges:
        raise UserError(f"{where} has a roi without edgeMap")
    outside = [value for edge in edges for value in edge if not 0 <= value <= _LARGEST]
    if outside:
        raise UserError(f"{where}: a coordinate must be from 0 to {_LARGEST}, got {outside[0]}")
    return Roi(sop_uid=sop_uid, inclusion=inclusion == "TRUE", points=np.array(edges, np.int64))


def _integer(text: str, where: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{where}: expected a whole number, got {text!r}") from None
