"""Small images and masks, as files, and what a conversion makes of them."""

from pathlib import Path

import numpy as np
from PIL import Image

from nnunetv2_lngswr.datasets.image_folder import convert_image_folder
from nnunetv2_lngswr.datasets.options import DatasetSpec

TARGET = DatasetSpec(
    dataset_id=701, name="Test", channel="ultrasound", label="nodule", file_ending=".png", folds=2
)


def speckle(seed: int, shape=(20, 24)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def square(rows: slice, columns: slice, shape=(20, 24), value=255) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[rows, columns] = value
    return mask


def save(array: np.ndarray, path: Path, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return path


def read(folder: Path, case: str) -> tuple[np.ndarray, np.ndarray]:
    return tuple(
        np.asarray(Image.open(folder / part))
        for part in (f"imagesTr/{case}_0000.png", f"labelsTr/{case}.png")
    )


def convert(folder: Path, raw: Path, **options):
    return convert_image_folder(folder, raw, TARGET, progress=False, **options)


def command(folder: Path, raw: Path, *options: str) -> list[str]:
    """`lngswr convert-dataset image-folder`, without lngswr."""
    return [
        "convert-dataset",
        "image-folder",
        "-i",
        str(folder),
        "-o",
        str(raw),
        "-d",
        "701",
        *options,
    ]
