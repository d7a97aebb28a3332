"""`lngswr warm-start`: where it writes, and where it must not."""

import errno
import os

import pytest
import torch

from nnunetv2_lngswr.cli.main import main
from tests.model_folders import make_model_folder


@pytest.fixture
def source(tmp_path):
    return make_model_folder(tmp_path / "m") / "fold_0" / "checkpoint_final.pth"


def said_of(capsys, *words):
    assert main(["warm-start", *map(str, words)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


def test_the_source_is_not_written_onto_itself(source, tmp_path, capsys):
    before = source.read_bytes()
    (tmp_path / "symbolic.pth").symlink_to(source)
    os.link(source, tmp_path / "hard.pth")
    around = source.parent / ".." / "fold_0" / source.name
    for out in (source, around, tmp_path / "symbolic.pth", tmp_path / "hard.pth"):
        assert "is the source itself" in said_of(capsys, source, out)
    assert source.read_bytes() == before


def test_places_that_cannot_be_written_are_named(source, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    cases = {
        tmp_path: "is a folder",
        tmp_path / "absent" / "out.pth": "there is no folder",
        tmp_path / "file" / "out.pth": "there is no folder",
        tmp_path / ("x" * 300): "File name too long",
    }
    before = sorted(tmp_path.rglob("*"))
    for out, reason in cases.items():
        assert reason in said_of(capsys, source, out)
    assert "checkpoint not found" in said_of(capsys, tmp_path / "none.pth", tmp_path / "out.pth")
    with pytest.raises(SystemExit, match="2"):
        said_of(capsys, source, "")
    assert "must not be empty" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_is_said_and_leaves_nothing(source, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full)
    assert os.strerror(errno.ENOSPC) in said_of(capsys, source, tmp_path / "out.pth")
    assert not list(tmp_path.glob("*out*")) and not list(tmp_path.glob(".*"))
