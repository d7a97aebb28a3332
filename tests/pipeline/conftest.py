"""One tiny project, cross-validated with nnU-Net's commands, that several files look at."""

from pathlib import Path

import pytest

from tests.pipeline import commands


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """An empty root of nnU-Net's folders, in use."""
    commands.use(monkeypatch, tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def crossvalidated(tmp_path_factory) -> Path:
    """Root of a project with five cases; 2d and 3d_fullres are trained on five folds (--npz)."""
    root = tmp_path_factory.mktemp("crossvalidated")
    with pytest.MonkeyPatch.context() as patch:
        commands.use(patch, root)
        commands.write_raw(root)
        commands.plan()
        commands.shrink(commands.plans_file(root), cascade=True)
        commands.preprocess(["2d", "3d_fullres", "3d_lowres"])
        for configuration in ("2d", "3d_fullres"):
            for fold in range(5):
                commands.train("999", configuration, fold, "--npz")
    return root


@pytest.fixture
def trained(crossvalidated, monkeypatch) -> Path:
    """The cross-validated project, in use.

    Not to be written to, except for results that no other test makes.
    """
    commands.use(monkeypatch, crossvalidated)
    return crossvalidated
