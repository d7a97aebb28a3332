"""The trainers, one name each, as ``nnUNetv2_train -tr NAME`` takes them.

=========================  =========================================================================
nnUNetTrainerLNGSWR        layer-wise noise and selective wavelet reconstruction
nnUNetTrainerLNGSWRGuided  the same with guided noise
nnUNetTrainerLNG           noise only (ablation)
nnUNetTrainerSWR           reconstruction only (ablation)
nnUNetTrainerVanilla       nnU-Net's own trainer, for comparisons at equal budget and seed
nnUNetTrainerVanillaDA5    nnU-Net's own trainer with its strong augmentation
nnUNetTrainerAT            nnU-Net's own network, trained on adversarial samples
nnUNetTrainerLateAT        the same in the last fifth of the epochs only
nnUNetTrainerLNGSWRAT      LNG-SWR, trained on adversarial samples
nnUNetTrainerLNGSWRLateAT  the same in the last fifth of the epochs only
nnUNetTrainerLNGSWRDA5     LNG-SWR with nnU-Net's strong augmentation
nnUNetTrainerLateATDA5     nnUNetTrainerLateAT with nnU-Net's strong augmentation
=========================  =========================================================================

Each also exists with a short budget: ``_1epoch``, ``_5epochs``, ``_10epochs``, ``_20epochs``,
``_50epochs``, ``_100epochs``, ``_250epochs``. Settings are the class's ``method`` and
``adversarial``; a ``lngswr`` entry in the plans overrides them (see `training.settings`) and may
set budget, seed and warm start for the vanilla trainers too.
"""

from __future__ import annotations

from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import (
    nnUNetTrainerDA5,
)

from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.training.adversarial_trainer import AdversarialTrainer
from nnunetv2_lngswr.training.lngswr_trainer import LNGSWRTrainer
from nnunetv2_lngswr.training.plans_entry import PlansEntryTrainer
from nnunetv2_lngswr.training.settings import ATConfig

BUDGETS = (1, 5, 10, 20, 50, 100, 250)
"""Epochs of the short-budget variants."""


class nnUNetTrainerVanilla(PlansEntryTrainer):
    """nnU-Net's own trainer and network: the arm to compare with."""


class nnUNetTrainerVanillaDA5(PlansEntryTrainer, nnUNetTrainerDA5):
    """nnU-Net's own trainer with its strong augmentation (nnUNetTrainerDA5)."""


class nnUNetTrainerLNGSWR(LNGSWRTrainer):
    """Layer-wise noise guided selective wavelet reconstruction (arXiv 2511.16162)."""

    method = LNGSWRConfig()


class nnUNetTrainerLNGSWRGuided(nnUNetTrainerLNGSWR):
    """nnUNetTrainerLNGSWR, whose noise is guided by the gradient of each sample's last step.

    The step is the smallest that was tried: larger ones cost clean Dice (docs/evidence.md).
    """

    method = LNGSWRConfig(noise_guided=0.0125)


class nnUNetTrainerLNG(nnUNetTrainerLNGSWR):
    """Ablation: layer-wise noise only."""

    method = LNGSWRConfig(reconstruction=False)


class nnUNetTrainerSWR(nnUNetTrainerLNGSWR):
    """Ablation: selective wavelet reconstruction only."""

    method = LNGSWRConfig(noise=False)


class nnUNetTrainerAT(AdversarialTrainer):
    """Adversarial training of nnU-Net's own network: FGSM with random start by default."""

    adversarial = ATConfig()


class nnUNetTrainerLateAT(nnUNetTrainerAT):
    """Adversarial training in the last fifth of the epochs alone, with the learning rate restarted.

    Epsilon is larger than nnUNetTrainerAT's, which so short a phase does not reach otherwise
    (docs/evidence.md). A budget of fewer than five epochs has no last fifth and is refused.
    """

    adversarial = ATConfig(start=0.8, epsilon=8 / 255)


class nnUNetTrainerLNGSWRAT(nnUNetTrainerLNGSWR, nnUNetTrainerAT):
    """LNG-SWR with adversarial training.

    The noise is milder: on top of attacks, that of nnUNetTrainerLNGSWR underfits
    (docs/evidence.md).
    """

    method = LNGSWRConfig(noise_sigma_input=0.25, noise_sigma_stages=0.1, noise_ramp_up=0.0)


class nnUNetTrainerLNGSWRLateAT(nnUNetTrainerLNGSWR, nnUNetTrainerLateAT):
    """nnUNetTrainerLNGSWR, then nnUNetTrainerLateAT's last phase with a quarter of the noise."""

    adversarial = ATConfig(start=0.8, epsilon=8 / 255, late_noise=0.25)


class nnUNetTrainerLNGSWRDA5(nnUNetTrainerLNGSWR, nnUNetTrainerDA5):
    """nnUNetTrainerLNGSWR with nnU-Net's strong augmentation (nnUNetTrainerDA5)."""


class nnUNetTrainerLateATDA5(nnUNetTrainerLateAT, nnUNetTrainerDA5):
    """nnUNetTrainerLateAT with nnU-Net's strong augmentation (nnUNetTrainerDA5)."""


__all__ = [
    "nnUNetTrainerLNGSWR",
    "nnUNetTrainerLNGSWRGuided",
    "nnUNetTrainerLNG",
    "nnUNetTrainerSWR",
    "nnUNetTrainerVanilla",
    "nnUNetTrainerVanillaDA5",
    "nnUNetTrainerAT",
    "nnUNetTrainerLateAT",
    "nnUNetTrainerLNGSWRAT",
    "nnUNetTrainerLNGSWRLateAT",
    "nnUNetTrainerLNGSWRDA5",
    "nnUNetTrainerLateATDA5",
]


def _with_budget(trainer: type[PlansEntryTrainer], epochs: int) -> type[PlansEntryTrainer]:
    """A short-budget variant under nnU-Net's own naming (nnUNetTrainer_1epoch, ..._5epochs)."""
    name = f"{trainer.__name__}_{epochs}epoch{'s' if epochs > 1 else ''}"
    doc = f"{trainer.__name__} for {epochs} epochs."
    return type(name, (trainer,), {"epochs": epochs, "__doc__": doc, "__module__": __name__})


for _name in tuple(__all__):
    for _epochs in BUDGETS:
        _variant = _with_budget(globals()[_name], _epochs)
        globals()[_variant.__name__] = _variant
        __all__.append(_variant.__name__)
