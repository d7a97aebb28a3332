"""The trainers on a tiny data set: settings, seed, optimiser, checkpoints, resuming, what they leave in the folder."""

import inspect
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.noise import gaussian_blur
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_lngswr import trainers
from nnunetv2_lngswr.method.network import find_lngswr
from nnunetv2_lngswr.trainers import (
    nnUNetTrainerLNG,
    nnUNetTrainerLNGSWR,
    nnUNetTrainerSWR,
    nnUNetTrainerVanilla,
    nnUNetTrainerVanillaDA5,
)
from tests import tiny_dataset

SHORT = {
    "num_epochs": 2,
    "num_iterations_per_epoch": 2,
    "num_val_iterations_per_epoch": 1,
    "seed": 0,
}
IDENTITY = {"noise_sigma_input": 0.0, "noise_sigma_stages": 0.0, "gains": [1.0, 1.0, 1.0]}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    return root, tiny_dataset.make_dataset(root)


@pytest.fixture
def plans(dataset, monkeypatch, tmp_path):
    root, plans = dataset
    tiny_dataset.use(monkeypatch, root)
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    return plans


def weights(trainer):
    return {k: v.clone() for k, v in trainer._bare_network().state_dict().items()}


def steps(trainer, n):
    """n training steps on nnU-Net's own batches; returns the losses."""
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    return [float(trainer.train_step(next(trainer.dataloader_train))["loss"]) for _ in range(n)]


def test_every_name_has_its_short_budgets_and_nnunets_signature():
    for name in ("LNGSWR", "LNG", "SWR", "Vanilla", "VanillaDA5", "AT", "LNGSWRAT"):
        assert getattr(trainers, f"nnUNetTrainer{name}").epochs is None
        for suffix, epochs in (
            ("_1epoch", 1),
            ("_5epochs", 5),
            ("_10epochs", 10),
            ("_250epochs", 250),
        ):
            assert getattr(trainers, f"nnUNetTrainer{name}{suffix}").epochs == epochs
    for name in trainers.__all__:
        cls = getattr(trainers, name)
        assert issubclass(cls, nnUNetTrainer) and cls.__name__ == name
        assert list(inspect.signature(cls.__init__).parameters) == list(
            inspect.signature(nnUNetTrainer.__init__).parameters
        )


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


def test_vanilla_is_nnunets_own_network(plans):
    for cls in (nnUNetTrainerVanilla, nnUNetTrainerVanillaDA5):
        trainer = tiny_dataset.make_trainer(cls, plans, entry=SHORT)
        trainer.initialize()
        assert find_lngswr(trainer.network) is None
        assert (
            cls.train_step is nnUNetTrainer.train_step
            and cls.build_network_architecture is nnUNetTrainer.build_network_architecture
        )


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


@pytest.mark.parametrize("cls, has_noise, has_reconstruction", [
    (nnUNetTrainerLNGSWR, True, True), (nnUNetTrainerLNG, True, False), (nnUNetTrainerSWR, False, True),
])  # fmt: skip
def test_ablations_are_what_they_are_called(plans, cls, has_noise, has_reconstruction):
    trainer = tiny_dataset.make_trainer(cls, plans)
    trainer.initialize()
    branches = dict(trainer.lngswr.branches())
    assert {b.noise is not None for b in branches.values()} == {has_noise}
    assert {b.reconstruction is not None for n, b in branches.items() if n != "stage 2"} == {
        has_reconstruction
    }
    assert branches["stage 2"].reconstruction is None  # the bottleneck


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


def test_misspelt_key_is_refused_before_any_folder_is_made(plans):
    with pytest.raises(
        ValueError,
        match='unknown key "nois_sigma_input" in "lngswr"; did you mean noise_sigma_input',
    ):
        tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry={"nois_sigma_input": 1})
    assert not Path(os.environ["nnUNet_results"]).exists()


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


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory):
    """A finished LNG-SWR training of two epochs."""
    results = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        tiny_dataset.use(patch, dataset[0])
        patch.setenv("nnUNet_results", str(results))
        trainer = tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, dataset[1], entry=SHORT)
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


def test_continuing_restores_priors_gates_and_history(finished, dataset, monkeypatch):
    tiny_dataset.use(monkeypatch, dataset[0])
    trainer = tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, dataset[1], entry=SHORT)
    trainer.load_checkpoint(str(Path(finished.output_folder) / "checkpoint_final.pth"))
    expected, found = weights(finished), weights(trainer)
    assert expected.keys() == found.keys() and all(
        torch.equal(expected[k], found[k]) for k in expected
    )
    assert any(k.endswith("prior.energy") for k in found) and any(
        k.endswith("theta") for k in found
    )


class Killed(Exception):
    pass


def test_a_continued_run_ends_where_an_uninterrupted_one_ends(plans, finished):
    trainer = tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry=SHORT)
    begin = trainer.on_epoch_start

    def killed_in_the_second_epoch():
        if trainer.current_epoch == 1:
            raise Killed
        begin()

    trainer.on_epoch_start = killed_in_the_second_epoch
    with pytest.raises(Killed):
        trainer.run_training()
    continued = tiny_dataset.make_trainer(nnUNetTrainerLNGSWR, plans, entry=SHORT)
    continued.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    continued.run_training()
    expected, found = weights(finished), weights(continued)
    assert all(torch.equal(expected[k], found[k]) for k in expected)
    assert continued._history == finished._history


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
