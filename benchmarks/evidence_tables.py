"""Puts the figures of benchmarks/results into tables of a page, and says whether they are there.

    python -m benchmarks.evidence_tables README.md docs/evidence.md docs/robustify.md [--check]

What lies between these two lines of a page is written by this script:

    <!-- table: KIND FILE.json[,FILE.json][ + FILE.json] [ARM ...] -->
    <!-- end of table -->

KIND  both         Dice; minus vanilla's on clean images, how much smaller the drop is; two
                   intervals each, as `cases` and as `again`
      cases        all differences from vanilla; intervals over cases or their groups
      again        the same, of training again: over trainings and groups
      beside       minus the first arm, and how much smaller the drop is than its; two intervals,
                   nothing corrected for
      late         minus late AT, as `cases`
      seeds        Dice of every training
      shares       by seed and of the means: how much smaller the drop is, and what it and the Dice
                   gained are of the first arm's
      against      minus the first arm, by seed, and the mean with its interval over the seeds
      search       of `small_search` and `late_phase`: the mean over the seeds, and minus the first
                   arm (its standard error)
      overview     Dice on several data sets, how much smaller the drop is at 8/255, as `again`
      machines     each training minus the one of the same arm and seed in the file before the +,
                   and the mean with its interval over the seeds; ARM=ARM where names differ
      validation   nnU-Net's own validation Dice at several budgets, the mean over the seeds
      robustified  of `robustify`: as `both`, and what is kept of AT's reduction of the drop
      calibration  ECE, clean and under the suite, over cases
      corruptions  of `lngswr compare`: the mean over all corruptions, two intervals as in `both`,
                   the mean over those that are not affine, and ECE
      each_corruption  of `lngswr compare`: the first arm's Dice, the others' minus that
      spectra      of `spectral_reading`: PGD's perturbation per stage and band, and what multiplies
                   it up to the bottleneck: all reconstructions x all layers
FILE  in benchmarks/results, of `lngswr benchmark robustness` or of the script that KIND names.
      Several, joined by commas: for these, `overview` and `validation`, and for others if they
      have a training of vanilla in common. Joined by + : of other machines, whose arms are marked
      with * and keep what their own file says of them.
ARM   what to show, in this order, in quotes where it has spaces; all by default.

`--check` changes nothing and fails where a page is not what would be written.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.evidence_files import KINDS_OF_FILES, KINDS_OF_MACHINES
from benchmarks.evidence_kinds import KINDS
from benchmarks.results_by_case import are_there, results_of
from benchmarks.saving import first_paragraph
from benchmarks.trainings import across_machines, joined
from nnunetv2_lngswr.experiments.robustness.arms import BASELINE
from nnunetv2_lngswr.utils.files import read_json, write_file

RESULTS = Path(__file__).parent / "results"
BLOCK = re.compile(r"(<!-- table: (.+?) -->\n)(.*?)(<!-- end of table -->)", re.DOTALL)
SAME = ("dataset", "cases", "features", "budget")
"""Of searches that are put together."""


def table(what: str) -> str:
    """What KIND FILE [ARM ...] stands for, in Markdown."""
    kind, files, *arms = shlex.split(re.sub(r"\s*([,+])\s+", r"\1", what))
    machines = [[RESULTS / file for file in its.split(",")] for its in files.split("+")]
    paths, *elsewhere = machines
    if kind in KINDS_OF_FILES:
        if elsewhere:
            raise SystemExit(f"{kind} takes no files of other machines: {files}")
        head, *rows = KINDS_OF_FILES[kind]([read_json(path) for path in paths], arms)
    elif kind in KINDS_OF_MACHINES:
        head, *rows = KINDS_OF_MACHINES[kind]([joined(its) for its in machines], arms)
    else:
        record = _joined_searches(paths) if kind == "search" else joined(paths)
        if len(paths) > 1 and kind in ("both", "cases", "again"):
            _compare_anew(record, arms)
        if elsewhere:
            record = across_machines([record, *map(joined, elsewhere)])
        arms = arms or list(record["dice" if kind == "search" else "arms"])
        head, *rows = KINDS[kind](record, arms)
    lines = [_line(head), "|" + "---|" * len(head), *map(_line, rows)]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _joined_searches(paths: Sequence[Path]) -> dict[str, Any]:
    record, *others = map(read_json, paths)
    for path, other in zip(paths[1:], others):
        differ = [key for key in SAME if other.get(key) != record.get(key)]
        if differ or record["dice"].keys() & other["dice"].keys():
            raise SystemExit(f"{path.name}: other {', '.join(differ) or 'results of the same arm'}")
        record["dice"] |= other["dice"]
    return record


def _compare_anew(record: dict[str, Any], arms: Sequence[str]) -> None:
    """Test all arms that are shown against vanilla, where their Dice by case is there.

    Elsewhere each keeps what its own benchmark said of it.
    """
    shown = [BASELINE, *(arm for arm in arms or record["arms"] if arm != BASELINE)]
    if are_there(record, shown):
        record["results"] = results_of(record, shown)


def written(page: str) -> str:
    """A page with its tables as they are now."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{table(found[2])}\n{found[4]}", page)


def main(argv: list[str] | None = None) -> None:
    """Write the tables of some pages, or look whether they are there."""
    parser = argparse.ArgumentParser(description=first_paragraph(__doc__))
    parser.add_argument("pages", type=Path, nargs="+", metavar="PAGE.md")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args(argv)
    for page in args.pages:
        text = page.read_text()
        new = written(text)
        if args.check and new != text:
            raise SystemExit(f"{page} has other tables than {RESULTS}: run without --check")
        if not args.check:
            write_file(page, new)


if __name__ == "__main__":
    main()
