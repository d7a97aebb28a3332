"""Which model: its folder, or data set, trainer, plans and configuration as nnUNetv2_predict."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.option_types import given_text
from nnunetv2_lngswr.utils.values import shown

# as nnUNetv2_predict has them
_DEFAULTS = {"trainer": "nnUNetTrainer", "plans": "nnUNetPlans"}
_FLAGS = {"configuration": "-c", "trainer": "-tr", "plans": "-p"}


class _InsteadOf(argparse.Action):
    """An option with which another is not required."""

    def __init__(self, *args: Any, other: argparse.Action, **options: Any) -> None:
        super().__init__(*args, **options)
        self._other = other

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        self._other.required = False
        setattr(namespace, self.dest, values)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add `-m`, or `-d -c -tr -p`."""
    which = parser.add_mutually_exclusive_group(required=True)
    folder = which.add_argument(
        "-m",
        dest="model_folder",
        type=given_text,
        metavar="MODEL_FOLDER",
        help="TRAINER__PLANS__CONFIGURATION with fold_X subfolders",
    )
    which.add_argument(
        "-d",
        dest="dataset",
        type=given_text,
        action=_InsteadOf,
        other=folder,
        metavar="DATASET",
        help="or, as in nnUNetv2_predict, the data set (name or number) of a model in "
        "nnUNet_results, with -c",
    )
    folder.required = True  # is said with all others that lack, as of a group is not
    helps = {
        "configuration": "2d, 3d_fullres, ...; with -d",
        "trainer": f"with -d; default: {_DEFAULTS['trainer']}",
        "plans": f"with -d; default: {_DEFAULTS['plans']}",
    }
    for name, text in helps.items():
        parser.add_argument(
            _FLAGS[name], dest=name, type=given_text, metavar=name.upper(), help=text
        )


def take_model_folder(arguments: dict[str, Any]) -> Path:
    """Remove what `add_options` added, and return the model's folder.

    Raises
    ------
    UserError
        -c, -tr or -p beside -m; -d without -c, without nnUNet_results, or naming no model there.
    """
    folder, dataset = arguments.pop("model_folder"), arguments.pop("dataset")
    popped = {name: arguments.pop(name) for name in _FLAGS}
    given = {name: value for name, value in popped.items() if value is not None}
    if folder is not None:
        if given:
            beside = ", ".join(_FLAGS[name] for name in given)
            raise UserError(f"-m names the whole model; {beside} can stand beside -d alone")
        return Path(folder)
    if "configuration" not in given:
        raise UserError("-d needs -c: 2d, 3d_fullres, ...")
    trained = _find_dataset(dataset)
    name = "{trainer}__{plans}__{configuration}".format(**_DEFAULTS | given)
    if not (trained / name).is_dir():
        there = sorted(found.name for found in trained.glob("*__*__*") if found.is_dir())
        raise UserError(
            f"{trained} has no {shown(name)}; models there: {', '.join(there) or 'none'} "
            "(-tr and -p name trainer and plans)"
        )
    return trained / name


def _find_dataset(dataset: str) -> Path:
    """The data set's folder in nnUNet_results."""
    results = os.environ.get("nnUNet_results", "")
    if not results.strip():
        raise UserError(
            "-d needs the environment variable nnUNet_results, or give the folder by -m"
        )
    try:
        names = sorted(found.name for found in Path(results).iterdir() if found.is_dir())
    except OSError as error:
        raise UserError(f"nnUNet_results is {results}, which cannot be read: {error}") from None
    if dataset.isascii() and dataset.isdigit():
        start = f"Dataset{dataset.lstrip('0').rjust(3, '0')}_"
        found = [name for name in names if name.startswith(start)]
    else:
        found = [name for name in names if name == dataset]
    if len(found) == 1:
        return Path(results) / found[0]
    there = ", ".join(found or [n for n in names if n.startswith("Dataset")]) or "none"
    what = "several data sets" if found else "no data set"
    raise UserError(f"nnUNet_results, {results}, has {what} {shown(dataset)}: {there}")
