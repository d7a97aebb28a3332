"""What every conversion to nnU-Net raw format shares: units of work that are done once, a manifest of what was used and what was not,
dataset.json and splits_final.json.

A unit (a scan's folder, an image with its masks) is converted as a whole. What it gave goes into a journal when it ends, so that a killed
call goes on where it stopped; at the end the journal becomes manifest.json. A unit whose files are as the manifest says (names, sizes, times)
is not read again, and a second call changes no file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nnunetv2_lngswr.datasets.options import DatasetSpec
from nnunetv2_lngswr.datasets.splits import make_folds, splits_text
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json, write_file

MANIFEST = "manifest.json"
JOURNAL = "manifest.partial.jsonl"
SCHEMA_VERSION = 1
STATUSES = ("used", "left out", "skipped")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the manifest. `source`: file or folder, relative to the input folder. `status`: used; left out (by the settings, nothing is
    wrong); skipped (something is wrong, `reason` says what). `case`, `group`, `stratum`: of a case that was written, for the splits."""

    source: str
    status: str
    reason: str = ""
    case: str | None = None
    group: str | None = None
    stratum: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        assert self.status in STATUSES, self.status


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Work done at once. `files`: what it reads. `convert(folder, taken)` writes imagesTr/ and labelsTr/ files below the data set's folder
    and returns the entries; it makes no case of `taken`, which tells the cases of other units, each with its unit's key, and an entry that is skipped
    for that has the key as `made_from` in its details. `also`: whatever else decides the result."""

    key: str
    files: Sequence[Path]
    convert: Callable[[Path, Mapping[str, str]], list[Entry]]
    also: str = ""

    def signature(self) -> str:
        stats = [
            (file.name, (s := file.stat()).st_size, s.st_mtime_ns) for file in sorted(self.files)
        ]
        return hashlib.sha256(repr((stats, self.also)).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What a conversion did. `folder`: the data set. `converted`: units worked on by this call, `kept`: done before. `split_problem`: why there
    is no splits_final.json, else empty."""

    folder: Path
    entries: Sequence[Entry]
    converted: int
    kept: int
    split_problem: str = ""

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(e.status for e in self.entries)
        return {status: found[status] for status in STATUSES}

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
    overwrite: bool = False,
    progress: bool = True,
) -> Conversion:
    """Convert `units` into DatasetXXX_NAME below `raw_folder` (nnUNet_raw). `settings`: what decides the result, compared with those of an
    earlier call. `entries`: what was found wrong before any unit. ValueError, before anything is written, if the folder holds something
    else, or a conversion with other settings and not `overwrite`, or if the number is taken."""
    from tqdm import tqdm

    folder = Path(raw_folder) / target.dataset_name
    settings = json.loads(json.dumps({**settings, "target": asdict(target)}))
    done = _earlier(folder, settings, overwrite)
    _refuse_taken_number(Path(raw_folder), target)
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    keys = {u.key for u in units}
    _remove_orphans(folder, done, keys)

    converted = 0
    with _Journal(folder, settings, done) as journal:
        for unit in tqdm(units, desc=target.dataset_name, unit="unit", disable=not progress):
            signature = unit.signature()
            record = done.get(unit.key)
            if (
                record is not None
                and record["signature"] == signature
                and _stands(record, keys, folder, target)
            ):
                continue
            _remove(folder, record, target)
            taken = {
                e["case"]: key
                for key, r in done.items()
                if key != unit.key
                for e in r["entries"]
                if e.get("case")
            }
            found = unit.convert(folder, taken)
            done[unit.key] = {"signature": signature, "entries": [_plain(e) for e in found]}
            journal.add(unit.key, done[unit.key])
            converted += 1
    records = {u.key: done[u.key] for u in units}
    everything = [*entries, *(Entry(**e) for r in records.values() for e in r["entries"])]
    problem = _finish(folder, target, settings, records, entries, everything)
    return Conversion(
        folder=folder,
        entries=everything,
        converted=converted,
        kept=len(units) - converted,
        split_problem=problem,
    )


def case_name(text: str) -> str:
    """A name for files that shells and nnU-Net take: 'benign (1)' -> 'benign_1'."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_.") or "case"


def source_name(path: Path, root: Path) -> str:
    """A file as the manifest names it: relative to the input folder `root`, or in full if it lies elsewhere."""
    return (
        path.relative_to(root).as_posix()
        if path.is_relative_to(root)
        else path.resolve().as_posix()
    )


def write_if_changed(path: Path, text: str) -> None:
    """Write only what differs, so that a second call leaves the file's time alone."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_file(path, text)


# --- helpers ------------------------------------------------------------------------------------------------------------------------


def _earlier(folder: Path, settings: Mapping[str, Any], overwrite: bool) -> dict[str, dict]:
    """The records of units that an earlier call finished, from the manifest and from the journal of a killed call."""
    if not folder.exists() or not any(folder.iterdir()):
        return {}
    manifest, journal = folder / MANIFEST, folder / JOURNAL
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
    if not manifest.is_file() and not journal.is_file():
        raise UserError(
            f"{folder} exists and is no conversion (it has no {MANIFEST}): move it away or choose another number (-d)"
        )
    different = sorted(
        {k for s in stored for k in s.keys() | settings.keys() if s.get(k) != settings.get(k)}
    )
    if different and not overwrite:
        raise UserError(
            f"{folder} was converted with other settings ({', '.join(different)}): add --overwrite to convert it anew"
        )
    if different:
        for path in [
            *(folder / "imagesTr").glob("*"),
            *(folder / "labelsTr").glob("*"),
            manifest,
            journal,
            folder / "splits_final.json",
        ]:
            path.unlink(missing_ok=True)
        return {}
    return records


