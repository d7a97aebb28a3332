"""The attacks by name, with their defaults, and the function that runs one.

Imports no torch: names are validated at once, and an attack's module is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from nnunetv2_lngswr.attacks.suites import SUITES, evaluations_of, without_norm
from nnunetv2_lngswr.attacks.terms import TORCHATTACKS_PREFIX, Norm
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import lookup

if TYPE_CHECKING:
    import torch

    from nnunetv2_lngswr.attacks.best_iterate import AttackResult
    from nnunetv2_lngswr.attacks.losses import SegmentationTarget
    from nnunetv2_lngswr.attacks.models import DifferentiableModel
    from nnunetv2_lngswr.attacks.threat_model import Ball

_BOTH = (Norm.LINF, Norm.L2)


@dataclass(frozen=True, kw_only=True)
class AttackSpec:
    """One attack: where its function is, and what it takes."""

    name: str
    """As users write it."""
    implementation: str
    """'module:function', imported on first use."""
    summary: str
    """One line for lists."""
    norms: tuple[Norm, ...]
    """Those that it works in."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options that are fixed under this name."""
    tunable: tuple[str, ...] = ()
    """Of steps, restarts, loss and temperature those that it takes."""
    uses_epsilon: bool = True
    """False for ssah, whose size is an outcome."""
    needs_surrogate: bool = False
    """Whether the caller must provide another model."""
    needs_features: bool = False
    """Whether the network must have an `.encoder`."""
    uses_gradients: bool = True
    """False for what asks the model for predictions alone."""
    own_steps: bool = False
    """Whether its steps are none of gradient ascent, so that --steps N without a name is not for
    them: Adam's at a small rate, or queries."""
    evaluations: tuple[int, int] | None = None
    """(forwards, gradients) of the whole case at most, a suite's of one that has all labels; None
    where steps and restarts say it."""
    control: str = ""
    """What the report calls it where it checks that no other attack is weaker; empty for attacks
    that are no control."""

    @property
    def function(self) -> Callable[..., AttackResult]:
        """(model, x, target, ball, *, generator, **options) -> AttackResult."""
        module, _, name = self.implementation.partition(":")
        return getattr(import_module(module), name)


def _table(*specs: AttackSpec) -> dict[str, AttackSpec]:
    return {s.name: s for s in specs}


ATTACKS: dict[str, AttackSpec] = _table(
    AttackSpec(
        name="noise",
        implementation="nnunetv2_lngswr.attacks.noise:noise",
        norms=_BOTH,
        tunable=("restarts",),
        uses_gradients=False,
        control="the noise control",
        summary="random noise at the same budget, the control",
    ),
    AttackSpec(
        name="fgsm",
        implementation="nnunetv2_lngswr.attacks.fgsm:fgsm",
        norms=_BOTH,
        tunable=("loss",),
        summary="one signed gradient step",
    ),
    AttackSpec(
        name="pgd_linf",
        implementation="nnunetv2_lngswr.attacks.pgd:pgd",
        norms=(Norm.LINF,),
        tunable=("steps", "restarts", "loss"),
        summary="projected gradient ascent, Linf",
    ),
    AttackSpec(
        name="pgd_l2",
        implementation="nnunetv2_lngswr.attacks.pgd:pgd",
        norms=(Norm.L2,),
        tunable=("steps", "restarts", "loss"),
        summary="projected gradient ascent, L2",
    ),
    AttackSpec(
        name="pgd_linf_dice_ce",
        implementation="nnunetv2_lngswr.attacks.pgd:pgd",
        norms=(Norm.LINF,),
        options={"loss": "dice_ce"},
        tunable=("steps", "restarts"),
        summary="PGD on Dice and CE, nnU-Net's training loss, Linf",
    ),
    AttackSpec(
        name="pgd_l2_dice_ce",
        implementation="nnunetv2_lngswr.attacks.pgd:pgd",
        norms=(Norm.L2,),
        options={"loss": "dice_ce"},
        tunable=("steps", "restarts"),
        summary="PGD on Dice and CE, nnU-Net's training loss, L2",
    ),
    AttackSpec(
        name="segpgd",
        implementation="nnunetv2_lngswr.attacks.segpgd:segpgd",
        norms=_BOTH,
        tunable=("steps", "restarts"),
        summary="PGD on right before wrong voxels",
    ),
    AttackSpec(
        name="cospgd",
        implementation="nnunetv2_lngswr.attacks.cospgd:cospgd",
        norms=_BOTH,
        tunable=("steps", "restarts"),
        summary="PGD weighted by cosine per voxel",
    ),
    AttackSpec(
        name="apgd",
        implementation="nnunetv2_lngswr.attacks.apgd:apgd",
        norms=_BOTH,
        tunable=("steps", "restarts", "loss"),
        summary="Auto-PGD, CE",
    ),
    AttackSpec(
        name="apgd_masked_ce",
        implementation="nnunetv2_lngswr.attacks.apgd:apgd",
        norms=_BOTH,
        options={"loss": "masked_ce"},
        tunable=("steps", "restarts"),
        summary="Auto-PGD, CE of voxels still right",
    ),
    AttackSpec(
        name="apgd_js",
        implementation="nnunetv2_lngswr.attacks.apgd:apgd",
        norms=_BOTH,
        options={"loss": "js"},
        tunable=("steps", "restarts"),
        summary="Auto-PGD, JS divergence",
    ),
    AttackSpec(
        name="apgd_dice",
        implementation="nnunetv2_lngswr.attacks.apgd_dice:apgd_dice",
        norms=_BOTH,
        tunable=("steps", "restarts", "temperature"),
        summary="Auto-PGD, soft Dice over the case, in units of its decision margin",
    ),
    *(
        AttackSpec(
            name=suite,
            implementation="nnunetv2_lngswr.attacks.ensemble:ensemble",
            norms=_BOTH,
            options={"suite": suite},
            evaluations=evaluations_of(suite),
            summary="the standard suite: the strongest point of a fixed ensemble",
        )
        for suite in SUITES
    ),
    AttackSpec(
        name="ssah",
        implementation="nnunetv2_lngswr.attacks.ssah:ssah",
        norms=_BOTH,
        tunable=("steps",),
        uses_epsilon=False,
        needs_features=True,
        own_steps=True,
        summary="semantic similarity attack on high frequencies, unbounded",
    ),
    AttackSpec(
        name="ssah_project",
        implementation="nnunetv2_lngswr.attacks.ssah:ssah",
        norms=_BOTH,
        options={"project_into_ball": True},
        tunable=("steps",),
        needs_features=True,
        own_steps=True,
        summary="ssah clipped into the epsilon ball, a variant",
    ),
    AttackSpec(
        name="transfer",
        implementation="nnunetv2_lngswr.attacks.transfer:transfer",
        norms=_BOTH,
        tunable=("steps", "restarts"),
        needs_surrogate=True,
        control="the transfer attack",
        summary="PGD made on another model",
    ),
    AttackSpec(
        name="square",
        implementation="nnunetv2_lngswr.attacks.square:square",
        norms=(Norm.LINF,),
        tunable=("steps", "restarts"),
        uses_gradients=False,
        own_steps=True,
        control="the query attack (square)",
        summary="random search, no gradients",
    ),
)


