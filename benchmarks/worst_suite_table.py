"""What worst_suite.py has measured: a greedy choice on one half of the groups, stated on the other.

    python -m benchmarks.worst_suite_table OUT... [-s SUITE] [--groups PATTERN] [-o FILE]

Per model and budget the mean Dice of every candidate, and of the lowest of all. Greedy: again and
again the candidate that lowers the worst-case Dice most for its cost (in plain predictions, a
gradient being two), meaned over the models, until none lowers it by 0.2 points. Cases of one
group (patient, nodule: what PATTERN finds in the name) are in one half. The margin is what brute
force finds below SUITE (candidates joined by '+') on the cases it was run on, those of the half
that the choice did not see apart.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.saving import command_line
from evaluation.protocol import GRADIENT_COST
from nnunetv2_lngswr.experiments.overhead import conditions
from nnunetv2_lngswr.utils.files import write_file

BEATS = 0.002
Model = tuple[str, str, str, str, str]  # dataset, configuration, trainer, norm, epsilon
Cases = dict[str, dict[str, dict[str, float]]]


def main() -> None:
    """The command above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="OUT")
    parser.add_argument("-s", dest="suite", default="dice 20 > dice 20")
    parser.add_argument("--groups", default=r"^[a-z]+_\d+", metavar="PATTERN")
    parser.add_argument("-o", type=Path, dest="file", help="JSON of what is printed")
    args = parser.parse_args()
    models = _read([folder / "measured.jsonl" for folder in args.folders])
    halves = {half: _half(models, args.groups, half) for half in (0, 1)}
    halves = {half: of for half, of in halves.items() if of}  # few cases can be in one of them
    found = {
        **conditions(command_line("worst_suite_table", sys.argv[1:]), "cpu", 1),
        "models": [_of_model(key, cases, args.suite) for key, cases in models.items()],
        "greedy": {half: greedy(of) for half, of in halves.items()},
        "margin": {half: _margins(of, args.suite) for half, of in halves.items()},
    }
    _print(found)
    if args.file:
        write_file(args.file, json.dumps(found, indent=1) + "\n")


def greedy(models: dict[Model, Cases]) -> list[dict[str, Any]]:
    """The candidates chosen, in order, each with the mean worst-case Dice after it."""
    chosen: list[str] = []
    names = _candidates(models)
    steps: list[dict[str, Any]] = []
    current = _worst(models, ["clean"])
    while names:
        after = {name: _worst(models, ["clean", *chosen, name]) for name in names}
        gain = {name: (current - after[name]) / _cost(models, name) for name in names}
        best = max(gain, key=lambda name: gain[name] if current - after[name] > BEATS else -1)
        if current - after[best] <= BEATS:
            return steps
        chosen.append(best)
        names.remove(best)
        current = after[best]
        steps.append({"candidate": best, "cost": _cost(models, best), "dice": current})
    return steps


def _read(files: list[Path]) -> dict[Model, Cases]:
    models: dict[Model, Cases] = defaultdict(lambda: defaultdict(dict))
    for file in files:
        with open(file, encoding="utf-8") as text:
            rows = [json.loads(line) for line in text]
        for row in rows:
            key = tuple(row[k] for k in ("dataset", "configuration", "trainer", "norm", "epsilon"))
            models[key][row["case"]].update(row["found"])
    return models


def _half(models: dict[Model, Cases], groups: str, half: int) -> dict[Model, Cases]:
    """Cases whose group falls into it, by its name's hash."""

    def of(case: str) -> int:
        group = re.search(groups, case)
        name = group.group() if group else case
        return hashlib.sha256(name.encode()).digest()[0] % 2

    halves = {k: {c: f for c, f in cases.items() if of(c) == half} for k, cases in models.items()}
    return {key: cases for key, cases in halves.items() if cases}


def _candidates(models: dict[Model, Cases]) -> list[str]:
    """Those that every case has."""
    cases = [found for of in models.values() for found in of.values()]
    names = [n for n in cases[0] if n not in ("clean", "brute")] if cases else []
    return [n for n in names if all(n in found for found in cases)]


def _worst(models: dict[Model, Cases], names: list[str]) -> float:
    """Mean over models of the mean over cases of the lowest Dice."""
    return mean(
        mean(min(found[n]["dice"] for n in names) for found in cases.values())
        for cases in models.values()
    )


def _cost(models: dict[Model, Cases], name: str) -> float:
    costs = [
        found[name]["forwards"] + GRADIENT_COST * found[name]["gradients"]
        for cases in models.values()
        for found in cases.values()
    ]
    return mean(costs)


def _of_model(key: Model, cases: Cases, suite: str) -> dict[str, Any]:
    names = _candidates({key: cases})
    return {
        **dict(zip(("dataset", "configuration", "trainer", "norm", "epsilon"), key)),
        "cases": len(cases),
        "dice": {n: mean(found[n]["dice"] for found in cases.values()) for n in ["clean", *names]},
        "suite": mean(_of_suite(found, suite) for found in cases.values()),
        "lowest": mean(min(f["dice"] for f in found.values()) for found in cases.values()),
    }


def _of_suite(found: dict[str, dict[str, float]], suite: str) -> float:
    return min(found[name]["dice"] for name in ["clean", *suite.split("+")])


def _margins(models: dict[Model, Cases], suite: str) -> list[dict[str, Any]]:
    """Per model what brute force finds below the suite, on the cases it was run on."""
    margins = []
    for key, cases in models.items():
        tried = [found for found in cases.values() if "brute" in found]
        if tried:
            ours = mean(_of_suite(found, suite) for found in tried)
            brute = mean(min(f["dice"] for f in found.values()) for found in tried)
            where = " ".join(key)
            row = {"model": where, "cases": len(tried), "suite": ours, "brute_force": brute}
            margins.append({**row, "margin": ours - brute})
    return margins


def _print(found: dict[str, Any]) -> None:
    for model in found["models"]:
        print(f"\n{model['dataset']} {model['configuration']} {model['trainer']}", end=" ")
        print(f"{model['norm']} {model['epsilon']}, {model['cases']} cases")
        for name, dice in sorted(model["dice"].items(), key=lambda item: item[1]):
            print(f"  {100 * dice:5.1f}  {name}")
        print(f"  {100 * model['suite']:5.1f}  suite; lowest of all {100 * model['lowest']:.1f}")
    for half, steps in found["greedy"].items():
        print(f"\ngreedy on half {half}")
        for step in steps:
            print(f"  {100 * step['dice']:5.1f}  {step['candidate']} ({step['cost']:.0f})")
    for half, rows in found["margin"].items():
        for row in rows:
            print(f"\nhalf {half}: {row['model']}, {row['cases']} cases: suite", end=" ")
            print(f"{100 * row['suite']:.1f}, brute force {100 * row['brute_force']:.1f}")


if __name__ == "__main__":
    main()
