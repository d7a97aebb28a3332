"""The files and folders that a command reads and writes, before anything is."""

import os
from pathlib import Path

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import refuse_no_utf8


def output_folder(path: str | Path) -> Path:
    """Return the absolute path of a folder that may be written to, or made.

    Raises
    ------
    UserError
        It is a file, lies below one, is a link in a circle, or its name is no UTF-8.
    """
    refuse_no_utf8(path)
    resolved = Path(os.path.realpath(path))
    # of all others realpath leaves none
    if any(p.is_symlink() for p in (resolved, *resolved.parents)):
        raise UserError(f"{path} is a link in a circle: choose another folder with -o")
    above = next(p for p in (resolved, *resolved.parents) if p.exists())
    if not above.is_dir():
        raise UserError(
            f"{above} is a file, so {path} cannot be a folder: choose another one with -o"
        )
    return resolved


def input_folder(path: str | Path, what: str, option: str) -> Path:
    """Return a folder that is there.

    Raises
    ------
    UserError
        It is not there, or a file; says `what` it is for and by which `option` it was given.
    """
    folder = Path(path)
    if found := no_folder(folder):
        raise UserError(f"{what} {folder} {found} ({option})")
    return folder


def no_folder(path: Path) -> str:
    """What a path is instead of a folder; empty where it is one."""
    if path.is_dir():
        return ""
    return "is a file, not a folder" if path.exists() else "does not exist"


def input_file(path: str | Path, what: str, option: str) -> Path:
    """Return a file that is there; raises as `input_folder`."""
    file = Path(path)
    if not file.is_file():
        found = "is a folder, not a file" if file.is_dir() else "does not exist"
        raise UserError(f"{what} {file} {found} ({option})")
    return file
