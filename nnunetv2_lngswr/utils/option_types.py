"""Types of options, for argparse: what its own would take without a word.

What they refuse, argparse says in one line with the option's name.
"""

from __future__ import annotations

import argparse

from nnunetv2_lngswr.utils.names import is_utf8


def given_text(text: str) -> str:
    """A text that is there: `-o "$OUT"` of an unset variable would mean the current folder.

    And one in UTF-8, without which no report can name a folder.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError(
            "must not be empty; give a value, or leave the option out (is a shell variable unset?)"
        )
    if not is_utf8(text):
        raise argparse.ArgumentTypeError(f"must be UTF-8, got {ascii(text)}; rename it")
    return text


def count(text: str) -> int:
    """An integer from 1."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an integer, got {text!r}") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {number}")
    return number
