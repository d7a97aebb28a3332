"""Puts shims where nnU-Net looks for trainers and planners, and takes them out again.

nnU-Net v2 finds a trainer by name in the modules of its own folder ``nnunetv2/training/
nnUNetTrainer/``, a planner in those of ``nnunetv2/experiment_planning/``; only modules directly in
those folders are found without importing sub-packages (and with them timm and torchvision).
`register` copies the files of ``patches/`` there, `unregister` removes them. The functions return
what they did; only the command line prints. nnU-Net is never imported here, only located.
"""

import importlib.util
import os
import re
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import atomic_path

SHIM_NAME = "nnUNetTrainerLNGSWR.py"
PLANNER_SHIM_NAME = "nnUNetPlannerLNGSWR.py"
SHIM_MARKER = b"# lngswr-shim:"
NNUNET_RANGE = "nnunetv2>=2.8,<3"


@dataclass(frozen=True)
class NNUNet:
    """The nnU-Net that this Python would import."""

    version: str
    trainer_folder: Path
    """Where it looks for trainers first."""

    @property
    def shim(self) -> Path:
        return self.trainer_folder / SHIM_NAME

    @property
    def planner_shim(self) -> Path:
        return _shims_of(self.trainer_folder)[1]


@dataclass(frozen=True)
class Change:
    """What `register` or `unregister` did with one file."""

    action: str
    """registered, updated, unchanged, removed or absent."""
    path: Path


def register() -> list[Change]:
    """Copy the shims, of trainers and planners, into nnU-Net's folders, or bring them up to date.

    Registering twice changes nothing.

    Raises
    ------
    UserError
        nnunetv2 is missing or outside 2.8 <= version < 3; another file of such a name is in the way
        (nothing is written then); a folder cannot be written.
    """
    shims = _shims_of(find_nnunet().trainer_folder)
    states = [shim_state(shim) for shim in shims]
    for shim, state in zip(shims, states):
        if state == "foreign":
            raise UserError(
                f"{shim} was not written by `lngswr register` and is left alone. "
                "Move it away, then register again."
            )
    return [_write_shim(shim, state) for shim, state in zip(shims, states)]


def unregister() -> list[Change]:
    """Remove the shims from nnU-Net's folders; action "absent" where there is none.

    Raises
    ------
    UserError
        nnunetv2 is missing; a file of such a name is not ours (nothing is removed then); one cannot
        be removed.
    """
    # any version: a shim must come out also after nnU-Net was up- or downgraded out of our range
    shims = _shims_of(_find_trainer_folder())
    states = [shim_state(shim) for shim in shims]
    for shim, state in zip(shims, states):
        if state == "foreign":
            raise UserError(f"{shim} was not written by `lngswr register` and is left alone.")
    return [_remove_shim(shim, state) for shim, state in zip(shims, states)]


def trainers_are_found() -> bool:
    """Whether nnU-Net will find our trainers: registered, or through nnUNet_extTrainer.

    Raises
    ------
    UserError
        As `find_nnunet`.
    """
    registered = shim_state(find_nnunet().shim) in ("current", "outdated")
    return registered or bool(external_folders_with_shim())


def check_trainers_are_found() -> None:
    """Raise UserError, with what to do, unless nnU-Net will find our trainers."""
    if not trainers_are_found():
        raise UserError(
            "nnU-Net does not find the LNG-SWR trainers yet: "
            "lngswr register (lngswr doctor shows more)"
        )


def find_nnunet() -> NNUNet:
    """Locate nnU-Net (regular or editable install) without importing it.

    Raises
    ------
    UserError
        It is missing, or not 2.8 <= version < 3.
    """
    import importlib.metadata  # here, since it takes a third of the time of `lngswr --help`

    folder = _find_trainer_folder()
    try:
        version = importlib.metadata.version("nnunetv2")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"nnunetv2 in {folder.parents[1]} has no version (no package metadata). "
            f'Install it: pip install "{NNUNET_RANGE}"'
        ) from None
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    if not (2, 8) <= numbers < (3,):
        raise UserError(
            f"nnunetv2 {version} in {folder.parents[1]} does not fit; needed is "
            f'2.8 <= version < 3: pip install "{NNUNET_RANGE}"'
        )
    return NNUNet(version, folder)


def shim_source(name: str = SHIM_NAME) -> Path:
    """Return a shim as shipped.

    It lies inside an installed package, and beside the package in a checkout or editable install.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "patches", package.parent / "patches"):
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{name} is missing from {package / 'patches'}: install nnunetv2_lngswr again.")


def shim_state(shim: Path) -> str:
    """absent, current (as shipped), outdated (an older one of ours) or foreign (not ours)."""
    # read first and ask later: another call may remove it at any moment
    try:
        content = shim.read_bytes() if stat.S_ISREG(shim.stat().st_mode) else b""
    except FileNotFoundError:
        return "foreign" if shim.is_symlink() else "absent"
    if content == shim_source(shim.name).read_bytes():
        return "current"
    return "outdated" if content.startswith(SHIM_MARKER) else "foreign"


def external_trainer_line() -> str:
    """Return the shell line that makes nnU-Net find our trainers without a file in its folder."""
    return f"export nnUNet_extTrainer={shim_source().parent}"


def external_folders_with_shim() -> list[str]:
    """Return the folders in nnUNet_extTrainer that hold our trainers' shim."""
    folders = os.environ.get("nnUNet_extTrainer", "").split(os.pathsep)
    return [f for f in folders if f and os.path.isfile(os.path.join(f, SHIM_NAME))]


def _shims_of(trainer_folder: Path) -> tuple[Path, Path]:
    """(of the trainers, of the planners)."""
    planning = trainer_folder.parents[1] / "experiment_planning"
    return trainer_folder / SHIM_NAME, planning / PLANNER_SHIM_NAME


def _write_shim(shim: Path, state: str) -> Change:
    if state == "current":
        return Change("unchanged", shim)
    try:
        with atomic_path(shim) as temporary:
            temporary.write_bytes(shim_source(shim.name).read_bytes())
    except OSError as error:
        raise UserError(
            f"cannot write to {shim.parent} ({error.strerror}). Without registering, this makes "
            "nnU-Net find the trainers, though not the planners (put it into your shell's start-up "
            "file; it needs a torchvision that imports, see `lngswr doctor`):\n"
            f"{external_trainer_line()}"
        ) from error
    return Change("updated" if state == "outdated" else "registered", shim)


def _remove_shim(shim: Path, state: str) -> Change:
    if state == "absent":
        return Change("absent", shim)
    try:
        shim.unlink(missing_ok=True)  # another call may remove it at the same time
        Path(importlib.util.cache_from_source(str(shim))).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot remove {shim} ({error.strerror}). "
            "Remove it with the rights it was installed with."
        ) from error
    return Change("removed", shim)


def _find_trainer_folder() -> Path:
    spec = importlib.util.find_spec("nnunetv2")
    # without an origin it is a namespace package: a folder left behind by an uninstall
    # (our shim may be all that is in it)
    if spec is None or spec.origin is None:
        raise UserError(
            f'nnunetv2 is not installed for {sys.executable}: pip install "{NNUNET_RANGE}"'
        )
    folder = Path(spec.origin).parent / "training" / "nnUNetTrainer"
    if not (folder / "nnUNetTrainer.py").is_file():
        raise UserError(f'no nnU-Net v2 trainers in {folder}: pip install "{NNUNET_RANGE}"')
    return folder
