"""What every conversion to nnU-Net raw format shares.

Work is cut into units that are done once. A unit (a scan's folder, an image with its masks) is
converted as a whole; one whose files are as the manifest says (names, sizes, times) is not read
again, and a second call changes no file. What was used and what was not goes into manifest.json,
beside dataset.json and splits_final.json; records.py keeps it while a call runs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nnunetv2_lngswr.datasets.joined_splits import (
    PERCEPTUAL_HASH,
    Joined,
    Splits,
    write_splits,
)
from nnunetv2_lngswr.datasets.options import DatasetSpec
from nnunetv2_lngswr.datasets.records import (
    JOURNAL,
    MANIFEST,
    STATUSES,
    Journal,
    cases_of_record,
    earlier_records,
    image_file,
    refuse_foreign,
    refuse_taken_number,
    remove_orphans,
    remove_outputs,
    remove_torn,
    stands,
)
from nnunetv2_lngswr.utils.files import write_file
from nnunetv2_lngswr.utils.locks import hold
from nnunetv2_lngswr.utils.progress import progress_bar

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the manifest: a file or folder, and what became of it."""

    source: str
    """File or folder, relative to the input folder."""
    status: str
    """used; left out (by the settings, nothing is wrong); skipped (something is wrong)."""
    reason: str = ""
    """Why it was left out or skipped."""
    case: str | None = None
    """The case that was made of it."""
    group: str | None = None
    """What the splits keep together, of a case."""
    stratum: str | None = None
    """The class whose share the folds keep alike, of a case."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Further facts, as JSON takes them."""

    def __post_init__(self):
        assert self.status in STATUSES, self.status


def skip(path: Path, root: Path, reason: str, details: Mapping[str, Any] | None = None) -> Entry:
    """The entry of a file or folder below `root` with which something is wrong."""
    return Entry(
        source=source_name(path, root), status="skipped", reason=reason, details=details or {}
    )


def leave_out(path: Path, root: Path, reason: str) -> Entry:
    """The entry of a file or folder below `root` that the settings leave out."""
    return Entry(source=source_name(path, root), status="left out", reason=reason)


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Work done at once."""

    key: str
    """Its name in the manifest."""
    files: Sequence[Path]
    """What it reads."""
    convert: Callable[[Path, Mapping[str, str]], list[Entry]]
    """`convert(folder, taken)` writes imagesTr/ and labelsTr/ files below the data set's folder
    and returns the entries. It makes no case of `taken`, which tells the cases of other units,
    each with its unit's key; an entry that is skipped for that has the key as `made_from` in its
    details."""
    also: str = ""
    """Whatever else decides the result."""

    def signature(self) -> str:
        """What tells whether the unit has to be done again."""
        stamps = [stamp(file) for file in sorted(self.files)]
        return hashlib.sha256(repr((stamps, self.also)).encode()).hexdigest()


def stamp(file: Path) -> tuple[str, int, int]:
    """Name, size in bytes and time of change in ns."""
    stat = file.stat()
    return file.name, stat.st_size, stat.st_mtime_ns


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What a conversion did."""

    folder: Path
    """The data set."""
    entries: Sequence[Entry]
    """What became of every file or folder of the input."""
    converted: int
    """Units worked on by this call."""
    kept: int
    """Units done before."""
    split_problem: str = ""
    """Why there is no splits_final.json, else empty."""
    joined: Joined | None = None
    """What near-duplicates tie together; None where they were not looked for."""

    @property
    def counts(self) -> dict[str, int]:
        """status -> number of entries."""
        return _counts(self.entries)

    @property
    def skipped(self) -> list[Entry]:
        return [e for e in self.entries if e.status == "skipped"]


