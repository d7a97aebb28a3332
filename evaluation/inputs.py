"""Which cases are evaluated by which fold.

Image and label folders by all folds together, or each fold's validation cases by the model that has
not seen them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json
from nnunetv2_lngswr.utils.names import some_names
from nnunetv2_lngswr.utils.output_folder import input_folder

if TYPE_CHECKING:
    from evaluation.model.case import Case
    from evaluation.model.folder import SegmentationModel

Source = TypeVar("Source", bound="CaseSource")
Chosen = TypeVar("Chosen")  # a case, or its name


class CaseSource(Protocol):
    """What an evaluation needs of a case: CaseFiles, and ArrayCase for arrays."""

    @property
    def identifier(self) -> str: ...

    @property
    def folds(self) -> tuple[int | str, ...] | None:
        """Of the models that evaluate it; None stands for all that are loaded."""
        ...

    @property
    def key(self) -> str:
        """Names the part file."""
        ...

    @property
    def place(self) -> str:
        """Where it lies, for messages."""
        ...

    def check(self, model: Any) -> None:
        """Refuse, before anything is run, what `load` would."""
        ...

    def load(self, model: Any) -> Case:
        """The case as the model sees it."""
        ...


@dataclass(frozen=True, kw_only=True)
class CaseFiles:
    """The files of one case, and the folds that evaluate it."""

    identifier: str
    """nnU-Net's name of the case."""
    folds: tuple[int | str, ...] | None
    """Of the models that evaluate it; None stands for all that are loaded."""
    images: tuple[Path, ...]
    """One file per channel."""
    label: Path
    """The ground truth."""
    previous_stage: Path | None = None
    """The previous stage's segmentation, of a cascade."""

    @property
    def key(self) -> str:
        """Names the part file."""
        if self.folds is None:
            return self.identifier
        return f"{self.identifier}.fold{'-'.join(map(str, self.folds))}"

    @property
    def place(self) -> str:
        """Its first file, for messages."""
        return str(self.images[0])

    def check(self, model: SegmentationModel) -> None:
        """Read it: UserError where it is no case of the model's."""
        model.read(self.images, self.label, self.previous_stage)

    def load(self, model: SegmentationModel) -> Case:
        """Read and preprocessed by the model."""
        return model.preprocess(
            self.images, self.label, self.previous_stage, identifier=self.identifier
        )


def from_folders(
    images: Mapping[str, Sequence[str]], labels: Path, *, ending: str, previous_stage: Path | None
) -> list[CaseFiles]:
    """The cases of an image and a label folder, sorted.

    Parameters
    ----------
    images
        {identifier: channel files}, as `SegmentationModel.list_images` gives them.
    labels
        The folder of <identifier><ending>.
    ending
        The model's file_ending.
    previous_stage
        The folder of the previous stage's segmentations, of a cascade.

    Raises
    ------
    UserError
        Images without labels, labels without images, cases without their previous stage.
    """
    input_folder(labels, "label folder", "-l")
    there = {p.name.removesuffix(ending) for p in labels.glob(f"*{ending}") if p.is_file()}
    _refuse(
        sorted(set(images) - there),
        f"images without a label <case>{ending} in {labels}",
        "add the labels or take the images out",
    )
    _refuse(
        sorted(there - set(images)),
        f"labels in {labels} without an image",
        "add the images (<case>_0000, ...) or take the labels out",
    )
    return [
        CaseFiles(
            identifier=name,
            folds=None,
            images=tuple(Path(f) for f in images[name]),
            label=labels / f"{name}{ending}",
            previous_stage=_previous(previous_stage, name, ending),
        )
        for name in sorted(images)
    ]


def from_cross_validation(
    *,
    dataset: str,
    folds: Sequence[int | str],
    ending: str,
    channels: int,
    previous_stage: Path | None,
) -> list[CaseFiles]:
    """Every fold's validation cases, fold by fold, sorted.

    They come from nnUNet_raw/DATASET/{imagesTr, labelsTr}, or where its dataset.json places them,
    and nnUNet_preprocessed/DATASET/splits_final.json.

    Parameters
    ----------
    dataset
        nnU-Net's name, such as Dataset611_ThyroidUS.
    folds
        Those to evaluate.
    ending, channels
        The model's file_ending and number of image channels, which may lie in one file.
    previous_stage
        The folder of the previous stage's segmentations, of a cascade.

    Raises
    ------
    UserError
        A file, folder or variable is missing, a case would count twice, and fold_all, which has no
        validation cases.
    """
    refuse_fold_all(folds)
    raw = _environment("nnUNet_raw") / dataset
    splits_file = _environment("nnUNet_preprocessed") / dataset / "splits_final.json"
    validation = _validation_cases(splits_file, [int(f) for f in folds])
    if not (raw / "imagesTr").is_dir() and not (raw / "dataset.json").is_file():
        raise UserError(
            f"{raw} holds no raw data set (nnUNet_raw={os.environ['nnUNet_raw']}); "
            "put it there, or give -i and -l"
        )
    listed = listed_cases(raw)
    cases = []
    for name, fold in validation.items():
        images, label = listed.get(name) or _files_of(raw, name, ending, channels)
        for path in (*images, label):
            if not path.is_file():
                raise UserError(
                    f"{path} does not exist, but splits_final.json lists {name} "
                    f"as validation case of fold {fold}"
                )
        cases.append(
            CaseFiles(
                identifier=name,
                folds=(fold,),
                images=images,
                label=label,
                previous_stage=_previous(previous_stage, name, ending),
            )
        )
    return cases


