"""Calibration in leaderboards and in the model-index; without it they are as they were."""

import csv
import json
import re
import shutil
import subprocess

import pytest
import yaml

from evaluation.cards.markdown import card_markdown
from evaluation.cards.schema import what_is_wrong
from evaluation.leaderboard import leaderboard
from evaluation.results_folder import CARD_JSON
from tests.evaluation.cards.outs import make, make_out, with_calibration

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CLEAN, ATTACKED = "clean ECE", "Linf 2/255 ECE"
METRICS = {"ECE, clean (%)", "ECE, best known, Linf 2/255 (%)"}


def change(folder, **values):
    card = json.loads((folder / CARD_JSON).read_text()) | values
    assert what_is_wrong(card) == ""
    (folder / CARD_JSON).write_text(json.dumps(card))
    return card


@pytest.fixture
def cards(tmp_path):
    """{name: (folder, card)}: before is of an earlier version and in the middle, and of the others
    the more robust one is the worse calibrated, by hand."""
    found = {}
    for name, lower in (("good", 0.15), ("before", 0.1), ("bad", 0.0)):
        out = make_out(tmp_path / "outs" / name, checkpoint=name, lower=lower)
        if name != "before":
            with_calibration(out)
        card = make(tmp_path / name, out, name=name)
        if name == "bad":
            clean = card["calibration"]["clean"] | {"ece": 0.875}
            card = change(tmp_path / name, calibration=card["calibration"] | {"clean": clean})
        found[name] = tmp_path / name, card
    return found


def worst_of(card):
    found = card["calibration"]["worst"]
    return next(e for e in found if (e["norm"], e["epsilon_text"]) == ("linf", "2/255"))


def text_of(figures):
    return f"{figures['ece']:.3g} [{figures['ece_low']:.3g}, {figures['ece_high']:.3g}]"


def markdown_rows(folders, file):
    leaderboard(folders, file)
    lines = [line for line in file.read_text().splitlines() if line.startswith("|")]
    cells = [[c.strip().strip("`") for c in line[1:-1].split("|")] for line in lines]
    return [dict(zip(cells[0], row)) for row in cells[2:]]


def test_a_leaderboard_has_the_ece_of_those_that_have_it(cards, tmp_path):
    folders = [folder for folder, _ in cards.values()]
    shown = {row["model"]: row for row in markdown_rows(folders, tmp_path / "x.md")}
    leaderboard(folders, tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="") as file:
        table = {row["name"]: row for row in csv.DictReader(file)}
    assert list(shown) == list(table) == ["bad", "before", "good"]
    for name in ("good", "bad"):
        _, card = cards[name]
        for title, column, figures in (
            (CLEAN, "clean", card["calibration"]["clean"]),
            (ATTACKED, "linf_2/255_best_known", worst_of(card)),
        ):
            assert shown[name][title] == text_of(figures)
            for key in ("ece", "ece_low", "ece_high"):
                assert float(table[name][f"{column}_{key}"]) == figures[key]
    assert worst_of(cards["good"][1])["ece"] > cards["good"][1]["calibration"]["clean"]["ece"] + 0.1
    assert shown["before"][CLEAN] == shown["before"][ATTACKED] == ""
    assert [v for k, v in table["before"].items() if "_ece" in k] == [""] * 6
    assert "ECE: of the best known runs" in (tmp_path / "x.md").read_text()


def test_where_lower_is_known_the_ece_is_that_of_the_lowest(cards, tmp_path):
    strong, _ = with_calibration(
        make_out(tmp_path / "outs" / "s", checkpoint="bad", suite=None, lower=0.15)
    )
    card = make(tmp_path / "again", tmp_path / "outs" / "bad", strong, name="again")
    before = worst_of(cards["bad"][1])["ece"]
    (row, _) = markdown_rows([tmp_path / "again", cards["before"][0]], tmp_path / "x.md")[::-1]
    assert row["model"] == "again"
    assert row["Linf 2/255 best known ECE"] == text_of(worst_of(card))
    assert worst_of(card)["ece"] > before + 0.05