def convert(
    raw_folder: str | Path,
    target: DatasetSpec,
    units: Sequence[Unit],
    *,
    settings: Mapping[str, Any],
    entries: Sequence[Entry] = (),
    join_near_duplicates: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Conversion:
    """Convert `units` into DatasetXXX_NAME below `raw_folder`.

    Parameters
    ----------
    raw_folder
        nnUNet_raw.
    target
        The data set to write.
    units
        The work.
    settings
        What decides the result, compared with those of an earlier call.
    entries
        What was found wrong before any unit.
    join_near_duplicates
        Keep images that nearly agree in one fold (2D images).
    overwrite
        Convert anew what was converted with other settings.
    progress
        Show a bar.

    Raises
    ------
    UserError
        Before anything is written: the folder holds something else, or a conversion with other
        settings and not `overwrite`, or another call is at work there, or the number is taken.
    """
    folder = Path(raw_folder) / target.dataset_name
    settings = json.loads(json.dumps({**settings, "target": asdict(target)}))
    refuse_foreign(folder)
    refuse_taken_number(folder, target.dataset_id)
    with hold(folder, "lngswr convert-dataset"):
        return _convert(
            folder,
            target,
            units,
            settings=settings,
            entries=entries,
            join=join_near_duplicates,
            overwrite=overwrite,
            progress=progress,
        )


def case_name(text: str) -> str:
    """A name for files that shells and nnU-Net take: 'benign (1)' -> 'benign_1'."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_.") or "case"


def source_name(path: Path, root: Path) -> str:
    """A file as the manifest names it: relative to `root`, or in full if it lies elsewhere."""
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return path.resolve().as_posix()


def write_if_changed(path: Path, text: str) -> None:
    """Write only what differs, so that a second call leaves the file's time alone."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_file(path, text)


# --- helpers --------------------------------------------------------------------------------------


def _convert(
    folder: Path,
    target: DatasetSpec,
    units: Sequence[Unit],
    *,
    settings: Mapping[str, Any],
    entries: Sequence[Entry],
    join: bool,
    overwrite: bool,
    progress: bool,
) -> Conversion:
    """`convert` in a folder that nobody else writes to."""
    done = earlier_records(folder, settings, overwrite)
    # first of all: what a killed call leaves must not look like a foreign folder
    journal = Journal(folder, settings, done)
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(exist_ok=True)
        remove_torn(folder / part)
    remove_orphans(folder, done, {u.key for u in units}, target.file_ending)

    shown = progress_bar(units, desc=target.dataset_name, unit="unit", disable=not progress)
    converted = _convert_units(shown, {u.key for u in units}, folder, target, done, journal)

    records = {u.key: done[u.key] for u in units}
    if join:
        _add_missing_hashes(records, folder, target)
    everything = [*entries, *(Entry(**e) for r in records.values() for e in r["entries"])]
    splits = _finish(folder, target, settings, records, entries, everything, join)
    return Conversion(
        folder=folder,
        entries=everything,
        converted=converted,
        kept=len(units) - converted,
        split_problem=splits.problem,
        joined=splits.joined,
    )


def _convert_units(
    units, keys: set[str], folder: Path, target: DatasetSpec, done: dict[str, dict], journal
) -> int:
    """Do what is not done; the records go into `done` and `journal`. Returns how many were done."""
    converted = 0
    standing: set[str] = set()  # cases of the units so far: names may move between units
    for unit in units:
        signature, record = unit.signature(), done.get(unit.key)
        if record is not None:
            same = record["signature"] == signature
            if same and stands(record, keys, folder, target.file_ending):
                standing.update(cases_of_record(record))
                continue
            remove_outputs(record, folder, target.file_ending, but=standing)
        taken = {
            case: key
            for key, other in done.items()
            if key != unit.key
            for case in cases_of_record(other)
        }
        found = unit.convert(folder, taken)
        done[unit.key] = {"signature": signature, "entries": [_plain(e) for e in found]}
        journal.add(unit.key, done[unit.key])
        standing.update(cases_of_record(done[unit.key]))
        converted += 1
    return converted


def _add_missing_hashes(
    records: Mapping[str, dict[str, Any]], folder: Path, target: DatasetSpec
) -> None:
    """Hash the images of units that were converted before hashes were kept."""
    # not at the top, as in joined_splits.py
    from nnunetv2_lngswr.datasets.near_duplicates import hash_text, perceptual_hash

    for record in records.values():
        for entry in record["entries"]:
            details = entry.setdefault("details", {}) if entry.get("case") else None
            if details is not None and PERCEPTUAL_HASH not in details:
                image = image_file(folder, entry["case"], target.file_ending)
                details[PERCEPTUAL_HASH] = hash_text(perceptual_hash(image))


def _finish(
    folder: Path,
    target: DatasetSpec,
    settings: Mapping[str, Any],
    records: Mapping[str, Any],
    before: Sequence[Entry],
    entries: Sequence[Entry],
    join: bool,
) -> Splits:
    """Write dataset.json, the splits and the manifest, and end the journal."""
    cases = [e for e in entries if e.case]
    assert len({e.case for e in cases}) == len(cases), "a case was written twice"
    dataset = {
        "channel_names": {"0": target.channel},
        "labels": {"background": 0, target.label: 1},
        "numTraining": len(cases),
        "file_ending": target.file_ending,
        "name": target.dataset_name,
    }
    write_if_changed(folder / "dataset.json", json.dumps(dataset, indent=1) + "\n")
    groups = {e.case: e.group or e.case for e in cases if e.case}
    splits = write_splits(
        folder,
        target,
        groups=groups,
        strata={e.case: e.stratum or "" for e in cases if e.case},
        hashes={e.case: e.details[PERCEPTUAL_HASH] for e in cases if e.case} if join else None,
    )
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "summary": {**_counts(entries), "cases": len(cases), "groups": len({*groups.values()})},
        **({} if splits.joined is None else {"near_duplicates": asdict(splits.joined)}),
        "settings": settings,
        "before": [_plain(e) for e in before],
        "units": records,
    }
    write_if_changed(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    (folder / JOURNAL).unlink(missing_ok=True)
    return splits


def _counts(entries: Sequence[Entry]) -> dict[str, int]:
    found = Counter(e.status for e in entries)
    return {status: found[status] for status in STATUSES}


def _plain(entry: Entry) -> dict[str, Any]:
    return {k: v for k, v in asdict(entry).items() if v not in ("", None, {})}
