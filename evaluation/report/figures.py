"""The plots: curves.png (Dice over epsilon and under corruptions) and compare.png (several models).

Colours are Okabe and Ito's, told apart with any colour vision, and each attack or model has a
marker and a line style of its own. Figures are drawn without pyplot, so a caller's own figures and
backend are left alone.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from evaluation.protocol import CORRUPTION
from evaluation.report.fitting import fitted, legend_label, lines_of, plain_texts
from evaluation.report.intervals import over
from evaluation.report.norms import NORMS
from evaluation.report.records import CORRUPTION_MEANS
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
UNITS = {
    "range": "fraction of the range",
    "normalized": "preprocessed units",
    "original": "units of the file",
}
GROUP_WIDTH = 0.84  # of the bars of one corruption; the next group begins at 1
LABEL_WIDTH = 3.0  # inches of a legend's text, of a panel of 4.6
LEGEND_LINES = 20  # at most within a panel
LEGEND_LINE = 0.18  # inches
DPI = 200

Record = Mapping[str, Any]


@plain_texts
def draw_curves(path: Path, summary: Mapping[str, Any]) -> None:
    """Draw curves.png, all with 95% bootstrap intervals.

    Foreground Dice over epsilon per attack, one panel per norm; Dice per corruption, severities
    side by side.

    Parameters
    ----------
    path
        The file.
    summary
        As summary.json.
    """
    results = summary["results"]
    clean = next(r for r in results if r["kind"] == "clean")
    attacked = [r for r in results if r["kind"] in ("attack", "worst")]
    norms = [n for n in NORMS if any(r["norm"] == n and r["epsilon_text"] for r in attacked)]
    if attacked and not norms:  # only attacks without a budget
        norms = ["linf"]
    corrupted = [r for r in results if r["kind"] == CORRUPTION]
    corruptions = list(dict.fromkeys(r["attack"] for r in corrupted))
    figure, axes = _panels(len(norms), len(corruptions))
    for axis, norm in zip(axes, norms):
        _draw_norm(axis, summary, clean, norm)
    if corrupted:
        _draw_severities(axes[-1], clean, corrupted, corruptions)
    model = summary["model"]
    title = (
        f"{', '.join(model[k] for k in ('trainer', 'configuration', 'dataset') if model[k])}: "
        f"{len(summary['cases'])} cases, 95% bootstrap intervals over {over(summary.get('groups'))}"
    )
    _entitle(figure, title)
    save(figure, path)


@plain_texts
def draw_comparison(
    path: Path,
    names: Sequence[str],
    records: Sequence[Record],
    *,
    cases: int,
    groups: object = None,
) -> None:
    """Draw compare.png, all with 95% bootstrap intervals.

    Dice under the worst attack over epsilon, one line per model, one panel per norm; Dice per
    corruption, models side by side.

    Parameters
    ----------
    path
        The file.
    names, records
        Of the models, and of `evaluation.compare.compare`.
    cases, groups
        How many were evaluated, and the groups that the intervals are over, if they are.
    """
    norms = [n for n in NORMS if any(r["kind"] == "worst" and r["norm"] == n for r in records)]
    means = [r for r in records if r["kind"] in CORRUPTION_MEANS]
    corruptions = list(dict.fromkeys(r["attack"] for r in means))
    if not norms and not corruptions:
        norms = ["linf"]  # the clean case alone
    figure, axes = _panels(len(norms), len(corruptions))
    for i, name in enumerate(names):
        style, label = _style(i), legend_label(name, LABEL_WIDTH, 8)
        mine = [r for r in records if r["model"] == name]
        for axis, norm in zip(axes, norms):
            _draw_worst(axis, mine, norm, label=label, linewidth=1.8, **style)
        if corruptions:
            by_name = {r["attack"]: r for r in means if r["model"] == name}
            chosen = [by_name[c] for c in corruptions]
            width = GROUP_WIDTH / len(names)
            at = np.arange(len(corruptions)) + (i - (len(names) - 1) / 2) * width
            _bars(axes[-1], at, chosen, width, color=style["color"], label=label)
    if corruptions:
        _name_groups(axes[-1], corruptions)
        axes[-1].set_title("Corruptions, mean of the severities", fontsize=10, loc="left")
    _add_legend(axes[0], axes[0].get_legend_handles_labels()[0], fontsize=8)
    _entitle(figure, f"{cases} cases, 95% bootstrap intervals over {over(groups)}")
    save(figure, path)


def percent(value: float | None) -> float:
    """nan for None."""
    return float("nan") if value is None else 100 * value


def save(figure: Figure, path: Path) -> None:
    """Write a PNG whole or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI, facecolor="white")
    write_file(path, picture.getvalue())


