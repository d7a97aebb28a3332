"""LIDC-IDRI (TCIA) -> nnU-Net raw format: the download's folders, and which XML belongs to which.

DICOM series and the readers' XML become HU images with the consensus of the readers, as axial
slices, as crops around nodules, or as whole scans. A unit is a folder with DICOM files. Its XML
lies beside them, as in the original download, or, as with newer ones, in a folder of its own; the
two are joined by series UID, outlines and slices by SOP instance UID. dicom.py reads scans,
lidc_xml.py what readers marked, lidc_consensus.py draws and joins that, lidc_scan.py makes cases
of one scan, lidc_cases.py writes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from nnunetv2_lngswr.datasets.conversion import (
    Conversion,
    Entry,
    Unit,
    convert,
    leave_out,
    skip,
    source_name,
    stamp,
)
from nnunetv2_lngswr.datasets.dicom import (
    SliceFile,
    UnreadableDicom,
    make_scan,
    read_header,
    series_of,
)
from nnunetv2_lngswr.datasets.find_files import find_files
from nnunetv2_lngswr.datasets.lidc_cases import ENDING, Job, scan_name
from nnunetv2_lngswr.datasets.lidc_scan import convert_scan
from nnunetv2_lngswr.datasets.lidc_xml import read_reading
from nnunetv2_lngswr.datasets.options import DatasetSpec, LidcOptions
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.progress import progress_bar

__all__ = ["ENDING", "convert_lidc"]

Files = dict[Path, list[Path]]  # folder -> its files
Annotations = Mapping[str, Sequence[Path]]  # series UID -> XML files


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
    """Convert the download in `folder`. Patients are the groups of the splits.

    Parameters
    ----------
    folder
        The download, with a subfolder per series.
    annotations
        Folder with the XML files, if they are not in `folder`.
    options
        What is made of scans and readings.
    raw_folder, target, overwrite, progress
        As `conversion.convert`.

    Raises
    ------
    UserError
        A folder does not exist or holds no DICOM files, or `conversion.convert` refuses.
    """
    folder = Path(folder)
    for given in (folder, annotations):
        if given is not None and not Path(given).is_dir():
            raise UserError(f"{given} is no folder")
    content, wrong = _content(folder)
    scans = {place: files for place, files in content.items() if any(map(_is_dicom, files))}
    if not scans:
        raise UserError(f"{folder} holds no DICOM files")
    apart = [f for place in content if place not in scans for f in content[place] if _is_xml(f)]
    if annotations is not None and not Path(annotations).resolve().is_relative_to(folder.resolve()):
        elsewhere, also_wrong = _content(Path(annotations))
        apart += [f for files in elsewhere.values() for f in files if _is_xml(f)]
        wrong += also_wrong
    readings, unreadable = _index(
        progress_bar(apart, desc="reading XML", unit="file", disable=not progress or not apart),
        folder,
    )
    wrong += unreadable
    return convert(
        raw_folder,
        target,
        _units(scans, folder, apart, readings, options),
        settings={"converter": "lidc", **asdict(options)},
        entries=wrong,
        overwrite=overwrite,
        progress=progress,
    )


def _units(
    scans: Files,
    root: Path,
    apart: Sequence[Path],
    readings: Annotations,
    options: LidcOptions,
) -> list[Unit]:
    """One unit per folder of `scans`; all XML that lies `apart` decides about each."""
    also = hashlib.sha256(repr(sorted(map(stamp, apart))).encode()).hexdigest()

    def unit(place: Path, files: Sequence[Path]) -> Unit:
        used = [f for f in files if _is_dicom(f) or _is_xml(f)]

        def convert_unit(out: Path, taken: Mapping[str, str]) -> list[Entry]:
            job = Job(root=root, out=out, options=options)
            return list(_convert_folder(used, readings, taken, job))

        key = place.relative_to(root).as_posix()
        return Unit(key=key, files=used, also=also, convert=convert_unit)

    return [unit(place, files) for place, files in sorted(scans.items())]


def _convert_folder(
    files: Sequence[Path], apart: Annotations, taken: Mapping[str, str], job: Job
) -> Iterator[Entry]:
    """All series of a folder; entries as they come."""
    beside, wrong = _index([f for f in files if _is_xml(f)], job.root)
    yield from wrong
    headers, wrong = _headers([f for f in files if _is_dicom(f)], job.root)
    yield from wrong
    series = series_of(headers)
    scans = {uid: of for uid, of in series.items() if of[0].modality == "CT"}
    for uid, of in series.items():
        if uid not in scans:
            why = f"modality {of[0].modality}, series {uid}"
            yield leave_out(of[0].path.parent, job.root, why)
    for uid, paths in beside.items():
        if uid not in series:
            for path in paths:
                yield skip(path, job.root, f"annotates series {uid}, which is not in this folder")
    for uid, of in scans.items():
        beside_it = [other for other in scans if other != uid]
        xml = beside.get(uid) or apart.get(uid) or []
        yield from _convert_series(of, xml, beside_it, taken, job)


def _convert_series(
    headers: Sequence[SliceFile],
    xml: Sequence[Path],
    beside_it: Sequence[str],
    taken: Mapping[str, str],
    job: Job,
) -> Iterator[Entry]:
    """One CT series, with the XML that annotates it, in a folder that also holds `beside_it`."""
    first = headers[0]
    uid, place = first.series_uid, first.path.parent
    other = _made_already(scan_name(first), taken)
    if other is not None:
        why = f"series {uid} is converted from {other} already"
        yield skip(place, job.root, why, details={"made_from": other})
    elif not xml and beside_it:
        shared = f"the folder also holds series {', '.join(beside_it)}"
        yield skip(first.path, job.root, f"no XML annotates series {uid}; {shared}")
    elif not xml:
        yield skip(place, job.root, f"no XML annotates series {uid}")
    elif len({path.read_bytes() for path in xml}) > 1:
        names = ", ".join(source_name(path, job.root) for path in xml)
        why = f"several different XML files annotate series {uid}: {names}"
        yield skip(xml[0], job.root, why)
    else:
        scan, odd = make_scan(headers)
        for header, why in odd:
            yield skip(header.path, job.root, why)
        yield from convert_scan(scan, xml[0], job)


# --- helpers --------------------------------------------------------------------------------------


def _content(folder: Path) -> tuple[Files, list[Entry]]:
    """Subfolder -> its files, both in order; and entries for what could not be looked at."""
    files, wrong = find_files(folder)
    content: Files = {}
    for path in files:
        content.setdefault(path.parent, []).append(path)
    return content, [skip(path, folder, why) for path, why in wrong]


def _is_xml(path: Path) -> bool:
    return path.suffix.lower() == ".xml"


def _is_dicom(path: Path) -> bool:
    """By suffix; without one, or for names that are UIDs, by the four letters at byte 128.

    Downloads hold a LICENSE too.
    """
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
        except UserError as error:
            why = str(error).removeprefix(f"{path}: ").removeprefix(f"{path} ")
            entries.append(skip(path, root, why))
            continue
        if reading is None:
            entries.append(leave_out(path, root, "readings of a chest radiograph"))
        else:
            found.setdefault(reading.series_uid, []).append(path)
    return found, entries


def _headers(files: Iterable[Path], root: Path) -> tuple[list[SliceFile], list[Entry]]:
    """The headers of DICOM files, and entries for those that cannot be read."""
    headers, entries = [], []
    for file in files:
        try:
            headers.append(read_header(file))
        except UnreadableDicom as error:
            entries.append(skip(file, root, str(error)))
    return headers, entries


def _made_already(name: str, taken: Mapping[str, str]) -> str | None:
    """The unit that has made cases of the scan `name`."""
    for case, unit in taken.items():
        if case == name or case.startswith(f"{name}_"):
            return unit
    return None
