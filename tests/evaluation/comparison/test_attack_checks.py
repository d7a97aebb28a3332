"""What a comparison says of attacks that its folders do not believe, and of what was left out."""

import json
import re

import pytest

from evaluation import compare
from evaluation.comparison.models import read_models
from evaluation.report.cases_table import read_cases, write_cases
from nnunetv2_lngswr.utils.errors import UserError
from tests.evaluation.comparison.results import write_result
from tests.evaluation.report.page.pages import HOSTILE

PASSED = "Check passed: no attack is weaker than the noise control."
WARNING = f"Warning: pgd_linf 2/255 has not converged, most in {HOSTILE}."
FAILED = "Check failed: pgd_linf 1/255 met losses that are not finite."


def result(folder, *, checks=(PASSED,), left_out=None, **more):
    write_result(folder, **more)
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    summary |= {"checks": checks, "shifts_left_out": left_out or {}}
    path.write_text(json.dumps(summary))
    return folder


def pages_of(out):
    """compare.md without its escapes; the text of report.html without its data."""
    page = (out / "report.html").read_text()
    body = page[page.index("<body>") : page.index('<script type="application/json"')]
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))
    return (out / "compare.md").read_text().replace("\\", ""), text


def test_every_folder_of_a_model_tells_its_doubts(tmp_path):
    a = result(tmp_path / "a", trainer="A")
    b = [
        result(tmp_path / "b0", trainer="B", gain=0.01),
        result(tmp_path / "b1", trainer="B", gain=0.02, checks=[PASSED, FAILED, WARNING]),
        result(tmp_path / "b2", trainer="B", gain=0.03, checks=[]),
    ]
    compare.compare([a, b], tmp_path / "out")
    markdown, page = pages_of(tmp_path / "out")
    said = "1 failed, 1 warning, not checked in 1 of 3 folders"
    # before the table, then line by line
    assert f"A: passed; B: {said}" in markdown[: markdown.index("| --- |")]
    section = markdown[markdown.index("## Can the attacks be believed?") :]
    assert f"- B, {tmp_path / 'b1'}: failed: {FAILED.partition(': ')[2]}" in section
    assert f"- B, {tmp_path / 'b2'}: not checked" in section and "- A, " not in section
    assert section.count(": warning: ") == 1 and HOSTILE not in markdown
    arm = page[page.index(" B ") : page.index("Every run")]
    assert f"Checks of its attacks: {said}" in arm and page.count("Checks of its attacks") == 1
    assert "Failed: pgd_linf 1/255 met losses that are not finite." in arm
    assert "Warning: pgd_linf 2/255 has not converged" in arm and "Passed: no attack" in arm
    record = json.loads((tmp_path / "out" / "compare.json").read_text())["checks"]
    assert [(r["model"], len(r["checks"])) for r in record] == [("A", 1), *zip("BBB", (1, 3, 0))]


def test_a_comparison_whose_checks_passed_says_so_once(tmp_path):
    folders = [result(tmp_path / n, trainer=n) for n in ("A", "B")]
    compare.compare(folders, tmp_path / "out")
    markdown, page = pages_of(tmp_path / "out")
    assert "Checks of the attacks, as in each folder's report.md: A: passed; B: passed." in markdown
    assert "be believed" not in markdown and "Checks of its attacks" not in page


def test_without_attacks_nothing_is_said_of_their_checks(tmp_path):
    folders = [
        result(tmp_path / n, trainer=n, checks=[], keep=lambda r: r["kind"] in ("clean", "shift"))
        for n in ("A", "B")
    ]
    compare.compare(folders, tmp_path / "out")
    assert not any("believed" in text or "hecked" in text for text in pages_of(tmp_path / "out"))


@pytest.mark.parametrize("key, value", [("checks", [1]), ("shifts_left_out", ["jpeg"])])
def test_damaged_checks_are_named(tmp_path, key, value):
    a = result(tmp_path / "a")
    summary = json.loads((a / "summary.json").read_text())
    (a / "summary.json").write_text(json.dumps(summary | {key: value}))
    with pytest.raises(UserError, match=f"{key} is damaged"):
        read_models([a, a])


def test_corruptions_that_any_folder_left_out_are_named(tmp_path):
    a = result(tmp_path / "a", trainer="A", left_out={"jpeg": "needs a 2D configuration"})
    rows = read_cases(a / "cases.csv")
    lone = [{**r, "attack": "bias_field"} for r in rows if r["kind"] == "shift"]
    write_cases(a / "cases.csv", [*rows, *lone])
    b = [
        result(tmp_path / "b0", trainer="B"),
        result(tmp_path / "b1", trainer="B", left_out={"low_dose": "needs CT", "gamma": "no"}),
    ]
    compare.compare([a, b], tmp_path / "out")
    _, page = pages_of(tmp_path / "out")
    (said,) = re.findall(r"Corruptions left out: ([^.]*)\.", page)
    # gamma is in the table, whatever a folder says
    assert set(said.split(", ")) == {
        "jpeg (needs a 2D configuration)",
        "low dose (needs CT)",
        "bias field (not every folder has it)",
    }
