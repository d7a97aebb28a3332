"""What the demo shows at its end: a table of Dice, and a picture of the segmentations."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.figure
import numpy as np
import SimpleITK as sitk

from evaluation.report.fitting import fitted, lines_of, plain_texts
from nnunetv2_lngswr.experiments.demo.places import Places
from nnunetv2_lngswr.utils.files import atomic_path

# inches: of three pictures, of a title, of a picture, of a title's line, between rows
WIDTH, TITLE_WIDTH, HEIGHT, LINE, GAP = 9.0, 2.8, 2.3, 0.18, 0.12
FONT = 9


def result_table(output: Path, sets: Sequence[str]) -> list[str]:
    """Return foreground Dice per test case as lines of text.

    Parameters
    ----------
    output
        The demo's folder, with the summary.json that nnUNetv2_evaluate_folder wrote.
    sets
        Of "2d", "3d".
    """
    lines = [f"{'set':4}{'test case':20}{'Dice':>7}"]
    for kind in sets:
        places = Places(kind, output)
        summary = json.loads((places.predictions / "summary.json").read_text())
        for case in summary["metric_per_case"]:
            name = Path(case["prediction_file"]).name.removesuffix(places.file_ending)
            lines.append(f"{kind:4}{name:20}{case['metrics']['1']['Dice']:7.3f}")
        lines.append(f"{kind:4}{'mean':20}{summary['foreground_mean']['Dice']:7.3f}")
    return lines


@plain_texts
def draw_overlays(output: Path, sets: Sequence[str], cases_per_set: int = 2) -> Path:
    """Draw image, ground truth and prediction of test cases (3D: the slice with most nodule).

    Parameters
    ----------
    output
        The demo's folder.
    sets
        Of "2d", "3d".
    cases_per_set
        The first so many test cases of each set.

    Returns
    -------
    Path
        overlay.png in `output`.
    """
    rows = [row for kind in sets for row in _slices(Places(kind, output), cases_per_set)]
    heights = [HEIGHT + LINE * lines_of(_fitted(row.name)) + GAP for row in rows]
    figure = matplotlib.figure.Figure(figsize=(WIDTH, sum(heights)))
    bottom = 1.0
    for row, height in zip(rows, heights):
        bottom -= height / sum(heights)
        place = 0.32, HEIGHT / sum(heights)
        axes = [figure.add_axes((x, bottom, *place)) for x in (0.01, 0.34, 0.67)]
        _draw(axes[0], row.image, row.name)
        _draw(axes[1], row.image, "reference", row.ground_truth, "lime")
        _draw(axes[2], row.image, "prediction", row.prediction, "red")
    picture = output / "overlay.png"
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, dpi=110)
    return picture


class _Slice(NamedTuple):
    """Arrays of one shape (H, W)."""

    name: str
    image: np.ndarray
    ground_truth: np.ndarray
    prediction: np.ndarray


def _slices(places: Places, count: int) -> Iterator[_Slice]:
    ending = places.file_ending
    for path in sorted(places.predictions.glob(f"*{ending}"))[:count]:
        name = path.name.removesuffix(ending)
        image = _read(places.raw / "imagesTs" / f"{name}_0000{ending}")
        ground_truth = _read(places.raw / "labelsTs" / path.name)
        prediction = _read(path)
        if image.ndim == 3:
            z = int(ground_truth.sum(axis=(1, 2)).argmax())
            image, ground_truth, prediction = image[z], ground_truth[z], prediction[z]
        yield _Slice(name, image, ground_truth, prediction)


def _read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def _fitted(title: str) -> str:
    return fitted(title, TITLE_WIDTH, FONT)


def _draw(
    axis: Any, image: np.ndarray, title: str, mask: np.ndarray | None = None, colour: str = ""
) -> None:
    axis.imshow(image, cmap="gray")
    if mask is not None:
        if mask.any():
            axis.contour(mask, levels=[0.5], colors=colour, linewidths=1)
        else:
            title = f"{title}: empty"
    axis.set_title(_fitted(title), fontsize=FONT)
    axis.set_axis_off()
