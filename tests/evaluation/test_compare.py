"""Laws of the comparison: equal results differ by nothing, differences are paired, and what is not
comparable is refused by name."""

import csv
import json
import math
import shutil

import pytest
from PIL import Image

from evaluation import compare
from evaluation.comparison import outputs
from evaluation.comparison.paired_rows import COLUMNS
from evaluation.report.cases_table import read_cases, write_cases
from evaluation.rows import with_worst
from tests.evaluation.comparison.results import CASES, write_result


def find(records, model, attack, epsilon=""):
    return next(
        r
        for r in records
        if (r["model"], r["attack"], r["epsilon_text"]) == (model, attack, epsilon)
    )


def test_differences_are_paired_by_case_whatever_the_order(tmp_path):
    a, b = (
        write_result(tmp_path / "a"),
        write_result(tmp_path / "b", trainer="B", gain=0.03, order=-1),
    )
    records = compare.compare([a, b], tmp_path / "out")
    worst = find(records, "B", "worst_linf", "2/255")
    assert (
        worst["difference"] == pytest.approx(0.03)
        and worst["difference_low"] == pytest.approx(0.03) == worst["difference_high"]
    )
    assert worst["p"] == pytest.approx(2 / 64)  # six cases, all better: the smallest p there is
    clean = find(records, "B", "clean")
    assert clean["difference"] == 0 and clean["p"] == 1
    assert find(records, "A", "worst_linf", "2/255")["difference"] is None


def test_what_is_cut_off_has_no_record_of_an_earlier_comparison(tmp_path, monkeypatch):
    a, b = write_result(tmp_path / "a"), write_result(tmp_path / "b", trainer="B", gain=0.03)
    compare.compare([a, b], tmp_path / "out")

    def full(path, text):
        raise OSError("no space left")

    monkeypatch.setattr(outputs, "write_file", full)
    with pytest.raises(OSError, match="no space"):
        compare.compare([a, b], tmp_path / "out")
    assert not (tmp_path / "out" / "compare.json").exists()


def test_folds_add_cases_and_seeds_are_averaged_within_a_case(tmp_path):
    folds = [CASES[:4], CASES[4:]]
    a = [
        write_result(tmp_path / f"a{i}", cases=c, model={"folds": [i]}) for i, c in enumerate(folds)
    ]
    b = [
        write_result(tmp_path / f"b{i}{g}", trainer="B", cases=c, gain=g, model={"folds": [i]})
        for g in (0.02, 0.06)
        for i, c in enumerate(folds)
    ]
    whole = [write_result(tmp_path / "a"), write_result(tmp_path / "b", trainer="B", gain=0.04)]
    joined, plain = (
        compare.compare([a, b], tmp_path / "joined"),
        compare.compare(whole, tmp_path / "plain"),
    )
    numbers = [c for c in COLUMNS if c not in ("folder", "p", "p_holm")]
    assert len(joined) == len(plain) > 10
    for one, other in zip(joined, plain):
        assert [one[c] for c in numbers] == pytest.approx([other[c] for c in numbers], nan_ok=True)
    with pytest.raises(ValueError, match="cases"):
        compare.compare([a, b[:1]], tmp_path / "out")
    # on the command line, and with names of one's own
    assert (
        compare.main([",".join(map(str, a)), ",".join(map(str, b)), "-o", str(tmp_path / "cli")])
        == 0
    )
    assert (tmp_path / "cli" / "compare.csv").read_text() == (
        tmp_path / "joined" / "compare.csv"
    ).read_text()
    assert {
        r["model"] for r in compare.compare([a, b], tmp_path / "named", names=["one", "two"])
    } == {"one", "two"}
    # names are texts, no markup
    compare.compare([a, b], tmp_path / "hostile", names=["`a|b`", "<b>*x*"])
    text = (tmp_path / "hostile" / "compare.md").read_text()
    assert "<b>" not in text and "a|b" not in text and "&lt;b&gt;\\*x\\* - \\`a&#124;b\\`" in text


