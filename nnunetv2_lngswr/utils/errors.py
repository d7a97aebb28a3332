"""What ends a command with one line instead of a traceback.

Only these, so that a bug of ours, of NumPy or of torch stays visible.
"""

from __future__ import annotations

_SHOWN_AT_MOST = 60
_SHOWN_BITS = 10_000


class UserError(ValueError):
    """Something that the user has to mend.

    The text says what was wrong, what was found, and how to mend it.
    """


class CommandError(RuntimeError):
    """A command that we ran has failed; the text holds its last lines and where all of them are."""


def shown(value: object) -> str:
    """A value in one line of a message: its `repr`, cut where it is long."""
    if isinstance(value, int) and value.bit_length() > _SHOWN_BITS:
        return f"a number of {value.bit_length()} bits"  # Python would refuse to write it
    try:
        text = " ".join(repr(value).splitlines())
    except ValueError:  # such a number within
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN_AT_MOST else f"{text[: _SHOWN_AT_MOST - 3]}..."
