"""Models for the scripts that read trained models.

Tiny folders, a model around a given network, and a data set in nnU-Net's folders.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from torch import nn

from evaluation.inputs import CaseFiles
from evaluation.model.folder import SegmentationModel
from tests.model_folders import batch, fit, make_case, make_model_folder, make_network

SHAPE = (16, 16)  # one window, so that a gradient takes milliseconds


def trained_folder(root: Path, *, seed: int) -> Path:
    """A 2D model folder that segments balls; the other seed starts elsewhere."""
    x, y = batch(2, seed=10 * seed)
    return make_model_folder(
        root, mirror_axes=None, state_dicts=[fit(make_network(2, seed=seed), x, y).state_dict()]
    )


def ball_cases(root: Path, count: int = 2) -> list[CaseFiles]:
    made = [make_case(root, shape=SHAPE, seed=20 + i) for i in range(count)]
    return [
        CaseFiles(identifier=f"case{20 + i}", folds=None, images=tuple(images), label=label)
        for i, (images, label) in enumerate(made)
    ]


def with_network(model: SegmentationModel, network: nn.Module) -> SegmentationModel:
    """`model` with another network in its place, for prediction and for gradients."""
    names = (
        "folder",
        "folds",
        "checkpoint",
        "checkpoint_sha256",
        "trainer_name",
        "configuration",
        "plans",
        "dataset_json",
    )
    kept = {n: getattr(model, n) for n in (*names, "device", "tile_step_size", "mirror_axes")}
    return SegmentationModel(**kept, networks=[network.eval()])


def nnunet_folders(root: Path, cases: list[CaseFiles]) -> dict[str, str]:
    """Environment with the cases as validation cases of fold 0 of Dataset999_Tiny."""
    raw, preprocessed = root / "raw" / "Dataset999_Tiny", root / "preprocessed" / "Dataset999_Tiny"
    for folder in (raw / "imagesTr", raw / "labelsTr", preprocessed):
        folder.mkdir(parents=True)
    for case in cases:
        shutil.copy(case.images[0], raw / "imagesTr")
        shutil.copy(case.label, raw / "labelsTr")
    (preprocessed / "splits_final.json").write_text(
        json.dumps([{"train": [], "val": [c.identifier for c in cases]}])
    )
    return {"nnUNet_raw": str(root / "raw"), "nnUNet_preprocessed": str(root / "preprocessed")}


class Quantised(nn.Module):
    """A classic of masked gradients: the input rounded to a few levels.

    So the gradient is 0 almost everywhere.
    """

    def __init__(self, network: nn.Module, levels_per_unit: float = 1.5) -> None:
        super().__init__()
        self.network, self.levels_per_unit = network, levels_per_unit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network((x * self.levels_per_unit).round() / self.levels_per_unit)


class Saturated(nn.Module):
    """Another: logits so large that the loss of every right voxel is 0 to the last bit.

    And its gradient with it.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # 16-bit sums of nnU-Net's predictor hold up to 65504
        return self.network(x) * 500


class Noisy(nn.Module):
    """Random in eval mode too."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x + 0.1 * torch.randn_like(x))
