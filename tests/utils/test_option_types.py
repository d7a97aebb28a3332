"""Options of empty text and counts below 1 are refused in argparse's one line."""

import argparse

import pytest

from nnunetv2_lngswr.utils.option_types import count, given_text


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (given_text, "", "argument -o: must not be empty"),
        (given_text, "  ", "argument -o: must not be empty"),
        (given_text, "c\udcff", r"argument -o: must be UTF-8, got 'c\udcff'"),
        (count, "0", "argument -o: must be 1 or more, got 0"),
        (count, "-3", "argument -o: must be 1 or more, got -3"),
        (count, "1.5", "argument -o: must be an integer, got '1.5'"),
    ],
)
def test_what_is_refused(kind, given, said, capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("-o", type=kind)
    with pytest.raises(SystemExit):
        parser.parse_args([f"-o={given}" if given else "-o", *([] if given else [""])])
    assert said in capsys.readouterr().err


def test_what_is_taken_stays_as_it_is():
    assert given_text(" a b ") == " a b " and count("12") == 12