def attack_names() -> tuple[str, ...]:
    """The registered names, in the order of lists."""
    return tuple(ATTACKS)


def get_attack(name: str) -> AttackSpec:
    """The spec of an attack name, also 'torchattacks:NAME'.

    Raises
    ------
    UserError
        An unknown name; the text holds the nearest ones.
    """
    if name.startswith(TORCHATTACKS_PREFIX):
        return AttackSpec(
            name=name,
            implementation="nnunetv2_lngswr.attacks.torchattacks_adapter:torchattacks_attack",
            norms=_BOTH,
            options={"attack": name.removeprefix(TORCHATTACKS_PREFIX)},
            summary="an attack of torchattacks, 2D",
        )
    return lookup(ATTACKS, name, "attack")


def attack_of_report(name: str) -> AttackSpec | None:
    """The spec behind a name as reports have it, its norm appended or not; None: not known here."""
    return ATTACKS.get(name) or ATTACKS.get(without_norm(name))


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
    """Run an attack by name.

    Parameters
    ----------
    name
        Of `ATTACKS`, or 'torchattacks:NAME'.
    model
        A BatchModel(network) or a SlidingWindow; `ssah` needs a FeatureModel.
    x
        (B, C, *spatial), preprocessed clean cases; each is attacked on its own.
    target
        Their ground truth: LabelSpace.target(labels).
    ball
        What may be changed: ThreatModel(...).ball(Bounds.of(x)).
    generator
        Every random draw is taken from it.
    options
        Override the function's defaults: steps, restarts, loss, step_size, surrogate, ...

    Raises
    ------
    UserError
        An unknown name, a norm that the attack does not work in, an option that its name fixes,
        a surrogate that is missing, or values of `x` that are not finite.
    """
    spec = get_attack(name)
    if not x.isfinite().all():
        raise UserError(f"attack {name} needs finite values; the image has NaN or infinite ones")
    if ball.norm not in spec.norms:
        raise UserError(
            f"attack {name} works in {' or '.join(n.value for n in spec.norms)}, "
            f"got {ball.norm.value}"
        )
    if spec.needs_surrogate and "surrogate" not in options:
        raise UserError(f"attack {name} needs another model folder as surrogate (--surrogate)")
    fixed = sorted(set(spec.options) & set(options))
    if fixed:
        raise UserError(f"attack {name} fixes {', '.join(fixed)}; use another attack name")
    result = spec.function(model, x, target, ball, generator=generator, **spec.options, **options)
    assert result.perturbed.isfinite().all(), f"{name} produced a value that is not finite"
    return result.named(name)
