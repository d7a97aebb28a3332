"""scores.png, how the cases are spread, and reliability.png, what probabilities are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from evaluation.report.figures import COLOURS, GREY, STYLES, save
from evaluation.report.fitting import fitted, legend_label, plain_texts
from evaluation.rows import MEAN_LABEL
from evaluation.scoring.measures import Units, measure_title, scale

SHOWN = ("dice", "hd95_mm", "nsd", "relative_volume_error", "lesion_f1", "ece_box")
MOST_LABELS = 12
"""Panels of a reliability diagram; more labels are in summary.json alone."""
PANEL, NAME_WIDTH = 3.4, 3.2  # inches
COLUMNS = 3  # of panels, in scores.png
FONT = 8  # points
SPREAD = 0.3  # of the points of a row, whose next is at 1

Record = Mapping[str, Any]
Summary = Mapping[str, Any]


@plain_texts
def draw_scores(path: Path, summary: Summary, rows: Sequence[Record]) -> None:
    """One panel per measure: every case, quartiles, and the mean with its interval.

    Several models are rows of foreground means; of a single one, its labels are.

    Parameters
    ----------
    path
        The file.
    summary
        Of `build_summary`.
    rows
        Of cases.csv.
    """
    shown = _lines(summary)
    units = Units(
        length=summary["metrics"]["length_unit"], volume=summary["metrics"]["volume_unit"]
    )
    there = {r["measure"] for r in summary["results"]}
    measures = [m for m in SHOWN if m in there]
    names = [fitted(title, NAME_WIDTH, FONT) for title, _, _ in shown]
    columns = min(COLUMNS, len(measures))
    lines = -(-len(measures) // columns)
    height = 0.9 + 0.45 * len(shown) + 0.12 * sum(n.count("\n") for n in names)
    figure = Figure(
        figsize=(0.6 * NAME_WIDTH + PANEL * columns, height * lines + 0.4), layout="constrained"
    )
    axes = figure.subplots(lines, columns, sharey=True, squeeze=False).flat
    for axis, measure in zip(axes, measures):
        axis.set_title(measure_title(measure, units), fontsize=FONT + 1, loc="left")
        for place, (_, model, label) in enumerate(shown):
            _draw_row(axis, summary, rows, (model, label, measure), place)
        axis.grid(axis="x", color="#E5E5E5", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.tick_params(labelsize=FONT)
        axis.tick_params(axis="y", length=0)
        axis.spines[["top", "right", "left"]].set_visible(False)
    for axis in axes[len(measures) :]:
        axis.set_visible(False)
    axes[0].set_yticks(range(len(shown)), names)
    axes[0].set_ylim(len(shown) - 0.4, -0.6)
    figure.suptitle(
        fitted(_heading(summary), 0.96 * figure.get_figwidth(), FONT + 1), fontsize=FONT + 1
    )
    save(figure, path)


@plain_texts
def draw_reliability(path: Path, summary: Summary) -> None:
    """One panel per label: how often it is there, over its probability; voxels per bin below.

    Parameters
    ----------
    path
        The file.
    summary
        Of `build_summary`, with calibration.
    """
    records = summary["calibration"]
    labels = list(dict.fromkeys(r["label"] for r in records))[:MOST_LABELS]
    figure = Figure(figsize=(PANEL * len(labels) + 0.6, 5.6), layout="constrained")
    axes = figure.subplots(
        2, len(labels), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 1)
    )
    models = [m["name"] for m in summary["models"]]
    for column, label in enumerate(labels):
        curve, counts = axes[:, column]
        of_label = [r for r in records if r["label"] == label]
        curve.plot([0, 100], [0, 100], color=GREY, linewidth=1, linestyle=":")
        for record in of_label:
            _draw_reliability(curve, counts, record, models.index(record["model"]))
        title = f"{of_label[0]['label_name']} ({label})"
        curve.set_title(fitted(title, PANEL - 0.4, FONT + 1), fontsize=FONT + 1, loc="left")
        curve.set_xlim(-2, 102)
        curve.set_ylim(-2, 102)
        counts.set_yscale("log")
        counts.yaxis.set_major_formatter("{x:g}")  # log's own is a formula
        counts.yaxis.set_minor_formatter(NullFormatter())
        counts.set_xlabel("probability (%)", fontsize=FONT)
        for axis in (curve, counts):
            axis.tick_params(labelsize=FONT)
            axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("of these voxels have the label (%)", fontsize=FONT)
    axes[1, 0].set_ylabel("voxels", fontsize=FONT)
    figure.legend(
        handles=axes[0, 0].get_legend_handles_labels()[0],
        loc="outside lower left",
        frameon=False,
        fontsize=FONT,
    )
    heading = (
        f"Reliability over the whole image, {summary['cases']} cases; flatter than the diagonal: "
        "too confident"
    )
    figure.suptitle(fitted(heading, 0.96 * figure.get_figwidth(), FONT + 1), fontsize=FONT + 1)
    save(figure, path)


def _lines(summary: Summary) -> list[tuple[str, str, str]]:
    """(title, model, label) of the rows of scores.png."""
    models = [m["name"] for m in summary["models"]]
    if len(models) > 1:
        return [(name, name, MEAN_LABEL) for name in models]
    labels = summary["labels"]["scored"]
    rows = [(f"{name} ({label})", models[0], label) for label, name in labels.items()]
    mean = [("foreground mean", models[0], MEAN_LABEL)] if len(labels) > 1 else []
    return [*mean, *rows]


def _heading(summary: Summary) -> str:
    of = "cases" if summary["patients"] is None else "patients"
    models = [m["name"] for m in summary["models"]]
    single = f"{models[0]}: " if len(models) == 1 else "Foreground means: "
    return (
        f"{single}{summary['cases']} cases (points), quartiles (box), mean with 95% bootstrap "
        f"interval over {of} (bar)"
    )


def _draw_row(
    axis: Axes,
    summary: Summary,
    rows: Sequence[Record],
    what: tuple[str, str, str],
    place: int,
) -> None:
    model, label, measure = what
    factor, colour = scale(measure), COLOURS[place % len(COLOURS)]
    of = [r[measure] for r in rows if (r["model"], r["label"]) == (model, label)]
    values = factor * np.array([v for v in of if v == v])  # nan is not itself
    if not values.size:
        axis.text(0.5, place, "undefined", ha="center", va="center", fontsize=FONT, color=GREY)
        return
    # a seed of its own: the jitter shows nothing
    jitter = np.random.default_rng(0).uniform(-SPREAD, SPREAD, values.size)
    alpha = float(np.clip(100 / values.size, 0.1, 0.6))
    axis.scatter(values, place + jitter, s=8, color=colour, alpha=alpha, linewidths=0)
    low, middle, high = np.percentile(values, [25, 50, 75])
    box = {"color": colour, "linewidth": 1.2}
    axis.plot([low, high, high, low, low], place + np.array([-0.2, -0.2, 0.2, 0.2, -0.2]), **box)
    axis.plot([middle, middle], [place - 0.2, place + 0.2], **box)
    record = next(
        r
        for r in summary["results"]
        if (r["model"], r["label"], r["measure"]) == (model, label, measure)
    )
    ends = [factor * record["mean_low"], factor * record["mean_high"]]
    axis.plot(ends, [place, place], color="black", linewidth=3, solid_capstyle="butt", zorder=4)
    axis.plot([factor * record["mean"]], [place], color="black", marker="D", markersize=5, zorder=5)


def _draw_reliability(curve: Axes, counts: Axes, record: Record, number: int) -> None:
    bins = [b for b in record["bins"] if b["voxels"]]
    style = {"color": COLOURS[number % len(COLOURS)], "linestyle": STYLES[number % len(STYLES)]}
    curve.plot(
        [100 * b["mean_probability"] for b in bins],
        [100 * b["frequency"] for b in bins],
        marker="o",
        markersize=3.5,
        linewidth=1.5,
        label=legend_label(record["model"], PANEL, FONT),
        **style,
    )
    said = f"ECE near the object {record['ece_box']:.3g}"
    curve.text(3, 97 - 6 * number, said, fontsize=FONT - 1, color=style["color"], va="top")
    middles = [50 * (b["low"] + b["high"]) for b in bins]
    counts.plot(middles, [b["voxels"] for b in bins], linewidth=1.2, **style)
