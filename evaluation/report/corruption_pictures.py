"""corruptions.png: what every corruption does to one slice of one case, severity by severity.

A slice is what example.CorruptedSlice keeps: (runs, h, w) grey values and predictions, the clean
run first. All pictures are one array at whole multiples of their pixels, so that noise stays noise,
and the file has few colours, so that it stays small.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from contourpy import contour_generator
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import AbstractPathEffect, withStroke
from PIL import Image

from evaluation.corruption_table import CORRUPTIONS, SEVERITIES
from evaluation.report.figures import COLOURS, DPI
from evaluation.report.fitting import fitted, lines_of, plain_texts
from nnunetv2_lngswr.utils.files import write_file

CELL = 192  # pixels of the file along the longer side of a picture, about
# pixels of the file: what names a row, what is between pictures, below one and above the rows
LEFT, GAP, BELOW, HEADING = 290, 12, 34, 76
NARROWEST = 150  # of a column, for the text below
FONT = 7  # points
LINE = 26  # pixels of the file, of a text
HANDLE = 0.4  # inches of a legend's line
MOST_NAMED = 12  # labels in the legend
PALETTE = 96  # colours of the file
OUTLINE: list[AbstractPathEffect] = [withStroke(linewidth=1.8, foreground="black")]
# of COLOURS, those first that are seen on dark and on bright images
_ORDER = (4, 5, 3, 6, 1, 2, 0, 7, 8)

Corrupted = Mapping[str, Any]


def choose_corrupted(found: Sequence[Corrupted]) -> int:
    """Of several cases the one in the middle, by the mean of its Dice under corruptions."""
    return sorted(range(len(found)), key=lambda i: (_mean_dice(found[i]), i))[len(found) // 2]


@plain_texts
def draw_corruptions(path: Path, corrupted: Corrupted) -> None:
    """Draw corruptions.png: a row per corruption, a column per severity, the clean slice above.

    Parameters
    ----------
    path
        The file.
    corrupted
        As `example.CorruptedSlice.kept` gives it, with the names of labels.
    """
    names = list(dict.fromkeys(r["corruption"] for r in corrupted["runs"][1:]))
    place = _Place(corrupted["images"].shape[1:], rows=len(names))
    said, handles = _said(corrupted, place), _handles(corrupted, place)
    place.make_room(said, handles)
    size = place.width / DPI, place.height / DPI
    figure = Figure(figsize=size, dpi=DPI)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    axis.set(xlim=(0, place.width), ylim=(place.height, 0))
    grey = np.full((place.height, place.width), 255, np.uint8)
    lines: dict[int, list[np.ndarray]] = {}
    for i, run in enumerate(corrupted["runs"]):
        row = names.index(run["corruption"]) if run["corruption"] else None
        top, left = place.of(row, run["severity"])
        grey[top : top + place.h, left : left + place.w] = place.enlarged(corrupted["images"][i])
        predicted = corrupted["predictions"][i]
        for index in (int(v) for v in np.unique(predicted) if v > 0):
            lines.setdefault(index, []).extend(place.outlines(predicted == index, top, left))
        style = {"fontsize": FONT, "ha": "center", "va": "top"}
        axis.text(left + place.w / 2, top + place.h + 4, _below(run), **style)
    figure.figimage(grey, cmap="gray", vmin=0, vmax=255, zorder=-1)
    for index, of in sorted(lines.items()):
        _draw(axis, of, _colour(index))
    truth = place.outlines(corrupted["reference"] > 0, *place.of(None, None))
    _draw(axis, truth, "white", linestyles="dotted")
    _write_texts(axis, place, names)
    _explain(axis, place, said, handles)
    _save(figure, path)


class _Place:
    """Where pictures are, in pixels of the file.

    Parameters
    ----------
    shape
        (h, w) of a picture.
    rows
        Of corruptions.
    """

    def __init__(self, shape: tuple[int, int], *, rows: int) -> None:
        self.times = max(1, round(CELL / max(shape)))
        self.h, self.w = (self.times * n for n in shape)
        self.column, self.row = max(self.w, NARROWEST) + GAP, self.h + BELOW + GAP
        self.rows, self.beside = rows, LEFT + self.column  # of the clean picture
        self.width = LEFT + len(SEVERITIES) * self.column
        self.make_room("", [])

    def make_room(self, said: str, handles: Sequence[Line2D]) -> None:
        """For a text and a legend beside the clean picture."""
        self.legend = 2 * GAP + LINE * lines_of(said)
        entries = sum(LINE * lines_of(str(h.get_label())) + GAP for h in handles)
        self.top = max(GAP + self.row, self.legend + entries) + HEADING
        self.height = self.top + self.rows * self.row

    @property
    def inches_beside(self) -> float:
        return (self.width - self.beside - GAP) / DPI

    def of(self, row: int | None, severity: int | None) -> tuple[int, int]:
        """(top, left) of a picture; without a row of the clean one."""
        top = GAP if row is None else self.top + row * self.row
        return top, self.left(1 if severity is None else severity)

    def left(self, severity: int) -> int:
        """Of the pictures of a column, which are in its middle."""
        return LEFT + (severity - 1) * self.column + (self.column - GAP - self.w) // 2

    def enlarged(self, picture: np.ndarray) -> np.ndarray:
        """(h, w), each pixel several times along both axes."""
        return picture.repeat(self.times, 0).repeat(self.times, 1)

    def outlines(self, mask: np.ndarray, top: int, left: int) -> list[np.ndarray]:
        """Closed lines (n, 2) of x, y in the file, around a mask (h, w) shown there."""
        # padded, since a mask at the edge has an outline there too
        lines = contour_generator(z=np.pad(mask.astype(np.float64), 1)).lines(0.5)
        # a pixel's middle is half a pixel from its corner
        return [(np.asarray(line) - 0.5) * self.times + (left, top) for line in lines]


def _write_texts(axis: Axes, place: _Place, names: Sequence[str]) -> None:
    """Of rows and columns."""
    middle = {"fontsize": FONT, "ha": "center"}
    for severity in SEVERITIES:
        x = place.left(severity) + place.w / 2
        axis.text(x, place.top - 8, f"severity {severity}", va="bottom", **middle)
    width = (LEFT - 2 * GAP) / DPI
    for i, name in enumerate(names):
        unit = CORRUPTIONS[name].unit if name in CORRUPTIONS else ""
        said = fitted(f"{name.replace('_', ' ')}\n({unit})" if unit else name, width, FONT)
        y = place.top + i * place.row + place.h / 2
        axis.text(GAP, y, said, fontsize=FONT, ha="left", va="center")
    clean, _ = place.of(None, None)
    axis.text(GAP, clean + place.h / 2, "clean", fontsize=FONT, va="center")


def _explain(axis: Axes, place: _Place, said: str, handles: Sequence[Line2D]) -> None:
    """Beside the clean picture."""
    axis.text(place.beside, GAP, said, fontsize=FONT, ha="left", va="top")
    legend = axis.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(place.beside, place.legend),
        bbox_transform=axis.transData,
        fontsize=FONT,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
    )
    for line in legend.get_lines():
        line.set_path_effects(OUTLINE)


def _said(corrupted: Corrupted, place: _Place) -> str:
    text = (
        f"Case {corrupted['case']}, the one in the middle of all by its Dice under corruptions: "
        "the slice with most ground truth, on the preprocessed grid, in the clean slice's grey "
        "window. Below each: strength, then the case's foreground Dice."
    )
    return fitted(text, place.inches_beside, FONT)


def _handles(corrupted: Corrupted, place: _Place) -> list[Line2D]:
    """What the outlines are; the labels that are predicted somewhere, but for many."""
    there = [int(i) for i in np.unique(corrupted["predictions"]) if i > 0]
    handles = []
    for index in there[:MOST_NAMED]:
        value = str(corrupted["values"][index])
        text = f"predicted: {corrupted['names'].get(value, f'label {value}')}"
        label = fitted(text, place.inches_beside - HANDLE, FONT)
        handles.append(Line2D([], [], color=_colour(index), label=label))
    if len(there) > MOST_NAMED:
        text = f"and {len(there) - MOST_NAMED} more labels"
        handles.append(Line2D([], [], color="none", label=text))
    truth = "ground truth, at the clean picture"
    return [*handles, Line2D([], [], color="white", linestyle="dotted", label=truth)]


def _draw(axis: Axes, lines: Sequence[np.ndarray], colour: str, **style: Any) -> None:
    drawn = LineCollection(lines, colors=colour, linewidths=0.8, path_effects=OUTLINE, **style)
    axis.add_collection(drawn, autolim=False)


def _colour(index: int) -> str:
    return COLOURS[_ORDER[(index - 1) % len(_ORDER)]]


def _below(run: Mapping[str, Any]) -> str:
    dice = "undefined" if math.isnan(run["dice"]) else f"{100 * run['dice']:.1f}%"
    known = CORRUPTIONS.get(run["corruption"])
    return dice if known is None else f"{known.strengths[run['severity'] - 1]:g}: {dice}"


def _mean_dice(corrupted: Corrupted) -> float:
    """Of the defined ones; undefined comes last."""
    dice = [r["dice"] for r in corrupted["runs"][1:] if not math.isnan(r["dice"])]
    return float(np.mean(dice)) if dice else math.inf


def _save(figure: Figure, path: Path) -> None:
    """A PNG of few colours, whole or not at all."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI, facecolor="white")
    picture = Image.open(drawn).convert("RGB")
    few = picture.quantize(PALETTE, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(small, format="png", optimize=True)
    write_file(path, small.getvalue())
