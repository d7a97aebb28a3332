"""Any attack of torchattacks (Kim 2020) that takes dense logits, on 2D cases: `torchattacks:NAME`.

torchattacks knows (N, C, H, W) in [0, 1] and absolute radii. The adapter maps each channel's [min, max] to [0, 1], hands the model over as a
module whose backward pass is the exact gradient of ours, sets `eps` to the ball's radius where the attack has one (Linf: epsilon; L2:
epsilon sqrt(numel), for attacks that name L2 in their name or `norm` argument), and projects what comes back into the ball.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import nn

from nnunetv2_lngswr.attacks.base import (
    AttackResult,
    BestIterate,
    DifferentiableModel,
    project_onto_ball,
)
from nnunetv2_lngswr.attacks.losses import SegmentationTarget, cross_entropy
from nnunetv2_lngswr.attacks.threat_model import Ball, Norm
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import lookup

PREFIX = "torchattacks:"
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
    """`attack`: a class of torchattacks, such as PGD; `options` go to its constructor. ValueError when the package is missing, the case is
    not 2D, the heads are regions, the unit is not the range, or the attack refuses dense logits."""
    name = PREFIX + attack
    kind = lookup(classes(), attack, "torchattacks attack")
    if target.regions:
        raise UserError(f"{name} needs exclusive labels (softmax); this model has regions")
    slices = x.ndim == 5
    if not (x.ndim == 4 or (slices and x.shape[2] == 1)):
        raise UserError(f"{name} works on 2D cases of one slice, got shape {tuple(x.shape)}")
    extent = ball.bounds.maximum - ball.bounds.minimum
    if not (torch.equal(ball.scale, extent) and bool((extent > 0).all())):
        raise UserError(
            f"{name} needs epsilon in units of the range and every channel an image that is not constant"
        )
    minimum, extent = (
        v.reshape(*v.shape, *[1] * (x.ndim - 2)) for v in (ball.bounds.minimum, extent)
    )

    def to_case(unit: torch.Tensor) -> torch.Tensor:
        return minimum + extent * (unit[:, :, None] if slices else unit)

    module = _Module(model, to_case, slices)
    unit = ((x - minimum) / extent).clamp(0, 1)
    labels = torch.where(target.mask[:, 0], target.one_hot.to(torch.uint8).argmax(1), IGNORED)
    if slices:
        unit, labels = unit[:, :, 0], labels[:, 0]
    parameters = inspect.signature(kind.__init__).parameters
    if "norm" in parameters:
        options.setdefault("norm", {Norm.LINF: "Linf", Norm.L2: "L2"}[ball.norm])
    if "eps" in parameters:
        options["eps"] = ball.epsilon * (math.sqrt(x[0].numel()) if ball.norm is Norm.L2 else 1)
        in_l2 = "L2" in (options.get("norm", "L2" if "L2" in attack else "Linf"))
        if in_l2 != (ball.norm is Norm.L2):
            raise UserError(f"{name} works in {'l2' if in_l2 else 'linf'}, got {ball.norm.value}")
    seed = int(torch.randint(0, 2**31 - 1, (), generator=generator))
    with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
        torch.manual_seed(seed)  # torchattacks draws from the global state
        runner = kind(module, **options)
        runner.set_device(x.device)
        try:
            found = runner(unit, labels)
        except (RuntimeError, IndexError, TypeError) as error:
            raise UserError(
                f"{name} does not take dense logits (or these options {options}): {error}"
            ) from error
    search = BestIterate(x, target, ball)
    search.evaluate(
        model,
        project_onto_ball(to_case(found.detach()), x, ball),
        lambda z: cross_entropy(z, target),
    )
    search.forwards += module.forwards
    search.gradients += module.gradients
    return search.result(
        name, settings={"seed": seed, **{k: v for k, v in options.items() if k != "eps"}}
    )


class _Module(nn.Module):
    """(N, C, H, W) in [0, 1] -> (N, K, H, W), differentiable through DifferentiableModel.value_and_gradient."""

    def __init__(self, model: DifferentiableModel, to_case, slices: bool) -> None:
        super().__init__()
        self.model, self.to_case, self.slices = model, to_case, slices
        self.forwards = self.gradients = 0
        # torchattacks looks for the device of the first parameter
        self.device_marker = nn.Parameter(torch.zeros(()), requires_grad=False)

    def forward(self, unit: torch.Tensor) -> torch.Tensor:
        z = _Logits.apply(self.to_case(unit), self)
        return z[:, :, 0] if self.slices else z


class _Logits(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, module):
        ctx.module = module
        ctx.save_for_backward(x)
        module.forwards += 1
        return module.model.logits(x.detach())

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        ctx.module.gradients += 1
        _, gradient, _ = ctx.module.model.value_and_gradient(
            x, lambda z: (z * cotangent).flatten(1).sum(1)
        )
        return gradient, None


def classes() -> dict[str, type]:
    """{name: class} of torchattacks' attacks. ValueError where that package is not installed."""
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
