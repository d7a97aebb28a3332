"""report.html in a real browser, without network: it opens, answers clicks and keys, and shows the
numbers of summary.json and cases.csv."""

import base64
import json

import numpy as np
import pytest

from evaluation import compare, report_page
from evaluation.report.cases_table import read_cases
from evaluation.report.formats import interval_text, number_text, percent_text
from tests.evaluation.report.page.opened import Page
from tests.evaluation.report.page.pages import HOSTILE, HOSTILE_CASE, HOSTILE_FILE, make_out

CASES = ("a", HOSTILE_FILE, "c", HOSTILE_CASE)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = make_out(tmp_path_factory.mktemp("page") / "out", cases=CASES, label=HOSTILE)
    report_page.write_report_page(folder)
    return folder


@pytest.fixture(scope="module")
def summary(out):
    return json.loads((out / "summary.json").read_text())


@pytest.fixture
def page(browser, out):
    return Page(browser, out / "report.html")


def find(summary, attack, epsilon=None, severity=None):
    key = attack, epsilon, severity
    results = summary["results"]
    return next(r for r in results if (r["attack"], r["epsilon_text"], r["severity"]) == key)


def test_it_opens_without_network_and_runs_no_name(page):
    assert page.errors() == []
    assert page.js("return performance.getEntriesByType('resource').length") == 0
    assert page.js("return window.hacked") is None
    names = page.texts("#cases tbody th")
    assert set(names) == set(CASES)
    assert page.texts("#key span")[0] == f"predicted: {HOSTILE}"


def test_the_verdict_is_the_summarys(page, summary):
    worst = find(summary, "worst_linf", "2/255")
    assert page.text("#clean-dice") == percent_text(find(summary, "clean")["dice"])
    assert page.text("#worst-dice") == percent_text(worst["dice"])
    assert page.text("#worst-drop") == interval_text(worst, "drop")
    assert page.text("#noise-dice") == percent_text(find(summary, "noise", "2/255")["dice"])
    rows = page.table("#quotes")[1:]
    for row, (norm, epsilon) in zip(rows, [(n, e) for n in ("linf", "l2") for e in BUDGETS]):
        r = find(summary, f"worst_{norm}", epsilon)
        others = [percent_text(r["iou"]), number_text(r["hd95_mm"]), percent_text(r["nsd"])]
        assert row[1:] == [interval_text(r), interval_text(r, "drop"), *others]


BUDGETS = ("1/255", "2/255")


@pytest.mark.parametrize("metric", ["dice", "iou", "hd95_mm", "nsd"])
def test_curves_show_every_metric_of_the_summary(page, summary, metric):
    page.click(f"#metrics input[value={metric}]")
    rows = page.table("#numbers-0")
    shown = {row[0]: row[1:] for row in rows[1:]}
    assert rows[0][1:] == ["0", *BUDGETS]
    for name, attack in (
        ("noise", "noise"),
        ("pgd_linf", "pgd_linf"),
        ("worst of all", "worst_linf"),
    ):
        records = [find(summary, "clean"), *(find(summary, attack, e) for e in BUDGETS)]
        if metric == "dice":
            expected = [interval_text(r) for r in records]
        else:
            said = number_text if metric == "hd95_mm" else percent_text
            expected = [said(r[metric]) for r in records]
        assert shown[name] == expected, name
    # and what is drawn is what the table says
    script = "return document.getElementById('chart-0').data.find(t => t.name === 'pgd_linf').y"
    scale = 1 if metric == "hd95_mm" else 100
    records = [find(summary, "clean"), *(find(summary, "pgd_linf", e) for e in BUDGETS)]
    assert page.js(script) == pytest.approx([scale * r[metric] for r in records])


def test_numbers_are_rounded_as_in_report_md(page):
    rng = np.random.default_rng(0)
    values = [*(np.arange(1, 401) / 400), *(np.arange(1, 400) / 8), *rng.random(400)]
    shown = page.js(
        """return arguments[0].map(v => [Report.text('dice', v), Report.text('hd95_mm', v)])""",
        list(map(float, values)),
    )
    assert shown == [[percent_text(v), number_text(v)] for v in values]


