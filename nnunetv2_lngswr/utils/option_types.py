"""Types of options, for argparse: what its own would take without a word.

What they refuse, argparse says in one line with the option's name.
"""

from __future__ import annotations

import argparse


def given_text(text: str) -> str:
    """A text that is there: `-o "$OUT"` of an unset variable would mean the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError(
            "must not be empty; give a value, or leave the option out (is a shell variable unset?)"
        )
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
