"""What a robustness card holds, from the OUT folders of one checkpoint.

All figures are taken anew from the rows of cases.csv. No path gets into a card, and no name of a
case but those that checks and notes name: a card travels, and names of cases may be patients'.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.cards.evaluations import (
    claim_of,
    data_hashes,
    lowest_rows,
    not_tried,
)
from evaluation.cards.reading import GROUPS
from evaluation.cards.schema import FORMAT, SCHEMA_VERSION, printable, what_is_wrong
from evaluation.comparison.folders import ComparedModel
from evaluation.comparison.settings import ATTACK_OPTIONS, settings_to_agree
from evaluation.groups import Groups, common_groups
from evaluation.metrics import CALIBRATION
from evaluation.options import LIMITS, check_integer
from evaluation.protocol import CORRUPTION
from evaluation.report.calibration import METHOD, is_calibrated
from evaluation.report.formats import json_ready
from evaluation.report.records import (
    CORRUPTION_MEAN,
    CORRUPTIONS_MEAN,
    attack_settings,
    summarise,
)
from evaluation.rows import is_noise
from nnunetv2_lngswr.attacks.suites import SUITES, suites_among
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.values import shown

_MODEL = (
    "trainer",
    "plans",
    "configuration",
    "dataset",
    "folds",
    "checkpoint",
    "checkpoint_sha256",
    "tile_step_size",
    "mirror_axes",
    "patch_size",
)
_ENDS = ("", "_low", "_high")  # of a figure with its interval
_FIXED_BY_SUITE = ("steps", "steps_of", "restarts")

Record = Mapping[str, Any]


def build_card(models: Sequence[ComparedModel], *, name: str | None = None) -> dict[str, Any]:
    """The card, as its schema has it.

    Parameters
    ----------
    models
        Of `evaluations.read_evaluations`; the first that attacked makes the claim.
    name
        Of the model; None: TRAINER__PLANS__CONFIGURATION.

    Raises
    ------
    UserError
        A summary.json that does not say what a card needs, or is damaged.
    """
    index = claim_of(models)
    claim = models[index]
    summary = claim.summary
    # of the others too: one card has intervals of one kind
    groups = common_groups(claim.recorded_groups, summary["cases"])
    records = [summarise(m.rows, seed=_seed(m), groups=groups) for m in models]
    known = _best_known(models, index, groups)
    model = {key: summary["model"].get(key) for key in _MODEL}
    clean = next(r for r in records[index] if r["kind"] == "clean")
    card = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "name": name or "__".join(str(model[k]) for k in ("trainer", "plans", "configuration")),
        "model": model,
        "data": {
            "protocol": summary.get("protocol"),
            "cases": len(summary["cases"]),
            "labels": {key: label["name"] for key, label in clean["labels"].items()},
            **data_hashes(claim),
        },
        "threat_model": _threat_model(summary),
        "protocol": _protocol(claim),
        "metrics": _metrics(summary, groups),
        "clean": _figures(clean),
        "worst": _worst(models, index, records[index], known),
        "corruptions": _corruptions(models, records),
        "calibration": _calibration(clean, known, records),
        "not_tried": not_tried(models),
        "evaluations": [_evaluation(m) for m in models],
    }
    card = printable(_rounded(json_ready(card)))
    wrong = what_is_wrong(card)
    if wrong:
        raise UserError(
            f"of {', '.join(m.place for m in models)} no card can be made: {wrong}; "
            "evaluate it again"
        )
    return card


def _seed(model: ComparedModel) -> int:
    seed = model.summary["options"].get("seed", 0)
    check_integer(f"{model.place}/summary.json: options.seed", seed, *LIMITS["seed"])
    return seed


def _metrics(summary: Mapping[str, Any], groups: Groups | None) -> Any:
    metrics = summary.get("metrics")
    if groups is None or not isinstance(metrics, dict):
        return metrics
    return {**metrics, GROUPS: groups.count(summary["cases"])}


def _threat_model(summary: Mapping[str, Any]) -> Any:
    """Parts of the earliest versions say the unit alone."""
    return summary.get("threat_model") or {"epsilon_unit": summary["options"].get("epsilon_unit")}


def _protocol(claim: ComparedModel) -> dict[str, Any]:
    suite = claim.summary.get("suite")
    options, fixed = claim.summary["options"], _FIXED_BY_SUITE if suite else ()
    agreed = settings_to_agree(claim, same_cases=False)
    return {
        "suite": suite,
        "attacks": None if suite else [_said(a) for a in attack_settings(claim.rows)],
        **{key: options.get(key) for key in ATTACK_OPTIONS if key not in fixed},
        **{key.replace(" ", "_"): value for key, value in agreed.items()},
    }


def _said(attack: Record) -> str:
    """'pgd_linf (linf): steps 10, restarts 1, loss ce', what is not set left out."""
    named = {k: v for k, v in attack.items() if k not in ("attack", "norm") and v not in (None, "")}
    settings = ", ".join(f"{k} {v}" for k, v in named.items())
    return f"{attack['attack']} ({attack['norm'] or 'no budget'}): {settings or 'no settings'}"


def _figures(record: Record) -> dict[str, Any]:
    figures = {f"{k}{end}": record[f"{k}{end}"] for k in ("dice", "drop") for end in _ENDS}
    figures |= {key: record[key] for key in ("iou", "nsd")}
    return {**figures, "hd95": record["hd95_mm"], "labels": record["labels"]}


def _best_known(models: Sequence[ComparedModel], index: int, groups: Groups | None) -> list[Record]:
    """Of every norm and budget, the lowest of all evaluations; `index`: of the one that claims."""
    claim = models[index]
    rows, _ = lowest_rows(models)
    clean = [r for r in claim.rows if r["kind"] == "clean"]
    known = summarise([*clean, *rows], seed=_seed(claim), groups=groups)
    lowest = [r for r in known if r["kind"] == "worst"]
    return sorted(lowest, key=lambda r: (r["norm"] != "linf", r["epsilon"]))


def _worst(
    models: Sequence[ComparedModel],
    index: int,
    claimed: Sequence[Record],
    known: Sequence[Record],
) -> list[dict[str, Any]]:
    """One entry per norm and budget: what is claimed there, and the lowest that is known."""
    claim = models[index]
    _, found_by = lowest_rows(models)
    entries = []
    for record in known:
        budget = record["norm"], record["epsilon_text"]
        there = [r for r in claimed if (r["norm"], r["epsilon_text"]) == budget]
        noise = next((r for r in there if is_noise(r)), None)
        sources = sorted(found_by[budget].items(), key=lambda item: (-item[1], item[0]))
        entries.append(
            {
                "norm": record["norm"],
                "epsilon": record["epsilon"],
                "epsilon_text": record["epsilon_text"],
                "noise": None if noise is None else _figures(noise),
                "claimed": _claimed(claim, index, there),
                "best_known": {
                    "found_by": [
                        {"attack": attack, "evaluation": i, "cases": cases}
                        for (i, attack), cases in sources
                    ],
                    "figures": _figures(record),
                },
            }
        )
    return entries


def _claimed(claim: ComparedModel, index: int, there: Sequence[Record]) -> dict[str, Any] | None:
    """The suite's figure where there is one, else the worst of all attacks of the evaluation."""
    of_suite = [r for r in there if suites_among([r["attack"]]) == [claim.summary.get("suite")]]
    found = of_suite or [r for r in there if r["kind"] == "worst"]
    if not found:
        return None
    attack = claim.summary["suite"] if of_suite else found[0]["attack"]
    return {"attack": attack, "evaluation": index, "figures": _figures(found[0])}


