"""examples.png: what an attack did to two cases, on one slice of the preprocessed grid each.

An example is what run_case.py keeps of a case: arrays (H, W) 'image', 'perturbation', 'reference'
(the ground truth), 'before' and 'after' (the predictions), and what they show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from evaluation.report.figures import COLOURS, save
from evaluation.report.fitting import fitted, lines_of, plain_texts, text_width
from evaluation.report.norms import NORMS_WITH_UNIT

AMPLITUDE_PERCENTILE = 99.5
FONT = 9  # points
# inches; BAR is what stands beside the perturbation, LINE a line of a title
WIDTH, PICTURE_WIDTH, TITLE_WIDTH, LEGEND_WIDTH = 13.0, 2.36, 2.3, 12.6
GAP, BAR, LINE = 0.1, 0.5, 0.18
LOWEST_RATIO = 0.6  # of a place's height by its width
HANDLE = 0.6  # of a legend's entry, what stands beside its text
LEGEND_LINE, LEGEND_EDGE = 0.22, 0.25
OUTLINE = withStroke(linewidth=2.4, foreground="black")

Example = Mapping[str, Any]


def choose_examples(examples: Sequence[Example]) -> list[tuple[str, int]]:
    """[(title, index)] of the case with the lowest Dice under attack and the one in the middle.

    Ties go to the larger drop; an undefined Dice comes last.
    """
    ranked = sorted(range(len(examples)), key=lambda i: rank_of(examples[i]))
    if len(ranked) == 1:
        return [("the only case", ranked[0])]
    return [("worst case", ranked[0]), ("median case", ranked[len(ranked) // 2])]


@plain_texts
def draw_examples(path: Path, examples: Sequence[tuple[str, Example]]) -> None:
    """Draw examples.png, one row per example.

    Image, amplified perturbation, attacked image, prediction before and after with the ground
    truth's contour.

    Parameters
    ----------
    path
        The file.
    examples
        (title, example) of each row.
    """
    colours = _colours_of_labels([e for _, e in examples])
    legend = _legend(colours, names=examples[0][1]["names"])
    columns = _columns(legend)
    titles = [_titles(title, e) for title, e in examples]
    figure, rows = _place(
        max(e["image"].shape[0] / e["image"].shape[1] for _, e in examples),
        [max(map(lines_of, of)) for of in titles],
        math.ceil(len(legend) / columns) * max(lines_of(str(h.get_label())) for h in legend),
    )
    for axes, (_, example), of in zip(rows, examples, titles):
        _draw_example(figure, axes, example, colours)
        for axis, title in zip(axes, of):
            axis.set_title(title, fontsize=FONT)
    figure.legend(handles=legend, loc="lower center", ncols=columns, fontsize=FONT, frameon=False)
    save(figure, path)


def _place(
    ratio: float, title_lines: Sequence[int], legend_lines: int
) -> tuple[Figure, list[list[Axes]]]:
    """The figure and its rows of five places; Matplotlib's own layouts cut titles at some ratios.

    Parameters
    ----------
    ratio
        Height of a picture by its width.
    title_lines
        Of each row.
    legend_lines
        Below them.
    """
    picture = PICTURE_WIDTH * min(max(ratio, LOWEST_RATIO), 1.4)
    above = [LINE * lines + 2 * GAP for lines in title_lines]
    bottom = LEGEND_LINE * legend_lines + LEGEND_EDGE
    height = bottom + sum(above) + picture * len(above)
    figure, top = Figure(figsize=(WIDTH, height)), height
    lefts = [GAP + i * (PICTURE_WIDTH + GAP) + (BAR if i > 1 else 0) for i in range(5)]
    rows = []
    for space in above:
        top -= space + picture
        size = PICTURE_WIDTH / WIDTH, picture / height
        rows.append([figure.add_axes((left / WIDTH, top / height, *size)) for left in lefts])
    return figure, rows


def rank_of(example: Example) -> tuple[float, float]:
    """Low for a case that was hit hard: its Dice under attack, then the drop."""
    before, after = example["dice_before"], example["dice_after"]
    return math.inf if math.isnan(after) else after, 0.0 if math.isnan(before) else -before


def _colours_of_labels(examples: Sequence[Example]) -> dict[int, str]:
    maps = [e[key] for e in examples for key in ("reference", "before", "after")]
    values = sorted({int(v) for labels in maps for v in np.unique(labels)} - {0})
    return {v: COLOURS[i % len(COLOURS)] for i, v in enumerate(values)}


def _titles(title: str, example: Example) -> list[str]:
    """Of the five pictures of a row, in lines that fit above them."""
    dice = [_dice(example[f"dice_{key}"]) for key in ("before", "after")]
    titles = (
        f"{title}: {example['case']}\nclean image",
        f"perturbation, {example['attack']}\nin 1/255 of the range",
        f"attacked image\n{_budget(example)}",
        f"prediction, clean\nDice of the case {dice[0]}",
        f"prediction, attacked\nDice of the case {dice[1]}",
    )
    return [fitted(text, TITLE_WIDTH, FONT) for text in titles]


def _draw_example(
    figure: Figure, axes: Sequence[Axes], example: Example, colours: Mapping[int, str]
) -> None:
    image, attacked = example["image"], example["image"] + example["perturbation"]
    low, high = (float(v) for v in np.percentile(image, (0.5, 99.5)))
    grey = {"cmap": "gray", "vmin": low, "vmax": max(high, low + 1e-6), "interpolation": "nearest"}
    axes[0].imshow(image, **grey)
    _draw_perturbation(figure, axes[1], example)
    axes[2].imshow(attacked, **grey)
    for axis, key, background in zip(axes[3:], ("before", "after"), (image, attacked)):
        axis.imshow(background, **grey)
        _overlay(axis, example[key], example["reference"], colours)
    height, width = image.shape
    for axis in axes:
        axis.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def _draw_perturbation(figure: Figure, axis: Axes, example: Example) -> None:
    delta = example["perturbation"] / (example["range"] or 1.0) * 255  # a channel may be constant
    largest = max(float(np.percentile(np.abs(delta), AMPLITUDE_PERCENTILE)), 255e-12)
    picture = axis.imshow(delta, cmap="PuOr", vmin=-largest, vmax=largest, interpolation="nearest")
    ratio = delta.shape[0] / delta.shape[1]
    height = 0.8 * max(1.0, LOWEST_RATIO / ratio)  # of the picture's
    bar = figure.colorbar(picture, cax=axis.inset_axes((1.02, 0.5 - height / 2, 0.05, height)))
    bar.ax.tick_params(labelsize=7)


def _overlay(
    axis: Axes, prediction: np.ndarray, ground_truth: np.ndarray, colours: Mapping[int, str]
) -> None:
    """The prediction in colour, the ground truth as a contour."""
    if colours:
        values = sorted(colours)
        shown = np.ma.masked_where(prediction == 0, np.searchsorted(values, prediction) + 1)
        cmap = ListedColormap([colours[v] for v in values])
        limits = {"vmin": 1, "vmax": len(values) + 0.5}
        axis.imshow(shown, cmap=cmap, alpha=0.45, interpolation="nearest", **limits)
    for value in np.unique(ground_truth[ground_truth > 0]):
        mask = np.pad(ground_truth == value, 1)  # a mask at the edge has a contour there too
        columns, rows = (np.arange(-1, n - 1) for n in mask.shape[::-1])
        lines = axis.contour(columns, rows, mask, levels=[0.5], colors="white", linewidths=1.1)
        lines.set_path_effects([OUTLINE])


def _legend(colours: Mapping[int, str], names: Mapping[str, str]) -> list[Artist]:
    handles: list[Artist] = []
    for value, colour in colours.items():
        name = names.get(str(value), f"label {value}")
        label = fitted(f"predicted: {name}", LEGEND_WIDTH - HANDLE, FONT)
        handles.append(Patch(color=colour, alpha=0.55, label=label))
    contour = Line2D([], [], color="white", linewidth=1.6, label="ground truth's contour")
    contour.set_path_effects([OUTLINE])
    return [*handles, contour]


def _columns(legend: Sequence[Artist]) -> int:
    """How many entries of the legend stand side by side."""
    labels = [line for handle in legend for line in str(handle.get_label()).split("\n")]
    widest = HANDLE + max(text_width(line, FONT) for line in labels)
    return max(1, min(len(legend), int(LEGEND_WIDTH / widest)))


def _budget(example: Example) -> str:
    if not example["epsilon_text"]:
        return "without a budget"
    norm = example["norm"]
    return f"{NORMS_WITH_UNIT.get(norm, norm)} epsilon {example['epsilon_text']}"


def _dice(value: float) -> str:
    return "undefined" if not math.isfinite(value) else f"{100 * value:.1f}%"
