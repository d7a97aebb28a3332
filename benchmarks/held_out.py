"""Trainings on a benchmark's data that leave its held-out fold alone, for searches.

The validation cases of fold 0 are neither trained on nor looked at; those of fold 1 are attacked by
the standard suite. What is in the working folder already is not done again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.saving import first_paragraph
from nnunetv2_lngswr.experiments.robustness.benchmark import find_raw
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json, write_file
from nnunetv2_lngswr.utils.processes import run_command

HELD_OUT, SEARCHED = 0, 1
ITERATIONS = {"num_iterations_per_epoch": 50, "num_val_iterations_per_epoch": 5}
ATTACK = ["--attacks", "worst", "--epsilons", "4/255", "8/255"]
ONLY = ["--epsilons-l2", "none", "--corruptions", "none", "--disable_tta", "-device", "cpu"]


def search_parser(doc: str | None, what: str) -> argparse.ArgumentParser:
    """What every search is told; `what` is the option whose JSON names what is searched."""
    parser = argparse.ArgumentParser(description=first_paragraph(doc))
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument(f"--{what}", type=Path, required=True, metavar=f"{what.upper()}.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("-o", dest="output", type=Path, required=True, metavar="OUT.json")
    return parser


@dataclass(frozen=True)
class HeldOutSearch:
    """Where it works, on which data, on how many cases."""

    work: Path
    dataset: str
    cases: int
    features: int | None = None
    """Of the network's first stage, the other stages in proportion; None: as planned."""

    @classmethod
    def begin(cls, args: argparse.Namespace, features: int | None = None) -> HeldOutSearch:
        """The search that `search_parser` was told, its data prepared."""
        dataset = read_json(args.folder / "benchmark.json", needs=("dataset",))["dataset"]
        search = cls(args.work.resolve(), dataset, args.cases, features)
        search.prepare(args.folder)
        return search

    def record(self, command: str) -> dict[str, Any]:
        """What every result must be quoted with."""
        return {
            "date": date.today().isoformat(),
            "command": command,
            "device": "CPU",
            "versions": {package: version(package) for package in ("torch", "nnunetv2")},
            "dataset": self.dataset,
            "cases": self.cases,
        }

    @property
    def preprocessed(self) -> Path:
        return self.work / "nnUNet_preprocessed" / self.dataset

    def model(self, trainer: str, plans: str) -> Path:
        return self.work / "nnUNet_results" / self.dataset / f"{trainer}__{plans}__2d"

    def prepare(self, folder: Path, plans: str = "lngswrBenchmarkSeed0.json") -> None:
        """Copy a benchmark's preprocessed data, with one split that leaves the held-out fold
        alone."""
        if self.preprocessed.exists():
            return
        source = folder / "nnUNet_preprocessed" / self.dataset
        folds = read_json(source / "splits_final.json")
        if len(folds) < 2:
            raise UserError(f"{source} has one fold alone: nothing could be held out")
        searched = folds[SEARCHED]["val"]
        train = sorted(set(folds[SEARCHED]["train"]) - set(folds[HELD_OUT]["val"]))
        self.preprocessed.parent.mkdir(parents=True, exist_ok=True)
        write_file(self.work / "plans.json", (source / plans).read_text())
        # others may begin at the same time: whole, or not there
        with tempfile.TemporaryDirectory(dir=self.work) as begun:
            copy = Path(begun) / self.dataset
            shutil.copytree(source, copy)
            write_file(copy / "splits_final.json", json.dumps([{"train": train, "val": searched}]))
            with contextlib.suppress(OSError):  # another was faster
                copy.rename(self.preprocessed)

    def run(self, name: str, command: Sequence[str]) -> None:
        """Run a command with nnU-Net's folders in `work`; its output in a log there."""
        folders = ("nnUNet_preprocessed", "nnUNet_results")
        environment = {folder: str(self.work / folder) for folder in folders}
        environment |= {"nnUNet_raw": str(find_raw(self.dataset)), "nnUNet_compile": "f"}
        log = self.work / f"{name}.log"
        run_command(list(command), log, environment=environment, say=print)

    def train(self, trainer: str, plans: str, entry: Mapping[str, Any]) -> Path:
        """Train with a "lngswr" entry and return the checkpoint, or return that which is there."""
        what = [self.dataset, "2d", "0", "-tr", trainer, "-p", plans, "-device", "cpu"]
        return self.train_by(["nnUNetv2_train", *what], trainer, plans, entry)

    def train_by(
        self, command: Sequence[str], trainer: str, plans: str, entry: Mapping[str, Any]
    ) -> Path:
        """As `train`, by another command."""
        template = read_json(self.work / "plans.json", needs=("configurations",))
        template["plans_name"] = plans
        configuration = template["configurations"]["2d"]
        configuration["lngswr"] = {**ITERATIONS, **entry}
        if self.features:
            network = configuration["architecture"]["arch_kwargs"]
            planned = network["features_per_stage"]
            network["features_per_stage"] = [n * self.features // planned[0] for n in planned]
        checkpoint = self.model(trainer, plans) / "fold_0/checkpoint_final.pth"
        self._refuse_another(plans, [template, command[1:-1]], checkpoint)
        write_file(self.preprocessed / f"{plans}.json", json.dumps(template))
        if not checkpoint.exists():
            self.run(plans, command)
        return checkpoint

    def _refuse_another(self, name: str, what: Any, done: Path) -> None:
        """What is done already goes by its name; here stands what it is."""
        file, text = self.work / f"{name}.json", json.dumps(what, indent=1)
        if done.exists() and (not file.exists() or file.read_text() != text):
            raise UserError(f"{done} is of other settings than this call's: choose another WORK")
        write_file(file, text)

    def evaluate(self, trainer: str, plans: str) -> dict[str, float]:
        """Return Dice in percent, clean and worst per budget."""
        output = self.work / "evaluations" / plans
        done = output / "summary.json"
        self._refuse_another(f"{plans}_evaluation", [self.cases, *ATTACK, *ONLY], done)
        if not done.exists():
            what = ["-m", str(self.model(trainer, plans)), "-f", "0", "-o", str(output)]
            limits = ["--max-cases", str(self.cases), "--disable_progress_bar"]
            command = ["lngswr", "evaluate", *what, *ATTACK, *ONLY, *limits]
            self.run(f"{plans}_evaluation", command)
        results = read_json(done, needs=("results",))["results"]
        rows = [r for r in results if r["kind"] in ("clean", "worst")]
        return {f"{r['kind']} {r['epsilon_text'] or ''}".strip(): 100 * r["dice"] for r in rows}