def _whole_lines(journal: Path) -> list[dict]:
    """The journal's lines; the last one of a killed call may be torn."""
    lines = []
    for line in journal.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


class _Journal:
    """Records as they come, one a line; the file exists only while units are converted."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], done: Mapping[str, dict]):
        self.path = folder / JOURNAL
        known = (
            [json.dumps({"unit": k, "record": r}) for k, r in done.items()]
            if self.path.is_file()
            else []
        )
        # nothing of an earlier call is lost, and no torn line is continued
        self.start = "".join(line + "\n" for line in [json.dumps({"settings": settings}), *known])
        self.file = None

    def __enter__(self) -> _Journal:
        # before the first image: what a killed call leaves must not look like a foreign folder
        if self.path.is_file() or not (self.path.parent / MANIFEST).is_file():
            self._open()
        return self

    def _open(self) -> None:
        write_file(self.path, self.start)
        self.file = open(self.path, "a", encoding="utf-8")

    def add(self, key: str, record: Mapping[str, Any]) -> None:
        if self.file is None:
            self._open()
        self.file.write(json.dumps({"unit": key, "record": record}) + "\n")
        self.file.flush()

    def __exit__(self, *_) -> None:
        if self.file is not None:
            self.file.close()


def _refuse_taken_number(raw_folder: Path, target: DatasetSpec) -> None:
    others = [
        p.name
        for p in raw_folder.glob(f"Dataset{target.dataset_id:03d}_*")
        if p.name != target.dataset_name
    ]
    if others:
        raise UserError(
            f"number {target.dataset_id} belongs to {', '.join(others)} in {raw_folder}: choose another one (-d)"
        )


def _plain(entry: Entry) -> dict[str, Any]:
    return {k: v for k, v in asdict(entry).items() if v not in ("", None, {})}


def _outputs(record: Mapping[str, Any], target: DatasetSpec) -> list[str]:
    cases = [e["case"] for e in record["entries"] if e.get("case")]
    return [
        name
        for c in cases
        for name in (f"imagesTr/{c}_0000{target.file_ending}", f"labelsTr/{c}{target.file_ending}")
    ]


def _stands(
    record: Mapping[str, Any], keys: Collection[str], folder: Path, target: DatasetSpec
) -> bool:
    """Whether all that a unit gave is still there, and the units that it left cases to."""
    others = {e.get("details", {}).get("made_from") for e in record["entries"]} - {None}
    return others <= set(keys) and all(
        (folder / name).is_file() for name in _outputs(record, target)
    )


def _remove(folder: Path, record: Mapping[str, Any] | None, target: DatasetSpec) -> None:
    for name in _outputs(record, target) if record else ():
        (folder / name).unlink(missing_ok=True)


def _remove_orphans(folder: Path, done: dict[str, dict], keys: Iterable[str]) -> None:
    """Cases of units that are no longer in the input: nnU-Net counts what lies in imagesTr."""
    for key in set(done) - set(keys):
        cases = [e["case"] for e in done.pop(key)["entries"] if e.get("case")]
        for case in cases:
            for path in (
                *(folder / "imagesTr").glob(f"{case}_0000.*"),
                *(folder / "labelsTr").glob(f"{case}.*"),
            ):
                path.unlink()


def _finish(
    folder: Path,
    target: DatasetSpec,
    settings,
    records,
    before: Sequence[Entry],
    entries: Sequence[Entry],
) -> str:
    """Write dataset.json, splits_final.json and the manifest, and end the journal. Returns why there are no splits, or ''."""
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
    problem = ""
    try:
        folds = make_folds({e.case: e.group or e.case for e in cases}, folds=target.folds, seed=target.seed,
                           strata={e.case: e.stratum or "" for e in cases})  # fmt: skip
        # those of `lngswr splits` stay as long as they fit
        if not _splits_fit(folder / "splits_final.json", {e.case for e in cases}):
            write_file(folder / "splits_final.json", splits_text(folds))
    except ValueError as error:
        problem = str(error)
        (folder / "splits_final.json").unlink(missing_ok=True)
    counts = Counter(e.status for e in entries)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "summary": {status: counts[status] for status in STATUSES}
        | {"cases": len(cases), "groups": len({e.group or e.case for e in cases})},
        "settings": settings,
        "before": [_plain(e) for e in before],
        "units": records,
    }
    write_if_changed(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    (folder / JOURNAL).unlink(missing_ok=True)
    return problem


def _splits_fit(path: Path, cases: set[str]) -> bool:
    """Whether there are splits of exactly these cases."""
    if not path.is_file():
        return False
    try:
        folds = json.loads(path.read_text(encoding="utf-8"))
        return bool(folds) and all({*fold["train"], *fold["val"]} == cases for fold in folds)
    except (ValueError, TypeError, KeyError):
        return False
