"""report.html of OUT folders that are finished: `python -m evaluation.report_page OUT [OUT ...]`.

Every evaluation writes the page itself; this makes it anew from what a folder holds, without the
model or the images, for folders of earlier versions and copied ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2_lngswr.utils.command_line import leave, run_main
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import write_file
from nnunetv2_lngswr.utils.option_types import given_text

PROG = "python -m evaluation.report_page"
PAGE = "report.html"
_NEEDED = (
    *("protocol", "metrics", "attacks", "results", "shifts_left_out"),
    *("notes", "cost", "environment"),
)
_OF_A_RECORD = (
    *("kind", "attack", "norm", "epsilon", "epsilon_text", "severity", "labels"),
    *("dice", "dice_low", "dice_high", "drop", "drop_low", "drop_high", "iou", "hd95_mm", "nsd"),
)


def write_report_page(folder: str | Path) -> Path:
    """Write report.html into a finished OUT folder and return its path.

    Raises
    ------
    UserError
        The folder is not finished, damaged or of another version.
    """
    from evaluation.comparison.folders import read_folder
    from evaluation.report.page.evaluation_page import evaluation_page

    found = read_folder(Path(folder))
    _check(found.summary, f"{folder}/summary.json")
    return write_file(Path(folder) / PAGE, evaluation_page(Path(folder), found.summary, found.rows))


def _check(summary: Mapping[str, Any], name: str) -> None:
    """Refuse what lacks something that the page shows."""
    missing = [key for key in _NEEDED if key not in summary]
    results = summary.get("results", [])
    missing += sorted({f"results.{key}" for r in results for key in _OF_A_RECORD if key not in r})
    if not any(r.get("kind") == "clean" for r in results):
        missing.append("results of the clean cases")
    if missing:
        raise UserError(
            f"{name} lacks {', '.join(missing)}: evaluate it again, with the same command"
        )


def main(argv: Sequence[str] | None = None, *, prog: str = PROG) -> int:
    """The command; returns its exit status, as `run_main` says."""
    parser = argparse.ArgumentParser(
        prog=prog, description="Make report.html of finished OUT folders anew."
    )
    parser.add_argument(
        "folders", nargs="+", type=given_text, metavar="OUT", help="OUT folders of an evaluation"
    )
    arguments = parser.parse_args(argv)

    def work() -> int:
        for folder in arguments.folders:
            print(f"written: {write_report_page(folder)}")
        return 0

    return run_main(prog, work)


if __name__ == "__main__":
    leave(main())
