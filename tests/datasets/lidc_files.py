"""Small LIDC-IDRI folders in the original formats.

CT slices are DICOM files (pydicom), reader annotations XML of the published schema. Series are
written as scanners do: one file per slice, file names and instance numbers that do not follow the
position, rescale slope and intercept, UIDs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

ROOT = "1.3.6.1.4.1.14519.5.2.1.6279.6001."
# of the XML's root element
ATTRIBUTES = (
    f'uid="{ROOT}1307390687803.0" xmlns="http://www.nih.gov" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation='
    '"http://www.nih.gov http://troll.rad.med.umich.edu/lidc/LidcReadMessage.xsd"'
)
RATINGS = (
    "subtlety",
    "internalStructure",
    "calcification",
    "sphericity",
    "margin",
    "lobulation",
    "spiculation",
    "texture",
)


def write_series(
    folder: Path,
    stored: np.ndarray,
    *,
    patient: str = "LIDC-IDRI-0001",
    series: str = "1",
    zs_mm: Sequence[float] | None = None,
    slope: float = 1,
    intercept: float = -1024,
    spacing_mm: tuple[float, float] = (0.7, 0.6),
    origin_mm: tuple[float, float] = (-100.0, -90.0),
    descending: bool = False,
    modality: str = "CT",
    prefix: str = "",
    shift_mm: float = 0,
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
) -> list[str]:
    """Write a series and return its SOP instance UIDs, bottom to top.

    `stored`: (Z, H, W), the stored values, bottom to top. `spacing_mm`: between rows, between
    columns. `shift_mm`: of each slice along y against the one below, as under a tilted gantry.
    """
    folder.mkdir(parents=True, exist_ok=True)
    zs_mm = [-50 + 2.5 * z for z in range(len(stored))] if zs_mm is None else zs_mm
    order = np.random.default_rng(0).permutation(len(stored))
    uids = []
    for z, pixels in enumerate(stored):
        uid = f"{ROOT}{series}.{z + 1}"
        uids.append(uid)
        ds = _empty(uid)
        ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{ROOT}{series}.100", f"{ROOT}{series}"
        ds.PatientID, ds.PatientName = patient, ""
        ds.Modality, ds.Manufacturer = modality, "GE MEDICAL SYSTEMS"
        ds.InstanceNumber = len(stored) - z if descending else z + 1
        if modality == "CT":
            ds.ImagePositionPatient = [origin_mm[0], origin_mm[1] + shift_mm * z, zs_mm[z]]
            ds.ImageOrientationPatient = list(orientation)
            ds.SliceThickness = 2.5
            ds.RescaleIntercept, ds.RescaleSlope = intercept, slope
        ds.PixelSpacing = list(spacing_mm)
        ds.Rows, ds.Columns = pixels.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.PixelData = pixels.astype("<i2").tobytes()
        # names in an order that means nothing, as in the download
        pydicom.dcmwrite(folder / f"{prefix}{order[z] + 1:06d}.dcm", ds, enforce_file_format=True)
    return uids


def _empty(uid: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, uid
    return ds


Nodule = Mapping[str, object]


def nodule(
    name: str,
    rois: Sequence[tuple[str, Sequence[tuple[int, int]], bool]],
    *,
    malignancy: int | None = 3,
) -> Nodule:
    """`rois`: (SOP UID, edge points as (x, y), inclusion).

    `malignancy` None: a nodule under 3 mm, which has no characteristics.
    """
    return {"name": name, "rois": rois, "malignancy": malignancy}


def write_xml(
    path: Path, series: str, readers: Sequence[Sequence[Nodule]], *, root: str = "LidcReadMessage"
) -> Path:
    """`readers`: the nodules of each reading session."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sessions = "\n".join(_session(nodules) for nodules in readers)
    path.write_text(f"""<?xml version="1.0" encoding="UTF-8"?>
<{root} {ATTRIBUTES}>
  <ResponseHeader>
    <Version>1.8.1</Version>
    <MessageId>-421198203</MessageId>
    <DateRequest>2005-11-03</DateRequest>
    <TimeRequest>12:25:12</TimeRequest>
    <RequestingSite>removed</RequestingSite>
    <ServicingSite>removed</ServicingSite>
    <TaskDescription>Second unblinded read</TaskDescription>
    <CtImageFile>removed</CtImageFile>
    <SeriesInstanceUid>{ROOT}{series}</SeriesInstanceUid>
    <StudyInstanceUID>{ROOT}{series}.100</StudyInstanceUID>
    <ResponseDescription>1 - Reading complete</ResponseDescription>
  </ResponseHeader>
{sessions}
</{root}>
""")
    return path


def _session(nodules: Sequence[Nodule]) -> str:
    return f"""  <readingSession>
    <annotationVersion>3.12</annotationVersion>
    <servicingRadiologistID>540461523</servicingRadiologistID>
{"".join(map(_nodule, nodules))}    <nonNodule>
      <nonNoduleID>2241</nonNoduleID>
      <imageZposition>-80.0</imageZposition>
      <imageSOP_UID>{ROOT}9.9</imageSOP_UID>
      <locus><xCoord>12</xCoord><yCoord>13</yCoord></locus>
    </nonNodule>
  </readingSession>"""


def _nodule(content: Nodule) -> str:
    characteristics = ""
    if content["malignancy"] is not None:
        values = "".join(f"<{name}>3</{name}>" for name in RATINGS)
        values += f"<malignancy>{content['malignancy']}</malignancy>"
        characteristics = f"      <characteristics>{values}</characteristics>\n"
    rois = "".join(_roi(*roi) for roi in content["rois"])
    return f"""    <unblindedReadNodule>
      <noduleID>{escape(str(content["name"]))}</noduleID>
{characteristics}{rois}    </unblindedReadNodule>
"""


def _roi(uid: str, points: Sequence[tuple[int, int]], inclusion: bool) -> str:
    edges = "".join(
        f"        <edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>\n" for x, y in points
    )
    return f"""      <roi>
        <imageZposition>-125.0 </imageZposition>
        <imageSOP_UID>{uid}</imageSOP_UID>
        <inclusion>{"TRUE" if inclusion else "FALSE"}</inclusion>
{edges}      </roi>
"""
