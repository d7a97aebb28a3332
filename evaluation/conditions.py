"""`--fail-if`: what an evaluation must not find, so that a build stops on it.

    NAME[@BUDGET] SIGN PERCENT     such as worst_linf@4/255<60, clean<75, gamma@3<=50
    checks                         a line of the report begins with "Check failed"

NAME is a run of the report: clean, an attack, worst_linf, worst_l2, a corruption (with @SEVERITY,
else the mean over its severities), or corruptions, the mean of all. The figure is the mean
foreground Dice in percent, as in the tables. SIGN is one of <, <=, >, >=. An undefined Dice fails.
"""

from __future__ import annotations

import argparse
import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from evaluation.options import L2, LINF
from evaluation.protocol import CORRUPTION, EvaluationRun
from evaluation.rows import RunKey
from nnunetv2_lngswr.attacks.suites import full_name
from nnunetv2_lngswr.utils.epsilon import parse_budget
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import did_you_mean
from nnunetv2_lngswr.utils.values import shown

CHECKS, CORRUPTIONS = "checks", "corruptions"
CHECK_FAILED = "Check failed"
_SIGNS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
_CONDITION = re.compile(
    r"\s*(?P<name>[^\s@<>=]+)\s*(?:@\s*(?P<at>[^\s@<>=]+))?"
    r"\s*(?P<sign><=|>=|<|>)\s*(?P<percent>[0-9]{1,3}(?:\.[0-9]{1,9})?)\s*"
)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One condition, as it was written."""

    text: str
    name: str
    """Of a run; `checks` for the checks of the attacks."""
    at: Fraction | None = None
    """The budget or severity; None where none was given."""
    sign: str = ""
    percent: float = math.nan


def add_option(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add --fail-if."""
    parser.add_argument(
        "--fail-if",
        nargs="+",
        action="extend",
        default=[],
        metavar="CONDITION",
        help="end with status 1, once everything is written, where one of these holds: "
        "'NAME@BUDGET<PERCENT' of Dice in percent, such as 'worst_linf@4/255<60', 'clean<75', "
        "'gamma@3<50' (severity 3), 'corruptions<70' (mean of all), with <, <=, > or >=; "
        "checks: a check of the attacks has failed",
    )


def parse_conditions(texts: Sequence[str]) -> list[Condition]:
    """Read conditions; whether their runs are run, `find_runs` says.

    Raises
    ------
    UserError
        A text that is no condition, or one that always or never holds.
    """
    if isinstance(texts, str) or not all(isinstance(t, str) for t in texts):
        raise UserError(f"fail_if must be a list of texts, got {shown(texts)}")
    return [_parsed(text) for text in texts]


def find_runs(
    conditions: Sequence[Condition], runs: Sequence[EvaluationRun]
) -> list[tuple[Condition, RunKey]]:
    """Each condition with the key of its run in summary.json's results; `checks` has none.

    Raises
    ------
    UserError
        A condition on what is not run; the text names what is.
    """
    there = _figures(runs)
    return [(c, _find(c, there)) for c in conditions if c.name != CHECKS]


def failures(
    conditions: Sequence[Condition], runs: Sequence[EvaluationRun], summary: Mapping[str, Any]
) -> list[str]:
    """One line for every condition that holds.

    Parameters
    ----------
    conditions
        Of `parse_conditions`.
    runs
        What was run.
    summary
        What came of it, as summary.json.
    """
    dice = {_key(record): record["dice"] for record in summary["results"]}
    lines = []
    for condition, key in find_runs(conditions, runs):
        found = dice[key]
        if found is None or math.isnan(found):
            lines.append(f"{condition.text}: Dice is undefined in every case")
            continue
        percent = round(100 * found, 9)  # 100 * 0.57 is less than 57
        if _SIGNS[condition.sign](percent, condition.percent):
            lines.append(f"{condition.text} holds: Dice is {_shown(percent, condition)}")
    if any(c.name == CHECKS for c in conditions):
        lines += [f"checks: {line}" for line in summary["checks"] if line.startswith(CHECK_FAILED)]
    return lines


