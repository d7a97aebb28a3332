"""The commands that README and docs show: found in their fenced blocks, parsed by the real parsers.

A command is parsed by the very `ArgumentParser` that would read it, and stopped once it has: every
option must exist and every value must be admitted. What is not parsed so is in `RUN_ELSEWHERE`,
with what runs it.
"""

import argparse
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.habits.tools import ROOT, pages

# what stands for a number in the examples
PLACEHOLDERS = {"FOLD": "0", "ID": "611"}

RUN_ELSEWHERE = {
    "python3 quickstart.py test": ".ci/run",
    "python3 quickstart.py demo": "tests/experiments/test_demo.py runs lngswr demo",
    "pip install .": "tests/test_packaging.py builds the wheel that this installs",
    'pip install -e ".[dev]"': "quickstart.py installs .[test] so",
    "pip install --no-deps torchattacks": "quickstart.py",
    "pip install 'nnunetv2_lngswr[mr]'": "quickstart.py installs .[test], which has it",
    "pip install torch==2.13.0 .": "quickstart.py names the same version",
    "pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu": "PyTorch's own",
    "python -m venv .venv": "quickstart.py makes one",
    ". .venv/bin/activate": "a shell's own",
    "pre-commit install": ".pre-commit-config.yaml; the hooks are those of tests/habits",
    "ruff check .": "tests/habits/test_lint.py",
    "ruff format .": "tests/habits/test_lint.py",
    "mkdocs build --strict": "tests/habits/test_docs.py",
}


class Shown(NamedTuple):
    """A command, and where it is shown."""

    where: str
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.words)


def shown_commands() -> list[Shown]:
    """Every command of the fenced blocks that are shells: those without a language, or `bash`."""
    return [c for page in pages() for c in commands_of(page.relative_to(ROOT), page.read_text())]


def commands_of(page: Path, text: str) -> Iterator[Shown]:
    for block in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```", text, re.M | re.S):
        if block[2] not in ("", "bash") or is_tree(block[3]):
            continue
        start = text[: block.start()].count("\n") + 2
        lines = block[3].replace("\\\n", " \n").split("\n")
        yield from _joined(page, start, lines, block[3].split("\n"))


def _joined(page: Path, start: int, lines: list[str], raw: list[str]) -> Iterator[Shown]:
    """Lines that end in a backslash joined, `a && b` taken apart, comments left out."""
    waiting, number = "", 0
    for i, line in enumerate(lines):
        if not waiting:
            number = start + i
        waiting += line
        if raw[i].endswith("\\"):
            continue
        for part in re.split(r"\s&&\s", waiting):
            words = tuple(shlex.split(part, comments=True))
            if words:
                yield Shown(f"{page.as_posix()}:{number}", words)
        waiting = ""


def is_tree(block: str) -> bool:
    """A picture of folders, not a shell: its first line ends in a slash."""
    return block.lstrip().split("\n")[0].endswith("/")


def parser_of(words: tuple[str, ...]) -> Callable[[], object] | None:
    """What would run `words`, to be called with its arguments in place; None if we know nothing."""
    if words[0] == "lngswr":
        main = import_module("nnunetv2_lngswr.cli.main").main
        return lambda: main(list(words[1:]))
    if words[0].startswith("nnUNetv2_"):
        found = entry_points(group="console_scripts", name=words[0])
        return tuple(found)[0].load() if found else None
    if words[:2] == ("python", "-m") and words[2].startswith("evaluation."):
        main = import_module(words[2]).main
        return lambda: main(list(words[3:]))
    if words[0] == "torchrun":
        from torch.distributed.run import get_args_parser

        given = get_args_parser().parse_args(list(words[1:]))
        run = (given.training_script, *given.training_script_args)
        assert given.module or given.no_python, f"a module or a command: {' '.join(words)}"
        return parser_of(run if given.no_python else ("python", "-m", *run))
    if words[:2] == ("python", "-m") and words[2].startswith("benchmarks."):
        return lambda: runpy.run_module(words[2], run_name="__main__")
    if words[0] == "python" and words[1].endswith(".py") and (ROOT / words[1]).is_file():
        return lambda: runpy.run_path(str(ROOT / words[1]), run_name="__main__")
    return None


class _Parsed(BaseException):
    """Raised once the arguments are read, so that nothing runs; no command's handler takes it."""


def check(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails unless the real parser takes the command, or it is known to be run elsewhere."""
    if shown.text in {" ".join(shlex.split(text)) for text in RUN_ELSEWHERE}:
        return
    if shown.words[:3] == ("python", "-m", "pytest"):
        paths = [w for w in shown.words[3:] if w.startswith("tests")]
        assert all((ROOT / p).exists() for p in paths), f"{shown.where}: {shown.text}"
        return
    words = tuple(PLACEHOLDERS.get(word, word) for word in shown.words)
    run = parser_of(words)
    assert run is not None, f"{shown.where}: nothing is known to run {shown.text!r}"
    parse = argparse.ArgumentParser.parse_args

    def parse_only(self, args=None, namespace=None):
        parse(self, args, namespace)
        raise _Parsed

    first = 1 if words[0] != "python" else 3 if words[1] == "-m" else 2
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    monkeypatch.setattr(sys, "argv", [words[first - 1], *words[first:]])
    ended: BaseException | None = None
    try:
        run()
    except (_Parsed, SystemExit) as error:
        ended = error
    if isinstance(ended, SystemExit) and ended.code not in (0, None):
        pytest.fail(f"{shown.where}: {shown.text!r} is refused (see stderr)")
    if ended is None:
        pytest.fail(f"{shown.where}: {shown.text!r} ended without reading its arguments")
