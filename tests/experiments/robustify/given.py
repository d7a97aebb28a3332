"""A trained nnU-Net project, tiny: its data, and a model folder as a training leaves it."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_lngswr import trainers
from tests import tiny_dataset

NAME = tiny_dataset.NAME
CASES = tiny_dataset.CASES
SPLITS = [{"train": CASES[:3], "val": CASES[3:]}, {"train": CASES[1:], "val": CASES[:1]}]
BUDGET = {"num_epochs": 20, "num_iterations_per_epoch": 3, "num_val_iterations_per_epoch": 1}


def write_project(
    root: Path,
    *,
    kind: str = "plain",
    trainer: str = "nnUNetTrainer",
    entry: dict | None = None,
    folds: tuple[int, ...] = (0,),
) -> Path:
    """Write nnU-Net's folders below `root`, which get a model; return its folder.

    `kind`: of the network. `entry`: the "lngswr" entry of the plans, for our own trainers.
    """
    plans = tiny_dataset.make_dataset(root, kind=kind)
    raw, preprocessed = (root / f"nnUNet_{part}" / NAME for part in ("raw", "preprocessed"))
    (raw / "imagesTr" / "labels").rename(raw / "labelsTr")
    shutil.copy(preprocessed / "dataset.json", raw)
    (preprocessed / "splits_final.json").write_text(json.dumps(SPLITS))
    shutil.rmtree(root / "template")
    model = root / "nnUNet_results" / NAME / f"{trainer}__nnUNetPlans__2d"
    write_model(model, plans, trainer=trainer, entry=entry, folds=folds)
    return model


def write_model(
    model: Path, plans: dict, *, trainer: str, entry: dict | None, folds: tuple[int, ...]
) -> None:
    """Write a model folder: each fold with its own weights, and what nnU-Net keeps beside them."""
    plans = json.loads(json.dumps(plans))
    if entry is not None:
        plans["configurations"]["2d"]["lngswr"] = entry
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "ball": 1},
        "numTraining": len(CASES),
        "file_ending": ".nii.gz",
    }
    for fold in folds:
        place = model / f"fold_{fold}"
        (place / "validation").mkdir(parents=True)
        checkpoint = {
            "network_weights": make_network(plans, trainer, seed=fold).state_dict(),
            "optimizer_state": {},
            "grad_scaler_state": None,
            "logging": {},
            "_best_ema": None,
            "current_epoch": BUDGET["num_epochs"],
            "init_args": {
                "plans": plans,
                "configuration": "2d",
                "fold": fold,
                "dataset_json": dataset,
                "device": torch.device("cpu"),
            },
            "trainer_name": trainer,
            "inference_allowed_mirroring_axes": (0, 1),
        }
        torch.save(checkpoint, place / "checkpoint_final.pth")
        (place / "debug.json").write_text(json.dumps({k: str(v) for k, v in BUDGET.items()}))
        validated = [{"reference_file": f"/data/{case}.nii.gz"} for case in SPLITS[fold]["val"]]
        summary = {"metric_per_case": validated}
        (place / "validation" / "summary.json").write_text(json.dumps(summary))
    (model / "plans.json").write_text(json.dumps(plans))
    (model / "dataset.json").write_text(json.dumps(dataset))


def make_network(plans: dict, trainer: str, *, seed: int) -> torch.nn.Module:
    """The network of our trainer of this name, or nnU-Net's own."""
    cls = getattr(trainers, trainer, trainers.nnUNetTrainerVanilla)
    manager = PlansManager(json.loads(json.dumps(plans)))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = cls.build_network_architecture(
            manager, manager.get_configuration("2d"), 1, 2, enable_deep_supervision=False
        )
        for parameter in network.parameters():
            if parameter.ndim > 1:
                torch.nn.init.kaiming_normal_(parameter)
    assert isinstance(network, torch.nn.Module)
    return network


def zipped(model: Path, file: Path) -> Path:
    """The model as nnUNetv2_export_model_to_zip packs it; returns `file`."""
    with zipfile.ZipFile(file, "a") as archive:
        for path in sorted(model.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(model.parents[1]))
    return file
