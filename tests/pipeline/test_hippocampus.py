"""Configurations, cross-validation and prediction on real images: Dataset631_Hippocampus, whose files lie beside a developer's checkout and CI's
(../shared/data); elsewhere this skips. Two cases per fold of its own patient-wise splits, tiny networks."""

import json
import shlex
import shutil

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


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not DATA.is_dir(), reason=f"real data not found: {DATA}")
def test_five_folds_of_2d_and_3d_fullres_from_planning_to_postprocessed_predictions(
    tmp_path, monkeypatch
):
    commands.use(monkeypatch, tmp_path)
    validation = [
        sorted(fold["val"])[:2] for fold in json.loads((DATA / "splits_final.json").read_text())
    ]
    cases = sorted(case for fold in validation for case in fold)
    raw = tmp_path / "nnUNet_raw" / NAME
    for case in cases:
        for file in (f"imagesTr/{case}_0000.nii.gz", f"labelsTr/{case}.nii.gz"):
            (raw / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(DATA / file, raw / file)
    dataset = json.loads((DATA / "dataset.json").read_text()) | {"numTraining": len(cases)}
    (raw / "dataset.json").write_text(json.dumps(dataset))
    commands.plan("631")
    splits = [{"train": [c for c in cases if c not in fold], "val": fold} for fold in validation]
    (commands.plans_file(tmp_path, dataset="631").parent / "splits_final.json").write_text(
        json.dumps(splits)
    )
    commands.shrink(commands.plans_file(tmp_path, dataset="631"))
    commands.preprocess(["2d", "3d_fullres"], "631")
    for configuration in ("2d", "3d_fullres"):
        for fold in range(5):
            commands.train("631", configuration, fold, "--npz")
        model = model_folder(tmp_path, configuration, dataset="631")
        for fold, its in enumerate(validation):
            assert sorted(
                p.name for p in (model / f"fold_{fold}" / "validation").glob("*.nii.gz")
            ) == [f"{case}.nii.gz" for case in its]

    # the best configuration, and what nnU-Net then tells the user to run
    command(
        "nnUNetv2_find_best_configuration",
        "631",
        "-c",
        "2d",
        "3d_fullres",
        "-tr",
        TRAINER,
        "-np",
        2,
    )
    best = tmp_path / "nnUNet_results" / NAME
    results = json.loads((best / "inference_information.json").read_text())["all_results"]
    assert len(results) == 3  # both and their ensemble
    lines = [
        line
        for line in (best / "inference_instructions.txt").read_text().splitlines()
        if line.startswith("nnUNetv2_")
    ]
    for line in lines:
        words = [
            str(raw / "imagesTr")
            if w == "INPUT_FOLDER"
            else str(tmp_path / w)
            if w.startswith("OUTPUT_FOLDER")
            else w
            for w in shlex.split(line)
        ]
        command(*words, *(["-device", "cpu"] if words[0] == "nnUNetv2_predict" else []))
    final = tmp_path / shlex.split(lines[-1])[shlex.split(lines[-1]).index("-o") + 1]
    for case in cases:
        found = read_label(final / f"{case}.nii.gz")
        assert found.shape == read_label(raw / "labelsTr" / f"{case}.nii.gz").shape and set(
            np.unique(found)
        ) <= {0, 1, 2}

    # both kinds of prediction write the same; another step does not
    fast = ("-f", "0", "1", "--disable_tta")
    one = predict(tmp_path, tmp_path / "one", *fast, dataset="631", configuration="3d_fullres")
    model = model_folder(tmp_path, "3d_fullres", dataset="631")
    command(
        "nnUNetv2_predict_from_modelfolder",
        "-i",
        raw / "imagesTr",
        "-o",
        tmp_path / "two",
        "-m",
        model,
        "-device",
        "cpu",
        *fast,
    )
    assert same_files(one, tmp_path / "two", "*.nii.gz") == [f"{case}.nii.gz" for case in cases]
    wide = predict(
        tmp_path,
        tmp_path / "wide",
        *fast,
        "-step_size",
        "1",
        "--save_probabilities",
        dataset="631",
        configuration="3d_fullres",
    )
    narrow = predict(
        tmp_path,
        tmp_path / "narrow",
        *fast,
        "--save_probabilities",
        dataset="631",
        configuration="3d_fullres",
    )
    assert any(
        not np.array_equal(*(np.load(p / f"{case}.npz")["probabilities"] for p in (wide, narrow)))
        for case in cases
    )
