"""The demo: its parts fast, the whole chain marked slow."""

import copy
import json
import os
import sys
from pathlib import Path

import pytest

from nnunetv2_lngswr.datasets.phantom import PHANTOM_SETS, write_phantom
from nnunetv2_lngswr.experiments import demo
from nnunetv2_lngswr.experiments.demo import BUDGETS, MARKER, run_demo, shrink_plans
from nnunetv2_lngswr.utils.processes import beside_python


def planned(kind: str) -> dict:
    """Plans as nnU-Net's planner writes them for the phantom, as far as the demo reads them."""
    d = int(kind[0])
    stages = {2: 6, 3: 4}[d]
    arch = {
        "n_stages": stages,
        "features_per_stage": [min(32 * 2**s, 512) for s in range(stages)],
        "conv_op": f"torch.nn.modules.conv.Conv{d}d",
        "kernel_sizes": [[3] * d] * stages,
        "strides": [[1] * d] + [[2] * d] * (stages - 1),
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{d}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    configuration = {
        "data_identifier": "nnUNetPlans_x",
        "batch_size": 40,
        "patch_size": [128, 160][:d] if d == 2 else [40, 48, 48],
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": arch,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return {
        "plans_name": "nnUNetPlans",
        "configurations": {BUDGETS[kind].configuration: configuration},
    }


@pytest.mark.parametrize("kind", sorted(BUDGETS))
def test_shrunk_plans_are_a_copy_under_another_name(kind):
    plans = planned(kind)
    before = copy.deepcopy(plans)
    shrunk = shrink_plans(plans, BUDGETS[kind])
    assert plans == before
    # the results folder carries the name, and the preprocessed data are found by the identifier
    assert shrunk["plans_name"] != plans["plans_name"]
    configuration = shrunk["configurations"][BUDGETS[kind].configuration]
    assert configuration["data_identifier"] == "nnUNetPlans_x"
    assert (
        configuration["lngswr"] == BUDGETS[kind].entry
        and configuration["lngswr"] is not BUDGETS[kind].entry
    )


@pytest.mark.parametrize("kind", sorted(BUDGETS))
def test_the_trainers_take_the_shrunk_plans(kind):
    import torch
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunetv2_lngswr.trainers import nnUNetTrainerLNGSWR
    from nnunetv2_lngswr.training.settings import read_settings

    manager = PlansManager(shrink_plans(planned(kind), BUDGETS[kind]))
    configuration = manager.get_configuration(BUDGETS[kind].configuration)
    settings = read_settings(configuration.configuration).run
    assert settings.num_epochs == BUDGETS[kind].entry["num_epochs"] and settings.seed == 0
    network = nnUNetTrainerLNGSWR.build_network_architecture(
        manager, configuration, 1, 2, False
    ).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 1, *configuration.patch_size)).shape == (
            1,
            2,
            *configuration.patch_size,
        )
    assert sum(p.numel() for p in network.parameters()) < 2_000_000


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(demo, "trainers_are_found", lambda: True)


@pytest.fixture
def commands(monkeypatch, registered):
    """Runs the chain without nnU-Net: records each command, and leaves behind what the next step reads."""
    ran = []

    def command(chain, name, command, show=""):
        ran.append([str(part) for part in command])
        places = chain.places
        if name == "preprocess":
            places.preprocessed.mkdir(parents=True)
            (places.preprocessed / "nnUNetPlans.json").write_text(json.dumps(planned(chain.kind)))
        if name == "evaluate":
            ending = PHANTOM_SETS[chain.kind].file_ending
            places.predictions.mkdir(parents=True)
            metrics = []
            for label in sorted((places.raw / "labelsTs").iterdir()):
                (places.predictions / label.name).write_bytes(label.read_bytes())
                metrics.append(
                    {
                        "prediction_file": str(places.predictions / label.name),
                        "metrics": {"1": {"Dice": 0.5}},
                    }
                )
            assert all(m["prediction_file"].endswith(ending) for m in metrics)
            (places.predictions / "summary.json").write_text(
                json.dumps({"metric_per_case": metrics, "foreground_mean": {"Dice": 0.5}})
            )

    monkeypatch.setattr(demo._Chain, "_command", command)
    return ran


NAMES = [
    "nnUNetv2_plan_and_preprocess",
    "nnUNetv2_train",
    "nnUNetv2_predict",
    "nnUNetv2_evaluate_folder",
    "lngswr",
]


@pytest.mark.parametrize("sets", [["2d"], ["3d"], ["2d", "3d"]])
def test_the_chain_is_nnunets_own_commands_and_ends_with_table_and_picture(
    tmp_path, commands, sets
):
    said = []
    output = run_demo(tmp_path / "out", sets, say=said.append)
    assert [c[0] for c in commands] == NAMES * len(sets)
    for kind in sets:
        preprocessed = output / "nnUNet_preprocessed" / PHANTOM_SETS[kind].dataset_name
        raw = output / "nnUNet_raw" / PHANTOM_SETS[kind].dataset_name
        assert (preprocessed / "splits_final.json").read_bytes() == (
            raw / "splits_final.json"
        ).read_bytes()
        assert (
            json.loads((preprocessed / "lngswrDemoPlans.json").read_text())["plans_name"]
            == "lngswrDemoPlans"
        )
    table = [line for line in said if line.endswith("  0.500")]
    assert len(table) == sum(
        len(list((output / "nnUNet_raw" / PHANTOM_SETS[k].dataset_name / "labelsTs").iterdir())) + 1
        for k in sets
    )
    assert (output / "overlay.png").read_bytes().startswith(b"\x89PNG")


