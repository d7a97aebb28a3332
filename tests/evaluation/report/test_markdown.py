"""What report.md says, with everything in it and with little."""

import json

import pytest
from PIL import Image

from evaluation.report import figures, markdown, records
from nnunetv2_lngswr.utils.markdown import markdown_table
from tests.evaluation.report.rows import all_rows, summary_of


def test_settings_of_the_attacks_are_stated_once_for_all_budgets(tmp_path):
    settings = json.dumps(
        {"steps": 10, "step_size": 0.25, "restarts": 2, "loss": "ce", "random_start": True}
    )
    rows = [
        {
            **r,
            "steps": 10,
            "step_size": 2.5 * r["epsilon"] / 10,
            "restarts": 2,
            "loss": "ce",
            "settings": settings,
        }
        if r["attack"] == "pgd_linf"
        else r
        for r in all_rows()
    ]
    summary = summary_of(rows)
    assert [a["attack"] for a in summary["attacks"]] == ["noise", "pgd_linf", "pgd_l2", "ssah"]
    markdown.write_report(tmp_path / "report.md", summary)
    assert (
        "| pgd_linf | linf | 10 | 0.25 | 2 | ce | random_start True |"
        in (tmp_path / "report.md").read_text()
    )


def test_files_of_a_report(tmp_path):
    summary = summary_of(all_rows())
    records.write_summary(tmp_path / "summary.json", summary)
    markdown.write_report(tmp_path / "report.md", summary)
    figures.draw_curves(tmp_path / "curves.png", summary)
    again = json.loads((tmp_path / "summary.json").read_text())
    assert again["results"][0]["kind"] == "clean"
    text = (tmp_path / "report.md").read_text()
    for needed in (
        "worst_linf",
        "ssah",
        "gamma \\| inverse",
        "the diagonal of the image",
        "name 1 (1)",
        "needs a 2D configuration",
        "Check passed",
        "36.0",
    ):
        assert needed in text, needed
    assert Image.open(tmp_path / "curves.png").size[0] > 1500
    table = [line for line in text.splitlines() if line.startswith(("| gamma", "| corruption"))]
    assert len(table) == 2 and len({len(line.replace("\\|", "").split("|")) for line in table}) == 1


@pytest.mark.parametrize("kinds", [("clean",), ("clean", "shift"), ("clean", "attack", "worst")])
def test_reports_with_less_in_them(kinds, tmp_path):
    summary = summary_of([r for r in all_rows() if r["kind"] in kinds])
    markdown.write_report(tmp_path / "report.md", summary)
    figures.draw_curves(tmp_path / "curves.png", summary)
    assert "93.0" in (tmp_path / "report.md").read_text()


def test_names_from_files_are_no_markup(tmp_path):
    hostile = "<script>*a*|b"
    named = [{**r, "label_name": hostile} if r["label"] == "1" else r for r in all_rows()]
    summary = summary_of(named)
    summary["model"] = {**summary["model"], "trainer": hostile}
    markdown.write_report(tmp_path / "report.md", summary)
    text = (tmp_path / "report.md").read_text()
    title = text.splitlines()[0]
    (labels,) = [line for line in text.splitlines() if "(1)" in line]
    for line in (title, labels):
        assert "<" not in line and "*a*" not in line and "&lt;script&gt;" in line
    assert labels.count("|") == 4


HOSTILE = "![x](http://evil/x.png) <img src=//evil>\n\n# Verified"


def test_notes_checks_and_the_model_are_no_markup_either(tmp_path):
    summary = summary_of(all_rows())
    summary |= {"notes": [f"note {HOSTILE}"], "checks": [f"check {HOSTILE}"]}
    summary["model"] = {**summary["model"], "folder": HOSTILE, "checkpoint": HOSTILE}
    markdown.write_report(tmp_path / "report.md", summary)
    text = (tmp_path / "report.md").read_text()
    assert text.count("Verified") == 4
    assert "![x](" not in text and "<img" not in text and "\n# Verified" not in text


def test_cases_without_foreground_are_counted_and_said(tmp_path):
    empty = [{**r, "dice": float("nan")} for r in all_rows() if r["case"] == "a"]
    summary = summary_of([*empty, *(r for r in all_rows() if r["case"] != "a")])
    markdown.write_report(tmp_path / "report.md", summary)
    text = (tmp_path / "report.md").read_text()
    assert "3 cases. In 1 of them nothing is to be found, nor was: no Dice." in text


def test_a_cell_is_one_line_whatever_its_name():
    table = markdown_table(["a|b", "c"], [["1\n2\r\n3", "x"]])
    assert table.splitlines()[2:] == ["| 1 2 3 | x |"] and "a\\|b" in table
