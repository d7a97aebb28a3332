"""What a report says of its intervals: over cases, or over groups of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FEW = 8
"""Of fewer, percentiles of draws cover less than 93% (benchmarks/interval_coverage.py)."""
OVER_CASES = (
    "Dice in percent, mean over cases [95% bootstrap interval over cases, which takes them as "
    "independent]."
)
_OVER_GROUPS = "Dice in percent, mean over cases [95% bootstrap interval over groups of cases]."


def intervals_said(summary: Mapping[str, Any]) -> str:
    """What stands in brackets, in the words of a report."""
    groups = summary.get("groups")
    if groups:
        return f"{_OVER_GROUPS} {few_said(groups['count'])}".rstrip()
    cases = summary.get("cases")  # cards have none
    return f"{OVER_CASES} {few_said(len(cases), 'cases') if cases else ''}".rstrip()


def over(groups: object) -> str:
    """What intervals are over, given the groups, if any, or their record."""
    return "groups of cases" if groups else "cases"


def of_groups(summary: Mapping[str, Any]) -> str:
    """' of 18 groups (HOW THEY WERE FOUND)'; empty where each case stands for itself."""
    groups = summary.get("groups")
    return f" of {groups['count']} groups ({groups['found']})" if groups else ""


def cases_said(summary: Mapping[str, Any], *, defined: int) -> str:
    """How many cases of how many groups, and in how many of them Dice is defined."""
    count = len(summary["cases"])
    said = f"{count} case{'s' if count != 1 else ''}{of_groups(summary)}."
    if defined < count:
        said += f" In {count - defined} of them nothing is to be found, nor was: no Dice."
    return said


def few_said(count: int, what: str = "groups", *, tested: bool = False) -> str:
    """What must be said of few groups or cases, and of tests over them; empty of enough."""
    if count >= FEW:
        return ""
    are = f"{count} {what} are" if count != 1 else f"1 {what.removesuffix('s')} is"
    said = f"**{are} few**: intervals over them cover less than 95%."
    return f"{said} Their p cannot fall below {2 / 2**count:.2g}." if tested else said
