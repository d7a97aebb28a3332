"""LNG-SWR in training: ramp, gates, prior, what is left in the folder, prediction, continuing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_lngswr import trainers
from nnunetv2_lngswr.trainers import nnUNetTrainerLNGSWR, nnUNetTrainerVanilla
from tests import tiny_dataset
from tests.training.tiny_training import SHORT, Killed, interrupt_second_epoch, steps, weights

IDENTITY = {"noise_sigma_input": 0.0, "noise_sigma_stages": 0.0, "gains": [1.0, 1.0, 1.0]}


def test_sigma_zero_and_identity_gains_follow_vanilla_for_ten_steps(plans):
    vanilla = tiny_dataset.make_trainer(nnUNetTrainerVanilla, plans, entry=SHORT)
    ours = tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry={**SHORT, **IDENTITY})
    assert np.allclose(steps(vanilla, 10), steps(ours, 10), rtol=1e-5)
    expected, found = weights(vanilla), weights(ours)
    for key, value in expected.items():
        assert torch.allclose(found[key], value, atol=1e-5), key


def test_noise_grows_over_the_ramp_and_stays(plans, monkeypatch):
    entry = {**SHORT, "num_epochs": 8, "noise_ramp_up": 0.5, "noise_random_amplitude": False}
    trainer = tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry=entry)
    trainer.initialize()
    trainer.on_train_start()
    x, found = torch.randn(2, 1, 64, 64), []
    monkeypatch.setattr(
        nnUNetTrainer,
        "train_step",
        lambda self, batch: found.append(float((noise(x) - x).std() / x.std())),
    )
    noise = trainer.lngswr.image.noise.train()
    for trainer.current_epoch in range(8):
        trainer.on_train_epoch_start()
        for _ in range(2):
            trainer.train_step({})
    assert found == pytest.approx([*np.arange(1, 9) / 8, *[1] * 8], abs=0.05)
    assert not any("strength" in key for key in trainer.network.state_dict())


@pytest.mark.parametrize("gate", [1.0, 0.0])
def test_gates_move_under_nnunets_optimiser_and_stay_in_their_interval(plans, gate):
    entry = {**SHORT, "gate_init": gate}
    trainer = tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry=entry)
    steps(trainer, 10)
    for theta in trainer.lngswr.gate_parameters():
        gates = theta.detach() * 16
        assert (gates - gate).abs().max() > 1e-3
        assert gates.min() >= 0 and gates.max() <= 1


def test_gates_are_free_of_weight_decay_and_keep_the_schedule(plans):
    trainer = tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry=SHORT)
    trainer.initialize()
    body, gates = trainer.optimizer.param_groups
    assert body["weight_decay"] == 3e-5 and gates["weight_decay"] == 0
    assert {id(p) for p in gates["params"]} == {id(p) for p in trainer.lngswr.gate_parameters()}
    n = len(list(trainer.network.parameters()))
    assert len(body["params"]) + len(gates["params"]) == n
    trainer.lr_scheduler.step(1)
    assert body["lr"] == gates["lr"]


def test_prior_is_updated_once_per_step_and_not_in_validation(plans):
    trainer = tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry=SHORT)
    steps(trainer, 3)
    assert {int(b.prior.steps) for _, b in trainer.lngswr.branches()} == {3}
    trainer.network.eval()
    with torch.no_grad():
        trainer.validation_step(next(trainer.dataloader_val))
    trainer.lngswr.commit_priors()
    assert {int(b.prior.steps) for _, b in trainer.lngswr.branches()} == {3}


@pytest.fixture(scope="module")
def finished(tiny_data, tmp_path_factory):
    """A finished LNG-SWR training of two epochs."""
    results = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        root, plans = tiny_data(2)
        tiny_dataset.use(patch, root)
        patch.setenv("nnUNet_results", str(results))
        trainer = tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry=SHORT)
        trainer.run_training()
    return trainer


def test_training_leaves_checkpoints_log_history_and_picture(finished):
    folder = Path(finished.output_folder)
    names = {p.name for p in folder.iterdir()}
    assert {
        "checkpoint_final.pth",
        "checkpoint_best.pth",
        "progress.png",
        "lngswr.png",
        "lngswr.json",
    } <= names
    assert not [n for n in names if "partial" in n]
    log = next(folder.glob("training_log*.txt")).read_text()
    assert "LNG-SWR input ['LL', 'LH', 'HL', 'HH']: prior" in log and "gain" in log
    history = json.loads((folder / "lngswr.json").read_text())
    assert [entry["epoch"] for entry in history] == [0, 1]
    assert set(history[0]["branches"]) == {"input", "stage 0", "stage 1", "stage 2"}


def test_prediction_rebuilds_the_network_from_the_model_folder_alone(finished, rng):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        device=torch.device("cpu"), perform_everything_on_device=False, use_mirroring=False
    )
    with pytest.MonkeyPatch.context() as patch:
        # found by name, as after `lngswr register`, without touching the installed nnU-Net
        patch.setattr(
            "nnunetv2.inference.predict_from_raw_data.recursive_find_trainer_class_by_name",
            lambda name: getattr(trainers, name),
        )
        predictor.initialize_from_trained_model_folder(finished.output_folder_base, (0,))
    x = torch.randn((1, 1, 16, 16), generator=rng)
    finished.set_deep_supervision_enabled(False)
    with torch.no_grad():
        ours, theirs = finished.network.eval()(x), predictor.network.eval()(x)
    finished.set_deep_supervision_enabled(True)
    assert torch.equal(ours, theirs)


def test_continuing_restores_priors_gates_and_history(finished, plans):
    trainer = tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry=SHORT)
    trainer.load_checkpoint(str(Path(finished.output_folder) / "checkpoint_final.pth"))
    expected, found = weights(finished), weights(trainer)
    assert expected.keys() == found.keys() and all(
        torch.equal(expected[k], found[k]) for k in expected
    )
    assert any(k.endswith("prior.energy") for k in found) and any(
        k.endswith("theta") for k in found
    )


def test_a_continued_run_ends_where_an_uninterrupted_one_ends(plans, finished):
    trainer = tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry=SHORT)
    interrupt_second_epoch(trainer)
    with pytest.raises(Killed):
        trainer.run_training()
    continued = tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry=SHORT)
    continued.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    continued.run_training()
    expected, found = weights(finished), weights(continued)
    assert all(torch.equal(expected[k], found[k]) for k in expected)
    assert continued._history == finished._history
