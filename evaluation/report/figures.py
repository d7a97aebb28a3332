"""The pictures: curves.png (Dice over epsilon and under shifts), examples.png (what an attack did to two cases) and compare.png.

Colours are Okabe and Ito's, told apart with any colour vision, and each attack has a marker and a line style of its own. Figures are drawn without
pyplot, so a caller's own figures and backend are left alone.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from nnunetv2_lngswr.utils.files import write_file

COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#B8A900",
    "#7F3C8D",
    "#8C564B",
)
MARKERS = "osD^vP<>X"
STYLES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))
GREY = "#7A7A7A"
SEVERITY_COLOURS = ("#C6DBEF", "#9ECAE1", "#6BAED6", "#3182BD", "#08519C")
TITLES = {"linf": "Linf attacks", "l2": "L2 attacks"}
NORMS = {"linf": "Linf", "l2": "L2 (RMS)"}
AMPLITUDE_PERCENTILE = 99.5
DPI = 200


def draw_curves(path: Path, summary: Mapping[str, Any]) -> None:
    """Foreground Dice over epsilon per attack, one panel per norm, with 95% bootstrap bands; Dice per shift, severities side by side."""
    results = summary["results"]
    clean = next(r for r in results if r["kind"] == "clean")
    norms = [n for n in TITLES if any(r["norm"] == n and r["epsilon_text"] for r in results)]
    free = [r for r in results if r["kind"] == "attack" and not r["epsilon_text"]]
    shifts = [r for r in results if r["kind"] == "shift"]
    names = list(dict.fromkeys(r["attack"] for r in results if r["kind"] == "attack"))
    panels = len(norms) + bool(free and not norms) + bool(shifts)
    if panels == 0:
        panels = 1
    corruption_names = list(dict.fromkeys(r["attack"] for r in shifts))
    widths = [1.0] * (panels - bool(shifts)) + [max(1.0, len(corruption_names) / 8)] * bool(shifts)
    figure = Figure(figsize=(4.6 * sum(widths) + 0.4, 4.9), layout="constrained")
    axes = figure.subplots(1, panels, sharey=True, squeeze=False, width_ratios=widths)[0]
    for axis, norm in zip(axes, norms):
        _draw_norm(axis, summary, clean, norm, names, free)
    if free and not norms:
        _draw_norm(axes[0], summary, clean, "linf", names, free)
    if shifts:
        _draw_shifts(axes[-1], clean, shifts, corruption_names)
    axes[0].set_ylabel("foreground Dice (%)")
    axes[0].set_ylim(0, 102)
    for axis in axes:
        _plain_axes(axis)
    model = summary["model"]
    title = f"{model['trainer']}, {model['configuration']}, {model['dataset']}: {clean['cases']} cases, 95% bootstrap intervals over cases"
    # about 14 characters of this size in an inch: a single panel is narrower than the line
    figure.suptitle(textwrap.fill(title, int(14 * figure.get_figwidth())), fontsize=10)
    _save(figure, path)


def choose_examples(examples: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """[(title, index)] of the case with the lowest Dice under attack and the one in the middle; ties go to the larger drop."""

    def order(i: int) -> tuple[float, float]:
        e = examples[i]
        after = math.inf if math.isnan(e["dice_after"]) else e["dice_after"]
        return after, -(0.0 if math.isnan(e["dice_before"]) else e["dice_before"])

    ranked = sorted(range(len(examples)), key=order)
    if len(ranked) == 1:
        return [("the only case", ranked[0])]
    return [("worst case", ranked[0]), ("median case", ranked[len(ranked) // 2])]


def draw_examples(path: Path, examples: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """One row per (title, example of run_case): image, amplified perturbation, attacked image, prediction before and after with the reference's
    contour. The slice is the largest of the reference, on the preprocessed grid."""
    ratio = max(e["image"].shape[0] / e["image"].shape[1] for _, e in examples)
    figure = Figure(
        figsize=(13.0, len(examples) * (2.5 * min(max(ratio, 0.6), 1.4) + 0.75) + 0.45),
        layout="constrained",
    )
    rows = figure.subplots(len(examples), 5, squeeze=False)
    foreground = sorted(
        {
            int(v)
            for _, e in examples
            for k in ("reference", "before", "after")
            for v in np.unique(e[k])
        }
        - {0}
    )
    colours = {v: COLOURS[i % len(COLOURS)] for i, v in enumerate(foreground)}
    for axes, (title, e) in zip(rows, examples):
        low, high = (float(v) for v in np.percentile(e["image"], (0.5, 99.5)))
        grey = {
            "cmap": "gray",
            "vmin": low,
            "vmax": max(high, low + 1e-6),
            "interpolation": "nearest",
        }
        axes[0].imshow(e["image"], **grey)
        axes[0].set_title(f"{title}: {e['case']}\nclean image", fontsize=9)
        delta = e["perturbation"] / e["range"]
        largest = max(float(np.percentile(np.abs(delta), AMPLITUDE_PERCENTILE)), 1e-12)
        picture = axes[1].imshow(
            delta * 255,
            cmap="PuOr",
            vmin=-largest * 255,
            vmax=largest * 255,
            interpolation="nearest",
        )
        bar = figure.colorbar(picture, ax=axes[1], shrink=0.8, pad=0.02)
        bar.ax.tick_params(labelsize=7)
        axes[1].set_title(f"perturbation, {e['attack']}\nin 1/255 of the range", fontsize=9)
        axes[2].imshow(e["image"] + e["perturbation"], **grey)
        axes[2].set_title(f"attacked image\n{_budget(e)}", fontsize=9)
        for axis, key, word in ((axes[3], "before", "clean"), (axes[4], "after", "attacked")):
            axis.imshow(e["image"] if key == "before" else e["image"] + e["perturbation"], **grey)
            _overlay(axis, e[key], e["reference"], colours)
            axis.set_title(
                f"prediction, {word}\nDice of the case {_dice(e[f'dice_{key}'])}", fontsize=9
            )
        for axis in axes:
            axis.set(
                xticks=[],
                yticks=[],
                xlim=(-0.5, e["image"].shape[1] - 0.5),
                ylim=(e["image"].shape[0] - 0.5, -0.5),
            )
    names = examples[0][1]["names"]
    legend = [
        Patch(color=colours[v], alpha=0.55, label=f"predicted: {names.get(str(v), f'label {v}')}")
        for v in foreground
    ]
    legend.append(Line2D([], [], color="white", linewidth=1.6, label="reference contour"))
    legend[-1].set_path_effects([_outline()])
    figure.legend(
        handles=legend, loc="outside lower center", ncols=len(legend), fontsize=9, frameon=False
    )
    _save(figure, path)


def _budget(example: Mapping[str, Any]) -> str:
    if not example["epsilon_text"]:
        return "without a budget"
    return f"{NORMS.get(example['norm'], example['norm'])} epsilon {example['epsilon_text']}"


def draw_comparison(path: Path, names: Sequence[str], records: Sequence[Mapping[str, Any]]) -> None:
    """compare.png: Dice under the worst attack over epsilon, one line per model, one panel per norm, and Dice per shift, models side by side; the
    records are evaluation.compare's."""
    norms = [n for n in TITLES if any(r["kind"] == "worst" and r["norm"] == n for r in records)]
    shifts = list(
        dict.fromkeys(r["attack"] for r in records if r["kind"] in ("shift_mean", "shifts_mean"))
    )
    panels = max(len(norms) + bool(shifts), 1)
    widths = [1.0] * (panels - bool(shifts)) + [max(1.0, len(shifts) / 8)] * bool(shifts)
    figure = Figure(figsize=(4.6 * sum(widths) + 0.4, 4.9), layout="constrained")
    axes = figure.subplots(1, panels, sharey=True, squeeze=False, width_ratios=widths)[0]
    for i, name in enumerate(names):
        line = {
            "color": COLOURS[i % len(COLOURS)],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": STYLES[i % len(STYLES)],
            "linewidth": 1.8,
        }
        clean = [r for r in records if r["kind"] == "clean" and r["model"] == name]
        for axis, norm in zip(axes, norms or ["linf"]):
            chosen = clean + [
                r
                for r in records
                if r["kind"] == "worst" and r["norm"] == norm and r["model"] == name
            ]
            axis.plot(
                range(len(chosen)), [100 * _value(r["dice"]) for r in chosen], label=name, **line
            )
            low, high = ([100 * _value(r[k]) for r in chosen] for k in ("dice_low", "dice_high"))
            axis.fill_between(
                range(len(chosen)), low, high, color=line["color"], alpha=0.12, linewidth=0
            )
            axis.set_xticks(range(len(chosen)), ["0", *(r["epsilon_text"] for r in chosen[1:])])
            axis.set_xlabel("epsilon" if norm == "linf" else "epsilon, RMS per voxel")
            axis.set_title(f"Worst of all {TITLES[norm]}", fontsize=10, loc="left")
        if shifts:
            chosen = [
                next(
                    r
                    for r in records
                    if r["model"] == name and r["attack"] == s and r["kind"].startswith("shift")
                )
                for s in shifts
            ]
            width = 0.84 / len(names)
            at = np.arange(len(shifts)) + (i - (len(names) - 1) / 2) * width
            axes[-1].bar(
                at,
                [100 * _value(r["dice"]) for r in chosen],
                width,
                color=line["color"],
                edgecolor="white",
                linewidth=0.3,
                label=name,
            )
            axes[-1].vlines(
                at,
                *([100 * _value(r[k]) for r in chosen] for k in ("dice_low", "dice_high")),
                color="black",
                linewidth=0.7,
            )
    if shifts:
        axes[-1].set_xticks(
            range(len(shifts)),
            [s.replace("_", " ") for s in shifts],
            rotation=40,
            ha="right",
            rotation_mode="anchor",
            fontsize=8,
        )
        axes[-1].set_title("Shifts, mean of the severities", fontsize=10, loc="left")
    axes[0].set_ylabel("foreground Dice (%)")
    axes[0].set_ylim(0, 102)
    axes[0].legend(fontsize=8, frameon=False)
    for axis in axes:
        _plain_axes(axis)
    figure.suptitle(f"{records[0]['cases']} cases, 95% bootstrap intervals over cases", fontsize=10)
    _save(figure, path)


