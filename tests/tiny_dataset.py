"""A tiny nnU-Net data set (raw and preprocessed) with hand-made plans: training in seconds.

No process pools: planning and preprocessing by nnU-Net's commands cost two pool starts each (10 s a
pool on CPU); the end-to-end tests pay that, the tests of a trainer's parts need not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import SimpleITK as sitk
import torch
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from tests.model_folders import architecture, make_case, make_model_folder

NAME = "Dataset999_Tiny"
CASES = [f"case{i}" for i in range(4)]
CONFIGURATION = {2: "2d", 3: "3d_fullres"}
SHAPES = {2: (1, 20, 22), 3: (18, 20, 17)}


def make_dataset(
    root: Path,
    dimension: int = 2,
    *,
    kind: str = "plain",
    channels: int = 1,
    labels: dict | None = None,
    regions_class_order: list[int] | None = None,
    relabel: Callable | None = None,
) -> dict:
    """Write nnUNet_raw, nnUNet_preprocessed and an empty nnUNet_results below `root`.

    `relabel`: makes of the array of a ball that with the values of `labels`. Returns the plans.
    """
    raw, preprocessed = root / "nnUNet_raw" / NAME, root / "nnUNet_preprocessed" / NAME
    (root / "nnUNet_results").mkdir(parents=True)
    preprocessed.mkdir(parents=True)
    # deep supervision needs three stages: nnU-Net gives the coarsest output weight 0
    folder = make_model_folder(
        root / "template",
        dimension=dimension,
        kind=kind,
        channels=channels,
        labels=labels,
        regions_class_order=regions_class_order,
    )
    plans = json.loads((folder / "plans.json").read_text())
    dataset = json.loads((folder / "dataset.json").read_text()) | {"numTraining": len(CASES)}
    name = CONFIGURATION[dimension]
    configuration = plans["configurations"][name]
    configuration["architecture"] = architecture(dimension, kind, features=(4, 8, 8))
    configuration["data_identifier"] = f"nnUNetPlans_{name}"
    manager = PlansManager(deepcopy(plans))
    output = preprocessed / configuration["data_identifier"]
    output.mkdir()
    ground_truth = preprocessed / "gt_segmentations"
    ground_truth.mkdir()
    for seed, case in enumerate(CASES):
        files, label = make_case(
            raw / "imagesTr", shape=SHAPES[dimension], seed=seed, channels=channels
        )
        if relabel:
            change(label, relabel)
        shutil.copy(label, ground_truth)
        DefaultPreprocessor(verbose=False).run_case_save(
            str(output / case),
            [str(f) for f in files],
            str(label),
            manager,
            manager.get_configuration(name),
            dataset,
        )
    for file, content in (
        ("nnUNetPlans", plans),
        ("dataset", dataset),
        ("dataset_fingerprint", {}),
        ("splits_final", [{"train": CASES[:3], "val": CASES[3:]}]),
    ):
        (preprocessed / f"{file}.json").write_text(json.dumps(content))
    return plans


def change(file: Path, function: Callable) -> None:
    """Write `function` of the image's array in its place."""
    image = sitk.ReadImage(str(file))
    changed = sitk.GetImageFromArray(function(sitk.GetArrayFromImage(image)))
    changed.CopyInformation(image)
    sitk.WriteImage(changed, str(file))


def use(monkeypatch, root: Path) -> None:
    """Point nnU-Net's environment at `root`, with single-process augmentation."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(root / variable))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")


def make_trainer(
    trainer_class: type,
    plans: dict,
    *,
    entry: dict | None = None,
    fold: int = 0,
    dimension: int = 2,
    dataset: dict | None = None,
):
    """A trainer on the CPU for the data set in use.

    `entry` is the `lngswr` entry of the plans, `dataset` the dataset.json, unless plain.
    """
    plans = deepcopy(plans)
    plans["continue_training"] = False
    if entry is not None:
        plans["configurations"][CONFIGURATION[dimension]]["lngswr"] = entry
    dataset = dataset or {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "ball": 1},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    return trainer_class(plans, CONFIGURATION[dimension], fold, dataset, device=torch.device("cpu"))
