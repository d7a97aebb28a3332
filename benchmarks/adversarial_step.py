"""What a step of adversarial training costs relative to vanilla nnU-Net's, for a 2D and a 3D plan.

    python -m benchmarks.adversarial_step [--plans 2d 3d] [--repeats 9] [--threads 2]
        [--device cpu] [-o FILE.json]

Per scheme, with and without LNG-SWR. Plans, arms, the step and how they take turns are those of
`lngswr benchmark overhead`; on top of it comes what the trainers do: the target, the bounds of the
case (read before, as in all but the first epoch), the attack, and for "free" the update of the
perturbation. "free" is one step of a replayed batch: `replays` does not change its cost.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from nnunetv2_lngswr.attacks import LabelSpace, ThreatModel
from nnunetv2_lngswr.attacks.geometry import project_onto_ball, step_direction
from nnunetv2_lngswr.experiments.overhead import PLANS, Arm, conditions, time_ratios
from nnunetv2_lngswr.training.adversarial_batch import craft
from nnunetv2_lngswr.training.bounds import patch_bounds
from nnunetv2_lngswr.training.settings import ATConfig
from nnunetv2_lngswr.utils.files import write_file

SCHEMES = {
    "AT FGSM-RS": ATConfig(),
    "AT FGSM-RS, half clean": ATConfig(clean_share=0.5),
    "AT FGSM-RS, L2": ATConfig(norm="l2"),
    "AT free": ATConfig(scheme="free"),
    "AT PGD-2": ATConfig(scheme="pgd", steps=2),
    "AT PGD-3": ATConfig(scheme="pgd", steps=3),
}


class AdversarialArm(Arm):
    """An arm of `experiments.overhead`, vanilla or LNG-SWR, whose batch is attacked."""

    def __init__(self, base: str, config: ATConfig, plan: dict, device: str):
        super().__init__(base, plan, device)
        self.config = config
        self.clean = self.x
        self.case_range = tuple(f(self.x.flatten(2), 2) for f in (torch.amin, torch.amax))
        self.generator = torch.Generator(device).manual_seed(0)
        self.carried = torch.zeros_like(self.x)

    def ball(self, samples: slice):
        """What the attack may do to these samples."""
        bounds = patch_bounds(self.clean[samples], tuple(r[samples] for r in self.case_range), 1)
        return ThreatModel(norm=self.config.norm, epsilon=self.config.epsilon).ball(bounds)

    def train_step(self) -> None:
        """One step of the scheme."""
        if self.config.scheme == "free":
            self.free_step()
            return
        samples = slice(round(len(self.clean) * self.config.clean_share), None)
        attacked = craft(
            self.network,
            self.clean[samples],
            LabelSpace.softmax(2).target(self.y[samples]),
            self.ball(samples),
            steps=self.config.attack_steps,
            relative_step_size=self.config.relative_step_size,
            generator=self.generator,
        )
        self.x = torch.cat((self.clean[: samples.start], attacked))
        super().train_step()

    def free_step(self) -> None:
        """One replay: the step of the network and that of the perturbation."""
        ball = self.ball(slice(None))
        self.x = project_onto_ball(self.clean + self.carried, self.clean, ball).requires_grad_()
        super().train_step()
        step = self.config.relative_step_size * ball.epsilon * step_direction(self.x.grad, ball)
        self.carried = project_onto_ball(self.x.detach() + step, self.clean, ball) - self.clean


def arms_of(plan: dict, device: str) -> dict[str, Arm]:
    """Vanilla and LNG-SWR, each scheme on vanilla, and two of them on LNG-SWR."""
    arms = {name: Arm(name, plan, device) for name in ("vanilla", "LNG-SWR", "LNG-SWR, guided")}
    for name, config in SCHEMES.items():
        arms[name] = AdversarialArm("vanilla", config, plan, device)
    for name in ("AT FGSM-RS", "AT free"):
        arms[f"LNG-SWR + {name}"] = AdversarialArm("LNG-SWR", SCHEMES[name], plan, device)
    return arms


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--plans", nargs="+", choices=list(PLANS), default=list(PLANS))
    parser.add_argument(
        "--repeats", type=int, default=9, help="turns of each arm after 3 that warm up"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (in single precision)")
    parser.add_argument("-o", type=Path, help="write the figures as JSON")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    command = " ".join(
        ["python", "-m", "benchmarks.adversarial_step", *(sys.argv[1:] if argv is None else argv)]
    )
    result = {**conditions(command, args.device, args.threads), "plans": {}}
    for plan in args.plans:
        arms = arms_of(PLANS[plan], args.device)
        figures = time_ratios(arms, args.repeats, args.device, ("train_step",))
        result["plans"][plan] = {"plan": PLANS[plan], "arms": figures}
        print(f"{plan}: {PLANS[plan]}")
        for name, f in figures.items():
            step = f["train_step"]
            spread = f"[{step['ratio_min']:.2f}, {step['ratio_max']:.2f}]"
            print(f"  {name:<24} {step['ratio']:.3f} {spread}  {step['median_s']:.3f} s")
    if args.o:
        write_file(args.o, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
