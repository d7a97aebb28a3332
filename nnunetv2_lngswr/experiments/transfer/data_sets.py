"""The data sets in nnUNet_raw: where their images and labels are, and what they are said to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.model.readers import list_images
from nnunetv2_lngswr.experiments.robustness.benchmark import find_raw
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json
from nnunetv2_lngswr.utils.model_files import check_dataset_json


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set in nnUNet_raw, which is only read."""

    folder: Path
    dataset_json: Mapping[str, Any]
    case_images: Mapping[str, Sequence[str]]
    """{case: channel files}, sorted."""

    @property
    def name(self) -> str:
        """nnU-Net's, such as Dataset611_ThyroidUS."""
        return self.folder.name

    @property
    def description(self) -> Path:
        """Where its labels and channels stand."""
        return self.folder / "dataset.json"

    @property
    def file_ending(self) -> str:
        return self.dataset_json["file_ending"]

    @property
    def images(self) -> Path:
        return self.folder / "imagesTr"

    @property
    def labels(self) -> Path:
        return self.folder / "labelsTr"


def read_data_sets(names: Sequence[str]) -> list[DataSet]:
    """Read them from nnUNet_raw.

    Raises
    ------
    UserError
        Fewer than two, or one twice; one that is not there, has no images or places its cases
        elsewhere; a dataset.json that nnU-Net could not work with.
    """
    if len(set(names)) < len(names) or len(names) < 2:
        raise UserError(
            f"give two or more data sets, each once, got {' '.join(names) or 'none'} (-d)"
        )
    return [_read(find_raw(name).absolute() / name) for name in names]


def _read(folder: Path) -> DataSet:
    file = folder / "dataset.json"
    content = read_json(file, needs=("labels", "file_ending"))
    check_dataset_json(content, str(file))
    if content.get("dataset") or not (folder / "imagesTr").is_dir():
        raise UserError(
            f"{folder} must hold its cases in imagesTr and labelsTr: put them there, {file} may "
            'not place them by "dataset"'
        )
    images = list_images(folder / "imagesTr", content["file_ending"])
    return DataSet(folder=folder, dataset_json=content, case_images=images)
