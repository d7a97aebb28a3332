"""2d, 3d_fullres, 3d_lowres and the cascade, whose second stage is fed by the first."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

from nnunetv2_lngswr.utils.checkpoints import load_checkpoint
from tests.pipeline import commands
from tests.pipeline.commands import model_folder, predict, read_label

CASES = [f"case{i}" for i in range(5)]
CASCADE = "3d_cascade_fullres"


@pytest.fixture(scope="module")
def cascade(crossvalidated, tmp_path_factory) -> Path:
    """Both stages trained on all cases, in results of their own."""
    root = tmp_path_factory.mktemp("cascade")
    commands.copy_data(crossvalidated, root)
    with pytest.MonkeyPatch.context() as patch:
        commands.use(patch, root)
        commands.train("999", "3d_lowres", "all")
        commands.train("999", CASCADE, "all")
    return root


@pytest.fixture
def stages(cascade, monkeypatch) -> Path:
    commands.use(monkeypatch, cascade)
    return cascade


def weights(root, configuration, fold):
    return load_checkpoint(
        model_folder(root, configuration) / f"fold_{fold}" / "checkpoint_final.pth"
    )["network_weights"]


@pytest.mark.parametrize(
    "configuration, fold, dimension, inputs",
    [
        ("2d", 0, 2, 1),
        ("3d_fullres", 0, 3, 1),
        ("3d_lowres", "all", 3, 1),
        (CASCADE, "all", 3, 2),
    ],
)
def test_training_leaves_what_nnunet_leaves_and_ours(
    crossvalidated, cascade, configuration, fold, dimension, inputs
):
    root = crossvalidated if fold == 0 else cascade
    folder = model_folder(root, configuration) / f"fold_{fold}"
    names = {p.name for p in folder.iterdir()}
    assert {
        "checkpoint_final.pth",
        "checkpoint_best.pth",
        "progress.png",
        "debug.json",
        "lngswr.json",
        "lngswr.png",
        "validation",
    } <= names
    assert {"plans.json", "dataset.json", "dataset_fingerprint.json"} <= {
        p.name for p in folder.parent.iterdir()
    }
    assert json.loads((folder / "validation" / "summary.json").read_text())["metric_per_case"]
    found = weights(root, configuration, fold)
    first = found["encoder.stages.0.0.convs.0.conv.weight"]
    assert first.ndim == 2 + dimension and first.shape[1] == inputs
    assert any(k.endswith("theta") for k in found) and all(
        torch.isfinite(v).all() for v in found.values()
    )


def test_the_low_resolution_stage_hands_on_every_case_in_the_next_stages_grid(cascade):
    handed_on = model_folder(cascade, "3d_lowres") / "predicted_next_stage" / CASCADE
    assert sorted({p.name.split(".")[0] for p in handed_on.iterdir()}) == CASES
    preprocessed = cascade / "nnUNet_preprocessed" / "Dataset999_Tiny"
    sizes = {}
    for configuration in ("3d_fullres", "3d_lowres"):
        folder = preprocessed / f"nnUNetPlans_{configuration}"
        previous = str(handed_on) if configuration == "3d_fullres" else None
        data, _, stage, _ = infer_dataset_class(str(folder))(
            str(folder), CASES, previous
        ).load_case("case0")
        sizes[configuration] = data.shape[1:]
        if previous:
            assert stage.shape == data.shape[1:]
    assert sizes["3d_fullres"] == commands.SHAPE and sizes["3d_lowres"] == tuple(
        round(n / 2) for n in commands.SHAPE
    )


def test_the_second_stage_is_trained_on_what_the_first_hands_on(cascade, tmp_path, monkeypatch):
    shutil.copytree(cascade, tmp_path, dirs_exist_ok=True)
    commands.use(monkeypatch, tmp_path)
    trained = weights(tmp_path, CASCADE, "all")
    shutil.rmtree(model_folder(tmp_path, CASCADE))
    commands.train("999", CASCADE, "all")
    again = weights(tmp_path, CASCADE, "all")
    assert all(torch.equal(trained[k], again[k]) for k in trained)
    shutil.rmtree(model_folder(tmp_path, CASCADE))
    handed_on = model_folder(tmp_path, "3d_lowres") / "predicted_next_stage" / CASCADE
    replaced = _inverted(tmp_path, handed_on)
    assert replaced == len(CASES)
    commands.train("999", CASCADE, "all")
    other = weights(tmp_path, CASCADE, "all")
    assert any(not torch.equal(trained[k], other[k]) for k in trained)


def _inverted(root, handed_on) -> int:
    """Swap ball and background in all that the first stage handed on."""
    folder = str(root / "nnUNet_preprocessed/Dataset999_Tiny/nnUNetPlans_3d_fullres")
    cls = infer_dataset_class(folder)
    for case in CASES:
        stage = np.asarray(cls(folder, [case], str(handed_on)).load_case(case)[2][:])
        for file in handed_on.glob(f"{case}.*"):
            file.unlink()
        cls.save_seg((1 - stage).astype(np.uint8), str(handed_on / case))
    return len(list(handed_on.iterdir()))


def test_prediction_in_two_steps_depends_on_the_first(stages, tmp_path):
    first = predict(stages, tmp_path / "first", "-f", "all", configuration="3d_lowres")
    inverted = tmp_path / "inverted"
    for case in CASES:
        label = read_label(first / f"{case}.nii.gz")
        assert label.shape == commands.SHAPE
        commands.write_image(inverted / f"{case}.nii.gz", (1 - label).astype(np.uint8))
    outputs = {}
    for name, previous in (("a", first), ("b", first), ("c", inverted)):
        out = predict(
            stages,
            tmp_path / name,
            "-f",
            "all",
            "--save_probabilities",
            "-prev_stage_predictions",
            previous,
            configuration=CASCADE,
        )
        outputs[name] = [
            np.load(out / f"{case}.npz")["probabilities"].astype(float) for case in CASES
        ]
        assert all(p.shape == (2, *commands.SHAPE) for p in outputs[name])
    assert all(np.array_equal(a, b) for a, b in zip(outputs["a"], outputs["b"]))
    assert all(np.abs(a - c).max() > 1e-2 for a, c in zip(outputs["a"], outputs["c"]))


def test_the_cascade_asks_for_its_previous_stage(stages, tmp_path):
    with pytest.raises(AssertionError, match="It requires the segmentations of the previous stage"):
        predict(stages, tmp_path, "-f", "all", configuration=CASCADE)
