"""What ends a command with one line instead of a traceback.

Only these, so that a bug of ours, of NumPy or of torch stays visible.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Something that the user has to mend.

    The text says what was wrong, what was found, and how to mend it.
    """


class CommandError(RuntimeError):
    """A command that we ran has failed; the text holds its last lines and where all of them are."""


class Ended(KeyboardInterrupt):
    """A signal that ends us, SIGTERM or SIGHUP.

    Like Ctrl-C, so that what we have started is ended first.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def blamed_on(said: str) -> Iterator[None]:
    """Let what a library raises on a stranger's file end in one line that starts so.

    Only around calls of a library: a bug of ours would look like the user's.

    Raises
    ------
    UserError
        `said`, and what was raised. UserErrors pass, and so does what the system refuses.
    """
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        text = f"{type(error).__name__}: {error}"
        raise UserError(f"{said}: {shortened(text, 300)}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the system, or a GPU, had no more of it."""
    if isinstance(error, MemoryError):
        return True
    # torch's, which is not imported for this; on a CPU it is a plain RuntimeError
    named = type(error).__name__ == "OutOfMemoryError"
    return named or isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def shortened(text: str, limit: int) -> str:
    """On one line, and at most this long."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
