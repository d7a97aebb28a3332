"""What is ours in this repository, and how a tool is run, or skipped where it is absent."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("nnunetv2_lngswr", "evaluation", "patches", "tests", "benchmarks", "docs")
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**/*.md")


def python_files() -> list[Path]:
    """Every Python file of this repository, environments and build folders left out."""
    found = [path for folder in OURS for path in (ROOT / folder).rglob("*.py")]
    return sorted([*found, *ROOT.glob("*.py")])


def pages() -> list[Path]:
    """README and the manual."""
    return sorted(path for pattern in PAGES for path in ROOT.glob(pattern))


def run_tool(
    module: str, words: list[str], *, distribution: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `python WORDS` at the root; skip where `module`, which that needs, is not installed."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{distribution} is not installed: pip install -e '.[test]'")
    return run_python(words, **variables)


def run_python(words: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `python WORDS` at the root, with this checkout's packages before installed ones."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path, "NO_COLOR": "1"} | variables,
        capture_output=True,
        text=True,
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    """What a tool printed, for the message of a failing assert."""
    return f"\n{done.stdout[-20000:]}\n{done.stderr[-5000:]}"