def _plain_axes(axis: Axes) -> None:
    axis.grid(axis="y", color="#E5E5E5", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="y", labelleft=True)


def _draw_norm(axis: Axes, summary, clean, norm: str, names: Sequence[str], free) -> None:
    results = [r for r in summary["results"] if r["norm"] == norm and r["epsilon_text"]]
    # budgets double, as a rule: equal steps, with 0 for the clean case
    budgets = sorted({(r["epsilon"], r["epsilon_text"]) for r in results})
    place = {text: i + 1 for i, (_, text) in enumerate(budgets)}
    handles = []
    for name in [*names, f"worst_{norm}"]:
        chosen = sorted((r for r in results if r["attack"] == name), key=lambda r: r["epsilon"])
        if not chosen:
            continue
        worst, control = name.startswith("worst"), name == "noise"
        i = names.index(name) if name in names else 0
        colour = "black" if worst else GREY if control else COLOURS[i % len(COLOURS)]
        line = {
            "color": colour,
            "linewidth": 2.6 if worst else 1.5,
            "linestyle": "-" if worst else STYLES[i % len(STYLES)],
        }
        line |= {
            "marker": "" if worst else MARKERS[i % len(MARKERS)],
            "markersize": 4.5,
            "zorder": 1.9 if worst else 3,
        }
        at = [0, *(place[r["epsilon_text"]] for r in chosen)]
        mean, low, high = (
            [100 * _value(r[k]) for r in (clean, *chosen)]
            for k in ("dice", "dice_low", "dice_high")
        )
        axis.plot(at, mean, **line)
        axis.fill_between(at, low, high, color=colour, alpha=0.12, linewidth=0)
        handles.append(
            Line2D(
                [],
                [],
                label="worst of all" if worst else f"{name} (control)" if control else name,
                **line,
            )
        )
    for r in free:
        # no budget: drawn where its mean reached size falls between the budgets, beyond them at the edge
        reached = r["mean_linf_range" if norm == "linf" else "mean_rms_range"]
        if reached is None or summary["options"]["epsilon_unit"] != "range" or not budgets:
            continue
        i = names.index(r["attack"])
        spot = np.interp(reached, [0, *(b[0] for b in budgets)], range(len(budgets) + 1))
        beyond = reached > budgets[-1][0] * 1.05
        spot = len(budgets) + 0.45 if beyond else spot
        style = {
            "color": COLOURS[i % len(COLOURS)],
            "marker": "*",
            "markersize": 11,
            "linestyle": "",
        }
        error = [
            [100 * (_value(r["dice"]) - _value(r["dice_low"]))],
            [100 * (_value(r["dice_high"]) - _value(r["dice"]))],
        ]
        axis.errorbar(
            [spot],
            [100 * _value(r["dice"])],
            yerr=error,
            ecolor=COLOURS[i % len(COLOURS)],
            capsize=2,
            zorder=4,
            **style,
        )
        size = "Linf" if norm == "linf" else "RMS"
        handles.append(
            Line2D(
                [],
                [],
                label=f"{r['attack']}, no budget: mean {size} {255 * reached:.2g}/255",
                **style,
            )
        )
    axis.set_xticks(range(len(budgets) + 1), ["0", *(text for _, text in budgets)])
    axis.set_xlim(-0.2, len(budgets) + 0.6)
    unit = {
        "range": "fraction of the range",
        "normalized": "preprocessed units",
        "original": "units of the file",
    }[summary["options"]["epsilon_unit"]]
    axis.set_xlabel(f"epsilon, {unit}" if norm == "linf" else f"epsilon, RMS per voxel, {unit}")
    axis.set_title(TITLES[norm], fontsize=10, loc="left")
    axis.legend(handles=handles, fontsize=7.5, frameon=False, loc="best", handlelength=3)


