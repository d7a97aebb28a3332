"""The whole chain on real data, by a user's commands: plan, preprocess, train, predict, evaluate.

The data sets lie beside a developer's checkout and CI's (../shared/data); elsewhere these tests
skip.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "shared" / "data"
CASES = [
    ("Dataset611_ThyroidUS", "2d", ".png", 6),
    ("Dataset621_LungNodule3D", "3d_fullres", ".nii.gz", 6),
    ("Dataset631_Hippocampus", "3d_fullres", ".nii.gz", 6),
]


def run(root: Path, *command: str) -> None:
    environment = os.environ | {
        v: str(root / v) for v in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    }
    environment |= {
        "nnUNet_n_proc_DA": "1",
        "nnUNet_def_n_proc": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (
        f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name, configuration, ending, count", CASES)
def test_nnunets_commands_on_real_images(tmp_path, name, configuration, ending, count):
    source = DATA / name
    if not source.is_dir():
        pytest.skip(f"real data not found: {source}")
    number = name[7:10]
    raw, preprocessed = tmp_path / "nnUNet_raw" / name, tmp_path / "nnUNet_preprocessed" / name
    train = copy_some_cases(source, raw, ending, count)

    plan = ["nnUNetv2_plan_and_preprocess", "-d", number, "-c", configuration, "-np", "1"]
    run(tmp_path, *plan, "--verify_dataset_integrity")
    write_short_plans(preprocessed, configuration)
    splits = [{"train": train[:-1], "val": train[-1:]}]
    (preprocessed / "splits_final.json").write_text(json.dumps(splits))
    chosen = ("-tr", "nnUNetTrainerLNGSWR", "-p", "shortPlans", "-device", "cpu")
    run(tmp_path, "nnUNetv2_train", number, configuration, "0", *chosen)
    predictions = tmp_path / "predictions"
    predict = ["nnUNetv2_predict", "-i", str(raw / "imagesTs"), "-o", str(predictions)]
    run(tmp_path, *predict, "-d", number, "-c", configuration, "-f", "0", "--disable_tta", *chosen)
    model = tmp_path / "nnUNet_results" / name / f"nnUNetTrainerLNGSWR__shortPlans__{configuration}"
    evaluate = ["nnUNetv2_evaluate_folder", str(raw / "labelsTs"), str(predictions)]
    described = ["-djfile", str(model / "dataset.json"), "-pfile", str(model / "plans.json")]
    run(tmp_path, *evaluate, *described)
    summary = json.loads((predictions / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == 2 and summary["foreground_mean"]["n_ref"] > 0
    fold = model / "fold_0"
    assert {"checkpoint_final.pth", "lngswr.png", "progress.png", "validation"} <= {
        p.name for p in fold.iterdir()
    }


def copy_some_cases(source: Path, raw: Path, ending: str, count: int) -> list[str]:
    """A data set of `count` training cases, which it returns, and two test cases."""
    split = json.loads((source / "splits_final.json").read_text())[0]
    train, held_out = split["train"][:count], split["val"][:2]
    for folder, cases in (("Tr", train), ("Ts", held_out)):
        for kind, suffix in (("images", "_0000"), ("labels", "")):
            target = raw / f"{kind}{folder}"
            target.mkdir(parents=True)
            for case in cases:
                shutil.copy(source / f"{kind}Tr" / f"{case}{suffix}{ending}", target)
    dataset = json.loads((source / "dataset.json").read_text()) | {"numTraining": count}
    (raw / "dataset.json").write_text(json.dumps(dataset))
    return train


def write_short_plans(preprocessed: Path, configuration: str) -> None:
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    plans["plans_name"] = "shortPlans"
    settings = plans["configurations"][configuration]
    settings["batch_size"] = 2
    settings["lngswr"] = {
        "num_epochs": 1,
        "num_iterations_per_epoch": 2,
        "num_val_iterations_per_epoch": 1,
        "seed": 0,
    }
    (preprocessed / "shortPlans.json").write_text(json.dumps(plans))
