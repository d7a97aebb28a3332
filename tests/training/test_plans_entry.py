"""What the entry of the plans does: budget, seed, what is refused, settings that travel."""

import json
import os
import warnings
from pathlib import Path

import pytest
import torch
from batchgeneratorsv2.transforms.noise import gaussian_blur
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_lngswr import trainers
from nnunetv2_lngswr.method.network import find_lngswr
from nnunetv2_lngswr.trainers import (
    nnUNetTrainerAT,
    nnUNetTrainerLNGSWR,
    nnUNetTrainerLNGSWRAT,
    nnUNetTrainerVanilla,
    nnUNetTrainerVanillaDA5,
)
from nnunetv2_lngswr.training import plans_entry
from nnunetv2_lngswr.utils.checkpoints import load_checkpoint
from nnunetv2_lngswr.utils.errors import UserError
from tests import tiny_dataset
from tests.training.tiny_training import SHORT, steps, weights


def test_budget_comes_from_the_entry_then_the_name_then_nnunet(plans):
    assert tiny_dataset.make_trainer(trainers.nnUNetTrainerLNGSWR_5epochs, plans).num_epochs == 5
    assert tiny_dataset.make_trainer(nnUNetTrainerVanilla, plans).num_epochs == 1000
    trainer = tiny_dataset.make_trainer(
        trainers.nnUNetTrainerVanilla_5epochs, plans, entry={**SHORT, "num_epochs": 3}
    )
    assert (
        trainer.num_epochs,
        trainer.num_iterations_per_epoch,
        trainer.num_val_iterations_per_epoch,
    ) == (3, 2, 1)


@pytest.mark.parametrize("epochs", [1, 7, 20, 1000])
def test_latest_checkpoint_comes_at_least_every_tenth_of_the_budget(plans, epochs):
    trainer = tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry={"num_epochs": epochs})
    assert 1 <= trainer.save_every <= max(1, epochs / 10)


@pytest.mark.parametrize("cls", [nnUNetTrainerVanilla, nnUNetTrainerLNGSWR])
def test_same_seed_same_weights_and_other_seed_other_weights(plans, cls):
    runs = []
    for seed in (0, 0, 1):
        trainer = tiny_dataset.make_trainer(
            cls, {**plans, "plans_name": f"p{seed}"}, entry={**SHORT, "seed": seed}
        )
        steps(trainer, 3)
        runs.append(weights(trainer))
    assert all(torch.equal(runs[0][k], runs[1][k]) for k in runs[0])
    assert any(not torch.equal(runs[0][k], runs[2][k]) for k in runs[0])


@pytest.mark.parametrize("cls", [nnUNetTrainerVanilla, nnUNetTrainerVanillaDA5])
def test_a_seeded_run_does_not_depend_on_a_stopwatch(plans, cls, monkeypatch):
    blurs, blur_dimension = [], gaussian_blur.blur_dimension
    monkeypatch.setattr(
        gaussian_blur, "blur_dimension", lambda *a, **k: blurs.append(1) or blur_dimension(*a, **k)
    )
    monkeypatch.setattr(gaussian_blur, "time", lambda: pytest.fail("the blur was timed"))
    trainer = tiny_dataset.make_trainer(cls, plans, entry=SHORT)
    trainer.initialize()
    loader = trainer.get_dataloaders()[0]
    for _ in range(20):
        next(loader)
    assert blurs


def test_misspelt_key_is_refused_before_any_folder_is_made(plans):
    with pytest.raises(
        ValueError,
        match='unknown key "nois_sigma_input" in "lngswr"; did you mean noise_sigma_input',
    ):
        tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry={"nois_sigma_input": 1})
    assert not Path(os.environ["nnUNet_results"]).exists()


@pytest.mark.parametrize("cls", [nnUNetTrainerVanilla, nnUNetTrainerLNGSWR])
def test_a_stride_larger_than_the_patch_is_refused_before_any_folder_is_made(plans, cls):
    patch = plans["configurations"]["2d"]["patch_size"]
    with pytest.raises(
        UserError,
        match='plans: "lngswr": noise_max_stride must be at most .* along the patch of '
        f"{patch[0]} x {patch[1]} voxels, got 1024",
    ):
        tiny_dataset.make_trainer(cls, plans, entry={"noise_max_stride": 1024})
    assert not Path(os.environ["nnUNet_results"]).exists()


