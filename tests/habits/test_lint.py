"""ruff, the sizes that keep a file readable, and a reason beside every suppression."""

import ast
import re

import pytest

from tests.habits.tools import ROOT, pages, python_files, run_tool, said

FILE_LINES, FUNCTION_LINES, LINE_LENGTH = 350, 60, 100
# {"path": "why"} and {"path::function": "why"}; empty is the goal
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}

SUPPRESSION = re.compile(
    r"#\s*(noqa\b(:\s*[A-Z0-9, ]+)?|fmt:\s*(skip|off)|type:\s*ignore\S*|pyright:)"
)

# up to the next section
PARAMETERS = re.compile(r"^Parameters\n-+\n(.*?)(?=\n\n\w+\n-+\n|\Z)", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("words", (["check", "--no-cache", "."], ["format", "--check", "."]))
def test_ruff(words):
    done = run_tool("ruff", ["-m", "ruff", *words], distribution="ruff")
    assert done.returncode == 0, said(done)


def test_no_file_is_longer_than_350_lines():
    long = {
        name(path): lines
        for path in python_files()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > FILE_LINES
    }
    assert set(long) == set(LONG_FILES), long


def test_no_function_is_longer_than_60_lines():
    long = {}
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = node.end_lineno - node.lineno + 1
                if lines > FUNCTION_LINES:
                    long[f"{name(path)}::{node.name}"] = lines
    assert set(long) == set(LONG_FUNCTIONS), long


def test_no_line_is_longer_than_100_characters():
    long = []
    for path in [*python_files(), *pages()]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            free = (
                line.startswith("|") or "://" in line
            )  # a table's row and an address have no break
            if len(line) > LINE_LENGTH and not (path.suffix == ".md" and free):
                long.append(f"{name(path)}:{number}")
    assert not long, long


def test_docstrings_describe_a_parameter_on_the_line_below_its_name():
    """One form of numpydoc's, from which the pages of the API are made; types are annotations."""
    other = []
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                section = PARAMETERS.search(ast.get_docstring(node) or "")
                if section and re.search(r"^[\w*, ]+ : ", section[1], re.MULTILINE):
                    other.append(f"{name(path)}::{node.name}")
    assert not other, other


def test_every_suppression_has_its_reason():
    bare = []
    for path in python_files():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found = SUPPRESSION.search(line)
            if found and not has_reason(line[found.end() :]):
                bare.append(f"{name(path)}:{number}: {line.strip()}")
    assert not bare, "\n".join(bare)


@pytest.mark.parametrize(
    ("line", "reason"),
    (
        ("import torch  % noqa: E402", False),
        ("import torch  % noqa: E402  # after the environment is set", True),
        ("x = 1  % fmt: skip", False),
        ("x = 1  % fmt: skip, a table that is read by columns", True),
    ),
)
def test_what_counts_as_a_reason(line, reason):
    line = line.replace("%", "#", 1)  # written so that the test above does not take it for one
    found = SUPPRESSION.search(line)
    assert found
    assert has_reason(line[found.end() :]) == reason


def has_reason(rest: str) -> bool:
    """Whether at least two words follow."""
    return len(re.findall(r"[A-Za-z]{2,}", rest)) >= 2


def name(path) -> str:
    return path.relative_to(ROOT).as_posix()
