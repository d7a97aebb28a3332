"""What is decided before the first case: the model, the cases, this call's share of them, the runs.

`prepare` checks the cheap things first, since names are wrong more often than models.
`Session.settings` is what results depend on; OUT is gone on with only where it was made with the
same.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation import protocol
from evaluation.corruption_table import is_mr
from evaluation.devices import find_device
from evaluation.file_hashes import ModelFiles
from evaluation.groups import Groups, parse_groups, recorded_groups
from evaluation.inputs import (
    CaseFiles,
    CaseSource,
    choose,
    from_cross_validation,
    from_folders,
    refuse_fold_all,
)
from evaluation.options import Options
from evaluation.protocol import PlannedRuns
from evaluation.seen_cases import refuse_seen
from evaluation.share import find_share
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import refuse_no_utf8
from nnunetv2_lngswr.utils.output_folder import input_folder
from nnunetv2_lngswr.utils.progress import progress_bar

if TYPE_CHECKING:
    from evaluation.model.folder import SegmentationModel
    from evaluation.model.interface import EvaluatedModel

SETTINGS_VERSION = 1
BEST_ITERATE, BEST_ITERATE_BEFORE = "dice", "loss"
"""By what attacks choose the iterate that they return, now and when settings did not say so."""
# paths, the number of the device and versions do not change what is evaluated; the summary has them
NOT_IN_SETTINGS = ("folder", "versions", "device", "folds", "checkpoint_sha256")
_NOT_AMONG_OPTIONS = (
    "device",
    "folds",
    "surrogate",
    "graph_memory",
    "groups",
    "trust_checkpoint",
)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Where model and cases are. Without images and labels: each fold's validation cases."""

    model_folder: Path
    """TRAINER__PLANS__CONFIGURATION."""
    images: Path | None = None
    """Image folder in nnU-Net's format."""
    labels: Path | None = None
    """Label folder."""
    previous_stage: Path | None = None
    """Folder of the previous stage's segmentations, of a cascade."""

    def __post_init__(self) -> None:
        for path in (self.model_folder, self.images, self.labels, self.previous_stage):
            if path is not None:
                refuse_no_utf8(path)
        if (self.images is None) == (self.labels is None):
            return
        given, missing = "images (-i)", "labels (-l)"
        if self.images is None:
            given, missing = missing, given
        raise UserError(
            f"{given} were given without {missing}; "
            "give both, or neither for each fold's validation cases"
        )

    @property
    def validating(self) -> bool:
        """Whether each fold's validation cases are evaluated."""
        return self.images is None


