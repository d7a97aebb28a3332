"""What robustness costs: Dice of a benchmark's arms over the cost of their train step.

    python -m benchmarks.pareto ROBUSTNESS.json ... [--arms ARM ...] [-o pareto.png]

The cost is relative to vanilla's step and comes from `adversarial_step.py`, taken side by side on
one machine; epoch times of a benchmark are rough. An arm whose attack begins at `start` takes
plain steps until then. Small dots are trainings, large ones their means; the front is drawn through
the means that no other beats in both. Several files are joined as for `evidence_tables`. The
figures go into FILE.json beside the picture.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.saving import command_line, write_json, write_picture
from benchmarks.trainings import RUN_KEYS, by_seed, joined, label, settings
from nnunetv2_lngswr import trainers
from nnunetv2_lngswr.experiments.robustness.arms import ARMS
from nnunetv2_lngswr.utils.files import read_json

RESULTS = Path(__file__).parent / "results"
STEP = RESULTS / "2026-11-23-adversarial-step-cpu.json"
# `lngswr benchmark overhead`, on another CPU: guided noise is younger
GUIDED_STEP, GUIDED = RESULTS / "2026-11-30-overhead-guided-cpu.json", "LNG-SWR, guided"
PARTS_STEP, PARTS = RESULTS / "2026-11-24-overhead-cpu.json", ("LNG", "SWR")
BUDGET = ("num_epochs", "num_iterations_per_epoch")
# names of the arms' trainers -> of the steps that they take before and while they attack
STEPS = {
    "vanilla": ("vanilla", None),
    "DA5": ("vanilla", None),
    "LNG": ("LNG", None),
    "SWR": ("SWR", None),
    "LNGSWR": ("LNG-SWR", None),
    "LNGSWRDA5": ("LNG-SWR", None),
    "LNGSWRGuided": (GUIDED, None),
    "AT": ("vanilla", "AT FGSM-RS"),
    "LateAT": ("vanilla", "AT FGSM-RS"),
    "LateATDA5": ("vanilla", "AT FGSM-RS"),
    "LNGSWRAT": ("LNG-SWR", "LNG-SWR + AT FGSM-RS"),
    "LNGSWRLateAT": ("LNG-SWR", "LNG-SWR + AT FGSM-RS"),
}


def step_cost(arm: Mapping[str, Any], ratios: Mapping[str, float]) -> float:
    """The mean cost of a step of an arm, relative to vanilla's.

    Parameters
    ----------
    arm
        As robustness.json has it, {"arm": trainer's short name, **settings}; FGSM is its attack.
    ratios
        The cost of each kind of step.
    """
    adversarial = arm.get("adversarial", {})
    if arm["arm"] not in STEPS or adversarial.get("scheme", "fgsm_rs") != "fgsm_rs":
        raise SystemExit(f"no step of {arm} was timed by adversarial_step.py")
    plain, attacked = STEPS[arm["arm"]]
    if arm.get("noise_guided"):
        plain = f"{plain}, guided"
    if attacked is None:
        return ratios[plain]
    start = adversarial.get("start", getattr(trainers, ARMS[arm["arm"]]).adversarial.start)
    return start * ratios[plain] + (1 - start) * ratios[attacked]


def step_ratios(record: Mapping[str, Any]) -> dict[str, float]:
    """The cost of each kind of step, in 2D or 3D as the benchmark is, relative to vanilla's."""
    rank = _rank(record)
    arms = read_json(STEP, needs=("plans",))["plans"][rank]["arms"]
    for file, names in ((GUIDED_STEP, (GUIDED,)), (PARTS_STEP, PARTS)):
        others = read_json(file, needs=("plans",))["plans"].get(rank, {}).get("arms", {})
        arms |= {name: its for name, its in others.items() if name in names}
    return {arm: its["train_step"]["ratio"] for arm, its in arms.items()}


def points(
    record: Mapping[str, Any], arms: Sequence[str], ratios: Mapping[str, float]
) -> list[dict[str, Any]]:
    """One row per arm and reading (clean, worst per budget): cost, Dice in percent and by seed."""
    rows = []
    for arm in arms:
        its, cost = by_seed(record, arm), step_cost(settings(record, arm), ratios)
        for key in RUN_KEYS:
            of_seeds = {seed: 100 * dice[key] for seed, dice in its.items()}
            found = {"dice": statistics.mean(of_seeds.values()), "by_seed": of_seeds}
            reading = key.replace("worst_linf", "worst")
            rows.append({"arm": arm, "reading": reading, "cost": cost, **found})
    return rows


def front(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that none beats in both cost and Dice, by cost."""
    kept: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda r: (r["cost"], -r["dice"])):
        if not kept or row["dice"] > kept[-1]["dice"]:
            kept.append(row)
    return kept


def draw(rows: list[dict[str, Any]], title: str) -> Figure:
    """One panel per reading."""
    readings = list(dict.fromkeys(row["reading"] for row in rows))
    figure = Figure(figsize=(4.2 * len(readings), 3.8), layout="constrained")
    for axis, reading in zip(figure.subplots(1, len(readings), squeeze=False)[0], readings):
        its = [row for row in rows if row["reading"] == reading]
        best = front(its)
        axis.plot([r["cost"] for r in best], [r["dice"] for r in best], color="0.7", zorder=0)
        for row in its:
            drawn = axis.plot(row["cost"], row["dice"], "o", label=label(row["arm"]))
            seeds = list(row["by_seed"].values())
            axis.plot([row["cost"]] * len(seeds), seeds, ".", ms=4, color=drawn[0].get_color())
        axis.set(title=reading, xlabel="train step / vanilla's")
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("foreground Dice, %")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right", frameon=False)
    figure.suptitle(title)
    return figure


def main(argv: list[str] | None = None) -> None:
    """Write the picture and its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("records", type=Path, nargs="+", metavar="ROBUSTNESS.json")
    parser.add_argument("--arms", nargs="+", metavar="ARM")
    parser.add_argument("-o", dest="output", type=Path, default=Path("pareto.png"))
    args = parser.parse_args(argv)
    record = joined(args.records)
    rows = points(record, args.arms or list(record["arms"]), step_ratios(record))
    epochs, iterations = (record["budget"][key] for key in BUDGET)
    title = f"{record['dataset']}, {record['configuration']}, {epochs} x {iterations} iterations"
    write_picture(args.output, draw(rows, title))
    written = {"command": command_line("pareto", argv), "steps": STEP.name, "points": rows}
    write_json(args.output.with_suffix(".json"), written)


def _rank(record: Mapping[str, Any]) -> str:
    return "2d" if record["configuration"] == "2d" else "3d"


if __name__ == "__main__":
    main()
