"""report.md of `lngswr score`: names from files stay names."""

import shutil

import pytest

from evaluation.score import score_predictions
from evaluation.scoring import run
from nnunetv2_lngswr.utils.markdown import escaped
from tests.evaluation.scoring.files import write_description, write_labels, write_model

EVIL = "<script>x</script>"
CASE, LACKING = "p0_0", "p2_2"  # the second has no prediction by one model: a note
CASES = [CASE, "p1_1", LACKING]
# "/" is no part of a file's name, and a closing tag needs none
CASE_NAME, LABEL, MODEL = "<b>*c* | d", f"*organ* | {EVIL}", f"[m](x) | *m* {EVIL}"
FOLDER = "<script> *pred* | `x`"
STRANGE = ("<script", "<b>", " | d", "*organ*", "*c*", "*m*", "*pred*", "[m](x)", "`x`")


@pytest.fixture
def report(tmp_path, monkeypatch):
    """Of two models with names and folders that are markup, with lesions and calibration."""
    for name in ("draw_scores", "draw_reliability"):
        monkeypatch.setattr(run, name, lambda path, *of: path.write_text("a picture"))
    strange = tmp_path / FOLDER
    write_labels(tmp_path / f"labels {FOLDER}", cases=CASES)
    write_model(strange, cases=CASES, npz=True)
    for folder in (strange, tmp_path / f"labels {FOLDER}"):
        for file in folder.glob(f"{CASE}.*"):
            file.rename(folder / file.name.replace(CASE, CASE_NAME))
    shutil.copytree(strange, tmp_path / "other")
    (tmp_path / "other" / f"{LACKING}.nii.gz").unlink()
    described = tmp_path / f"dataset {FOLDER}.json"
    write_description(described, {"background": 0, LABEL: 1, "lesion": 2})
    score_predictions(
        [strange, tmp_path / "other"],
        tmp_path / f"labels {FOLDER}",
        tmp_path / "out",
        names=[MODEL, f"2 {MODEL}"],
        dataset_json=described,
        probabilities=True,
        chill=True,
        processes=1,
    )
    return (tmp_path / "out" / "report.md").read_text()


def test_names_are_no_markup_anywhere(report):
    for text in STRANGE:
        assert text not in report
    assert report.count(escaped(LABEL)) > 8  # in every table by label
    assert report.count(escaped(MODEL)) > 20
    assert report.count(escaped(CASE_NAME)) >= 2 and escaped(FOLDER) in report


def test_rendered_it_has_the_tags_of_a_report_and_the_names_as_they_are(report):
    markdown_it = pytest.importorskip("markdown_it", reason="pip install markdown-it-py")
    parser = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table")
    tokens = parser.parse(report)
    inline = [child for token in tokens for child in token.children or ()]
    assert not [t for t in (*tokens, *inline) if t.type.startswith(("html", "link", "code"))]
    text = "".join(t.content if t.type == "text" else "\n" for t in inline)
    for name in (LABEL, MODEL, CASE_NAME, FOLDER):
        assert name in text
