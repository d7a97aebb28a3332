"""A folder that may not be written to: one line, exit status 2, and nothing has run."""

import errno
import os

import pytest

from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.datasets.phantom import write_phantom
from nnunetv2_lngswr.experiments.demo.chain import Chain
from nnunetv2_lngswr.experiments.paper import run as paper_run
from nnunetv2_lngswr.experiments.robustness import commands as benchmark_commands
from nnunetv2_lngswr.installation import register
from tests.experiments.robustness.settings import DATASET

CALLS = {
    "benchmark": ["benchmark", "robustness", "-d", DATASET, "-c", "2d", "-device", "cpu"],
    "paper": ["paper", "lidc", "-d", "901", "-f", "0", "-device", "cpu"],
    "demo": ["demo"],
}


@pytest.fixture
def read_only(tmp_path, monkeypatch):
    """A folder that refuses, to root as well, whom no permission bits stop."""
    folder = tmp_path / "out"
    folder.mkdir()
    system = os.open

    def refuse(path, flags, *more, **options):
        if flags & os.O_CREAT and str(path).startswith(str(folder)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return system(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", refuse)
    return folder


@pytest.mark.parametrize("name", sorted(CALLS))
def test_it_is_told_before_anything_runs(name, read_only, tmp_path, monkeypatch, capsys):
    def ran(*words, **options):
        raise AssertionError("it ran")

    for folder in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(folder, str(tmp_path / folder))
    write_phantom("2d", tmp_path / "nnUNet_raw")
    monkeypatch.setattr(register, "trainers_are_found", lambda: True)
    monkeypatch.setattr(benchmark_commands, "run_command", ran)
    monkeypatch.setattr(paper_run, "call_command", ran)
    monkeypatch.setattr(Chain, "run", ran)
    assert cli.main([*CALLS[name], "-o", str(read_only)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Read-only file system" in said and str(read_only) in said
    assert list(read_only.iterdir()) == []