def test_labels_have_their_own_dice(page, summary):
    page.choose("#curve-label", "2")
    shown = {row[0]: row[1:] for row in page.table("#numbers-0")[1:]}
    of_label = find(summary, "pgd_linf", "1/255")["labels"]["2"]
    assert shown["pgd_linf"][1] == interval_text(of_label)
    assert page.texts("#charts h3")[0] == "Linf attacks: name 2"
    assert page.text("#numbers-0 caption") == "Linf attacks: Dice, name 2"
    page.click("#metrics input[value=hd95_mm]")  # which is not kept per label
    assert page.js("return document.getElementById('curve-label').value") == "mean"
    assert page.texts("#charts h3")[0] == "Linf attacks"


def test_hovering_says_dice_and_interval(page, summary):
    page.js("Plotly.Fx.hover(document.getElementById('chart-0'), {xval: 2, yval: 50}, ['xy'])")
    page.wait("return document.querySelector('#chart-0 .hoverlayer text') !== null")
    said = page.text("#chart-0 .hoverlayer")
    assert interval_text(find(summary, "pgd_linf", "2/255")) in said.replace("\xa0", " ")


def test_attacks_and_corruptions_are_switched_off_and_on(page):
    assert "noise" in page.traces("chart-0")
    page.click("#series input[value=noise]")
    assert "noise" not in page.traces("chart-0") and "pgd_linf" in page.traces("chart-0")
    page.click("#series input[value=noise]")
    assert "noise" in page.traces("chart-0")
    script = "return document.getElementById('chart-3').data[0].x"
    assert page.js(script) == ["gamma"]
    page.click("#corruptions input[value=gamma]")
    assert page.js(script) == []


def test_the_table_is_cases_csv_and_is_sorted_and_filtered(page, out):
    rows = {
        (r["case"], r["attack"], r["epsilon_text"]): r
        for r in read_cases(out / "cases.csv")
        if r["label"] == "mean"
    }
    shown = page.table("#cases")
    columns = [("clean", "")] + [(f"worst_{n}", e) for n in ("linf", "l2") for e in BUDGETS]
    assert len(shown) == 1 + len(CASES) and len(shown[0]) == 1 + len(columns)
    for case, *values in shown[1:]:
        assert values == [percent_text(rows[(case, *column)]["dice"]) for column in columns]

    def cases():
        return page.texts("#cases tbody th")

    # the hardest hit first, then by what is clicked, then the other way round
    assert cases() == list(CASES)
    page.click("#cases thead th:nth-child(2) button")
    assert cases() == list(CASES)
    page.click("#cases thead th:nth-child(2) button")
    assert cases() == list(CASES)[::-1]
    assert page.one("#cases thead th:nth-child(2)").get_attribute("aria-sort") == "descending"
    page.one("#filter-name").send_keys("img")
    assert cases() == [HOSTILE_FILE] and "1 of 4 cases" in page.text("#count")
    page.one("#filter-name").clear()
    limit = 100 * rows["a", "worst_linf", "2/255"]["dice"] + 0.05
    page.one("#filter-value").send_keys(f"{limit:.2f}")
    assert cases() == ["a"]
    page.choose("#filter-side", "least")
    assert set(cases()) == set(CASES) - {"a"}


def test_any_run_metric_and_label_can_be_looked_at(page, out):
    rows = {
        (r["case"], r["attack"], r["severity"], r["label"]): r
        for r in read_cases(out / "cases.csv")
    }
    page.choose("#columns", "gamma")
    page.choose("#case-metric", "hd95_mm")
    page.choose("#case-label", 2)
    found = {row[0]: row[1:] for row in page.table("#cases")[1:]}
    assert page.texts("#cases thead button")[2:] == ["severity 1", "severity 2"]
    expected = [rows["c", "gamma", s, "2"]["hd95_mm"] for s in (1, 2)]
    assert found["c"][1:] == [number_text(v) for v in expected]


