"""One scan of LIDC-IDRI with its readings -> cases: slices, crops or the whole scan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nnunetv2_lngswr.datasets.conversion import Entry, leave_out, skip
from nnunetv2_lngswr.datasets.dicom import Scan
from nnunetv2_lngswr.datasets.lidc_cases import CaseWriter, Job
from nnunetv2_lngswr.datasets.lidc_consensus import (
    Nodule,
    Outline,
    consensus,
    group_outlines,
    outline,
)
from nnunetv2_lngswr.datasets.lidc_xml import Reading, read_reading

Numbered = tuple[int, Nodule]  # a nodule with its number in the scan, from 1


def convert_scan(scan: Scan, xml: Path, job: Job) -> Iterator[Entry]:
    """Write the cases of a scan; entries as they come, also for nodules of which none is made.

    Parameters
    ----------
    scan
        Of one CT series.
    xml
        The readings of that series.
    job
        Where to, and how.
    """
    options = job.options
    reading = read_reading(xml)
    assert reading is not None, xml  # only readings of CT are indexed
    if options.consensus == "one" and options.reader > reading.readers:
        why = f"reader {options.reader} was asked for, the scan has {reading.readers}"
        yield skip(xml, job.root, why)
        return
    chosen = [n for n in reading.nodules if options.small or not n.small]
    outlines = [outline(n, scan.slice_of, scan.shape, scan.spacing_mm) for n in chosen]
    nodules, entries = _agreed(scan, reading, outlines, xml, job)
    yield from entries
    small = len(reading.nodules) - len(chosen)
    if small:
        yield leave_out(xml, job.root, f"{small} marks of nodules under 3 mm")
    if not nodules and not (options.form == "scans" and options.keep_empty):
        yield leave_out(scan.slices[0].path.parent, job.root, "no nodule")
        return
    label = np.zeros(scan.shape, np.uint8)
    for _, nodule in nodules:
        label.ravel()[nodule.voxels] = 1
    writer = CaseWriter(scan, label, job)
    if options.form == "scans":
        incomplete = any(o.missing for o in outlines)
        yield _whole(writer, nodules, incomplete)
    elif options.form == "crops":
        for number, nodule in nodules:
            yield _crop(writer, number, nodule)
    elif options.crop_mm is None:
        yield from _whole_slices(writer)
    else:
        for number, nodule in nodules:
            yield from _cropped_slices(writer, number, nodule)


def _agreed(
    scan: Scan, reading: Reading, outlines: Sequence[Outline], xml: Path, job: Job
) -> tuple[list[Numbered], list[Entry]]:
    """The nodules with voxels, and entries for nodules without and for slices that are missing."""
    options, root = job.options, job.root
    nodules, entries = [], []
    groups = group_outlines(outlines, reading.readers, max(scan.spacing_mm))
    for number, group in enumerate(groups, 1):
        nodule = consensus(
            group,
            options.consensus,
            readers=reading.readers,
            reader=options.reader,
            voters=options.voters,
        )
        who = f"nodule {number} ({_names(nodule)})"
        for o in nodule.outlines:
            if o.missing:
                what = f"slices outlined by reader {o.nodule.reader} are missing or unreadable"
                entries.append(skip(xml, root, f"{who}: {what}: {_some(o.missing)}"))
        if len(nodule.voxels):
            nodules.append((number, nodule))
        else:
            why = f"{who}: no voxel by consensus {options.consensus}"
            entries.append(leave_out(xml, root, why))
    for o in outlines:
        if not len(o.points_mm):
            who = f"nodule {o.nodule.nodule_id} of reader {o.nodule.reader}"
            why = f"{who}: none of its {len(o.missing)} slices is in the folder"
            entries.append(skip(xml, root, why))
    return nodules, entries


def _whole(writer: CaseWriter, nodules: Sequence[Numbered], incomplete: bool) -> Entry:
    scan = writer.scan
    if len(scan.runs) > 1:
        return writer.skipped(
            f"slices are not evenly spaced: {_gaps(scan)}; a whole scan cannot be made of them"
        )
    if incomplete:
        return writer.skipped("outlined slices are missing: the scan's label would be incomplete")
    return writer.write("", scan.runs[0], details={"nodules": [_facts(n) for _, n in nodules]})


def _crop(writer: CaseWriter, number: int, nodule: Nodule) -> Entry:
    scan, crop_mm = writer.scan, writer.job.options.crop_mm
    assert crop_mm is not None  # LidcOptions gives crops a size
    z, y, x = np.unravel_index(nodule.voxels, scan.shape)
    run = next(r for r in scan.runs if z.min() in r)
    if z.max() not in run:
        return writer.skipped(f"nodule {number} lies across missing slices: {_gaps(scan)}")
    if any(o.missing for o in nodule.outlines):
        return writer.skipped(f"nodule {number} lies across missing slices")
    zs = _window(z, crop_mm / scan.spacing_mm[0], run.start, run.stop)
    rows, columns = _window_in_plane(scan, y, x, crop_mm)
    about = _facts(nodule)
    return writer.write(f"_n{number}", range(zs.start, zs.stop), rows, columns, details=about)


def _whole_slices(writer: CaseWriter) -> Iterator[Entry]:
    """Each with all its nodules."""
    for z in range(writer.scan.shape[0]):
        if writer.label[z].sum() >= writer.job.options.min_pixels:
            yield writer.write(f"_z{z:03d}", z)


def _cropped_slices(writer: CaseWriter, number: int, nodule: Nodule) -> Iterator[Entry]:
    """One window for all slices of a nodule."""
    scan, options = writer.scan, writer.job.options
    assert options.crop_mm is not None
    z, y, x = np.unravel_index(nodule.voxels, scan.shape)
    rows, columns = _window_in_plane(scan, y, x, options.crop_mm)
    for k in map(int, np.flatnonzero(np.bincount(z) >= options.min_pixels)):
        yield writer.write(f"_n{number}_z{k:03d}", k, rows, columns, details=_facts(nodule))


# --- helpers --------------------------------------------------------------------------------------


def _window_in_plane(
    scan: Scan, y: np.ndarray, x: np.ndarray, size_mm: float
) -> tuple[slice, slice]:
    rows = _window(y, size_mm / scan.spacing_mm[1], 0, scan.shape[1])
    columns = _window(x, size_mm / scan.spacing_mm[2], 0, scan.shape[2])
    return rows, columns


def _window(indices: np.ndarray, size_voxels: float, start: int, stop: int) -> slice:
    """So many voxels around the middle of `indices`, at least all of them, within start..stop."""
    low, high = int(indices.min()), int(indices.max()) + 1
    size = max(round(size_voxels), high - low)
    first = (low + high - size) // 2
    return slice(max(first, start), min(first + size, stop))


def _facts(nodule: Nodule) -> dict:
    """What the manifest tells about a nodule."""
    ratings = [o.nodule.characteristics for o in nodule.outlines]
    return {
        "readers": nodule.readers,
        "reader_ids": [o.nodule.nodule_id for o in nodule.outlines],
        "voxels": len(nodule.voxels),
        "malignancy": [r["malignancy"] for r in ratings if "malignancy" in r],
    }


def _names(nodule: Nodule) -> str:
    return ", ".join(f"reader {o.nodule.reader}: {o.nodule.nodule_id}" for o in nodule.outlines)


def _some(uids: Sequence[str], shown: int = 3) -> str:
    return ", ".join(uids[:shown]) + (" ..." if len(uids) > shown else "")


def _gaps(scan: Scan, shown: int = 3) -> str:
    borders = [(scan.slices[r.start - 1], scan.slices[r.start]) for r in scan.runs[1:]]
    where = [f"{a.path.name} and {b.path.name}" for a, b in borders]
    more = f" and at {len(where) - shown} more places" if len(where) > shown else ""
    return "between " + ", ".join(where[:shown]) + more
