"""The JSON Schema of a robustness card, and cards read from files that may be anything.

A published version never changes; what has another shape is another version, with a file of its
own.
"""

from __future__ import annotations

import functools
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from evaluation.cards.archive import read_file
from evaluation.results_folder import CARD_JSON
from nnunetv2_lngswr.utils import names
from nnunetv2_lngswr.utils.errors import UserError, shortened
from nnunetv2_lngswr.utils.files import read_json
from nnunetv2_lngswr.utils.names import refuse_no_utf8
from nnunetv2_lngswr.utils.values import shown

FORMAT, SCHEMA_VERSION = "robustness-card", 1
SCHEMA_FILE = Path(__file__).with_name("robustness-card-v1.schema.json")


def read_card(path: Path) -> dict[str, Any]:
    """The card in a file, or in a folder or zip that has one; texts without control characters.

    Raises
    ------
    UserError
        It is not there, no card, of another version, or damaged; names the file.
    """
    refuse_no_utf8(path)
    if path.is_dir():
        path = path / CARD_JSON
    if not path.is_file():
        raise UserError(f"{path} does not exist; lngswr card OUT makes it")
    card = _in_zip(path) if zipfile.is_zipfile(path) else read_json(path)
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise UserError(f"{path} is no robustness card; lngswr card OUT makes {CARD_JSON}")
    if card.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema_version must be {SCHEMA_VERSION}, got "
            f"{shown(card.get('schema_version'))}; make the card again with this lngswr, or read "
            "it with the one that made it"
        )
    wrong = what_is_wrong(card)
    if wrong:
        raise UserError(f"{path} is no whole robustness card: {wrong}; make it again")
    return printable(card)


def _in_zip(path: Path) -> Any:
    text = read_file(path, CARD_JSON)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: its {CARD_JSON} is not readable as JSON ({error})") from None


def what_is_wrong(card: Mapping[str, Any]) -> str:
    """Where a card is not as its schema says, and how; empty where all is well."""
    try:
        json.dumps(card, allow_nan=False)
    except ValueError:
        return "it holds NaN or Infinity, which are no JSON"
    error = best_match(_validator().iter_errors(card))
    if error is not None:
        place = error.json_path.removeprefix("$").removeprefix(".") or "the card"
        return shortened(f"{place}: {error.message}", 200)
    return _broken_reference(card)


def printable(value: Any) -> Any:
    """The same without what moves a terminal's cursor, reverses text or is no character."""
    if isinstance(value, Mapping):
        return {printable(k): printable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [printable(v) for v in value]
    if isinstance(value, str) and not value.isprintable():
        return names.printable(value).replace("\n", " ")
    return value


@functools.cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))


def _broken_reference(card: Mapping[str, Any]) -> str:
    """What a JSON Schema cannot say: evaluations that are not there, a budget that is there
    twice."""
    count = len(card["evaluations"])
    sources = [card["corruptions"], *(r["claimed"] for r in card["worst"])]
    sources += [found for r in card["worst"] for found in r["best_known"]["found_by"]]
    for source in sources:
        if source is not None and source["evaluation"] >= count:
            return f"it refers to evaluation {source['evaluation']} of {count}"
    budgets = [(r["norm"], r["epsilon_text"]) for r in card["worst"]]
    twice = [" ".join(b) for b in budgets if budgets.count(b) > 1]
    return f"worst has {twice[0]} twice" if twice else ""