def test_the_slider_walks_over_the_budgets(page, out):
    dice = {
        (r["case"], r["attack"], r["epsilon_text"]): percent_text(r["dice"])
        for r in read_cases(out / "cases.csv")
        if r["label"] == "mean"
    }
    page.click("#cases tbody tr[data-case=c] button")
    page.wait("return document.getElementById('said').textContent.startsWith('c.')")
    assert page.text("#budget-text") == "Linf 2/255"  # the strongest first
    assert page.js("return document.activeElement.id") == "pictures-title"
    pictures = []
    for step, title in enumerate(["clean", "Linf 1/255", "Linf 2/255"]):
        page.choose("#budget", step)
        assert page.text("#budget-text") == title
        after = dice["c", "pgd_linf", BUDGETS[step - 1]] if step else dice["c", "clean", ""]
        assert page.texts("#pictures figcaption")[3].endswith(f"Dice of the case {after}")
        assert dice["c", "clean", ""] in page.text("#said") and after in page.text("#said")
        pictures.append(picture(page, 3))
    assert len(set(pictures)) == 3
    page.choose("#norm", "l2")
    assert page.text("#budget-text") == "L2 (RMS) 2/255"
    page.choose("#norm", "")
    assert "ssah, no budget" in page.text("#budget-text")


def test_contours_fill_and_slices_change_the_pictures(page):
    whole = picture(page, 2)
    page.click("#contours")
    without_contours = picture(page, 2)
    page.click("#fill")
    bare = picture(page, 2)
    assert len({whole, without_contours, bare}) == 3
    assert bare == picture(page, 0)  # the image alone
    before = page.text("#slice-text")
    page.one("#slice").send_keys("\ue014")  # the right arrow
    assert page.text("#slice-text") != before and picture(page, 0) != bare


def picture(page, at):
    return page.js(
        "return document.querySelectorAll('#pictures canvas')[arguments[0]].toDataURL()", at
    )


def test_it_is_used_by_keys_alone(page):
    page.one("body").send_keys("\ue004")  # tab
    assert page.js("return document.activeElement.className") == "skip"
    page.js("document.getElementById('budget').focus()")
    before = page.text("#budget-text")
    page.one("#budget").send_keys("\ue012")  # the left arrow
    assert page.text("#budget-text") != before
    assert page.one("#budget").get_attribute("aria-valuetext") == page.text("#budget-text")
    head = "#cases thead th:nth-child(3)"
    page.one(f"{head} button").send_keys("\ue007")  # enter
    assert page.one(head).get_attribute("aria-sort") == "ascending"
    assert "clean" not in page.js("return document.activeElement.textContent")


def test_every_control_and_picture_has_a_name(page):
    unnamed = """return [...document.querySelectorAll('input, select, button, canvas, [role=img]')]
        .filter(e => !(e.getAttribute('aria-label') || e.textContent.trim()
                       || e.labels?.[0]?.textContent.trim())).map(e => e.outerHTML)"""
    assert page.js(unnamed) == []
    assert page.js("return document.documentElement.lang") == "en"
    assert page.js("return document.querySelectorAll('h1').length") == 1
    assert page.js("return document.getElementById('said').getAttribute('aria-live')") == "polite"


def test_dark_and_light_follow_the_system(page):
    def seen(scheme):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        # both the styles and the curves have followed
        page.wait(
            f"""return matchMedia('(prefers-color-scheme: {scheme})').matches
            && getComputedStyle(document.documentElement).getPropertyValue('--ink').trim()
               === document.getElementById('chart-0').layout.font.color"""
        )
        ground = page.js("return getComputedStyle(document.body).backgroundColor")
        return ground, page.js("return document.getElementById('chart-0').layout.font.color")

    try:
        (light, ink), (dark, chalk) = seen("light"), seen("dark")
    finally:
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert brightness(light) > 200 > 60 > brightness(dark)
    assert ink != chalk


def brightness(colour):
    return sum(map(int, colour.strip("rgb()").split(",")[:3])) / 3


