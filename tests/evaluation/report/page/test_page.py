"""report.html as a text: its size, what is escaped, and that its numbers are those of summary.json.

What a browser makes of it is in test_browser.py.
"""

import hashlib
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from evaluation import compare, report_page
from evaluation.metrics import CALIBRATION, METRICS
from evaluation.report.cases_table import read_cases
from evaluation.report.page import cases, pictures, render, verdict
from evaluation.report.page.evaluation_page import evaluation_page
from evaluation.rows import MEAN_LABEL, run_key
from tests.evaluation.report.page.pages import (
    HOSTILE,
    HOSTILE_CASE,
    NUMBER,
    data_of,
    finite,
    make_example,
    make_out,
)
from tests.evaluation.report.rows import all_rows, row, summary_of
from tests.made_before.test_made_before import unpack


def page_of(folder):
    assert report_page.main([str(folder)]) == 0
    return (folder / "report.html").read_text()


def test_every_number_drawn_is_one_of_the_summary(tmp_path):
    out = make_out(tmp_path / "out")
    summary = json.loads((out / "summary.json").read_text())
    data = data_of(page_of(out))
    assert [p["title"] for p in data["panels"]] == [
        "Linf attacks",
        "L2 (RMS) attacks",
        "Attacks without a budget",
        "Corruptions, severity 1 to 5",
    ]
    there = finite(summary["results"])
    for panel in data["panels"]:
        for series in panel["series"]:
            assert len(series["values"]["dice"]) == len(panel["x"]) == len(series["low"])
            assert finite([series["values"], series["low"], series["labels"]]) <= there
    by_run = {(r["attack"], r["epsilon_text"]): r for r in summary["results"]}
    linf = {s["name"]: s for s in data["panels"][0]["series"]}
    assert list(linf) == ["noise", "pgd_linf", "worst of all"]
    assert linf["noise"]["role"] == "control" and linf["worst of all"]["role"] == "worst"
    for metric in METRICS:
        expected = [
            by_run[k][metric] for k in [("clean", None)] + [("pgd_linf", e) for e in BUDGETS]
        ]
        assert linf["pgd_linf"]["values"][metric] == expected
    assert (
        linf["worst of all"]["labels"]["2"]["values"][2]
        == (by_run["worst_linf", "2/255"]["labels"]["2"]["dice"])
    )


BUDGETS = ("1/255", "2/255")


def test_every_number_said_is_one_of_the_summary(tmp_path):
    out = make_out(tmp_path / "out")
    summary = json.loads((out / "summary.json").read_text())
    page = page_of(out)
    body = page[page.index("<body>") : page.index('<script type="application/json"')]
    text = re.sub(r"<[^>]*>", " ", body)
    formats = ("{:.1f}", "{:.2f}", "{:.3g}", "{}")
    known = {f.format(s * n) for n in finite(summary) for s in (1, 100) for f in formats}
    said = set(NUMBER.findall(text))
    assert len(said) > 20 and said <= known, said - known
    # and the verdict says those of report.md
    r = next(
        x for x in summary["results"] if (x["attack"], x["epsilon_text"]) == ("worst_linf", "2/255")
    )
    assert re.search(rf'id="worst-dice">{100 * r["dice"]:.1f}<', page)
    assert re.search(rf'id="worst-drop">{100 * r["drop"]:.1f} \[', page)


def test_the_table_of_cases_is_cases_csv(tmp_path):
    out = make_out(tmp_path / "out")
    table = data_of(page_of(out))["table"]
    rows = {(run_key(r), r["label"], r["case"]): r for r in read_cases(out / "cases.csv")}
    keys = ("kind", "attack", "norm", "epsilon_text", "severity")
    seen = 0
    for run, of_run in zip(table["runs"], table["values"][0]):
        for (label, _), of_label in zip(table["labels"], of_run):
            for metric, of_metric in zip(METRICS, of_label):
                for case, value in zip(table["cases"], of_metric):
                    found = rows[tuple(run[k] for k in keys), label, case][metric]
                    assert value == pytest.approx(found, rel=1e-8)
                    seen += 1
    assert seen == len(rows) * len(METRICS) and table["labels"][0][0] == MEAN_LABEL


def test_undefined_values_are_null_and_seeds_are_averaged():
    rows = [row("a", "clean", "clean", d, label=MEAN_LABEL) for d in (0.4, 0.6, float("nan"))]
    rows += [row("b", "clean", "clean", float("nan"), label=MEAN_LABEL)]
    assert cases.case_table({"m": rows})["values"][0][0][0][0] == [0.5, None]


def test_labels_that_are_too_many_for_a_page_are_left_to_cases_csv(monkeypatch, tmp_path):
    whole = cases.case_table({"m": all_rows()})
    assert whole["all_labels"] and len(whole["labels"]) == 3
    monkeypatch.setattr(cases, "MOST_NUMBERS", 100)
    small = cases.case_table({"m": all_rows()})
    assert not small["all_labels"] and len(small["labels"]) == 1
    # the curves have them all the same
    page = evaluation_page(tmp_path, summary_of(all_rows()), all_rows())
    assert 'id="curve-label"' in page and 'id="case-label"' not in page
    assert data_of(page)["label_names"] == {"1": "name 1", "2": "name 2"}
    assert [v[0] for v in whole["values"][0]] == [v[0] for v in small["values"][0]]


