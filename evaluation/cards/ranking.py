"""Cards in one order, as far as they are comparable, and why others are not.

Comparable is what `lngswr compare` takes for it, and the same deployed function besides: protocol
(suite, or attacks with their settings; unit, seed, labels), cases, mirroring, tile step and number
of folds. Budgets may differ, but for the one that the table is ordered by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.cards.reading import (
    Card,
    Entry,
    best_known_of,
    calibration_of,
    claimed_of,
    doubts,
    groups_of,
)
from evaluation.differences import differences
from evaluation.report.records import of_middle_budget

Budget = tuple[str, str]  # norm, text of epsilon
ROUNDING = 5e-4  # of Dice: what tables do not show


@dataclass(frozen=True, kw_only=True)
class NamedCard:
    """A card and the file that it is from, as it was given."""

    file: str
    card: Card

    @property
    def name(self) -> str:
        return self.card["name"]

    @property
    def checkpoint(self) -> str:
        """The first digits of its checkpoints' SHA-256, one per fold."""
        return " ".join(sha[:12] for sha in self.card["model"]["checkpoint_sha256"].values())

    def entry(self, budget: Budget) -> Entry | None:
        """What it has at a budget."""
        entries = self.card["worst"]
        return next((e for e in entries if (e["norm"], e["epsilon_text"]) == budget), None)


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What a leaderboard shows."""

    ranked: Sequence[NamedCard]
    """The comparable ones, best first."""
    left_out: Sequence[tuple[NamedCard, str]]
    """The others, and what differs."""
    ordered_by: Budget | None
    """None where none was attacked."""
    budgets: Sequence[Budget]
    """Of all that are ranked, Linf first, rising."""
    with_best_known: bool
    """Whether best known is lower than claimed anywhere."""
    with_corruptions: bool
    """Whether all have the same corruptions."""
    with_calibration: bool
    """Whether it was measured of any, clean or at the budget that they are ordered by."""
    notes: Sequence[str]


def rank(cards: Sequence[NamedCard]) -> Ranking:
    """Order cards by best known Dice at the headline's budget, those of most comparable ones.

    The reference is the card that most others are comparable with, the first of equals.
    """
    found = [[_reasons(one.card, other.card) for other in cards] for one in cards]
    comparable = [sum(not reasons for reasons in of) for of in found]
    chosen = comparable.index(max(comparable))
    reference = cards[chosen]
    taken = [c for c, reasons in zip(cards, found[chosen]) if not reasons]
    budget = _headline_budget(reference.card)
    ranked = sorted(taken, key=lambda c: _order(c, budget))
    corruptions = [_corruptions(c.card) for c in ranked]
    same = all(c == corruptions[0] for c in corruptions)
    return Ranking(
        ranked=ranked,
        left_out=[
            (c, f"against {reference.name}: {'; '.join(r)}")
            for c, r in zip(cards, found[chosen])
            if r
        ],
        ordered_by=budget,
        budgets=_budgets(ranked),
        with_best_known=any(_is_lower(e) for c in ranked for e in c.card["worst"]),
        with_corruptions=same and corruptions[0] is not None,
        with_calibration=any(calibration_of(c.card, b) for c in ranked for b in (None, budget)),
        notes=_notes(ranked, same),
    )


def _reasons(reference: Card, other: Card) -> list[str]:
    """Why the other is not comparable; an empty list where it is."""
    one, two = (card["protocol"] | _deployed(card) for card in (reference, other))
    if one["suite"] != two["suite"]:
        # one of them has attacks and steps of its own: that says no more
        both = (one.keys() & two.keys()) - {"attacks"}
        one, two = ({key: p[key] for key in p if key in both} for p in (one, two))
        one, two = (p | {"suite": p["suite"] or "none"} for p in (one, two))
    found = differences(one, two)
    found += _other_cases(reference["data"], other["data"])
    return found or _other_budgets(reference, other)


def _other_budgets(reference: Card, other: Card) -> list[str]:
    """What the table is ordered by must be there."""
    budget = _headline_budget(reference)
    if budget is None:
        return ["it was attacked"] if _headline_budget(other) else []
    if claimed_of(_entry(other, budget)) is None:
        return [f"nothing is claimed at {' '.join(budget)}, by which the table is ordered"]
    return []


def _deployed(card: Card) -> dict[str, Any]:
    model = card["model"]
    return {
        "mirroring": "off" if model["mirror_axes"] is None else "on",
        "tile_step_size": model["tile_step_size"],
        "folds": len(model["folds"]),
    }


def _other_cases(reference: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    if reference["cases"] != other["cases"]:
        return [f"cases: was {reference['cases']}, is {other['cases']}"]
    if reference["cases_sha256"] != other["cases_sha256"]:
        return ["cases are of other names or sizes of labels"]
    files = {reference["files_sha256"], other["files_sha256"]} - {None}
    return ["images or labels are other files under the same names"] if len(files) > 1 else []


def _entry(card: Card, budget: Budget) -> Entry | None:
    return NamedCard(file="", card=card).entry(budget)


def _headline_budget(card: Card) -> Budget | None:
    """Of what is claimed."""
    entry = of_middle_budget([e for e in card["worst"] if e["claimed"] is not None])
    return None if entry is None else (entry["norm"], entry["epsilon_text"])


def _order(card: NamedCard, budget: Budget | None) -> tuple[float, ...]:
    """Undefined comes last."""
    if budget is not None:
        first = best_known_of(card.entry(budget))
    else:
        first = None if card.card["corruptions"] is None else card.card["corruptions"]["mean"]
    values = [None if f is None else f["dice"] for f in (first, card.card["clean"])]
    return tuple(math.inf if v is None else -v for v in values)


def _budgets(ranked: Sequence[NamedCard]) -> list[Budget]:
    found = {(e["norm"], e["epsilon_text"]): e["epsilon"] for c in ranked for e in c.card["worst"]}
    return sorted(found, key=lambda budget: (budget[0] != "linf", found[budget]))


def _is_lower(entry: Entry) -> bool:
    """Whether best known is lower than claimed, as far as a table shows it, or alone."""
    claimed, known = claimed_of(entry), best_known_of(entry)
    if claimed is None:
        return True
    if known is None or None in (claimed["dice"], known["dice"]):
        return False
    return known["dice"] < claimed["dice"] - ROUNDING


def _corruptions(card: Card) -> Any:
    """What its mean is over."""
    if card["corruptions"] is None:
        return None
    return [(c["name"], c["strengths"], len(c["dice"])) for c in card["corruptions"]["each"]]


def _notes(ranked: Sequence[NamedCard], same_corruptions: bool) -> list[str]:
    notes = [f"{c.name}: {line}" for c in ranked for line in doubts(c.card)[0]]
    datasets = dict.fromkeys(c.card["model"]["dataset"] for c in ranked)
    if len(datasets) > 1:
        notes.append(f"data sets of several names, with the same cases: {', '.join(datasets)}")
    if any(c.card["data"]["files_sha256"] is None for c in ranked) and len(ranked) > 1:
        unknown = ", ".join(c.name for c in ranked if c.card["data"]["files_sha256"] is None)
        notes.append(f"cases of {unknown} are known by names and sizes of labels alone")
    over_cases = [c.name for c in ranked if groups_of(c.card) is None]
    if 0 < len(over_cases) < len(ranked):
        notes.append(
            f"intervals of {', '.join(over_cases)} are over cases, which takes them as "
            "independent, those of the others over groups of cases"
        )
    if not same_corruptions:
        notes.append("no mean over corruptions: not every card has the same ones")
    by_checkpoint: dict[str, list[str]] = {}
    for c in ranked:
        by_checkpoint.setdefault(c.checkpoint, []).append(c.file)
    for files in by_checkpoint.values():
        if len(files) > 1:
            notes.append(
                f"{', '.join(files)} are of one checkpoint; lngswr card with all of its OUT "
                "folders makes one card of them"
            )
    return notes
