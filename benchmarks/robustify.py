"""A model that exists made robust, beside robust training from the first step, seed by seed.

    python -m benchmarks.robustify BENCHMARK WORK [--shares 0.1 0.25] [-tr NAME] -o OUT.json
        [--earlier JSON]

OUT.json gets the Dice of each seed, what a share keeps of AT's robustness ("kept"), and what it
costs: the time of its epochs in units of vanilla's and of AT's, the median over the seeds ("cost").

BENCHMARK is the folder of a `lngswr benchmark robustness`, with the arm AT unless an `--earlier`
OUT.json of the same trainings has it, which the same Dice of vanilla says. Each of its vanilla
models is given to `lngswr robustify` once per share of its budget; the results are evaluated as
BENCHMARK evaluates, on the same cases, and compared with its vanilla and AT by `lngswr compare`,
whose files go to WORK/comparison. "kept" is the part of AT's reduction of the drop that a share
leaves: (drop vanilla - drop share) / (drop vanilla - drop AT), of means over seeds. A drop is also
smaller where the clean Dice is lower; so "kept_dice" is the same of the robust Dice itself. What is
in WORK already is not done again. nnUNet_raw must be set, and have the data set of BENCHMARK.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.saving import command_line, first_paragraph, rounded, write_json
from evaluation.compare import compare
from nnunetv2_lngswr.experiments.robustness.benchmark import find_raw
from nnunetv2_lngswr.experiments.robustness.table import dice_of
from nnunetv2_lngswr.experiments.robustness.times import training_seconds
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json
from nnunetv2_lngswr.utils.processes import run_command

GIVEN, FROM_SCRATCH = "vanilla", "AT"


@dataclass(frozen=True)
class Trained:
    """The trainings of a finished benchmark."""

    folder: Path

    @property
    def settings(self) -> dict[str, Any]:
        return read_json(self.folder / "benchmark.json", needs=("dataset", "evaluation"))

    def runs(self, arm: str) -> dict[int, str]:
        """{seed: TRAINER__PLANS__CONFIGURATION} of an arm's trainings on fold 0."""
        runs = read_json(self.folder / "runs.json", needs=("runs",))["runs"]
        configuration = self.settings["configuration"]
        return {
            run["seed"]: f"{run['trainer']}__{run['plans']}__{configuration}"
            for run in runs
            if (run["arm"], run["fold"]) == (arm, 0)
        }

    def model(self, name: str) -> Path:
        return self.folder / "nnUNet_results" / self.settings["dataset"] / name

    def evaluation(self, name: str) -> Path:
        return self.folder / "evaluations" / f"{name}__fold_0"


@dataclass(frozen=True)
class Work:
    """Where robust models and their evaluations go."""

    folder: Path
    trained: Trained

    def run(self, name: str, command: list[str]) -> None:
        """Run a command in the benchmark's folders."""
        environment = {
            "nnUNet_raw": str(find_raw(self.trained.settings["dataset"])),
            "nnUNet_preprocessed": str(self.trained.folder / "nnUNet_preprocessed"),
            "nnUNet_results": str(self.trained.folder / "nnUNet_results"),
            "OMP_NUM_THREADS": "1",
        }
        run_command(command, self.folder / f"{name}.log", environment=environment, say=print)

    def robustify(self, name: str, model: Path, share: float, given: Mapping[str, str]) -> Path:
        """Return the folder of the robust model; `given`: further options and their values."""
        output = self.folder / name
        command = ["lngswr", "robustify", str(model), "-f", "0", "--share", str(share)]
        command += [word for option in given.items() for word in option]
        self.run(name, [*command, "--skip-evaluation", "-device", "cpu", "-o", str(output)])
        (fold,) = output.glob("nnUNet_results/*/*/fold_0/checkpoint_final.pth")
        return fold.parents[1]

    def evaluate(self, name: str, model: Path) -> Path:
        """Return the evaluation of a model, done as the benchmark does it."""
        output = self.folder / "evaluations" / name
        if not (output / "summary.json").is_file():
            command = ["lngswr", "evaluate", "-m", str(model), "-f", "0", "-device", "cpu"]
            command += [*self.trained.settings["evaluation"], "--disable_progress_bar"]
            self.run(f"{name}_evaluation", [*command, "-o", str(output)])
        return output


@dataclass(frozen=True)
class Measured:
    """What there is of each arm, in the order of the seeds."""

    evaluations: Mapping[str, list[Path]]
    seconds: Mapping[str, list[float]]
    """That the epochs of its trainings took."""


