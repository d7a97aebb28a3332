"""What tables take from a card: the headline, figures as texts, whether its checks held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.conditions import CHECK_FAILED
from evaluation.report.formats import interval_text, percent_text
from evaluation.report.intervals import intervals_said

GROUPS = "groups"
"""Of a card's metrics: over how many groups of cases its intervals are; not there: over cases."""

Card = Mapping[str, Any]
Entry = Mapping[str, Any]


def interval(figures: Mapping[str, Any] | None, what: str = "dice") -> str:
    """'62.1 [58.0, 66.3]' in percent; '' where it was not run."""
    if figures is None:
        return ""
    if None in (figures[f"{what}_low"], figures[f"{what}_high"]):
        return percent_text(figures[what])
    return interval_text(figures, what)


def groups_of(card: Card) -> int | None:
    """Over how many groups of cases its intervals are; None where they are over cases."""
    count = card["metrics"].get(GROUPS)
    return int(count) if isinstance(count, (int, float)) and count >= 1 else None


def brackets(cards: Sequence[Card]) -> str:
    """What stands in brackets in tables of these cards, the fewest groups said."""
    counts = [count for card in cards if (count := groups_of(card)) is not None]
    return intervals_said({"groups": {"count": min(counts)}} if counts else {})


def claimed_of(entry: Entry | None) -> Mapping[str, Any] | None:
    """The figures that are claimed; None where nothing is."""
    return None if entry is None or entry["claimed"] is None else entry["claimed"]["figures"]


def best_known_of(entry: Entry | None) -> Mapping[str, Any] | None:
    """The lowest figures that are known; None where nothing is."""
    return None if entry is None else entry["best_known"]["figures"]


def calibration_of(card: Card, budget: tuple[str, str] | None = None) -> Mapping[str, Any] | None:
    """ECE and Brier score, clean, or of the best known runs at a budget (norm, text of epsilon);
    None where they were not measured."""
    found = card["calibration"] or {}
    if budget is None:
        return found.get("clean")
    entries = found.get("worst", ())
    return next((e for e in entries if (e["norm"], e["epsilon_text"]) == budget), None)


def doubts(card: Card) -> tuple[list[str], list[str]]:
    """(checks that failed, warnings) of all evaluations."""
    lines = list(dict.fromkeys(line for e in card["evaluations"] for line in e["checks"]))
    failed = [line for line in lines if line.startswith(CHECK_FAILED)]
    return failed, [line for line in lines if line.startswith("Warning")]


def doubts_text(card: Card) -> str:
    """'failed', 'warnings' or 'passed'; 'none' where nothing was checked."""
    failed, warnings = doubts(card)
    if failed:
        return "failed"
    if warnings:
        return "warnings"
    return "passed" if any(e["checks"] for e in card["evaluations"]) else "none"
