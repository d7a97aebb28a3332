"""What is compared: OUT folders of evaluation.robust, joined per model and checked.

A model trained several times (folds, seeds) is several folders: folds add cases, seeds are averaged
within a case. Attacks that not every folder has are left out, and the worst of all is then taken
over the others; so are corruptions that only some folders of a model have. Cases are paired by
name, and their images and labels must be the same files; what a cascade was given of its previous
stage may differ, and is then noted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from evaluation.comparison.attack_checks import checks_of_rows
from evaluation.comparison.folders import ComparedModel, read_folder
from evaluation.comparison.notes import (
    notes_on_folders,
    notes_on_inputs,
    notes_on_models,
    of_arrays,
)
from evaluation.comparison.replicates import part_of, replicates_of
from evaluation.comparison.settings import compared_settings
from evaluation.differences import differences
from evaluation.protocol import CORRUPTION
from evaluation.rows import MEAN_LABEL, Row, RunKey, run_key, with_worst
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import some_names

# of the folders of one model
OF_ONE_MODEL = ("trainer", "configuration")

Folders = str | Path | Sequence[str | Path]


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
    return join_models([[read_folder(Path(f)) for f in _each(entry)] for entry in folders], names)


def join_models(
    parts: Sequence[Sequence[ComparedModel]], names: Sequence[str] | None = None
) -> tuple[list[ComparedModel], list[str]]:
    """`read_models`, of folders that have been read: per model its folders.

    Raises
    ------
    UserError
        As there.
    """
    if not all(parts):
        raise UserError(f"every model needs at least one folder, got {[len(p) for p in parts]}")
    for of in parts:
        refuse_twice(of)
        _refuse_one_training_twice(of)
    _refuse_other_suites(parts)
    parts, lone_attacks = _with_common_attacks(parts)
    parts, notes = _with_own_corruptions(parts)
    notes += [note for of in parts for note in notes_on_folders(of)]
    joined = [_joined(of) for of in parts]
    names = _telling_names(joined) if names is None else names
    if len(names) != len(joined) or len(set(names)) < len(names):
        raise UserError(
            f"names must be one for each of the {len(joined)} models, no two alike, "
            f"got {', '.join(map(str, names))}"
        )
    models = [replace(m, name=n) for m, n in zip(joined, names)]
    for other in models[1:]:
        _check_comparable(models[0], other)
        check_same_inputs(models[0], other)
    return models, [*notes, *notes_on_models(models, lone_attacks), *notes_on_inputs(models)]


def _refuse_other_suites(models: Sequence[Sequence[ComparedModel]]) -> None:
    """Before attacks that not all have are left out: one of them may be the suite in a norm."""
    first, *others = [part for of in models for part in of]
    for other in others:
        found = differences({"suite": _suite(first)}, {"suite": _suite(other)})
        if found:
            raise UserError(f"{first.place} and {other.place} are not comparable: {found[0]}")


def _suite(model: ComparedModel) -> str | None:
    """Such as 'worst-v2 in linf, l2'."""
    suite = model.summary.get("suite")
    runs = [r for r in model.rows if r["kind"] == "attack" and r["attack"].startswith(str(suite))]
    norms = dict.fromkeys(r["norm"] for r in runs)
    return suite and f"{suite} in {', '.join(norms)}"


def _each(entry: Folders) -> Sequence[str | Path]:
    return [entry] if isinstance(entry, (str, Path)) else entry


def refuse_twice(parts: Sequence[ComparedModel]) -> None:
    """A model's folders are folds and seeds: one that is given twice would count for two."""
    seen: dict[Path, Path] = {}
    for folder in (f for part in parts for f in part.folders):
        other = seen.setdefault(folder.resolve(), folder)
        if other is not folder:
            raise UserError(
                f"{other} and {folder} are the same folder, which was given twice for one model; "
                "give each of its folders once"
            )


def _refuse_one_training_twice(parts: Sequence[ComparedModel]) -> None:
    """Nor may one checkpoint be judged twice on the same cases, in a copy or another folder."""
    for one, other in itertools.combinations(parts, 2):
        by_fold = [
            set(p.summary["model"].get("checkpoint_sha256", {}).items()) for p in (one, other)
        ]
        cases = set(one.summary["cases"]) & set(other.summary["cases"])
        if set.intersection(*by_fold) and cases:
            raise UserError(
                f"{one.place} and {other.place} are of the same checkpoint and cases, which would "
                "count as two trainings: give one of them"
            )


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
    worst = [{run_key(r) for r in p.rows if r["kind"] == "worst"} for of in models for p in of]
    if not lone and all(of == worst[0] for of in worst):
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
    rows = [row for rows in by_case.values() for row in with_worst(rows)]
    # what the checks said of attacks that are left out is none of this comparison's
    summaries = tuple(
        {**s, "checks": checks_of_rows(rows)} if "checks" in s else s for s in part.summaries
    )
    return replace(part, rows=rows, summaries=summaries)


