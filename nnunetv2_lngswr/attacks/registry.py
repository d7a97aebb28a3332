"""Adversarial attacks on segmentation models, for training and for evaluation, in any spatial dimension.

An attack is a function (model, x, target, ball, *, generator, **options) -> AttackResult; `ATTACKS` names them with their defaults and
`run_attack` runs one by name. x is (B, C, *spatial), preprocessed; `target` comes from LabelSpace.target(labels); `ball` from
ThreatModel(...).ball(Bounds.of(x)); `model` is a BatchModel(network) or a SlidingWindow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from nnunetv2_lngswr.attacks.apgd import apgd
from nnunetv2_lngswr.attacks.base import AttackResult, DifferentiableModel
from nnunetv2_lngswr.attacks.cospgd import cospgd
from nnunetv2_lngswr.attacks.fgsm import fgsm
from nnunetv2_lngswr.attacks.losses import SegmentationTarget
from nnunetv2_lngswr.attacks.noise import noise
from nnunetv2_lngswr.attacks.pgd import pgd
from nnunetv2_lngswr.attacks.segpgd import segpgd
from nnunetv2_lngswr.attacks.square import square
from nnunetv2_lngswr.attacks.ssah import ssah
from nnunetv2_lngswr.attacks.threat_model import (
    Ball,
    Norm,
)
from nnunetv2_lngswr.attacks.torchattacks_adapter import PREFIX, torchattacks_attack
from nnunetv2_lngswr.attacks.transfer import transfer
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import lookup

_BOTH = (Norm.LINF, Norm.L2)


@dataclass(frozen=True, kw_only=True)
class AttackSpec:
    """`norms`: those the attack works in. `options`: fixed options of this name. `tunable`: of steps, restarts, loss those it takes.
    `uses_epsilon`: False for ssah, whose size is an outcome. `needs_surrogate`, `needs_features`: what the caller must provide."""

    name: str
    function: Callable[..., AttackResult]
    summary: str
    norms: tuple[Norm, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    tunable: tuple[str, ...] = ()
    uses_epsilon: bool = True
    needs_surrogate: bool = False
    needs_features: bool = False


def _table(*specs: AttackSpec) -> dict[str, AttackSpec]:
    return {s.name: s for s in specs}


ATTACKS: dict[str, AttackSpec] = _table(
    AttackSpec(
        name="noise",
        function=noise,
        norms=_BOTH,
        tunable=("restarts",),
        summary="random noise at the same budget, the control",
    ),
    AttackSpec(
        name="fgsm",
        function=fgsm,
        norms=_BOTH,
        tunable=("loss",),
        summary="one signed gradient step",
    ),
    AttackSpec(
        name="pgd_linf",
        function=pgd,
        norms=(Norm.LINF,),
        tunable=("steps", "restarts", "loss"),
        summary="projected gradient ascent, Linf",
    ),
    AttackSpec(
        name="pgd_l2",
        function=pgd,
        norms=(Norm.L2,),
        tunable=("steps", "restarts", "loss"),
        summary="projected gradient ascent, L2",
    ),
    AttackSpec(
        name="pgd_linf_dice_ce",
        function=pgd,
        norms=(Norm.LINF,),
        options={"loss": "dice_ce"},
        tunable=("steps", "restarts"),
        summary="PGD on Dice and CE, nnU-Net's training loss, Linf",
    ),
    AttackSpec(
        name="pgd_l2_dice_ce",
        function=pgd,
        norms=(Norm.L2,),
        options={"loss": "dice_ce"},
        tunable=("steps", "restarts"),
        summary="PGD on Dice and CE, nnU-Net's training loss, L2",
    ),
    AttackSpec(
        name="segpgd",
        function=segpgd,
        norms=_BOTH,
        tunable=("steps", "restarts"),
        summary="PGD on right before wrong voxels",
    ),
    AttackSpec(
        name="cospgd",
        function=cospgd,
        norms=_BOTH,
        tunable=("steps", "restarts"),
        summary="PGD weighted by cosine per voxel",
    ),
    AttackSpec(
        name="apgd",
        function=apgd,
        norms=_BOTH,
        tunable=("steps", "restarts", "loss"),
        summary="Auto-PGD, CE",
    ),
    AttackSpec(
        name="apgd_masked_ce",
        function=apgd,
        norms=_BOTH,
        options={"loss": "masked_ce"},
        tunable=("steps", "restarts"),
        summary="Auto-PGD, CE of voxels still right",
    ),
    AttackSpec(
        name="apgd_js",
        function=apgd,
        norms=_BOTH,
        options={"loss": "js"},
        tunable=("steps", "restarts"),
        summary="Auto-PGD, JS divergence",
    ),
    AttackSpec(
        name="ssah",
        function=ssah,
        norms=_BOTH,
        tunable=("steps",),
        uses_epsilon=False,
        needs_features=True,
        summary="semantic similarity attack on high frequencies, unbounded",
    ),
    AttackSpec(
        name="ssah_project",
        function=ssah,
        norms=_BOTH,
        options={"project_into_ball": True},
        tunable=("steps",),
        needs_features=True,
        summary="ssah clipped into the epsilon ball, a variant",
    ),
    AttackSpec(
        name="square",
        function=square,
        norms=(Norm.LINF,),
        tunable=("steps", "restarts"),
        summary="random search, no gradients",
    ),
    AttackSpec(
        name="transfer",
        function=transfer,
        norms=_BOTH,
        tunable=("steps", "restarts"),
        needs_surrogate=True,
        summary="PGD made on another model",
    ),
)


def attack_names() -> tuple[str, ...]:
    return tuple(ATTACKS)


def get_attack(name: str) -> AttackSpec:
    """The spec of an attack name, also 'torchattacks:NAME'. ValueError with the nearest names for an unknown one."""
    if name.startswith(PREFIX):
        options = {"attack": name[len(PREFIX) :]}
        return AttackSpec(
            name=name,
            function=torchattacks_attack,
            norms=_BOTH,
            options=options,
            summary="an attack of torchattacks, 2D",
        )
    return lookup(ATTACKS, name, "attack")


def run_attack(
    name: str,
    model: DifferentiableModel,
    x: torch.Tensor,
    target: SegmentationTarget,
    ball: Ball,
    *,
    generator: torch.Generator,
    **options: Any,
) -> AttackResult:
    """Run an attack by name. `options` override the function's defaults (steps, restarts, loss, step_size, surrogate, ...). ValueError for
    an unknown name, a norm the attack does not work in, or an option that it does not take."""
    spec = get_attack(name)
    if ball.norm not in spec.norms:
        raise UserError(
            f"attack {name} works in {' or '.join(n.value for n in spec.norms)}, got {ball.norm.value}"
        )
    if spec.needs_surrogate and "surrogate" not in options:
        raise UserError(f"attack {name} needs another model folder as surrogate (--surrogate)")
    fixed = sorted(set(spec.options) & set(options))
    if fixed:
        raise UserError(f"attack {name} fixes {', '.join(fixed)}; use another attack name")
    result = spec.function(model, x, target, ball, generator=generator, **spec.options, **options)
    assert torch.isfinite(result.perturbed).all(), f"{name} produced a value that is not finite"
    return _renamed(result, name)


def _renamed(result: AttackResult, name: str) -> AttackResult:
    return result if result.attack == name else AttackResult(**{**vars(result), "attack": name})
