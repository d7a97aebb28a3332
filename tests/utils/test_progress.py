"""A terminal gets a bar, a log a line a minute."""

import io
import sys

import pytest
from tqdm import tqdm

from nnunetv2_lngswr.utils import progress
from nnunetv2_lngswr.utils.progress import progress_bar


class Stream(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.fixture
def stderr(monkeypatch):
    def use(terminal):
        stream = Stream(terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return use


def test_a_terminal_gets_a_bar(stderr):
    said = stderr(True)
    assert list(progress_bar(range(3), unit="case")) == [0, 1, 2]
    assert "\r" in said.getvalue() and "3/3" in said.getvalue()


def test_a_log_gets_nothing_for_what_takes_less_than_a_minute(stderr):
    said = stderr(False)
    with progress_bar(total=200, unit="case", desc="cases") as bar:
        for i in range(200):
            bar.set_description(f"case {i}")
            bar.set_postfix(n=i)
            bar.update()
    assert list(progress_bar(range(50), unit="case", leave=False)) == list(range(50))
    assert said.getvalue() == "" and isinstance(bar, tqdm)


def test_a_log_gets_a_line_a_minute(stderr):
    said, now = stderr(False), [1000.0]
    with progress_bar(total=60, unit="case", desc="cases") as bar:
        bar._time = lambda: now[0]
        bar.start_t = bar.last_print_t = now[0]
        for _ in range(60):
            now[0] += 5
            bar.update()
    lines = said.getvalue().splitlines()
    assert len(lines) == 300 / progress.LOG_SECONDS + 1  # and the last state
    assert "\r" not in said.getvalue() and all(line.startswith("cases: ") for line in lines)
    assert "60/60" in lines[-1] and "" not in lines


def test_disabled_is_silent_everywhere(stderr):
    for terminal in (True, False):
        said = stderr(terminal)
        assert len(list(progress_bar(range(3), unit="case", disable=True))) == 3
        assert said.getvalue() == ""
