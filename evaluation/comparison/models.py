"""What is compared: OUT folders of evaluation.robust, joined per model and checked.

A model trained several times (folds, seeds) is several folders: folds add cases, seeds are averaged
within a case. Attacks that not every folder has are left out, and the worst of all is then taken
over the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.protocol import CORRUPTION
from evaluation.report.cases_table import Row, RunKey, read_cases, run_key, with_worst
from evaluation.report.records import SCHEMA_VERSION
from evaluation.results_folder import differences
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json

# what must agree, or the difference between folders would not be one between models
SAME_OPTIONS = (
    "epsilons",
    "epsilons_l2",
    "epsilon_unit",
    "steps",
    "steps_of",
    "restarts",
    "seed",
    "nsd_tolerance",
)
# what may differ, but must be known
NOTED = (
    "dataset",
    "configuration",
    "plans",
    "tile_step_size",
    "mirror_axes",
    "patch_size",
    "folds",
)

Folders = str | Path | Sequence[str | Path]


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

    @property
    def place(self) -> str:
        """The folders, for messages."""
        return ", ".join(map(str, self.folders))


def read_models(
    folders: Sequence[Folders], names: Sequence[str] | None = None
) -> tuple[list[ComparedModel], list[str]]:
    """Read what is compared.

    Parameters
    ----------
    folders
        Per model an OUT folder, or a sequence of them.
    names
        Of the models; by default those of the trainers or folders.

    Returns
    -------
    tuple
        The models, the first of which is the baseline, and notes on what differs between them or
        was left out.

    Raises
    ------
    UserError
        A folder that is not finished, or settings that are not comparable (named).
    """
    parts = [[_read(Path(f)) for f in _each(entry)] for entry in folders]
    parts, lone_attacks = _with_common_attacks(parts)
    joined = [_joined(of) for of in parts]
    names = _telling_names(joined) if names is None else names
    models = [replace(m, name=n) for m, n in zip(joined, names, strict=True)]
    for other in models[1:]:
        _check_comparable(models[0], other)
    return models, _notes(models, lone_attacks)


def _each(entry: Folders) -> Sequence[str | Path]:
    return [entry] if isinstance(entry, (str, Path)) else entry


def _read(folder: Path) -> ComparedModel:
    for name in ("summary.json", "cases.csv"):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} has no {name}: it is no finished OUT folder of evaluation.robust"
            )
    path = folder / "summary.json"
    summary = read_json(path, needs=("schema_version", "model", "options", "cases"))
    if summary["schema_version"] != SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema_version must be {SCHEMA_VERSION}, got {summary['schema_version']}; "
            "evaluate it again"
        )
    rows = read_cases(folder / "cases.csv")
    name = summary["model"]["trainer"]
    return ComparedModel(name=name, folders=(folder,), summary=summary, rows=rows)


def _with_common_attacks(
    models: Sequence[Sequence[ComparedModel]],
) -> tuple[list[list[ComparedModel]], list[str]]:
    """The folders of all models with the attacks that all of them have, and the others' names."""
    attacks = [
        dict.fromkeys(run_key(row) for row in part.rows if row["kind"] == "attack")
        for parts in models
        for part in parts
    ]
    common = {key for key in attacks[0] if all(key in others for others in attacks)}
    lone = [key for keys in attacks for key in keys if key not in common]
    names = list(dict.fromkeys(f"{attack} {epsilon}".strip() for _, attack, _, epsilon, _ in lone))
    if not lone:
        return [list(parts) for parts in models], []
    if not common:
        raise UserError(
            f"{models[0][0].place} and the others are not comparable: they have no attack in "
            f"common ({', '.join(names)})"
        )
    return [[_restricted(part, common) for part in parts] for parts in models], names


def _restricted(part: ComparedModel, attacks: set[RunKey]) -> ComparedModel:
    """Without other attacks, and with the worst of these."""
    by_case: dict[str, list[Row]] = {}
    for row in part.rows:
        if row["kind"] in ("worst", "attack") and run_key(row) not in attacks:
            continue
        by_case.setdefault(row["case"], []).append(row)
    return replace(part, rows=[row for rows in by_case.values() for row in with_worst(rows)])


def _joined(parts: Sequence[ComparedModel]) -> ComparedModel:
    first = parts[0]
    for other in parts[1:]:
        _check_comparable(first, other, same_cases=False)
    folds = list(dict.fromkeys(f for p in parts for f in p.summary["model"]["folds"]))
    cases = list(dict.fromkeys(c for p in parts for c in p.summary["cases"]))
    model = {**first.summary["model"], "folds": folds}
    return ComparedModel(
        name=first.name,
        folders=tuple(p.folders[0] for p in parts),
        summary={**first.summary, "model": model, "cases": cases},
        rows=[r for p in parts for r in p.rows],
    )


def _telling_names(models: Sequence[ComparedModel]) -> list[str]:
    """The trainers' where they tell the models apart, else the folders', else numbered folders."""
    trainers, folders = [m.name for m in models], [m.folders[0].name for m in models]
    for names in (trainers, folders):
        if len(set(names)) == len(names):
            return names
    return [f"{i + 1} {name}" for i, name in enumerate(folders)]


def _check_comparable(a: ComparedModel, b: ComparedModel, *, same_cases: bool = True) -> None:
    found = differences(_settings(a, same_cases), _settings(b, same_cases))
    if found:
        raise UserError(f"{a.place} and {b.place} are not comparable: {'; '.join(found)}")


def _settings(model: ComparedModel, same_cases: bool) -> dict[str, Any]:
    """What must be the same in both."""
    options = model.summary["options"]
    labels = sorted({(r["label"], r["label_name"]) for r in model.rows})
    return {
        **({"cases": sorted(model.summary["cases"])} if same_cases else {}),
        **{key: options.get(key) for key in SAME_OPTIONS},
        # folders from before it existed have none
        "autocast": bool(options.get("autocast")),
        "labels": [f"{key} {name}" for key, name in labels],
    }


def _notes(models: Sequence[ComparedModel], lone_attacks: Sequence[str]) -> list[str]:
    notes = []
    for key in NOTED:
        values = [m.summary["model"][key] for m in models]
        if any(v != values[0] for v in values):
            said = ", ".join(f"{m.name} {v}" for m, v in zip(models, values))
            notes.append(f"{key} differs: {said}")
    if lone_attacks:
        notes.append(
            "attacks left out of this comparison, also of worst_linf and worst_l2, since not every "
            f"folder has them: {', '.join(lone_attacks)}"
        )
    lone = _lone_corruptions(models)
    if lone:
        notes.append(
            "corruptions left out of this comparison, since not every folder has them: "
            f"{', '.join(lone)}"
        )
    return notes


def _lone_corruptions(models: Sequence[ComparedModel]) -> list[str]:
    names = [
        dict.fromkeys(r["attack"] for r in model.rows if r["kind"] == CORRUPTION)
        for model in models
    ]
    everything = dict.fromkeys(name for of in names for name in of)
    return [name for name in everything if not all(name in of for of in names)]
