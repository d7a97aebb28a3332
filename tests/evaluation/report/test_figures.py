"""No text of a figure is cut off, however long the names of trainers, cases and labels are."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest

from evaluation.comparison.folders import ComparedModel
from evaluation.comparison.paired_rows import paired_rows
from evaluation.report import examples, figures, fitting
from tests.drawn_texts import drawn_texts
from tests.evaluation.report.rows import all_rows, summary_of
from tests.evaluation.report.test_examples import example

NAMES = {
    "the demo's": "nnUNetTrainerLNGSWR_5epochs",
    "long": "nnUNetTrainerLNGSWRAdversarialFreeWarmStart_250epochs__of_a_longer_name_still",
    "wide": "W" * 120,
    "formula": "_$\\no{formula$ x_y^z " + 5 * "a & b % ",
}
ALL = ("clean", "attack", "worst", "shift")


@pytest.fixture
def drawn(monkeypatch):
    """The texts of what a test draws."""
    with drawn_texts(monkeypatch) as texts:
        yield texts


def assert_whole(drawn, *needed):
    """Nothing is cut, and these words are there, whatever the line breaks."""
    assert drawn
    cut = [text for text in drawn if text.is_cut]
    assert not cut, cut
    written = ["".join(text.text.split()) for text in drawn]
    for words in needed:
        assert any("".join(words.split()) in text for text in written), words


@pytest.mark.parametrize(
    "name, kinds",
    [
        (NAMES["the demo's"], ("clean", "attack", "worst")),
        (NAMES["long"], ALL),
        (NAMES["wide"], ("clean",)),
        (NAMES["formula"], ("clean", "shift")),
    ],
)
def test_curves(name, kinds, drawn, tmp_path):
    summary = summary_of([r for r in all_rows() if r["kind"] in kinds])
    summary["model"] |= {"trainer": name, "dataset": f"Dataset611_{name}"}
    figures.draw_curves(tmp_path / "curves.png", summary)
    assert_whole(drawn, name, f"Dataset611_{name}", "95% bootstrap intervals over cases")


def test_what_others_have_set_changes_no_figure(tmp_path):
    summary = summary_of(all_rows())
    figures.draw_curves(tmp_path / "alone.png", summary)
    with matplotlib.rc_context({"font.size": 30, "axes.labelsize": 30, "axes.grid": True}):
        figures.draw_curves(tmp_path / "after.png", summary)
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "after.png").read_bytes() == (tmp_path / "alone.png").read_bytes()


@pytest.mark.parametrize(
    "name, count, kinds",
    [
        (NAMES["wide"], 2, ALL),
        (NAMES["formula"], 2, ("clean", "shift")),
        (NAMES["long"], 9, ("clean", "attack", "worst")),
        (NAMES["long"], 2, ("clean",)),
        (NAMES["wide"], 9, ("clean",)),
    ],
)
def test_comparison(name, count, kinds, drawn, tmp_path):
    rows = [r for r in all_rows() if r["kind"] in kinds]
    models = [
        ComparedModel(name=f"{name}{i}", folders=(Path("x"),), summary={}, rows=rows)
        for i in range(count)
    ]
    records = paired_rows(models, seed=0)
    figures.draw_comparison(tmp_path / "compare.png", [m.name for m in models], records, cases=3)
    assert_whole(drawn, *(m.name for m in models))


def test_curves_of_many_attacks(drawn, tmp_path):
    rows = all_rows()
    for i in range(40):
        more = [{**r, "attack": f"attack{i}"} for r in all_rows() if r["attack"] == "pgd_linf"]
        rows += [r for r in more if r["kind"] == "attack"]
    figures.draw_curves(tmp_path / "curves.png", summary_of(rows))
    assert_whole(drawn, "attack39", "worst of all")


def assert_titles_apart(drawn):
    """The titles of a row do not write over each other, over ticks of the bar or the legend."""
    boxes = sorted({t.box for t in drawn})
    for one in boxes:
        for other in boxes:
            apart = one[2] <= other[0] or other[2] <= one[0]
            assert one == other or apart or one[3] <= other[1] or other[3] <= one[1]


@pytest.mark.parametrize("name", [NAMES["the demo's"], NAMES["wide"], NAMES["formula"]])
def test_examples(name, drawn, tmp_path):
    shown = [
        (title, example(name, 0.1, value=value) | {"names": {"1": name, "2": f"{name} 2"}})
        for title, value in (("worst case", 1), ("median case", 2))
    ]
    examples.draw_examples(tmp_path / "examples.png", shown)
    assert_whole(drawn, f"worst case: {name}", f"predicted: {name} 2", "ground truth's contour")
    assert_titles_apart(drawn)


@pytest.mark.parametrize("height", (2, 18, 20, 26, 31, 42, 44, 50, 300))
@pytest.mark.parametrize("name", ["case 1", NAMES["wide"]])
def test_examples_of_any_shape(height, name, drawn, tmp_path):
    shown = example(name, 0.1)
    for key in ("image", "perturbation", "reference", "before", "after"):
        shown[key] = np.resize(shown[key], (height, 30))
    examples.draw_examples(tmp_path / "examples.png", [("the only case", shown)])
    assert_whole(drawn, f"the only case: {name}", "ground truth's contour")
    assert_titles_apart(drawn)


def test_examples_of_many_labels(drawn, tmp_path):
    shown = example("a", 0.1)
    shown["reference"] = np.arange(600).reshape(20, 30) % 41
    shown["names"] = {str(i): f"label number {i}" for i in range(41)}
    examples.draw_examples(tmp_path / "examples.png", [("the only case", shown)])
    assert_whole(drawn, "predicted: label number 40")


def test_short_texts_stay_as_they_are_and_long_ones_lose_nothing():
    assert fitting.fitted("a b\nc", 3, 10) == "a b\nc"
    for text in ("", " ", "word " * 30, "W" * 90, "a" * 50 + " b " + "c" * 50):
        found = fitting.fitted(text, 1.5, 9)
        assert "".join(found.split()) == "".join(text.split())
        assert max(fitting.text_width(line, 9) for line in found.split("\n")) <= 1.5
    assert fitting.fitted("ab", 0.001, 9) == "a\nb"  # a character at least