def _entitle(figure: Figure, title: str) -> None:
    figure.suptitle(fitted(title, 0.96 * figure.get_figwidth(), 10), fontsize=10)


def _add_legend(axis: Axes, handles: Sequence[Any], **style: Any) -> None:
    """Where it hides least of the panel; below all panels where it is as high as a panel."""
    lines = sum(lines_of(str(handle.get_label())) for handle in handles)
    if lines <= LEGEND_LINES:
        axis.legend(handles=handles, loc="best", frameon=False, **style)
        return
    figure = axis.get_figure(root=True)
    assert isinstance(figure, Figure)
    figure.set_figheight(figure.get_figheight() + LEGEND_LINE * lines)
    figure.legend(handles=handles, loc="outside lower left", frameon=False, **style)


def _panels(curves: int, corruptions: int) -> tuple[Figure, Sequence[Axes]]:
    """Side by side with one axis of Dice: one per norm, then one for corruptions, if any."""
    widths = [1.0] * curves
    if corruptions:
        widths.append(max(1.0, corruptions / 8))
    widths = widths or [1.0]
    figure = Figure(figsize=(4.6 * sum(widths) + 0.4, 4.9), layout="constrained")
    axes = figure.subplots(1, len(widths), sharey=True, squeeze=False, width_ratios=widths)[0]
    axes[0].set_ylabel("foreground Dice (%)")
    axes[0].set_ylim(0, 102)
    for axis in axes:
        axis.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(axis="y", labelleft=True)
    return figure, axes


