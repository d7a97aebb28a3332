"""Images that lie in two data sets: a model may have been trained on them.

By their content, whatever their names are. The same image that was written anew, by another program
or at another size, is not seen.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from evaluation.file_hashes import FileHashes
from nnunetv2_lngswr.experiments.transfer.data_sets import DataSet
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import some_names


def refuse_shared_cases(own: DataSet, other: DataSet, hashes: FileHashes) -> None:
    """Refuse two data sets that have an image in common.

    Parameters
    ----------
    own
        What a model was trained on.
    other
        What it shall be judged by.
    hashes
        Of files, kept.

    Raises
    ------
    UserError
        Names the cases.
    """
    # few files are as long to the byte, and only these are read
    sizes = {_sizes(files) for files in own.case_images.values()}
    alike = {c: files for c, files in other.case_images.items() if _sizes(files) in sizes}
    sizes = {_sizes(files) for files in alike.values()}
    known = {
        _contents(files, hashes): case
        for case, files in own.case_images.items()
        if _sizes(files) in sizes
    }
    shared = []
    for case, files in alike.items():
        same = known.get(_contents(files, hashes))
        if same is not None:
            shared.append(case if case == same else f"{case} ({same} there)")
    if shared:
        raise UserError(
            f"{other.folder} has {len(shared)} images of {own.folder}, on which a model was "
            f"trained: {some_names(shared)}; take them out of one of the two"
        )


def _sizes(files: Sequence[str]) -> tuple[int, ...]:
    return tuple(os.path.getsize(file) for file in files)


def _contents(files: Sequence[str], hashes: FileHashes) -> tuple[str, ...]:
    return tuple(hashes.sha256(Path(file)) for file in files)
