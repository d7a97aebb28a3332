"""How Dice falls with the attacker's budget, one line per arm, with bands; one panel per benchmark.

    python -m benchmarks.dice_over_budget ROBUSTNESS.json[,ROBUSTNESS.json] ... [--arms ARM ...]
        [-o dice.png]

Several files of one machine are joined by commas to one panel, as for `evidence_tables`. Worst Dice
under the suite; budget 0 is clean. Bands are the intervals over cases or their groups
that the benchmarks give, for their very trainings.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.saving import first_paragraph, write_picture
from benchmarks.trainings import joined, label


def curve(record: Mapping[str, Any], arm: str) -> list[tuple[float, float, float, float]]:
    """(budget in 255ths, Dice in percent and the ends of its interval) of an arm, by budget."""
    points = []
    for row in record["results"]:
        if row["model"] == arm and row["kind"] in ("clean", "worst"):
            budget = 255 * float(Fraction(row["epsilon_text"] or "0"))
            dice = (100 * row[key] for key in ("dice", "dice_low", "dice_high"))
            points.append((budget, *dice))
    return sorted(points)


def draw(records: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> Figure:
    figure = Figure(figsize=(4.2 * len(records) + 1.6, 3.6), layout="constrained")
    axes = figure.subplots(1, len(records), squeeze=False, sharey=True)[0]
    for axis, record in zip(axes, records):
        for i, arm in enumerate(arms):
            budgets, dice, low, high = zip(*curve(record, arm))
            axis.plot(budgets, dice, color=f"C{i}", marker="o", label=label(arm))
            axis.fill_between(budgets, low, high, color=f"C{i}", alpha=0.08, linewidth=0)
        seeds = len({run["seed"] for run in record["runs"]})
        title = f"{record['dataset']}, {seeds} {'seeds' if seeds > 1 else 'seed'}"
        axis.set(title=title, xlabel="Linf budget, 255ths of the intensity range")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("foreground Dice, %")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right", frameon=False)
    return figure


def main(argv: list[str] | None = None) -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=first_paragraph(__doc__))
    parser.add_argument("records", nargs="+", metavar="ROBUSTNESS.json[,ROBUSTNESS.json]")
    parser.add_argument("--arms", nargs="+", metavar="ARM")
    parser.add_argument("-o", dest="output", type=Path, default=Path("dice.png"))
    args = parser.parse_args(argv)
    records = [joined([Path(file) for file in files.split(",")]) for files in args.records]
    arms = args.arms or list(records[0]["arms"])
    write_picture(args.output, draw(records, arms))


if __name__ == "__main__":
    main()
