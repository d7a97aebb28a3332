"""Reads one OUT folder of evaluation.robust for a comparison: finished, whole, and of known files.

cases.csv may have been edited, cut or copied without the rest. So every run must have every case in
every label once, as summary.json lists them. What each case was made from is in the parts, which
hold the hash of its image and label.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.comparison.replicates import Replicate
from evaluation.metrics import CALIBRATION
from evaluation.model.kinds import is_given
from evaluation.report.cases_table import read_cases
from evaluation.report.records import SCHEMA_VERSION
from evaluation.rows import Row, RunKey, part_key, run_key
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json
from nnunetv2_lngswr.utils.names import refuse_no_utf8, some_names
from nnunetv2_lngswr.utils.output_folder import no_folder
from nnunetv2_lngswr.utils.values import shown

KINDS = ("clean", "attack", "worst", "shift")
_RUN = ("kind", "attack", "norm", "epsilon_text", "severity")


@dataclass(frozen=True, kw_only=True)
class ComparedModel:
    """One or several OUT folders of a model."""

    name: str
    """As shown, unique among those compared."""
    folders: tuple[Path, ...]
    summary: Mapping[str, Any]
    """As summary.json, with the folds and cases of all folders."""
    rows: Sequence[Row]
    """As cases.csv."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """{case: SHA-256 of its image and label}; without those whose folder does not say."""
    previous_stages: Mapping[str, str] = field(default_factory=dict)
    """{case: SHA-256 of the previous stage's segmentation}, of a cascade, likewise."""
    replicates: tuple[Replicate, ...] = ()
    """Its trainings, of several folders; empty where they have not all cases each."""
    recorded_groups: tuple[tuple[str, Mapping[str, Any] | None], ...] = ()
    """(folder, the groups that it was reported with) of each folder."""
    summaries: tuple[Mapping[str, Any], ...] = ()
    """As summary.json of each folder, in the order of `folders`."""

    @property
    def place(self) -> str:
        """The folders, for messages."""
        return ", ".join(map(str, self.folders))


def read_folder(folder: Path) -> ComparedModel:
    """One OUT folder.

    Raises
    ------
    UserError
        It is not finished, of another version, damaged, lacks rows or has them twice.
    """
    refuse_no_utf8(folder)
    _refuse_unfinished(folder)
    summary = _read_summary(folder / "summary.json")
    table = folder / "cases.csv"
    rows = read_cases(table)
    _check_rows(table, summary, rows)
    parts = _parts(folder, rows)
    pairs_by = _pairs_by(summary["model"])
    return ComparedModel(
        name=summary["model"]["trainer"],
        folders=(folder,),
        summary=summary,
        rows=rows,
        inputs=_hashes(parts, pairs_by),
        previous_stages=_hashes(parts, "previous_stage_sha256"),
        recorded_groups=((str(folder), summary.get("groups")),),
        summaries=(summary,),
    )


def _refuse_unfinished(folder: Path) -> None:
    if found := no_folder(folder):
        raise UserError(f"{folder} {found}: give OUT folders of lngswr evaluate")
    why = "it is no OUT folder of lngswr evaluate"
    if (folder / "settings.json").is_file():
        why = "its evaluation has not finished; the same lngswr evaluate again goes on"
    for name in ("summary.json", "cases.csv"):
        if not (folder / name).is_file():
            raise UserError(f"{folder} has no {name}: {why}")


def _pairs_by(model: Mapping[str, Any]) -> str:
    """The key of the hash of image and label in a part."""
    if is_given(model):
        return "arrays_sha256"
    # of a cascade the other hash is of the previous stage's segmentation too
    return "image_and_label_sha256" if model.get("cascade") else "inputs_sha256"


def _read_summary(path: Path) -> dict[str, Any]:
    summary = read_json(path, needs=("schema_version", "model", "options", "cases"))
    if summary["schema_version"] != SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema_version must be {SCHEMA_VERSION}, got {summary['schema_version']}; "
            "evaluate it again"
        )
    model = summary["model"]
    checks, left_out = summary.get("checks") or [], summary.get("shifts_left_out") or {}
    for what, found, is_right in (
        ("model", model, isinstance(model, dict)),
        ("options", summary["options"], isinstance(summary["options"], dict)),
        ("cases", summary["cases"], _are_texts(summary["cases"])),
        ("results", summary.get("results", []), _are_records(summary.get("results", []))),
        ("checks", checks, _are_texts(checks)),
        ("shifts_left_out", left_out, isinstance(left_out, dict)),
    ):
        if not is_right:
            raise UserError(f"{path}: {what} is damaged, got {shown(found)}; evaluate it again")
    for key, is_right in (
        ("trainer", isinstance(model.get("trainer"), str)),
        ("folds", isinstance(model.get("folds"), list)),
        ("folder", isinstance(model.get("folder"), str | None)),
        ("checkpoint_sha256", _is_of_texts(model.get("checkpoint_sha256", {}))),
    ):
        if not is_right:
            raise UserError(
                f"{path} does not say which model it is of: model.{key} is "
                f"{shown(model.get(key))}; evaluate it again"
            )
    return summary