def _parsed(text: str) -> Condition:
    if text.strip() == CHECKS:
        return Condition(text=CHECKS, name=CHECKS)
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise UserError(
            "--fail-if takes NAME[@BUDGET], then <, <=, > or >=, then percent, such as "
            f"'worst_linf@4/255<60', or checks; got {shown(text)}"
        )
    percent = float(found["percent"])
    if percent < 1 or percent > 100:
        fraction = f"; did you mean {100 * percent:g}?" if 0.01 <= percent < 1 else ""
        raise UserError(
            f"--fail-if compares with Dice in percent, from 1 to 100, got {found['percent']} in "
            f"{shown(text)}{fraction}"
        )
    try:
        name = full_name(found["name"])
        at = None if found["at"] is None else parse_budget(found["at"])
    except UserError as error:
        raise UserError(f"--fail-if {shown(text)}: {error}") from None
    text = "".join(text.split())
    return Condition(text=text, name=name, at=at, sign=found["sign"], percent=percent)


@dataclass(frozen=True)
class _Figure:
    """One record of summary.json that a condition may be about."""

    names: tuple[str, ...]
    at: Fraction | int | None
    at_text: str
    key: RunKey


def _figures(runs: Sequence[EvaluationRun]) -> list[_Figure]:
    from evaluation.report.records import NOT_AFFINE_MEAN, mean_groups  # which load NumPy

    figures, corruptions = [], []
    for run in runs:
        key = run.kind, run.name, run.norm, run.epsilon_text, run.severity
        if run.kind == CORRUPTION:
            corruptions.append(key)
            figures.append(_Figure((run.name,), run.severity, str(run.severity), key))
            continue
        # noise has one name in both norms, and a suite's in Linf has none
        with_norm = (f"{run.name}_{run.norm}",) if run.norm else ()
        figures.append(_Figure((run.name, *with_norm), run.epsilon, run.epsilon_text, key))
    names = {key[1] for key in corruptions}
    for key, _ in mean_groups(corruptions):
        if key[0] == NOT_AFFINE_MEAN:  # 'corruptions' is the mean over all
            continue
        name = key[1] if key[1] in names else CORRUPTIONS
        figures.append(_Figure((name,), None, "", key))
    return [*figures, *_worst(runs)]


def _worst(runs: Sequence[EvaluationRun]) -> list[_Figure]:
    """What `rows.with_worst` derives: at each budget that more than the noise control has."""
    found = []
    for norm in (LINF, L2):
        attacks = [r for r in runs if r.norm == norm and r.function != "noise"]
        for run in {r.epsilon: r for r in attacks if r.epsilon is not None}.values():
            name = f"worst_{norm}"
            key = "worst", name, norm, run.epsilon_text, None
            found.append(_Figure((name,), run.epsilon, run.epsilon_text, key))
    return found


def _find(condition: Condition, figures: Sequence[_Figure]) -> RunKey:
    of_name = [f for f in figures if condition.name in f.names]
    if not of_name:
        names = dict.fromkeys(f.names[0] for f in figures)
        raise UserError(
            f"--fail-if names {condition.name}, which is not run here; "
            f"{did_you_mean(condition.name, [*names, CHECKS], what='here')}"
        )
    found = [f for f in of_name if f.at == condition.at]
    if len(found) == 1:
        return found[0].key
    if found:
        both = " or ".join(f.names[-1] for f in found)
        raise UserError(f"--fail-if {condition.text}: name the norm, {both}")
    there = ", ".join(f"{condition.name}@{f.at_text}" for f in of_name if f.at_text)
    said = f"{condition.name} is run " + (f"as {there}" if there else "without a budget")
    raise UserError(f"--fail-if {condition.text}: {said}")


def _key(record: Mapping[str, Any]) -> RunKey:
    kind, attack, norm, epsilon = (record[k] for k in ("kind", "attack", "norm", "epsilon_text"))
    return kind, attack, norm or "", epsilon or "", record["severity"]


def _shown(percent: float, condition: Condition) -> str:
    """With one digit, as in the tables, or so many that it is seen to be on its side."""
    digits = 1
    while digits < 9 and not _SIGNS[condition.sign](round(percent, digits), condition.percent):
        digits += 1
    return f"{percent:.{digits}f}"
