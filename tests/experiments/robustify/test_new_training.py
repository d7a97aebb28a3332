"""What the new training is told and starts from: plans, budget, trainer, weights."""

import dataclasses
import json

import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_lngswr.attacks import BatchModel, Bounds, LabelSpace, ThreatModel
from nnunetv2_lngswr.experiments.robustify.given_model import read_model
from nnunetv2_lngswr.experiments.robustify.new_plans import (
    LAST_PHASE,
    choose_trainer,
    entry_of,
    make_plans,
    new_budget,
    short_curve,
)
from nnunetv2_lngswr.experiments.robustify.options import TRAINERS, Options
from nnunetv2_lngswr.experiments.robustify.start import make_start
from nnunetv2_lngswr.method.network import find_lngswr
from nnunetv2_lngswr.trainers import nnUNetTrainerAT, nnUNetTrainerLNGSWRAT
from nnunetv2_lngswr.training.robust_curve import STRONG, curve_attacks
from nnunetv2_lngswr.training.settings import ATConfig
from nnunetv2_lngswr.utils.checkpoints import load_checkpoint, save_checkpoint
from nnunetv2_lngswr.utils.errors import UserError
from tests import tiny_dataset
from tests.experiments.robustify.given import make_network

LONG = {"num_iterations_per_epoch": 50, "num_val_iterations_per_epoch": 5}
OURS = {"gains": [0.3, 0.2, 0.1], "noise_sigma_input": 0.7, "seed": 5, "num_epochs": 7}


def computes(checkpoint, plans, trainer):
    network = make_network(plans, trainer, seed=9).eval()
    network.load_state_dict(checkpoint["network_weights"])
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return network(x)


@pytest.mark.parametrize("trainer", TRAINERS.values())
@pytest.mark.parametrize("kind", ["plain", "resenc"])
def test_it_starts_with_what_the_vanilla_model_computes(project, tmp_path, kind, trainer):
    _, folder = project(kind=kind)
    model = read_model(folder, Options())
    plans = make_plans(model, tmp_path, Options())
    start = make_start(model, 0, plans, trainer, trust=False)
    given = load_checkpoint(folder / "fold_0" / "checkpoint_final.pth")
    expected = computes(given, model.plans, "nnUNetTrainer")
    assert torch.allclose(computes(start, plans, trainer), expected, atol=1e-6)
    # the heads are the model's, which nnU-Net's -pretrained_weights leaves out
    head = "decoder.seg_layers.0.weight"
    assert torch.equal(start["network_weights"][head], given["network_weights"][head])


def test_a_model_of_ours_keeps_its_gates_and_settings(project, tmp_path):
    _, folder = project(trainer="nnUNetTrainerLNGSWR", entry=OURS)
    model = read_model(folder, Options())
    trainer = choose_trainer(model, Options())
    assert trainer == "nnUNetTrainerLNGSWRAT" and model.has_lngswr
    with pytest.raises(UserError, match="has the parts of LNG-SWR .* take nnUNetTrainerLNGSWRAT"):
        choose_trainer(model, Options(trainer="nnUNetTrainerAT"))
    plans = make_plans(model, tmp_path, Options())
    start = make_start(model, 0, plans, trainer, trust=False)["network_weights"]
    given = load_checkpoint(folder / "fold_0" / "checkpoint_final.pth")["network_weights"]
    assert set(start) == set(given) and all(torch.equal(start[k], given[k]) for k in given)
    entry = entry_of(plans, "2d")
    assert entry["gains"] == OURS["gains"] and entry["seed"] == OURS["seed"]
    # strong noise underfits on top of attacks: the trainer's own is milder
    assert "noise_sigma_input" not in entry and entry["num_epochs"] == 5


def measure_priors(folder, model):
    """Give the model's checkpoint the priors that a training leaves."""
    file = folder / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    network = make_network(model.plans, model.trainer, seed=9).train()
    network.load_state_dict(checkpoint["network_weights"])
    lngswr = find_lngswr(network)
    assert lngswr is not None
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        network(x.cumsum(2).cumsum(3))  # as images: most of the energy is in the low band
    lngswr.commit_priors()
    checkpoint["network_weights"] = network.state_dict()
    torch.save(checkpoint, file)


