"""The demo from its folder to its picture."""

import dataclasses
import json
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nnunetv2_lngswr import __version__
from nnunetv2_lngswr.experiments.demo.chain import Chain
from nnunetv2_lngswr.experiments.demo.places import Places, nnunet_folders
from nnunetv2_lngswr.experiments.demo.plans import BUDGETS
from nnunetv2_lngswr.experiments.demo.results import draw_overlays, result_table
from nnunetv2_lngswr.installation.register import check_trainers_are_found
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import LOCK_NAME, holds_nothing, read_json, write_file
from nnunetv2_lngswr.utils.locks import hold
from nnunetv2_lngswr.utils.output_folder import output_folder

MARKER = "lngswr_demo.json"


def run_demo(
    output: Path | str,
    sets: Sequence[str] = ("2d", "3d"),
    device: str = "cpu",
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Run the chain for each of the sets.

    Parameters
    ----------
    output
        Folder for everything it writes.
    sets
        Of "2d", "3d".
    device
        As for nnU-Net's commands.
    overwrite
        Start over, instead of going on where an earlier call stopped.
    say
        Receives each line for the user.

    Returns
    -------
    Path
        `output`.

    Raises
    ------
    UserError
        `output` holds something else, or a demo of other settings and not `overwrite`; the trainers
        are not registered.
    CommandError
        A command failed, with its last lines and where its log is.
    """
    sets = list(dict.fromkeys(sets))
    if not sets or not set(sets) <= set(BUDGETS):
        got = " ".join(sets) or "none"
        raise UserError(f"sets must be one or more of {', '.join(BUDGETS)}, got {got}")
    check_trainers_are_found()
    output = output_folder(output)
    _check(output, device, overwrite)
    with hold(output, "lngswr demo"):
        _check(output, device, overwrite)
        _claim(output, device, overwrite)
        _run_sets(output, sets, device, say)
    return output


def _run_sets(output: Path, sets: Sequence[str], device: str, say: Callable[[str], None]) -> None:
    started = time.monotonic()
    say(f"Everything goes to {output}. To go on there yourself with nnU-Net's commands:")
    for name, folder in nnunet_folders(output).items():
        say(f"  export {name}={shlex.quote(str(folder))}")
    for kind in sets:
        Chain(kind, output, device, say).run()
    _say_results(output, sets, say)
    say(f"{time.monotonic() - started:.0f} s in all.")


def _say_results(output: Path, sets: Sequence[str], say: Callable[[str], None]) -> None:
    say("")
    for line in result_table(output, sets):
        say(line)
    say(
        "Phantoms and a budget of minutes: "
        "this shows that the chain works, not what the method can do."
    )
    say("")
    picture = draw_overlays(output, sets)
    say(f"Picture (image, reference, prediction): {picture}")
    for kind in sets:
        say(f"Model of {kind}: {Places(kind, output).model}")


def _check(output: Path, device: str, overwrite: bool) -> None:
    """Refuse a folder that is not a demo's, or one of other settings."""
    marker = output / MARKER
    if not marker.is_file() and not holds_nothing(output):
        raise UserError(f"{output} exists and is no demo folder: choose another one with -o")
    if marker.is_file() and not overwrite and not _holds(marker, _settings(device)):
        raise UserError(
            f"{output} was made by another version or with other settings "
            f"(see {marker.name} there): add --overwrite to start over"
        )


def _claim(output: Path, device: str, overwrite: bool) -> None:
    """Make `output` this demo's folder."""
    if overwrite:
        # the marker last: without it a call that is killed here would leave a foreign folder
        for path in sorted(output.iterdir(), key=lambda p: p.name == MARKER):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK_NAME:
                path.unlink()
    write_file(output / MARKER, json.dumps(_settings(device), indent=4) + "\n")


def _settings(device: str) -> dict[str, Any]:
    return {
        "version": __version__,
        "device": device,
        "budgets": {kind: dataclasses.asdict(b) for kind, b in BUDGETS.items()},
    }


def _holds(marker: Path, settings: dict[str, Any]) -> bool:
    try:
        return read_json(marker) == settings
    except UserError as error:
        raise UserError(f"{error}: add --overwrite to start over") from None
