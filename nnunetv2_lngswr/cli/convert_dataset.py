"""`lngswr convert-dataset lidc | tnscui | image-folder`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from nnunetv2_lngswr.cli.arguments import Commands, add_quiet, take
from nnunetv2_lngswr.datasets.options import (
    CONSENSUS,
    CROP_MM,
    FORMS,
    MAX_DISTANCE,
    VOTERS,
    DatasetSpec,
    ImageOptions,
    LidcOptions,
)
from nnunetv2_lngswr.utils.option_types import given_text

if TYPE_CHECKING:
    from nnunetv2_lngswr.datasets.conversion import Conversion
    from nnunetv2_lngswr.datasets.joined_splits import Joined


def add_command(commands: Commands) -> None:
    """Add the command, with a command of its own for every kind of download."""
    command = commands.add_parser(
        "convert-dataset",
        help="downloaded data sets to nnU-Net raw format, with splits and a manifest",
    )
    kinds = command.add_subparsers(title="data sets", metavar="DATASET", required=True)
    _add_lidc(kinds)
    _add_tnscui(kinds)
    _add_image_folder(kinds)


def _add_lidc(kinds: Commands) -> None:
    command = _add_kind(kinds, "lidc", "LIDC-IDRI: DICOM series and the readers' XML", 620, "LIDC")
    add = command.add_argument
    add(
        "--annotations",
        type=given_text,
        metavar="FOLDER",
        help="folder with the XML files, if they are not in the download's folders",
    )
    add(
        "--form",
        choices=FORMS,
        default=LidcOptions.form,
        help="2D slices with nodules, 3D crops around them, or whole scans (%(default)s)",
    )
    _add_readers(command)
    add(
        "--small",
        action="store_true",
        help="nodules under 3 mm too, as balls of 3 mm around the reader's point",
    )
    add(
        "--crop-mm",
        type=float,
        default=LidcOptions.crop_mm,
        metavar="MM",
        help=f"edge of crops ({CROP_MM:g}); slices are cut too if it is given",
    )
    add(
        "--min-pixels",
        type=int,
        default=LidcOptions.min_pixels,
        metavar="N",
        help="leave out slices with less nodule (%(default)s)",
    )
    add("--keep-empty", action="store_true", help="use scans without a nodule")
    command.set_defaults(run=_convert_lidc)


def _add_readers(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--consensus",
        choices=CONSENSUS,
        default=LidcOptions.consensus,
        help="voxels that so many readers outlined; majority: at least half; one: see --reader "
        "(%(default)s)",
    )
    add(
        "--reader",
        type=int,
        default=LidcOptions.reader,
        metavar="N",
        help="which reading session, for --consensus one (%(default)s)",
    )
    add(
        "--voters",
        choices=VOTERS,
        default=LidcOptions.voters,
        help="readers that count: all of the scan, or those who outlined the nodule, as in pylidc "
        "(%(default)s)",
    )


def _add_tnscui(kinds: Commands) -> None:
    command = _add_kind(
        kinds, "tnscui", "TN-SCUI2020: image/, mask/ and train.csv", 610, "TNSCUI2020"
    )
    _add_image_options(command)
    command.set_defaults(run=_convert_tnscui)


def _add_image_folder(kinds: Commands) -> None:
    command = _add_kind(
        kinds, "image-folder", "folders of images and masks, such as BUSI", None, "Images"
    )
    add = command.add_argument
    add(
        "--masks",
        type=given_text,
        metavar="FOLDER",
        help="folder with the masks; default: that of the images",
    )
    add(
        "--mask-pattern",
        default=ImageOptions.mask_pattern,
        metavar="REGEX",
        help="a mask's name without suffix, with the image's name in parentheses; a mask of the "
        "image's own name in --masks always counts (%(default)s)",
    )
    add(
        "--label",
        type=given_text,
        default="foreground",
        metavar="NAME",
        help="name of what is segmented (%(default)s)",
    )
    add(
        "--channel",
        type=given_text,
        default="image",
        metavar="NAME",
        help="name of the image's channel, which nnU-Net chooses its normalisation by "
        "(%(default)s)",
    )
    add(
        "--group-pattern",
        type=given_text,
        metavar="REGEX",
        help="what in an image's path tells the patient, in parentheses; "
        "default: each image by itself",
    )
    _add_image_options(command)
    command.set_defaults(run=_convert_image_folder)


def _add_image_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--mask-threshold",
        type=int,
        default=ImageOptions.mask_threshold,
        metavar="N",
        help="masks are what is at least N bright, for lossy files; default: one value besides 0",
    )
    add("--keep-empty", action="store_true", help="use images whose mask is empty")
    add("--luminance", action="store_true", help="make colour images grey instead of skipping them")
    add(
        "--near-duplicates",
        action=argparse.BooleanOptionalAction,
        default=ImageOptions.near_duplicates,
        help="look for near-duplicates and keep them in one fold; default: where no pattern tells "
        "the patients",
    )


def _add_kind(
    kinds: Commands, name: str, help: str, dataset_id: int | None, dataset_name: str
) -> argparse.ArgumentParser:
    """Add a kind of download with the options that all have; no `dataset_id`: the user gives it."""
    command = kinds.add_parser(
        name,
        help=help,
        description=f"{help[0].upper()}{help[1:]}. "
        "Exit status 1: done, but something was skipped (see manifest.json) or there "
        "are no splits.",
    )
    add = command.add_argument
    add(
        "-i",
        dest="input",
        type=given_text,
        metavar="FOLDER",
        required=True,
        help="the download",
    )
    add(
        "-o",
        dest="output",
        type=given_text,
        metavar="NNUNET_RAW",
        required=True,
        help="nnU-Net's raw folder; DatasetXXX_NAME is made in it",
    )
    shown = "required" if dataset_id is None else dataset_id
    add(
        "-d",
        dest="dataset_id",
        metavar="ID",
        type=int,
        default=dataset_id,
        required=dataset_id is None,
        help=f"number of the data set ({shown})",
    )
    add("--name", default=dataset_name, help=f"its name ({dataset_name})")
    folds = DatasetSpec.folds
    add("--folds", type=int, default=folds, help="folds of splits_final.json (%(default)s)")
    add("--seed", type=int, default=DatasetSpec.seed, help="of the folds (%(default)s)")
    add(
        "--overwrite",
        action="store_true",
        help="convert anew what was converted with other settings",
    )
    add_quiet(command)
    return command


def _convert_lidc(arguments: argparse.Namespace) -> int:
    from nnunetv2_lngswr.datasets.lidc import ENDING, convert_lidc

    done = convert_lidc(
        arguments.input,
        arguments.output,
        _spec(arguments, channel="CT", ending=ENDING),
        annotations=arguments.annotations,
        options=take(LidcOptions, arguments),
        **_how(arguments),
    )
    return _report(done)


def _convert_tnscui(arguments: argparse.Namespace) -> int:
    from nnunetv2_lngswr.datasets.image_folder import ENDING
    from nnunetv2_lngswr.datasets.tnscui import convert_tnscui

    done = convert_tnscui(
        arguments.input,
        arguments.output,
        _spec(arguments, channel="ultrasound", ending=ENDING),
        options=take(ImageOptions, arguments),
        **_how(arguments),
    )
    return _report(done)


def _convert_image_folder(arguments: argparse.Namespace) -> int:
    from nnunetv2_lngswr.datasets.image_folder import ENDING, convert_image_folder

    done = convert_image_folder(
        arguments.input,
        arguments.output,
        _spec(arguments, channel=arguments.channel, ending=ENDING, label=arguments.label),
        masks=arguments.masks,
        group_pattern=arguments.group_pattern,
        options=take(ImageOptions, arguments),
        **_how(arguments),
    )
    return _report(done)


def _spec(
    arguments: argparse.Namespace, *, channel: str, ending: str, label: str = "nodule"
) -> DatasetSpec:
    return DatasetSpec(
        dataset_id=arguments.dataset_id,
        name=arguments.name,
        channel=channel,
        label=label,
        file_ending=ending,
        folds=arguments.folds,
        seed=arguments.seed,
    )


def _how(arguments: argparse.Namespace) -> dict[str, bool]:
    return {"overwrite": arguments.overwrite, "progress": not arguments.disable_progress_bar}


def _report(done: Conversion, shown: int = 20) -> int:
    """Print what a conversion did. 0, or 1 if something was skipped."""
    counts = done.counts
    print(
        f"{done.folder}: {counts['used']} used, {counts['left out']} left out, "
        f"{counts['skipped']} skipped; {done.converted} units converted now, {done.kept} before"
    )
    if done.joined is not None:
        _report_joined(done.joined)
    for entry in done.skipped[:shown]:
        print(f"skipped: {entry.source}: {entry.reason}", file=sys.stderr)
    if counts["skipped"] > shown:
        rest, manifest = counts["skipped"] - shown, done.folder / "manifest.json"
        print(f"... and {rest} more, all of them in {manifest}", file=sys.stderr)
    if done.split_problem:
        print(f"no splits_final.json: {done.split_problem}", file=sys.stderr)
    return 1 if counts["skipped"] or done.split_problem else 0


def _report_joined(joined: Joined) -> None:
    """Say how many groups near-duplicates tie together."""
    if not joined.pairs:
        print(f"near-duplicates: none among {joined.groups_before} groups")
        return
    print(
        f"near-duplicates: {joined.pairs} pairs (at most {MAX_DISTANCE} of 256 bits differ) join "
        f"{joined.groups_before} groups to {joined.groups_after}"
    )
    if joined.over_borders:
        print(
            f"{joined.over_borders} of them lie over a fold border of the splits_final.json that "
            "was there and stays: `lngswr splits --join` makes new ones",
            file=sys.stderr,
        )