@pytest.mark.parametrize(
    ("entry", "noise"),
    [
        ({"gains": "prior"}, {"noise_sigma_input": 1.0, "noise_sigma_stages": 0.5}),
        (
            {"gains": "prior", "noise_sigma_input": 0.1, "noise_sigma_stages": 0.2},
            {"noise_sigma_input": 0.1, "noise_sigma_stages": 0.2},
        ),
        ({"gains": "prior", "prior_sigma": 0.3}, {}),
        ({"gains": "prior", "noise": False}, {}),
        ({"noise_sigma_stages": 0}, {"noise_sigma_stages": 0}),
        ({"noise_sigma_input": 0, "reconstruct_input": False}, {"noise_sigma_input": 0}),
        ({}, {}),
    ],
)
def test_it_starts_with_what_a_model_of_ours_computes(project, tmp_path, entry, noise):
    _, folder = project(trainer="nnUNetTrainerLNGSWR", entry=entry)
    model = read_model(folder, Options())
    measure_priors(folder, model)
    trainer = TRAINERS[True]
    plans = make_plans(model, tmp_path, Options())
    start = make_start(model, 0, plans, trainer, trust=False)
    given = load_checkpoint(folder / "fold_0" / "checkpoint_final.pth")
    expected = computes(given, model.plans, model.trainer)
    assert torch.equal(computes(start, plans, trainer), expected)
    made = entry_of(plans, "2d")
    assert {k: v for k, v in made.items() if k.startswith("noise_sigma")} == noise


def test_kept_amplitudes_inject_no_more_than_the_trainers_own(project, tmp_path):
    _, folder = project(trainer="nnUNetTrainerLNGSWR", entry={"gains": "prior"})
    model, own = read_model(folder, Options()), nnUNetTrainerLNGSWRAT.method
    made = entry_of(make_plans(model, tmp_path, Options()), "2d")
    injected = {k: made["adversarial"]["late_noise"] * v for k, v in made.items() if "sigma" in k}
    assert injected == pytest.approx({"noise_sigma_input": 0.2, "noise_sigma_stages": 0.1})
    assert all(injected[key] <= getattr(own, key) for key in injected)
    # who asks for amplitudes gets them
    asked = Options(settings={"noise_sigma_input": 0.4})
    made = entry_of(make_plans(model, tmp_path, asked), "2d")
    assert made["noise_sigma_input"] == 0.4 and made["adversarial"]["late_noise"] == 1


def test_the_plans_are_the_models_own_but_for_name_and_entry(project, tmp_path):
    _, folder = project()
    model = read_model(folder, Options())
    made = make_plans(
        model, tmp_path, Options(settings={"seed": 3, "adversarial": {"epsilon": "8/255"}})
    )
    entry = made["configurations"]["2d"].pop("lngswr")
    expected = {**LAST_PHASE, "epsilon": "8/255", "val_batches": 1}  # one: epochs are short
    assert entry["adversarial"] == expected and entry["seed"] == 3
    assert made.pop("plans_name") != model.plans["plans_name"]
    assert made == {key: value for key, value in model.plans.items() if key != "plans_name"}
    names = {make_plans(model, place, Options())["plans_name"] for place in (tmp_path, folder)}
    assert len(names) == 2  # two folders of results never share one


def test_the_new_training_hands_nothing_on_to_a_next_stage(project, tmp_path):
    _, folder = project()
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["2d"]["next_stage"] = "3d_cascade_fullres"
    (folder / "plans.json").write_text(json.dumps(plans))
    made = make_plans(read_model(folder, Options()), tmp_path, Options())
    assert PlansManager(made).get_configuration("2d").next_stage_names is None