def test_p_is_of_the_difference_beside_it_where_labels_are_absent(tmp_path):
    def with_a_rare_label(folder, gain):
        """Label 2 is in two of ten cases, and B is as much worse there as it is better in label 1.

        The labels' order in the table is another one besides.
        """
        write_result(folder, trainer=folder.name, cases=[f"case{i}" for i in range(10)])
        rows = read_cases(folder / "cases.csv")[:: 1 if gain else -1]
        for row in rows:
            if row["label"] == "2":
                row["dice"] = 0.5 - gain if row["case"] in ("case0", "case1") else math.nan
            elif row["label"] == "1":
                row["dice"] = 0.6 + gain
        write_cases(folder / "cases.csv", rows)
        return folder

    folders = [with_a_rare_label(tmp_path / n, g) for n, g in (("a", 0.0), ("b", 0.02))]
    found = find(compare.compare(folders, tmp_path / "out"), "b", "worst_linf", "2/255")
    assert found["difference"] == pytest.approx(0, abs=1e-9) and found["p"] > 0.4


def test_a_drop_is_compared_as_a_share_of_the_baselines(tmp_path):
    a, b = write_result(tmp_path / "a"), write_result(tmp_path / "b", trainer="B", gain=0.03)
    records = compare.compare([a, b], tmp_path / "out")
    drop = find(records, "A", "clean")["dice"] - find(records, "A", "pgd_linf", "1/255")["dice"]
    found = find(records, "B", "pgd_linf", "1/255")
    # the same in every case, so the interval is a point
    assert [found[k] for k in ("reduction", "reduction_low", "reduction_high")] == pytest.approx(
        [0.03 / drop] * 3
    )
    assert find(records, "B", "clean")["reduction"] is None
    # where the baseline loses nothing there is no share of it
    c = write_result(tmp_path / "c", trainer="C")
    rows = read_cases(c / "cases.csv")
    write_cases(c / "cases.csv", [{**r, "dice": 0.9} for r in rows])
    assert all(
        r["reduction"] is None or math.isnan(r["reduction"])
        for r in compare.compare([c, a], tmp_path / "none")
    )


def test_corruptions_that_not_all_folders_have_are_left_out_and_named(tmp_path):
    def two_corruptions(folder, **more):
        write_result(folder, **more)
        rows = read_cases(folder / "cases.csv")
        write_cases(
            folder / "cases.csv",
            rows + [{**r, "attack": "jpeg"} for r in rows if r["kind"] == "shift"],
        )
        return folder

    a, b = two_corruptions(tmp_path / "a"), write_result(tmp_path / "b", trainer="B", gain=0.03)
    for folders in ([a, b], [b, a]):
        records = compare.compare(folders, tmp_path / "out")
        assert {r["attack"] for r in records if r["kind"].startswith("shift")} == {
            "gamma",
            "all shifts",
        }
        assert (
            "corruptions left out of this comparison, since not every folder has them: jpeg"
            in (tmp_path / "out" / "compare.md").read_text()
        )


def test_attacks_that_not_every_folder_has_are_left_out_of_the_worst_too(tmp_path):
    a, b = (
        write_result(tmp_path / "a"),
        write_result(
            tmp_path / "b", trainer="B", keep=lambda r: r["attack"] not in ("noise", "ssah")
        ),
    )
    # the strongest attack of A alone
    rows = [
        {**r, "attack": "apgd", "dice": r["dice"] - 0.1}
        for r in read_cases(a / "cases.csv")
        if r["attack"] == "pgd_linf"
    ]
    by_case = {
        c: [
            r
            for r in [*read_cases(a / "cases.csv"), *rows]
            if r["case"] == c and r["kind"] != "worst"
        ]
        for c in CASES
    }
    write_cases(a / "cases.csv", [r for of in by_case.values() for r in with_worst(of)])
    for folders in ([a, b], [b, a]):
        records = compare.compare(folders, tmp_path / "out")
        assert not {"noise", "ssah", "apgd"} & {r["attack"] for r in records}
        for epsilon in ("1/255", "2/255"):
            assert (
                find(records, "A", "worst_linf", epsilon)["dice"]
                == find(records, "A", "pgd_linf", epsilon)["dice"]
            )
        text = (tmp_path / "out" / "compare.md").read_text()
        named = text.split(
            "attacks left out of this comparison, also of worst_linf and worst_l2, since not every "
            "folder has them: "
        )[1].splitlines()[0]
        assert all(name in named for name in ("noise 1/255", "noise 2/255", "apgd 1/255", "ssah"))


def test_folders_without_an_attack_in_common_are_refused(tmp_path):
    a = write_result(tmp_path / "a", keep=lambda r: r["attack"] in ("clean", "pgd_linf"))
    b = write_result(tmp_path / "b", keep=lambda r: r["attack"] in ("clean", "ssah"))
    with pytest.raises(ValueError, match="no attack in common .*pgd_linf 1/255.*ssah"):
        compare.compare([a, b], tmp_path / "out")


