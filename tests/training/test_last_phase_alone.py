"""A finished model made robust: the last phase alone, from its weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nnunetv2_lngswr.trainers import nnUNetTrainerAT, nnUNetTrainerLNGSWRAT, nnUNetTrainerVanilla
from nnunetv2_lngswr.training.adversarial_batch import craft
from nnunetv2_lngswr.utils.errors import UserError
from tests.training.crafting import SPACE
from tests.training.tiny_training import started, steps, weights


def loss_under_attack(trainer, network) -> float:
    """Mean training loss of a network on 8 of the trainer's batches, each under PGD-5."""
    generator = torch.Generator().manual_seed(0)
    ascent = {"steps": 5, "relative_step_size": 0.5, "generator": generator}
    found = []
    started(trainer)  # the same batches each time
    for _ in range(8):
        batch = next(trainer.dataloader_train)
        ball = trainer._ball(batch["data"], batch["keys"], 0.2)
        target = SPACE.target(batch["target"][0][:, 0])
        attacked = craft(network, batch["data"], target, ball, **ascent)
        with torch.no_grad():
            found.append(float(trainer.loss(network.eval()(attacked), batch["target"])))
    return float(np.mean(found))


def test_a_start_that_is_not_there_leaves_no_plans_that_forbid_the_corrected_one(make, tmp_path):
    finished = make(nnUNetTrainerVanilla, num_iterations_per_epoch=1)
    steps(finished, 1)
    finished.save_checkpoint(str(tmp_path / "finished.pth"))
    wrong = make(nnUNetTrainerAT, warm_start=str(tmp_path / "finishd.pth"), plans_name="late")
    with pytest.raises(UserError, match='"warm_start": no file .*finishd.pth'):
        wrong.on_train_start()
    assert not list(Path(wrong.output_folder_base).glob("*.json"))
    make(
        nnUNetTrainerAT, warm_start=str(tmp_path / "finished.pth"), plans_name="late"
    ).on_train_start()


def test_the_log_says_that_a_warm_start_replaces_pretrained_weights(make, tmp_path, capsys):
    finished = make(nnUNetTrainerVanilla, num_iterations_per_epoch=1)
    steps(finished, 1)
    finished.save_checkpoint(str(tmp_path / "finished.pth"))
    begun = {"warm_start": str(tmp_path / "finished.pth"), "plans_name": "late"}
    make(nnUNetTrainerAT, **begun).on_train_start()
    said = capsys.readouterr().out
    assert "Warm start from" in said and "in place of" not in said
    given = make(nnUNetTrainerAT, **begun)
    given.initialize()  # as nnUNetv2_train does before it loads -pretrained_weights
    given.on_train_start()
    assert "in place of what -pretrained_weights has loaded" in capsys.readouterr().out


@pytest.mark.parametrize("cls", [nnUNetTrainerAT, nnUNetTrainerLNGSWRAT])
@pytest.mark.parametrize(
    "scheme", [{}, {"scheme": "free", "replays": 2, "rolling": True}], ids=["fgsm_rs", "rolling"]
)
def test_the_last_phase_alone_makes_a_finished_model_more_robust(make, tmp_path, cls, scheme):
    finished = make(nnUNetTrainerVanilla, num_iterations_per_epoch=60)
    steps(finished, 60)
    source = tmp_path / "finished.pth"
    finished.save_checkpoint(str(source))
    settings = {"start": 0, "epsilon": 0.2, "ramp_up": 0.0, **scheme}
    late = make(cls, settings, warm_start=str(source), num_epochs=1, num_iterations_per_epoch=40)
    late.on_train_start()
    loaded, expected = weights(late), weights(finished)
    assert any(".seg_layers." in key for key in expected)
    assert all(torch.equal(loaded[key], value) for key, value in expected.items())
    gates = [value for key, value in loaded.items() if key.endswith("theta")]
    assert bool(gates) == (cls is nnUNetTrainerLNGSWRAT)
    assert all(not gate.any() for gate in gates)  # the identity
    late.on_train_epoch_start()
    assert late.optimizer.param_groups[0]["lr"] == late.initial_lr and late._attacking
    for _ in range(40):
        late.train_step(next(late.dataloader_train))
    judge = make(nnUNetTrainerAT, plans_name="judge", seed=1)
    before, after = (loss_under_attack(judge, t._bare_network()) for t in (finished, late))
    assert after < before - 0.1
