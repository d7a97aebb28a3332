"""The figures of `lngswr score`: nothing is cut off, and what is undefined is said."""

import math

import pytest
from matplotlib.axes import Axes

from evaluation.scoring import figures
from evaluation.scoring.measures import measure_names
from tests.drawn_texts import drawn_texts

LONG = "nnUNetTrainerLNGSWRAdversarialFreeWarmStart_250epochs__of_a_longer_name_still"
FORMULA = "_$\\no{formula$ x_y^z"


def made(models, labels, *, cases=4, undefined=()):
    """(summary, rows) as run.py hands them to the figures."""
    scored = {str(i + 1): name for i, name in enumerate(labels)}
    results, rows = [], []
    for number, model in enumerate(models):
        for label in ("mean", *scored):
            values = dict.fromkeys(measure_names(probabilities=True), 0.5 + 0.1 * number)
            values |= dict.fromkeys(undefined, math.nan)
            named = {"model": model, "label": label}
            for measure, value in values.items():
                ends = {"mean": value, "mean_low": value - 0.1, "mean_high": value + 0.1}
                results.append({**named, "measure": measure, **ends})
            rows += [
                {**named, **{k: v + 0.02 * c for k, v in values.items()}} for c in range(cases)
            ]
    bins = [
        {"low": b / 5, "high": b / 5 + 0.2, "voxels": 10 ** (5 - b), "mean_probability": b / 4}
        | {"frequency": 0.1 + b / 5}
        for b in range(5)
    ]
    summary = {
        "models": [{"name": m} for m in models],
        "cases": cases,
        "patients": None,
        "labels": {"scored": scored},
        "metrics": {"length_unit": "mm", "volume_unit": "ml"},
        "results": results,
        "calibration": [
            {"model": m, "label": label, "label_name": name, "ece_box": 0.1, "bins": bins}
            for m in models
            for label, name in scored.items()
        ],
    }
    return summary, rows


@pytest.mark.parametrize(
    "models, labels",
    [(["vanilla", LONG], ["organ"]), ([FORMULA], ["organ", LONG]), (["W" * 120], ["lesion"])],
)
def test_no_name_is_cut_off(models, labels, monkeypatch, tmp_path):
    summary, rows = made(models, labels)
    with drawn_texts(monkeypatch) as drawn:
        figures.draw_scores(tmp_path / "scores.png", summary, rows)
        figures.draw_reliability(tmp_path / "reliability.png", summary)
    assert drawn and not [text for text in drawn if text.is_cut]
    written = ["".join(text.text.split()) for text in drawn]
    for words in (*models, *labels, "HD95 (mm)", "ECE near the object"):
        assert any("".join(words.split()) in text for text in written), words
    assert not any("mathdefault" in text for text in written)


def test_a_mean_is_drawn_where_the_table_has_it(monkeypatch, tmp_path):
    summary, rows = made(["a", "b"], ["organ"], undefined=("hd95_mm",))
    marks, plot = [], Axes.plot

    def noted(self, x, y, **style):
        if style.get("marker") == "D":
            marks.append((self.get_title(loc="left"), x[0], y[0]))
        return plot(self, x, y, **style)

    monkeypatch.setattr(Axes, "plot", noted)
    with drawn_texts(monkeypatch) as drawn:
        figures.draw_scores(tmp_path / "scores.png", summary, rows)
    assert sum(text.text == "undefined" for text in drawn) >= 2
    assert [(x, y) for title, x, y in marks if title == "Dice (%)"] == [(50, 0), (60, 1)]
    assert len(marks) == 2 * (len(figures.SHOWN) - 1)
