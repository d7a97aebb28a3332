"""A folder that looks like nnU-Net's package, with package metadata, first on sys.path."""

import sys
from pathlib import Path


def make_nnunet(folder: Path, version: str | None = "2.8.1") -> Path:
    """A stand-in for nnunetv2 in `folder`; returns its trainer folder."""
    trainers = folder / "nnunetv2" / "training" / "nnUNetTrainer"
    trainers.mkdir(parents=True)
    planning = folder / "nnunetv2" / "experiment_planning"
    planning.mkdir()
    for package in (folder / "nnunetv2", trainers.parent, trainers, planning):
        (package / "__init__.py").touch()
    (trainers / "nnUNetTrainer.py").touch()
    if version:
        metadata = folder / f"nnunetv2-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: nnunetv2\nVersion: {version}\n"
        )
    return trainers


def put_first(monkeypatch, folder: Path) -> None:
    # not syspath_prepend: its undo would put back the sys.path of without_installed_nnunet
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    # other tests import the real one, and find_spec answers from here first
    monkeypatch.delitem(sys.modules, "nnunetv2", raising=False)
