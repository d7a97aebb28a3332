"""`lngswr evaluate --groups`: the report's intervals, and no result of a case."""

import json
import shutil

import pytest

from evaluation import command_line
from evaluation.groups import parse_groups
from evaluation.options import Options
from evaluation.report.records import summarise
from nnunetv2_lngswr.utils.errors import UserError
from tests.evaluation.report.rows import all_rows
from tests.evaluation.tiny import cases_csv, run

SMALL = {"attacks": ["fgsm"], "epsilons": ["16/255"], "steps": None, "corruptions": []}
GROUPS = {"case0": "p0", "case1": "p0", "case2": "p1"}


def test_a_finished_folder_is_reported_anew_with_groups_and_nothing_is_run_again(world, tmp_path):
    plain = run(world, tmp_path / "out", **SMALL)
    assert "groups" not in plain.summary
    rows, settings = cases_csv(plain.folder), (plain.folder / "settings.json").read_bytes()
    parts = {p.name: p.stat().st_mtime_ns for p in (plain.folder / "parts").iterdir()}
    card = plain.folder / "robustness_card.json"
    card.write_text("of the first report")
    run(world, tmp_path / "out", **SMALL)
    assert card.is_file()
    again = run(world, tmp_path / "out", groups=GROUPS, **SMALL)
    assert not card.exists()  # its intervals are no longer the report's
    assert cases_csv(again.folder) == rows
    assert (again.folder / "settings.json").read_bytes() == settings
    assert {p.name: p.stat().st_mtime_ns for p in (again.folder / "parts").iterdir()} == parts
    assert again.summary["groups"] == {"found": "as given", "count": 2, "of": GROUPS}
    assert "groups of cases" in again.summary["metrics"]["intervals"]
    report = (again.folder / "report.md").read_text()
    assert "3 cases of 2 groups (as given)" in report and "2 groups are few" in report
    page = (again.folder / "report.html").read_text(encoding="utf-8")
    assert "of 2 groups (as given)" in page and "2 groups are few" in page and "**2" not in page
    assert "independent" not in report


def test_what_the_conversion_recorded_is_used_and_said(world, tmp_path):
    folder, images, labels = world
    shutil.copytree(images, tmp_path / "data" / "imagesTr")
    entries = [{"case": c, "group": g, "status": "used", "source": c} for c, g in GROUPS.items()]
    manifest = {"settings": {}, "units": {"u": {"signature": "s", "entries": entries}}}
    (tmp_path / "data" / "manifest.json").write_text(json.dumps(manifest))
    copied = (folder, tmp_path / "data" / "imagesTr", labels)
    found = run(copied, tmp_path / "out", **SMALL).summary["groups"]
    assert found["of"] == GROUPS and "recorded by the conversion" in found["found"]
    # what is said on the command line goes before
    given = run(copied, tmp_path / "out", groups=r"\d", **SMALL).summary["groups"]
    assert given["count"] == 3 and given["found"] == r"pattern \d, --groups"


def test_intervals_of_a_report_are_over_groups():
    rows = all_rows()
    groups = parse_groups({"a": "x", "b": "y", "c": "y"}, ["a", "b", "c"])
    plain, grouped = (
        {(r["kind"], r["attack"], r["epsilon_text"]): r for r in summarise(rows, seed=0, groups=g)}
        for g in (None, groups)
    )
    key = ("clean", "clean", None)
    assert plain[key]["dice"] == grouped[key]["dice"]
    # two groups: of a alone, and of b and c, of which c cannot be drawn without b
    low, high = grouped[key]["dice_low"], grouped[key]["dice_high"]
    assert (low, high) == pytest.approx((0.9, 0.945)) and plain[key]["dice_high"] > 0.95


def test_the_option_reaches_the_workers_as_it_was_given(tmp_path):
    for given in ("p.", GROUPS, tmp_path / "t.csv"):
        record = json.loads(json.dumps(Options(groups=given).record()))
        again = Options.from_record(record)
        assert again.groups == (str(given) if given == tmp_path / "t.csv" else given)
    words = ["-m", "M", "-o", "O", "--groups", r"^p\d"]
    assert command_line.parse(words)["groups"] == r"^p\d"
    for wrong in (3, ""):
        with pytest.raises(UserError, match="groups must be a pattern"):
            Options(groups=wrong)  # type: ignore[arg-type]  # that is the point
