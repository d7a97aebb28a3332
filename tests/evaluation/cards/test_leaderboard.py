"""Cards in one table: their order, what is comparable, and the same figures in every format."""

import csv
import json
import re
import shutil
import subprocess
import zipfile
from html.parser import HTMLParser

import pytest

from evaluation.cards.schema import what_is_wrong
from evaluation.leaderboard import leaderboard, main
from evaluation.results_folder import CARD_JSON
from nnunetv2_lngswr.utils.errors import UserError
from tests.evaluation.cards.outs import make, make_out, sha

EVIL = "<script>alert(1)</script>"
FORMULA = '=HYPERLINK("http://e.vil";"click")'
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Four folders with cards: a below b in what is claimed, above in what is known; c is worst;
    alone is of another suite."""
    tmp_path = tmp_path_factory.mktemp("made")
    outs = {
        "a": make_out(tmp_path / "outs" / "a", checkpoint="a"),
        "b": make_out(tmp_path / "outs" / "b", checkpoint="b", lower=-0.1),
        "c": make_out(tmp_path / "outs" / "c", checkpoint="c", lower=0.15),
        "alone": make_out(tmp_path / "outs" / "d", checkpoint="d", suite=None, attack="apgd"),
    }
    strong = make_out(tmp_path / "outs" / "s", checkpoint="b", suite=None, lower=0.12)
    for name, out in outs.items():
        make(tmp_path / name, out, *([strong] if name == "b" else []), name=name)
    return [tmp_path / name for name in outs]


@pytest.fixture
def cards(made, tmp_path):
    """Copies of them, to be changed."""
    return [shutil.copytree(folder, tmp_path / folder.name) for folder in made]


def change(folder, **values):
    """A card with other values; it must still be one."""
    card = json.loads((folder / CARD_JSON).read_text())
    card |= {k: (card[k] | v if isinstance(v, dict) else v) for k, v in values.items()}
    assert what_is_wrong(card) == ""
    (folder / CARD_JSON).write_text(json.dumps(card))


class Page(HTMLParser):
    """A page's tags with their attributes, its text, and the cells of its table."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.rows = [], "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        self.text += data
        if self.rows and self.rows[-1] and self.tags[-1][0] in ("td", "th", "button"):
            self.rows[-1][-1] += data.strip()