def _corruptions(
    models: Sequence[ComparedModel], records: Sequence[Sequence[Record]]
) -> dict[str, Any] | None:
    """Of the first evaluation that has them."""
    for index, (model, of) in enumerate(zip(models, records)):
        means = [r for r in of if r["kind"] == CORRUPTION_MEAN]
        if means:
            return {
                "evaluation": index,
                "mean": _figures(next(r for r in of if r["kind"] == CORRUPTIONS_MEAN)),
                "each": [_corruption(_strengths(model), mean, of) for mean in means],
            }
    return None


def _calibration(
    clean: Record, known: Sequence[Record], records: Sequence[Sequence[Record]]
) -> dict[str, Any] | None:
    """Of the clean cases, the lowest Dice that is known at each budget, and the corruptions; null
    where the evaluation that claims has none."""
    if not is_calibrated(clean):
        return None
    corruptions = [r for of in records for r in of if r["kind"] == CORRUPTIONS_MEAN]
    return {
        "method": METHOD,
        "clean": _calibration_of(clean),
        "worst": [
            {"norm": r["norm"], "epsilon_text": r["epsilon_text"], **_calibration_of(r)}
            for r in known
            if is_calibrated(r)
        ],
        "corruptions": next(map(_calibration_of, filter(is_calibrated, corruptions)), None),
    }


def _calibration_of(record: Record) -> dict[str, Any]:
    return {f"{m}{end}": record[f"{m}{end}"] for m in CALIBRATION for end in _ENDS}


def _strengths(model: ComparedModel) -> Mapping[str, Mapping[str, Any]]:
    """{corruption: its strengths and their unit}."""
    found = model.summary.get("shift_strengths", {})
    if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
        raise UserError(
            f"{model.place}/summary.json: shift_strengths is damaged, got {shown(found)}; "
            "evaluate it again"
        )
    return found


def _corruption(
    strengths: Mapping[str, Mapping[str, Any]], mean: Record, records: Sequence[Record]
) -> dict[str, Any]:
    name = mean["attack"]
    severities = [r for r in records if (r["kind"], r["attack"]) == (CORRUPTION, name)]
    known = strengths.get(name, {})
    return {
        "name": name,
        "strengths": known.get("strengths", []),
        "unit": known.get("unit", ""),
        "dice": [r["dice"] for r in sorted(severities, key=lambda r: r["severity"])],
        "mean": _figures(mean),
    }


def _evaluation(model: ComparedModel) -> dict[str, Any]:
    summary, options = model.summary, model.summary["options"]
    suite = summary.get("suite")
    members = [
        {"name": m.name, "attack": m.attack, "settings": dict(m.options), "goes_on": m.goes_on}
        for m in SUITES.get(str(suite), ())
    ]
    file = model.folders[0] / "summary.json"
    return {
        "suite": None if suite is None else {"name": suite, "members": members},
        "attacks": attack_settings(model.rows),
        **{key: options.get(key) for key in ("epsilons", "epsilons_l2", "seed")},
        "autocast": bool(options.get("autocast")),
        "checks": summary.get("checks"),
        "notes": _without_paths(summary.get("notes"), options.get("surrogate")),
        "environments": summary.get("environments") or [summary.get("environment")],
        "summary_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }


def _rounded(value: Any) -> Any:
    """To nine digits, as in cases.csv."""
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


def _without_paths(notes: Any, surrogate: Any) -> Any:
    """A note on transfer names the surrogate's folder."""
    if not isinstance(notes, list) or not isinstance(surrogate, str):
        return notes
    return [str(note).replace(surrogate, Path(surrogate).name) for note in notes]
