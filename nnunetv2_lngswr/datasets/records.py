"""What a conversion remembers of its units, so that a second call does nothing twice.

A unit's record is {"signature": of its files, "entries": what it gave}. Records go into a journal
as they come, so that a killed call goes on where it stopped; at the end the journal becomes
manifest.json. This file knows records as JSON has them; conversion.py makes and reads them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import LOCK_NAME, holds_nothing, read_json, write_file

MANIFEST = "manifest.json"
JOURNAL = "manifest.partial.jsonl"
PARTIAL = ".partial-"  # as files.atomic_path names what it has not finished

Record = Mapping[str, Any]
STATUSES = ("used", "left out", "skipped")
ENTRY_KEYS = {"source", "status", "reason", "case", "group", "stratum", "details"}
"""As conversion.Entry."""


class Journal:
    """Records as they come, one a line; the file exists only while units are converted."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], done: Mapping[str, Record]):
        self.path = folder / JOURNAL
        lines: list[dict[str, Any]] = [{"settings": settings}]
        if self.path.is_file():
            lines += [{"unit": unit, "record": record} for unit, record in done.items()]
        # nothing of an earlier call is lost, and no torn line is continued
        self._start = "".join(json.dumps(line) + "\n" for line in lines)
        self._begun = False
        # before the first image: what a killed call leaves must not look like a foreign folder
        if self.path.is_file() or not (folder / MANIFEST).is_file():
            self._begin()

    def add(self, unit: str, record: Record) -> None:
        if not self._begun:
            self._begin()
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"unit": unit, "record": record}) + "\n")

    def _begin(self) -> None:
        write_file(self.path, self._start)
        self._begun = True


def earlier_records(
    folder: Path, settings: Mapping[str, Any], overwrite: bool
) -> dict[str, dict[str, Any]]:
    """unit -> record of what an earlier call finished.

    From the manifest, and from the journal of a killed call. With other settings and `overwrite`
    all that the earlier call wrote is removed.

    Raises
    ------
    UserError
        The folder holds something else, or a conversion with other settings and not `overwrite`.
    """
    refuse_foreign(folder)
    manifest, journal = folder / MANIFEST, folder / JOURNAL
    records: dict[str, dict] = {}
    stored = []
    if manifest.is_file():
        content = read_json(manifest, needs=("settings", "units"))
        _check_records(manifest, content["settings"], content["units"])
        stored.append(content["settings"])
        records |= content["units"]
    if journal.is_file():
        lines = _whole_lines(journal)
        stored += [line["settings"] for line in lines if "settings" in line]
        made = {line["unit"]: line["record"] for line in lines if "unit" in line}
        _check_records(journal, stored[-1] if stored else {}, made)
        records |= made
    different = sorted(
        {k for s in stored for k in s.keys() | settings.keys() if s.get(k) != settings.get(k)}
    )
    if not different:
        return records
    if not overwrite:
        raise UserError(
            f"{folder} was converted with other settings ({', '.join(different)}): "
            "add --overwrite to convert it anew"
        )
    # what tells a conversion from a foreign folder goes last: a kill may come at any time
    for path in (
        *(folder / "imagesTr").glob("*"),
        *(folder / "labelsTr").glob("*"),
        folder / "splits_final.json",
        folder / "dataset.json",
        manifest,
        journal,
    ):
        path.unlink(missing_ok=True)
    return {}


def refuse_foreign(folder: Path) -> None:
    """UserError where the folder holds something that no conversion has written."""
    if any((folder / name).is_file() for name in (MANIFEST, JOURNAL)) or holds_nothing(folder):
        return
    # nor are folders that a killed call had made, or emptied
    ours = ("imagesTr", "labelsTr")
    rest = [p for p in folder.iterdir() if not (p.name in ours and holds_nothing(p))]
    if all(p.name.startswith((LOCK_NAME, PARTIAL)) for p in rest):
        return
    raise UserError(
        f"{folder} exists and is no conversion (it has no {MANIFEST}): "
        "move it away or choose another number (-d)"
    )


