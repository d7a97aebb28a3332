"""Adversarial attacks on segmentation models, for training and for evaluation, in any dimension.

An attack is a function (model, x, target, ball, *, generator, **options) -> AttackResult; `ATTACKS`
names them with their defaults and `run_attack` runs one by name. x is (B, C, *spatial),
preprocessed; `target` comes from LabelSpace.target(labels); `ball` from
ThreatModel(...).ball(Bounds.of(x)); `model` is a BatchModel(network) or a SlidingWindow. Names are
imported when they are first used: terms.py and utils/epsilon.py, which settings need, are there
without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_WHERE = {
    "ATTACKS": "nnunetv2_lngswr.attacks.registry",
    "AttackResult": "nnunetv2_lngswr.attacks.best_iterate",
    "AttackSpec": "nnunetv2_lngswr.attacks.registry",
    "Ball": "nnunetv2_lngswr.attacks.threat_model",
    "BatchModel": "nnunetv2_lngswr.attacks.models",
    "Bounds": "nnunetv2_lngswr.attacks.threat_model",
    "DifferentiableModel": "nnunetv2_lngswr.attacks.models",
    "FeatureModel": "nnunetv2_lngswr.attacks.models",
    "LabelSpace": "nnunetv2_lngswr.attacks.losses",
    "Norm": "nnunetv2_lngswr.attacks.terms",
    "SegmentationTarget": "nnunetv2_lngswr.attacks.losses",
    "ThreatModel": "nnunetv2_lngswr.attacks.threat_model",
    "Unit": "nnunetv2_lngswr.attacks.terms",
    "attack_names": "nnunetv2_lngswr.attacks.registry",
    "get_attack": "nnunetv2_lngswr.attacks.registry",
    "run_attack": "nnunetv2_lngswr.attacks.registry",
    "parse_epsilon": "nnunetv2_lngswr.utils.epsilon",
}

__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