def test_without_calibration_leaderboards_are_as_they_were(cards, tmp_path):
    folder, _ = cards["before"]
    other = cards["good"][0]
    change(other, calibration={})  # as the schema has it, too
    for suffix in ("md", "html", "csv"):
        leaderboard([folder, other], tmp_path / f"x.{suffix}")
        assert "ece" not in re.sub("[^a-z]", " ", (tmp_path / f"x.{suffix}").read_text()).split()
        assert "ECE" not in (tmp_path / f"x.{suffix}").read_text()


def test_of_cards_without_attacks_it_is_clean_alone(tmp_path):
    kinds = ("clean", "shift")
    out, _ = with_calibration(make_out(tmp_path / "out", suite=None, kinds=kinds))
    card = make(tmp_path / "card", out)
    (row,) = markdown_rows([tmp_path / "card"], tmp_path / "x.md")
    assert row[CLEAN] == text_of(card["calibration"]["clean"])
    assert [title for title in row if "ECE" in title] == [CLEAN]
    names = [m["name"] for m in metrics_of(card) if m["type"] == "ece"]
    assert names == ["ECE, clean (%)"]


def metrics_of(card):
    front = yaml.safe_load(card_markdown(card).split("---\n", 2)[1])
    return front["model-index"][0]["results"][0]["metrics"]


def test_the_model_index_has_it_clean_and_at_the_headlines_budget(cards):
    _, card = cards["good"]
    found = {m["name"]: m for m in metrics_of(card) if m["type"] == "ece"}
    assert set(found) == METRICS
    clean, attacked = (found[name] for name in sorted(METRICS, reverse=True))
    assert clean["value"] == round(100 * card["calibration"]["clean"]["ece"], 2)
    assert attacked["value"] == round(100 * worst_of(card)["ece"], 2)
    assert "args" not in clean
    dice = next(m for m in metrics_of(card) if m["name"] == "Dice, best known, Linf 2/255 (%)")
    assert attacked["args"] == dice["args"]
    assert {m["type"] for m in metrics_of(cards["before"][1])} == {"dice"}


def test_hugging_faces_own_reader_takes_it(cards):
    hub = pytest.importorskip("huggingface_hub", reason="comes with timm")
    data = hub.ModelCard(card_markdown(cards["good"][1]), ignore_metadata_errors=False).data
    assert {r.metric_name for r in data.eval_results} >= METRICS


def test_an_ece_that_is_undefined_is_said_and_no_metric(cards, tmp_path):
    folder, card = cards["good"]
    clean = dict.fromkeys(card["calibration"]["clean"])
    changed = change(folder, calibration=card["calibration"] | {"clean": clean})
    row = markdown_rows([folder], tmp_path / "x.md")[0]
    assert row[CLEAN] == "undefined" and row[ATTACKED] == text_of(worst_of(card))
    names = {m["name"] for m in metrics_of(changed) if m["type"] == "ece"}
    assert names == {"ECE, best known, Linf 2/255 (%)"}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_in_a_browser_the_lowest_ece_is_first_and_cells_without_one_are_last(cards, tmp_path):
    leaderboard([folder for folder, _ in cards.values()], tmp_path / "x.html")
    script = f"""
    const seen = [];
    const names = () => [...document.querySelectorAll("tbody tr")].map((r) => r.cells[1].innerText);
    for (const title of ["{CLEAN}", "{CLEAN}", "rank", "{ATTACKED}"]) {{
      [...document.querySelectorAll("th button")].find((b) => b.innerText === title).click();
      seen.push(names().join());
    }}
    document.body.innerText = "SEEN" + JSON.stringify(seen) + "END";
    """
    text = (tmp_path / "x.html").read_text()
    (tmp_path / "y.html").write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    words += [f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "y.html").as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    seen = json.loads(re.search("SEEN(.*)END", done.stdout)[1])
    by_attack = sorted(("good", "bad"), key=lambda name: worst_of(cards[name][1])["ece"])
    attacked = ",".join([*by_attack, "before"])
    assert seen == ["good,bad,before", "bad,good,before", "bad,before,good", attacked]