def test_noise_of_the_objects_size_trains_and_stays_with_the_checkpoint(plans):
    entry = {**SHORT, "seed": 0, "noise_max_stride": 16, "noise_random_grid": True}
    trainer = tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry=entry)
    steps(trainer, 2)
    noise = trainer.lngswr.image.noise
    assert noise.scales[-1] == (16, 16) and noise.random_grid
    path = Path(trainer.output_folder) / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(path))
    saved = load_checkpoint(path)["init_args"]["plans"]["configurations"]["2d"]["lngswr"]
    assert saved["noise_max_stride"] == 16 and saved["noise_random_grid"] is True

    trainer.on_train_start()
    tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry=entry).on_train_start()
    for other in ({**entry, "noise_max_stride": 8}, {**entry, "noise_random_grid": False}):
        with pytest.raises(UserError, match='holds another "lngswr" entry'):
            tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry=other).on_train_start()


def test_a_results_folder_from_before_the_settings_of_strides_and_grid_is_continued(plans):
    trainer = tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry=SHORT)
    trainer.on_train_start()
    path = Path(trainer.output_folder_base) / "plans.json"
    saved = json.loads(path.read_text())
    entry = saved["configurations"]["2d"]["lngswr"]
    assert entry.pop("noise_max_stride") is None and entry.pop("noise_random_grid") is False
    path.write_text(json.dumps(saved))
    tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry=SHORT).on_train_start()


def test_the_callers_plans_stay_as_they_were(plans):
    entry = dict(SHORT)
    before = json.dumps(plans)
    tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry=entry).initialize()
    assert json.dumps(plans) == before and entry == SHORT


def test_settings_travel_with_the_model_folder_and_another_entry_is_refused(plans):
    trainer = tiny_dataset.make_trainer(
        nnUNetTrainerLNGSWR, plans, entry={**SHORT, "gains": [0.5, 0.1]}
    )
    trainer.on_train_start()
    saved = json.loads((Path(trainer.output_folder_base) / "plans.json").read_text())[
        "configurations"
    ]["2d"]["lngswr"]
    assert (
        saved["gains"] == [0.5, 0.1]
        and saved["noise_sigma_input"] == nnUNetTrainerLNGSWR.method.noise_sigma_input
    )
    tiny_dataset.make_trainer(
        nnUNetTrainerLNGSWR, plans, entry={**SHORT, "gains": [0.5, 0.1]}
    ).on_train_start()
    other = tiny_dataset.make_trainer(
        nnUNetTrainerLNGSWR, plans, entry={**SHORT, "gains": [0.4, 0.1]}
    )
    with pytest.raises(ValueError, match='holds another "lngswr" entry.*plans_name'):
        other.on_train_start()


def test_failed_save_leaves_the_old_checkpoint(plans, monkeypatch):
    trainer = tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry=SHORT)
    trainer.initialize()
    path = Path(trainer.output_folder) / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(path))
    before = path.read_bytes()

    def half_written(_, filename):
        Path(filename).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", half_written)
    with pytest.raises(OSError, match="No space left"):
        trainer.save_checkpoint(str(path))
    assert path.read_bytes() == before and sorted(p.name for p in path.parent.glob("*.pth")) == [
        path.name
    ]


def test_settings_are_parsed_once_per_trainer_and_once_per_network(plans, monkeypatch):
    calls, own = [], plans_entry.read_settings
    monkeypatch.setattr(
        plans_entry, "read_settings", lambda *a, **k: calls.append(1) or own(*a, **k)
    )
    trainer = tiny_dataset.make_trainer(nnUNetTrainerLNGSWRAT, plans, entry=SHORT)
    assert len(calls) == 1
    trainer.initialize()
    assert len(calls) == 2
    steps(trainer, 2)
    trainer.validation_step(next(trainer.dataloader_val))
    assert len(calls) == 2


# --- plans and folders of earlier versions


OLD = {"learned": False, "start": 0.5}
"""Keys that have other names now."""


def test_new_plans_hold_the_new_names(plans):
    with pytest.warns(FutureWarning, match="is called"):
        trainer = tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry={**SHORT, **OLD})
    assert not trainer.settings.method.learn_gates and trainer.settings.method.gate_init == 0.5
    trainer.on_train_start()
    saved = written_entry(trainer)
    assert saved["learn_gates"] is False and saved["gate_init"] == 0.5
    assert not OLD.keys() & saved.keys()


