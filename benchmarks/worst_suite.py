"""What the standard suite is chosen by: every candidate attack on every case, and brute force.

    python -m benchmarks.worst_suite MODEL_FOLDER... -o OUT [--epsilons 4/255 8/255]
        [--cases 12] [--brute 6] [--fold 0] [--threads 1]

Cases are a seeded choice of each model's validation cases, through the deployed sliding window
without mirroring. OUT/measured.jsonl holds one line per model, case and budget, with the Dice and
the cost of every candidate; a call that was stopped goes on. `worst_suite_table.py OUT` reads it,
chooses greedily on one half of the cases (by patient) and states what is missed on the other.

Brute force: PGD of 200 steps with five restarts on each of three losses (CE, soft Dice, scale-free
Dice), apgd_dice of 100 steps with five, then an evolutionary refinement of the best point of these
and of the candidates run in the same call, by blocks of flipped signs.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from evaluation.inputs import CaseFiles, choose, from_cross_validation
from evaluation.model.folder import SegmentationModel
from evaluation.model.sliding_window import SlidingWindow
from nnunetv2_lngswr.attacks import Bounds, ThreatModel, run_attack
from nnunetv2_lngswr.attacks.best_iterate import AttackResult
from nnunetv2_lngswr.attacks.geometry import like_channels, project_onto_ball
from nnunetv2_lngswr.attacks.hard_dice import foreground_dice
from nnunetv2_lngswr.attacks.losses import SegmentationTarget
from nnunetv2_lngswr.attacks.threat_model import Ball
from nnunetv2_lngswr.utils.epsilon import parse_budget


@dataclass(frozen=True)
class Candidate:
    """An attack with its options, from a random start or from another candidate's best point."""

    attack: str
    options: dict[str, Any] = field(default_factory=dict)
    after: str = ""


def _plain_dice(steps: int, after: str, temperature: float = 1.0) -> Candidate:
    options = {"steps": steps, "temperature": temperature, "scale_free": False}
    return Candidate("apgd_dice", {**options, "radius_schedule": False}, after)


def _dice(steps: int, after: str = "", **options: Any) -> Candidate:
    if after:
        options["radius_schedule"] = False
    return Candidate("apgd_dice", {"steps": steps, **options}, after)


CANDIDATES = {
    "pgd ce 10": Candidate("pgd", {"steps": 10}),
    "pgd ce 40": Candidate("pgd", {"steps": 40}),
    "pgd dice_ce 40": Candidate("pgd", {"steps": 40, "loss": "dice_ce"}),
    "pgd soft_dice 40": Candidate("pgd", {"steps": 40, "loss": "soft_dice"}),
    "pgd scale_free_dice 40": Candidate("pgd", {"steps": 40, "loss": "scale_free_dice"}),
    "segpgd 40": Candidate("segpgd", {"steps": 40}),
    "cospgd 40": Candidate("cospgd", {"steps": 40}),
    "apgd ce 40": Candidate("apgd", {"steps": 40, "radius_schedule": False}),
    "apgd masked_ce 40": Candidate("apgd", {"steps": 40, "loss": "masked_ce"}),
    "apgd js 40": Candidate("apgd", {"steps": 40, "loss": "js"}),
    "square 200": Candidate("square", {"steps": 200}),
    "dice T2 20": _dice(20, temperature=2.0, scale_free=False),
    "dice T2 40": _dice(40, temperature=2.0, scale_free=False),
    "dice .025 20": _dice(20, temperature=0.025),
    "dice .1 20": _dice(20, temperature=0.1),
    "dice .25 20": _dice(20, temperature=0.25),
    "dice 10": _dice(10),
    "dice 20": _dice(20),
    "dice 20 one radius": _dice(20, radius_schedule=False),
    "dice 40": _dice(40),
    "dice 10 > dice 10": _dice(10, after="dice 10"),
    "dice 10 > plain dice 10": _plain_dice(10, "dice 10"),
    "dice 10 > plain dice 10 > dice 10": _dice(10, after="dice 10 > plain dice 10"),
    "dice 20 > plain dice 20": _plain_dice(20, "dice 20"),
    "dice 20 > dice 20": _dice(20, after="dice 20"),
    "pgd ce 10 > dice 10": _dice(10, after="pgd ce 10"),
    "pgd ce 40 > dice 20": _dice(20, after="pgd ce 40"),
}
BRUTE_LOSSES = ("ce", "soft_dice", "scale_free_dice")
REFINEMENTS = 500


