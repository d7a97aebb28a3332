"""One world for all, a copy for each test; and commands that are made up."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nnunetv2_lngswr.experiments.transfer import run
from tests.experiments.transfer.world import Evaluations, write_world


@pytest.fixture(scope="session")
def made_world(tmp_path_factory):
    """Nobody changes it."""
    root = tmp_path_factory.mktemp("world")
    write_world(root)
    return root


@pytest.fixture
def root(made_world, tmp_path, monkeypatch) -> Path:
    """A copy of it, in use."""
    root = tmp_path / "world"
    shutil.copytree(made_world, root)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(root / name))
    return root


@pytest.fixture
def evaluations(root, monkeypatch) -> Evaluations:
    """What was run, none of it for real."""
    made = Evaluations(root)
    monkeypatch.setattr(run, "run_command", made)
    return made
