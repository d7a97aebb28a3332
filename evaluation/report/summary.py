"""summary.json: what was evaluated, how, on what, and what came of it, from the parts of all cases.

Names are those of all versions: a corruption's results have kind 'shift'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation import significance
from evaluation.corruption_table import CORRUPTIONS
from evaluation.metrics import EMPTY_MASK_RULE
from evaluation.model.kinds import is_given
from evaluation.protocol import CORRUPTION, EvaluationRun
from evaluation.report import records
from evaluation.report.calibration import METHOD, is_calibrated, not_in_all
from evaluation.report.checks import all_checks
from evaluation.report.intervals import over
from evaluation.report.members import dice_after_members
from evaluation.rows import never_there
from evaluation.seen_cases import seen_cases
from evaluation.session import BEST_ITERATE, BEST_ITERATE_BEFORE, Session

Part = Mapping[str, Any]


def build_summary(
    session: Session, parts: Sequence[Part], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The content of summary.json.

    Parameters
    ----------
    session
        What was decided before the first case.
    parts
        One per case of the session, in its order, as `ResultsFolder.load` gives them.
    rows
        Their rows, in the order of cases.csv.
    """
    options, planned = session.options, session.planned
    results = records.summarise(rows, seed=options.seed, groups=session.groups)
    folds = _folds(session)
    seen = _seen(session, folds)
    environments = [dict(e) for e in dict.fromkeys(tuple(p["environment"].items()) for p in parts)]
    corruptions = dict.fromkeys(r.name for r in planned.runs if r.kind == CORRUPTION)
    return {
        "schema_version": records.SCHEMA_VERSION,
        "model": _model(session, folds),
        "protocol": "; ".join(filter(None, [_protocol(session, folds), seen])),
        "threat_model": {
            "knowledge": "white box: model, reference and deployed inference",
            "epsilon_unit": options.epsilon_unit,
            "linf": "max |perturbation| <= epsilon",
            "l2": "root mean square over attackable voxels and channels <= epsilon",
            "bounds": "[min, max] of the clean case per channel",
        },
        "options": options.record(),
        "suite": options.suite,
        "best_iterate": _best_iterate(parts),
        "metrics": {**_metrics(session), **_calibration(results)},
        "surrogate": session.settings["surrogate"],
        "cases": [c.identifier for c in session.cases],
        **_groups(session),
        "attacks": records.attack_settings(rows),
        "suite_members": dice_after_members(rows),
        "results": results,
        "checks": [
            *([f"Check failed: {seen}"] if seen else []),
            *all_checks(results, rows),
        ],
        "shifts_left_out": planned.corruptions_left_out,
        "shift_strengths": {
            n: {"strengths": list(CORRUPTIONS[n].strengths), "unit": CORRUPTIONS[n].unit}
            for n in corruptions
        },
        "notes": [
            *_notes(session, parts, environments),
            *filter(None, [not_in_all(rows), never_there(rows)]),
        ],
        "cost": _cost(planned.runs, parts),
        "environment": environments[0],
        "environments": environments,
    }


def _folds(session: Session) -> list[int | str]:
    """All that took part: one fold is loaded at a time."""
    if not session.validating:
        return list(session.model.describe()["folds"])
    return list(dict.fromkeys(f for c in session.cases for f in c.folds or ()))


def _model(session: Session, folds: Sequence[int | str]) -> dict[str, Any]:
    hashes = session.settings["model"]["checkpoint_sha256"]
    if is_given(session.model.describe()):
        return session.model.describe()
    seed = session.model.training_seed
    return {
        **session.model.describe(),
        **({} if seed is None else {"training_seed": seed}),
        "folds": list(folds),
        "checkpoint_sha256": {f: h for f, h in hashes.items() if f in map(str, folds)},
    }


def _protocol(session: Session, folds: Sequence[int | str]) -> str:
    count = len(session.cases)
    if session.validating:
        return (
            f"cross-validation: {count} validation cases, "
            "each by the model of the fold that has not seen it"
        )
    if not folds:
        return f"{count} cases, given as arrays"
    word = "folds" if len(folds) > 1 else "fold"
    return f"{count} cases by the mean over {word} {', '.join(map(str, folds))}"


def _seen(session: Session, folds: Sequence[int | str]) -> str:
    """What must be said of cases that the model was trained on."""
    if session.inputs is None or session.inputs.images is None:
        return ""
    names = [c.identifier for c in session.cases]
    dataset = session.model.describe()["dataset"]
    return seen_cases(dataset, session.inputs.images, names, folds)


def _groups(session: Session) -> dict[str, Any]:
    """Nothing where each case stands for itself."""
    if session.groups is None:
        return {}
    cases = dict.fromkeys(c.identifier for c in session.cases)
    return {"groups": session.groups.record(list(cases))}


def _metrics(session: Session) -> dict[str, Any]:
    return {
        "nsd_tolerance": session.options.nsd_tolerance,
        "surface_unit": session.model.surface_unit,
        "empty_mask_rule": EMPTY_MASK_RULE,
        "mean": "per label over cases where defined, then over labels (nnU-Net's)",
        "intervals": significance.method(over(session.groups)),
    }


def _calibration(results: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Nothing where it was not measured."""
    return {"calibration": METHOD} if is_calibrated(results[0]) else {}


def _best_iterate(parts: Sequence[Part]) -> str:
    """By what attacks chose theirs; parts of before it was Dice carry no hash of settings."""
    return BEST_ITERATE if all("settings_sha256" in p for p in parts) else BEST_ITERATE_BEFORE


def _notes(
    session: Session, parts: Sequence[Part], environments: Sequence[Mapping[str, str]]
) -> list[str]:
    """What a reader of the figures has to know."""
    notes = list(dict.fromkeys(n for p in parts for n in p["notes"]))
    roundtrip = [p["roundtrip"] for p in parts if p["roundtrip"] is not None]
    if roundtrip:
        notes.append(
            "saved perturbed cases, read back and preprocessed, differ from what was attacked by "
            f"at most {max(roundtrip):.2g} of the range (z-scoring takes mean and sd anew from the "
            "perturbed image; inf: the nonzero crop changed)"
        )
    if session.model.is_cascade:
        notes.append(
            "cascade: the previous stage's segmentation is an input that stays fixed; "
            "only the image is attacked"
        )
    surrogate = session.options.surrogate
    if surrogate is not None:
        hashes = session.settings["surrogate"].items()
        sha = "; ".join(f"fold {fold}: {digest}" for fold, digest in hashes)
        notes.append(f"transfer: perturbations made on {surrogate}, SHA-256 {sha}")
    if len(environments) > 1:
        notes.append(
            f"the cases were evaluated in {len(environments)} different environments; "
            "see environments in summary.json"
        )
    return notes


def _cost(runs: Sequence[EvaluationRun], parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Per attack or corruption, the mean over cases and budgets or severities."""
    titles: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        norm = run.norm if run.kind == "attack" else ""
        titles.setdefault((run.name, norm), []).append(run.title)
    cost = []
    for (name, norm), group in titles.items():
        seconds = [p["seconds"][t] for p in parts for t in group]
        evaluations = [p["evaluations"][t] for p in parts for t in group]
        cost.append(
            {
                "run": f"{name} ({norm})" if norm else name,
                "seconds": sum(seconds) / len(seconds),
                "forwards": sum(e[0] for e in evaluations) / len(evaluations),
                "gradients": sum(e[1] for e in evaluations) / len(evaluations),
            }
        )
    return cost
