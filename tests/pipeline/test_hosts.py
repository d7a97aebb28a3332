"""An editable nnU-Net, and `nnUNet_extTrainer` in place of the shim, in processes of their own.

Registration itself is in tests/installation/test_register.py.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2_lngswr.installation.register import SHIM_NAME, shim_source
from tests.pipeline.commands import ROOT, TRAINER

# as setuptools installs a project in editable mode: a finder knows where the package lies, and its
# metadata lie elsewhere
EDITABLE = """
import importlib.util, sys
class Editable:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "nnunetv2":
            folder = sys.argv[1] + "/nnunetv2"
            return importlib.util.spec_from_file_location(
                name, folder + "/__init__.py", submodule_search_locations=[folder]
            )
sys.meta_path.insert(0, Editable)
import nnunetv2
assert nnunetv2.__path__[0].startswith(sys.argv[1])
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the installed nnU-Net without our shim, as a checkout would be."""
    folder = tmp_path_factory.mktemp("checkout")
    installed = Path(importlib.util.find_spec("nnunetv2").origin).parent
    shutil.copytree(
        installed, folder / "nnunetv2", ignore=shutil.ignore_patterns("__pycache__", SHIM_NAME)
    )
    return folder


def run(checkout: Path, code: str, **environment) -> subprocess.CompletedProcess:
    env = {k: v for k, v in os.environ.items() if k != "nnUNet_extTrainer"} | {
        "PYTHONPATH": str(ROOT),
        **environment,
    }
    return subprocess.run(
        [sys.executable, "-c", EDITABLE + code, str(checkout)],
        capture_output=True,
        text=True,
        env=env,
    )


def lookup(name: str) -> str:
    imported = (
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find"
    )
    return f"{imported}\nprint('found', find({name!r}).__module__)"


def lngswr(command: str) -> str:
    return f"from nnunetv2_lngswr.cli.main import main; sys.exit(main([{command!r}]))"


def test_an_editable_nnunet_is_registered_in_its_checkout(checkout):
    registered = run(checkout, lngswr("register"))
    shim = checkout / "nnunetv2/training/nnUNetTrainer" / SHIM_NAME
    try:
        assert registered.returncode == 0, registered.stdout + registered.stderr
        assert shim.read_bytes() == shim_source().read_bytes()
        found = run(checkout, lookup(TRAINER))
        assert "found nnunetv2_lngswr.trainers" in found.stdout, found.stderr
        assert run(checkout, lngswr("unregister")).returncode == 0
        assert not shim.exists()
    finally:
        shim.unlink(missing_ok=True)


def test_the_variable_alone_will_do_where_torchvision_imports(checkout, tmp_path):
    """Without the shim nnU-Net walks through its own trainers first.

    Some of them import timm and torchvision.
    """
    shutil.copy(shim_source(), tmp_path / SHIM_NAME)
    done = run(checkout, lookup(TRAINER), nnUNet_extTrainer=str(tmp_path))
    if done.returncode and "torchvision" in done.stderr:
        pytest.skip(f"torchvision does not import here: {done.stderr.strip().splitlines()[-1]}")
    assert "found nnunetv2_lngswr.trainers" in done.stdout, done.stderr
