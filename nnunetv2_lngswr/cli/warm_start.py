"""`lngswr warm-start`."""

import argparse

from nnunetv2_lngswr.cli.arguments import Commands
from nnunetv2_lngswr.utils.option_types import given_text


def add_command(commands: Commands) -> None:
    """Add the command."""
    command = commands.add_parser(
        "warm-start", help="make a vanilla nnU-Net checkpoint usable as -pretrained_weights"
    )
    command.add_argument(
        "source",
        type=given_text,
        metavar="VANILLA.pth",
        help="checkpoint of a vanilla nnU-Net v2 training",
    )
    command.add_argument(
        "destination",
        type=given_text,
        metavar="OUT.pth",
        help="file to write: the same backbone with identity LNG-SWR parts",
    )
    command.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="unpickle all that VANILLA.pth holds and import all that its plans name, which can "
        "run code",
    )
    command.set_defaults(run=_warm_start)


def _warm_start(arguments: argparse.Namespace) -> int:
    from nnunetv2_lngswr.training.warm_start import warm_start_checkpoint

    warm_start_checkpoint(
        arguments.source, arguments.destination, trust_checkpoint=arguments.trust_checkpoint
    )
    print(
        f"wrote {arguments.destination}; train from it with "
        f"-pretrained_weights {arguments.destination}"
    )
    return 0
