"""The model that is given: a folder or a zip file, read and checked, never written to."""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from evaluation.model.folder import SegmentationModel
from evaluation.model.folds import Fold, find_folds
from nnunetv2_lngswr.experiments.robustify.options import BUDGET, Options
from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.method.network import find_lngswr, is_backbone_key
from nnunetv2_lngswr.training.settings import current_entry
from nnunetv2_lngswr.utils.checkpoints import load_checkpoint
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json
from nnunetv2_lngswr.utils.model_files import check_plain_name
from nnunetv2_lngswr.utils.zip_files import check_compression

NNUNET_BUDGET = dict(zip(BUDGET, (1000, 250, 50)))
"""Of nnUNetTrainer, where nothing says what a model was trained with."""
# the files of a model that are of use here
_WANTED = re.compile(
    r"plans\.json|dataset\.json|fold_\w+/(\w[\w.-]*\.pth|debug\.json|validation/summary\.json)"
)
# trainers that train as nnUNetTrainer does but for their length, their network or their attacks
_AS_NNUNET = re.compile(
    r"nnUNetTrainer(Vanilla|LNGSWRGuided|(LNG|SWR|LNGSWR)?((Late)?AT)?)(_\d+epochs?)?"
)


@dataclass(frozen=True, kw_only=True)
class GivenModel:
    """A model folder that has passed all checks of an evaluation."""

    folder: Path
    """TRAINER__PLANS__CONFIGURATION."""
    folds: tuple[Fold, ...]
    checkpoint: str
    """File name in each fold."""
    checkpoint_sha256: Mapping[str, str]
    """{fold: hash}."""
    trainer: str
    """Name of nnU-Net's class."""
    configuration: str
    plans: Mapping[str, Any]
    """Content of plans.json."""
    dataset_json: Mapping[str, Any]
    entry: Mapping[str, Any]
    """The "lngswr" entry of its configuration; empty where it has none."""
    has_lngswr: bool
    """Whether its network has LNG-SWR's parts."""
    method: LNGSWRConfig | None
    """What these were made by, the defaults of its trainer included."""
    budget: Mapping[str, int]
    """What it was trained with, by the names of the plans' entry."""

    @property
    def dataset(self) -> str:
        """Of the plans, nnU-Net's name."""
        return self.plans["dataset_name"]

    @property
    def trains_otherwise(self) -> bool:
        """Whether its trainer is one whose own ways of training are not continued."""
        return not _AS_NNUNET.fullmatch(self.trainer)

    def checkpoint_file(self, fold: Fold) -> Path:
        """Where a fold's checkpoint is."""
        return self.folder / f"fold_{fold}" / self.checkpoint


@contextmanager
def opened(path: Path, configuration: str | None) -> Iterator[Path]:
    """Yield the folder of a model; that of a zip file is temporary.

    Parameters
    ----------
    path
        A model folder, or what nnUNetv2_export_model_to_zip wrote.
    configuration
        Which model of a zip file that holds several.

    Raises
    ------
    UserError
        Neither of them; a zip file without a model, with several, or damaged.
    """
    if path.is_dir():
        yield path
        return
    if not path.is_file():
        raise UserError(f"{path} does not exist: give a model folder or an exported zip file")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is neither a model folder nor a zip file")
    with tempfile.TemporaryDirectory(prefix="robustify-") as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                found = _extract(archive, path, configuration, Path(folder))
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as e:
            raise UserError(f"{path} is a damaged zip file, or one with a password: {e}") from None
        yield found


