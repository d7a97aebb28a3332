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


@pytest.mark.parametrize(
    ("platform", "unit"), [("linux", 1024), ("freebsd13", 1024), ("darwin", 1)]
)
def test_the_unit_is_the_systems(platform, unit, monkeypatch):
    resource = pytest.importorskip("resource")
    usage = SimpleNamespace(ru_maxrss=7)
    monkeypatch.setattr(resource, "getrusage", lambda who: usage)
    monkeypatch.setattr(memory, "sys", SimpleNamespace(platform=platform))
    assert memory.peak_memory() == 7 * unit


def test_it_grows_with_what_is_taken():
    before = memory.peak_memory()
    taken = bytearray(before // 4)
    for start in range(0, len(taken), 4096):
        taken[start] = 1
    assert 2**20 < before < memory.peak_memory() < 2**40


def test_nothing_needs_a_module_that_windows_lacks():
    done = subprocess.run([sys.executable, "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
