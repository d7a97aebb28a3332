"""A robustness card of a model: `python -m evaluation.card OUT [OUT ...]`, also `lngswr card`.

OUT, ... are finished OUT folders of evaluation.robust, of one checkpoint on the same cases; the
first that attacked makes the claim, and the lowest of all is best known. Writes
robustness_card.json, by the JSON Schema in cards/, and robustness_card.md.

This module only wires: cards/evaluations.py reads and checks, content.py builds, markdown.py puts
into words, archive.py writes into a zip.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_lngswr.utils.command_line import leave, run_main
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.option_types import given_text

PROG = "python -m evaluation.card"


@dataclass(frozen=True, kw_only=True)
class MadeCard:
    """What `make_card` returns."""

    folder: Path
    """Where robustness_card.json and robustness_card.md are."""
    card: dict[str, Any]
    """As robustness_card.json."""
    in_zip: str | None = None
    """The folder in the zip that got them."""
    other_folds: tuple[str, ...] = ()
    """Folds in the zip that the card says nothing of."""


def make_card(
    folders: Sequence[str | Path],
    output_folder: str | Path | None = None,
    *,
    name: str | None = None,
    into: str | Path | None = None,
) -> MadeCard:
    """Make the card of a model from its evaluations.

    Parameters
    ----------
    folders
        Finished OUT folders of one checkpoint on the same cases.
    output_folder
        Gets robustness_card.json and robustness_card.md; None: the first of `folders`.
    name
        Of the model; None: TRAINER__PLANS__CONFIGURATION.
    into
        A zip of nnUNetv2_export_model_to_zip that holds the evaluated checkpoint and gets both
        files beside it.

    Raises
    ------
    UserError
        Bad input, before anything is written.
    OSError
        A full disk, no permission: neither the zip nor the files of an earlier card change.
    """
    if not folders:
        raise UserError("card needs at least one folder")
    from evaluation.cards.archive import find_model, write_files
    from evaluation.cards.content import build_card
    from evaluation.cards.evaluations import read_evaluations
    from evaluation.cards.markdown import card_markdown
    from evaluation.results_folder import CARD_JSON, CARD_MD
    from nnunetv2_lngswr.utils.output_folder import output_folder as checked

    card = build_card(read_evaluations(folders), name=name)
    texts = {
        CARD_JSON: json.dumps(card, indent=1, allow_nan=False) + "\n",
        CARD_MD: card_markdown(card),
    }
    folder = checked(folders[0] if output_folder is None else output_folder)
    found = None if into is None else find_model(Path(into), card["model"])
    write_files(folder, texts, found)
    if found is None:
        return MadeCard(folder=folder, card=card)
    return MadeCard(
        folder=folder, card=card, in_zip=str(found.folder), other_folds=found.other_folds
    )


def main(argv: Sequence[str] | None = None, *, prog: str = PROG) -> int:
    """The command; returns its exit status, as `run_main` says."""
    arguments = _parser(prog).parse_args(argv)

    def work() -> int:
        made = make_card(
            arguments.folders, arguments.output_folder, name=arguments.name, into=arguments.into
        )
        _print(made, arguments.into)
        return 0

    return run_main(prog, work)


def _print(made: MadeCard, zip_file: str | None) -> None:
    from evaluation.cards.reading import best_known_of, claimed_of, doubts, interval
    from evaluation.report.records import of_middle_budget
    from evaluation.results_folder import CARD_JSON, CARD_MD

    print(f"{made.card['name']}: clean {interval(made.card['clean'])}")
    entry = of_middle_budget(made.card["worst"])
    if entry is not None:
        at = f"{entry['norm']} {entry['epsilon_text']}"
        claimed = interval(claimed_of(entry)) or "nothing"
        print(f"{at}: claimed {claimed}, best known {interval(best_known_of(entry))}")
    for line in doubts(made.card)[0]:
        print(line)
    print(f"written to {made.folder}: {CARD_JSON}, {CARD_MD}")
    if made.in_zip is not None:
        print(f"and into {zip_file}: {made.in_zip}")
    if made.other_folds:
        others = ", ".join(made.other_folds)
        print(f"the zip has folds besides, which the card says nothing of: {others}")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="A robustness card from OUT folders of lngswr evaluate, of one checkpoint on "
        "the same cases: JSON by a published schema, and Markdown with Hugging Face's model-index. "
        "The first OUT that attacked makes the claim; the lowest of all is best known.",
    )
    add = parser.add_argument
    add("folders", nargs="+", type=given_text, metavar="OUT", help="finished OUT folders")
    add(
        "-o",
        dest="output_folder",
        type=given_text,
        metavar="FOLDER",
        help="where robustness_card.json and robustness_card.md go; default: the first OUT",
    )
    add(
        "--name",
        type=given_text,
        metavar="NAME",
        help="of the model; default: TRAINER__PLANS__CONFIGURATION",
    )
    add(
        "--into",
        type=given_text,
        metavar="MODEL.zip",
        help="also write both files into this zip of nnUNetv2_export_model_to_zip, beside the "
        "checkpoint; it must be the evaluated one, by its SHA-256",
    )
    return parser


if __name__ == "__main__":
    leave(main())
