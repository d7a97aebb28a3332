"""Zip files from strangers."""

from __future__ import annotations

import os
import zipfile

from nnunetv2_lngswr.utils.errors import UserError

_BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_NAMES = {zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "LZMA"}


def check_compression(entry: zipfile.ZipInfo, zip_file: str | os.PathLike | None) -> None:
    """Refuse an entry that may unpack to any size at once, whatever size it declares.

    Python reads a deflated entry bit by bit and ends at the declared size; of bzip2 and LZMA it
    unpacks all that it has read before it cuts.

    Raises
    ------
    UserError
        Names the entry.
    """
    if entry.compress_type not in _BOUNDED:
        kind = _NAMES.get(entry.compress_type, f"method {entry.compress_type}")
        raise UserError(
            f"{zip_file}: {entry.filename} is compressed by {kind}, which is not read here: zip it "
            "anew with deflate, as nnUNetv2_export_model_to_zip does"
        )
