"""Robustness cards in one table: `python -m evaluation.leaderboard CARD [CARD ...] -o FILE`.

CARD is a robustness_card.json, or a folder or an exported zip that has one. FILE is written as its
suffix says: .html (one page, sortable, loads nothing), .md or .csv. Cards that are not comparable
with the others are named with what differs.

This module only wires: cards/schema.py reads, ranking.py compares and orders, tables.py writes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_lngswr.utils.command_line import leave, run_main
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import refuse_no_utf8
from nnunetv2_lngswr.utils.option_types import given_text

if TYPE_CHECKING:
    from evaluation.cards.ranking import Ranking

PROG = "python -m evaluation.leaderboard"
SUFFIXES = (".html", ".md", ".csv")


def leaderboard(cards: Sequence[str | Path], output_file: str | Path) -> Ranking:
    """Rank cards and write the table.

    Parameters
    ----------
    cards
        Files of `lngswr card`, or folders or zips that have one.
    output_file
        Its suffix is one of SUFFIXES.

    Returns
    -------
    Ranking
        What was written.

    Raises
    ------
    UserError
        A file that is no card or of another version, one that is given twice, another suffix.
    """
    if not cards:
        raise UserError("leaderboard needs at least one card")
    output = _checked(Path(output_file))
    _refuse_twice([str(card) for card in cards])
    from evaluation.cards.ranking import NamedCard, rank
    from evaluation.cards.schema import read_card
    from evaluation.cards.tables import FORMATS
    from nnunetv2_lngswr.utils.files import write_file

    ranking = rank([NamedCard(file=str(card), card=read_card(Path(card))) for card in cards])
    write_file(output, FORMATS[output.suffix.lower()](ranking))
    return ranking


def main(argv: Sequence[str] | None = None, *, prog: str = PROG) -> int:
    """The command; returns its exit status, as `run_main` says."""
    arguments = _parser(prog).parse_args(argv)

    def work() -> int:
        found = leaderboard(arguments.cards, arguments.output_file)
        for card, reason in found.left_out:
            print(f"not comparable: {card.file} ({card.name}): {reason}")
        for position, card in enumerate(found.ranked, 1):
            print(f"{position}. {card.name} ({card.checkpoint})")
        print(f"written to {arguments.output_file}")
        return 0

    return run_main(prog, work)


def _checked(output: Path) -> Path:
    from nnunetv2_lngswr.utils.output_folder import output_folder

    refuse_no_utf8(output)
    if output.suffix.lower() not in SUFFIXES:
        raise UserError(f"-o must end in {', '.join(SUFFIXES)}, got {output}")
    if output.is_dir():
        raise UserError(f"{output} is a folder; -o needs a file")
    output_folder(output.parent)
    return output


def _refuse_twice(cards: Sequence[str]) -> None:
    seen: dict[Path, str] = {}
    for card in cards:
        other = seen.setdefault(Path(card).resolve(), card)
        if other is not card:
            raise UserError(f"{other} and {card} are the same card; give each once")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Robustness cards of comparable protocol in one table, ordered by best known "
        "Dice; the others are named with what differs.",
    )
    add = parser.add_argument
    add(
        "cards",
        nargs="+",
        type=given_text,
        metavar="CARD",
        help="robustness_card.json of lngswr card, or a folder or an exported zip that has one",
    )
    add(
        "-o",
        dest="output_file",
        type=given_text,
        required=True,
        metavar="FILE",
        help="as its suffix says: .html (sortable, one page that loads nothing), .md or .csv",
    )
    return parser


if __name__ == "__main__":
    leave(main())