def test_finished_steps_are_skipped_and_overwrite_starts_over(tmp_path, commands):
    run_demo(tmp_path / "out", ["3d"])
    commands.clear()
    run_demo(tmp_path / "out", ["3d"])
    assert commands == []
    run_demo(tmp_path / "out", ["3d"], overwrite=True)
    assert [c[0] for c in commands] == NAMES


def test_an_interrupted_training_goes_on(tmp_path, commands, monkeypatch):
    record = demo._Chain._command

    def interrupted(chain, name, command, show=""):
        record(chain, name, command, show)
        if name == "train" and "--c" not in command:
            chain.places.fold.mkdir(parents=True)
            (chain.places.fold / "checkpoint_latest.pth").touch()
            raise KeyboardInterrupt

    monkeypatch.setattr(demo._Chain, "_command", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_demo(tmp_path / "out", ["3d"])
    assert "--c" not in commands[-1]
    commands.clear()
    run_demo(tmp_path / "out", ["3d"])
    assert [c[0] for c in commands] == NAMES[1:] and "--c" in commands[0]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_foreign_folder_is_never_touched(tmp_path, commands, overwrite):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="is no demo folder"):
        run_demo(tmp_path, overwrite=overwrite)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"] and commands == []


def test_other_settings_need_overwrite(tmp_path, commands):
    run_demo(tmp_path / "out", ["3d"])
    with pytest.raises(ValueError, match="--overwrite"):
        run_demo(tmp_path / "out", ["3d"], "cuda")
    assert json.loads((tmp_path / "out" / MARKER).read_text())["device"] == "cpu"


def test_bad_input_leaves_nothing(tmp_path, monkeypatch, registered):
    with pytest.raises(ValueError, match="one or more of 2d, 3d, got 4d"):
        run_demo(tmp_path / "out", ["4d"])
    monkeypatch.setattr(demo, "trainers_are_found", lambda: False)
    with pytest.raises(ValueError, match="lngswr register"):
        run_demo(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def chain(tmp_path, say=lambda line: None):
    return demo._Chain("2d", tmp_path, "cpu", say)


def test_a_failing_command_is_told_with_its_last_lines_and_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "nnunetv2_lngswr.utils.processes.beside_python", lambda name: sys.executable
    )
    code = "import sys\nfor i in range(40): print('line', i)\nsys.exit(3)"
    with pytest.raises(ValueError, match=r"exit status 3") as caught:
        chain(tmp_path)._command("train", ["nnUNetv2_train", "-c", code])
    assert "line 39" in str(caught.value) and "line 5\n" not in str(caught.value)
    log = tmp_path / "logs" / "2d_train.log"
    assert str(log) in str(caught.value) and log.read_text().startswith("line 0")


def test_a_command_runs_with_the_demos_folders_and_leaves_the_environment_alone(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "nnunetv2_lngswr.utils.processes.beside_python", lambda name: sys.executable
    )
    monkeypatch.setenv("nnUNet_raw", "/users/own")
    before = dict(os.environ)
    said = []
    code = "import os; print('Epoch 3'); print(os.environ['nnUNet_raw']); print('raw', os.environ['nnUNet_raw'])"
    chain(tmp_path, said.append)._command("train", ["python", "-c", code], show="Epoch|^raw ")
    assert said[1:] == ["    Epoch 3", f"    raw {tmp_path / 'nnUNet_raw'}"]
    assert dict(os.environ) == before


def test_commands_are_those_of_this_environment():
    assert Path(beside_python("pip")).parent == Path(sys.executable).parent
    with pytest.raises(ValueError, match="no_such_command"):
        beside_python("no_such_command")


def test_an_empty_prediction_is_drawn(tmp_path, commands):
    output = run_demo(tmp_path / "out", ["2d"])
    import SimpleITK as sitk

    for path in (output / "predictions" / "Dataset901_PhantomThyroid").glob("*.png"):
        image = sitk.ReadImage(str(path))
        sitk.WriteImage(image * 0, str(path))
    assert demo.draw_overlays(output, ["2d"]).is_file()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_whole_chain(tmp_path):
    """Needs `lngswr register` in this environment; about five minutes on two free cores."""
    output = run_demo(tmp_path / "out", say=print)
    for kind in BUDGETS:
        name = PHANTOM_SETS[kind].dataset_name
        summary = json.loads((output / "predictions" / name / "summary.json").read_text())
        assert summary["foreground_mean"]["Dice"] > 0.3, kind
        assert (output / "robustness" / name / "cases.csv").is_file()
    assert (
        write_phantom("2d", output / "nnUNet_raw")
        == output / "nnUNet_raw" / PHANTOM_SETS["2d"].dataset_name
    )
