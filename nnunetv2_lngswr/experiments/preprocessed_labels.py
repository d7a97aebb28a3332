"""Whether preprocessed data are still those of the data set: nnU-Net never looks again."""

import filecmp
from collections.abc import Iterable
from pathlib import Path


def outdated(raw: Path, preprocessed: Path, files: Iterable[str] | None = None) -> list[str]:
    """Return the label files that are not those which nnU-Net's preprocessing has copied.

    Parameters
    ----------
    raw, preprocessed
        The data set's folders in nnUNet_raw and nnUNet_preprocessed.
    files
        Which are asked for, missing ones included; None: those that were copied.
    """
    labels, copies = raw / "labelsTr", preprocessed / "gt_segmentations"
    if files is None:
        # where dataset.json places the labels elsewhere, nothing is known
        names = [f.name for f in copies.glob("[!.]*")] if labels.is_dir() else []
    else:
        names = list(files)
    # by content: times do not survive a copy to another machine
    different, missing = filecmp.cmpfiles(labels, copies, names, shallow=False)[1:]
    return sorted([*different, *missing])
