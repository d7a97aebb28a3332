"""What rolling free adversarial training saves where a training waits for its augmentation.

    python -m benchmarks.rolling_loading -d DATASET -c 2d [-p nnUNetPlans] [-f 0] [--replays 5]
        [--batch_size 10] [--processes 0] [--turns 9] [--steps 10] [-device cpu] [-o FILE.json]

Whole training steps of vanilla nnU-Net, AT, AT "free" and AT "free" that is rolling, with nnU-Net's
own loaders and augmentation of a data set that it has preprocessed. The arms take turns of so many
steps, and only the one whose turn it is augments; what is printed is the median over the turns of
an arm's time, beside vanilla's of the same turn, the part of it that went by waiting for the
loader, and how many samples were augmented for a step. `--processes 0`: augmentation in the
training's own process, so that every step waits for all of it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from nnunetv2.paths import nnUNet_preprocessed

from nnunetv2_lngswr.experiments.overhead import conditions
from nnunetv2_lngswr.trainers import nnUNetTrainerAT, nnUNetTrainerVanilla
from nnunetv2_lngswr.training.plans_entry import PROCESSES
from nnunetv2_lngswr.utils.files import write_file

BASELINE = "vanilla"


def settings_of(replays: int) -> dict[str, tuple[type, dict[str, Any]]]:
    """Trainer and "adversarial" settings of each arm."""
    free = {"scheme": "free", "replays": replays}
    return {
        BASELINE: (nnUNetTrainerVanilla, {}),
        "AT": (nnUNetTrainerAT, {}),
        "AT free": (nnUNetTrainerAT, free),
        "AT free, rolling": (nnUNetTrainerAT, {**free, "rolling": True}),
    }


class LoadedArm:
    """A trainer in its first epoch, its loaders at rest."""

    def __init__(self, trainer: Any, device: str) -> None:
        self.trainer, self.device = trainer, device
        trainer.on_train_start()
        trainer.on_train_epoch_start()
        self._last: Any = None
        self.rest()

    def rest(self) -> None:
        """End what augments in the background; the next batch starts it again."""
        train = self.trainer.dataloader_train
        for loader in (getattr(train, "batches", train), self.trainer.dataloader_val):
            if isinstance(loader, NonDetMultiThreadedAugmenter):
                loader._finish()

    def turn(self, steps: int) -> dict[str, float]:
        """Seconds, seconds of waiting, and samples augmented, each per step, after one step that
        warms up."""
        self._step()
        found = {"s": 0.0, "waiting_s": 0.0, "augmented": 0.0}
        for _ in range(steps):
            start = time.perf_counter()
            waited, augmented = self._step()
            found["s"] += (time.perf_counter() - start) / steps
            found["waiting_s"] += waited / steps
            found["augmented"] += augmented / steps
        self.rest()
        return found

    def _step(self) -> tuple[float, int]:
        """(seconds of waiting, samples that are new)"""
        start = time.perf_counter()
        batch = next(self.trainer.dataloader_train)
        waited = time.perf_counter() - start
        new = 0 if batch is self._last else len(batch["data"])
        self._last = batch
        self.trainer.train_step(batch)
        if self.device == "cuda":
            torch.cuda.synchronize()
        return waited, new


def make_arms(args: argparse.Namespace, plans: dict, dataset: dict) -> dict[str, LoadedArm]:
    """All arms; what nnU-Net writes goes to nnUNet_results."""
    arms = {}
    for number, (name, (trainer, adversarial)) in enumerate(settings_of(args.replays).items()):
        own = json.loads(json.dumps(plans))
        own |= {"plans_name": f"rollingLoading{number}", "continue_training": False}
        # a seed means one process
        seed = 0 if args.processes == 0 else None
        entry = {"seed": seed, "adversarial": {**adversarial, "ramp_up": 0.0}}
        configuration = own["configurations"][args.c]
        configuration["lngswr"] = entry
        if args.batch_size:
            configuration["batch_size"] = args.batch_size
        with contextlib.redirect_stdout(sys.stderr):
            made = trainer(own, args.c, args.f, dataset, device=torch.device(args.device))
            arms[name] = LoadedArm(made, args.device)
    return arms


def measure(arms: Mapping[str, LoadedArm], turns: int, steps: int) -> dict[str, dict[str, float]]:
    """Medians over the turns, after one that warms up; ratios are those to vanilla's turn."""
    found = {name: [] for name in arms}
    for turn in range(turns + 1):
        for name, arm in arms.items():
            figures = arm.turn(steps)
            if turn:
                found[name].append(figures)
    result = {}
    for name, mine in found.items():
        ratios = [a["s"] / b["s"] for a, b in zip(mine, found[BASELINE], strict=True)]
        result[name] = {
            "ratio": statistics.median(ratios),
            "ratio_min": min(ratios),
            "ratio_max": max(ratios),
            **{key: statistics.median(f[key] for f in mine) for key in mine[0]},
        }
    return result


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("-d", required=True, metavar="DATASET", help="full name, in nnUNet_preprocessed")
    add("-c", required=True, metavar="CONFIGURATION")
    add("-p", default="nnUNetPlans", metavar="PLANS")
    add("-f", default=0, type=int, metavar="FOLD")
    add("--replays", type=int, default=5, help="m; divides the batch size (%(default)s)")
    add("--batch_size", type=int, help="instead of the plans'")
    add("--processes", type=int, default=0, help="that augment; 0: the training's own")
    add("--turns", type=int, default=9, help="of each arm, after one that warms up")
    add("--steps", type=int, default=10, help="of a turn; a multiple of replays")
    add("--threads", type=int, default=1)
    add("-device", default="cpu", help="cpu or cuda")
    add("-o", type=Path, help="write the figures as JSON")
    args = parser.parse_args(argv)
    if args.steps % args.replays:
        parser.error(f"--steps must be a multiple of --replays, got {args.steps}, {args.replays}")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    words = sys.argv[1:] if argv is None else argv
    torch.set_num_threads(args.threads)
    folder = Path(str(nnUNet_preprocessed)) / args.d
    plans, dataset = (
        json.loads((folder / name).read_text()) for name in (f"{args.p}.json", "dataset.json")
    )
    before = {name: os.environ.get(name) for name in (PROCESSES, "nnUNet_results")}
    with tempfile.TemporaryDirectory() as results:
        os.environ |= {PROCESSES: str(args.processes), "nnUNet_results": results}
        try:
            arms = make_arms(args, plans, dataset)
            figures = measure(arms, args.turns, args.steps)
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
    configuration = arms[BASELINE].trainer.configuration_manager
    result = {
        **conditions(
            " ".join(["python -m benchmarks.rolling_loading", *words]), args.device, args.threads
        ),
        "data": {
            "dataset": args.d,
            "configuration": args.c,
            "batch_size": configuration.batch_size,
            "patch_size": list(configuration.patch_size),
        },
        "replays": args.replays,
        "processes": args.processes,
        "arms": figures,
    }
    for name, f in figures.items():
        spread = f"[{f['ratio_min']:.2f}, {f['ratio_max']:.2f}]"
        print(
            f"{name:<18} {f['ratio']:.3f} {spread}  {f['s']:.3f} s a step, of it "
            f"{f['waiting_s']:.3f} waiting; {f['augmented']:.1f} samples augmented"
        )
    if args.o:
        write_file(args.o, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
