"""Two small phantom sets in nnU-Net raw format, to see the whole chain work without real data.

Speckled thyroid-like ultrasound (2D, PNG) and nodules in lung-like CT (3D, NIfTI, HU). Each is
seeded: the same seed gives the same bytes (with the same NumPy, SciPy and SimpleITK). The thyroid
set has several images per patient; splits_final.json keeps a patient's images together. They look
roughly like the real thing and are far easier: a Dice on them says that the chain works, and
nothing about any method.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunetv2_lngswr.datasets.phantom_images import Case, lung_patient, thyroid_patient
from nnunetv2_lngswr.utils.errors import UserError

GENERATOR = "nnunetv2_lngswr.datasets.phantom"
FOLDS = 5


@dataclass(frozen=True)
class PhantomSet:
    """What a set is called, how large it is, and how it is made."""

    dataset_id: int
    name: str
    channel: str
    file_ending: str
    training_groups: int
    """Patients with images in imagesTr."""
    test_groups: int
    """Patients with images in imagesTs."""
    make: Callable[[int, int], Iterator[Case]]
    """`make(seed, group)` yields the cases of one patient."""

    @property
    def dataset_name(self) -> str:
        """DatasetXXX_NAME, the folder's name."""
        return f"Dataset{self.dataset_id:03d}_{self.name}"


def write_phantom(
    kind: str, raw_folder: Path | str, *, seed: int = 0, overwrite: bool = False
) -> Path:
    """Write a phantom set below `raw_folder` and return its folder.

    The folder appears whole or not at all, and holds imagesTr, labelsTr, imagesTs, labelsTs,
    dataset.json and splits_final.json (copy the latter to nnUNet_preprocessed after
    preprocessing). If it is there already from the same seed nothing is done.

    Parameters
    ----------
    kind
        "2d" (thyroid) or "3d" (lung).
    raw_folder
        nnUNet_raw.
    seed
        Of everything that is drawn, >= 0.
    overwrite
        Replace a phantom set of another seed.

    Raises
    ------
    UserError
        An unknown kind, a negative seed, or a folder that holds anything else, or another seed and
        not `overwrite`.
    """
    if kind not in PHANTOM_SETS:
        raise UserError(f"phantom set must be one of {', '.join(PHANTOM_SETS)}, got {kind!r}")
    if seed < 0:
        raise UserError(f"seed must be >= 0, got {seed}")
    phantom = PHANTOM_SETS[kind]
    folder = Path(raw_folder) / phantom.dataset_name
    made_by = {"module": GENERATOR, "set": kind, "seed": seed}
    if folder.exists():
        found = _made_by(folder)
        if found is None:
            raise UserError(
                f"{folder} exists and is no phantom set: move it away or choose another folder"
            )
        if found == made_by and not overwrite:
            return folder
        if not overwrite:
            raise UserError(
                f"{folder} is a phantom set of seed {found.get('seed')}, asked for is seed {seed}: "
                "overwrite it or remove it"
            )

    Path(raw_folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{phantom.dataset_name}.", dir=raw_folder
    ) as temporary:
        made = Path(temporary) / "made"
        _write_set(phantom, made, made_by)
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)
    return folder


PHANTOM_SETS = {
    "2d": PhantomSet(
        901,
        "PhantomThyroid",
        "ultrasound",
        ".png",
        training_groups=15,
        test_groups=4,
        make=thyroid_patient,
    ),
    "3d": PhantomSet(
        902,
        "PhantomLungNodule",
        "CT",
        ".nii.gz",
        training_groups=20,
        test_groups=6,
        make=lung_patient,
    ),
}


def _write_set(phantom: PhantomSet, folder: Path, made_by: dict) -> None:
    for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (folder / part).mkdir(parents=True)
    groups = []
    for group in range(phantom.training_groups + phantom.test_groups):
        part = "Tr" if group < phantom.training_groups else "Ts"
        names = []
        for case in phantom.make(made_by["seed"], group):
            _write_image(
                case.image,
                case.spacing_mm,
                folder / f"images{part}" / f"{case.name}_0000{phantom.file_ending}",
            )
            _write_image(
                case.label,
                case.spacing_mm,
                folder / f"labels{part}" / f"{case.name}{phantom.file_ending}",
            )
            names.append(case.name)
        if part == "Tr":
            groups.append(names)
    dataset = {
        "channel_names": {"0": phantom.channel},
        "labels": {"background": 0, "nodule": 1},
        "numTraining": sum(map(len, groups)),
        "file_ending": phantom.file_ending,
        "description": "synthetic, for demonstration only",
        "generator": made_by,
    }
    (folder / "dataset.json").write_text(json.dumps(dataset, indent=4) + "\n")
    (folder / "splits_final.json").write_text(json.dumps(_splits(groups), indent=4) + "\n")


def _splits(groups: list[list[str]]) -> list[dict[str, list[str]]]:
    """Five folds; the names of one group are all in training or all in validation."""
    folds = []
    for fold in range(FOLDS):
        val = [name for i, group in enumerate(groups) if i % FOLDS == fold for name in group]
        train = [name for i, group in enumerate(groups) if i % FOLDS != fold for name in group]
        folds.append({"train": sorted(train), "val": sorted(val)})
    return folds


def _write_image(array: np.ndarray, spacing_mm: tuple[float, ...], path: Path) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(tuple(reversed(spacing_mm)))
    sitk.WriteImage(image, str(path), useCompression=True)


def _made_by(folder: Path) -> dict | None:
    """The generator entry of a phantom set, or None if `folder` is something else."""
    try:
        entry = json.loads((folder / "dataset.json").read_text()).get("generator")
    except (OSError, ValueError, AttributeError):
        return None
    return entry if isinstance(entry, dict) and entry.get("module") == GENERATOR else None
