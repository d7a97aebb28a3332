"""`lngswr paper`."""

import argparse

from nnunetv2_lngswr.cli.arguments import Commands, add_device, say, take
from nnunetv2_lngswr.experiments.devices import default_device
from nnunetv2_lngswr.experiments.paper import DATASET_IDS, EPOCHS, Protocol, run_paper
from nnunetv2_lngswr.utils.option_types import count, given_text


def add_command(commands: Commands) -> None:
    """Add the command."""
    command = commands.add_parser(
        "paper",
        help="four trainers on five folds of one of the paper's data sets, with nnU-Net's "
        "defaults: train, attack, table; resumable",
        description=(
            "Four trainers on five folds with nnU-Net's defaults, on the paper's data sets, "
            "converted; the paper's own settings are not known to us. Trains, attacks, and writes "
            "one table. The same call goes on where an earlier one stopped."
        ),
    )
    command.add_argument("dataset", choices=tuple(DATASET_IDS), help="which data set")
    _add_what(command)
    _add_where(command)
    _add_cost(command)
    command.add_argument(
        "--dry-run", action="store_true", help="print the commands, run nothing, write nothing"
    )
    command.set_defaults(run=_paper)


def _add_what(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    numbers = ", ".join(f"{name} {number}" for name, number in DATASET_IDS.items())
    add(
        "-d",
        dest="dataset_id",
        metavar="ID",
        type=int,
        help=f"number of the converted data ({numbers})",
    )
    add(
        "-c",
        dest="configuration",
        type=given_text,
        default=Protocol.configuration,
        metavar="CONFIGURATION",
        help="nnU-Net's configuration (%(default)s)",
    )
    add(
        "-f",
        dest="folds",
        nargs="+",
        type=int,
        default=list(Protocol.folds),
        metavar="FOLD",
        help="folds (all five)",
    )
    add(
        "-p",
        dest="plans",
        type=given_text,
        default=Protocol.plans,
        metavar="PLANS",
        help="plans in nnUNet_preprocessed (%(default)s)",
    )


def _add_where(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-o",
        dest="output",
        type=given_text,
        metavar="FOLDER",
        help="folder for evaluations and table (lngswr_paper_DATASET)",
    )
    add_device(command, default=Protocol.device)


def _add_cost(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--epochs",
        type=int,
        choices=EPOCHS,
        default=Protocol.epochs,
        help="a short budget in place of nnU-Net's",
    )
    add(
        "--steps",
        type=count,
        default=Protocol.steps,
        metavar="N",
        help="of the attacks, as for lngswr evaluate",
    )
    add(
        "--max-cases",
        type=count,
        default=Protocol.max_cases,
        metavar="N",
        help="attack a seeded choice of N cases",
    )
    add(
        "--disable_tta",
        dest="use_mirroring",
        action="store_false",
        help="no mirroring while attacking",
    )


def _paper(arguments: argparse.Namespace) -> int:
    if arguments.dataset_id is None:
        arguments.dataset_id = DATASET_IDS[arguments.dataset]
    arguments.folds = tuple(arguments.folds)
    if arguments.device is None and not arguments.dry_run:
        # nnU-Net's commands take cuda unless told otherwise
        arguments.device = None if default_device() == "cuda" else "cpu"
    output = arguments.output or f"lngswr_paper_{arguments.dataset}"
    table = run_paper(take(Protocol, arguments), output, dry_run=arguments.dry_run, say=say)
    if not arguments.dry_run:
        print(f"table: {table}")
    return 0
