"""The shims themselves: what nnU-Net imports from its own folders."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2_lngswr.installation import register as registration
from nnunetv2_lngswr.installation.register import PLANNER_SHIM_NAME, SHIM_NAME, shim_source

ROOT = Path(__file__).resolve().parents[2]
SHIMS = {SHIM_NAME: "trainers", PLANNER_SHIM_NAME: "planners"}


def run_shim(
    tmp_path: Path, package: dict[str, str], name: str = SHIM_NAME
) -> subprocess.CompletedProcess:
    """Import the shim where `nnunetv2_lngswr` is made of `package`, {file name: content}.

    An empty one is not importable.
    """
    (tmp_path / name).write_bytes(shim_source(name).read_bytes())
    for file, content in package.items():
        (tmp_path / "nnunetv2_lngswr").mkdir(exist_ok=True)
        (tmp_path / "nnunetv2_lngswr" / file).write_text(content)
    code = (
        f"import {Path(name).stem} as m\n"
        "print(*sorted(n for n in vars(m) if n.startswith('nnUNet')))"
    )
    # -S: no site-packages, so that no installed nnunetv2_lngswr is there
    return subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(tmp_path)},
    )


@pytest.mark.parametrize("name, module", SHIMS.items())
def test_the_shim_names_what_the_package_exports(tmp_path, name, module):
    package = {
        "__init__.py": "",
        f"{module}.py": (
            "nnUNetA = 1\nnnUNetB = 2\nnnUNetHidden = 3\n__all__ = ['nnUNetA', 'nnUNetB']\n"
        ),
    }
    result = run_shim(tmp_path, package, name)
    assert result.stdout.split() == ["nnUNetA", "nnUNetB"], result.stderr


@pytest.mark.parametrize("name", SHIMS)
@pytest.mark.parametrize(
    "package", [{}, {"left_behind.txt": ""}], ids=["uninstalled", "folder left behind"]
)
def test_the_shim_is_harmless_without_the_package(tmp_path, name, package):
    result = run_shim(tmp_path, package, name)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "", "")


@pytest.mark.parametrize("name, module", SHIMS.items())
def test_an_error_inside_the_package_is_not_hidden(tmp_path, name, module):
    result = run_shim(
        tmp_path, {"__init__.py": "", f"{module}.py": "import does_not_exist_either\n"}, name
    )
    assert result.returncode != 0
    assert "No module named 'does_not_exist_either'" in result.stderr


LOOKUP = """
import sys, nnunetv2
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

assert nnunetv2.__path__[0].startswith({root!r}), nnunetv2.__path__
for name in (
    "nnUNetTrainerLNGSWR",
    "nnUNetTrainerLNG",
    "nnUNetTrainerSWR_5epochs",
    "nnUNetTrainerVanillaDA5",
):
    assert recursive_find_trainer_class_by_name(name).__name__ == name
for name in ("nnUNetPlannerLNGSWR", "nnUNetPlannerLNGSWRResEncL"):
    found = recursive_find_python_class(
        nnunetv2.__path__[0] + "/experiment_planning",
        name,
        current_module="nnunetv2.experiment_planning",
    )
    assert found.__name__ == name
assert not {{"timm", "torchvision"}} & set(sys.modules)
"""


def test_nnunet_finds_trainers_and_planners_without_timm_and_torchvision(tmp_path):
    """By nnU-Net's own lookup, in a copy of the installed nnU-Net."""
    installed = Path(importlib.util.find_spec("nnunetv2").origin).parent
    shutil.copytree(
        installed, tmp_path / "nnunetv2", ignore=shutil.ignore_patterns("__pycache__", *SHIMS)
    )
    for shim in registration._shims_of(tmp_path / "nnunetv2/training/nnUNetTrainer"):
        shim.write_bytes(shim_source(shim.name).read_bytes())
    code = LOOKUP.format(root=str(tmp_path))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
