"""`lngswr splits`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_lngswr.cli.arguments import Commands, add_quiet
from nnunetv2_lngswr.datasets.options import MAX_DISTANCE, DatasetSpec
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.option_types import given_text

if TYPE_CHECKING:
    from nnunetv2_lngswr.datasets.near_duplicates import NearDuplicate


def add_command(commands: Commands) -> None:
    """Add the command."""
    command = commands.add_parser(
        "splits",
        help="splits_final.json that keeps patients together; "
        "refuses near-duplicates over a fold border",
    )
    add = command.add_argument
    add(
        "-i",
        dest="input",
        type=given_text,
        metavar="DATASET_FOLDER",
        required=True,
        help="data set in nnU-Net raw format",
    )
    add(
        "-o",
        dest="output",
        type=given_text,
        metavar="FILE",
        help="file to write; default: splits_final.json in that folder, "
        "from where nnU-Net's planner takes it",
    )
    _add_patients(command)
    add("--folds", type=int, default=DatasetSpec.folds, help="(%(default)s)")
    add("--seed", type=int, default=DatasetSpec.seed, help="(%(default)s)")
    _add_near_duplicates(command)
    add_quiet(command)
    command.set_defaults(run=_splits)


def _add_patients(command: argparse.ArgumentParser) -> None:
    source = command.add_mutually_exclusive_group()
    source.add_argument(
        "--pattern",
        metavar="REGEX",
        help="what in a case's name tells the patient, in parentheses; "
        "without it and --csv each case counts as a patient, which needs --join",
    )
    source.add_argument("--csv", type=given_text, metavar="FILE", help="table with a row per case")
    command.add_argument(
        "--case-column",
        default="case",
        metavar="NAME",
        help="its column of case names (%(default)s)",
    )
    command.add_argument(
        "--group-column",
        default="patient",
        metavar="NAME",
        help="its column of patients (%(default)s)",
    )


def _add_near_duplicates(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--max-distance",
        type=int,
        default=MAX_DISTANCE,
        metavar="BITS",
        help="images count as near-duplicates if their perceptual hashes differ in "
        "at most so many of 256 bits (%(default)s)",
    )
    what = command.add_mutually_exclusive_group()
    what.add_argument("--join", action="store_true", help="put near-duplicates into one fold")
    what.add_argument(
        "--allow-near-duplicates", action="store_true", help="report them and write all the same"
    )


def _splits(arguments: argparse.Namespace) -> int:
    from nnunetv2_lngswr.datasets import near_duplicates, splits
    from nnunetv2_lngswr.datasets.conversion import write_if_changed

    if arguments.pattern is None and arguments.csv is None and not arguments.join:
        raise UserError(
            "nothing tells what belongs together: give --pattern or --csv for the patients, or "
            "--join to go by near-duplicates alone"
        )
    splits.check_folds(arguments.folds)
    near_duplicates.check_distance(arguments.max_distance)
    images = splits.cases_of(arguments.input)
    groups = _groups(arguments, images)
    # before the images are read
    splits.check_folds(arguments.folds, len(set(groups.values())))
    pairs = near_duplicates.near_duplicates(
        images,
        groups,
        max_distance=arguments.max_distance,
        progress=not arguments.disable_progress_bar,
    )
    kept_together = near_duplicates.join_groups(groups, pairs) if arguments.join else groups
    folds = splits.make_folds(kept_together, folds=arguments.folds, seed=arguments.seed)
    leaks = set(near_duplicates.leaks(folds, pairs))
    _print_pairs(pairs, leaks, groups)
    if leaks and not arguments.allow_near_duplicates:
        raise UserError(
            f"{len(leaks)} pairs of near-duplicates lie over a fold border, nothing was written: "
            "look at them, then --join puts each pair into one fold, "
            "--allow-near-duplicates writes the splits as they are"
        )
    output = Path(arguments.output or Path(arguments.input) / "splits_final.json")
    write_if_changed(output, splits.splits_text(folds))
    sizes = ", ".join(str(len(fold["val"])) for fold in folds)
    before, after = (len(set(of.values())) for of in (groups, kept_together))
    joined = f", joined to {after}," if after < before else ""
    print(
        f"wrote {output}: {len(groups)} cases of {before} groups{joined} "
        f"in {len(folds)} folds of {sizes}"
    )
    return 0


def _groups(arguments: argparse.Namespace, images: Mapping[str, Path]) -> Mapping[str, str]:
    from nnunetv2_lngswr.utils import groups

    if arguments.pattern is not None:
        return groups.groups_by_pattern(images, arguments.pattern)
    if arguments.csv is not None:
        return groups.groups_by_csv(
            images, arguments.csv, arguments.case_column, arguments.group_column
        )
    return {case: case for case in images}


def _print_pairs(
    pairs: Collection[NearDuplicate], leaks: Collection[NearDuplicate], groups: Mapping[str, str]
) -> None:
    for pair in pairs:
        where = "over a fold border" if pair in leaks else "in one fold"
        print(
            f"near-duplicates {where}: {pair.a} ({groups[pair.a]}) and {pair.b} "
            f"({groups[pair.b]}), {pair.distance} of 256 bits",
            file=sys.stderr,
        )