@dataclass(kw_only=True)
class Session:
    """Everything that is decided before the first case."""

    inputs: Inputs | None
    """None: a network and cases that were given in memory (network.py)."""
    options: Options
    model: EvaluatedModel
    """The folds that evaluate the current case; one fold at a time when validating, see
    `switch_to`."""
    surrogate: EvaluatedModel | None
    """What `transfer` attacks, of the same folds."""
    two_dimensional: bool
    """Whether the model sees slices."""
    cases: Sequence[CaseSource]
    """All of the evaluation, in the order of the report."""
    share: Sequence[CaseSource]
    """Those of this call."""
    planned: PlannedRuns
    settings: dict[str, Any]
    """What results depend on, JSON-ready: the content of settings.json."""
    model_files: ModelFiles
    """What model and surrogate are read from."""
    groups: Groups | None = None
    """What belongs together among the cases; None: each case by itself."""

    @property
    def validating(self) -> bool:
        """Whether each fold's validation cases are evaluated."""
        return self.inputs is not None and self.inputs.validating

    @property
    def settings_sha256(self) -> str:
        """Of the settings and of all files of the model: what every part carries."""
        files = sorted(self.model_files.sha256.values())
        text = json.dumps({"settings": self.settings, "files": files}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def switch_to(self, files: CaseSource) -> tuple[EvaluatedModel, EvaluatedModel | None]:
        """Make `model` and `surrogate` those that may evaluate these files, and return them.

        Where these files need other folds, those before are freed first, if the caller keeps none:
        one fold is in memory at a time.
        """
        if files.folds is not None and tuple(self.model.describe()["folds"]) != files.folds:
            assert self.inputs is not None
            options, surrogate = self.options, self.options.surrogate
            del self.model
            self.surrogate = None
            gc.collect()  # networks are kept in circles
            self.model = _load(self.inputs.model_folder, options, files.folds, self.model_files)
            if surrogate is not None:
                self.surrogate = _load(Path(surrogate), options, files.folds, self.model_files)
        return self.model, self.surrogate

    def check_files(self, cases: Sequence[CaseSource], *, progress: bool) -> None:
        """Read every file once: a bad one is better named now than after a night."""
        for files in progress_bar(
            cases, desc="checking files", unit="case", disable=not progress, leave=False
        ):
            files.check(self.model)


def prepare(
    inputs: Inputs, options: Options, *, num_parts: int | None = None, part_id: int | None = None
) -> Session:
    """Load the model, list its cases and plan its runs.

    Parameters
    ----------
    inputs, options
        What is evaluated, and how.
    num_parts, part_id
        This call's share is cases part_id, part_id + num_parts, ...; None: RANK and WORLD_SIZE, as
        torchrun sets them.

    Raises
    ------
    UserError
        Names that do not exist, a folder that is no model or lacks files, options that do not
        apply.
    """
    num_parts, part_id = find_share(num_parts, part_id)
    protocol.check_names(options)
    from evaluation.model.folds import find_folds

    folds = find_folds(inputs.model_folder, options.folds, options.checkpoint)
    if inputs.validating:
        refuse_fold_all(folds)
    surrogate_folds = None
    if options.surrogate is not None:
        wanted = folds if inputs.validating else None
        surrogate_folds = find_folds(Path(options.surrogate), wanted, options.checkpoint)
    model_files = _model_files(inputs, options, folds, surrogate_folds)
    # one at a time where each has its own cases
    model_folds = folds[:1] if inputs.validating else folds
    model = _load(inputs.model_folder, options, model_folds, model_files)
    cases = choose(_list_cases(inputs, model, folds), options.max_cases, seed=options.seed)
    planned = plan_for(options, model)
    surrogate = None
    if options.surrogate is not None and surrogate_folds is not None:
        first = surrogate_folds[:1] if inputs.validating else surrogate_folds
        surrogate = _load(Path(options.surrogate), options, first, model_files)
        model.check_surrogate(surrogate)
    return Session(
        inputs=inputs,
        options=options,
        model=model,
        surrogate=surrogate,
        two_dimensional=len(model.patch_size) == 2,
        cases=cases,
        share=cases[part_id::num_parts],
        planned=planned,
        settings=_settings(inputs, options, model, folds, surrogate_folds, model_files, cases)
        | of_planned(planned),
        model_files=model_files,
        groups=_groups(options, cases),
    )


def plan_for(options: Options, model: SegmentationModel) -> PlannedRuns:
    """The runs for a model; UserErrors as `protocol.plan_runs`."""
    schemes = model.configuration_manager.normalization_schemes
    return protocol.plan_runs(
        options,
        ct=all(s == "CTNormalization" for s in schemes),
        two_dimensional=len(model.patch_size) == 2,
        mr=is_mr(_channel_names(model.dataset_json)),
        regions=model.label_space.regions,
        has_encoder=all(hasattr(n, "encoder") for n in model.networks),
    )


def of_planned(planned: PlannedRuns) -> dict[str, Any]:
    """What 'all' depends on that the options do not say: MR's own corruptions, and torchio."""
    return {"mr_corruptions": planned.of_mr} if planned.of_mr else {}


def _channel_names(dataset_json: Mapping[str, Any]) -> list[str]:
    channels = dataset_json.get("modality", dataset_json.get("channel_names"))
    return [str(c) for c in (channels.values() if isinstance(channels, Mapping) else channels)]


def _list_cases(
    inputs: Inputs, model: SegmentationModel, folds: Sequence[int | str]
) -> list[CaseFiles]:
    if inputs.images is None or inputs.labels is None:
        cases = from_cross_validation(
            dataset=model.plans.dataset_name,
            folds=folds,
            ending=model.file_ending,
            channels=model.image_channels,
            previous_stage=inputs.previous_stage,
        )
        refuse_seen(cases, model.folder, model.plans.dataset_name, model.file_ending)
    else:
        input_folder(inputs.images, "image folder", "-i")
        cases = from_folders(
            model.list_images(inputs.images),
            inputs.labels,
            ending=model.file_ending,
            previous_stage=inputs.previous_stage,
        )
    if model.is_cascade and inputs.previous_stage is None:
        raise UserError(
            f"{model.configuration} is a cascade: give the previous stage's segmentations "
            "(-prev_stage_predictions)"
        )
    return cases


def _groups(options: Options, cases: Sequence[CaseFiles]) -> Groups | None:
    """Those given, else those that the conversion of the cases' data set recorded."""
    names = list(dict.fromkeys(c.identifier for c in cases))
    if options.groups is not None:
        return parse_groups(options.groups, names)
    data_sets = {c.images[0].parent.parent for c in cases}
    return recorded_groups(data_sets.pop(), names) if len(data_sets) == 1 else None


def _settings(
    inputs: Inputs,
    options: Options,
    model: SegmentationModel,
    folds: Sequence[int | str],
    surrogate_folds: Sequence[int | str] | None,
    model_files: ModelFiles,
    cases: Sequence[CaseFiles],
) -> dict[str, Any]:
    def hashes(folder: str | Path | None, folds: Sequence[int | str] | None) -> Any:
        if folder is None or folds is None:
            return None
        found = model_files.sha256
        return {str(f): found[_checkpoint(Path(folder), options, f)] for f in folds}

    description = {k: v for k, v in model.describe().items() if k not in NOT_IN_SETTINGS}
    return {
        **settings_of_any(model, options, cases),
        "model": {**description, "checkpoint_sha256": hashes(inputs.model_folder, folds)},
        "plans_sha256": model_files.sha256[inputs.model_folder / "plans.json"],
        "surrogate": hashes(options.surrogate, surrogate_folds),
    }


def settings_of_any(
    model: EvaluatedModel, options: Options, cases: Sequence[CaseSource]
) -> dict[str, Any]:
    """What results depend on, but for the model: of a folder, and of a network that was given."""
    return {
        "schema_version": SETTINGS_VERSION,
        "device": model.device.type,
        "best_iterate": BEST_ITERATE,
        "options": {k: v for k, v in options.record().items() if k not in _NOT_AMONG_OPTIONS},
        "cases": [c.key for c in cases],
    }


def _model_files(
    inputs: Inputs,
    options: Options,
    folds: Sequence[int | str],
    surrogate_folds: Sequence[int | str] | None,
) -> ModelFiles:
    """Of the model and its surrogate, all folds that take part."""
    folders = [(inputs.model_folder, folds)]
    if options.surrogate is not None and surrogate_folds is not None:
        folders.append((Path(options.surrogate), surrogate_folds))
    paths = []
    for folder, of in folders:
        paths += [folder / "plans.json", folder / "dataset.json"]
        paths += [_checkpoint(folder, options, f) for f in of]
    return ModelFiles(paths)


def _checkpoint(folder: Path, options: Options, fold: int | str) -> Path:
    return folder / f"fold_{fold}" / options.checkpoint


def _load(
    folder: Path, options: Options, folds: Sequence[int | str], model_files: ModelFiles
) -> SegmentationModel:
    """With what `model_files` has found before; a file that has changed since is refused."""
    from evaluation.model.folder import SegmentationModel

    model = SegmentationModel.from_folder(
        folder,
        folds=folds,
        checkpoint=options.checkpoint,
        device=find_device(options.device),
        tile_step_size=options.tile_step_size,
        use_mirroring=options.use_mirroring,
        trust_checkpoint=options.trust_checkpoint,
    )
    for fold, sha in model.checkpoint_sha256.items():
        model_files.check_file(_checkpoint(folder, options, fold), sha)
    model_files.check()
    return model