def test_it_prints_whole(page):
    closed = "return document.querySelectorAll('details:not([open])').length"
    before = page.js(closed)
    page.js("""window.addEventListener('beforeprint', () => {
        window.seen = document.querySelectorAll('details:not([open])').length })""")
    printed = page.browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    pdf = base64.b64decode(printed["data"])
    assert pdf.startswith(b"%PDF") and len(pdf) > 30_000
    assert page.js("return window.seen") == 0 < before == page.js(closed)


def test_a_dark_page_is_printed_in_the_colours_of_a_light_one(page):
    of_text = "document.querySelector('#chart-0 .xtick text').style.fill"
    light = page.js(f"return {of_text}")
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    try:
        page.wait(f"return {of_text} !== '{light}'")
        page.js(f"window.addEventListener('beforeprint', () => {{ window.seen = {of_text} }})")
        page.browser.execute_cdp_cmd("Page.printToPDF", {})
        assert page.js("return window.seen") == light
        assert page.js(f"return {of_text}") != light
    finally:
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_wider_than_the_window(page, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        page.js("return new Promise(r => setTimeout(r, 400))")  # redrawn after the last resize
        assert page.js("return document.documentElement.scrollWidth") <= width
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


DRAWN = ("&lt;b&gt;one&lt;/b&gt;", "two")


def test_a_comparison_shows_its_models_side_by_side(browser, tmp_path):
    names = ("<b>one</b>", "two")
    made = zip(names, (0.0, 0.05))
    folders = [make_out(tmp_path / str(g), trainer=n, gain=g, cases=("a", "c")) for n, g in made]
    records = compare.compare(folders, tmp_path / "out")
    page = Page(browser, tmp_path / "out" / "report.html")
    assert page.errors() == []
    rows = {row[0]: row[1:] for row in page.table("#numbers-0")[1:]}
    for name in names:
        found = [r for r in records if r["model"] == name and r["norm"] != "l2"]
        expected = [interval_text(r) for r in found if r["kind"] in ("clean", "worst")]
        assert rows[name] == expected
    assert page.js("return document.querySelectorAll('#pictures canvas').length") == 8
    assert page.texts("#pictures h3") == list(names)
    page.js("Plotly.Fx.hover(document.getElementById('chart-0'), {xval: 1, yval: 50}, ['xy'])")
    page.wait("return document.querySelector('#chart-0 .hoverlayer text') !== null")
    assert "<b>one</b>" in page.text("#chart-0 .hoverlayer")
    # an attack that is asked for stands beside the worst, of every model, and its numbers below
    first = "document.getElementById('charts').querySelector('h3').textContent"
    assert page.js(f"return {first}") == "Worst of all Linf attacks"
    assert page.texts("#attacks label")[:2] == ["worst of all", "noise (control)"]
    page.click("#attacks input[value=pgd_linf]")
    assert page.traces("chart-0") == [f"{n}{a}" for a in ("", ", pgd_linf") for n in DRAWN]
    assert page.js(f"return {first}") == "Linf attacks: worst of all, pgd_linf"
    found = [r for r in records if r["model"] == "two" and r["norm"] != "l2"]
    expected = [interval_text(r) for r in found if r["attack"] in ("clean", "pgd_linf")]
    shown = {row[0]: row[1:] for row in page.table("#numbers-0")[1:]}
    assert shown["two, pgd_linf"] == expected
    page.click("#attacks input[value=pgd_linf]")
    assert "root mean square" in page.text("#chart-1 .xtitle")
    page.js("[...document.querySelectorAll('#series input')].at(-1).click()")
    assert page.traces("chart-0") == ["&lt;b&gt;one&lt;/b&gt;"]
    run = next(row for row in page.table("#runs") if row[0] == "worst linf 2/255")
    second = next(
        r
        for r in records
        if r["model"] == "two" and r["attack"] == "worst_linf" and r["epsilon_text"] == "2/255"
    )
    assert run[2:4] == [interval_text(second), interval_text(second, "difference")]
