"""Any attack of torchattacks (Kim 2020) that takes dense logits, on 2D cases: `torchattacks:NAME`.

torchattacks knows (N, C, H, W) in [0, 1] and absolute radii. The adapter maps each channel's [min,
max] to [0, 1], hands the model over as a module whose backward pass is the exact gradient of ours,
sets `eps` to the ball's radius where the attack has one (Linf: epsilon; L2: epsilon sqrt(numel),
for attacks that name L2 in their name or `norm` argument), and projects what comes back into the
ball.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import nn

from nnunetv2_lngswr.attacks.best_iterate import AttackResult, BestIterate, finite_or_zero
from nnunetv2_lngswr.attacks.geometry import like_channels, project_onto_ball
from nnunetv2_lngswr.attacks.losses import SegmentationTarget, cross_entropy
from nnunetv2_lngswr.attacks.models import DifferentiableModel
from nnunetv2_lngswr.attacks.terms import PGD_PATH, Norm
from nnunetv2_lngswr.attacks.terms import TORCHATTACKS_PREFIX as PREFIX
from nnunetv2_lngswr.attacks.threat_model import Ball, Bounds
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import lookup

IGNORED = -100  # torch's cross_entropy leaves this label out


def torchattacks_attack(
    model: DifferentiableModel,
    x: torch.Tensor,
    target: SegmentationTarget,
    ball: Ball,
    *,
    generator: torch.Generator,
    attack: str,
    **options: Any,
) -> AttackResult:
    """An attack of torchattacks.

    Parameters
    ----------
    model, x, target, ball, generator
        As in `registry.run_attack`; x is (B, C, H, W) or (B, C, 1, H, W), epsilon in unit range.
    attack
        A class of torchattacks, such as PGD.
    options
        Of its constructor; "alpha", where it has one, is by default 2.5 epsilon / steps.

    Raises
    ------
    UserError
        The package is missing, the case is not 2D, the heads are regions, the unit is not the
        range, or the attack works in the other norm or refuses dense logits.
    """
    name = PREFIX + attack
    kind = lookup(classes(), attack, "torchattacks attack")
    _check(name, x, target, ball)
    module = _UnitModule(model, x, ball.bounds)
    options = _constructor_options(name, kind, x, ball, options)
    # torchattacks draws from the global state
    seed = int(torch.randint(0, 2**31 - 1, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
        torch.manual_seed(seed)
        runner = kind(module, **options)
        runner.set_device(x.device)
        try:
            found = runner(module.to_unit(x), _labels(target, module.slices))
        except (RuntimeError, IndexError, TypeError) as error:
            raise UserError(
                f"{name} does not take dense logits (or these options {options}): {error}"
            ) from error
    best = BestIterate(x, target, ball)
    perturbed = module.to_case(found.detach())
    perturbed = torch.where(perturbed.isfinite(), perturbed, x)
    best.evaluate(model, project_onto_ball(perturbed, x, ball), cross_entropy)
    best.non_finite += module.non_finite
    best.forwards += module.forwards
    best.gradients += module.gradients
    settings = {"seed": seed, **{k: v for k, v in options.items() if k != "eps"}}
    return best.result(name, settings=settings)


def classes() -> dict[str, type]:
    """{name: class} of torchattacks' attacks.

    Raises
    ------
    UserError
        That package is not installed.
    """
    try:
        import torchattacks
        from torchattacks.attack import Attack
    except ImportError as error:
        raise UserError(
            f"torchattacks:NAME needs that package: pip install --no-deps torchattacks ({error})"
        ) from error
    return {
        n: c
        for n, c in vars(torchattacks).items()
        if inspect.isclass(c) and issubclass(c, Attack) and c is not Attack
    }


def _check(name: str, x: torch.Tensor, target: SegmentationTarget, ball: Ball) -> None:
    if target.regions:
        raise UserError(f"{name} needs exclusive labels (softmax); this model has regions")
    if not (x.ndim == 4 or (x.ndim == 5 and x.shape[2] == 1)):
        raise UserError(f"{name} works on 2D cases of one slice, got shape {tuple(x.shape)}")
    extent = ball.bounds.extent
    if not (torch.equal(ball.scale, extent) and bool((extent > 0).all())):
        raise UserError(
            f"{name} needs epsilon in units of the range and every channel an image that is not "
            "constant"
        )


def _constructor_options(
    name: str, kind: type, x: torch.Tensor, ball: Ball, options: dict[str, Any]
) -> dict[str, Any]:
    """`options` with the ball's norm and radius, where the attack has them."""
    options, in_l2 = dict(options), ball.norm is Norm.L2
    parameters = inspect.signature(kind.__init__).parameters
    if "norm" in parameters:
        options.setdefault("norm", "L2" if in_l2 else "Linf")
    if "eps" in parameters:
        options["eps"] = ball.epsilon * (math.sqrt(x[0].numel()) if in_l2 else 1)
        # torchattacks names its L2 attacks so
        theirs = options.get("norm", "L2" if "L2" in name else "Linf")
        if ("L2" in theirs) != in_l2:
            norm = Norm.L2 if "L2" in theirs else Norm.LINF
            raise UserError(f"{name} works in {norm.value}, got {ball.norm.value}")
        if "alpha" in parameters:
            # theirs is absolute, and leaves a large ball unused, or jumps over a small one
            steps = options.get("steps", getattr(parameters.get("steps"), "default", 1))
            options.setdefault("alpha", min(1, PGD_PATH / steps) * options["eps"])
    return options


def _labels(target: SegmentationTarget, slices: bool) -> torch.Tensor:
    """(B, H, W) labels, IGNORED where not counted."""
    labels = torch.where(target.mask[:, 0], target.one_hot.to(torch.uint8).argmax(1), IGNORED)
    return labels[:, 0] if slices else labels


class _UnitModule(nn.Module):
    """(N, C, H, W) in [0, 1] -> (N, K, H, W), differentiable by our models' exact gradients."""

    def __init__(self, model: DifferentiableModel, x: torch.Tensor, bounds: Bounds) -> None:
        super().__init__()
        self.model = model
        self.minimum, self.extent = (like_channels(v, x) for v in (bounds.minimum, bounds.extent))
        self.slices = x.ndim == 5  # of one slice
        self.forwards = self.gradients = 0
        self.non_finite = 0  # of logits or, at finite ones, gradients: the losses are torchattacks'
        # torchattacks looks for the device of the first parameter
        self.device_marker = nn.Parameter(torch.zeros(()), requires_grad=False)

    def to_unit(self, x: torch.Tensor) -> torch.Tensor:
        unit = ((x - self.minimum) / self.extent).clamp(0, 1)
        return unit[:, :, 0] if self.slices else unit

    def to_case(self, unit: torch.Tensor) -> torch.Tensor:
        return self.minimum + self.extent * (unit[:, :, None] if self.slices else unit)

    def forward(self, unit: torch.Tensor) -> torch.Tensor:
        z = _Logits.apply(self.to_case(unit), self)
        return z[:, :, 0] if self.slices else z


class _Logits(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, module):
        ctx.module = module
        ctx.save_for_backward(x)
        module.forwards += 1
        z = module.model.logits(x.detach())
        module.non_finite += not bool(z.isfinite().all())
        return z

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        ctx.module.gradients += 1
        _, gradient, z = ctx.module.model.value_and_gradient(
            x, lambda z: (z * cotangent).flatten(1).sum(1)
        )
        # that of logits which are not finite is counted already
        ctx.module.non_finite += bool(z.isfinite().all()) and not bool(gradient.isfinite().all())
        return finite_or_zero(gradient), None
