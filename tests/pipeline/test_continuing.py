"""Validation on its own, and training from other weights.

These are a vanilla checkpoint, and a model of another data set. Killing and `--c` are in
tests/training/test_resume.py.
"""

import json
import shutil

import numpy as np
import pytest
import torch

from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.utils.checkpoints import load_checkpoint
from tests.pipeline import commands
from tests.pipeline.commands import BUDGET, command, model_folder, plans_file, predict, same_files


@pytest.fixture
def copy(crossvalidated, tmp_path, monkeypatch):
    """The project with fold 0 of its 2d model."""
    commands.copy_data(crossvalidated, tmp_path)
    model = model_folder(crossvalidated, "2d")
    own = tmp_path / "nnUNet_results" / "Dataset999_Tiny" / model.name
    own.mkdir(parents=True)
    for file in model.glob("*.json"):
        shutil.copy(file, own)
    shutil.copytree(model / "fold_0", own / "fold_0")
    commands.use(monkeypatch, tmp_path)
    return tmp_path


def reseed(path, **changes) -> None:
    """Another initialisation, so that equal weights can only have been loaded."""
    plans = json.loads(path.read_text())
    for configuration in plans["configurations"].values():
        if "lngswr" in configuration:
            configuration["lngswr"] |= changes
    path.write_text(json.dumps(plans))


def likeness(a: dict, b: dict) -> float:
    """Cosine between the convolutions of two sets of weights: 0 for independent ones."""
    keys = [k for k in a if k.endswith("conv.weight") and k in b and "seg_layers" not in k]
    assert len(keys) >= 5
    x, y = (torch.cat([w[k].double().flatten() for k in keys]) for w in (a, b))
    return float(torch.nn.functional.cosine_similarity(x, y, dim=0))


def gates(weights: dict) -> float:
    return float(
        torch.cat([v.flatten() for k, v in weights.items() if k.endswith("theta")]).abs().mean()
    )


def weights(folder, name="checkpoint_final.pth"):
    return load_checkpoint(folder / name)["network_weights"]


def test_validation_alone_writes_what_training_wrote(copy):
    fold = model_folder(copy, "2d") / "fold_0"
    (fold / "validation").rename(fold / "before")
    checkpoint = (fold / "checkpoint_final.pth").read_bytes()
    commands.train("999", "2d", 0, "--val", "--npz")
    assert same_files(fold / "validation", fold / "before", "*.nii.gz")
    for file in (fold / "before").glob("*.npz"):
        assert np.array_equal(
            np.load(file)["probabilities"],
            np.load(fold / "validation" / file.name)["probabilities"],
        )
    summaries = [
        json.loads((fold / name / "summary.json").read_text()) for name in ("validation", "before")
    ]
    assert summaries[0]["foreground_mean"] == summaries[1]["foreground_mean"]
    assert (fold / "checkpoint_final.pth").read_bytes() == checkpoint


def test_validation_with_the_best_checkpoint(copy, tmp_path):
    fold = model_folder(copy, "2d") / "fold_0"
    # after one epoch the best is the last: give it other heads
    best = torch.load(fold / "checkpoint_best.pth", weights_only=False)
    generator = torch.Generator().manual_seed(0)
    for key, value in best["network_weights"].items():
        if key.endswith("seg_layers.1.weight"):
            value.normal_(generator=generator)
    torch.save(best, fold / "checkpoint_best.pth")
    (fold / "validation").rename(fold / "final")
    commands.train("999", "2d", 0, "--val", "--val_best", "--npz")
    predicted = predict(
        copy, tmp_path / "best", "-f", 0, "-chk", "checkpoint_best.pth", "--save_probabilities"
    )
    (case,) = [p.name.removesuffix(".npz") for p in (fold / "final").glob("*.npz")]
    final, best, expected = (
        np.load(f / f"{case}.npz")["probabilities"]
        for f in (fold / "final", fold / "validation", predicted)
    )
    assert np.allclose(best, expected, atol=2e-3) and not np.allclose(best, final, atol=0.05)


