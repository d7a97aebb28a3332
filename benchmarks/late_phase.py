"""Which last phase of adversarial training: one plain phase per seed, several last phases from it.

    python -m benchmarks.late_phase FOLDER WORK --phases PHASES.json -o OUT.json

FOLDER is that of a `lngswr benchmark robustness` in 2d, whose plans and preprocessed data are used;
the raw data are found by nnUNet_raw. PHASES.json holds {NAME: {"num_epochs": 2, "adversarial":
{...}}, ...}. Fold 0 is left alone (`held_out`). So last phases are compared at a fifth of what
whole trainings cost. What is in WORK already is not done again.
"""

import argparse
from datetime import date
from importlib.metadata import version
from pathlib import Path

from benchmarks.held_out import HeldOutSearch
from benchmarks.saving import command_line, write_json
from nnunetv2_lngswr.utils.files import read_json

PLAIN, ATTACKED = "nnUNetTrainerVanilla", "nnUNetTrainerAT"


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
    search = HeldOutSearch(args.work.resolve(), dataset, args.cases)
    search.prepare(args.folder)
    phases = read_json(args.phases)
    dice: dict[str, dict[str, dict[str, float]]] = {name: {} for name in phases}
    for seed in args.seeds:
        plain = {"num_epochs": args.plain_epochs, "seed": seed}
        start = search.train(PLAIN, f"s{seed}_P{args.plain_epochs}", plain)
        for name, entry in phases.items():
            plans = f"s{seed}_{name}"
            search.train(ATTACKED, plans, {**entry, "seed": seed, "warm_start": str(start)})
            dice[name][f"seed {seed}"] = search.evaluate(ATTACKED, plans)
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
