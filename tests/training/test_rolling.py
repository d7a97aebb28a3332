"""Free adversarial training that rolls: how long samples stay, and what goes with them."""

from collections import defaultdict

import numpy as np
import pytest
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

from nnunetv2_lngswr.trainers import nnUNetTrainerAT, nnUNetTrainerLNGSWRAT, nnUNetTrainerVanilla
from nnunetv2_lngswr.training import free, rolling
from nnunetv2_lngswr.utils.errors import UserError
from tests import tiny_dataset
from tests.training.tiny_training import FULL, SHORT, partly_ignored, started, weights

ROLLING = {"scheme": "free", "rolling": True, **FULL}
STEPS = 7


def an_epoch(trainer, steps=STEPS):
    """The trainer after so many steps of its first epoch."""
    started(trainer)
    for _ in range(steps):
        assert np.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])
    return trainer


def identity(sample: torch.Tensor) -> bytes:
    return sample.numpy().tobytes()


def steps_of(batches) -> dict[bytes, list[int]]:
    """At which steps each sample was trained on."""
    steps = defaultdict(list)
    for step, batch in enumerate(batches):
        for sample in batch["data"]:
            steps[identity(sample)].append(step)
    return steps


# --- how long samples stay


@pytest.mark.parametrize(
    "dimension, batch_size, m", [(2, 2, 2), (2, 6, 3), (2, 4, 4), (3, 2, 2)], ids=str
)
def test_every_sample_is_trained_on_in_m_consecutive_steps(
    make, admitted, dimension, batch_size, m
):
    settings = {**ROLLING, "replays": m}
    an_epoch(make(nnUNetTrainerAT, settings, dimension, batch_size=batch_size))
    share = batch_size // m
    steps = steps_of(admitted)
    assert len(steps) == batch_size + (STEPS - 1) * share
    first, last = defaultdict(int), STEPS - 1
    for seen in steps.values():
        assert seen == list(range(seen[0], seen[-1] + 1))
        first[seen[0]] += 1
        if seen[0] > 0 and seen[-1] < last:
            assert len(seen) == m
    # a whole batch, then one share at every step
    assert first == {0: batch_size, **dict.fromkeys(range(1, STEPS), share)}
    # that batch leaves share by share
    lengths = sorted(len(seen) for seen in steps.values() if seen[0] == 0)
    assert lengths == sorted([*range(1, m + 1)] * share)
    assert all(len(batch["data"]) == batch_size for batch in admitted)


def test_key_and_targets_go_with_their_sample(make, admitted):
    an_epoch(make(nnUNetTrainerAT, {**ROLLING, "replays": 2}, batch_size=4))
    belongings = defaultdict(set)
    for batch in admitted:
        assert isinstance(batch["target"], list)  # deep supervision
        for i, sample in enumerate(batch["data"]):
            targets = tuple(identity(level[i]) for level in batch["target"])
            belongings[identity(sample)].add((str(batch["keys"][i]), *targets))
    assert len(belongings) == 4 + 2 * (STEPS - 1)
    assert all(len(found) == 1 for found in belongings.values())


def test_an_epoch_begins_with_nothing_of_the_last_one(make, admitted):
    trainer = an_epoch(make(nnUNetTrainerAT, {**ROLLING, "replays": 2}), steps=3)
    before = set(steps_of(admitted))
    trainer.current_epoch = 1
    trainer.on_train_epoch_start()
    trainer.train_step(next(trainer.dataloader_train))
    assert not before & {identity(sample) for sample in admitted[-1]["data"]}


