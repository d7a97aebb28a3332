"""One project for all, a copy for each test; and commands that are only noted, or run in here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nnunetv2_lngswr.experiments.robustify import run
from nnunetv2_lngswr.installation import register
from nnunetv2_lngswr.utils.errors import CommandError
from tests.experiments.robustify.given import NAME, write_project


@pytest.fixture(scope="session")
def projects(tmp_path_factory):
    """projects(**how): the root of a project with a model, made once; nobody changes it."""
    made = {}

    def get(**how) -> Path:
        key = repr(sorted(how.items()))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("project")
            write_project(made[key], **how)
        return made[key]

    return get


@pytest.fixture
def project(projects, tmp_path, monkeypatch):
    """project(**how): a copy of it, in use, and the model's folder."""
    monkeypatch.setattr(register, "trainers_are_found", lambda: True)

    def get(**how) -> tuple[Path, Path]:
        root = tmp_path / "project"
        shutil.copytree(projects(**how), root)
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            monkeypatch.setenv(name, str(root / name))
        (model,) = (root / "nnUNet_results" / NAME).iterdir()
        return root, model

    return get


class Noted:
    """In place of the commands: notes each, and leaves what the next step looks for.

    The one of number `fails` (from 0) leaves what a killed one leaves.
    """

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.fails = -1

    def __call__(self, command, log, *, environment, say, show=""):
        words = [str(word) for word in command]
        self.commands.append(words)
        ended = len(self.commands) - 1 != self.fails
        if words[0] == "nnUNetv2_train":
            trainer, plans = words[words.index("-tr") + 1], words[words.index("-p") + 1]
            results = Path(environment["nnUNet_results"]) / words[1]
            folder = results / f"{trainer}__{plans}__{words[2]}" / f"fold_{words[3]}"
            (folder / "validation").mkdir(parents=True, exist_ok=True)
            (folder / "checkpoint_latest.pth").touch()
        else:
            folder = Path(words[words.index("-o") + 1])
        if not ended:
            raise CommandError(f"{words[0]} failed")
        summary = folder / ("validation" if words[0] == "nnUNetv2_train" else "") / "summary.json"
        summary.parent.mkdir(parents=True, exist_ok=True)
        summary.write_text("{}")


@pytest.fixture
def noted(monkeypatch) -> Noted:
    """The commands that were run, none of them for real; the comparison is left out."""
    made = Noted()
    monkeypatch.setattr(run, "run_command", made)
    monkeypatch.setattr(run, "compare", lambda folders, output, names, groups: None)
    return made
