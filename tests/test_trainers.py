"""The trainers by name: short budgets, signatures, what each of them is."""

import inspect

import pytest
from batchgeneratorsv2.transforms.local.local_gamma import LocalGammaTransform
from batchgeneratorsv2.transforms.noise.blank_rectangle import BlankRectangleTransform
from batchgeneratorsv2.transforms.noise.sharpen import SharpeningTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_lngswr import trainers
from nnunetv2_lngswr.method.network import find_lngswr
from nnunetv2_lngswr.trainers import (
    nnUNetTrainerLateAT,
    nnUNetTrainerLateATDA5,
    nnUNetTrainerLNG,
    nnUNetTrainerLNGSWR,
    nnUNetTrainerLNGSWRDA5,
    nnUNetTrainerLNGSWRGuided,
    nnUNetTrainerSWR,
    nnUNetTrainerVanilla,
    nnUNetTrainerVanillaDA5,
)
from tests import tiny_dataset
from tests.training.tiny_training import SHORT


def test_every_name_has_its_short_budgets_and_nnunets_signature():
    for name in (
        "LNGSWR",
        "LNGSWRGuided",
        "LNG",
        "SWR",
        "Vanilla",
        "VanillaDA5",
        "AT",
        "LateAT",
        "LNGSWRAT",
        "LNGSWRLateAT",
        "LNGSWRDA5",
        "LateATDA5",
    ):
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


def test_vanilla_is_nnunets_own_network(plans):
    for cls in (nnUNetTrainerVanilla, nnUNetTrainerVanillaDA5):
        trainer = tiny_dataset.make_trainer(cls, plans, entry=SHORT)
        trainer.initialize()
        assert find_lngswr(trainer.network) is None
        assert (
            cls.train_step is nnUNetTrainer.train_step
            and cls.build_network_architecture is nnUNetTrainer.build_network_architecture
        )


STRONG = (BlankRectangleTransform, LocalGammaTransform, SharpeningTransform)


def unbound(cls, name):
    method = getattr(cls, name)
    return getattr(method, "__func__", method)


@pytest.mark.parametrize(
    "cls, plain",
    [
        (nnUNetTrainerVanillaDA5, nnUNetTrainerVanilla),
        (nnUNetTrainerLNGSWRDA5, nnUNetTrainerLNGSWR),
        (nnUNetTrainerLateATDA5, nnUNetTrainerLateAT),
    ],
)
def test_strong_augmentation_is_nnunets_and_the_only_difference(plans, cls, plain):
    entry = SHORT | {"num_epochs": 5}
    settings, transforms = [], []
    for one in (plain, cls):
        trainer = tiny_dataset.make_trainer(one, plans, entry=entry)
        trainer.initialize()
        settings.append((trainer.settings, find_lngswr(trainer.network) is None))
        loader = trainer.get_dataloaders()[0]
        inner = [getattr(t, "transform", t) for t in loader.data_loader.transforms.transforms]
        transforms.append({s for s in STRONG if any(isinstance(t, s) for t in inner)})
        for step in ("train_step", "validation_step", "build_network_architecture"):
            assert unbound(one, step) is unbound(plain, step)
    assert settings[0] == settings[1]
    assert transforms == [set(), set(STRONG)]


@pytest.mark.parametrize(
    "cls, has_noise, has_reconstruction",
    [
        (nnUNetTrainerLNGSWR, True, True),
        (nnUNetTrainerLNGSWRGuided, True, True),
        (nnUNetTrainerLNG, True, False),
        (nnUNetTrainerSWR, False, True),
    ],
)
def test_ablations_are_what_they_are_called(plans, cls, has_noise, has_reconstruction):
    trainer = tiny_dataset.make_trainer(cls, plans)
    trainer.initialize()
    branches = dict(trainer.lngswr.branches())
    assert {b.noise is not None for b in branches.values()} == {has_noise}
    guided = cls is nnUNetTrainerLNGSWRGuided
    assert {b.guidance is not None for b in branches.values()} == {guided}
    assert {b.reconstruction is not None for n, b in branches.items() if n != "stage 2"} == {
        has_reconstruction
    }
    assert branches["stage 2"].reconstruction is None  # the bottleneck
