"""Peak memory: the unit of every system, and what is imported where."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from nnunetv2_lngswr.utils import memory

ROOT = Path(__file__).resolve().parents[2]
WITHOUT = """
import sys
for name in ("resource", "fcntl"):
    sys.modules[name] = None  # as on Windows: importing it fails
import nnunetv2_lngswr.cli.main, evaluation.robust, evaluation.cost_estimate
import nnunetv2_lngswr.experiments.demo, nnunetv2_lngswr.experiments.paper
import nnunetv2_lngswr.experiments.robustness, nnunetv2_lngswr.utils.locks
from nnunetv2_lngswr.utils import memory
memory.sys = type("sys", (), {"platform": "win32"})
memory._peak_of_windows = lambda: 5
assert memory.peak_memory() == 5
"""
TAKEN = """
from nnunetv2_lngswr.utils.memory import peak_memory
before = peak_memory()
taken = b"1" * 2**26
print(before, peak_memory())
"""


@pytest.mark.parametrize(("platform", "unit"), [("freebsd13", 1024), ("darwin", 1)])
def test_the_unit_is_the_systems(platform, unit, monkeypatch):
    resource = pytest.importorskip("resource")
    usage = SimpleNamespace(ru_maxrss=7)
    monkeypatch.setattr(resource, "getrusage", lambda who: usage)
    monkeypatch.setattr(memory, "sys", SimpleNamespace(platform=platform))
    assert memory.peak_memory() == 7 * unit


def test_it_grows_with_what_is_taken_and_starts_anew_in_a_child():
    held = b"1" * 2**28
    done = subprocess.run([sys.executable, "-c", TAKEN], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert 2**20 < before < len(held) and 2**26 <= after - before < 2**27
    # the child, forked from this process, does not count what is held here
    assert memory.peak_memory() > len(held)


def test_nothing_needs_a_module_that_windows_lacks():
    done = subprocess.run([sys.executable, "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