# --- its perturbation


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_perturbation_stays_with_its_sample_and_within_the_budget(make, monkeypatch, norm):
    moves, own = [], free.Perturbation.move

    def record(self, leaf, x, ball, size):
        own(self, leaf, x, ball, size)
        moves.append((leaf.detach(), leaf.grad, x, ball))

    monkeypatch.setattr(free.Perturbation, "move", record)
    settings = {**ROLLING, "replays": 3, "norm": norm}
    an_epoch(make(nnUNetTrainerAT, settings, batch_size=6))
    expected: dict[bytes, torch.Tensor] = {}
    carried = 0
    for leaf, gradient, x, ball in moves:
        scale = ball.scale.view(-1, 1, 1, 1)
        size = ((leaf - x) / scale).flatten(1)
        size = size.abs().amax(1) if norm == "linf" else size.square().mean(1).sqrt()
        assert (size <= 0.05 * (1 + 1e-4)).all()
        for i, sample in enumerate(x):
            known = expected.get(identity(sample))
            carried += known is not None
            found = leaf[i] - sample
            assert torch.allclose(found, torch.zeros(1) if known is None else known, atol=1e-5)
            # where the sample stays, a step of epsilon, back into the ball and the case's range
            if norm == "linf":
                step = found + 0.05 * scale[i] * gradient[i].sign()
                step = step.clamp(-0.05 * scale[i], 0.05 * scale[i])
            else:
                step = found / scale[i] + 0.05 * gradient[i] / gradient[i].square().mean().sqrt()
                step = step * (0.05 / step.square().mean().sqrt()).clamp(max=1) * scale[i]
            low, high = ball.bounds.minimum[i].item(), ball.bounds.maximum[i].item()
            expected[identity(sample)] = (sample + step).clamp(low, high) - sample
    assert carried > 20


def test_a_clean_sample_stays_clean_while_it_stays(make, admitted, trained_on):
    settings = {**ROLLING, "replays": 2, "clean_share": 0.25}
    an_epoch(make(nnUNetTrainerAT, settings, batch_size=4), steps=8)
    clean = {}
    for batch, seen in zip(admitted, trained_on, strict=True):
        for i, sample in enumerate(batch["data"]):
            kept = bool(batch["kept_clean"][i])
            assert clean.setdefault(identity(sample), kept) == kept
            if kept:
                assert torch.equal(seen["data"][i], sample)
    # a quarter of 4 + 7 x 2 samples
    assert len(clean) == 18 and abs(sum(clean.values()) - 18 / 4) < 1


# --- what the loaders are asked for