def main() -> None:
    """The command above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("-o", required=True, type=Path, dest="out")
    parser.add_argument("--epsilons", nargs="+", default=["8/255"])
    parser.add_argument("--norm", default="linf")
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--brute", type=int, default=0, help="cases that brute force is run on")
    parser.add_argument("--brute-steps", type=int, default=200)
    parser.add_argument("--candidates", nargs="+", default=list(CANDIDATES))
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    for folder in args.models:
        _measure_model(folder, args)


def _measure_model(folder: Path, args: argparse.Namespace) -> None:
    model = SegmentationModel.from_folder(
        folder, folds=[args.fold], device="cpu", use_mirroring=False
    )
    window = model.sliding_window()
    # every other one is for brute force, so that it falls into both halves
    cases = choose(_validation_cases(model, args.fold), args.cases, seed=0)
    file = args.out / "measured.jsonl"
    for number, files in enumerate(cases):
        case = model.preprocess(files.images, files.label, None, identifier=files.identifier)
        x, target = case.batch, case.target(model.label_space)
        for epsilon in args.epsilons:
            threat = ThreatModel(norm=args.norm, epsilon=float(parse_budget(epsilon)))
            ball = threat.ball(Bounds.of(x, image_channels=case.image_channels))
            key = {
                "dataset": model.plans.dataset_name,
                "configuration": model.configuration,
                "trainer": model.trainer_name,
                "case": files.identifier,
                "norm": args.norm,
                "epsilon": epsilon,
            }
            have = _measured(file, key)
            todo = [c for c in args.candidates if c not in have]
            brute = number < args.brute and "brute" not in have
            if not todo and not brute:
                continue
            point = _Point(window, x, target, ball)
            found = {"clean": point.clean(), **point.candidates(todo)}
            if math.isnan(found["clean"]["dice"]):
                continue  # no foreground in truth and prediction
            if brute:
                found["brute"] = point.brute_force(args.brute_steps)
            with open(file, "a", encoding="utf-8") as lines:
                lines.write(json.dumps({**key, "found": found}) + "\n")
            print(key["trainer"], key["case"], epsilon, _short(found), flush=True)


def _validation_cases(model: SegmentationModel, fold: int) -> list[CaseFiles]:
    return from_cross_validation(
        dataset=model.plans.dataset_name,
        folds=[fold],
        ending=model.file_ending,
        channels=model.image_channels,
        previous_stage=None,
    )


def _measured(file: Path, key: dict[str, str]) -> set[str]:
    if not file.is_file():
        return set()
    with open(file, encoding="utf-8") as text:
        lines = [json.loads(line) for line in text]
    return {n for line in lines if key.items() <= line.items() for n in line["found"]}


def _short(found: dict[str, Any]) -> str:
    return " ".join(f"{name}: {100 * value['dice']:.1f}" for name, value in found.items())


class _Point:
    """One model, case and ball; the best point of every candidate is kept for those after it."""

    def __init__(
        self, window: SlidingWindow, x: torch.Tensor, target: SegmentationTarget, ball: Ball
    ) -> None:
        self.window, self.x, self.target, self.ball = window, x, target, ball
        self.results: dict[str, AttackResult] = {}

    def clean(self) -> dict[str, float]:
        z = self.window.logits(self.x)
        return {"dice": float(foreground_dice(z, self.target))}

    def candidates(self, names: list[str]) -> dict[str, dict[str, float]]:
        found = {}
        for name in names:
            # the time of what a chain starts with is counted in it
            found[name] = {"dice": float(self._run(name).dice), **self._costs(name)}
        return found

    def _run(self, name: str) -> AttackResult:
        if name not in self.results:
            candidate = CANDIDATES[name]
            options = dict(candidate.options)
            if candidate.after:
                options["start"] = self._run(candidate.after).perturbed
            self.results[name] = self._attack(candidate.attack, **options)
        return self.results[name]

    def _attack(self, attack: str, *, seed: int = 0, **options: Any) -> AttackResult:
        name = f"pgd_{self.ball.norm.value}" if attack == "pgd" else attack
        generator = torch.Generator().manual_seed(seed)
        return run_attack(
            name, self.window, self.x, self.target, self.ball, generator=generator, **options
        )

    def _costs(self, name: str) -> dict[str, int]:
        costs = {"forwards": 0, "gradients": 0}
        while name:
            result = self.results[name]
            costs["forwards"] += result.forwards
            costs["gradients"] += result.gradients
            name = CANDIDATES[name].after
        return costs

    def brute_force(self, steps: int) -> dict[str, float]:
        started = time.perf_counter()
        tries = [*self.results.values(), *self._brute_attacks(steps)]
        best = min(tries, key=lambda r: float(r.dice))
        before, dice = float(best.dice), self._refined(best)
        return {
            "dice": dice,
            "before_refinement": before,
            "seconds": time.perf_counter() - started,
        }

    def _brute_attacks(self, steps: int) -> Iterator[AttackResult]:
        for loss in BRUTE_LOSSES:
            yield self._attack("pgd", seed=1, steps=steps, restarts=5, loss=loss)
        yield self._attack("apgd_dice", seed=1, steps=steps // 2, restarts=5)

    def _refined(self, best: AttackResult) -> float:
        """Lowest Dice over random blocks set to one sign, each kept where Dice does not rise."""
        generator = torch.Generator().manual_seed(2)
        held, dice = best.perturbed, float(best.dice)
        reach = self.ball.epsilon * like_channels(self.ball.scale, self.x)
        for _ in range(REFINEMENTS):
            if dice == 0:
                break
            block = [slice(None), slice(None)]
            for n in self.x.shape[2:]:
                width = int(torch.randint(1, max(n // 4, 1) + 1, (), generator=generator))
                start = int(torch.randint(0, n - width + 1, (), generator=generator))
                block.append(slice(start, start + width))
            sign = int(torch.randint(0, 2, (), generator=generator)) * 2 - 1
            tried = held.clone()
            tried[tuple(block)] = (self.x + sign * reach)[tuple(block)]
            tried = project_onto_ball(tried, self.x, self.ball)
            found = float(foreground_dice(self.window.logits(tried), self.target))
            if found <= dice:
                held, dice = tried, found
        return dice


if __name__ == "__main__":
    main()
