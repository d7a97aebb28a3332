"""`lngswr evaluate`, `compare`, `report`, `card`, `leaderboard`: commands of `evaluation`.

These read their own options and answer their own `--help`; here they are listed for ours only.
"""

from collections.abc import Callable
from typing import NamedTuple

from nnunetv2_lngswr.cli.arguments import Commands


class PassedOn(NamedTuple):
    """A command: what `lngswr --help` says of it, and what takes all words after its name."""

    help: str
    run: Callable[[list[str]], int]


def _evaluate(argv: list[str]) -> int:
    from evaluation.robust import main

    return main(argv, prog="lngswr evaluate")


def _compare(argv: list[str]) -> int:
    from evaluation.compare import main

    return main(argv, prog="lngswr compare")


def _card(argv: list[str]) -> int:
    from evaluation.card import main

    return main(argv, prog="lngswr card")


def _leaderboard(argv: list[str]) -> int:
    from evaluation.leaderboard import main

    return main(argv, prog="lngswr leaderboard")


def _report(argv: list[str]) -> int:
    from evaluation.report_page import main

    return main(argv, prog="lngswr report")


COMMANDS = {
    "evaluate": PassedOn(
        "robustness of a model folder: attacks and corruptions (lngswr evaluate --help)", _evaluate
    ),
    "compare": PassedOn(
        "several evaluations in one table, paired by case (lngswr compare --help)", _compare
    ),
    "report": PassedOn(
        "report.html of a finished evaluation, made anew (lngswr report --help)", _report
    ),
    "card": PassedOn(
        "a robustness card of a model from its evaluations (lngswr card --help)", _card
    ),
    "leaderboard": PassedOn(
        "robustness cards in one sortable table (lngswr leaderboard --help)", _leaderboard
    ),
}


def add_commands(commands: Commands) -> None:
    """List them in the help."""
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.help, add_help=False)