def _with_own_corruptions(
    models: Sequence[Sequence[ComparedModel]],
) -> tuple[list[list[ComparedModel]], list[str]]:
    """Without corruptions that only some of a model's folders have: its mean would lack cases."""
    kept, notes = [], []
    for parts in map(list, models):
        keys = [{run_key(r) for r in part.rows if r["kind"] == CORRUPTION} for part in parts]
        lone = set.union(*keys) - set.intersection(*keys)
        if lone:
            parts = [replace(p, rows=[r for r in p.rows if run_key(r) not in lone]) for p in parts]
            names = ", ".join(sorted({attack for _, attack, *_ in lone}))
            notes.append(
                "corruptions left out of this comparison, since only some of the folders of "
                f"{parts[0].place} and those joined with it have them: {names}"
            )
        kept.append(parts)
    return kept, notes


def _joined(parts: Sequence[ComparedModel]) -> ComparedModel:
    first = parts[0]
    for other in parts[1:]:
        _check_comparable(first, other, same_cases=False)
        _check_same_training(first, other)
    for one, other in itertools.combinations(parts, 2):
        check_same_inputs(one, other)
    folds = list(dict.fromkeys(f for p in parts for f in p.summary["model"]["folds"]))
    cases = list(dict.fromkeys(c for p in parts for c in p.summary["cases"]))
    model = {**first.summary["model"], "folds": folds}
    return ComparedModel(
        name=first.name,
        folders=tuple(p.folders[0] for p in parts),
        summary={**first.summary, "model": model, "cases": cases},
        rows=[r for p in parts for r in p.rows],
        inputs={c: sha for p in parts for c, sha in p.inputs.items()},
        previous_stages={c: sha for p in parts for c, sha in p.previous_stages.items()},
        replicates=replicates_of([part_of(p.summary, p.rows) for p in parts], cases),
        recorded_groups=tuple(recorded for p in parts for recorded in p.recorded_groups),
        summaries=tuple(summary for p in parts for summary in p.summaries),
    )


def _telling_names(models: Sequence[ComparedModel]) -> list[str]:
    """The trainers' where they tell the models apart, else the folders', else numbered folders."""
    trainers, folders = [m.name for m in models], [m.folders[0].name for m in models]
    for names in (trainers, folders):
        if len(set(names)) == len(names):
            return names
    return [f"{i + 1} {name}" for i, name in enumerate(folders)]


def _check_comparable(a: ComparedModel, b: ComparedModel, *, same_cases: bool = True) -> None:
    found = differences(compared_settings(a, same_cases), compared_settings(b, same_cases))
    if found:
        raise UserError(f"{a.place} and {b.place} are not comparable: {'; '.join(found)}")


def _check_same_training(a: ComparedModel, b: ComparedModel) -> None:
    """The folders of one model are folds and seeds of one trainer in one configuration."""
    first, second = ({key: m.summary["model"].get(key) for key in OF_ONE_MODEL} for m in (a, b))
    found = differences(first, second)
    if found:
        raise UserError(
            f"{a.place} and {b.place} are joined by a comma, but are not folds or seeds of one "
            f"model: {'; '.join(found)}; give them apart"
        )


def check_same_inputs(a: ComparedModel, b: ComparedModel) -> None:
    """A name alone says little: the cases of that name must be of the same image and label.

    Raises
    ------
    UserError
        They are not; names the cases.
    """
    theirs = b.inputs if of_arrays(a) == of_arrays(b) else {}
    other_files = sorted(c for c in a.inputs if theirs.get(c, a.inputs[c]) != a.inputs[c])
    if other_files:
        raise UserError(
            f"{a.place} and {b.place} are not comparable: image or label of "
            f"{some_names(other_files)} are other files under the same name (by their SHA-256); "
            "evaluate both models on the same images and labels"
        )
    # what is left of the label where a folder keeps no hashes
    sizes = label_sizes(b.rows)
    for (case, label), voxels in label_sizes(a.rows).items():
        if sizes.get((case, label), voxels) != voxels:
            raise UserError(
                f"{a.place} and {b.place} are not comparable: label {label} of {case} has {voxels} "
                f"voxels in one and {sizes[case, label]} in the other; "
                "evaluate both models on the same images and labels"
            )


def label_sizes(rows: Iterable[Row]) -> dict[tuple[str, str], int]:
    """{(case, label): voxels of the ground truth}, of rows of cases.csv."""
    return {
        (r["case"], r["label"]): r["reference_voxels"]
        for r in rows
        if r["kind"] == "clean" and r["label"] != MEAN_LABEL and r["reference_voxels"] is not None
    }
