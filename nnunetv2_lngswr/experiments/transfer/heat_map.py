"""transfer.png: models by data sets, a panel for each run, Dice as colour and number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from evaluation.report.figures import GREY, percent, save
from evaluation.report.fitting import fitted, lines_of, plain_texts

COLOURS = "viridis"
NAME_WIDTH, CELL_WIDTH = 2.6, 1.5  # inches
LINE_HEIGHT, LEAST_ROW = 0.17, 0.55
SIZE = 8.0  # of texts, in points
PER_ROW = 3  # panels
DARK = 55  # below this Dice in percent, viridis is dark

Record = Mapping[str, Any]


@plain_texts
def draw_heat_map(
    path: Path,
    runs: Mapping[str, Sequence[Record]],
    models: Sequence[str],
    data_sets: Sequence[str],
) -> None:
    """Draw transfer.png.

    Parameters
    ----------
    path
        The file.
    runs
        {title: its records of `figures.Figures.matrix`}, in the order of the panels.
    models, data_sets
        Names of rows and columns.
    """
    names = [fitted(name.replace(" on ", "\non "), NAME_WIDTH - 0.1, SIZE) for name in models]
    columns = [fitted(name.replace("_", "_ "), CELL_WIDTH - 0.1, SIZE) for name in data_sets]
    columns = [name.replace("_ ", "_") for name in columns]
    row = max(LEAST_ROW, LINE_HEIGHT * max(map(lines_of, names)) + 0.1)
    across = min(PER_ROW, len(runs))
    down = math.ceil(len(runs) / across)
    width = NAME_WIDTH + across * CELL_WIDTH * len(data_sets) + 0.3 * across + 0.9
    above = LINE_HEIGHT * max(map(lines_of, columns)) + 0.5
    figure = Figure(figsize=(width, down * (row * len(models) + above) + 0.8), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharey=True).flatten()
    images = []
    for axis, (title, records) in zip(axes, runs.items()):
        images.append(_draw(axis, title, records, models, data_sets))
        axis.set_xticks(range(len(columns)), columns, fontsize=SIZE)
        axis.set_yticks(range(len(names)), names, fontsize=SIZE)
    for axis in axes[len(runs) :]:
        axis.set_visible(False)
    bar = figure.colorbar(images[0], ax=list(axes), fraction=0.03, aspect=30)
    bar.set_label("Dice (%)", fontsize=SIZE)
    bar.ax.tick_params(labelsize=SIZE)
    said = "Foreground Dice (%) with 95% intervals; framed: the model's own data set"
    figure.suptitle(fitted(said, 0.96 * width, SIZE + 1), fontsize=SIZE + 1)
    save(figure, path)


def _draw(
    axis: Axes,
    title: str,
    records: Sequence[Record],
    models: Sequence[str],
    data_sets: Sequence[str],
) -> Any:
    """One panel; returns its image."""
    dice = np.full((len(models), len(data_sets)), np.nan)
    for record in records:
        at = models.index(record["model"]), data_sets.index(record["data_set"])
        dice[at] = percent(record["dice"])
        # undefined: on grey
        shown = "undefined" if np.isnan(dice[at]) else f"{dice[at]:.1f}"
        colour = "white" if dice[at] < DARK else "black"
        centre: dict[str, Any] = {"ha": "center", "va": "center", "color": colour}
        axis.text(at[1], at[0] - 0.1, shown, fontsize=SIZE + 2, **centre)
        if not np.isnan(dice[at]):
            low, high = (percent(record[key]) for key in ("dice_low", "dice_high"))
            axis.text(at[1], at[0] + 0.22, f"[{low:.1f}, {high:.1f}]", fontsize=SIZE - 1, **centre)
        if record["own"]:
            corner = (at[1] - 0.47, at[0] - 0.46)
            frame = Rectangle(corner, 0.94, 0.92, fill=False, edgecolor="#D55E00", linewidth=2.2)
            axis.add_patch(frame)
    axis.set_facecolor(GREY)
    image = axis.imshow(dice, cmap=COLOURS, norm=Normalize(0, 100), aspect="auto")
    axis.set_title(title, fontsize=SIZE + 2, loc="left")
    axis.tick_params(length=0, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)
    return image
