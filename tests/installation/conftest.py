"""Stand-ins of nnU-Net: a folder that looks like its package, with package metadata."""

import sys
from pathlib import Path

import pytest

from nnunetv2_lngswr.installation.register import PLANNER_SHIM_NAME, SHIM_NAME
from tests.installation.stand_in import make_nnunet, put_first


@pytest.fixture
def trainers(tmp_path, monkeypatch) -> Path:
    folder = make_nnunet(tmp_path / "site")
    put_first(monkeypatch, tmp_path / "site")
    return folder


@pytest.fixture
def without_installed_nnunet(monkeypatch):
    """Hides the nnU-Net that this environment has."""
    real = [
        p
        for p in sys.path
        if not (Path(p) / "nnunetv2").exists()
        and not list(Path(p or ".").glob("nnunetv2-*.dist-info"))
    ]
    monkeypatch.setattr(sys, "path", real)
    monkeypatch.setattr(
        sys,
        "meta_path",
        [
            f
            for f in sys.meta_path
            if "editable" not in getattr(f, "__name__", type(f).__name__).lower()
        ],
    )
    monkeypatch.delitem(sys.modules, "nnunetv2", raising=False)


@pytest.fixture(params=[SHIM_NAME, PLANNER_SHIM_NAME])
def shim(request, trainers) -> Path:
    """Where one of the shims belongs."""
    folder = trainers if request.param == SHIM_NAME else trainers.parents[1] / "experiment_planning"
    return folder / request.param
