"""Whether preprocessed data are still those of the data set: nnU-Net never looks again."""

import filecmp
from collections.abc import Iterable
from pathlib import Path

from evaluation.inputs import listed_cases
from nnunetv2_lngswr.utils.files import read_json


def copied_cases(raw: Path, preprocessed: Path) -> set[str]:
    """Return the cases whose labels nnU-Net's preprocessing has copied."""
    ending = _ending(raw)
    copies = (preprocessed / "gt_segmentations").glob(f"[!.]*{ending}")
    return {file.name.removesuffix(ending) for file in copies}


def outdated(raw: Path, preprocessed: Path, cases: Iterable[str]) -> list[str]:
    """Return the cases whose labels are not those which nnU-Net's preprocessing has copied.

    Parameters
    ----------
    raw, preprocessed
        The data set's folders in nnUNet_raw and nnUNet_preprocessed.
    cases
        Which are asked for; a label that is missing, here or there, is another one.
    """
    ending, listed = _ending(raw), listed_cases(raw)
    found = []
    for case in cases:
        _, label = listed.get(case, ((), raw / "labelsTr" / f"{case}{ending}"))
        copy = preprocessed / "gt_segmentations" / f"{case}{ending}"
        there = label.is_file() and copy.is_file()
        # by content: times do not survive a copy to another machine
        if not there or not filecmp.cmp(label, copy, shallow=False):
            found.append(case)
    return sorted(found)


def _ending(raw: Path) -> str:
    return read_json(raw / "dataset.json", needs=("file_ending",))["file_ending"]
