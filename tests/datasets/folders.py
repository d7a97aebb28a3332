"""What lies in a folder, to compare before and after."""

import hashlib
from pathlib import Path

from nnunetv2_lngswr.utils.files import LOCK_NAME


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    """File -> (content, time of change); but for the lock, which tells who works there."""
    return {
        str(p.relative_to(folder)): (
            hashlib.sha256(p.read_bytes()).hexdigest(),
            p.stat().st_mtime_ns,
        )
        for p in folder.rglob("*")
        if p.is_file() and p.name != LOCK_NAME
    }
