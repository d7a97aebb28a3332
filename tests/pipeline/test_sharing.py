"""A model exported to a zip file and installed into other results predicts the same bytes."""

import json
import zipfile
from pathlib import Path

import pytest

from tests.pipeline.commands import TRAINER, command, model_folder, predict, same_files


def export(file: Path, configuration: str, *folds: int) -> None:
    model = ("-d", "999", "-c", configuration, "-tr", TRAINER, "-f", *folds)
    command("nnUNetv2_export_model_to_zip", "-o", file, *model)


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_export_install_predict(trained, tmp_path, monkeypatch, configuration):
    before = predict(
        trained,
        tmp_path / "before",
        "-f",
        0,
        1,
        "--save_probabilities",
        configuration=configuration,
    )
    zipped = tmp_path / "model.zip"
    export(zipped, configuration, 0, 1)
    names = zipfile.ZipFile(zipped).namelist()
    assert {n.split("/")[2] for n in names if "/fold_" in n} == {"fold_0", "fold_1"}
    results = tmp_path / "elsewhere" / "nnUNet_results"
    results.mkdir(parents=True)
    monkeypatch.setenv("nnUNet_results", str(results))
    command("nnUNetv2_install_pretrained_model_from_zip", zipped)
    installed = model_folder(tmp_path / "elsewhere", configuration)
    for fold in (0, 1):
        original = model_folder(trained, configuration) / f"fold_{fold}" / "checkpoint_final.pth"
        assert (
            installed / f"fold_{fold}" / "checkpoint_final.pth"
        ).read_bytes() == original.read_bytes()
    # no nnUNet_preprocessed at the place where it is installed
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "absent"))
    after = predict(
        trained, tmp_path / "after", "-f", 0, 1, "--save_probabilities", configuration=configuration
    )
    assert (
        len(same_files(before, after, "*.nii.gz")) == len(same_files(before, after, "*.npz")) == 5
    )


def test_the_settings_travel_with_the_zip(trained, tmp_path):
    """Prediction rebuilds the network from the plans inside: they must hold the entry in full."""
    export(tmp_path / "model.zip", "2d", 0)
    archive = zipfile.ZipFile(tmp_path / "model.zip")
    (plans,) = [n for n in archive.namelist() if n.endswith("/plans.json") and "__2d/" in n]
    entry = json.loads(archive.read(plans))["configurations"]["2d"]["lngswr"]
    assert entry["gains"] == [0.12, 0.12, 0.02] and {
        "wavelet",
        "fusion",
        "reconstruct_stages",
    } <= set(entry)