def test_a_start_that_has_strayed_out_of_adversarial_is_refused(plans):
    for cls in (nnUNetTrainerAT, nnUNetTrainerLNGSWRAT):
        with pytest.raises(UserError, match=r'"adversarial": {"start": 0.8}.*got "start": 0.8'):
            tiny_dataset.make_trainer(cls, plans, entry={**SHORT, "start": 0.8})


def test_what_the_entry_says_of_another_trainers_part_is_checked(plans):
    for cls in (nnUNetTrainerLNGSWR, nnUNetTrainerVanilla):
        with pytest.raises(UserError, match='"adversarial": epsilon must be'):
            tiny_dataset.make_trainer(cls, plans, entry={**SHORT, "adversarial": {"epsilon": 99}})


@pytest.mark.parametrize("cls", [nnUNetTrainerLNGSWR, nnUNetTrainerVanilla])
def test_a_results_folder_with_the_old_names_is_the_same(plans, cls):
    entry = {**SHORT, "learn_gates": False, "gate_init": 0.5}
    trainer = tiny_dataset.make_trainer(cls, plans, entry=entry)
    trainer.on_train_start()
    path = Path(trainer.output_folder_base) / "plans.json"
    text = path.read_text().replace("learn_gates", "learned").replace("gate_init", "start")
    path.write_text(text)
    tiny_dataset.make_trainer(cls, plans, entry=entry).on_train_start()
    path.write_text(text.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ValueError, match='holds another "lngswr" entry'):
        tiny_dataset.make_trainer(cls, plans, entry=entry).on_train_start()


def test_a_plans_json_that_another_fold_is_writing_is_waited_for(plans, monkeypatch):
    trainer = tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry=SHORT)
    path = Path(trainer.output_folder_base) / "plans.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = json.dumps(trainer.plans_manager.plans)
    path.write_text(whole[:100])
    monkeypatch.setattr(plans_entry.time, "sleep", lambda _: path.write_text(whole))
    trainer.on_train_start()
    path.write_text(whole[:100])
    monkeypatch.setattr(plans_entry.time, "sleep", lambda _: None)
    with pytest.raises(UserError, match="plans.json is not readable .*; remove it"):
        tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry=SHORT).on_train_start()
    assert path.read_text() == whole[:100]


@pytest.mark.parametrize("cls", [nnUNetTrainerLNGSWR, nnUNetTrainerVanilla])
def test_an_entry_beside_the_configurations_is_refused(plans, cls):
    with pytest.raises(UserError, match='no effect .*"configurations": {"2d": {"lngswr": ...}}'):
        tiny_dataset.make_trainer(cls, {**plans, "lngswr": SHORT})


def test_a_configuration_beside_the_configurations_is_refused(plans):
    """As a block of the manual is pasted: nnU-Net would not see it."""
    with pytest.raises(UserError, match='"2d" has no effect beside "configurations"'):
        tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, {**plans, "2d": {"lngswr": SHORT}})


def test_prediction_from_a_folder_with_the_old_names_says_nothing(plans):
    plans = json.loads(json.dumps(plans))
    plans["configurations"]["2d"]["lngswr"] = OLD
    manager = PlansManager(plans)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        network = nnUNetTrainerLNGSWR.build_network_architecture(
            manager, manager.get_configuration("2d"), 1, 2, False
        )
    gates = [v for k, v in network.state_dict().items() if k.endswith("reconstruction.theta")]
    assert gates and all(torch.equal(v * 16, torch.full_like(v, 0.5)) for v in gates)
    assert not find_lngswr(network).gate_parameters()


def test_the_keys_of_the_state_dict_are_a_file_format(plans):
    trainer = tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans)
    trainer.initialize()
    prefix = "encoder.lngswr."  # nnU-Net's decoder holds the encoder too
    own = [k.removeprefix(prefix) for k in weights(trainer) if k.startswith(prefix)]
    prior = ["prior.energy", "prior.variance", "prior.steps"]
    with_gates = [*prior, "reconstruction.theta"]
    expected = [f"image.{k}" for k in with_gates]
    expected += [f"stages.{s}.{k}" for s in (0, 1) for k in with_gates]
    assert sorted(own) == sorted(expected + [f"stages.2.{k}" for k in prior])


def written_entry(trainer) -> dict:
    plans = json.loads((Path(trainer.output_folder_base) / "plans.json").read_text())
    return plans["configurations"]["2d"]["lngswr"]
