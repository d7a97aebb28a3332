"""Writing files so that a reader, or a killed run, never meets half of one, and reading JSON so that a bad file is named."""

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
    """Yield a temporary path beside `path`, for writers that take a path; rename it to `path` on success, remove it on failure.

    The temporary name keeps the suffixes, which many writers read the format from, and is always the same: what a killed
    run has left is overwritten by the next.
    """
    path = Path(path)
    temporary = path.with_name(f".partial-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: str | Path, content: str | bytes | Callable[[BinaryIO], None]) -> Path:
    """Write text (UTF-8), bytes, or what `content(file)` writes into an open binary file, to `path`; the folder is made.

    Whoever reads `path` sees the old file or the whole new one. OSError (a full disk, no permission) leaves the old file and no
    temporary one behind.
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
    """The content of a JSON file. ValueError, with the path, for a file that is damaged or lacks one of the keys in `needs`."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not readable as JSON ({error})") from None
    missing = [key for key in needs if not isinstance(content, dict) or key not in content]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}")
    return content


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
