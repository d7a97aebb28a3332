"""report.html of `lngswr score` as a text: what is escaped, and that its numbers are those of
summary.json and cases.csv.

What a browser makes of it is in tests/evaluation/report/page/test_score_browser.py.
"""

import base64
import math
import re

import pytest

from evaluation.report.page import render
from evaluation.scoring import page, page_cases, run
from evaluation.scoring.figures import MOST_LABELS
from tests.evaluation.report.page.pages import NUMBER, data_of, finite
from tests.evaluation.scoring.pages import (
    CASES,
    EMPTY,
    HOSTILE,
    MODELS,
    rows_in,
    summary_in,
    write_page,
)

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (400).to_bytes(4, "big") + b"and so on"


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    for name in ("draw_scores", "draw_reliability"):
        drawn = PNG + name.encode()
        monkeypatch.setattr(run, name, lambda path, *of, drawn=drawn: path.write_bytes(drawn))


def text_of(folder):
    return (folder / "report.html").read_text()


@pytest.mark.parametrize("models", [MODELS, MODELS[:1]])
def test_every_number_said_is_one_of_the_summary(tmp_path, models):
    out = write_page(tmp_path, models=models)
    summary, text = summary_in(out), text_of(out)
    body = text[text.index("<body>") : text.index('<script type="application/json"')]
    said = set(NUMBER.findall(re.sub(r"<[^>]*>", " ", body)))
    shown = [summary[k] for k in ("results", "lesions", "calibration", "options")]
    known = {f.format(s * n) for n in finite(shown) for s in (1, 100) for f in ("{:.1f}", "{:.3g}")}
    known |= {v for text in summary["environment"].values() for v in NUMBER.findall(text)}
    known.add(f"{2 / 2 ** summary['patients']:.2g}")  # the least p of so few
    # and of -0.3, 0.3
    known = {k.removeprefix("-").partition("e")[0] for k in known}
    assert len(said) > 100 and said <= known, said - known


def test_the_table_of_cases_is_cases_csv(tmp_path):
    rows = rows_in(write_page(tmp_path))
    table, seen = data_of(text_of(tmp_path))["table"], 0
    assert table["cases"] == list(CASES) and table["models"] == list(MODELS)
    for model, of_model in zip(table["models"], table["values"]):
        for (label, name), of_label in zip(table["labels"], of_model):
            for measure, of_measure in zip(table["measures"], of_label):
                for case, patient, value in zip(table["cases"], table["patients"], of_measure):
                    row = rows[model, case, label]
                    assert float(row[measure]) == (math.nan if value is None else value) or (
                        value is None and row[measure] == "nan" and case == EMPTY
                    )
                    assert (row["group"], row["label_name"]) == (patient, name)
                    seen += 1
    assert seen == len(rows) * len(table["measures"])
    assert len(table["measures"]) == 4 + 5 + 6 + 4


def test_names_are_text_wherever_they_stand(tmp_path):
    text = text_of(write_page(tmp_path))
    assert HOSTILE not in text and "<img src=x" not in text
    assert text.count("<script") == text.count("</script>") == 1 + len(page.SCRIPTS)
    said = text[: text.index('<script type="application/json"')]
    escaped = HOSTILE.replace("<", "&lt;").replace(">", "&gt;")
    for words in (f"Scores of a, b {escaped}", f"lesion {escaped}", f"left out: {escaped}"):
        assert words in said
    table = data_of(text)["table"]
    assert HOSTILE in table["cases"] and table["labels"][2][1] == f"lesion {HOSTILE}"


def test_nothing_is_loaded_from_elsewhere_and_the_pictures_are_in_it(tmp_path):
    text = text_of(write_page(tmp_path))
    assert "default-src 'none'" in text
    pictures = re.findall(r'<img alt="[^"]+" width="192" src="data:image/png;base64,([^"]*)"', text)
    assert [base64.b64decode(p) for p in pictures] == [
        (tmp_path / name).read_bytes() for name in ("scores.png", "reliability.png")
    ]
    assert not re.findall(r"(?:src|href|url|@import)\s*[=(]?\s*[\"']?\s*(?:https?:)?//", text)
    assert not re.findall(r"<(?:link|iframe|object|embed)\b", text)
    assert render.PLOTLY_VERSION not in text and len(text) < 100_000


def test_a_single_model_without_probabilities_has_less_on_it(tmp_path):
    options = {"models": ["a"], "names": {1: "organ"}, "probabilities": False, "grouped": False}
    text = text_of(write_page(tmp_path, **options))
    data = data_of(text)
    for words in ("Holm", "Reliability", "Calibration", "baseline", "over patients", "case-label"):
        assert words not in text[: text.index('<script type="application/json"')], words
    assert data["table"]["patients"] is None
    assert [g["title"] for g in data["table"]["groups"]][-1] == "Lesions"


def test_few_patients_are_said_without_markdown(tmp_path):
    text = text_of(write_page(tmp_path))
    assert (
        "5 patients are few: intervals over them cover less than 95%" in text and "**" not in text
    )


def test_labels_that_are_too_many_for_a_page_are_left_to_cases_csv(tmp_path, monkeypatch):
    names = {i: f"label {i}" for i in range(1, MOST_LABELS + 2)}
    text = text_of(write_page(tmp_path, names=names))
    assert data_of(text)["table"]["all_labels"]
    # as reliability.png
    drawn = text[text.index('id="reliability"') :].split("</table>")[0]
    assert f">label {MOST_LABELS}<" in drawn and f">label {MOST_LABELS + 1}<" not in drawn
    monkeypatch.setattr(page_cases, "MOST_NUMBERS", 1000)
    text = text_of(write_page(tmp_path, names=names))
    table = data_of(text)["table"]
    assert [key for key, _ in table["labels"]] == ["mean"] and "too many for a page" in text


def test_pages_of_the_same_scores_are_the_same(tmp_path):
    pages = [text_of(write_page(tmp_path / name)) for name in "ab"]
    assert pages[0] == pages[1]
