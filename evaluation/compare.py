"""Several evaluations in one table and one plot: `python -m evaluation.compare A B [C ...] -o OUT`.

A, B, ... are OUT folders of evaluation.robust on the same cases with the same settings; A is the
baseline. A model trained several times (folds, seeds) is given as several folders joined by commas:
folds add cases, seeds are averaged within a case. Attacks and corruptions that not every folder has
are left out and named, and worst_linf and worst_l2 are then over the others. OUT gets compare.md,
compare.csv, compare.json, compare.png and report.html.

This module only wires: comparison/models.py reads (folders.py one of them), paired_rows.py tests,
outputs.py writes; they are imported when they are needed, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.groups import add_option as add_groups_option
from evaluation.options import LIMITS
from evaluation.rows import never_there
from nnunetv2_lngswr.utils.command_line import leave, run_main
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import printable_page
from nnunetv2_lngswr.utils.option_types import given_text
from nnunetv2_lngswr.utils.values import check_integer

if TYPE_CHECKING:
    from evaluation.groups import Given, Groups

PROG = "python -m evaluation.compare"
OUTPUTS = ("compare.md", "compare.csv", "compare.json", "compare.png", "report.html")


def compare(
    folders: Sequence[str | Path | Sequence[str | Path]],
    output_folder: str | Path,
    *,
    names: Sequence[str] | None = None,
    seed: int = 0,
    groups: Groups | Given | None = None,
) -> list[dict[str, Any]]:
    """Compare models, paired by case, and write the table to `output_folder`.

    Parameters
    ----------
    folders
        Per model an OUT folder, or a sequence of them (folds, seeds). The first is the baseline.
    output_folder
        Gets compare.md, compare.csv, compare.json, compare.png and report.html.
    names
        Of the models; by default those of the trainers or folders.
    seed
        Of bootstrap and permutations.
    groups
        What belongs together, such as a patient's slices: a regular expression, a CSV file or
        {case: group}, see `groups.parse_groups`. None: as the folders were reported, if they say.

    Returns
    -------
    list of dict
        The table, one record per run and model, see `paired_rows.COLUMNS`.

    Raises
    ------
    UserError
        Fewer than two models, folders that are unfinished, damaged or lack rows, settings, cases or
        files that are not comparable (named), and an output folder that holds other results.
    """
    if len(folders) < 2:
        raise UserError(f"compare needs at least two folders, got {len(folders)}")
    check_integer("seed", seed, *LIMITS["seed"])
    output = Path(output_folder)
    _refuse_other_results(output)
    from evaluation.comparison.models import read_models
    from evaluation.comparison.outputs import write_comparison
    from evaluation.comparison.paired_rows import paired_rows
    from evaluation.groups import Groups, common_groups, parse_groups

    models, notes = read_models(folders, names)
    cases = models[0].summary["cases"]
    if groups is None:
        groups = common_groups([r for m in models for r in m.recorded_groups], cases)
    elif not isinstance(groups, Groups):
        groups = parse_groups(groups, cases)
    records = paired_rows(models, seed=seed, groups=groups)
    phantoms = never_there([row for m in models for row in m.rows])
    write_comparison(output, models, records, [*notes, *filter(None, [phantoms])], groups)
    return records


def main(argv: Sequence[str] | None = None, *, prog: str = PROG) -> int:
    """The command; returns its exit status, as `run_main` says."""
    arguments = _parser(prog).parse_args(argv)
    output = Path(arguments.output_folder)

    def work() -> int:
        folders = [_folders_of(word) for word in arguments.folders]
        compare(folders, output, seed=arguments.seed, groups=arguments.groups)
        print(printable_page(output / "compare.md"))
        print(f"\nwritten to {output}: {', '.join(OUTPUTS)}")
        return 0

    return run_main(prog, work, output=output)


def _refuse_other_results(folder: Path) -> None:
    """An evaluation or scores, whose report.html has the name of a comparison's."""
    if (folder / "summary.json").exists() or (folder / "settings.json").exists():
        raise UserError(
            f"{folder} holds an evaluation or scores, whose report.html would be overwritten: "
            "choose another output folder (-o)"
        )


def _folders_of(word: str) -> str | list[str]:
    """Of one model: a folder, or several joined by commas."""
    if Path(word).exists():
        return word
    folders = word.split(",")
    if not all(folders):
        raise UserError(f"folders are joined by single commas, got {word!r}")
    return folders


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description="Compare OUT folders of evaluation.robust, paired by case."
    )
    parser.add_argument(
        "folders",
        nargs="+",
        type=given_text,
        metavar="FOLDER[,FOLDER...]",
        help="OUT folders; the first is the baseline; commas join a model's folds and seeds",
    )
    parser.add_argument(
        "-o",
        dest="output_folder",
        type=given_text,
        required=True,
        metavar="OUT",
        help="output folder",
    )
    add_groups_option(parser, "as the folders were reported")
    parser.add_argument(
        "--seed", type=int, default=0, help="of bootstrap and permutations; default: %(default)s"
    )
    return parser


if __name__ == "__main__":
    leave(main())