def test_holm_is_over_the_family_fixed_before(tmp_path):
    folders = [
        write_result(tmp_path / n, trainer=n, gain=g)
        for n, g in (("a", 0), ("b", 0.03), ("c", 0.01))
    ]
    records = compare.compare(folders, tmp_path / "out")
    family = [r for r in records if r["p"] is not None]
    assert {(r["kind"], r["attack"]) for r in family} == {
        ("clean", "clean"),
        ("worst", "worst_linf"),
        ("worst", "worst_l2"),
        ("shifts_mean", "all shifts"),
    }
    assert len(family) == 2 * (1 + 2 + 2 + 1)
    assert find(records, "b", "worst_linf", "1/255")["p_holm"] == pytest.approx(min(1, 12 * 2 / 64))


def test_files_of_a_comparison(tmp_path):
    a, b = (
        write_result(tmp_path / "a"),
        write_result(tmp_path / "b", trainer="B", gain=0.03, model={"mirror_axes": [0, 1]}),
    )
    assert compare.main([str(a), str(b), "-o", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "compare.md").read_text()
    assert (
        "| **worst_linf 2/255** | 31.2 [" in text
        and r"mirror_axes differs: A None, B \[0, 1\]" in text
        and "B - A" in text
    )
    page = (tmp_path / "out" / "report.html").read_text()
    assert "| **all corruptions** |" in text and "shifts" not in text
    assert ">all corruptions " in page and ">all shifts " not in page
    said = json.loads((tmp_path / "out" / "compare.json").read_text())["results"]
    assert {r["attack"] for r in said if r["kind"] == "shifts_mean"} == {"all shifts"}
    with open(tmp_path / "out" / "compare.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS and float(
        find(rows, "B", "all shifts")["difference"]
    ) == pytest.approx(0.03)
    assert json.loads((tmp_path / "out" / "compare.json").read_text())["schema_version"] == 1
    assert Image.open(tmp_path / "out" / "compare.png").size[0] > 1500


def test_the_same_trainer_twice_is_told_apart(tmp_path):
    records = compare.compare([write_result(tmp_path / n / "out") for n in "ab"], tmp_path / "out")
    assert {r["model"] for r in records} == {"1 out", "2 out"}


@pytest.mark.parametrize(
    "other, message",
    [
        ({"options": {"steps": 40}}, "steps of pgd_linf: was null, is 40"),
        ({"options": {"autocast": True}}, "autocast: was false, is true"),
        ({"options": {"epsilon_unit": "original"}}, "epsilon_unit: was range, is original"),
        ({"cases": CASES[:5]}, "cases: was|cases: 6 before"),
    ],
    ids=("steps", "autocast", "unit", "cases"),
)
def test_what_is_not_comparable_is_refused_by_name(other, message, tmp_path, capsys):
    a, b = write_result(tmp_path / "a"), write_result(tmp_path / "b", **other)
    with pytest.raises(ValueError, match=message):
        compare.compare([a, b], tmp_path / "out")
    assert compare.main([str(a), str(b), "-o", str(tmp_path / "out")]) == 2
    assert "not comparable" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_unfinished_foreign_and_single_folders_are_refused(tmp_path):
    a, b = write_result(tmp_path / "a"), write_result(tmp_path / "b")
    with pytest.raises(ValueError, match="at least two folders"):
        compare.compare([a], tmp_path / "out")
    (b / "cases.csv").unlink()
    with pytest.raises(ValueError, match="no cases.csv: it is no OUT folder of lngswr evaluate"):
        compare.compare([a, b], tmp_path / "out")
    (b / "settings.json").write_text("{}")
    with pytest.raises(ValueError, match="no cases.csv: .* the same lngswr evaluate again goes on"):
        compare.compare([a, b], tmp_path / "out")
    with pytest.raises(ValueError, match="none does not exist: give OUT folders"):
        compare.compare([a, tmp_path / "none"], tmp_path / "out")
    with pytest.raises(ValueError, match="summary.json is a file, not a folder"):
        compare.compare([a, a / "summary.json"], tmp_path / "out")
    shutil.copytree(a, tmp_path / "old")
    summary = json.loads((a / "summary.json").read_text()) | {"schema_version": 0}
    (tmp_path / "old" / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(ValueError, match="schema_version must be 1, got 0"):
        compare.compare([a, tmp_path / "old"], tmp_path / "out")