def test_names_are_text_wherever_they_stand(tmp_path):
    a, b = (
        make_out(tmp_path / n, trainer=f"{HOSTILE} {n}", cases=("x", HOSTILE_CASE), label=HOSTILE)
        for n in "ab"
    )
    compare.compare([a, b], tmp_path / "compared")
    for page in (page_of(a), (tmp_path / "compared" / "report.html").read_text()):
        assert HOSTILE not in page and "window.hacked = 1</script" not in page
        scripts = 2 + len(render.SCRIPTS)
        assert page.count("<script") - page.count('"<script') == page.count("</script>") == scripts
        data = data_of(page)
        assert HOSTILE_CASE in data["table"]["cases"] and ["1", HOSTILE] in data["table"]["labels"]


def test_nothing_is_loaded_from_elsewhere(tmp_path):
    page = page_of(make_out(tmp_path / "out"))
    assert "default-src 'none'" in page
    before = page[: page.index('<script type="application/json"')]
    assert not re.findall(r"(?:src|href|url|@import)\s*[=(]?\s*[\"']?\s*(?:https?:)?//", before)
    assert not re.findall(r"<(?:link|iframe|img|object|embed)\b", before)


def test_plotly_is_the_published_file():
    content = (render.ASSETS / render.PLOTLY).read_bytes()
    assert hashlib.sha256(content).hexdigest() == render.PLOTLY_SHA256
    assert f"v{render.PLOTLY_VERSION}" in content[:200].decode() and b"</script" not in content
    assert "MIT" in (render.ASSETS / "plotly-LICENSE.txt").read_text()


def test_a_page_of_forty_cases_is_below_five_megabytes(tmp_path):
    """All runs of an evaluation without options in four labels, and noise as pictures."""
    names = [f"case{i:02d}" for i in range(40)]
    few = make_out(tmp_path / "out", cases=names, pictures=())
    rows = [r for r in read_cases(few / "cases.csv") if r["kind"] != "shift"]
    shifts = [r for r in read_cases(few / "cases.csv") if r["attack"] == "gamma"]
    labels, measures = len({r["label"] for r in rows}), [*METRICS, *CALIBRATION]
    runs = cases.MOST_NUMBERS // (labels * len(names) * len(measures))
    for i in range(runs - len({run_key(r) for r in rows})):
        rows += [{**r, "attack": f"corruption{i}"} for r in shifts if r["severity"] == 1]
    rng = np.random.default_rng(0)
    # numbers with as many digits as real ones have
    rows = [{**r, **dict(zip(measures, rng.random(len(measures))))} for r in rows]
    for case in names:
        stack = rng.integers(0, 15, (3 + 2 * 8, 1, 128, 128), dtype=np.uint8)
        stack[0] = rng.integers(0, 255, stack.shape[1:])
        for plane in (1, 2, *range(4, len(stack), 2)):
            stack[plane] = np.indices((128, 128)).sum(0) > 128
        example = make_example()
        shown = example["shown"] | {"attacks": example["shown"]["attacks"][:1] * 8}
        arrays = {k: v for k, v in example.items() if isinstance(v, np.ndarray)} | {"stack": stack}
        (few / "parts").mkdir(exist_ok=True)
        np.savez_compressed(few / "parts" / f"{case}.npz", **arrays)
        part = {k: v for k, v in example.items() if k not in arrays} | {"shown": shown}
        (few / "parts" / f"{case}.json").write_text(json.dumps({"example": part}))
    noise = rng.integers(0, 96, (700, 1100), dtype=np.uint8)
    Image.fromarray(noise).save(few / "corruptions.png")
    assert (few / "corruptions.png").stat().st_size > 600_000
    page = evaluation_page(few, summary_of(rows) | {"suite": None}, rows)
    data = data_of(page)
    assert "data:image/jpeg;base64," in page
    assert 1_000_000 < len(page.encode()) < 5_000_000
    assert 15 < len(data["pictures"]) < 40
    assert data["table"]["all_labels"] and data["table"]["metrics"] == measures


def test_parts_that_are_damaged_of_other_settings_or_away_have_no_picture(tmp_path):
    out = make_out(tmp_path / "out", cases=("a", "b", "c", "d"))
    parts = out / "parts"
    (parts / "a.npz").write_bytes(b"PK not so")
    (parts / "b.json").write_text("{")
    part = json.loads((parts / "c.json").read_text())
    (parts / "c.json").write_text(json.dumps(part | {"settings_sha256": "other"}))
    found = pictures.read_pictures([out], read_cases(out / "cases.csv"))
    assert [p["case"] for p in found] == ["d"]
    shutil.rmtree(parts)
    page = page_of(out)
    assert data_of(page)["pictures"] == [] and "None are kept" in page


