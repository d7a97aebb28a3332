"""Which files are scored: label and prediction folders, found and paired by name.

A model's predictions are one folder, or several that are joined: nnU-Net's fold_X/validation, each
with other cases. A model folder stands for all of its fold_X/validation, fold_X for its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import refuse_no_utf8, some_names
from nnunetv2_lngswr.utils.output_folder import input_folder

VALIDATION = "validation"

Folders = str | Path | Sequence[str | Path]


@dataclass(frozen=True, kw_only=True)
class PredictionSet:
    """The segmentations of one model."""

    name: str
    """As shown, unique among those scored."""
    folders: tuple[Path, ...]
    files: Mapping[str, Path]
    """{case: its file}."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is scored."""

    ending: str
    """Of all files."""
    labels: Mapping[str, Path]
    """{case: its label}, sorted; of the cases that are scored alone."""
    models: tuple[PredictionSet, ...]
    """The first is the one that others are compared with."""
    notes: tuple[str, ...]
    """What was left out."""

    def probabilities(self, file: Path) -> Path:
        """Where nnU-Net writes the probabilities of a prediction."""
        return file.with_name(file.name.removesuffix(self.ending) + ".npz")


def find_inputs(
    predictions: Sequence[Folders],
    labels: str | Path,
    *,
    ending: str | None = None,
    names: Sequence[str] | None = None,
    chill: bool = False,
) -> Inputs:
    """The files of all cases.

    Parameters
    ----------
    predictions
        Per model a folder or several.
    labels
        The folder of <case><ending>.
    ending
        file_ending of dataset.json; None: that of the label folder's images.
    names
        Of the models; by default those of their folders.
    chill
        Leave out cases that not every model has; without it they are refused.

    Raises
    ------
    UserError
        Folders that are missing, empty or given twice, predictions without a label, labels without
        a prediction, a case in two folds, names that are not one per model.
    """
    if not predictions:
        raise UserError("score needs at least one folder of predictions (-p)")
    folder = input_folder(labels, "label folder", "-l")
    ending = ending or _ending_of(folder)
    truth = _cases(folder, ending)
    if not truth:
        raise UserError(f"{folder} holds no labels <case>{ending}{_other_endings(folder)} (-l)")
    found = [_joined(entry, ending) for entry in predictions]
    for folders, _ in found:
        if folder.resolve() in [f.resolve() for f in folders]:
            raise UserError(f"{folder} is given as predictions (-p) and as labels (-l)")
    named = _names([folders for folders, _ in found], names)
    models = [
        PredictionSet(name=name, folders=folders, files=files)
        for name, (folders, files) in zip(named, found)
    ]
    cases, notes = _common_cases(truth, models, folder, chill)
    return Inputs(
        ending=ending,
        labels={case: truth[case] for case in cases},
        models=tuple(models),
        notes=tuple(notes),
    )


def _common_cases(
    truth: Mapping[str, Path], models: Sequence[PredictionSet], folder: Path, chill: bool
) -> tuple[list[str], list[str]]:
    """The cases that are scored, and what was left out."""
    notes = []
    for model in models:
        place = _places(model.folders)
        extra = sorted(set(model.files) - set(truth))
        if extra:
            raise UserError(
                f"{len(extra)} predictions in {place} have no label in {folder}: "
                f"{some_names(extra)}; take them out, or give the labels that belong to them (-l)"
            )
        missing = sorted(set(truth) - set(model.files))
        if missing and not chill:
            raise UserError(
                f"{len(missing)} of {len(truth)} labels in {folder} have no prediction in {place}: "
                f"{some_names(missing)}; predict them, or leave them out with --chill"
            )
        if missing:
            notes.append(
                f"left out (--chill): {len(missing)} of {len(truth)} labels without a prediction "
                f"of {model.name}"
            )
    cases = sorted(set(truth).intersection(*(model.files for model in models)))
    if not cases:
        raise UserError("no case has a prediction of every model: there is nothing to compare")
    return cases, notes


