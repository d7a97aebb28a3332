"""`lngswr score`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from evaluation.groups import add_option as add_groups_option
from evaluation.scoring.options import NNUNET_PROCESSES, ScoreOptions
from nnunetv2_lngswr.cli.arguments import Commands, add_quiet, say
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import printable_page
from nnunetv2_lngswr.utils.option_types import given_text

_DEFAULTS = ScoreOptions()


def add_command(commands: Commands) -> None:
    """Add the command."""
    command = commands.add_parser(
        "score",
        help="Dice, surface distances, lesions, volumes and calibration of any segmentations",
        description="Score segmentations of any tool against labels, per case and label and as "
        "means with intervals. Several models are compared with the first, paired by case.",
    )
    _add_files(command)
    _add_meaning(command)
    _add_scores(command)
    add_quiet(command)
    command.set_defaults(run=_score)


def _add_files(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "-p",
        dest="predictions",
        nargs="+",
        type=given_text,
        required=True,
        metavar="PREDICTIONS",
        help="per model a folder of <case>.<ending>; commas join folders (folds); a folder that "
        "nnU-Net trained stands for its fold_X/validation",
    )
    add(
        "-l",
        dest="labels",
        type=given_text,
        required=True,
        metavar="LABELS",
        help="folder of the ground truth, <case>.<ending>",
    )
    add(
        "-o",
        dest="output_folder",
        type=given_text,
        required=True,
        metavar="OUT",
        help="output folder",
    )
    add(
        "--overwrite",
        action="store_true",
        help="score anew what an unfinished call with other arguments has left in OUT",
    )
    add("--names", nargs="+", metavar="NAME", help="of the models; default: those of their folders")
    add(
        "--chill",
        action="store_true",
        help="leave out cases without a prediction of every model, which are refused otherwise",
    )


def _add_meaning(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "-djfile",
        dest="dataset_json",
        type=given_text,
        metavar="FILE",
        help="dataset.json, for labels, regions and the ignore label; default: the labels found",
    )
    add(
        "-pfile",
        dest="plans",
        type=given_text,
        metavar="FILE",
        help="plans.json, where it names a label manager of its own",
    )
    add(
        "-il",
        dest="ignore_label",
        type=int,
        metavar="LABEL",
        help="ignore label, without dataset.json",
    )
    add_groups_option(command, "each case by itself")


def _add_scores(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--tolerance",
        dest="tolerance_mm",
        type=float,
        default=_DEFAULTS.tolerance_mm,
        metavar="MM",
        help="of the normalised surface Dice (%(default)s)",
    )
    add(
        "--lesion-iou",
        type=float,
        default=_DEFAULTS.lesion_iou,
        metavar="IOU",
        help="from which a predicted lesion counts as found (%(default)s)",
    )
    add(
        "--npz",
        dest="probabilities",
        action="store_true",
        help="score calibration too, from the .npz that nnUNetv2_predict --save_probabilities or "
        "nnUNetv2_train --npz wrote beside each prediction",
    )
    add(
        "-np",
        dest="processes",
        type=int,
        metavar="N",
        help="cases that are scored at a time, each in memory (nnUNet_def_n_proc or "
        f"{NNUNET_PROCESSES}, at most one per core)",
    )
    add("--seed", type=int, default=_DEFAULTS.seed, help="of the bootstrap (%(default)s)")


def _score(arguments: argparse.Namespace) -> int:
    given = dict(vars(arguments))
    progress = not given.pop("disable_progress_bar")
    folders = [_folders_of(word) for word in given.pop("predictions")]
    groups = _groups_of(given.pop("groups"))
    del given["run"]
    from evaluation.score import score_predictions

    score_predictions(folders, groups=groups, progress=progress, **given)
    output = Path(arguments.output_folder)
    say(printable_page(output / "report.md"))
    say(f"\nwritten to {output}: report.html, report.md, cases.csv, summary.json and figures")
    return 0


def _folders_of(word: str) -> list[str]:
    """Of one model: a folder, or several joined by commas."""
    folders = [word] if Path(word).exists() else word.split(",")
    if "" in folders:
        raise UserError(f"folders are joined by single commas, got {word!r} (-p)")
    return folders


def _groups_of(word: str | None) -> Callable[[Sequence[str]], Mapping[str, str]] | None:
    """What gives the patients of cases."""
    if word is None:
        return None
    from evaluation.groups import parse_groups

    return lambda cases: parse_groups(word, cases).of
