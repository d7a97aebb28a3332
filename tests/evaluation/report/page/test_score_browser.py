"""report.html of `lngswr score` in a real browser, without network: it shows the numbers of
summary.json and cases.csv, sorts and filters, and runs no name."""

import base64
import math

import pytest

from evaluation.report.formats import interval_text, number_text, percent_text
from evaluation.scoring.measures import CALIBRATION, VOLUME, measure_text
from tests.evaluation.report.page.opened import Page
from tests.evaluation.scoring.pages import (
    CASES,
    EMPTY,
    HOSTILE,
    MODELS,
    NAMES,
    rows_in,
    summary_in,
    write_page,
)

OVERLAP = ("dice", "iou", "hd95_mm", "nsd")
LESIONS = ("reference", "predicted", "matched")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return write_page(tmp_path_factory.mktemp("score") / "out")


@pytest.fixture(scope="module")
def summary(out):
    return summary_in(out)


@pytest.fixture
def page(browser, out):
    return Page(browser, out / "report.html", pictures=False)


def find(summary, measure, model, label="mean"):
    return next(
        r
        for r in summary["results"]
        if (r["model"], r["label"], r["measure"]) == (model, label, measure)
    )


def test_it_opens_without_network_and_runs_no_name(page):
    assert page.errors() == []
    # the pictures are in the file, and are drawn
    assert page.js(
        "return performance.getEntriesByType('resource').every(r => r.name.startsWith('data:'))"
    )
    widths = page.js("return [...document.images].map(i => i.naturalWidth)")
    assert len(widths) == 2 and min(widths) > 500
    shown = {name.split(" (patient")[0] for name in page.texts("#cases tbody th")}
    assert shown == set(CASES) and page.text("h1") == f"Scores of a, b {HOSTILE}"
    assert [row[0] for row in page.table("#labels")[1::2]] == list(NAMES.values())


def test_foreground_means_and_differences_are_the_summarys(page, summary):
    bars = page.texts(".ladder dd:last-child")
    assert bars == [measure_text(find(summary, "dice", m)) for m in MODELS]
    rows = page.table("#means")[1:]
    assert rows == [[m, *(measure_text(find(summary, k, m)) for k in OVERLAP)] for m in MODELS]
    differences = page.table("#differences")[1:]
    records = [r for r in summary["results"] if (r["model"], r["label"]) == (MODELS[1], "mean")]
    assert len(differences) == len(records) == 14
    for row, r in zip(differences, records):
        ps = [number_text(r["p"]), number_text(r["p_holm"])]
        assert row[1:] == [measure_text(r, "difference"), *ps]
    dice = find(summary, "dice", MODELS[1])
    said = page.text(".arm p")
    assert measure_text(dice, "difference") in said and number_text(dice["p_holm"]) in said


def test_labels_lesions_and_calibration_are_the_summarys(page, summary):
    keys = [(label, model) for label in ("1", "2") for model in MODELS]
    for table, measures in (("labels", OVERLAP), ("volumes", VOLUME)):
        for row, (label, model) in zip(page.table(f"#{table}")[1:], keys, strict=True):
            records = [find(summary, m, model, label) for m in measures]
            assert row == [NAMES[int(label)], model, *map(measure_text, records)]
    for row, label in zip(page.table("#label-differences")[1:], ("1", "2"), strict=True):
        records = [find(summary, m, MODELS[1], label) for m in OVERLAP]
        assert row[2:] == [measure_text(r, "difference") for r in records]
    for row, key in zip(page.table("#lesions")[1:], keys, strict=True):
        r = next(r for r in summary["lesions"] if (r["label"], r["model"]) == key)
        shares = [interval_text(r, k) for k in ("f1", "sensitivity", "precision")]
        assert row[1:] == [key[1], *(str(r[k]) for k in LESIONS), *shares]
    page.click("details summary")
    bins = page.table("#reliability")[1:]
    for i, (row, key) in enumerate(zip(page.table("#calibration")[1:], keys, strict=True)):
        r = next(r for r in summary["calibration"] if (r["label"], r["model"]) == key)
        assert row[2:] == [measure_text({"measure": k, **r}, k) for k in CALIBRATION]
        for said, b in zip(bins[15 * i : 15 * i + 15], r["bins"], strict=True):
            expected = [percent_text(b[k]) for k in ("mean_probability", "frequency")]
            assert said[3:] == [str(b["voxels"]), *(expected if b["voxels"] else ["", ""])]


def text_of(measure, value):
    if measure.endswith("lesions"):
        return value
    if measure in (*OVERLAP, "relative_volume_error") and measure != "hd95_mm":
        return percent_text(float(value))
    return number_text(float(value), undefined="undefined")


