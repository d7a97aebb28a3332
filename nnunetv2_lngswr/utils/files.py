"""Files that are written whole or not at all, and JSON that is read so that a bad file is named."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from nnunetv2_lngswr.utils.errors import UserError


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`, for writers that take a path.

    It is renamed to `path` on success and removed on failure. The temporary name keeps the
    suffixes, which many writers read the format from, and is always the same: what a killed run has
    left is overwritten by the next.
    """
    path = Path(path)
    temporary = path.with_name(f".partial-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: str | Path, content: str | bytes | Callable[[BinaryIO], None]) -> Path:
    """Write a file; whoever reads it sees the old one or the whole new one.

    Parameters
    ----------
    path
        File to write; its folder is made.
    content
        Text (written as UTF-8), bytes, or a function that writes into an open binary file.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OSError
        A full disk, no permission: the old file stays, and no temporary one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # a name of its own per write: several processes may write the same file at once
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def read_json(path: str | os.PathLike, *, needs: Sequence[str] = ()) -> dict:
    """Return the content of a JSON file.

    Parameters
    ----------
    path
        The file.
    needs
        Keys that it must have.

    Raises
    ------
    UserError
        It is damaged or lacks one of these keys; names the path.
    OSError
        It is not there, or cannot be read.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable as JSON ({error})") from None
    missing = [key for key in needs if not isinstance(content, dict) or key not in content]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}")
    return content


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
