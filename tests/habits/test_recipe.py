"""CONTRIBUTING's recipe for an attack, followed to the letter in a copy of this repository."""

import re
import shutil
import subprocess
import sys
import textwrap

import pytest

from tests.habits.tools import ROOT, said

PARTS = ("nnunetv2_lngswr", "evaluation", "patches", "tests", "pyproject.toml")
REGISTRY = "nnunetv2_lngswr/attacks/registry.py"
TABLE = "ATTACKS: dict[str, AttackSpec] = _table(\n"


@pytest.fixture
def copy(tmp_path):
    for part in PARTS:
        if (ROOT / part).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, tmp_path / part, ignore=ignored)
        else:
            shutil.copy(ROOT / part, tmp_path / part)
    return tmp_path


def steps() -> dict[str, str]:
    """{file: Python that the recipe puts there}, in order."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    recipe = text.split("## Add an attack")[1].split("\n## ")[0]
    found = re.findall(
        r"^\d\. .*?`([\w/.]+\.py)`:\n\n    ```python\n(.*?)    ```", recipe, re.M | re.S
    )
    return {file: textwrap.dedent(block) for file, block in found}


def test_a_new_attack_takes_the_three_files_that_contributing_names(copy):
    recipe = steps()
    attack, registry, test = recipe
    assert registry == REGISTRY
    for file in (attack, test):
        assert not (copy / file).exists()
        (copy / file).write_text(recipe[file], encoding="utf-8")
    table = (copy / REGISTRY).read_text(encoding="utf-8")
    assert table.count(TABLE) == 1
    entry = textwrap.indent(recipe[registry], "    ")
    (copy / REGISTRY).write_text(table.replace(TABLE, TABLE + entry), encoding="utf-8")

    # its own test, and the laws that every registered attack goes through
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/attacks", "-k", "momentum"]
    done = subprocess.run([sys.executable, *words], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, said(done)
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) > 5, said(done)
