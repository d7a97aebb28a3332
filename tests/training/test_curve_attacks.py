"""The attacks of the robust curve: which they are, their laws, curves of earlier versions."""

import json

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_lngswr.attacks import BatchModel, LabelSpace, run_attack
from nnunetv2_lngswr.attacks.hard_dice import foreground_dice
from nnunetv2_lngswr.trainers import nnUNetTrainerAT, nnUNetTrainerLNGSWRAT
from nnunetv2_lngswr.training import robust_curve
from nnunetv2_lngswr.training.history import LOGGED
from nnunetv2_lngswr.training.robust_curve import COUNTS, STRONG, curve_attacks
from nnunetv2_lngswr.training.settings import ATConfig
from tests import tiny_dataset
from tests.training.crafting import SPACE, ball_of
from tests.training.tiny_training import (
    FULL,
    SHORT,
    partly_ignored,
    started,
)


@pytest.fixture
def validated_on(monkeypatch):
    """The images that reach nnU-Net's own validation step."""
    seen = []
    own = nnUNetTrainer.validation_step

    def record(self, batch):
        seen.append(batch["data"].detach().clone())
        return own(self, batch)

    monkeypatch.setattr(nnUNetTrainer, "validation_step", record)
    return seen


def validated(trainer, batches):
    """The curve's figures of some validation batches, which stay as they are."""
    trainer.on_validation_epoch_start()
    with torch.no_grad():
        for batch in batches:
            trainer.validation_step({**batch, "target": [t.clone() for t in batch["target"]]})
    return trainer._robust


@pytest.mark.parametrize("dimension", (2, 3))
@pytest.mark.parametrize("norm", ("linf", "l2"))
def test_the_strong_attack_is_apgd_dice_of_the_registry(make, validated_on, dimension, norm):
    settings = {"norm": norm, "val_steps": 4, **FULL}
    trainer = started(make(nnUNetTrainerLNGSWRAT, settings, dimension))
    batch = next(trainer.dataloader_val)
    validated(trainer, [batch])
    expected = run_attack(
        "apgd_dice",
        BatchModel(trainer._bare_network()),
        batch["data"],
        LabelSpace.softmax(2).target(batch["target"][0][:, 0]),
        trainer._ball(batch["data"], batch["keys"], 0.05),
        generator=torch.Generator().manual_seed(0),
        steps=4,
    )
    fgsm, strong, clean = validated_on
    assert torch.equal(strong, expected.perturbed) and torch.equal(clean, batch["data"])
    assert not torch.equal(fgsm, strong)


def test_regions_and_ignored_voxels_are_those_of_the_registrys_attack(
    tmp_path, monkeypatch, validated_on
):
    labels = {"background": 0, "ball": [1, 2], "upper": [2], "ignore": 3}
    plans = tiny_dataset.make_dataset(
        tmp_path, labels=labels, regions_class_order=[1, 2], relabel=partly_ignored
    )
    tiny_dataset.use(monkeypatch, tmp_path)
    preprocessed = tmp_path / "nnUNet_preprocessed" / tiny_dataset.NAME
    dataset = json.loads((preprocessed / "dataset.json").read_text())
    entry = {**SHORT, "adversarial": FULL}
    trainer = started(
        tiny_dataset.make_trainer(nnUNetTrainerAT, plans, entry=entry, dataset=dataset)
    )
    batch = next(trainer.dataloader_val)
    validated(trainer, [batch])
    ball, upper, ignored = batch["target"][0].unbind(1)
    labels = torch.where(upper > 0, 2, torch.where(ball > 0, 1, 0))
    labels = torch.where(ignored > 0, 3, labels)
    assert ((labels == 3).any() and (labels == 2).any()) and (labels == 1).any()
    expected = run_attack(
        "apgd_dice",
        BatchModel(trainer._bare_network()),
        batch["data"],
        LabelSpace(heads=((1, 2), (2,)), regions=True, ignore_label=3).target(labels),
        trainer._ball(batch["data"], batch["keys"], 0.05),
        generator=torch.Generator().manual_seed(0),
        steps=5,
    )
    assert torch.equal(validated_on[1], expected.perturbed)


