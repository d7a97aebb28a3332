"""Which evaluations are made: every model and fold on every data set, and on which cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.file_hashes import FileHashes
from evaluation.groups import parse_groups
from evaluation.inputs import CaseFiles, choose, from_cross_validation, from_folders
from evaluation.seen_cases import refuse_seen
from nnunetv2_lngswr.experiments.transfer.data_sets import DataSet
from nnunetv2_lngswr.experiments.transfer.meaning import Meanings, channels, check_same_meaning
from nnunetv2_lngswr.experiments.transfer.models import TrainedModel
from nnunetv2_lngswr.experiments.transfer.options import Options
from nnunetv2_lngswr.experiments.transfer.shared_cases import refuse_shared_cases
from nnunetv2_lngswr.utils.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One fold of one model on one data set."""

    model: TrainedModel
    data_set: DataSet
    fold: int
    cases: tuple[str, ...]
    """Those that are evaluated."""
    groups: str | None
    """As `lngswr evaluate --groups`."""
    files: tuple[Path, ...]
    """Images and labels of the cases."""

    @property
    def own(self) -> bool:
        """Whether the model was trained on this data set."""
        return self.model.dataset == self.data_set.name

    @property
    def name(self) -> str:
        """Part of the names of its log and its folder."""
        return f"model{self.model.number + 1}_fold{self.fold}_{self.data_set.name}"

    def folder(self, output: Path) -> Path:
        """What `lngswr evaluate` writes to."""
        return output / "evaluations" / self.name


def plan_cells(
    models: Sequence[TrainedModel], data_sets: Sequence[DataSet], options: Options
) -> list[Cell]:
    """All evaluations, model by model.

    Raises
    ------
    UserError
        A model whose own data set is not among them; labels or channels that do not mean the same;
        images in two data sets; validation cases that a model was trained on; files that are
        missing; groups that do not fit.
    """
    meanings = Meanings(options.label_pairs, [*models, *data_sets])
    groups = options.groups_of([d.name for d in data_sets])
    hashes = FileHashes()
    for model in models:
        its = next((d for d in data_sets if d.name == model.dataset), None)
        if its is None:
            given = ", ".join(d.name for d in data_sets)
            raise UserError(
                f"{model.folder} was trained on {model.dataset}, which is not among {given}: "
                "add it, what is lost from there to others is the point (-d)"
            )
        for data_set in data_sets:
            check_same_meaning(
                model, data_set, meanings, other_channels=options.allow_other_channels
            )
            if data_set is not its:
                refuse_shared_cases(its, data_set, hashes)
    return [
        _cell(model, data_set, fold, groups[data_set.name], options)
        for model in models
        for data_set in data_sets
        for fold in model.folds
    ]


def _cell(
    model: TrainedModel, data_set: DataSet, fold: int, groups: str | None, options: Options
) -> Cell:
    own = model.dataset == data_set.name
    files = _validation_files(model, data_set, fold) if own else _all_files(data_set)
    chosen = choose(files, options.max_cases, seed=options.asked.seed)
    cases = tuple(case.identifier for case in chosen)
    if groups is not None:
        parse_groups(groups, cases)
    read = tuple(file for case in chosen for file in (*case.images, case.label))
    return Cell(model=model, data_set=data_set, fold=fold, cases=cases, groups=groups, files=read)


def _all_files(data_set: DataSet) -> list[CaseFiles]:
    return from_folders(
        data_set.case_images, data_set.labels, ending=data_set.file_ending, previous_stage=None
    )


def _validation_files(model: TrainedModel, data_set: DataSet, fold: int) -> list[CaseFiles]:
    """Those that the fold was not trained on, as far as anything says so."""
    files = from_cross_validation(
        dataset=model.dataset,
        folds=[fold],
        ending=data_set.file_ending,
        channels=len(channels(data_set)),
        previous_stage=None,
    )
    refuse_seen(files, model.folder, model.dataset, data_set.file_ending)
    return files
