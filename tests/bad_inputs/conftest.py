"""What rows are made of, made once; every row gets a copy."""

import shutil
import tempfile
from pathlib import Path

import pytest

from nnunetv2_lngswr.training import warm_start  # noqa: F401  # before a row is timed
from tests.bad_inputs import worlds
from tests.bad_inputs.harness import Bad, complaints


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """made(name): the folder of this name of worlds.py; nobody changes it."""
    found = {}

    def get(name: str) -> Path:
        if name not in found:
            found[name] = tmp_path_factory.mktemp(name)
            getattr(worlds, name)(found[name])
        return found[name]

    return get


@pytest.fixture
def refuses(made, capfd, monkeypatch):
    """refuses(main, row, world): asserts that the command answers a row as it should."""
    # not tmp_path, which only its owner may enter: some rows are run by another user
    with tempfile.TemporaryDirectory(prefix="bad-inputs-") as folder:
        root = Path(folder).resolve() / "root"

        def ask(main, row: Bad, world: str) -> None:
            shutil.copytree(made(world), root)
            for path in (root.parent, root, *root.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
            found = complaints(row, root, main, capfd, monkeypatch)
            assert not found, " | ".join(found)

        yield ask
        monkeypatch.undo()
