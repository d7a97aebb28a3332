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
from nnunetv2_lngswr.utils.files import read_json, write_file

MANIFEST = "manifest.json"
JOURNAL = "manifest.partial.jsonl"

Record = Mapping[str, Any]


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
    if not folder.exists() or not any(folder.iterdir()):
        return {}
    manifest, journal = folder / MANIFEST, folder / JOURNAL
    if not manifest.is_file() and not journal.is_file():
        raise UserError(
            f"{folder} exists and is no conversion (it has no {MANIFEST}): "
            "move it away or choose another number (-d)"
        )
    records: dict[str, dict] = {}
    stored = []
    if manifest.is_file():
        content = read_json(manifest, needs=("settings", "units"))
        stored.append(content["settings"])
        records |= content["units"]
    if journal.is_file():
        lines = _whole_lines(journal)
        stored += [line["settings"] for line in lines if "settings" in line]
        records |= {line["unit"]: line["record"] for line in lines if "unit" in line}
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
    for path in (
        *(folder / "imagesTr").glob("*"),
        *(folder / "labelsTr").glob("*"),
        manifest,
        journal,
        folder / "splits_final.json",
    ):
        path.unlink(missing_ok=True)
    return {}


def cases_of_record(record: Record) -> list[str]:
    """The cases that a unit gave."""
    return [entry["case"] for entry in record["entries"] if entry.get("case")]


def stands(record: Record, units: Collection[str], folder: Path, file_ending: str) -> bool:
    """Whether all that a unit gave is still there, and the units that it left cases to."""
    others = {e.get("details", {}).get("made_from") for e in record["entries"]} - {None}
    return others <= set(units) and all(f.is_file() for f in _outputs(record, folder, file_ending))


def remove_outputs(record: Record, folder: Path, file_ending: str) -> None:
    """Remove the files of a unit that is converted again."""
    for file in _outputs(record, folder, file_ending):
        file.unlink(missing_ok=True)


def remove_orphans(folder: Path, done: dict[str, dict], units: Collection[str]) -> None:
    """Remove cases of units that are no longer in the input: nnU-Net counts what is in imagesTr."""
    for unit in set(done) - set(units):
        for case in cases_of_record(done.pop(unit)):
            for path in (
                *(folder / "imagesTr").glob(f"{case}_0000.*"),
                *(folder / "labelsTr").glob(f"{case}.*"),
            ):
                path.unlink()


def _outputs(record: Record, folder: Path, file_ending: str) -> list[Path]:
    images = [folder / "imagesTr" / f"{case}_0000{file_ending}" for case in cases_of_record(record)]
    labels = [folder / "labelsTr" / f"{case}{file_ending}" for case in cases_of_record(record)]
    return images + labels


def _whole_lines(journal: Path) -> list[dict]:
    """The journal's lines; the last one of a killed call may be torn."""
    lines = []
    for line in journal.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines
