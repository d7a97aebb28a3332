"""The tables' harness: what it complains of, and how many kinds the tables hold."""

import sys
import time
import warnings
from pathlib import Path

import pytest

from tests.bad_inputs import (
    harness,
    test_compare,
    test_convert_dataset,
    test_evaluate_arguments,
    test_evaluate_cases,
    test_evaluate_models,
    test_evaluate_options,
    test_experiments,
    test_register,
    test_settings,
    test_splits,
    test_warm_start,
)
from tests.bad_inputs.harness import bad, complaints

TABLES = {
    "compare": test_compare.TABLE,
    "image-folder": test_convert_dataset.IMAGES,
    "tnscui": test_convert_dataset.THYROID,
    "lidc": test_convert_dataset.LIDC,
    "evaluate arguments": test_evaluate_arguments.TABLE,
    "evaluate options": test_evaluate_options.TABLE,
    "evaluate models": test_evaluate_models.TABLE,
    "evaluate images": [*test_evaluate_cases.IMAGES, *test_evaluate_cases.LABELS],
    "evaluate pictures": test_evaluate_cases.PICTURES,
    "evaluate validation": test_evaluate_cases.VALIDATION,
    "benchmark": test_experiments.BENCHMARK,
    "overhead": test_experiments.OVERHEAD,
    "paper": test_experiments.PAPER,
    "demo": test_experiments.DEMO,
    "register": test_register.TABLE,
    "settings": test_settings.TABLE,
    "splits": test_splits.TABLE,
    "warm-start": test_warm_start.TABLE,
}
SAID = "lngswr: x must be y"


def command(*lines: str, status: int = 2, write: str = "", warn: str = ""):
    def main(argv: list[str]) -> int:
        for line in lines:
            print(line, file=sys.stderr)
        if write:
            Path(write).write_text("half")
        if warn:
            warnings.warn(warn, RuntimeWarning, stacklevel=1)
        return status

    return main


def ask(main, tmp_path, capfd, monkeypatch) -> list[str]:
    return complaints(bad("row", [], "x must be y"), tmp_path, main, capfd, monkeypatch)


def test_only_what_a_row_says_may_be_left(tmp_path, capfd, monkeypatch):
    def left(leaves: str) -> list[str]:
        row = bad("row", [], "x must be y", leaves=leaves)
        return complaints(row, tmp_path, command(SAID, write="out/a"), capfd, monkeypatch)

    (tmp_path / "out").mkdir()
    assert left("") == ["changed: out/a"]
    (tmp_path / "out/a").unlink()
    assert left("ou") == ["changed: out/a"]
    (tmp_path / "out/a").unlink()
    assert left("out") == []
    (tmp_path / "out/a").write_text("of the user")
    assert left("out") == ["changed: out/a"]


def test_what_is_as_it_should_be_is_not_complained_of(tmp_path, capfd, monkeypatch):
    assert ask(command(SAID), tmp_path, capfd, monkeypatch) == []


@pytest.mark.parametrize(
    ("main", "complaint"),
    [
        (command(SAID, status=0), "status 0"),
        (command(SAID, status=1), "status 1"),
        (command(), "0 lines"),
        (command(SAID, SAID), "2 lines"),
        (command("lngswr: something else"), "does not say 'x must be y'"),
        (command("x must be y"), "does not begin with the program's name"),
        (command("Traceback", "  File x", "KeyError: 1", "lngswr: bug"), "traceback: KeyError: 1"),
        (command(SAID, write="left.json"), "changed: left.json"),
        (command(SAID, warn="overflow"), "warned: RuntimeWarning: overflow"),
    ],
)
def test_what_is_not_is(main, complaint, tmp_path, capfd, monkeypatch):
    assert complaint in " | ".join(ask(main, tmp_path, capfd, monkeypatch))


def test_what_never_ends_is_ended(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(harness, "SECONDS", 0.05)
    found = ask(lambda argv: time.sleep(30), tmp_path, capfd, monkeypatch)
    assert found[0] == "status none after 0.05 s"


def test_the_tables_hold_250_kinds_and_more_of_every_command():
    assert all(TABLES.values()) and sum(map(len, TABLES.values())) >= 250