@pytest.mark.parametrize("dimension", (2, 3))
@pytest.mark.parametrize("epsilon", (0.1, 0.2))
def test_strong_dice_of_a_trained_network_is_not_above_fgsms(trained, dimension, epsilon):
    dice = attacked_dice(*trained[dimension], epsilon)
    assert (dice["strong"] <= dice["fgsm"] + 1e-6).all() and (dice["fgsm"] <= dice["clean"]).all()
    assert dice["strong"].mean() < dice["fgsm"].mean() - 0.1 * epsilon


def attacked_dice(network, x, y, epsilon, **more):
    """{attack of the curve: Dice of each sample (B,)}, and "clean"."""
    target, ball = SPACE.target(y), ball_of(x, epsilon=epsilon)
    found = {"clean": x}
    for name, attack in curve_attacks(STRONG, ATConfig()).items():
        generator = torch.Generator().manual_seed(0)
        found[name] = attack(network, x, target, ball, generator=generator, **more)
        assert (found[name] - x).abs().amax() <= epsilon * (x.max() - x.min()) * (1 + 1e-5)
    return {k: foreground_dice(BatchModel(network).logits(v), target) for k, v in found.items()}


def test_strong_attack_in_mixed_precision_is_as_strong(trained):
    network, x, y = trained[2]
    full, half = (
        attacked_dice(network, x, y, 0.1, **more) for more in ({}, {"autocast": torch.bfloat16})
    )
    assert abs(full["strong"].mean() - half["strong"].mean()) < 0.05


def test_the_curve_is_the_same_each_time_and_leaves_the_random_streams_alone(make):
    trainer = started(make(nnUNetTrainerLNGSWRAT, {"val_batches": 2, **FULL}))
    kept = [next(trainer.dataloader_val) for _ in range(2)]
    figures = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        streams = [torch.default_generator, trainer._starts, trainer._choice]
        before = [stream.get_state() for stream in streams]
        robust = validated(trainer, kept)
        assert all(torch.equal(b, s.get_state()) for b, s in zip(before, streams))
        assert len(robust) == 2
        figures.append(
            [[r[name][c].tolist() for c in COUNTS] for r in robust for name in ("fgsm", "strong")]
        )
    assert figures[0] == figures[1]


def test_a_curve_that_an_earlier_version_began_stays_with_pgd(make, tmp_path):
    settings = {"scheme": "pgd", "val_steps": 4, "val_batches": 1, **FULL}
    earlier = started(make(nnUNetTrainerAT, settings))
    for values in earlier._logged.values():
        values[:] = [0.5]
    del earlier._logged["robust_attack"]  # which is all that it lacks
    earlier.save_checkpoint(str(tmp_path / "earlier.pth"))

    trainer = make(nnUNetTrainerAT, settings)
    trainer.load_checkpoint(str(tmp_path / "earlier.pth"))
    started(trainer)
    trainer.on_epoch_start()
    crafted, own = [], robust_curve.craft
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(robust_curve, "craft", lambda *a, **k: crafted.append(k) or own(*a, **k))
        trainer.on_train_epoch_end([{"loss": np.float32(1)}])
        trainer.on_validation_epoch_start()
        with torch.no_grad():
            trainer.on_validation_epoch_end([trainer.validation_step(next(trainer.dataloader_val))])
    trainer.on_epoch_end()
    ascents = [(k["steps"], k["relative_step_size"], k["loss"]) for k in crafted]
    assert ascents == [(1, 1.25, "ce"), (4, 0.625, "ce")]
    assert trainer._logged["robust_attack"] == ["PGD", "PGD"]
    assert all(len(trainer._logged[key]) == 2 for key in LOGGED)
    said = [file.read_text() for file in trainer._folder.glob("training_log*.txt")]
    assert any("Robust pseudo dice (PGD-4, epsilon 0.0500)" in text for text in said)
