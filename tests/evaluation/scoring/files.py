"""Label maps, predictions and probabilities as nnU-Net writes them, small."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.special import expit, softmax

from evaluation.score import score_predictions

SHAPE = (10, 14, 12)
GEOMETRY = {"spacing": (1.0, 1.5, 2.0), "origin": (3.0, -4.0, 5.0)}
CASES = tuple(f"p{i // 2}_{i}" for i in range(6))
"""Of three patients, two each."""
PATTERN = r"^p\d"

LABELS = {"background": 0, "organ": 1, "lesion": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}


def write_image(path: Path, array: np.ndarray, **geometry) -> Path:
    """A label map; `spacing`, `origin`, `direction` as ITK has them, x first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array.astype(np.uint8))
    for name, value in {**GEOMETRY, **geometry}.items():
        getattr(image, f"Set{name.capitalize()}")(value)
    sitk.WriteImage(image, str(path))
    return path


def write_description(path: Path, labels: Mapping, order: Sequence[int] | None = None) -> Path:
    """A dataset.json."""
    content = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
    if order is not None:
        content["regions_class_order"] = order
    path.write_text(json.dumps(content))
    return path


def truth(seed: int, *, ignore: bool = False) -> np.ndarray:
    """An organ (1) with some lesions (2) in it, and an unlabelled corner (3) on request."""
    rng = np.random.default_rng(seed)
    found = np.zeros(SHAPE, np.uint8)
    found[2:8, 3:11, 2 : 8 + seed % 3] = 1
    found[(rng.random(SHAPE) < 0.1) & (found == 1)] = 2
    if ignore:
        found[:4, :6, :5] = 3
    return found


def logits(seed: int, heads: int, *, wanted: np.ndarray, noise: float = 1.5) -> np.ndarray:
    """(heads, *spatial): that of the wanted label map as one of `heads` heads, and noise."""
    rng = np.random.default_rng(1000 + seed)
    bump = np.stack([wanted == k for k in range(heads)]) * 3.0
    return bump + noise * rng.standard_normal((heads, *wanted.shape))


def write_model(
    folder: Path,
    *,
    cases: Sequence[str] = CASES,
    noise: float = 1.5,
    offset: int = 0,
    npz: bool = False,
    regions: bool = False,
) -> Path:
    """A folder of predictions, with the probabilities they come from on request."""
    for case in cases:
        seed = int(case.split("_")[1])
        wanted = truth(seed)
        if regions:
            heads = np.stack([wanted > 0, wanted == 2]) * 4.0 - 2
            rng = np.random.default_rng(1000 + seed + offset)
            p = expit(heads + noise * rng.standard_normal(heads.shape)).astype(np.float32)
            map_ = np.where(p[1] > 0.5, 2, np.where(p[0] > 0.5, 1, 0))
        else:
            p = softmax(logits(seed + offset, 3, wanted=wanted, noise=noise), 0).astype(np.float32)
            map_ = p.argmax(0)
        write_image(folder / f"{case}.nii.gz", map_)
        if npz:
            np.savez_compressed(folder / f"{case}.npz", probabilities=p)
    return folder


def write_labels(folder: Path, *, cases: Sequence[str] = CASES, ignore: bool = False) -> Path:
    """The ground truth."""
    for case in cases:
        write_image(folder / f"{case}.nii.gz", truth(int(case.split("_")[1]), ignore=ignore))
    return folder


def score(root, *models, out="out", labels="labels", **options):
    """summary.json; with dataset.json where there is one."""
    described = root / "dataset.json"
    options.setdefault("dataset_json", described if described.exists() else None)
    folders = [root / m if isinstance(m, str) else [root / f for f in m] for m in models]
    return score_predictions(folders, root / labels, root / out, processes=1, **options)


def find(summary, measure, *, model="a", label="mean"):
    return next(
        r
        for r in summary["results"]
        if (r["model"], r["label"], r["measure"]) == (model, label, measure)
    )


def rows(root, out="out"):
    return [*csv.DictReader((root / out / "cases.csv").open(newline=""))]