def test_every_group_of_columns_is_cases_csv(page, out, summary):
    rows = rows_in(out)
    groups = page.js("return Report.data.table.groups")
    assert [g["title"] for g in groups][1:] == ["Volumes", "Lesions", "Calibration"]
    for at, group in enumerate(groups[:2] + groups[3:]):
        page.choose("#columns", [0, 1, 3][at])
        for label in ("mean", "2"):
            page.choose("#case-label", ["mean", "1", "2"].index(label))
            shown = {row[0].split(" (patient")[0]: row[1:] for row in page.table("#cases")[1:]}
            for case in CASES:
                of = [(m, rows[model, case, label]) for m in group["measures"] for model in MODELS]
                expected = [text_of(m, row[m]) for m, row in of]
                assert list(map(plain, shown[case])) == list(map(plain, expected)), group["title"]


def plain(text):
    """1.23e+03 as 1230."""
    return text if text == "undefined" or not any(c.isdigit() for c in text) else float(text)


def test_counts_of_lesions_are_whole(page, out):
    page.choose("#columns", 2)
    page.choose("#case-model", 1)
    rows = {row[0].split(" (patient")[0]: row[1:] for row in page.table("#cases")[1:]}
    row = rows_in(out)[MODELS[1], HOSTILE, "mean"]
    assert rows[HOSTILE][:3] == [row[f"{k}_lesions"] for k in LESIONS]
    assert rows[HOSTILE][2] == "2468" and rows[EMPTY][3] == "undefined"


def test_it_is_sorted_by_the_lowest_dice_and_filtered(page, out):
    rows = rows_in(out)
    dice = {c: float(rows[MODELS[0], c, "mean"]["dice"]) for c in CASES}
    defined = sorted((c for c in CASES if c != EMPTY), key=dice.__getitem__)

    def cases():
        return [name.split(" (patient")[0] for name in page.texts("#cases tbody th")]

    head = "#cases thead th:nth-child(2)"
    assert cases() == [*defined, EMPTY]
    assert page.one(head).get_attribute("aria-sort") == "ascending"
    page.one(f"{head} button").send_keys("\ue007")  # enter
    assert cases() == [*defined[::-1], EMPTY]
    limit = f"{100 * dice[defined[1]] + 0.01:.2f}"
    page.one("#filter-value").send_keys(limit)
    assert cases() == defined[1::-1] and "2 of 5 cases" in page.text("#count")
    page.choose("#filter-side", "least")
    assert cases() == defined[:1:-1]
    page.one("#filter-value").clear()
    page.one("#filter-name").send_keys("PATIENT P2")
    assert cases() == [CASES[3]]


def test_every_control_and_picture_has_a_name(page):
    unnamed = """return [...document.querySelectorAll('input, select, button, img, [role=region]')]
        .filter(e => !(e.getAttribute('aria-label') || e.alt || e.textContent.trim()
                       || e.labels?.[0]?.textContent.trim())).map(e => e.outerHTML.slice(0, 90))"""
    assert page.js(unnamed) == []
    page.one("body").send_keys("\ue004")  # tab
    assert page.js("return document.activeElement.className") == "skip"
    page.one(".skip").send_keys("\ue007")  # enter
    top = page.js("return document.getElementById('cases-title').getBoundingClientRect().top")
    assert abs(top) < 50
    ids = page.js("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


def test_dark_and_light_follow_the_system(page):
    def seen(scheme):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        page.wait(f"return matchMedia('(prefers-color-scheme: {scheme})').matches")
        script = """return [document.body, document.querySelector('#cases thead th')].map(
            e => getComputedStyle(e).backgroundColor)"""
        return [sum(map(int, c.strip("rgb()").split(",")[:3])) / 3 for c in page.js(script)]

    try:
        light, dark = seen("light"), seen("dark")
    finally:
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert min(light) > 200 > 60 > max(dark)


def test_it_prints_whole(page):
    page.js("""window.addEventListener('beforeprint', () => {
        window.seen = document.querySelectorAll('details:not([open])').length })""")
    printed = page.browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert len(base64.b64decode(printed["data"])) > 30_000 and page.js("return window.seen") == 0


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_wider_than_the_window(page, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        assert page.js("return document.documentElement.scrollWidth") <= width
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_single_model_says_its_labels(browser, tmp_path):
    out = write_page(tmp_path, models=["a"], probabilities=False)
    summary, page = summary_in(out), Page(browser, out / "report.html", pictures=False)
    assert page.errors() == []
    assert page.text("#dice") == percent_text(find(summary, "dice", "a")["mean"])
    said = [measure_text(find(summary, "dice", "a", label)) for label in ("mean", "1", "2")]
    assert page.texts(".ladder dd:last-child") == said
    assert page.js("return document.getElementById('case-model')") is None
    first = page.table("#cases")[1]
    assert len(first) == 5 and not math.isnan(float(first[1]))
