"""The ideas that are tried: what each does to the noise and to the gates."""

import pytest
import torch
from torch.nn.functional import avg_pool2d

from benchmarks.noise_trials import SensitivityNoise, block_sums, changed_trainer
from nnunetv2_lngswr.method.noise import LayerwiseNoise
from tests import tiny_dataset
from tests.training.tiny_training import SHORT


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_blocks_are_summed_and_the_last_are_cut_off(stride):
    x = torch.randn(2, 3, 11, 8)
    whole = torch.nn.functional.pad(x, (0, 0, 0, 1))
    sums = avg_pool2d(whole, stride, divisor_override=1)
    torch.testing.assert_close(block_sums(x, stride)[..., : 12 // stride, :], sums[..., :11, :])


def test_a_white_gradient_leaves_the_noise_as_it_is_and_a_smooth_one_makes_it_smooth():
    x = torch.zeros(64, 2, 32, 32)
    sd = torch.ones(2)
    white, smooth = SensitivityNoise(1.0), SensitivityNoise(1.0)
    white._look(sd, torch.randn_like(x))
    smooth._look(sd, torch.ones_like(x))
    torch.testing.assert_close(white.variances(2), torch.full((2, 4), 0.25), atol=0.02, rtol=0)
    shares = smooth.variances(2)
    assert (shares.diff(dim=1) > 0).all()
    torch.testing.assert_close(shares.sum(1), torch.ones(2))
    smooth._look(torch.tensor([1.0, 1e4]), torch.ones_like(x))
    assert float(smooth.variances(2).sum(1).mean()) == pytest.approx(1)  # of what is clamped, too


def test_what_is_coloured_has_the_variance_of_the_default():
    x = torch.zeros(400, 2, 16, 16)
    sd = torch.tensor([1.0, 2.0])
    default, coloured = LayerwiseNoise(0.5), SensitivityNoise(0.5)
    for noise in (default, coloured):
        noise.seed(0)
    torch.manual_seed(0)
    coloured._look(torch.ones(2), torch.randn_like(x) * torch.tensor([1.0, 3.0]).view(1, 2, 1, 1))
    per_channel = coloured(x, sd).var((0, 2, 3)) / sd**2
    assert per_channel[1] > 1.5 * per_channel[0]
    expected = float((default(x, sd).var((0, 2, 3)) / sd**2).mean())
    assert float(per_channel.mean()) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("trial, guided", [("guided_input", True), ("guided_stages", False)])
def test_the_image_alone_is_guided_or_the_stages_alone(plans, trial, guided):
    cls = changed_trainer("nnUNetTrainerLNGSWR", trial)
    trainer = tiny_dataset.make_trainer(cls, plans, entry={**SHORT, "noise_guided": 0.1})
    trainer.initialize()
    sizes = {name: branch.guidance.size for name, branch in trainer.lngswr.branches()}
    assert sizes == {name: 0.1 * ((name == "input") == guided) for name in sizes}


@pytest.mark.parametrize("trial", ["sensitivity", "gate_ramp"])
def test_a_changed_trainer_trains_and_saves_what_the_trainer_loads(plans, trial):
    name = "nnUNetTrainerLNGSWR"
    cls = changed_trainer(name, trial)
    trainer = tiny_dataset.make_trainer(cls, plans, entry={**SHORT, "seed": 0})
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    gates = trainer.lngswr.image.reconstruction.gate().abs().sum()
    assert (gates == 0) == (trial == "gate_ramp")
    for _ in range(3):
        trainer.train_step(next(trainer.dataloader_train))
    after = trainer.network.state_dict()
    assert any(not torch.equal(before[k], after[k]) for k in before)
    assert trainer.output_folder_base.rsplit("/", 1)[1].startswith(f"{name}__")
    plain = tiny_dataset.make_trainer(
        changed_trainer(name, "none"), {**plans, "plans_name": "other"}, entry=SHORT
    )
    plain.initialize()
    plain.network.load_state_dict(after)
