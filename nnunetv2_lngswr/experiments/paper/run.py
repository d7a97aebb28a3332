"""Running the protocol's steps, as far as they are not done yet."""

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from nnunetv2_lngswr.experiments.paper.places import Places, state_of
from nnunetv2_lngswr.experiments.paper.protocol import Protocol
from nnunetv2_lngswr.experiments.paper.steps import make_steps
from nnunetv2_lngswr.installation.register import check_trainers_are_found
from nnunetv2_lngswr.utils.errors import CommandError, UserError
from nnunetv2_lngswr.utils.files import read_json, write_file
from nnunetv2_lngswr.utils.locks import hold
from nnunetv2_lngswr.utils.output_folder import output_folder
from nnunetv2_lngswr.utils.processes import call_command

MARKER = "protocol.json"


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
        another protocol, nnU-Net does not find the trainers, another call is at work on `output`
        or on the same models.
    CommandError
        A command failed, or ended without its outputs.
    """
    output = output_folder(output)
    places = Places.of(protocol, output)
    _check(output, protocol)
    if dry_run:
        _run_steps(places, say, dry_run=True)
    else:
        check_trainers_are_found()
        # another call, with another output, may train the same models
        with hold(output, "lngswr paper"), hold(places.results, "lngswr paper"):
            _check(output, protocol)
            _claim(output, protocol)
            _run_steps(places, say, dry_run=False)
    return output / "table" / "compare.md"


def _run_steps(places: Places, say: Callable[[str], None], *, dry_run: bool) -> None:
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
            # as they are now: another may change them meanwhile
            inputs = state_of(step.inputs)
            _run(command)
            if step.output is not None and step.output.is_file():
                places.note(step.output, inputs)
            if not step.done():
                raise CommandError(
                    f"{step.title}: the command ended without its outputs: {shlex.join(command)}"
                )


def _check(output: Path, protocol: Protocol) -> None:
    """Refuse the folder of another protocol."""
    marker = output / MARKER
    if marker.is_file() and read_json(marker) != json.loads(_record(protocol)):
        raise UserError(
            f"{output} is of another protocol (see {marker.name} there): choose another folder (-o)"
        )


def _claim(output: Path, protocol: Protocol) -> None:
    """Make `output` this protocol's folder."""
    if not (output / MARKER).is_file():
        write_file(output / MARKER, _record(protocol) + "\n")


def _record(protocol: Protocol) -> str:
    # the device does not change what is measured
    settings = {key: value for key, value in asdict(protocol).items() if key != "device"}
    return json.dumps(settings, indent=1)


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