def _style(i: int) -> dict[str, Any]:
    """Colour, marker and line of the i-th attack or model."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": STYLES[i % len(STYLES)],
    }


def _percents(records: Sequence[Record]) -> tuple[list[float], list[float], list[float]]:
    """Dice and the ends of its interval."""
    dice, low, high = (
        [percent(r[key]) for r in records] for key in ("dice", "dice_low", "dice_high")
    )
    return dice, low, high


# --- Dice over epsilon ---


def _draw_norm(axis: Axes, summary: Mapping[str, Any], clean: Record, norm: str) -> None:
    results = [r for r in summary["results"] if r["norm"] == norm and r["epsilon_text"]]
    attacks = [r for r in summary["results"] if r["kind"] == "attack"]
    names = list(dict.fromkeys(r["attack"] for r in attacks))
    budgets = sorted({(r["epsilon"], r["epsilon_text"]) for r in results})
    unit = summary["options"]["epsilon_unit"]
    handles = []
    for name in [*names, f"worst_{norm}"]:
        chosen = sorted((r for r in results if r["attack"] == name), key=lambda r: r["epsilon"])
        if chosen:
            handles.append(_draw_attack(axis, [clean, *chosen], budgets, name, names))
    # where sizes are reached in the unit of the axis, the attacks without a budget have a place too
    if unit == "range" and budgets:
        for r in attacks:
            if not r["epsilon_text"] and r[_reached_column(norm)] is not None:
                handles.append(_draw_without_budget(axis, r, norm, budgets, names))
    axis.set_xticks(range(len(budgets) + 1), ["0", *(text for _, text in budgets)])
    axis.set_xlim(-0.2, len(budgets) + 0.6)
    root_mean_square = "" if norm == "linf" else ", RMS per voxel"
    axis.set_xlabel(f"epsilon{root_mean_square}, {UNITS[unit]}")
    axis.set_title(f"{NORMS[norm]} attacks", fontsize=10, loc="left")
    _add_legend(axis, handles, fontsize=7.5, handlelength=3)


def _draw_attack(
    axis: Axes,
    records: Sequence[Record],
    budgets: Sequence[tuple[float, str]],
    name: str,
    names: Sequence[str],
) -> Line2D:
    """A line with its band, from the clean case on; returns its entry of the legend."""
    style, label = _attack_style(name, names)
    # budgets double, as a rule: equal steps, with 0 for the clean case
    place = {text: i + 1 for i, (_, text) in enumerate(budgets)}
    at = [0, *(place[r["epsilon_text"]] for r in records[1:])]
    dice, low, high = _percents(records)
    axis.plot(at, dice, **style)
    axis.fill_between(at, low, high, color=style["color"], alpha=0.12, linewidth=0)
    return Line2D([], [], label=legend_label(label, LABEL_WIDTH, 7.5), **style)


def _attack_style(name: str, names: Sequence[str]) -> tuple[dict[str, Any], str]:
    """(line, label) of an attack, the noise control or the worst of all."""
    if name not in names:
        worst = {"color": "black", "linewidth": 2.6, "linestyle": "-", "marker": ""}
        return {**worst, "markersize": 4.5, "zorder": 1.9}, "worst of all"
    style = {**_style(names.index(name)), "linewidth": 1.5, "markersize": 4.5, "zorder": 3}
    if name == "noise":
        return {**style, "color": GREY}, f"{name} (control)"
    return style, name


def _reached_column(norm: str) -> str:
    return "mean_linf_range" if norm == "linf" else "mean_rms_range"


def _draw_without_budget(
    axis: Axes,
    record: Record,
    norm: str,
    budgets: Sequence[tuple[float, str]],
    names: Sequence[str],
) -> Line2D:
    """A star where the mean reached size falls between the budgets, beyond them at the edge."""
    reached = record[_reached_column(norm)]
    if reached > budgets[-1][0] * 1.05:
        at = len(budgets) + 0.45
    else:
        at = np.interp(reached, [0, *(size for size, _ in budgets)], range(len(budgets) + 1))
    colour = COLOURS[names.index(record["attack"]) % len(COLOURS)]
    style = {"color": colour, "marker": "*", "markersize": 11, "linestyle": ""}
    dice, low, high = (percent(record[key]) for key in ("dice", "dice_low", "dice_high"))
    error = [[dice - low], [high - dice]]
    axis.errorbar([at], [dice], yerr=error, ecolor=colour, capsize=2, zorder=4, **style)
    size = "Linf" if norm == "linf" else "RMS"
    label = f"{record['attack']}, no budget: mean {size} {255 * reached:.2g}/255"
    return Line2D([], [], label=legend_label(label, LABEL_WIDTH, 7.5), **style)


def _draw_worst(axis: Axes, records: Sequence[Record], norm: str, **style: Any) -> None:
    """One model's clean case and worst attack at every budget."""
    chosen = [r for r in records if r["kind"] == "clean"]
    chosen += [r for r in records if r["kind"] == "worst" and r["norm"] == norm]
    dice, low, high = _percents(chosen)
    at = range(len(chosen))
    axis.plot(at, dice, **style)
    axis.fill_between(at, low, high, color=style["color"], alpha=0.12, linewidth=0)
    axis.set_xticks(at, ["0", *(r["epsilon_text"] for r in chosen[1:])])
    axis.set_xlabel("epsilon" if norm == "linf" else "epsilon, RMS per voxel")
    axis.set_title(f"Worst of all {NORMS[norm]} attacks", fontsize=10, loc="left")


# --- bars of corruptions ---


def _draw_severities(
    axis: Axes, clean: Record, corrupted: Sequence[Record], names: Sequence[str]
) -> None:
    severities = sorted({r["severity"] for r in corrupted})
    width = GROUP_WIDTH / len(severities)
    for s in severities:
        chosen = {r["attack"]: r for r in corrupted if r["severity"] == s}
        there = [i for i, name in enumerate(names) if name in chosen]
        at = [i + (s - np.mean(severities)) * width for i in there]
        records = [chosen[names[i]] for i in there]
        _bars(axis, at, records, width, color=SEVERITY_COLOURS[s - 1], label=f"{s}")
    dice = percent(clean["dice"])
    axis.axhline(dice, color="black", linewidth=1, linestyle="--")
    axis.text(len(names) - 0.42, dice, "clean", ha="left", va="center", fontsize=8)
    _name_groups(axis, names)
    axis.set_xlim(-0.6, len(names) - 0.4)
    axis.set_title("Corruptions, severity 1-5", fontsize=10, loc="left")
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


def _bars(
    axis: Axes,
    at: Sequence[float] | np.ndarray,
    records: Sequence[Record],
    width: float,
    *,
    color: str,
    label: str,
) -> None:
    dice, low, high = _percents(records)
    axis.bar(at, dice, width, color=color, edgecolor="white", linewidth=0.3, label=label)
    axis.vlines(at, low, high, color="black", linewidth=0.7)


def _name_groups(axis: Axes, names: Sequence[str]) -> None:
    words = [name.replace("_", " ") for name in names]
    at = range(len(names))
    axis.set_xticks(at, words, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
