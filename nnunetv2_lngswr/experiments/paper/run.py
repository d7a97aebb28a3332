"""Running the protocol's steps, as far as they are not done yet."""

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from nnunetv2_lngswr.experiments.paper.places import Places
from nnunetv2_lngswr.experiments.paper.protocol import Protocol
from nnunetv2_lngswr.experiments.paper.steps import make_steps
from nnunetv2_lngswr.installation.register import check_trainers_are_found
from nnunetv2_lngswr.utils.errors import CommandError, UserError
from nnunetv2_lngswr.utils.files import read_json, write_file
from nnunetv2_lngswr.utils.processes import call_command


def run_paper(
    protocol: Protocol,
    output: str | Path,
    *,
    dry_run: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Run the steps that are not done yet.

    Parameters
    ----------
    protocol
        What is run.
    output
        Folder for evaluations and table; everything else goes where nnU-Net puts it.
    dry_run
        Only tell the steps.
    say
        Receives each line for the user.

    Returns
    -------
    Path
        The table's file.

    Raises
    ------
    UserError
        nnU-Net's folders are not set, the data set is not there or has no splits, `output` is of
        another protocol, nnU-Net does not find the trainers.
    CommandError
        A command failed, or ended without its outputs.
    """
    output = Path(output).resolve()
    places = Places.of(protocol, output)
    _claim(output, protocol, write=not dry_run)
    steps = make_steps(places)
    for number, step in enumerate(steps, 1):
        done = step.done()
        say(f"# [{number}/{len(steps)}] {step.title}{': done before' if done else ''}")
        if dry_run:
            say(shlex.join(step.command))
        elif not done:
            # a training that was cut off is continued
            command = places.resumed(step.command)
            say(shlex.join(command))
            _run(command)
            if not step.done():
                raise CommandError(
                    f"{step.title}: the command ended without its outputs: {shlex.join(command)}"
                )
    return output / "table" / "compare.md"


def _claim(output: Path, protocol: Protocol, *, write: bool) -> None:
    """Make `output` this protocol's folder; never touch one of another protocol."""
    marker = output / "protocol.json"
    # the device does not change what is measured
    settings = {key: value for key, value in asdict(protocol).items() if key != "device"}
    text = json.dumps(settings, indent=1)
    if marker.is_file() and read_json(marker) != json.loads(text):
        raise UserError(
            f"{output} is of another protocol (see {marker.name} there): choose another folder (-o)"
        )
    if write:
        check_trainers_are_found()
        if not marker.is_file():
            write_file(marker, text + "\n")


def _run(command: Sequence[str]) -> None:
    """Run one command with its output shown as it comes."""
    if command[0] == "install":
        write_file(Path(command[3]), Path(command[2]).read_bytes())
        return
    status = call_command(command)
    if status != 0:
        raise CommandError(
            f"{command[0]} failed (exit status {status}); "
            f"the same lngswr call goes on from here: {shlex.join(command)}"
        )