def test_the_order_is_by_best_known_and_others_are_named_with_the_reason(cards, tmp_path, capsys):
    assert main([*map(str, cards), "-o", str(tmp_path / "x.md")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(" (")[0] for line in said[1:4]] == ["1. a", "2. b", "3. c"]
    assert said[0].startswith(f"not comparable: {cards[3]} (alone): against a: suite: was worst-v2")
    assert "steps" not in said[0]
    text = (tmp_path / "x.md").read_text()
    assert re.search(r"\| 2 \| `b` \|.*\| 41\.\d \[[^|]*\| 19\.\d \[", text)
    assert "## Not comparable" in text and "suite: was worst-v2" in text


def zipped(card, place="Dataset1_A/T__P__2d"):
    """The zip of an exported model that this card travels with."""
    file = card.with_suffix(".zip")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{place}/plans.json", "{}")
        archive.write(card / CARD_JSON, f"{place}/{CARD_JSON}")
    return file


def test_a_card_is_read_from_the_zip_that_it_travels_with(cards, tmp_path):
    by_folder = leaderboard(cards[:3], tmp_path / "x.csv")
    by_zip = leaderboard([zipped(card) for card in cards[:3]], tmp_path / "y.csv")
    assert [c.card for c in by_zip.ranked] == [c.card for c in by_folder.ranked]
    file = zipped(cards[0])
    with zipfile.ZipFile(file, "a") as archive:
        archive.write(cards[1] / CARD_JSON, f"Dataset1_A/other/{CARD_JSON}")
    with pytest.raises(UserError, match=f"must hold one {CARD_JSON}, got Dataset1_A/T__P__2d/"):
        leaderboard([file], tmp_path / "z.csv")
    (cards[2] / CARD_JSON).write_text("{")
    with pytest.raises(UserError, match=rf"c.zip: its {CARD_JSON} is not readable as JSON"):
        leaderboard([zipped(cards[2])], tmp_path / "z.csv")


def test_every_format_has_the_same_figures(cards, tmp_path):
    for suffix in ("html", "md", "csv"):
        ranking = leaderboard(cards, tmp_path / f"x.{suffix}")
    page = Page((tmp_path / "x.html").read_text())
    markdown = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in (tmp_path / "x.md").read_text().splitlines()
        if line.startswith("|") and "---" not in line
    ]
    assert page.rows == markdown and len(markdown) == 4
    with open(tmp_path / "x.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, shown, card in zip(rows, markdown[1:], ranking.ranked):
        at = dict(zip(markdown[0], shown))
        for column, title in (
            ("clean", "clean"),
            ("linf_2/255_claimed", "Linf 2/255 claimed"),
            ("linf_2/255_best_known", "Linf 2/255 best known"),
            ("l2_1/255_claimed", "L2 1/255 claimed"),
            ("corruptions", "corruptions"),
        ):
            low, high = (float(row[f"{column}_dice_{end}"]) for end in ("low", "high"))
            dice = float(row[f"{column}_dice"])
            assert at[title] == f"{100 * dice:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        assert row["name"] == at["model"] == card.name
        assert row["checkpoint_sha256"].startswith(at["checkpoint"])
        assert row["checkpoint_sha256"] == sha(card.name)
    assert [row["rank"] for row in rows] == ["1", "2", "3", ""]
    assert "suite: was worst-v2" in rows[3]["not_comparable"] and rows[3]["clean_dice"] == ""


def test_the_reference_is_what_most_are_comparable_with(cards, tmp_path):
    ranking = leaderboard([cards[3], *cards[:3]], tmp_path / "x.md")
    assert [c.name for c in ranking.ranked] == ["a", "b", "c"]
    # of equals the first
    assert [c.name for c in leaderboard([cards[3], cards[0]], tmp_path / "x.md").ranked] == [
        "alone"
    ]


REASONS = {
    "suite": ({"protocol": {"suite": "worst-v3"}}, "suite: was worst-v2, is worst-v3"),
    "seed": ({"protocol": {"seed": 5}}, "seed: was 0, is 5"),
    "unit": ({"protocol": {"epsilon_unit": "original"}}, "epsilon_unit: was range, is original"),
    "precision": ({"protocol": {"autocast": True}}, "autocast: was false, is true"),
    "labels": ({"protocol": {"labels": ["1 spleen"]}}, "labels"),
    "mirroring": ({"model": {"mirror_axes": [0, 1]}}, "mirroring: was off, is on"),
    "tile step": ({"model": {"tile_step_size": 0.3}}, "tile_step_size: was 0.5, is 0.3"),
    "folds": ({"model": {"folds": [0, 1]}}, "folds: was 1, is 2"),
    "number of cases": ({"data": {"cases": 7}}, "cases: was 6, is 7"),
    "cases": ({"data": {"cases_sha256": sha("x")}}, "other names or sizes of labels"),
    "files": ({"data": {"files_sha256": sha("x")}}, "other files under the same names"),
    "not attacked": ({"worst": []}, "nothing is claimed at linf 2/255"),
}


@pytest.mark.parametrize("name", REASONS)
def test_why_a_card_is_not_comparable(cards, tmp_path, name):
    values, says = REASONS[name]
    change(cards[2], **values)
    ranking = leaderboard([cards[2], *cards[:2]], tmp_path / "x.md")
    ((card, reason),) = ranking.left_out
    assert card.name == "c" and says in reason and len(ranking.ranked) == 2
    assert reason.count(";") == 0


def test_other_budgets_and_unknown_files_are_comparable_and_told(cards, tmp_path):
    folder = tmp_path / "few"
    out = make_out(tmp_path / "outs" / "few", checkpoint="few", epsilons=["2/255"], inputs=None)
    make(folder, out, name="few")
    ranking = leaderboard([*cards[:3], folder], tmp_path / "x.csv")
    assert not ranking.left_out
    assert "cases of few are known by names and sizes of labels alone" in ranking.notes
    rows = list(csv.DictReader((tmp_path / "x.csv").read_text().splitlines()))
    (few,) = [row for row in rows if row["name"] == "few"]
    assert few["linf_1/255_claimed_dice"] == "" and few["linf_2/255_claimed_dice"]


def test_notes_tell_failed_checks_other_corruptions_and_one_checkpoint_twice(cards, tmp_path):
    card = json.loads((cards[0] / CARD_JSON).read_text())
    evaluation = card["evaluations"][0] | {"checks": ["Check failed: it is weak.", "Warning: w"]}
    twin = tmp_path / "twin"
    shutil.copytree(cards[0], twin)
    change(twin, name="twin", evaluations=[evaluation], corruptions=None)
    ranking = leaderboard([*cards[:3], twin], tmp_path / "x.html")
    text = " | ".join(ranking.notes)
    assert "twin: Check failed: it is weak." in text and "Warning" not in text
    assert "no mean over corruptions" in text and not ranking.with_corruptions
    assert f"{cards[0]}, {twin} are of one checkpoint" in text
    page = Page((tmp_path / "x.html").read_text())
    assert "failed" in [row[-1] for row in page.rows] and "it is weak." in page.text


def test_without_anything_lower_there_is_one_column_a_budget(cards, tmp_path):
    ranking = leaderboard([cards[0], cards[2]], tmp_path / "x.md")
    text = (tmp_path / "x.md").read_text()
    assert not ranking.with_best_known and "best known |" not in text
    assert "| Linf 2/255 |" in text and "nothing lower" not in text.split("|")[0]


def test_cards_without_attacks_are_ordered_by_corruptions(tmp_path):
    names = {"x": 0.0, "y": 0.1}
    for name, lower in names.items():
        kinds = ("clean", "shift")
        out = make_out(tmp_path / "outs" / name, checkpoint=name, suite=None, kinds=kinds)
        make(tmp_path / name, out, name=name)
        card = json.loads((tmp_path / name / CARD_JSON).read_text())
        card["corruptions"]["mean"]["dice"] -= lower
        (tmp_path / name / CARD_JSON).write_text(json.dumps(card))
    ranking = leaderboard([tmp_path / "y", tmp_path / "x"], tmp_path / "x.md")
    assert [c.name for c in ranking.ranked] == ["x", "y"] and ranking.ordered_by is None
    assert "None of them was attacked." in (tmp_path / "x.md").read_text()


def test_names_of_strangers_are_text_in_every_format(cards, tmp_path):
    for folder, name in zip(cards, (EVIL, FORMULA, f"@x {EVIL}", f"+{EVIL}")):
        checks = [{"checks": [f"Check failed: {EVIL}"]}]
        evaluations = json.loads((folder / CARD_JSON).read_text())["evaluations"]
        evaluations = [e | checks[0] for e in evaluations]
        change(folder, name=name, model={"dataset": name}, evaluations=evaluations)
    for suffix in ("html", "md", "csv"):
        leaderboard(cards, tmp_path / f"x.{suffix}")
    html = (tmp_path / "x.html").read_text()
    page = Page(html)
    assert "<script>alert" not in html and page.rows[1][1] == EVIL
    assert [tag for tag, _ in page.tags].count("script") == 1
    loaded = [attrs for _, attrs in page.tags if {"src", "href", "data", "action"} & set(attrs)]
    assert not loaded and "http" not in re.sub(r"http-equiv|http://e\.vil", "", html)
    markdown = (tmp_path / "x.md").read_text()
    assert EVIL not in re.sub(r"`[^`]*`", "", markdown) and f"`{EVIL}`" in markdown
    with open(tmp_path / "x.csv", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell.lstrip()[:1] in tuple("=+-@")]
    assert {f"'{FORMULA}", f"'+{EVIL}", EVIL} <= set(cells)


@pytest.mark.parametrize(
    ("change_name", "says"),
    [
        ("x.pdf", "must end in .html, .md, .csv"),
        ("a", "must end in"),
        ("folder.md", "is a folder"),
        ("x.md/y.md", "is a file"),
    ],
)
def test_where_no_table_can_be_is_refused(cards, tmp_path, change_name, says):
    (tmp_path / "folder.md").mkdir()
    (tmp_path / "x.md").write_text("")
    with pytest.raises(UserError, match=says):
        leaderboard(cards, tmp_path / change_name)


def test_a_card_that_is_given_twice_is_refused(cards, tmp_path):
    with pytest.raises(UserError, match="the same card"):
        leaderboard([cards[0], tmp_path / "b" / ".." / "a"], tmp_path / "x.md")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_in_a_browser_a_heading_sorts_its_column(cards, tmp_path):
    leaderboard(cards[:3], tmp_path / "x.html")
    text = (tmp_path / "x.html").read_text()
    script = """
    const seen = [];
    const names = () => [...document.querySelectorAll("tbody tr")].map((r) => r.cells[1].innerText);
    const sorts = () => [...document.querySelectorAll("th")].map((t) => t.ariaSort).filter(Boolean);
    for (const title of ["model", "model", "Linf 2/255 claimed", "Linf 2/255 claimed", "rank"]) {
      [...document.querySelectorAll("th button")].find((b) => b.innerText === title).click();
      seen.push([names().join(""), sorts().join()]);
    }
    document.body.innerText = "SEEN" + JSON.stringify(seen) + "END";
    """
    (tmp_path / "y.html").write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    words += [f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "y.html").as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    seen = json.loads(re.search("SEEN(.*)END", done.stdout)[1])
    assert seen == [
        ["abc", "ascending"],
        ["cba", "descending"],
        ["bac", "descending"],
        ["cab", "ascending"],
        ["abc", "ascending"],
    ]
