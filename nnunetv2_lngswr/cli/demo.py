"""`lngswr demo`."""

import argparse

from nnunetv2_lngswr.cli.arguments import Commands, add_device, say
from nnunetv2_lngswr.utils.option_types import given_text


def add_command(commands: Commands) -> None:
    """Add the command."""
    command = commands.add_parser(
        "demo", help="plan, train, predict and evaluate on phantom data, in about five minutes"
    )
    command.add_argument(
        "-o",
        dest="output",
        type=given_text,
        metavar="FOLDER",
        default="lngswr_demo",
        help="folder for everything it writes (lngswr_demo)",
    )
    command.add_argument(
        "--sets",
        nargs="+",
        choices=("2d", "3d"),
        default=["2d", "3d"],
        help="which phantom sets (both)",
    )
    add_device(command, default="cpu")
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="start over instead of going on where an earlier call stopped",
    )
    command.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from nnunetv2_lngswr.experiments.demo import run_demo

    run_demo(
        arguments.output, arguments.sets, arguments.device, overwrite=arguments.overwrite, say=say
    )
    return 0