def _files_of(raw: Path, name: str, ending: str, channels: int) -> tuple[tuple[Path, ...], Path]:
    """A case's images, one per channel, and its label.

    Or the first image alone, which may hold all channels, as a PNG in colour does.
    """
    images = tuple(raw / "imagesTr" / f"{name}_{c:04d}{ending}" for c in range(channels))
    if not any(path.is_file() for path in images[1:]):
        images = images[:1]
    return images, raw / "labelsTr" / f"{name}{ending}"


def refuse_fold_all(folds: Sequence[int | str]) -> None:
    """UserError where fold_all is among them."""
    if "all" in folds:
        raise UserError(
            "fold_all was trained on every case and has no validation cases; "
            "give images and labels it has not seen (-i, -l)"
        )


def choose(cases: Sequence[Chosen], count: int | None, *, seed: int) -> list[Chosen]:
    """A seeded choice of `count` cases in their order; all of them for None."""
    if count is None or count >= len(cases):
        return list(cases)
    return [cases[i] for i in sorted(random.Random(seed).sample(range(len(cases)), count))]


def _validation_cases(splits_file: Path, folds: Sequence[int]) -> dict[str, int]:
    """{case: fold that has not seen it}, fold by fold, sorted."""
    if not splits_file.is_file():
        raise UserError(
            f"{splits_file} does not exist, so the validation cases of the folds are unknown; "
            "copy it there, or give -i and -l"
        )
    splits = _read_splits(splits_file)
    found: dict[str, int] = {}
    for fold in folds:
        if fold >= len(splits):
            raise UserError(f"{splits_file} has {len(splits)} folds and no fold {fold} (-f)")
        names = splits[fold]["val"]
        if not names:
            raise UserError(f"{splits_file}: fold {fold} has no validation cases (-f)")
        _refuse(
            sorted(set(names) & set(splits[fold].get("train", ()))),
            f"validation cases of fold {fold} in {splits_file} that it is trained on too",
            "mend the file, or give images and labels it has not seen (-i, -l)",
        )
        for name in sorted(names):
            if name in found:
                raise UserError(
                    f"{splits_file} lists {name} as validation case of folds {found[name]} and "
                    f"{fold}: one case would count twice; choose one fold (-f)"
                )
            found[name] = fold
    return found


def _read_splits(splits_file: Path) -> list[dict[str, list[str]]]:
    """The folds as nnU-Net has them: [{"train": [case, ...], "val": [...]}, ...]."""
    splits = read_json(splits_file)
    if not isinstance(splits, list):
        raise UserError(
            f"{splits_file} must hold a list of folds, got {type(splits).__name__}; "
            "lngswr splits writes one"
        )
    for number, fold in enumerate(splits):
        if not isinstance(fold, dict) or "val" not in fold:
            raise UserError(
                f'{splits_file}: fold {number} lacks "val", its validation cases; '
                "lngswr splits writes them"
            )
        for part in ("train", "val"):
            names = fold.get(part, [])
            if not isinstance(names, list) or not all(map(_is_name, names)):
                raise UserError(
                    f'{splits_file}: "{part}" of fold {number} must be a list of names of cases'
                )
    return splits


def _is_name(name: Any) -> bool:
    """Whether it names a case: results are filed under it, so it must not lead elsewhere."""
    return isinstance(name, str) and bool(name) and not set(name) & {"/", "\\", "\0"}


def listed_cases(raw: Path) -> dict[str, tuple[tuple[Path, ...], Path]]:
    """{case: (images, label)} that dataset.json of a raw data set places (its "dataset" entry).

    Raises
    ------
    UserError
        The entry is not as nnU-Net has it.
    """
    file = raw / "dataset.json"
    if not file.is_file():
        return {}
    content = read_json(file)
    entries = content.get("dataset", {}) if isinstance(content, dict) else None
    if not isinstance(entries, dict):
        raise UserError(f'{file}: "dataset" must place cases by name, as nnU-Net has it')

    def place(path: str) -> Path:
        return raw / os.path.expandvars(path)

    listed = {}
    for name, entry in entries.items():
        images, label = (
            (entry.get("images"), entry.get("label")) if isinstance(entry, dict) else (None, None)
        )
        paths = images if isinstance(images, list) else []
        if not paths or not all(isinstance(path, str) for path in paths + [label]):
            raise UserError(
                f'{file}: case {name} needs "images", a list of files, and "label", a file'
            )
        listed[name] = tuple(place(path) for path in paths), place(str(label))
    return listed


def _environment(name: str) -> Path:
    value = os.environ.get(name)
    if not value:
        raise UserError(
            "without -i and -l the validation cases are evaluated, which needs the environment "
            f"variable {name}; it is not set"
        )
    return Path(value)


def _previous(folder: Path | None, name: str, ending: str) -> Path | None:
    if folder is None:
        return None
    path = folder / f"{name}{ending}"
    if not path.is_file():
        raise UserError(
            f"{path} does not exist: the previous stage's segmentation of {name} "
            "(-prev_stage_predictions)"
        )
    return path


def _refuse(names: Sequence[str], what: str, fix: str) -> None:
    if names:
        raise UserError(f"{len(names)} {what}: {some_names(names)}; {fix}")
