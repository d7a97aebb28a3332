"""Which last phase of adversarial training: one plain phase per seed, several last phases from it.

    python benchmarks/late_phase.py FOLDER WORK --phases PHASES.json -o OUT.json

FOLDER is that of a `lngswr benchmark robustness` in 2d, whose plans and preprocessed data are used;
the raw data are found by nnUNet_raw. PHASES.json holds {NAME: {"num_epochs": 2, "adversarial":
{...}}, ...}. The validation cases of fold 0 are neither trained on nor looked at, those of fold 1
are attacked by the standard suite. What a last phase gives is so compared at a fifth of the cost of
whole trainings. What is in WORK already is not done again.
"""

import argparse
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.saving import command_line, write_json
from nnunetv2_lngswr.experiments.robustness.benchmark import find_raw
from nnunetv2_lngswr.utils.files import read_json, write_file
from nnunetv2_lngswr.utils.processes import run_command

PLAIN, ATTACKED = "nnUNetTrainerVanilla", "nnUNetTrainerAT"
HELD_OUT, SEARCHED = 0, 1
ITERATIONS = {"num_iterations_per_epoch": 50, "num_val_iterations_per_epoch": 5}
ATTACK = ["--attacks", "worst", "--epsilons", "4/255", "8/255"]
ONLY = ["--epsilons-l2", "none", "--corruptions", "none", "--disable_tta", "-device", "cpu"]


@dataclass(frozen=True)
class Search:
    """Where it works, on which data, at which budget."""

    work: Path
    dataset: str
    plain_epochs: int
    cases: int

    @property
    def preprocessed(self) -> Path:
        return self.work / "nnUNet_preprocessed" / self.dataset

    def model(self, trainer: str, plans: str) -> Path:
        return self.work / "nnUNet_results" / self.dataset / f"{trainer}__{plans}__2d"

    def run(self, name: str, command: list[str]) -> None:
        """Run a command with nnU-Net's folders in `work`; its output in a log there."""
        folders = ("nnUNet_preprocessed", "nnUNet_results")
        environment = {folder: str(self.work / folder) for folder in folders}
        environment |= {"nnUNet_raw": str(find_raw(self.dataset)), "nnUNet_compile": "f"}
        run_command(command, self.work / f"{name}.log", environment=environment, say=print)

    def train(self, trainer: str, plans: str, entry: Mapping[str, Any]) -> Path:
        """Train with a "lngswr" entry and return the checkpoint, or return that which is there."""
        template = read_json(self.work / "plans.json", needs=("configurations",))
        template["plans_name"] = plans
        template["configurations"]["2d"]["lngswr"] = {**ITERATIONS, **entry}
        write_file(self.preprocessed / f"{plans}.json", json.dumps(template))
        checkpoint = self.model(trainer, plans) / "fold_0/checkpoint_final.pth"
        if not checkpoint.exists():
            its = ["nnUNetv2_train", self.dataset, "2d", "0", "-tr", trainer, "-p", plans]
            self.run(plans, [*its, "-device", "cpu"])
        return checkpoint

    def evaluate(self, plans: str) -> dict[str, float]:
        """Return Dice in percent, clean and worst per budget."""
        output = self.work / "evaluations" / plans
        if not (output / "summary.json").exists():
            model = str(self.model(ATTACKED, plans))
            command = [
                "lngswr",
                "evaluate",
                "-m",
                model,
                "-f",
                "0",
                "-o",
                str(output),
                *ATTACK,
                *ONLY,
            ]
            self.run(f"{plans}_evaluation", [*command, "--max-cases", str(self.cases)])
        results = read_json(output / "summary.json", needs=("results",))["results"]
        rows = [r for r in results if r["kind"] in ("clean", "worst")]
        return {f"{r['kind']} {r['epsilon_text'] or ''}".strip(): 100 * r["dice"] for r in rows}


def prepare(folder: Path, search: Search, plans: str) -> None:
    """Copy a benchmark's preprocessed data, with one split that leaves the held-out fold alone."""
    if search.preprocessed.exists():
        return
    shutil.copytree(folder / "nnUNet_preprocessed" / search.dataset, search.preprocessed)
    shutil.copy(search.preprocessed / plans, search.work / "plans.json")
    file = search.preprocessed / "splits_final.json"
    folds = read_json(file)
    searched = folds[SEARCHED]["val"]
    train = sorted(set(folds[SEARCHED]["train"]) - set(folds[HELD_OUT]["val"]))
    write_file(file, json.dumps([{"train": train, "val": searched}]))


def main(argv: list[str] | None = None) -> None:
    """Train, evaluate, and write each seed's Dice."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("--phases", type=Path, required=True, metavar="PHASES.json")
    parser.add_argument("--plain-epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("-o", dest="output", type=Path, required=True, metavar="OUT.json")
    args = parser.parse_args(argv)
    dataset = read_json(args.folder / "benchmark.json", needs=("dataset",))["dataset"]
    search = Search(args.work.resolve(), dataset, args.plain_epochs, args.cases)
    prepare(args.folder, search, "lngswrBenchmarkSeed0.json")
    phases = read_json(args.phases)
    dice: dict[str, dict[str, dict[str, float]]] = {name: {} for name in phases}
    for seed in args.seeds:
        plain = {"num_epochs": search.plain_epochs, "seed": seed}
        start = search.train(PLAIN, f"s{seed}_P{search.plain_epochs}", plain)
        for name, entry in phases.items():
            plans = f"s{seed}_{name}"
            search.train(ATTACKED, plans, {**entry, "seed": seed, "warm_start": str(start)})
            dice[name][f"seed {seed}"] = search.evaluate(plans)
            print(name, seed, dice[name][f"seed {seed}"])
    written = {
        "date": date.today().isoformat(),
        "command": command_line("late_phase", argv),
        "device": "CPU",
        "versions": {package: version(package) for package in ("torch", "nnunetv2")},
        "dataset": dataset,
        "cases": args.cases,
        "phases": phases,
        "dice": dice,
    }
    write_json(args.output, written)


if __name__ == "__main__":
    main()
