"""What ends a command with one line instead of a traceback.

Only these, so that a bug of ours, of NumPy or of torch stays visible.
"""

from __future__ import annotations


class UserError(ValueError):
    """Something that the user has to mend.

    The text says what was wrong, what was found, and how to mend it.
    """


class CommandError(RuntimeError):
    """A command that we ran has failed; the text holds its last lines and where all of them are."""
