"""robustness_card.md: front matter that parses, and names that stay names."""

from html.parser import HTMLParser

import pytest
import yaml

from evaluation.cards.markdown import card_markdown
from nnunetv2_lngswr.utils.markdown import code, escaped
from tests.evaluation.cards.outs import SUITE, entry, make, make_out

STRANGE = "<script>x</script> *a* | `b` [c](http://d) __e__ &lt; # f: \"g\" '---' ~h~ \\i"


class Page(HTMLParser):
    """Tags and text of what a renderer makes of Markdown."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def rendered(text):
    """By CommonMark with GitHub's tables, as Hugging Face renders a card."""
    markdown_it = pytest.importorskip("markdown_it", reason="pip install markdown-it-py")
    parser = markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return Page(parser.render(text))


def parts(text):
    """(front matter, the rest)."""
    _, front, rest = text.split("---\n", 2)
    return yaml.safe_load(front), rest


@pytest.fixture
def card(tmp_path):
    strong = make_out(tmp_path / "b", attack="apgd_dice", suite=None, lower=0.1)
    return make(tmp_path / "card", make_out(tmp_path / "a"), strong)


def test_the_front_matter_is_a_model_index(card):
    front, _ = parts(card_markdown(card))
    (model,) = front["model-index"]
    (result,) = model["results"]
    assert model["name"] == card["name"] and result["task"]["type"] == "image-segmentation"
    assert result["dataset"] == {"type": "D", "name": "D"}
    values = {m["name"]: m["value"] for m in result["metrics"]}
    found = entry(card, "linf", "2/255")
    assert values["Dice, clean (%)"] == round(100 * card["clean"]["dice"], 2)
    for name, of in (
        (f"Dice, claimed under {SUITE}, Linf 2/255 (%)", found["claimed"]),
        ("Dice, best known, Linf 2/255 (%)", found["best_known"]),
        (
            "Dice, mean over corruptions and severities (%)",
            {"figures": card["corruptions"]["mean"]},
        ),
    ):
        assert values[name] == round(100 * of["figures"]["dice"], 2)
    assert values["Dice, best known, Linf 2/255 (%)"] < values["Dice, clean (%)"] - 60


def test_hugging_faces_own_reader_takes_it(card):
    hub = pytest.importorskip("huggingface_hub", reason="comes with timm")
    data = hub.ModelCard(card_markdown(card), ignore_metadata_errors=False).data
    assert data.model_name == card["name"] and len(data.eval_results) == 2 + 2 * len(card["worst"])
    assert {r.metric_type for r in data.eval_results} == {"dice"}


@pytest.mark.parametrize("name", [STRANGE, "- a: b", "!!python/object:os.system", "1e3000", "null"])
def test_a_strange_name_stays_a_name(card, name):
    pytest.importorskip("markdown_it", reason="pip install markdown-it-py")
    clean = {**card["clean"], "labels": {k: {**v, "name": name} for k, v in _labels(card).items()}}
    strange = card | {"name": name, "clean": clean}
    strange["model"] = card["model"] | {"dataset": name, "trainer": name, "checkpoint": name}
    strange["data"] = card["data"] | {"protocol": name}
    front, rest = parts(card_markdown(strange))
    assert front["model-index"][0]["name"] == name
    assert front["model-index"][0]["results"][0]["dataset"]["name"] == name
    page = rendered(rest)
    plain = {"h1", "h2", "p", "strong", "em", "ul", "li", "code"}
    assert set(page.tags) <= plain | {"table", "thead", "tbody", "tr", "th", "td"}
    if name == "1e3000":
        assert f'name: "{name}"' in card_markdown(strange)  # a number in YAML 1.2
    assert page.text.count(name) == 7  # title, data set, two labels, trainer, checkpoint, protocol


def test_tables_keep_their_cells(card):
    page = rendered(parts(card_markdown(card))[1])
    rows = 1 + len(card["worst"])
    cells = 7 * len(card["worst"])
    assert page.tags.count("table") >= 4 and page.tags.count("tr") > rows
    assert page.tags.count("td") > cells


@pytest.mark.parametrize("text", [STRANGE, "``", "`", "a``b`c", "_x_", "a_b", "1_2_", "&#124;"])
@pytest.mark.parametrize("function", [code, escaped])
def test_escaped_text_renders_as_itself(function, text):
    page = rendered(f"| a |\n| --- |\n| {function(text).replace('|', chr(92) + '|')} |\n")
    assert page.text.split("a", 1)[1].strip() == text
    assert set(page.tags) <= {"table", "thead", "tbody", "tr", "th", "td", "code"}
    page = rendered(f"before {function(text)} after")
    assert page.text.strip() == f"before {text} after"
    assert set(page.tags) <= {"p", "code"}


def _labels(card):
    return card["clean"]["labels"]
