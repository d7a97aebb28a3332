"""LIDC-IDRI (TCIA) -> nnU-Net raw format: DICOM series and the readers' XML -> HU images with the consensus of the readers, as axial slices, as
crops around nodules, or as whole scans.

A unit is a folder with DICOM files. Its XML lies beside them, as in the original download, or, as with newer ones, in a folder of its own; the
two are joined by series UID, outlines and slices by SOP instance UID. dicom.py reads scans, lidc_xml.py draws and joins what readers marked.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from nnunetv2_lngswr.datasets.conversion import (
    Conversion,
    Entry,
    Unit,
    case_name,
    convert,
    source_name,
)
from nnunetv2_lngswr.datasets.dicom import (
    Scan,
    SliceFile,
    UnreadableDicom,
    make_scan,
    read_header,
    series_of,
)
from nnunetv2_lngswr.datasets.lidc_xml import (
    Nodule,
    Outline,
    Reading,
    consensus,
    group_outlines,
    outline,
    read_reading,
)
from nnunetv2_lngswr.datasets.options import DatasetSpec, LidcOptions
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import atomic_path

ENDING = ".nii.gz"


def convert_lidc(
    folder: str | Path,
    raw_folder: str | Path,
    target: DatasetSpec,
    *,
    annotations: str | Path | None = None,
    options: LidcOptions = LidcOptions(),
    overwrite: bool = False,
    progress: bool = True,
) -> Conversion:
    """Convert the download in `folder` into `raw_folder` (nnUNet_raw). `annotations`: folder with the XML files, if they are not in `folder`.
    Patients are the groups of the splits. ValueError for folders that do not exist or hold no DICOM files."""
    folder = Path(folder)
    for given in (folder, annotations):
        if given is not None and not Path(given).is_dir():
            raise UserError(f"{given} is no folder")
    content = _content(folder)
    scan_folders = {
        place: files for place, files in content.items() if any(_is_dicom(f) for f in files)
    }
    if not scan_folders:
        raise UserError(f"{folder} holds no DICOM files")
    apart = [
        f
        for place, files in content.items()
        if place not in scan_folders
        for f in files
        if _is_xml(f)
    ]
    if annotations is not None and not Path(annotations).resolve().is_relative_to(folder.resolve()):
        apart += [f for files in _content(Path(annotations)).values() for f in files if _is_xml(f)]
    readings, wrong = _index(
        tqdm(apart, desc="reading XML", unit="file", disable=not progress or not apart), folder
    )
    also = hashlib.sha256(
        repr(sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in apart)).encode()
    ).hexdigest()

    def unit(place: Path, files: Sequence[Path]) -> Unit:
        used = [f for f in files if _is_dicom(f) or _is_xml(f)]
        key = place.relative_to(folder).as_posix()
        return Unit(
            key=key,
            files=used,
            also=also,
            convert=lambda out, taken: list(
                _convert_folder(used, folder, out, readings, options, taken)
            ),
        )

    units = [unit(place, files) for place, files in sorted(scan_folders.items())]
    settings = {"converter": "lidc", **asdict(options)}
    return convert(
        raw_folder,
        target,
        units,
        settings=settings,
        entries=wrong,
        overwrite=overwrite,
        progress=progress,
    )


# --- one folder ---------------------------------------------------------------------------------------------------------------------


def _convert_folder(
    files: Sequence[Path],
    root: Path,
    out: Path,
    apart: Mapping[str, Sequence[Path]],
    options: LidcOptions,
    taken: Mapping[str, str],
) -> Iterator[Entry]:
    """All series of a folder; entries as they come."""
    beside, wrong = _index([f for f in files if _is_xml(f)], root)
    yield from wrong
    headers = []
    for file in files:
        if _is_dicom(file):
            try:
                headers.append(read_header(file))
            except UnreadableDicom as error:
                yield _skipped(file, root, str(error))
    series = series_of(headers)
    scans = {uid: of for uid, of in series.items() if of[0].modality == "CT"}
    for uid, of in series.items():
        if uid not in scans:
            yield Entry(
                source=source_name(of[0].path.parent, root),
                status="left out",
                reason=f"modality {of[0].modality}, series {uid}",
            )
    for uid in beside.keys() - series.keys():
        for path in beside[uid]:
            yield _skipped(path, root, f"annotates series {uid}, which is not in this folder")
    for uid, of in scans.items():
        name, place = _scan_name(of[0]), of[0].path.parent
        other = next(
            (unit for case, unit in taken.items() if case == name or case.startswith(f"{name}_")),
            None,
        )
        if other is not None:
            why = f"series {uid} is converted from {other} already"
            yield Entry(
                source=source_name(place, root),
                status="skipped",
                reason=why,
                details={"made_from": other},
            )
            continue
        shared = (
            f"; the folder also holds series {', '.join(u for u in scans if u != uid)}"
            if len(scans) > 1
            else ""
        )
        xml = beside.get(uid) or apart.get(uid) or []
        if not xml:
            yield _skipped(
                of[0].path if shared else place, root, f"no XML annotates series {uid}{shared}"
            )
        elif len({path.read_bytes() for path in xml}) > 1:
            names = ", ".join(source_name(p, root) for p in xml)
            yield _skipped(
                xml[0], root, f"several different XML files annotate series {uid}: {names}"
            )
        else:
            scan, odd = make_scan(of)
            for header, why in odd:
                yield _skipped(header.path, root, why)
            yield from _convert_scan(scan, xml[0], root, out, options)


def _convert_scan(
    scan: Scan, xml: Path, root: Path, out: Path, options: LidcOptions
) -> Iterator[Entry]:
    reading = read_reading(xml)
    place = source_name(scan.slices[0].path.parent, root)
    if options.consensus == "one" and options.reader > reading.readers:
        yield _skipped(
            xml, root, f"reader {options.reader} was asked for, the scan has {reading.readers}"
        )
        return
    nodules, incomplete = [], False
    outlines = _outlines(scan, reading, options)
    for number, group in enumerate(
        group_outlines(outlines, reading.readers, max(scan.spacing_mm)), 1
    ):
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
                incomplete = True
                shown = ", ".join(o.missing[:3]) + (" ..." if len(o.missing) > 3 else "")
                yield _skipped(
                    xml,
                    root,
                    f"{who}: slices outlined by reader {o.nodule.reader} are missing or unreadable: {shown}",
                )
        if len(nodule.voxels):
            nodules.append((number, nodule))
        else:
            yield Entry(
                source=source_name(xml, root),
                status="left out",
                reason=f"{who}: no voxel by consensus {options.consensus}",
            )
    # whose slices are all missing
    lost = [o for o in outlines if not len(o.points_mm)]
    for o in lost:
        incomplete = True
        yield _skipped(
            xml,
            root,
            f"nodule {o.nodule.nodule_id} of reader {o.nodule.reader}: none of its {len(o.missing)} slices is in the folder",
        )
    if not options.small:
        small = sum(n.small for n in reading.nodules)
        if small:
            yield Entry(
                source=source_name(xml, root),
                status="left out",
                reason=f"{small} marks of nodules under 3 mm",
            )
    if not nodules and not (options.form == "scans" and options.keep_empty):
        yield Entry(source=place, status="left out", reason="no nodule")
        return
    label = np.zeros(scan.shape, np.uint8)
    for _, nodule in nodules:
        label.ravel()[nodule.voxels] = 1
    writer = _Writer(scan, label, place, root, out)
    if options.form == "scans":
        yield from _whole(writer, nodules, incomplete)
    elif options.form == "crops":
        for number, nodule in nodules:
            yield from _crop(writer, number, nodule, options)
    else:
        yield from _slices(writer, nodules, options)


def _whole(writer: _Writer, nodules, incomplete: bool) -> Iterator[Entry]:
    scan = writer.scan
    if len(scan.runs) > 1:
        yield writer.skipped(
            f"slices are not evenly spaced: {_gaps(scan)}; a whole scan cannot be made of them"
        )
    elif incomplete:
        yield writer.skipped("outlined slices are missing: the scan's label would be incomplete")
    else:
        yield writer.write("", scan.runs[0], details={"nodules": [_facts(n) for _, n in nodules]})


def _crop(writer: _Writer, number: int, nodule: Nodule, options: LidcOptions) -> Iterator[Entry]:
    scan = writer.scan
    z, y, x = np.unravel_index(nodule.voxels, scan.shape)
    run = next(r for r in scan.runs if z.min() in r)
    if any(o.missing for o in nodule.outlines) or z.max() not in run:
        why = f": {_gaps(scan)}" if z.max() not in run else ""
        yield writer.skipped(f"nodule {number} lies across missing slices{why}")
        return
    zs = _window(z, options.crop_mm / scan.spacing_mm[0], run.start, run.stop)
    rows = _window(y, options.crop_mm / scan.spacing_mm[1], 0, scan.shape[1])
    columns = _window(x, options.crop_mm / scan.spacing_mm[2], 0, scan.shape[2])
    yield writer.write(
        f"_n{number}", range(zs.start, zs.stop), rows, columns, details=_facts(nodule)
    )


def _slices(writer: _Writer, nodules, options: LidcOptions) -> Iterator[Entry]:
    """Whole slices, each with all its nodules; or with crop_mm one per slice and nodule."""
    scan = writer.scan
    if options.crop_mm is None:
        for z in range(scan.shape[0]):
            if writer.label[z].sum() >= options.min_pixels:
                yield writer.write(f"_z{z:03d}", z)
        return
    for number, nodule in nodules:
        z, y, x = np.unravel_index(nodule.voxels, scan.shape)
        # one window for all slices of a nodule
        rows = _window(y, options.crop_mm / scan.spacing_mm[1], 0, scan.shape[1])
        columns = _window(x, options.crop_mm / scan.spacing_mm[2], 0, scan.shape[2])
        for k in np.flatnonzero(np.bincount(z) >= options.min_pixels):
            yield writer.write(
                f"_n{number}_z{k:03d}", int(k), rows, columns, details=_facts(nodule)
            )


class _Writer:
    """Writes parts of one scan as cases."""

    def __init__(self, scan: Scan, label: np.ndarray, place: str, root: Path, out: Path):
        self.scan, self.label, self.place, self.root, self.out = scan, label, place, root, out
        self.name = _scan_name(scan.slices[0])

    def write(
        self,
        suffix: str,
        zs: range | int,
        rows=slice(None),
        columns=slice(None),
        *,
        details: Mapping = {},
    ) -> Entry:
        """`zs`: a range for a volume, an index for a 2D image."""
        flat = isinstance(zs, int)
        zs = range(zs, zs + 1) if flat else zs
        try:
            image = self.scan.volume(zs, rows, columns)
        except UnreadableDicom as error:
            return _skipped(error.path, self.root, f"{error} (needed for {self.name}{suffix})")
        label = self.scan.place(self.label[zs.start : zs.stop, rows, columns], zs, rows, columns)
        case = self.name + suffix
        for what, path in (
            (image, self.out / "imagesTr" / f"{case}_0000{ENDING}"),
            (label, self.out / "labelsTr" / f"{case}{ENDING}"),
        ):
            _write_whole(_flat(what) if flat else what, path)
        about = {"series": self.scan.series_uid, "slices": [zs[0], zs[-1]], **details}
        return Entry(
            source=self.place, status="used", case=case, group=self.scan.patient, details=about
        )

    def skipped(self, reason: str) -> Entry:
        return Entry(
            source=self.place,
            status="skipped",
            reason=reason,
            details={"series": self.scan.series_uid},
        )


# --- helpers ------------------------------------------------------------------------------------------------------------------------


def _content(folder: Path) -> dict[Path, list[Path]]:
    """Subfolder -> its files, both in order."""
    content: dict[Path, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            content.setdefault(path.parent, []).append(path)
    return content


def _is_xml(path: Path) -> bool:
    return path.suffix.lower() == ".xml"


def _is_dicom(path: Path) -> bool:
    """By suffix; without one, or for names that are UIDs, by the four letters at byte 128, since downloads hold a LICENSE too."""
    if path.suffix.lower() in (".dcm", ".ima"):
        return True
    if path.suffix and not path.suffix[1:].isdigit():
        return False
    with open(path, "rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM"


def _index(files: Iterable[Path], root: Path) -> tuple[dict[str, list[Path]], list[Entry]]:
    """Series UID -> XML files, and entries for those that are no LIDC reading of a CT."""
    found: dict[str, list[Path]] = {}
    entries = []
    for path in files:
        try:
            reading = read_reading(path)
        except ValueError as error:
            entries.append(
                _skipped(path, root, str(error).removeprefix(f"{path}: ").removeprefix(f"{path} "))
            )
            continue
        if reading is None:
            entries.append(
                Entry(
                    source=source_name(path, root),
                    status="left out",
                    reason="readings of a chest radiograph",
                )
            )
        else:
            found.setdefault(reading.series_uid, []).append(path)
    return found, entries


def _scan_name(header: SliceFile) -> str:
    """By patient and series: some patients have two scans."""
    return (
        f"{case_name(header.patient)}_{hashlib.sha256(header.series_uid.encode()).hexdigest()[:4]}"
    )


def _outlines(scan: Scan, reading: Reading, options: LidcOptions) -> list[Outline]:
    chosen = [n for n in reading.nodules if options.small or not n.small]
    return [outline(n, scan.slice_of, scan.shape, scan.spacing_mm) for n in chosen]


def _window(indices: np.ndarray, size: float, start: int, stop: int) -> slice:
    """`size` pixels around the middle of `indices`, at least all of them, within start..stop."""
    low, high = int(indices.min()), int(indices.max()) + 1
    size = max(int(round(size)), high - low)
    first = (low + high - size) // 2
    return slice(max(first, start), min(first + size, stop))


def _flat(image: sitk.Image) -> sitk.Image:
    """A one-slice volume as 2D image. Its position along z has no place there; the manifest names the slice."""
    flat = sitk.GetImageFromArray(sitk.GetArrayFromImage(image)[0])
    flat.SetSpacing(image.GetSpacing()[:2])
    flat.SetOrigin(image.GetOrigin()[:2])
    return flat


def _write_whole(image: sitk.Image, path: Path) -> None:
    """Write and read back: ITK says nothing when the disk is full. OSError if the file is not whole."""
    with atomic_path(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
            whole = np.array_equal(
                sitk.GetArrayFromImage(sitk.ReadImage(str(temporary))),
                sitk.GetArrayFromImage(image),
            )
        except RuntimeError:
            whole = False
        if not whole:
            raise OSError(
                errno.ENOSPC,
                "could not be written whole, probably since the disk is full",
                str(path),
            )


def _facts(nodule: Nodule) -> dict:
    """What the manifest tells about a nodule."""
    malignancy = [
        o.nodule.characteristics["malignancy"]
        for o in nodule.outlines
        if "malignancy" in o.nodule.characteristics
    ]
    return {"readers": nodule.readers, "reader_ids": [o.nodule.nodule_id for o in nodule.outlines], "voxels": len(nodule.voxels),
            "malignancy": malignancy}  # fmt: skip


def _names(nodule: Nodule) -> str:
    return ", ".join(f"reader {o.nodule.reader}: {o.nodule.nodule_id}" for o in nodule.outlines)


def _gaps(scan: Scan) -> str:
    where = [
        f"{a.path.name} and {b.path.name}"
        for a, b in ((scan.slices[r.start - 1], scan.slices[r.start]) for r in scan.runs[1:])
    ]
    return (
        "between "
        + ", ".join(where[:3])
        + (f" and at {len(where) - 3} more places" if len(where) > 3 else "")
    )


def _skipped(path: Path, root: Path, reason: str) -> Entry:
    return Entry(source=source_name(path, root), status="skipped", reason=reason)