def _is_of_texts(table: Any) -> bool:
    return isinstance(table, dict) and all(isinstance(v, str) for v in table.values())


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(v, str) for v in values)


def _are_records(values: Any) -> bool:
    """A list of objects whose names of runs are no lists or objects."""
    return isinstance(values, list) and all(
        isinstance(r, dict) and not any(isinstance(r.get(k), (list, dict)) for k in _RUN)
        for r in values
    )


def _check_rows(path: Path, summary: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Every run has every case in every label, once."""
    unknown = [shown(r["kind"]) for r in rows if r["kind"] not in KINDS]
    if unknown:
        raise UserError(
            f"{path}: kind must be one of {', '.join(KINDS)}, got {unknown[0]}; evaluate it again"
        )
    for metric in ("dice", *CALIBRATION):
        found = [r[metric] for r in rows if r[metric] is not None]
        outside = [v for v in found if not (math.isnan(v) or 0 <= v <= 1)]
        if outside:
            raise UserError(
                f"{path}: {metric} must be in [0, 1], got {outside[0]:g}; evaluate it again"
            )
    counts: dict[tuple[RunKey, str, str], int] = {}
    for row in rows:
        key = run_key(row), row["case"], row["label"]
        counts[key] = counts.get(key, 0) + 1
    twice = [_named(*key) for key, count in counts.items() if count > 1]
    if twice:
        raise UserError(
            f"{path} has {len(twice)} rows more than once: {some_names(twice)}; evaluate it again"
        )
    foreign = sorted({case for _, case, _ in counts} - set(summary["cases"]))
    if foreign:
        raise UserError(
            f"{path} has cases that summary.json beside it does not list: {some_names(foreign)}; "
            "evaluate it again"
        )
    runs = dict.fromkeys([*_runs(summary), *(run for run, _, _ in counts)])
    labels = dict.fromkeys(label for _, _, label in counts)
    missing = [
        _named(run, case, label)
        for run in runs
        for case in summary["cases"]
        for label in labels
        if (run, case, label) not in counts
    ]
    if missing or not counts:
        what = f"{len(missing)} rows: {some_names(missing)}" if missing else "all rows"
        raise UserError(f"{path} lacks {what}; evaluate it again")


def _runs(summary: Mapping[str, Any]) -> list[RunKey]:
    """Those that summary.json has results of, and the clean one."""
    runs: list[RunKey] = [("clean", "clean", "", "", None)]
    for record in summary.get("results", []):
        kind, attack, norm, epsilon, severity = (record.get(k) for k in _RUN)
        if kind in KINDS:
            runs.append((kind, attack or "", norm or "", epsilon or "", severity))
    return runs


def _named(run: RunKey, case: str, label: str) -> str:
    _, attack, norm, epsilon, severity = run
    severity = "" if severity is None else str(severity)
    title = " ".join(part for part in (attack, norm, epsilon, severity) if part)
    return f"{title} of {case} in label {label}"


def _parts(folder: Path, rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """{case: its part}; of a folder that was copied without its parts, nothing."""
    found = {}
    for case, key in dict.fromkeys((r["case"], part_key(r)) for r in rows):
        part = folder / "parts" / f"{key}.json"
        if part.is_file():
            found[case] = read_json(part)
            if not isinstance(found[case], dict):
                raise UserError(f"{part} is damaged, got {shown(found[case])}; evaluate it again")
    return found


def _hashes(parts: Mapping[str, Mapping[str, Any]], key: str) -> dict[str, str]:
    """{case: what its part has under the key}; parts of earlier versions have fewer keys."""
    return {c: part[key] for c, part in parts.items() if isinstance(part.get(key), str)}
