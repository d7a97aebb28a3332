"""The command `lngswr`: parses, calls, prints.

Each group of commands has a file here, with its parser and what runs it. A command imports what it
needs when it runs, so that `--help` and a misspelt option answer at once.
"""

import argparse
import sys
from typing import NoReturn

from nnunetv2_lngswr import __version__
from nnunetv2_lngswr.cli import (
    benchmark,
    convert_dataset,
    demo,
    installation,
    paper,
    passed_on,
    robustify,
    score,
    splits,
    warm_start,
)
from nnunetv2_lngswr.utils.command_line import leave, run_main


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv
        The words after `lngswr`; None takes this process's.

    Returns
    -------
    int
        The exit status: 0, 1 (doctor found something wrong, a conversion skipped something), and
        those of `run_main` for what went wrong.
    """
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in passed_on.COMMANDS:
        return passed_on.COMMANDS[words[0]].run(words[1:])
    return run_main("lngswr", lambda: _run(words))


def program() -> NoReturn:
    """The program `lngswr`."""
    leave(main())


def _run(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    return arguments.run(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lngswr", description="LNG-SWR for nnU-Net v2.")
    parser.add_argument("--version", action="version", version=f"lngswr {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    installation.add_commands(commands)
    demo.add_command(commands)
    benchmark.add_command(commands)
    warm_start.add_command(commands)
    robustify.add_command(commands)
    convert_dataset.add_command(commands)
    score.add_command(commands)
    splits.add_command(commands)
    paper.add_command(commands)
    passed_on.add_commands(commands)
    return parser


if __name__ == "__main__":
    program()