def test_pretrained_weights_from_a_vanilla_checkpoint(copy, tmp_path):
    reseed(plans_file(copy), seed=1)
    commands.train("999", "2d", 1, trainer="nnUNetTrainerVanilla")
    vanilla = model_folder(copy, "2d", trainer="nnUNetTrainerVanilla") / "fold_1"
    assert not any(k.endswith("theta") for k in weights(vanilla))
    assert cli.main(
        ["warm-start", str(vanilla / "checkpoint_final.pth"), str(tmp_path / "start.pth")]
    ) in (0, None)
    reseed(plans_file(copy), seed=2)
    shutil.rmtree(model_folder(copy, "2d"))
    commands.train("999", "2d", 1)
    scratch = weights(model_folder(copy, "2d") / "fold_1")
    shutil.rmtree(model_folder(copy, "2d"))
    commands.train("999", "2d", 1, "-pretrained_weights", tmp_path / "start.pth")
    found = weights(model_folder(copy, "2d") / "fold_1")
    assert likeness(found, weights(vanilla)) > 0.9
    assert abs(likeness(scratch, weights(vanilla))) < 0.5
    # the warm start's reconstruction began at the identity, a = 0; from scratch it begins at a = 1
    assert gates(found) < gates(scratch) / 2


def test_pretrained_weights_and_plans_from_another_data_set(copy, tmp_path):
    source = model_folder(copy, "2d") / "fold_0" / "checkpoint_final.pth"
    commands.write_raw(
        copy, "Dataset998_Other", shape=(12, 22, 25), labels={"background": 0, "ball": 1, "top": 2}
    )
    # only this copies the dataset.json that nnUNetv2_preprocess then looks for
    commands.plan("998")
    names = ("-s", "999", "-t", "998", "-sp", "nnUNetPlans", "-tp", "PlansOf999")
    command("nnUNetv2_move_plans_between_datasets", *names)
    moved = plans_file(copy, "PlansOf999", "998")
    assert {
        c["lngswr"]["num_epochs"]
        for c in json.loads(moved.read_text())["configurations"].values()
        if "lngswr" in c
    } == {1}
    reseed(moved, seed=BUDGET["seed"] + 1)
    commands.preprocess(["2d"], "998", "PlansOf999")
    commands.train("998", "2d", 0, "-p", "PlansOf999", "-pretrained_weights", source)
    model = model_folder(copy, "2d", plans="PlansOf999", dataset="998")
    found = weights(model / "fold_0")
    assert likeness(found, load_checkpoint(source)["network_weights"]) > 0.9
    # two classes here, one there: nnU-Net leaves the heads out
    assert {
        v.shape[0]
        for k, v in found.items()
        if k.startswith("decoder.seg_layers.") and k.endswith("weight")
    } == {3}
    out = predict(copy, tmp_path / "out", "-f", 0, "-p", "PlansOf999", dataset="998")
    assert len(list(out.glob("*.nii.gz"))) == 5
    assert json.loads((out / "plans.json").read_text())["dataset_name"] == "Dataset998_Other"


def test_a_vanilla_checkpoint_as_it_is_is_refused(copy):
    """It lacks our parts; nnU-Net names one."""
    fold = model_folder(copy, "2d") / "fold_0"
    checkpoint = torch.load(fold / "checkpoint_final.pth", weights_only=False)
    bare = {
        k: v
        for k, v in checkpoint["network_weights"].items()
        if "lngswr" not in k and not k.endswith("theta")
    }
    torch.save(checkpoint | {"network_weights": bare}, fold / "bare.pth")
    with pytest.raises(AssertionError, match="is missing in the pretrained model weights"):
        commands.train("999", "2d", 1, "-pretrained_weights", fold / "bare.pth")
    assert not (model_folder(copy, "2d") / "fold_1" / "checkpoint_final.pth").exists()
