"""A leaderboard as HTML, Markdown and CSV. All texts of cards are a stranger's, and are escaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.cards.ranking import NamedCard, Ranking
from evaluation.cards.reading import (
    best_known_of,
    brackets,
    calibration_of,
    claimed_of,
    doubts_text,
    interval,
)
from evaluation.report.calibration import TITLES, calibration_text
from evaluation.report.formats import csv_text
from evaluation.report.markdown import UNITS
from evaluation.report.norms import NORMS
from evaluation.report.templates import template_environment
from nnunetv2_lngswr.utils.markdown import code, escaped, markdown_table

TEMPLATE = "leaderboard.html.jinja"
UPPER_BOUND = (
    "All are upper bounds: a stronger attack may leave less. Where intervals overlap the order "
    "says little: lngswr compare tests differences, paired by case."
)
BEST_KNOWN = (
    "Claimed: by the first evaluation of a card. Best known: case by case the lowest that any "
    "evaluation of the checkpoint found; models that were attacked harder stand lower."
)
NOTHING_LOWER = (
    "Of no checkpoint anything lower is known than its first evaluation found; lngswr card with "
    "further OUT folders records it where there is."
)
ECE = (
    "ECE: of the best known runs at a budget, as robustness_card.md says; 0 is best; empty where a "
    "card has none."
)
_IDENTITY = ("trainer", "plans", "configuration", "dataset")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a table shows, and what it is sorted by."""

    text: str
    value: float | str | None


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns by their titles, and a row per card."""

    columns: list[str]
    rows: list[list[Cell]]
    lowest_first: list[str]
    """Titles of columns whose lowest value is the best."""


def as_html(ranking: Ranking) -> str:
    """One page that loads nothing; a column is sorted by its heading."""
    environment = template_environment(Path(__file__).parent)
    return environment.get_template(TEMPLATE).render(
        protocol=_protocol(ranking).replace("**", ""),  # Markdown's
        read=_read(ranking),
        table=_table(ranking),
        left_out=[(c.name, c.file, reason) for c, reason in ranking.left_out],
        notes=ranking.notes,
    )


def as_markdown(ranking: Ranking) -> str:
    """A page with the table."""
    table = _table(ranking)
    texts = [table.columns.index(name) for name in ("model", "checkpoint")]  # of the cards
    body = [[code(c.text) if i in texts else c.text for i, c in enumerate(r)] for r in table.rows]
    lines = ["# Robustness leaderboard", "", _protocol(ranking, escaped), ""]
    lines += [markdown_table(table.columns, body), ""]
    lines += [*(f"- {escaped(note)}" for note in ranking.notes), "", _read(ranking)]
    if ranking.left_out:
        lines += ["", "## Not comparable", ""]
    for card, reason in ranking.left_out:
        lines.append(f"- {code(card.name)} ({code(card.file)}): {escaped(reason)}")
    return "\n".join(lines) + "\n"


def as_csv(ranking: Ranking) -> str:
    """A row per card, Dice in [0, 1] as in compare.csv; without a rank, with the reason, those that
    are not comparable."""
    rows = [_csv_row(ranking, c, {"rank": i}) for i, c in enumerate(ranking.ranked, 1)]
    columns = list(dict.fromkeys(key for row in rows for key in row)) + ["not_comparable"]
    rows += [_identity(c) | {"not_comparable": reason} for c, reason in ranking.left_out]
    return csv_text(columns, rows)


FORMATS = {".html": as_html, ".md": as_markdown, ".csv": as_csv}


def _table(ranking: Ranking) -> Table:
    columns, rows = ["rank", "model", "checkpoint", "clean"], []
    for norm, epsilon in ranking.budgets:
        at = f"{NORMS[norm]} {epsilon}"
        columns += [f"{at} claimed", f"{at} best known"] if ranking.with_best_known else [at]
    columns += ["corruptions"] if ranking.with_corruptions else []
    of_calibration = [title for title, *_ in _eces(ranking, ranking.ranked[0])]
    columns += of_calibration
    for position, card in enumerate(ranking.ranked, 1):
        row = [
            Cell(text=str(position), value=position),
            Cell(text=card.name, value=card.name),
            Cell(text=card.checkpoint, value=card.checkpoint),
            *(_dice(figures) for _, figures in _figures(ranking, card)),
            *(_ece(figures) for *_, figures in _eces(ranking, card)),
        ]
        checked = doubts_text(card.card)
        rows.append([*row, Cell(text=checked, value=checked)])
    lowest_first = ["rank", *of_calibration]
    return Table(columns=[*columns, "checks"], rows=rows, lowest_first=lowest_first)


def _figures(ranking: Ranking, card: NamedCard) -> list[tuple[str, Mapping[str, Any] | None]]:
    """(column of the CSV, figures), in the order of the columns."""
    found: list[tuple[str, Mapping[str, Any] | None]] = [("clean", card.card["clean"])]
    for budget in ranking.budgets:
        entry, name = card.entry(budget), "_".join(budget)
        found.append((f"{name}_claimed", claimed_of(entry)))
        if ranking.with_best_known:
            found.append((f"{name}_best_known", best_known_of(entry)))
    if ranking.with_corruptions:
        found.append(("corruptions", card.card["corruptions"]["mean"]))
    return found


def _eces(ranking: Ranking, card: NamedCard) -> list[tuple[str, str, Mapping[str, Any] | None]]:
    """(title, column of the CSV, figures): clean, and at the budget that the table is ordered by;
    none where no card has calibration."""
    if not ranking.with_calibration:
        return []
    found = [(f"clean {TITLES['ece']}", "clean", calibration_of(card.card))]
    if ranking.ordered_by is not None:
        norm, epsilon = ranking.ordered_by
        at = f"{NORMS[norm]} {epsilon}{' best known' if ranking.with_best_known else ''}"
        figures = calibration_of(card.card, ranking.ordered_by)
        found.append((f"{at} {TITLES['ece']}", f"{norm}_{epsilon}_best_known", figures))
    return found


def _ece(figures: Mapping[str, Any] | None) -> Cell:
    figures = figures or {}
    return Cell(text=calibration_text(figures, "ece"), value=figures.get("ece"))


def _dice(figures: Mapping[str, Any] | None) -> Cell:
    return Cell(text=interval(figures), value=None if figures is None else figures["dice"])


def _identity(card: NamedCard) -> dict[str, Any]:
    model = card.card["model"]
    checkpoints = " ".join(model["checkpoint_sha256"].values())
    of_model = {key: model[key] for key in _IDENTITY}
    return {"name": card.name, "file": card.file, **of_model, "checkpoint_sha256": checkpoints}


def _csv_row(ranking: Ranking, card: NamedCard, first: Mapping[str, Any]) -> dict[str, Any]:
    row = {**first, **_identity(card), "suite": card.card["protocol"]["suite"]}
    row |= {"epsilon_unit": card.card["protocol"]["epsilon_unit"]}
    row |= {"cases": card.card["data"]["cases"]}
    for name, figures in _figures(ranking, card):
        for end in ("", "_low", "_high"):
            row[f"{name}_dice{end}"] = None if figures is None else figures[f"dice{end}"]
    for _, name, figures in _eces(ranking, card):
        for end in ("", "_low", "_high"):
            row[f"{name}_ece{end}"] = None if figures is None else figures[f"ece{end}"]
    return {**row, "checks": doubts_text(card.card)}


def _protocol(ranking: Ranking, shown: Callable[[str], str] = str) -> str:
    """What all that are ranked have in common; `shown` escapes what is from a card."""
    card = ranking.ranked[0].card
    protocol, dataset = card["protocol"], shown(card["model"]["dataset"])
    suite = "none, but the same attacks with the same settings"
    if protocol["suite"]:
        suite = shown(protocol["suite"])
    return (
        f"{dataset}, {card['data']['cases']} cases. Suite: {suite}. Budgets in "
        f"{UNITS[protocol['epsilon_unit']]}, seed {protocol['seed']}. "
        f"Ordered by {_order(ranking)}. {brackets([c.card for c in ranking.ranked])}"
    )


def _order(ranking: Ranking) -> str:
    if ranking.ordered_by is None:
        return "the mean over corruptions, then the clean Dice"
    norm, epsilon = ranking.ordered_by
    which = "best known Dice" if ranking.with_best_known else "Dice"
    return f"{which} at {NORMS[norm]} {epsilon}"


def _read(ranking: Ranking) -> str:
    said = "None of them was attacked."
    if ranking.budgets:
        said = f"{BEST_KNOWN if ranking.with_best_known else NOTHING_LOWER} {UPPER_BOUND}"
    return f"{said} {ECE}" if ranking.with_calibration else said
