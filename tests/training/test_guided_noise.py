"""Training with guided noise: how long samples stay, when, and what else stays as it was."""

from pathlib import Path

import numpy as np
import pytest
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter

from nnunetv2_lngswr.trainers import (
    nnUNetTrainerLNGSWR,
    nnUNetTrainerLNGSWRAT,
    nnUNetTrainerLNGSWRLateAT,
)
from nnunetv2_lngswr.training.rolling import Rolling
from nnunetv2_lngswr.utils.errors import UserError
from tests.training.test_rolling import an_epoch, steps_of
from tests.training.tiny_training import (
    FULL,
    SHORT,
    Killed,
    interrupt_second_epoch,
    started,
    weights,
)

GUIDED = {"noise_guided": 0.1}
STEPS = 5


@pytest.mark.parametrize("dimension, batch_size", [(2, 2), (2, 4), (3, 2)])
def test_every_sample_is_trained_on_twice_and_guided_the_second_time(
    make, admitted, dimension, batch_size
):
    trainer = make(nnUNetTrainerLNGSWR, dimension=dimension, batch_size=batch_size, **GUIDED)
    half = batch_size // 2
    known = []

    def record(batch, own=trainer._guided_batch):
        batch = own(batch)
        directions = [g.direction for g in trainer.lngswr.guidance()]
        known.append([d is not None and d.abs().flatten(1).sum(1) > 0 for d in directions])
        return batch

    trainer._guided_batch = record
    an_epoch(trainer, STEPS)
    lengths = sorted(len(seen) for seen in steps_of(admitted).values())
    # half of the first batch leaves at once, and the last to come has one step
    assert lengths == [1] * 2 * half + [2] * (STEPS - 1) * half
    # nothing is known before the second backward pass
    for of_layers in known[2:]:
        assert len(of_layers) > 2
        assert all(found.tolist() == [True] * half + [False] * half for found in of_layers)


def test_a_batch_of_odd_size_is_parted_as_evenly_as_it_can_be(make, admitted):
    trainer = make(nnUNetTrainerLNGSWR, batch_size=5, **GUIDED)
    an_epoch(trainer, STEPS)
    assert all(len(batch["data"]) == 5 for batch in admitted)
    steps = list(steps_of(admitted).values())
    come = [sum(seen[0] == step for seen in steps) for step in range(STEPS)]
    assert come == [5, 3, 2, 3, 2]
    # of the first batch three leave at once; who comes last has one step, everyone else two
    assert sorted(map(len, steps)) == [1] * (3 + 2) + [2] * (2 + 3 + 2 + 3)


def test_no_sample_is_held_while_validating(make):
    trainer = an_epoch(make(nnUNetTrainerLNGSWR, batch_size=4, **GUIDED), STEPS)
    assert trainer._window._held is not None
    outputs = [{"loss": np.zeros(())}]
    trainer.on_train_epoch_end(outputs)
    assert trainer._window._held is None
    assert all(guidance.direction is None for guidance in trainer.lngswr.guidance())


def test_without_it_the_training_is_what_it_was(make):
    trainer = an_epoch(make(nnUNetTrainerLNGSWR), 2)
    assert not isinstance(trainer.dataloader_train, Rolling)
    assert not trainer.lngswr.guidance()


def test_attacked_epochs_have_whole_batches_and_no_guidance(make, admitted, trained_on):
    late = {**FULL, "start": 0.5}
    trainer = make(nnUNetTrainerLNGSWRLateAT, late, num_epochs=2, batch_size=4, **GUIDED)
    trainer.run_training()
    per_epoch = SHORT["num_iterations_per_epoch"]
    assert len(admitted) == per_epoch and len(trained_on) == 2 * per_epoch
    assert all(len(batch["data"]) == 4 for batch in trained_on)
    assert all(guidance.direction is None for guidance in trainer.lngswr.guidance())


def test_same_seed_same_weights_and_a_continued_run_ends_the_same(make):
    whole = make(nnUNetTrainerLNGSWR, plans_name="whole", **GUIDED)
    whole.run_training()
    ended = make(nnUNetTrainerLNGSWR, plans_name="ended", **GUIDED)
    interrupt_second_epoch(ended)
    with pytest.raises(Killed):
        ended.run_training()
    continued = make(nnUNetTrainerLNGSWR, plans_name="ended", **GUIDED)
    continued.load_checkpoint(str(Path(ended.output_folder) / "checkpoint_latest.pth"))
    continued.run_training()
    expected, found = weights(whole), weights(continued)
    assert all(torch.equal(expected[k], found[k]) for k in expected)
    plain = make(nnUNetTrainerLNGSWR, plans_name="plain")
    plain.run_training()
    other = weights(plain)
    assert other.keys() == expected.keys()  # so any of the two predicts
    assert any(not torch.equal(expected[k], other[k]) for k in expected)


def test_augmenting_processes_end_with_the_training(make, monkeypatch):
    trainer = make(nnUNetTrainerLNGSWR, seed=None, **GUIDED)
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    augmenter = trainer.dataloader_train.batches
    assert isinstance(augmenter, NonDetMultiThreadedAugmenter)
    trainer.train_step(next(trainer.dataloader_train))
    trainer.on_train_end()
    assert trainer.dataloader_train is augmenter and not augmenter._processes


@pytest.mark.parametrize(
    "options, said",
    [
        ({"batch_size": 1}, "noise_guided needs a batch of which a part is new.* a batch of 1"),
        (
            {"adversarial": {"scheme": "free", "start": 0.5}},
            'scheme "free" lets samples stay, and so does noise_guided.* got "free" and 0.1',
        ),
        ({"noise_guided": -0.1}, "noise_guided must be a number in"),
        ({"noise_guided": 2}, "noise_guided must be a number in"),
    ],
)
def test_what_cannot_be_guided_is_refused_first(make, options, said):
    cls = nnUNetTrainerLNGSWRLateAT if "adversarial" in options else nnUNetTrainerLNGSWR
    with pytest.raises(UserError, match=said):
        make(cls, **{**GUIDED, **options})


def test_where_it_has_no_effect_nothing_is_refused_and_the_log_says_so(make):
    for cls, options in (
        (nnUNetTrainerLNGSWR, {"noise": False}),
        (nnUNetTrainerLNGSWRAT, {"adversarial": {**FULL, "scheme": "free"}}),
    ):
        trainer = make(cls, plans_name=cls.__name__, batch_size=1, **{**GUIDED, **options})
        trainer.on_train_start()
        assert not isinstance(trainer.dataloader_train, Rolling)
        assert "noise_guided has no effect" in Path(trainer.log_file).read_text()


def test_nothing_of_it_is_held_during_validation(make):
    trainer = an_epoch(make(nnUNetTrainerLNGSWR, **GUIDED), STEPS)
    assert all(g.direction is not None for g in trainer.lngswr.guidance())
    trainer.on_train_epoch_end([{"loss": 0.0}])
    assert all(g.direction is None for g in trainer.lngswr.guidance())


def test_a_batch_that_ranks_cannot_part_is_refused_on_all_of_them(make, monkeypatch):
    trainer = make(nnUNetTrainerLNGSWR, batch_size=3, **GUIDED)
    trainer.is_ddp = True
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(UserError, match="noise_guided needs .* a batch of 1"):
        trainer.initialize()


def test_other_guidance_is_another_training(make):
    started(make(nnUNetTrainerLNGSWR, **GUIDED))
    with pytest.raises(UserError, match='"noise_guided" 0.1 there, 0.2 here'):
        make(nnUNetTrainerLNGSWR, noise_guided=0.2).on_train_start()
