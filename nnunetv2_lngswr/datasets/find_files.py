"""The files below a folder, each once, and what could not be looked at."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path


def find_files(
    folder: Path, *, without: Collection[Path] = ()
) -> tuple[list[Path], list[tuple[Path, str]]]:
    """All files below `folder`, links followed, hidden files left out.

    A folder that was come to on another way already (links may go in circles) is not gone into
    again.

    Parameters
    ----------
    folder
        Where to look, with its subfolders.
    without
        Folders that are not gone into, such as the one that is written.

    Returns
    -------
    files
        In order.
    wrong
        (place, why it could not be looked at): folders without permission, links that lead nowhere.
    """
    files: list[Path] = []
    wrong: list[tuple[Path, str]] = []
    seen = {_identity(place) for place in without if place.exists()}

    def unreadable(error: OSError) -> None:
        wrong.append((Path(error.filename), f"folder cannot be read ({error.strerror})"))

    for place, subfolders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        identity = _identity(Path(place))
        if identity in seen:
            subfolders.clear()
            continue
        seen.add(identity)
        # hidden folders are looked into, as before; this order is also that of the walk
        subfolders.sort()
        for path in (Path(place, name) for name in names if not name.startswith(".")):
            if path.is_file():
                files.append(path)
            elif path.is_symlink():
                wrong.append((path, f"link that leads to no file ({os.readlink(path)})"))
    return sorted(files), sorted(wrong)


def _identity(folder: Path) -> tuple[int, int]:
    stat = folder.stat()
    return stat.st_dev, stat.st_ino
