"""Configurations, cross-validation and prediction on real images.

Dataset631_Hippocampus, whose files lie beside a developer's checkout and CI's (../shared/data);
elsewhere this skips. Two cases per fold of its own patient-wise splits, tiny networks.
"""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.pipeline import commands
from tests.pipeline.commands import (
    ROOT,
    TRAINER,
    command,
    model_folder,
    predict,
    read_label,
    same_files,
)

NAME = "Dataset631_Hippocampus"
DATA = ROOT.parent / "shared" / "data" / NAME
CONFIGURATIONS = ("2d", "3d_fullres")
FAST = ("-f", "0", "1", "--disable_tta")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),  # the first test waits for ten trainings
    pytest.mark.skipif(not DATA.is_dir(), reason=f"real data not found: {DATA}"),
]


@pytest.fixture(scope="module")
def validation() -> list[list[str]]:
    """Two validation cases of each fold."""
    folds = json.loads((DATA / "splits_final.json").read_text())
    return [sorted(fold["val"])[:2] for fold in folds]


@pytest.fixture(scope="module")
def cases(validation) -> list[str]:
    return sorted(case for fold in validation for case in fold)


@pytest.fixture(scope="module")
def hippocampus(validation, cases, tmp_path_factory) -> Path:
    """Root of a project whose two configurations are trained on five folds."""
    root = tmp_path_factory.mktemp("hippocampus")
    with pytest.MonkeyPatch.context() as patch:
        commands.use(patch, root)
        copy_raw(root, cases)
        commands.plan("631")
        plans = commands.plans_file(root, dataset="631")
        splits = [
            {"train": [c for c in cases if c not in fold], "val": fold} for fold in validation
        ]
        (plans.parent / "splits_final.json").write_text(json.dumps(splits))
        commands.shrink(plans)
        commands.preprocess(CONFIGURATIONS, "631")
        for configuration in CONFIGURATIONS:
            for fold in range(5):
                commands.train("631", configuration, fold, "--npz")
    return root


@pytest.fixture
def trained(hippocampus, monkeypatch) -> Path:
    """That project, in use."""
    commands.use(monkeypatch, hippocampus)
    return hippocampus


def copy_raw(root: Path, cases: list[str]) -> None:
    raw = root / "nnUNet_raw" / NAME
    for case in cases:
        for file in (f"imagesTr/{case}_0000.nii.gz", f"labelsTr/{case}.nii.gz"):
            (raw / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(DATA / file, raw / file)
    dataset = json.loads((DATA / "dataset.json").read_text()) | {"numTraining": len(cases)}
    (raw / "dataset.json").write_text(json.dumps(dataset))


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_each_fold_validates_its_cases(trained, validation, configuration):
    model = model_folder(trained, configuration, dataset="631")
    for fold, its in enumerate(validation):
        found = (model / f"fold_{fold}" / "validation").glob("*.nii.gz")
        assert sorted(p.name for p in found) == [f"{case}.nii.gz" for case in its]


def test_the_best_configuration_and_what_the_user_is_told_to_run(trained, cases, tmp_path):
    what = ("-c", *CONFIGURATIONS, "-tr", TRAINER)
    command("nnUNetv2_find_best_configuration", "631", *what, "-np", 2)
    best = trained / "nnUNet_results" / NAME
    results = json.loads((best / "inference_information.json").read_text())["all_results"]
    assert len(results) == 3  # both and their ensemble
    raw = trained / "nnUNet_raw" / NAME
    lines = commands.run_instructions(best, raw / "imagesTr", tmp_path)
    last = shlex.split(lines[-1])
    final = tmp_path / last[last.index("-o") + 1]
    for case in cases:
        found = read_label(final / f"{case}.nii.gz")
        assert found.shape == read_label(raw / "labelsTr" / f"{case}.nii.gz").shape
        assert set(np.unique(found)) <= {0, 1, 2}


def test_both_kinds_of_prediction_write_the_same(trained, cases, tmp_path):
    one = predict_631(trained, tmp_path / "one")
    model = model_folder(trained, "3d_fullres", dataset="631")
    places = ("-i", trained / "nnUNet_raw" / NAME / "imagesTr", "-o", tmp_path / "two")
    command("nnUNetv2_predict_from_modelfolder", *places, "-m", model, "-device", "cpu", *FAST)
    assert same_files(one, tmp_path / "two", "*.nii.gz") == [f"{case}.nii.gz" for case in cases]


def test_another_step_does_not_write_the_same(trained, cases, tmp_path):
    wide = predict_631(trained, tmp_path / "wide", "-step_size", "1", "--save_probabilities")
    narrow = predict_631(trained, tmp_path / "narrow", "--save_probabilities")
    assert any(
        not np.array_equal(*(np.load(p / f"{case}.npz")["probabilities"] for p in (wide, narrow)))
        for case in cases
    )


def predict_631(root: Path, output: Path, *options: str) -> Path:
    return predict(root, output, *FAST, *options, dataset="631", configuration="3d_fullres")