def _joined(entry: Folders, ending: str) -> tuple[tuple[Path, ...], dict[str, Path]]:
    """(folders, {case: file}) of one model."""
    given = [entry] if isinstance(entry, (str, Path)) else list(entry)
    folders = [
        f for part in given for f in _with_folds(input_folder(part, "prediction folder", "-p"))
    ]
    files: dict[str, Path] = {}
    for folder in folders:
        cases = _cases(folder, ending)
        if not cases:
            raise UserError(
                f"{folder} holds no predictions <case>{ending}{_other_endings(folder)} (-p)"
            )
        twice = sorted(set(cases) & set(files))
        if twice:
            raise UserError(
                f"{folder} and {files[twice[0]].parent} both hold {some_names(twice)}: one case "
                "would count twice; folders that are joined hold different cases"
            )
        files |= cases
    return tuple(folders), files


def _with_folds(folder: Path) -> list[Path]:
    """The folders of validation predictions of a model folder or fold, else the folder itself."""
    if (folder / VALIDATION).is_dir():
        return [folder / VALIDATION]
    folds = [f for f in folder.glob("fold_*") if f.name.removeprefix("fold_").isdecimal()]
    found = [f / VALIDATION for f in folds if (f / VALIDATION).is_dir()]
    return sorted(found, key=lambda f: int(f.parent.name.removeprefix("fold_"))) or [folder]


def _cases(folder: Path, ending: str) -> dict[str, Path]:
    """{case: file}, sorted."""
    files = sorted(p for p in folder.iterdir() if p.name.endswith(ending) and p.is_file())
    for file in files:
        refuse_no_utf8(file)
    return {p.name.removesuffix(ending): p for p in files if not p.name.startswith(".")}


def _ending_of(folder: Path) -> str:
    found = _endings_in(folder)
    if not found:
        raise UserError(f"{folder} holds no labels: no file of an ending that nnU-Net reads (-l)")
    if len(found) > 1:
        raise UserError(
            f"{folder} holds files of several endings, {', '.join(found)}; give dataset.json, "
            "whose file_ending says which are the labels (-djfile)"
        )
    return found[0]


def _endings_in(folder: Path) -> list[str]:
    known = {e for reader in LIST_OF_IO_CLASSES for e in reader.supported_file_endings}
    names = [p.name for p in folder.iterdir() if not p.name.startswith(".")]
    return sorted(e for e in known if any(name.endswith(e) for name in names))


def _other_endings(folder: Path) -> str:
    others = _endings_in(folder)
    return f", but {', '.join(f'*{e}' for e in others)}" if others else ""


def _names(models: Sequence[Sequence[Path]], given: Sequence[str] | None) -> list[str]:
    if given is None:
        return _telling_names(models)
    if len(given) != len(models) or len(set(given)) < len(given):
        raise UserError(
            f"names must be one for each of the {len(models)} prediction folders, no two alike, "
            f"got {', '.join(given)} (--names)"
        )
    return list(given)


def _telling_names(models: Sequence[Sequence[Path]]) -> list[str]:
    """The folders' own where they tell them apart, else with the one above, else numbered."""
    folders = [_named_after(of[0].absolute()) for of in models]
    own = [f.name for f in folders]
    above = ["/".join(f.parts[-2:]) for f in folders]
    for names in (own, above):
        if len(set(names)) == len(names):
            return names
    return [f"{i + 1} {name}" for i, name in enumerate(own)]


def _named_after(folder: Path) -> Path:
    """TRAINER__PLANS__CONFIGURATION of its fold_X/validation."""
    is_fold = folder.name == VALIDATION and folder.parent.name.startswith("fold_")
    return folder.parent.parent if is_fold else folder


def _places(folders: Iterable[Path]) -> str:
    return ", ".join(map(str, folders))
