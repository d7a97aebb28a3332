"""Small evaluations that the tests share: what is run, and the command that runs it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from evaluation import robust

FAST = {
    "attacks": ["noise", "pgd_linf"],
    "epsilons": ["4/255", "16/255"],
    "steps": 2,
    "corruptions": ["gamma"],
    "device": "cpu",
    "progress": False,
}
FAST_WORDS = [
    *("--attacks", "noise", "pgd_linf", "--epsilons", "4/255", "16/255"),
    *("--steps", "2", "--corruptions", "gamma"),
]


def run(world, out, **options):
    """`world`: (model folder, images, labels)."""
    folder, images, labels = world
    return robust.evaluate(folder, out, images=images, labels=labels, **{**FAST, **options})


def command(world, out, *words):
    """The words of a command on `world`."""
    folder, images, labels = world
    places = ("-m", folder, "-i", images, "-l", labels, "-o", out)
    return [*map(str, places), *(() if "-device" in words else ("-device", "cpu")), *words]


def cases_csv(folder):
    return (Path(folder) / "cases.csv").read_bytes()


def without_torch(code):
    """Run Python in which torch cannot be imported."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules['torch'] = None; {code}"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=60,
    )


def installed(name):
    return importlib.util.find_spec(name) is not None