def refuse_taken_number(folder: Path, number: int) -> None:
    """UserError where another data set beside this folder has its number."""
    beside = folder.parent.glob(f"Dataset{number:03d}_*")
    others = [p.name for p in beside if p.name != folder.name]
    if others:
        raise UserError(
            f"number {number} belongs to {', '.join(others)} in {folder.parent}: "
            "choose another one (-d)"
        )


def cases_of_record(record: Record) -> list[str]:
    """The cases that a unit gave."""
    return [entry["case"] for entry in record["entries"] if entry.get("case")]


def stands(record: Record, units: Collection[str], folder: Path, file_ending: str) -> bool:
    """Whether all that a unit gave is still there, and the units that it left cases to."""
    others = {e.get("details", {}).get("made_from") for e in record["entries"]} - {None}
    return others <= set(units) and all(f.is_file() for f in _outputs(record, folder, file_ending))


def remove_outputs(
    record: Record, folder: Path, file_ending: str, *, but: Collection[str] = ()
) -> None:
    """Remove the files of a unit that is converted again; not those of the cases `but`."""
    for file in _outputs(record, folder, file_ending, but=but):
        file.unlink(missing_ok=True)


def remove_orphans(
    folder: Path, done: dict[str, dict], units: Collection[str], file_ending: str
) -> None:
    """Remove cases of units that are no longer in the input: nnU-Net counts what is in imagesTr."""
    for unit in set(done) - set(units):
        remove_outputs(done.pop(unit), folder, file_ending)


def remove_torn(folder: Path) -> None:
    """Remove what killed calls have half written: nnU-Net would take it for an image."""
    for pattern in (f"{PARTIAL}*", ".*.tmp"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def image_file(folder: Path, case: str, file_ending: str) -> Path:
    """The image of a case."""
    return folder / "imagesTr" / f"{case}_0000{file_ending}"


def _outputs(
    record: Record, folder: Path, file_ending: str, *, but: Collection[str] = ()
) -> list[Path]:
    cases = [case for case in cases_of_record(record) if case not in but]
    images = [image_file(folder, case, file_ending) for case in cases]
    labels = [folder / "labelsTr" / f"{case}{file_ending}" for case in cases]
    return images + labels


def _check_records(file: Path, settings: Any, records: Any) -> None:
    whole = isinstance(settings, dict) and isinstance(records, dict)
    if not whole or not all(
        isinstance(r, dict)
        and isinstance(r.get("signature"), str)
        and isinstance(r.get("entries"), list)
        and all(isinstance(e, dict) and _is_entry(e) for e in r["entries"])
        for r in records.values()
    ):
        raise UserError(_foreign(file))


def _is_entry(entry: Mapping[str, Any]) -> bool:
    """Manifests travel, and the files of a case may be removed: its name must lead nowhere else."""
    case = entry.get("case", "")
    named = {"source", "status"} <= entry.keys() <= ENTRY_KEYS and entry["status"] in STATUSES
    texts = all(isinstance(v, str) for k, v in entry.items() if k != "details")
    whole = named and texts and isinstance(entry.get("details", {}), dict)
    return whole and not set(case) & {"/", "\\", "\0"} and case[:1] != "."


def _whole_lines(journal: Path) -> list[dict]:
    """The journal's lines; the last one of a killed call may be torn."""
    lines = []
    for line in journal.read_bytes().splitlines():
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(content, dict) or not ("settings" in content or _is_done(content)):
            raise UserError(_foreign(journal))
        lines.append(content)
    return lines


def _is_done(line: dict) -> bool:
    """Whether a line of the journal says that a unit is done."""
    return isinstance(line.get("unit"), str) and "record" in line


def _foreign(file: Path) -> str:
    return (
        f"{file} is not as a conversion wrote it: move {file.parent} away, or choose another "
        "number (-d)"
    )