def test_the_budget_is_a_share_of_the_models_own(project):
    _, folder = project(folds=(0, 1))
    model = read_model(folder, Options())
    iterations = {"num_iterations_per_epoch": 3, "num_val_iterations_per_epoch": 1}
    for share, epochs in ((0.25, 5), (0.5, 10), (1, 20)):
        assert new_budget(model, share) == {"num_epochs": epochs, **iterations}
    # fewer epochs would leave the learning rate no time to decay: they are shorter instead
    model = dataclasses.replace(model, budget={"num_epochs": 20, **LONG})
    for share, length in ((0.1, 20), (0.2, 40), (0.0001, 1)):
        shorter = dict(zip(LONG, (length, max(1, length // 10))))
        assert new_budget(model, share) == {"num_epochs": 5, **shorter}
    debug = folder / "fold_1" / "debug.json"
    debug.write_text(json.dumps(json.loads(debug.read_text()) | {"num_epochs": "40"}))
    assert read_model(folder, Options()).budget["num_epochs"] == 40
    # exports of some versions leave debug.json out: then checkpoint, plans, or nnU-Net's own
    for fold in (0, 1):
        (folder / f"fold_{fold}" / "debug.json").unlink()
    assert read_model(folder, Options()).budget == {
        "num_epochs": 20,
        "num_iterations_per_epoch": 250,
        "num_val_iterations_per_epoch": 50,
    }
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["2d"]["lngswr"] = {"num_epochs": 9, "num_iterations_per_epoch": 30}
    (folder / "plans.json").write_text(json.dumps(plans))
    found = read_model(folder, Options()).budget
    assert found["num_epochs"] == 20 and found["num_iterations_per_epoch"] == 30


def attacked_batches(model, share, **adversarial):
    """What the trainer reads of the new plans."""
    options = Options(share=share, settings={"adversarial": adversarial})
    entry = entry_of(make_plans(model, model.folder, options), "2d")
    return ATConfig(**entry["adversarial"]).val_batches


def test_the_robust_curve_of_a_short_epoch_is_drawn_from_fewer_batches(project):
    _, folder = project()
    model = read_model(folder, Options())
    default = ATConfig().val_batches
    short = dataclasses.replace(model, budget={"num_epochs": 20, **LONG})
    assert attacked_batches(short, 0.1) == 1 < default
    assert attacked_batches(short, 0.1, val_batches=3) == 3  # as was asked for
    whole = {"num_iterations_per_epoch": 250, "num_val_iterations_per_epoch": 50}
    full = dataclasses.replace(model, budget={"num_epochs": 1000, **whole})
    assert attacked_batches(full, 0.1) == default
    assert attacked_batches(full, 0.1, val_steps=50) == 1
    # as many iterations whose attacks cost more, or nothing, before the curve is a tenth of them
    assert attacked_batches(short, 0.5, scheme="pgd") == default
    assert attacked_batches(full, 0.001, scheme="free") == 1


def test_the_curve_of_the_shortest_epoch_that_has_all_batches_costs_a_tenth(trained, monkeypatch):
    counted, real = [], BatchModel.value_and_gradient

    def count(self, *arguments):
        counted.append(1)
        return real(self, *arguments)

    monkeypatch.setattr(BatchModel, "value_and_gradient", count)
    network, x, y = trained[2]
    target = LabelSpace.softmax(2).target(y)
    ball = ThreatModel(norm="linf", epsilon=1e-6).ball(Bounds.of(x))  # nothing to end early for
    for steps in (4, 5, 8):
        at, batches = ATConfig(val_steps=steps), ATConfig.val_batches
        counted.clear()
        for attack in curve_attacks(STRONG, at).values():
            attack(network, x, target, ball, generator=torch.Generator())
        curve = batches * len(counted)
        enough = next(n for n in range(1, 1000) if not short_curve(n, {"val_steps": steps}))
        # a step of training takes a gradient of its attack and one of its own
        assert 2 * (enough - 1) < 10 * curve <= 2 * enough


def test_a_trainer_that_trains_otherwise_is_noted(project):
    _, folder = project()
    model = read_model(folder, Options())
    alike = ("nnUNetTrainer", "nnUNetTrainer_250epochs", "nnUNetTrainerLNGSWRAT_1epoch")
    alike += ("nnUNetTrainerLNGSWRGuided",)
    other = ("nnUNetTrainerNoMirroring", "nnUNetTrainerVanillaDA5", "nnUNetTrainerNoMirroring_x")
    for name in (*alike, *other):
        assert dataclasses.replace(model, trainer=name).trains_otherwise == (name in other)


def test_each_fold_starts_from_its_own_weights(plans, tmp_path):
    entry = {
        "num_epochs": 1,
        "num_iterations_per_epoch": 1,
        "num_val_iterations_per_epoch": 1,
        "warm_start": str(tmp_path / "fold_{fold}.pth"),
    }
    for fold in (0, 1):
        network = make_network(plans, "nnUNetTrainer", seed=fold)
        checkpoint = {
            "network_weights": network.state_dict(),
            "trainer_name": "nnUNetTrainer",
            "init_args": {},
        }
        save_checkpoint(checkpoint, tmp_path / f"fold_{fold}.pth")
    for fold in (0, 1):
        trainer = tiny_dataset.make_trainer(nnUNetTrainerAT, plans, entry=entry, fold=fold)
        trainer.on_train_start()
        expected = make_network(plans, "nnUNetTrainer", seed=fold).state_dict()
        found = trainer._bare_network().state_dict()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_an_lngswr_start_begins_at_the_identity(project, tmp_path):
    _, folder = project()
    model = read_model(folder, Options())
    plans = make_plans(model, tmp_path, Options())
    start = make_start(model, 0, plans, TRAINERS[True], trust=False)
    network = make_network(plans, TRAINERS[True], seed=1)
    network.load_state_dict(start["network_weights"])
    lngswr = find_lngswr(network)
    assert lngswr is not None
    gates = torch.cat([p.flatten() for p in lngswr.gate_parameters()])
    assert len(gates) and not gates.any()
