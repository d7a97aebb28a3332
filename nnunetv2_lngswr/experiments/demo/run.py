"""The demo from its folder to its picture."""

import dataclasses
import json
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from nnunetv2_lngswr import __version__
from nnunetv2_lngswr.experiments.demo.chain import Chain
from nnunetv2_lngswr.experiments.demo.places import Places, nnunet_folders
from nnunetv2_lngswr.experiments.demo.plans import BUDGETS
from nnunetv2_lngswr.experiments.demo.results import draw_overlays, result_table
from nnunetv2_lngswr.installation.register import check_trainers_are_found
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import write_file

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
    output = Path(output).resolve()
    _claim(output, device, overwrite)

    started = time.monotonic()
    say(f"Everything goes to {output}. To go on there yourself with nnU-Net's commands:")
    for name, folder in nnunet_folders(output).items():
        say(f"  export {name}={shlex.quote(str(folder))}")
    for kind in sets:
        Chain(kind, output, device, say).run()
    _say_results(output, sets, say)
    say(f"{time.monotonic() - started:.0f} s in all.")
    return output


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


def _claim(output: Path, device: str, overwrite: bool) -> None:
    """Make `output` this demo's folder. Never touch a folder that is not a demo's."""
    settings = {
        "version": __version__,
        "device": device,
        "budgets": {kind: dataclasses.asdict(b) for kind, b in BUDGETS.items()},
    }
    marker = output / MARKER
    if output.exists() and not marker.is_file() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} exists and is no demo folder: choose another one with -o")
    if marker.is_file() and overwrite:
        shutil.rmtree(output)
    elif marker.is_file() and json.loads(marker.read_text()) != settings:
        raise UserError(
            f"{output} was made by another version or with other settings "
            f"(see {marker.name} there): add --overwrite to start over"
        )
    output.mkdir(parents=True, exist_ok=True)
    write_file(marker, json.dumps(settings, indent=4) + "\n")