def _draw_shifts(axis: Axes, clean, shifts, names: Sequence[str]) -> None:
    severities = sorted({r["severity"] for r in shifts})
    width = 0.84 / len(severities)
    for s in severities:
        chosen = {r["attack"]: r for r in shifts if r["severity"] == s}
        at = [i + (s - np.mean(severities)) * width for i, n in enumerate(names) if n in chosen]
        mean, low, high = (
            np.array([100 * _value(chosen[n][k]) for n in names if n in chosen])
            for k in ("dice", "dice_low", "dice_high")
        )
        axis.bar(
            at,
            mean,
            width,
            color=SEVERITY_COLOURS[s - 1],
            label=f"{s}",
            edgecolor="white",
            linewidth=0.3,
        )
        axis.vlines(at, low, high, color="black", linewidth=0.7)
    axis.axhline(100 * _value(clean["dice"]), color="black", linewidth=1, linestyle="--")
    axis.text(
        len(names) - 0.42, 100 * _value(clean["dice"]), "clean", ha="left", va="center", fontsize=8
    )
    axis.set_xticks(
        range(len(names)),
        [n.replace("_", " ") for n in names],
        rotation=40,
        ha="right",
        rotation_mode="anchor",
        fontsize=8,
    )
    axis.set_xlim(-0.6, len(names) - 0.4)
    axis.set_title("Shifts, severity 1-5", fontsize=10, loc="left")
    axis.legend(
        fontsize=8,
        frameon=False,
        ncols=5,
        loc="lower right",
        bbox_to_anchor=(1.0, 0.985),
        handlelength=1,
        columnspacing=1,
        borderaxespad=0.2,
    )


