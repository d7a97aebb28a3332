"""nnU-Net's planners: what they plan takes LNG-SWR at its full size, and trains when shrunk."""

import json

import numpy as np
import pytest
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_lngswr.method.network import find_lngswr
from nnunetv2_lngswr.trainers import nnUNetTrainerLNGSWR
from tests.pipeline import commands
from tests.pipeline.commands import command, model_folder, plans_file, predict, read_label

PLANNERS = {
    "ExperimentPlanner": "nnUNetPlans",
    "nnUNetPlannerResEncM": "nnUNetResEncUNetMPlans",
    "nnUNetPlannerResEncL": "nnUNetResEncUNetLPlans",
    "nnUNetPlannerResEncXL": "nnUNetResEncUNetXLPlans",
}


@pytest.fixture
def copy(crossvalidated, tmp_path, monkeypatch):
    """The project without its models: raw, and what is preprocessed for the default plans."""
    commands.copy_data(crossvalidated, tmp_path)
    commands.use(monkeypatch, tmp_path)
    return tmp_path


def enlarge(root, shape=(60, 180, 150)) -> None:
    """Let the planner see a data set of images as large as real ones."""
    path = next((root / "nnUNet_preprocessed").glob("Dataset999_*")) / "dataset_fingerprint.json"
    fingerprint = json.loads(path.read_text())
    fingerprint["shapes_after_crop"] = [list(shape)] * len(fingerprint["shapes_after_crop"])
    path.write_text(json.dumps(fingerprint))


@pytest.mark.parametrize("planner", PLANNERS)
def test_planned_networks_take_lngswr_at_their_full_size(copy, planner):
    enlarge(copy)
    command("nnUNetv2_plan_experiment", "-d", "999", "-pl", planner)
    plans = json.loads(plans_file(copy, PLANNERS[planner]).read_text())
    manager = PlansManager(plans)
    for name in ("2d", "3d_fullres"):
        configuration = manager.get_configuration(name)
        assert ("ResidualEncoder" in configuration.network_arch_class_name) == ("ResEnc" in planner)
        with torch.device("meta"):  # up to 100 million parameters, which need no values here
            network = nnUNetTrainerLNGSWR.build_network_architecture(
                manager, configuration, 1, 2, True
            )
        branches = dict(find_lngswr(network).branches())
        stages = configuration.network_arch_init_kwargs["n_stages"]
        assert stages >= 5 and set(branches) == {"input", *(f"stage {i}" for i in range(stages))}
        # all but the bottleneck, and the input
        assert sum(b.reconstruction is not None for b in branches.values()) == stages


@pytest.mark.parametrize("planner", ["nnUNetPlannerResEncM", "nnUNetPlannerResEncL"])
@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_residual_encoders_train_and_predict(copy, tmp_path, planner, configuration):
    command("nnUNetv2_plan_experiment", "-d", "999", "-pl", planner)
    plans = PLANNERS[planner]
    commands.shrink(plans_file(copy, plans))
    # they use the data preprocessed for the default plans
    commands.train("999", configuration, 0, "-p", plans)
    out = predict(copy, tmp_path / "out", "-f", 0, "-p", plans, configuration=configuration)
    weights = torch.load(
        model_folder(copy, configuration, plans=plans) / "fold_0/checkpoint_final.pth",
        weights_only=False,
    )["network_weights"]
    assert any(".blocks." in k for k in weights) and any(k.endswith("theta") for k in weights)
    assert len(list(out.glob("*.nii.gz"))) == 5
    validated = list(
        (model_folder(copy, configuration, plans=plans) / "fold_0/validation").glob("*.nii.gz")
    )
    assert validated
    # the same model predicts from the raw image what it predicted from the preprocessed one
    for file in validated:
        assert np.array_equal(read_label(file), read_label(out / file.name))


def test_another_memory_target_plans_another_patch_and_trains_beside_the_default(copy, tmp_path):
    enlarge(copy)
    command("nnUNetv2_plan_experiment", "-d", "999", "-overwrite_plans_name", "Default8GB")
    command(
        "nnUNetv2_plan_experiment",
        "-d",
        "999",
        "-gpu_memory_target",
        3,
        "-overwrite_plans_name",
        "Small3GB",
    )
    sizes = {}
    for name in ("Default8GB", "Small3GB"):
        plan = json.loads(plans_file(copy, name).read_text())["configurations"]["3d_fullres"]
        sizes[name] = plan["batch_size"] * np.prod(plan["patch_size"])
    assert sizes["Small3GB"] < sizes["Default8GB"]
    commands.shrink(plans_file(copy, "Small3GB"))
    commands.preprocess(["3d_fullres"], plans="Small3GB")
    commands.train("999", "3d_fullres", 0, "-p", "Small3GB")
    out = predict(copy, tmp_path / "out", "-f", 0, "-p", "Small3GB", configuration="3d_fullres")
    assert read_label(out / "case0.nii.gz").shape == commands.SHAPE
    assert (
        json.loads((model_folder(copy, "3d_fullres", plans="Small3GB") / "plans.json").read_text())[
            "plans_name"
        ]
        == "Small3GB"
    )


def test_another_spacing_is_trained_in_and_undone(copy, tmp_path):
    options = ["-overwrite_target_spacing", 2, 1.5, 1.2, "-overwrite_plans_name", "Coarse"]
    command("nnUNetv2_plan_experiment", "-d", "999", *options)
    plans = commands.shrink(plans_file(copy, "Coarse"))
    assert sorted(plans["configurations"]["3d_fullres"]["spacing"]) == [1.2, 1.5, 2]
    commands.preprocess(["3d_fullres"], plans="Coarse")
    commands.train("999", "3d_fullres", 0, "-p", "Coarse", "--npz")
    log = next(
        (model_folder(copy, "3d_fullres", plans="Coarse") / "fold_0").glob("training_log*")
    ).read_text()
    # the network's grid
    assert f"shape torch.Size([1, {round(14 / 2)}, {round(28 / 1.5)}, {round(15 / 1.2)}])" in log
    out = predict(
        copy,
        tmp_path / "out",
        "-f",
        0,
        "-p",
        "Coarse",
        "--save_probabilities",
        configuration="3d_fullres",
    )
    image, properties = SimpleITKIO().read_images([str(out / "case0.nii.gz")])
    assert image.shape == (1, *commands.SHAPE) and np.allclose(properties["spacing"], 1)
    assert np.load(out / "case0.npz")["probabilities"].shape == (2, *commands.SHAPE)
