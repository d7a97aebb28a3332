"""The schema: a JSON Schema, closed, and cards of strangers are read by it."""

import copy
import json
import math

import pytest
from jsonschema import Draft202012Validator

from evaluation.cards.schema import SCHEMA_FILE, read_card, what_is_wrong
from evaluation.results_folder import CARD_JSON
from nnunetv2_lngswr.utils.errors import UserError
from tests.evaluation.cards.outs import make, make_out

SCHEMA = json.loads(SCHEMA_FILE.read_text())


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    folder = tmp_path_factory.mktemp("card")
    return make(folder, make_out(folder / "a"), make_out(folder / "b", suite=None))


def test_it_is_a_json_schema_and_its_version_is_in_its_name():
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA_FILE.name == "robustness-card-v1.schema.json"
    assert SCHEMA["properties"]["schema_version"] == {"const": 1}
    assert SCHEMA["$id"].endswith(":1")


@pytest.mark.parametrize("key", SCHEMA["required"])
def test_every_key_is_needed(card, key):
    assert what_is_wrong({k: v for k, v in card.items() if k != key})


def test_nothing_but_what_it_names_is_taken(card):
    assert set(SCHEMA["properties"]) == set(SCHEMA["required"]) == set(card)
    assert "colour" in what_is_wrong(card | {"colour": 1})
    for place in (("model",), ("clean",), ("worst", 0), ("worst", 0, "best_known", "figures")):
        other = copy.deepcopy(card)
        _at(other, place)["colour"] = 1
        assert "colour" in what_is_wrong(other), place


WRONG = {
    "a Dice of 80": (("clean", "dice"), 80),
    "a Dice that is NaN": (("clean", "dice"), math.nan),
    "a Dice that is a text": (("worst", 0, "best_known", "figures", "dice"), "0.8"),
    "a hash that is none": (("model", "checkpoint_sha256", "0"), "abc"),
    "no checkpoint": (("model", "checkpoint_sha256"), {}),
    "no evaluation": (("evaluations",), []),
    "a norm that is none": (("worst", 0, "norm"), "l7"),
    "a budget that is markup": (("worst", 0, "epsilon_text"), "<b>"),
    "an evaluation that is not there": (("worst", 0, "claimed", "evaluation"), 2),
    "another that is not there": (("worst", 0, "best_known", "found_by", 0, "evaluation"), 9),
    "a budget twice": (("worst", 0, "epsilon_text"), "2/255"),
    "an empty name": (("name",), ""),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(card, name):
    place, value = WRONG[name]
    other = copy.deepcopy(card)
    *above, last = place
    assert _at(other, above)[last] != value
    _at(other, above)[last] = value
    said = what_is_wrong(other)
    assert said and len(said) < 250 and "\n" not in said


def test_a_card_is_read_from_its_file_or_its_folder(card, tmp_path):
    (tmp_path / CARD_JSON).write_text(json.dumps(card))
    assert read_card(tmp_path) == read_card(tmp_path / CARD_JSON) == card


def test_texts_of_strangers_move_no_cursor(card, tmp_path):
    name = "a\x1b[2Jb\u202ec\nd\ud800"
    (tmp_path / CARD_JSON).write_text(json.dumps(card | {"name": name}))
    assert read_card(tmp_path)["name"] == "a [2Jb c d "


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "not readable as JSON"),
        ("[1]", "no robustness card"),
        ('{"schema_version": 1}', "no robustness card"),
        ('{"format": "robustness-card", "schema_version": 2}', "must be 1, got 2"),
        ('{"format": "robustness-card"}', "must be 1, got None"),
        ('{"format": "robustness-card", "schema_version": 1}', "no whole robustness card"),
    ],
)
def test_what_is_no_card_of_this_version_is_refused(tmp_path, content, says):
    (tmp_path / CARD_JSON).write_text(content)
    with pytest.raises(UserError, match=says) as error:
        read_card(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def _at(value, place):
    for key in place:
        value = value[key]
    return value