def test_folders_of_earlier_versions_have_the_page_of_what_they_hold(tmp_path):
    unpack(tmp_path)
    page = page_of(tmp_path / "out_vanilla")
    found = data_of(page)["pictures"]
    assert [(p["case"], p["shape"][0], len(p["attacks"])) for p in found] == [
        ("case3", 1, 1),
        ("case4", 1, 1),
    ]
    assert found[0]["attacks"][0]["epsilon_text"] == "24/255"
    # where summary.json says less than is needed it is named
    path = tmp_path / "out_vanilla" / "summary.json"
    summary = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in summary.items() if k != "protocol"}))
    with pytest.raises(ValueError, match="lacks protocol: evaluate it again"):
        report_page.write_report_page(tmp_path / "out_vanilla")


@pytest.mark.parametrize("kinds", [("clean",), ("clean", "shift"), ("clean", "attack", "worst")])
def test_pages_with_less_in_them(kinds, tmp_path):
    rows = [r for r in all_rows() if r["kind"] in kinds]
    page = evaluation_page(tmp_path, summary_of(rows), rows)
    assert "93.0" in page
    assert ("there is no worst case to tell" in page) == ("worst" not in kinds)


def test_what_was_not_tried_follows_from_what_was_run():
    def said(rows, **options):
        summary = summary_of(rows)
        summary["options"] |= options
        summary["cases"] = ["a", "b", "c"]
        return verdict.not_tried(summary["results"], summary, summary["shifts_left_out"])

    rows = all_rows()
    everything = said(rows)
    assert any("Linf attacks beyond epsilon 2/255" in line for line in everything)
    assert any(line.startswith("Corruptions left out: jpeg (needs a 2D") for line in everything)
    assert any("The standard suite" in line for line in everything)
    assert not any("none was run" in line or "--max-cases" in line for line in everything)
    only_linf = [r for r in rows if r["norm"] == "linf" or r["kind"] == "clean"]
    assert "L2 (RMS) attacks: none was run." in said(only_linf)
    assert "Image corruptions: none was run." in said(only_linf)
    assert "More than 3 cases (--max-cases)." in said(rows, max_cases=3)
    # folds that are joined have it each
    assert "More than 2 cases of a folder (--max-cases)." in said(rows, max_cases=2)
    renamed = [{**r, "attack": r["attack"].replace("pgd_linf", "square")} for r in rows]
    assert not any("(square)" in line for line in said(renamed))
    clean = [r for r in rows if r["kind"] == "clean"]
    assert any(line.startswith("Attacks: none was run") for line in said(clean))


def test_checks_have_their_state():
    lines = [
        "Check passed: all is well.",
        "Check failed: a is weak.",
        "Warning: b.",
        "Not checked.",
    ]
    found = verdict.checks({"checks": lines})
    assert [c["state"] for c in found] == ["passed", "failed", "warning", "warning"]
    assert found[1]["text"] == "a is weak." and found[3]["text"] == "Not checked."


PGD = ("pgd_linf", "linf")


def test_a_comparison_draws_its_own_rows_and_every_metric(tmp_path):
    folders = [make_out(tmp_path / n, trainer=n, gain=g) for n, g in (("A", 0.0), ("B", 0.05))]
    records = compare.compare(folders, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    data = data_of(page)
    assert [p["title"] for p in data["panels"]] == [
        "Worst of all Linf attacks",
        "Worst of all L2 (RMS) attacks",
        "Attacks without a budget",
        "Corruptions, mean of severities",
    ]
    assert "root mean square" in data["panels"][1]["x_title"]
    assert data["panels"][2]["x"] == ["ssah"]
    summaries = [json.loads((f / "summary.json").read_text())["results"] for f in folders]
    for series, results in zip(data["panels"][0]["series"], summaries):
        chosen = [r for r in results if r["kind"] in ("clean", "worst") and r["norm"] != "l2"]
        for metric in METRICS:
            values = series["values"][metric]
            assert values == pytest.approx([r[metric] for r in chosen], abs=1e-6), metric
    # and every other attack, as the evaluations drew it
    assert data["panels"][0]["attacks"] == [
        ["worst of all", "worst"],
        ["noise", "control"],
        ["pgd_linf", "attack"],
    ]
    for series in data["panels"][0]["series"][4:]:
        of = summaries[["A", "B"].index(series["name"])]
        chosen = [r for r in of if r["kind"] == "clean" or (r["attack"], r["norm"]) == PGD]
        assert series["attack"] == "pgd_linf"
        assert series["values"]["dice"] == pytest.approx([r["dice"] for r in chosen], abs=1e-6)
    worst = next(
        r
        for r in records
        if r["model"] == "B" and r["attack"] == "worst_linf" and r["epsilon_text"] == "2/255"
    )
    assert f"{100 * worst['difference']:.1f} [" in page
    assert {(p["case"], p["model"]) for p in data["pictures"]} == {
        (c, m) for c in data["table"]["cases"] for m in (0, 1)
    }