def measure(
    work: Work, shares: list[float], given: Mapping[str, str], *, joined: bool = False
) -> Measured:
    """Robustify, with further options, and evaluate; what is `joined` to others may lack AT."""
    trained = work.trained
    vanilla, beside = trained.runs(GIVEN), trained.runs(FROM_SCRATCH)
    if not vanilla or set(vanilla) != set(beside or (vanilla if joined else ())):
        raise UserError(
            f"{trained.folder} must have {GIVEN} and {FROM_SCRATCH} of the same seeds on fold 0, "
            f"got seeds {sorted(vanilla)} and {sorted(beside)}"
        )
    find_raw(trained.settings["dataset"])  # before hours of work
    arms = {arm: runs for arm, runs in ((GIVEN, vanilla), (FROM_SCRATCH, beside)) if runs}
    folders = {
        arm: [trained.evaluation(runs[seed]) for seed in sorted(runs)] for arm, runs in arms.items()
    }
    seconds = {
        arm: [training_seconds(trained.model(runs[seed]) / "fold_0") for seed in sorted(runs)]
        for arm, runs in arms.items()
    }
    for share in shares:
        arm = f"share {share:g}"
        folders[arm], seconds[arm] = [], []
        for seed in sorted(vanilla):
            name = f"share_{share:g}_seed_{seed}"
            model = work.robustify(name, trained.model(vanilla[seed]), share, given)
            seconds[arm].append(training_seconds(model / "fold_0"))
            folders[arm].append(work.evaluate(name, model))
    return Measured(folders, seconds)


def with_earlier(
    dice: Mapping[str, list[dict[str, float]]], earlier: Path
) -> dict[str, list[dict[str, float]]]:
    """The Dice of both; of an arm that both have, these.

    Raises
    ------
    UserError
        The vanilla models of `earlier` have another Dice, or it has no AT.
    """
    found = read_json(earlier, needs=("dice",))["dice"]
    known, these = found.get(GIVEN), rounded(dice[GIVEN])
    if known != these:
        raise UserError(f"{earlier} is of other trainings: {GIVEN} has {known}, here {these}")
    if FROM_SCRATCH not in {**found, **dice}:
        raise UserError(f"{earlier} has no {FROM_SCRATCH}, and the benchmark neither")
    return found | dict(dice)


def kept(
    dice: Mapping[str, list[dict[str, float]]], *, of_dice: bool = False
) -> dict[str, dict[str, float]]:
    """{share: {budget: part of AT's gain}}; nan where AT gains nothing.

    The gain is the reduction of the drop, or what the robust Dice is higher (`of_dice`).
    """

    def harm(arm: str) -> dict[str, float]:
        rows = dice[arm]
        budgets = [key for key in rows[0] if key.startswith("worst")]
        return {
            b: sum((0 if of_dice else r["clean"]) - r[b] for r in rows) / len(rows) for b in budgets
        }

    vanilla, scratch = harm(GIVEN), harm(FROM_SCRATCH)
    gained = {b: vanilla[b] - scratch[b] for b in vanilla}
    return {
        arm: {
            b: (vanilla[b] - its) / gained[b] if gained[b] > 0 else float("nan")
            for b, its in harm(arm).items()
        }
        for arm in dice
        if arm not in (GIVEN, FROM_SCRATCH)
    }


def cost(seconds: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """{arm: {of: its time in units of that of vanilla or AT, the median over the seeds}}."""
    return {
        arm: {
            of: median(its / unit for its, unit in zip(seconds[arm], seconds[of], strict=True))
            for of in (GIVEN, FROM_SCRATCH)
            if of != arm and of in seconds
        }
        for arm in seconds
        if arm != GIVEN
    }


def main(argv: list[str] | None = None) -> None:
    """Robustify, evaluate, compare, and write each seed's Dice."""
    parser = argparse.ArgumentParser(description=first_paragraph(__doc__))
    parser.add_argument("benchmark", type=Path, metavar="BENCHMARK")
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.25])
    parser.add_argument("-tr", metavar="TRAINER", help="as for lngswr robustify")
    parser.add_argument("--settings", metavar="JSON", help="as for lngswr robustify")
    parser.add_argument("--groups", metavar="PATTERN | CSV", help="as for lngswr compare")
    parser.add_argument("--earlier", type=Path, metavar="JSON", help="an OUT.json to be joined")
    parser.add_argument("-o", dest="output", type=Path, required=True, metavar="OUT.json")
    args = parser.parse_args(argv)
    work = Work(args.work.resolve(), Trained(args.benchmark.resolve()))
    given = {"-tr": args.tr, "--settings": args.settings}
    given = {option: value for option, value in given.items() if value is not None}
    measured = measure(work, args.shares, given, joined=args.earlier is not None)
    folders = measured.evaluations
    comparison = work.folder / "comparison"
    compare([*folders.values()], comparison, names=[*folders], groups=args.groups)
    dice = {arm: [dice_of(folder) for folder in of] for arm, of in folders.items()}
    if args.earlier:
        dice = with_earlier(dice, args.earlier)
    written = {
        "date": date.today().isoformat(),
        "command": command_line("robustify", argv),
        "device": "CPU",
        "versions": {package: version(package) for package in ("torch", "nnunetv2")},
        "benchmark": work.trained.settings,
        "options": given,
        "dice": dice,
        "kept": kept(dice),
        "kept_dice": kept(dice, of_dice=True),
        "training_seconds": measured.seconds,
        "cost": cost(measured.seconds),
        "results": read_json(comparison / "compare.json", needs=("results",))["results"],
    }
    write_json(args.output, written)
    print((comparison / "compare.md").read_text())
    print(*(written[key] for key in ("kept", "kept_dice", "cost")), sep="\n")


if __name__ == "__main__":
    main()
