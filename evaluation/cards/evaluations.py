"""Several evaluations of one checkpoint: checked to be that, and the lowest Dice of all of them.

Attacks, budgets and seeds may differ, since that is what a stronger evaluation changes. What is
attacked, and on which cases, may not.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.comparison.folders import ComparedModel, read_folder
from evaluation.comparison.models import check_same_inputs, label_sizes, refuse_twice
from evaluation.comparison.settings import settings_to_agree
from evaluation.differences import differences
from evaluation.model.kinds import is_given
from evaluation.options import L2, LINF
from evaluation.protocol import CORRUPTION
from evaluation.rows import MEAN_LABEL, Row
from nnunetv2_lngswr.utils.errors import UserError

# of the model, and of what `settings_to_agree` has: all else is how hard it was attacked
_SAME_MODEL = ("checkpoint_sha256", "configuration", "tile_step_size", "mirror_axes")
_SAME_DATA = ("cases", "epsilon_unit", "nsd_tolerance", "labels")
_ASKED_FOR = {
    "square": "an attack without gradients",
    "transfer": "an attack from another model",
}
"""{control: in words}, of those that do not run by themselves."""

Budget = tuple[str, str]  # norm, text of epsilon


def read_evaluations(folders: Sequence[str | Path]) -> list[ComparedModel]:
    """Finished OUT folders of one checkpoint on one set of cases, in the order given.

    Raises
    ------
    UserError
        A folder that is unfinished or damaged, is given twice or of no checkpoint, and what differs
        between two that must agree.
    """
    models = [read_folder(Path(folder)) for folder in folders]
    refuse_twice(models)
    given = next((m for m in models if is_given(m.summary["model"])), None)
    if given is not None:
        raise UserError(
            f"{given.place} is of a network that was given in memory: a card is of checkpoints of "
            "nnU-Net, which are known by their files; lngswr compare takes this folder"
        )
    first = models[0]
    for other in models[1:]:
        found = differences(_what_agrees(first), _what_agrees(other))
        if found:
            raise UserError(
                f"{first.place} and {other.place} are no evaluations of one model on one set of "
                f"cases: {'; '.join(found)}; a card each, and lngswr leaderboard, compare models"
            )
        check_same_inputs(first, other)
    return models


def claim_of(models: Sequence[ComparedModel]) -> int:
    """Index of the evaluation that claims: the first that attacked, else the first."""
    attacked = [i for i, m in enumerate(models) if any(r["kind"] == "worst" for r in m.rows)]
    return attacked[0] if attacked else 0


def lowest_rows(
    models: Sequence[ComparedModel],
) -> tuple[list[Row], dict[Budget, Counter[tuple[int, str]]]]:
    """The worst of all evaluations, case by case.

    Returns
    -------
    tuple
        Rows of kind 'worst', all labels of a case from the evaluation where its foreground Dice is
        lowest, the first of equals; and {(norm, epsilon): {(evaluation, attack): cases}}.
    """
    lowest: dict[tuple[str, str, str], tuple[float, int, list[Row]]] = {}
    for index, model in enumerate(models):
        for key, rows in _worst_by_case(model.rows).items():
            dice = next((r["dice"] for r in rows if r["label"] == MEAN_LABEL), math.nan)
            dice = math.inf if math.isnan(dice) else dice
            if key not in lowest or dice < lowest[key][0]:
                lowest[key] = dice, index, rows
    found_by: dict[Budget, Counter[tuple[int, str]]] = {}
    for (_, norm, epsilon), (_, index, rows) in lowest.items():
        found_by.setdefault((norm, epsilon), Counter())[index, rows[0]["source"]] += 1
    return [row for _, _, rows in lowest.values() for row in rows], found_by


def data_hashes(model: ComparedModel) -> dict[str, str | None]:
    """By which cards tell whether they are of the same cases, without naming any."""
    sizes = sorted([*key, size] for key, size in label_sizes(model.rows).items())
    cases = sorted(model.summary["cases"])
    files = sorted(model.inputs.items()) if set(cases) <= model.inputs.keys() else None
    return {
        "cases_sha256": _sha256([cases, sizes]),
        "files_sha256": None if files is None else _sha256(files),
    }


def not_tried(models: Sequence[ComparedModel]) -> list[str]:
    """What no evaluation did, in words."""
    rows = [r for m in models for r in m.rows]
    attacks = dict.fromkeys(r["attack"] for r in rows if r["kind"] == "attack")
    norms = {r["norm"] for r in rows if r["kind"] == "worst"}
    missing = [f"attacks in {norm.capitalize()}" for norm in (LINF, L2) if norm not in norms]
    for control, said in _ASKED_FOR.items():
        if not any(name.startswith(control) for name in attacks):
            missing.append(f"{said} ({control})")
    if not any(r["kind"] == CORRUPTION for r in rows):
        missing.append("corruptions")
    return [*missing, "an attack made against this very method"]


def _what_agrees(model: ComparedModel) -> dict[str, Any]:
    agreed = settings_to_agree(model, same_cases=True)
    of_model = {key: model.summary["model"].get(key) for key in _SAME_MODEL}
    return {**of_model, **{key: agreed[key] for key in _SAME_DATA}}


def _worst_by_case(rows: Sequence[Row]) -> Mapping[tuple[str, str, str], list[Row]]:
    """{(case, norm, epsilon): rows of its labels}."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row["kind"] == "worst":
            found.setdefault((row["case"], row["norm"], row["epsilon_text"]), []).append(row)
    return found


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