@pytest.mark.parametrize("batch_size, m", [(2, 2), (6, 3), (6, 2), (4, 4)])
def test_loaders_are_asked_for_a_batch_in_m_steps_with_the_foreground_of_a_batch(
    make, monkeypatch, batch_size, m
):
    forced = []
    trainer = make(nnUNetTrainerAT, {**ROLLING, "replays": m}, batch_size=batch_size)
    trainer.on_train_start()
    get_bbox = nnUNetDataLoader.get_bbox

    def record(self, shape, force_fg, locations):
        forced.append(force_fg)
        return get_bbox(self, shape, force_fg, locations)

    monkeypatch.setattr(nnUNetDataLoader, "get_bbox", record)
    own = make(nnUNetTrainerVanilla, plans_name="whole", batch_size=batch_size)
    own.on_train_start()
    forced.clear()
    next(own.dataloader_train)
    of_a_batch = list(forced)
    assert True in of_a_batch and False in of_a_batch
    for epoch in range(2):
        trainer.current_epoch = epoch
        trainer.on_train_epoch_start()
        forced.clear()
        given = [next(trainer.dataloader_train) for _ in range(STEPS)]
        assert [len(b["data"]) for b in given] == [batch_size] + [batch_size // m] * (STEPS - 1)
        assert forced == of_a_batch * (1 + -(-(STEPS - 1) // m))


def test_shares_are_the_batch_in_its_order():
    def batch(first):
        target = [torch.arange(first, first + 6), torch.arange(first, first + 6)]
        return {"data": torch.arange(first, first + 6), "target": target, "keys": np.arange(6)}

    batches = iter([batch(0), batch(6), batch(12)])
    rolled = rolling.Rolling(batches, 3)
    rolled.restart(rolls=True)
    assert next(rolled)["data"].tolist() == [*range(6)]
    for start in (6, 8, 10, 12):
        share = next(rolled)
        assert share["data"].tolist() == [start, start + 1] == share["target"][1].tolist()
        assert share["keys"].tolist() == [(start - 6) % 6, (start - 6) % 6 + 1]


def test_until_the_last_phase_batches_are_the_plain_trainings(make):
    late = make(nnUNetTrainerAT, {**ROLLING, "replays": 2, "start": 0.5})
    own = make(nnUNetTrainerVanilla, plans_name="plain")
    ours, theirs = ([next(started(t).dataloader_train) for _ in range(3)] for t in (late, own))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a["data"], b["data"]) and [*a["keys"]] == [*b["keys"]]


def test_the_same_processes_augment_in_both_phases(make, monkeypatch):
    trainer = make(
        nnUNetTrainerAT, {**ROLLING, "replays": 2, "start": 0.5}, batch_size=4, seed=None
    )
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    sizes, at_work = [], []
    train_step = trainer.train_step

    def record(batch):
        sizes.append(len(batch["data"]))
        augmenter = trainer.dataloader_train.batches
        assert isinstance(augmenter, NonDetMultiThreadedAugmenter)
        at_work.append([process.pid for process in augmenter._processes])
        return train_step(batch)

    monkeypatch.setattr(trainer, "train_step", record)
    trainer.on_train_end = lambda end=trainer.on_train_end, t=trainer: (
        at_work.append(t.dataloader_train.batches),
        end(),
    )
    trainer.run_training()
    last = at_work.pop()
    assert sizes == [4, 4, 4, 2]
    assert len(at_work[0]) == 1 and at_work == [at_work[0]] * 4
    assert last is trainer.dataloader_train and not last._processes


def test_after_the_fall_back_to_pgd_batches_are_whole_and_new(make, admitted, trained_on):
    trainer = an_epoch(make(nnUNetTrainerAT, {**ROLLING, "replays": 2}, num_epochs=3), steps=2)
    trainer._logged["at_fallback"].append(1)
    trainer.current_epoch = 1
    trainer.on_train_epoch_start()
    first, second = (next(trainer.dataloader_train) for _ in range(2))
    assert len(first["data"]) == len(second["data"]) == 2
    assert len({identity(s) for batch in (first, second) for s in batch["data"]}) == 4
    trainer.train_step(second)
    assert len(admitted) == 2
    assert not torch.equal(trained_on[-1]["data"], second["data"])


# --- other labels, other trainers


@pytest.mark.parametrize(
    "labels, order",
    [
        ({"background": 0, "lower": 1, "upper": 2, "ignore": 3}, None),
        ({"background": 0, "ball": [1, 2], "upper": [2], "ignore": 3}, [1, 2]),
    ],
    ids=["labels", "regions"],
)
def test_ignored_voxels_and_regions(tmp_path, monkeypatch, admitted, labels, order):
    plans = tiny_dataset.make_dataset(
        tmp_path, labels=labels, regions_class_order=order, relabel=partly_ignored
    )
    tiny_dataset.use(monkeypatch, tmp_path)
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": labels,
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    if order:
        dataset["regions_class_order"] = order
    entry = {**SHORT, "adversarial": {**ROLLING, "replays": 2}}
    trainer = tiny_dataset.make_trainer(nnUNetTrainerLNGSWRAT, plans, entry=entry, dataset=dataset)
    trainer.run_training()
    assert len(admitted) == 4
    channels = 3 if order else 1  # of regions, and one more for what is ignored
    assert admitted[-1]["target"][0].shape[:2] == (2, channels)
    assert np.isfinite(trainer._logged["robust_fg_dice"]).all()


def test_same_seed_same_weights(make):
    runs = []
    for _ in range(2):
        trainer = make(nnUNetTrainerLNGSWRAT, {**ROLLING, "replays": 2}, batch_size=4)
        runs.append(weights(an_epoch(trainer, steps=4)))
    assert all(torch.equal(runs[0][k], runs[1][k]) for k in runs[0])


# --- bad input


def test_a_batch_that_ranks_cannot_share_is_refused_on_all_of_them(make, monkeypatch):
    # 6 is 3 and 3 on two ranks, 2 and 2 and 2 on three, 2 and 2 and 1 and 1 on four
    for ranks, size in ((2, 3), (4, 1)):
        trainer = make(nnUNetTrainerAT, {**ROLLING, "replays": 2}, batch_size=6)
        trainer.is_ddp = True
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda ranks=ranks: ranks)
        with pytest.raises(UserError, match=f'"lngswr": replays must.* a batch of {size}: '):
            trainer.initialize()
        assert trainer.network is None