def _overlay(
    axis: Axes, prediction: np.ndarray, reference: np.ndarray, colours: Mapping[int, str]
) -> None:
    if colours:
        values = sorted(colours)
        shown = np.ma.masked_equal(np.searchsorted(values, prediction) + 1, 0)
        shown = np.ma.masked_where(prediction == 0, shown)
        axis.imshow(
            shown,
            cmap=ListedColormap([colours[v] for v in values]),
            vmin=1,
            vmax=len(values) + 0.5,
            alpha=0.45,
            interpolation="nearest",
        )
    for value in np.unique(reference[reference > 0]):
        mask = np.pad(reference == value, 1)  # a mask at the edge has a contour there too
        lines = axis.contour(
            np.arange(-1, mask.shape[1] - 1),
            np.arange(-1, mask.shape[0] - 1),
            mask,
            levels=[0.5],
            colors="white",
            linewidths=1.1,
        )
        lines.set_path_effects([_outline()])


def _outline():
    from matplotlib.patheffects import withStroke

    return withStroke(linewidth=2.4, foreground="black")


def _dice(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{100 * value:.1f}%"


def _value(value: float | None) -> float:
    return float("nan") if value is None else value


def _save(figure: Figure, path: Path) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI, facecolor="white")
    write_file(path, picture.getvalue())