def read_model(folder: Path, options: Options) -> GivenModel:
    """Read a model folder as an evaluation would: plans, names in them, weights of every fold.

    Raises
    ------
    UserError
        As `SegmentationModel.from_folder`; another configuration than was asked for; a cascade,
        whose data need another model's predictions.
    """
    folds = find_folds(folder, options.folds, options.checkpoint)
    hashes, budgets = {}, []
    for fold in folds:
        model = SegmentationModel.from_folder(
            folder,
            folds=[fold],
            checkpoint=options.checkpoint,
            trust_checkpoint=options.trust_checkpoint,
        )
        if options.configuration not in (None, model.configuration):
            raise UserError(
                f"{folder} is of configuration {model.configuration}, asked for was "
                f"{options.configuration}: give that model's folder, or leave -c out"
            )
        if model.is_cascade:
            raise UserError(
                f"{folder} is the second stage of a cascade, which trains on the predictions of "
                "another model: robustify cannot do that"
            )
        hashes |= {str(f): sha for f, sha in model.checkpoint_sha256.items()}
        entry = current_entry(model.configuration_manager.configuration)
        budgets.append(_budget(folder / f"fold_{fold}", entry, options))
    weights = model.networks[0].state_dict()
    lngswr = find_lngswr(model.networks[0])
    return GivenModel(
        folder=folder,
        folds=tuple(folds),
        checkpoint=options.checkpoint,
        checkpoint_sha256=hashes,
        trainer=model.trainer_name,
        configuration=model.configuration,
        plans=read_json(folder / "plans.json"),
        dataset_json=model.dataset_json,
        entry=entry,
        has_lngswr=not all(map(is_backbone_key, weights)),
        method=None if lngswr is None else lngswr.config,
        # a continued or shortened fold is no reason to train the others less
        budget={key: max(budget[key] for budget in budgets) for key in BUDGET},
    )


def _budget(fold: Path, entry: Mapping[str, Any], options: Options) -> dict[str, int]:
    """What a fold was trained with: by its debug.json, its plans, its checkpoint, or nnU-Net's."""
    debug = fold / "debug.json"
    said = read_json(debug) if debug.is_file() else {}
    budget = {}
    for key in BUDGET:
        text = str(said.get(key, "")) if isinstance(said, dict) else ""
        written = int(text) if re.fullmatch("[1-9][0-9]{0,8}", text) else None
        budget[key] = written or entry.get(key) or NNUNET_BUDGET[key]
        if key == BUDGET[0] and not written:
            checkpoint = load_checkpoint(fold / options.checkpoint, trust=options.trust_checkpoint)
            epochs = checkpoint.get("current_epoch")
            budget[key] = epochs if isinstance(epochs, int) and epochs > 0 else budget[key]
    return budget


def _extract(archive: zipfile.ZipFile, path: Path, configuration: str | None, target: Path) -> Path:
    """Write the files of the model, and no others, below `target`."""
    members: dict[PurePosixPath, dict[str, str]] = {}
    for name in archive.namelist():
        place = PurePosixPath(name)
        for depth, part in enumerate(place.parts):
            inside = "/".join(place.parts[depth + 1 :])
            if part.count("__") == 2 and _WANTED.fullmatch(inside):
                members.setdefault(PurePosixPath(*place.parts[: depth + 1]), {})[inside] = name
    models = [m for m, files in members.items() if {"plans.json", "dataset.json"} <= set(files)]
    chosen = [m for m in models if configuration in (None, m.name.split("__")[2])]
    if not models:
        raise UserError(
            f"{path} holds no nnU-Net v2 model: there is no TRAINER__PLANS__CONFIGURATION with "
            "plans.json and dataset.json in it (nnUNetv2_export_model_to_zip makes one)"
        )
    if len(chosen) != 1:
        has = ", ".join(sorted(m.name for m in models))
        raise UserError(f"{path} holds {has}: choose one by its configuration (-c)")
    (model,) = chosen
    check_plain_name(model.name, f"{path}: the model's folder")
    entries = [archive.getinfo(name) for name in members[model].values()]
    for entry in entries:
        check_compression(entry, path)
    needed = sum(entry.file_size for entry in entries)
    free = shutil.disk_usage(target).free
    if needed > free:
        raise UserError(
            f"{path} unpacks to {needed / 2**30:.1f} GiB, and {target.parent} has "
            f"{free / 2**30:.1f}: set TMPDIR to a larger place"
        )
    for inside, name in members[model].items():
        file = target / model.name / inside
        file.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(name) as source, open(file, "xb") as written:
            shutil.copyfileobj(source, written)
    return target / model.name
